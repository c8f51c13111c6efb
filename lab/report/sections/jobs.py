"""Live work, blockers, and the commands that make every job: what the journal says of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.journal import query
from core.journal.query import Job
from core.states import Cause, JobState, LaneState
from lab.report import lines
from lab.report.book import Row, slug
from lab.report.doc import (
    Block,
    Code,
    Fold,
    Inline,
    Line,
    Mark,
    Name,
    Number,
    Page,
    Para,
    Section,
    Shell,
    Table,
    When,
    joined,
)
from lab.report.reading import Reading

LIVE, BLOCKERS, COMMANDS = "live.html", "blockers.html", "commands.html"
LINES = "evidence/commands.tsv"
TONES = {"succeeded": "good", "failed": "bad", "running": "good", "cancelled": "faint", "skipped": "faint",
         "held": "warn", "cancelling": "warn", "up": "good", "quarantined": "bad", "down": "bad",
         "unreachable": "warn", "draining": "warn"}  # fmt: skip
_TYPED = (
    "What was typed, the newest first, with the jobs that it made; a job that was not typed has the line that makes "
    "it. The row of any job has the line for that job alone. All of them are in "
)
_MOST = 100  # jobs of a list
_MOST_LINES = 400  # commands in the site; the file beside it has all
_NAMED = 8
_LIVE = (JobState.RUNNING, JobState.CANCELLING)
_BY_STATE = "select state, count(*) n from jobs where sweep is {} null group by 1 order by 1"
_LATER = """SELECT 1 FROM job_state s WHERE s.key = ? AND s.id > ? AND s.state = 'succeeded' LIMIT 1"""


def state(word: str) -> Mark:
    return Mark(word, TONES.get(word, ""))


@dataclass(frozen=True)
class Count:
    state: JobState
    jobs: Number | None
    cells: Number | None


def counts(r: Reading) -> list[Count]:
    """How many jobs are in each state, a sweep as one; and how many cells of sweeps."""
    top = query.counts(r.conn, top=True)
    whole: dict[JobState, int] = {}
    for word, n in r.conn.execute(
        "SELECT state, count(*) FROM job_state WHERE sweep IS NOT NULL GROUP BY sweep, state"
    ):
        whole[JobState(word)] = whole.get(JobState(word), 0) + int(n)

    def made(what: str, n: int, null: str) -> Number:
        command = f'lab results --sql "{_BY_STATE.format(null).replace("  ", " ")}"'
        return r.book.made(what, n, "counted in the journal", command=command)

    return [
        Count(
            s,
            made(f"jobs {s}", top[s], "") if s in top else None,
            made(f"cells {s}", whole[s], "not") if s in whole else None,
        )
        for s in JobState
        if s in top or s in whole
    ]


def counts_table(found: Sequence[Count]) -> Table:
    rows: list[Sequence[Line]] = [
        ([state(str(c.state))], [c.jobs] if c.jobs else ["–"], [c.cells] if c.cells else ["–"]) for c in found
    ]
    head: list[Line] = [["state"], ["jobs and sweeps"], ["cells of sweeps"]]
    return Table(["Jobs by state"], head, rows, frozenset({1, 2}))


def live(r: Reading) -> Page:
    """What runs, and what waits."""
    running = r.know(query.jobs(r.conn, states=_LIVE, top=True, newest_first=False))
    queued = r.know(query.jobs(r.conn, states=(JobState.QUEUED,), top=True, newest_first=False, limit=_MOST + 1))
    blocks: list[Block] = [
        Para(["As the journal has it: times are those at which something was written down, not ages."])
    ]
    head: list[Line] = [["job"], ["state"], ["lane"], ["since"], ["cells ended"], ["next"]]
    rows: list[Sequence[Line]] = []
    for job in running[:_MOST]:
        rows.append(
            (
                r.called(job.id),
                [state(str(job.state))],
                [Name(job.lane)] if job.lane else ["–"],
                [When(job.started or job.submitted)],
                ended_cells(r, job),
                [Code(f"lab logs {job.id} -f" if not job.is_sweep else f"lab status {job.id} --cells")],
            )
        )
    blocks.append(Section("running", ["Running"], [_listed("Jobs and sweeps that run", head, rows, len(running))]))
    head = [["job"], ["waits for"], ["submitted"], ["cells ended"]]
    rows = []
    for job in queued[:_MOST]:
        rows.append((r.called(job.id), waits(r, job), [When(job.submitted)], ended_cells(r, job)))
    blocks.append(Section("queued", ["Queued"], [_listed("Jobs and sweeps that wait", head, rows, len(queued))]))
    return Page(LIVE, ["Live work"], blocks, "Live work")


def ended_cells(r: Reading, job: Job) -> Line:
    """How far a sweep is."""
    if not job.is_sweep:
        return ["–"]
    found = query.sweep_counts(r.conn, job.id)
    ended = sum(n for s, n in found.items() if s.terminal)
    command = f"lab status {job.id} --json"
    row = (r.job_row(job.id),)
    done = r.book.made(f"cells of sweep {job.id} that ended", ended, "counted in the journal", command=command,
                       parts=row)  # fmt: skip
    whole = r.book.made(f"cells of sweep {job.id}", sum(found.values()), "counted in the journal", command=command,
                        parts=row)  # fmt: skip
    return [done, " of ", whole]


def waits(r: Reading, job: Job) -> Line:
    """What a queued job waits for."""
    found = [(cond, other) for cond, other in query.dependencies(r.conn, job.id) if not other.state.terminal]
    if found:
        out = joined([[r.book.ident(r.job_row(other.id)), f" ({other.state})"] for _, other in found[:_NAMED]])
        return [*out, *([" and more"] if len(found) > _NAMED else [])]
    return reason(r, job) or ["a place on a lane"]


def reason(r: Reading, job: Job) -> list[Inline]:
    """Cause and reason, as the journal's row says them."""
    row = r.job_row(job.id)
    out: list[Inline] = []
    if job.cause and job.cause not in (job.state, Cause.OK):
        out.append(Mark(job.cause))
    if job.reason and job.reason != job.state:
        out += [*([": "] if out else []), r.book.told(row, "reason", 400)]
    return out


def blockers(r: Reading) -> Page:
    """What failed and was not mended, what is held, what waits for that, and lanes that take nothing."""
    blocks: list[Block] = []
    bad = r.know(query.jobs(r.conn, states=(JobState.FAILED,), top=True, limit=20 * _MOST))
    failed = [j for j in bad if r.conn.execute(_LATER, (j.key, j.id)).fetchone() is None]
    head: list[Line] = [["job"], ["why"], ["ended"], ["next"]]
    rows: list[Sequence[Line]] = []
    for job in failed[:_MOST]:
        again = f"lab rerun {job.id}" + (" --failed" if job.is_sweep else "")
        rows.append((r.called(job.id), [*reason(r, job), *_first(r, job)], [When(job.ended)], [Code(again)]))
    told = "Jobs that failed, and that no later run of the same key mended; the newest first"
    blocks.append(Section("failed", ["Failed"], [_listed(told, head, rows, len(failed))]))
    held = r.know(query.jobs(r.conn, states=(JobState.HELD,), top=True, newest_first=False, limit=_MOST + 1))
    rows = [(r.called(j.id), reason(r, j) or ["–"], [When(j.submitted)], [Code(f"lab release {j.id}")]) for j in held]
    head = [["job"], ["why"], ["submitted"], ["next"]]
    blocks.append(Section("held", ["Held"], [_listed("Jobs that a person holds", head, rows[:_MOST], len(held))]))
    rows = []
    for lane in query.lanes(r.conn):
        if lane.state is not LaneState.UP:
            row = lane_row(r, lane.name)
            said: Line = [r.book.told(row, "reason", 400)] if lane.reason else ["–"]
            rows.append(([Name(lane.name, "lanes.html")], [state(str(lane.state))], said))
    table = _listed("Lanes on which nothing is placed", [["lane"], ["state"], ["why"]], rows, len(rows))
    blocks.append(Section("lanes", ["Lanes that take nothing"], [table]))
    odd = [j for j in query.jobs(r.conn, states=(JobState.SUCCEEDED,), top=True, limit=20 * _MOST) if j.undeclared]
    r.know(odd)
    rows = [(r.called(j.id), _undeclared(r, j), [Code(f"lab explain {j.id}")]) for j in odd[:_MOST]]
    head = [["job"], ["read"], ["next"]]
    told = "Jobs that read files which were not declared: they never answer the cache and promote nothing"
    blocks.append(Section("undeclared", ["Undeclared"], [_listed(told, head, rows, len(odd))]))
    blocks.append(Section("unread", ["Not readable"], _warned(r)))
    return Page(BLOCKERS, ["Blockers"], blocks, "Blockers")


def lane_row(r: Reading, name: str) -> str:
    """Enter the journal's row of a lane."""
    row = f"lane-{slug(name)}"
    if row not in r.book.rows:
        (lane,) = (each for each in query.lanes(r.conn) if each.name == name)
        values = {"lane": lane.name, "state": str(lane.state), "reason": lane.reason, "wish": lane.wish}
        values |= {column: value for column, value in lane.info.items() if column not in values}
        r.book.add(Row(row, "lanes", f"lane {name}", values, command="lab lanes --verbose --json"))
    return row


def _first(r: Reading, job: Job) -> Line:
    """The first cell of a sweep that failed."""
    first = query.first_failure(r.conn, job.id) if job.is_sweep else None
    if first is None:
        return []
    r.know([first])
    return [". First: ", *r.called(first.id), " ", *reason(r, first)]


def _undeclared(r: Reading, job: Job) -> Line:
    tries = [a for a in r.attempts(job.id) if a.undeclared]
    if not tries:
        return ["–"]
    row = r.attempt_row(job.id, tries[-1].n)
    return [r.book.told(row, "undeclared", 300)]


def _warned(r: Reading) -> list[Block]:
    if not r.warnings:
        return [Para(["Everything that was looked for could be read."])]
    rows: list[Sequence[Line]] = []
    for n, text in enumerate(dict.fromkeys(r.warnings), 1):
        rows.append(([r.book.said(f"warning {n}", text, "met while reading", command="lab verify")],))
    return [_listed("What could not be read, and is in no number of this report", [["what"]], rows, len(rows))]


def _listed(caption: str, head: Sequence[Line], rows: Sequence[Sequence[Line]], whole: int) -> Block:
    if not rows:
        return Para([f"{caption}: none."], "faint")
    return Table([caption, "; the list is cut short" if whole > len(rows) else ""], head, rows)


def one_line(text: str) -> str:
    """`text` for a file of lines with tabs between."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True)
class _Line:
    text: str
    jobs: tuple[int, ...]


def commands(r: Reading) -> tuple[list[Page], str]:
    """The page of commands, and all of them as lines: job, command."""
    typed: dict[str, list[int]] = {}
    alone: list[Job] = []
    everything = ["job\tcommand"]
    for job in r.top():
        everything.append(f"{job.id}\t{one_line(r.command(job.id))}")
        if said := lines.typed(r.spec(job)):
            typed.setdefault(said, []).append(job.id)
        else:
            alone.append(job)
    found = [_Line(text, tuple(ids)) for text, ids in typed.items()]
    found += [_Line(r.command(job.id), (job.id,)) for job in alone[-_MOST_LINES:]]
    found.sort(key=lambda one: -one.jobs[-1])
    blocks: list[Block] = [
        Para([_TYPED, Code(LINES), "."]),
        Section("report", ["This report"], [Shell("lab report"), Shell("lab report --check")]),
    ]
    for n, one in enumerate(found[:_MOST_LINES]):
        many = len(one.jobs) > 1
        title: list[Inline] = [Name(_whole(r, one)), " and its jobs"] if many else [*r.called(one.jobs[0])]
        inner: list[Block] = [Shell(one.text)]
        if many:
            inner.append(Fold(["Jobs that it made"], list(_made(r, one.jobs))))
        blocks.append(Section(f"c-{n}", title, inner))
    if len(found) > _MOST_LINES:
        blocks.append(Para(["Older ones are in the file."], "faint"))
    page = Page(COMMANDS, ["Runnable commands"], blocks, "Commands")
    return [page], "\n".join(everything) + "\n"


def _whole(r: Reading, one: _Line) -> str:
    return r.job(one.jobs[0]).name.partition("/")[0] or r.job(one.jobs[0]).kind


def _made(r: Reading, ids: Sequence[int]) -> Iterable[Block]:
    rows: list[Sequence[Line]] = []
    for job_id in ids[:_MOST]:
        rows.append((r.called(job_id), [state(str(r.job(job_id).state))], [Code(r.command(job_id))]))
    yield _listed("Each with the line that makes it alone", [["job"], ["state"], ["command"]], rows, len(ids))
