"""One page for each study, each sweep and each parity run: its jobs, what its tables say, its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import LabError
from core.journal import query
from core.journal.query import Job
from core.kind import Question, load_kind
from core.states import JobState
from core.tables import Jobs
from core.tables import query as ask
from core.tables.select import chosen
from lab.named import members
from lab.report.book import Row, natural, slug
from lab.report.doc import Block, Facts, Fold, Inline, Line, Link, Name, Page, Para, Section, Shell, Table, When
from lab.report.forms import Form, is_number
from lab.report.media import Media
from lab.report.reading import Reading
from lab.report.sections.folded import folded
from lab.report.sections.jobs import ended_cells, reason, state

PATH = "studies.html"
_MOST_PAGES = 150
_MOST_ROWS, _MOST_ANSWERS = 150, 60
_MOST_JOBS = 250
_MOST_PICTURES = 12
_STUDIES = """SELECT DISTINCT e.data ->> '$.study' FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.sweep IS NULL AND e.data ->> '$.study' != ''"""
_PARITY = "parity"
_LEAD = (
    "A study is a tree of jobs, a sweep the cells of a grid, a parity run a matrix of backends against an oracle that "
    "carries its own known-bad mutants. Each has a page with what its tables say."
)


@dataclass(frozen=True)
class Whole:
    """What a page is about. `jobs`: of a study all of its nodes; `ends`: those whose tables sum it up."""

    path: str
    title: Line
    what: str
    jobs: tuple[int, ...]
    ends: tuple[int, ...]


class StudySection:
    def __init__(self, reading: Reading, media: Media) -> None:
        self._r, self._media, self._book = reading, media, reading.book
        self.cut = False
        self.wholes = self._find()

    def pages(self) -> list[Page]:
        """The page that lists them, and theirs."""
        rows: list[Sequence[Line]] = [
            ([*w.title[:-1], Name(_text(w.title[-1]), w.path)], [w.what], self._states(w), [self._last(w)])
            for w in self.wholes
        ]
        blocks: list[Block] = [Para([_LEAD])]
        if rows:
            head: list[Line] = [["study"], ["what"], ["state"], ["last change"]]
            blocks.append(Table(["Studies, sweeps and parity runs, the newest first"], head, rows))
        else:
            blocks.append(Para(["There is none yet."], "note"))
        if self.cut:
            blocks.append(Para(["Older ones have no page."], "faint"))
        first = Page(PATH, ["Studies"], blocks, "Studies")
        return [first, *(self._page(w) for w in self.wholes)]

    def pictures(self) -> list[Block]:
        """For the page of techniques: the first picture of each study, and where the rest is."""
        out: list[Block] = []
        for w in self.wholes:
            found = [b for job in w.ends for b in self._media.of(job, 1)] if w.what == "study" else []
            if found:
                more = Para(["All of it: ", Name(_text(w.title[-1]), w.path)])
                out.append(Section(f"p-{slug(_text(w.title[-1]))}", list(w.title), [found[0], more]))
        return out

    # Which there are.

    def _find(self) -> list[Whole]:
        conn = self._r.conn
        names = {str(row[0]).rpartition("@")[0] for row in conn.execute(_STUDIES)}
        out: list[tuple[int, Whole]] = []
        inside: set[int] = set()
        for name in sorted(names):
            ids = tuple(members(conn, name))
            if not ids:
                continue
            inside.update(ids)
            jobs = self._r.know(query.jobs(conn, ids=ids))
            waited = {u.id for job in jobs for _, u in query.dependencies(conn, job.id)}
            ends = tuple(sorted(j.id for j in jobs if j.kind.endswith("-summary")))
            ends = ends or tuple(sorted(j.id for j in jobs if j.id not in waited))
            out.append((max(ids), Whole(f"studies/{slug(name)}.html", [Name(name)], "study", ids, ends)))
        for job in self._r.top():
            parity = job.kind == _PARITY and job.state is JobState.SUCCEEDED
            if job.id in inside or not (job.is_sweep or parity):
                continue
            what = "sweep" if job.is_sweep else "parity run"
            path = f"studies/{'sweep' if job.is_sweep else 'job'}-{job.id}.html"
            title: Line = self._r.called(job.id)
            out.append((job.id, Whole(path, title, what, (job.id,), (job.id,))))
        out.sort(key=lambda one: -one[0])
        self.cut = len(out) > _MOST_PAGES
        return [w for _, w in out[:_MOST_PAGES]]

    # A page.

    def _page(self, w: Whole) -> Page:
        pairs: list[tuple[Line, Line]] = [(["what"], [w.what]), (["state"], self._states(w))]
        if self._r.job(w.jobs[0]).is_sweep and len(w.jobs) == 1:
            pairs.append((["cells that ended"], ended_cells(self._r, self._r.job(w.jobs[0]))))
        blocks: list[Block] = [Facts([*pairs, (["last change"], [self._last(w)])])]
        if len(w.jobs) == 1:
            job = self._r.job(w.jobs[0])
            blocks.append(Shell(self._r.command(job.id)))
            if not job.is_sweep and job.reason:
                blocks.append(Para(reason(self._r, job)))
        pictures = [b for job in w.ends for b in self._media.of(job, 6)]
        if pictures:
            blocks.append(Section("pictures", ["Pictures"], pictures))
        done = chosen(self._r.conn, w.ends)
        blocks += self._answers(w)
        blocks += self._tables(w, done)
        if len(w.jobs) > 1:
            blocks.append(Section("jobs", ["Jobs"], [self._jobs(w)]))
            others = [j for j in w.jobs if j not in w.ends]
            parts: list[Block] = []
            for job_id in others:
                if len(parts) < _MOST_PICTURES:
                    parts += self._media.of(job_id, 2)
            if parts:
                blocks.append(Section("parts", ["Pictures of its parts"], [Fold(["Show them"], parts)]))
        else:
            blocks += self._cells(w.jobs[0])
        return Page(w.path, list(w.title), blocks, above=PATH)

    def _states(self, w: Whole) -> Line:
        """How many of its jobs are in each state; of one job or sweep its own."""
        if len(w.jobs) == 1:
            return [state(str(self._r.job(w.jobs[0]).state))]
        found: dict[JobState, list[int]] = {}
        for job_id in w.jobs:
            found.setdefault(self._r.job(job_id).state, []).append(job_id)
        name = _text(w.title[-1])
        out: list[Inline] = []
        for s in JobState:
            if s in found:
                made = self._book.made(f"jobs of study {name} {s}", len(found[s]), "counted in the journal",
                                       command=f"lab status {name} --json")  # fmt: skip
                out += [*([", "] if out else []), made, " ", state(str(s))]
        return out

    def _last(self, w: Whole) -> When:
        jobs = [self._r.job(job_id) for job_id in w.jobs]
        return When(max(t for job in jobs for t in (job.submitted, job.started, job.ended) if t is not None))

    def _jobs(self, w: Whole) -> Table:
        rows: list[Sequence[Line]] = []
        for job in (self._r.job(job_id) for job_id in w.jobs[:_MOST_JOBS]):
            rows.append(
                (
                    self._r.called(job.id),
                    [Name(job.kind)],
                    [state(str(job.state))],
                    [Name(job.lane)] if job.lane else ["–"],
                    self._took(job),
                    reason(self._r, job) or ["–"],
                )
            )
        head: list[Line] = [["job"], ["kind"], ["state"], ["lane"], ["time"], ["why"]]
        cut = "; the list is cut short" if len(w.jobs) > len(rows) else ""
        return Table(["Every job of the study", cut], head, rows, frozenset({4}))

    def _took(self, job: Job) -> Line:
        tries = [a for a in self._r.attempts(job.id) if a.seconds is not None and a.batch is None]
        if not tries:
            return ["–"]
        return [self._book.number(self._r.attempt_row(job.id, tries[-1].n), "seconds", Form.SPAN)]

    def _cells(self, job_id: int) -> Iterable[Block]:
        """Of a sweep: its axes and what failed."""
        if not self._r.job(job_id).is_sweep:
            return
        sweep = query.sweep(self._r.conn, job_id)
        if sweep.axes:
            lines = [f"{name}: {', '.join(str(v) for v in values[:20])}" + ("…" if len(values) > 20 else "")
                     for name, values in sweep.axes]  # fmt: skip
            row = self._book.add(Row(f"axes-{job_id}", "sweeps", f"axes of sweep {job_id}",
                                     {"sweep": job_id, **dict(zip((a for a, _ in sweep.axes), lines, strict=True))},
                                     "", f"lab status {job_id}", parts=(self._r.job_row(job_id),)))  # fmt: skip
            rows: list[Sequence[Line]] = [([Name(name)], [self._book.told(row, name, 300)]) for name, _ in sweep.axes]
            yield Section("axes", ["Axes"], [Table(["What it goes over"], [["axis"], ["values"]], rows)])
        failed = self._r.know(query.cells(self._r.conn, job_id, states=(JobState.FAILED,), limit=20))
        if failed:
            rows = [(self._r.called(j.id), reason(self._r, j) or ["–"]) for j in failed]
            yield Section(
                "failed", ["Failed cells"], [Table(["Cells that failed, the first"], [["cell"], ["why"]], rows)]
            )

    # Tables.

    def _tables(self, w: Whole, jobs: Jobs) -> Iterable[Block]:
        inner: list[Block] = []
        for table in self._r.tables(jobs):
            columns, rows = self._r.first_rows(table, jobs, _MOST_ROWS + 1)
            if not rows:
                continue
            where = [table, *(str(i) for i in w.ends)]
            cut = len(rows) > _MOST_ROWS
            shown = rows[:_MOST_ROWS]
            block: list[Block] = [self._table(table, columns, shown, cut, several=len(jobs) > 1)]
            whole = folded(self._r, table, columns, shown, jobs) if cut else None
            if whole is not None:
                block.insert(0, whole)
            block.append(Shell(f"lab results {' '.join(where[1:])} --table {table}"))
            inner.append(Section(f"t-{slug(table)}", ["Table ", Name(table)], block))
        if inner:
            yield Section("tables", ["Tables"], inner)

    def _table(self, table: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], cut: bool, *,
               several: bool) -> Table:  # fmt: skip
        right = frozenset(at for at, c in enumerate(columns, 1) if any(is_number(row[c]) for row in rows))
        lines: list[Sequence[Line]] = []
        for n, row in enumerate(rows, 1):
            name = self._r.table_row(table, row)
            first: Line = [
                self._book.ident(name, f"job {row['job']}, row {row['_row']}" if several else f"row {n - 1}")
            ]
            lines.append((first, *([self._book.shown(name, c)] for c in columns)))
        head: list[Line] = [["row"], *([Name(c)] for c in columns)]
        said = "; the first rows, the command below has all" if cut else ""
        return Table([Name(table), ": the columns that its kind puts first; its row has all", said], head, lines, right)

    # Questions of the kind.

    def _answers(self, w: Whole) -> Iterable[Block]:
        kinds = {self._r.job(i).kind for i in w.ends}
        if len(kinds) != 1:
            return
        done = [i for i in w.ends if self._r.job(i).is_sweep or self._r.job(i).state is JobState.SUCCEEDED]
        try:
            questions = load_kind(kinds.pop()).questions()
        except LabError:
            return
        inner: list[Block] = []
        for name, question in questions.items():
            if question.jobs == 0 and done:
                inner += self._answer(w, name, question, done)
        if inner:
            yield Section("asked", ["What the kind is asked"], inner)

    def _answer(self, w: Whole, name: str, question: Question, done: Sequence[int]) -> list[Block]:
        condition = chosen(self._r.conn, done).condition("job")
        if condition is None:
            return []
        sql = question.sql.format(jobs=condition)
        try:
            found = ask(self._r.home, self._r.conn, sql, warnings=self._r.warnings)
        except LabError:
            return []  # none of them has such a table
        columns = list(found.column_names)
        # Sums that threads make differ in their last bits from one time to the next, and so may the order of rows.
        rows = [{c: float(f"{v:.12g}") if isinstance(v, float) else v for c, v in r.items()} for r in found.to_pylist()]
        rows.sort(key=lambda row: (_words(row), [repr(v) for v in row.values()]))
        if not rows:
            return []
        line = f"lab results {' '.join(map(str, done))} --ask {name}"
        lines: list[Sequence[Line]] = []
        for n, row in enumerate(rows[:_MOST_ANSWERS]):
            key = f"asked-{slug(w.path.removesuffix('.html').replace('/', '-'))}-{slug(name)}-{n}"
            self._book.add(Row(key, "asked", f"{name}, answer {n}", row, "", line, "an answer over committed rows",
                               tuple(self._r.job_row(i) for i in done)))  # fmt: skip
            lines.append(([self._book.ident(key, f"answer {n}")], *([self._book.shown(key, c)] for c in columns)))
        right = frozenset(at for at, c in enumerate(columns, 1) if any(is_number(row[c]) for row in rows))
        head: list[Line] = [["answer"], *([Name(c)] for c in columns)]
        cut = "; the first answers" if len(rows) > _MOST_ANSWERS else ""
        table = Table([Name(name), ": ", Name(question.about), cut], head, lines, right)
        return [Section(f"q-{slug(name)}", [Name(question.about)], [table, Shell(line)])]


def summary(section: StudySection) -> Line:
    return [Link("Studies", PATH)] if section.wholes else ["no study, sweep or parity run yet"]


def _words(row: Mapping[str, Any]) -> list[list[tuple[int, str]]]:
    """By what names a row, numbers as numbers."""
    return [natural(str(v)) for v in row.values() if not isinstance(v, float)]


def _text(x: Inline) -> str:
    return x if isinstance(x, str) else getattr(x, "text", "")
