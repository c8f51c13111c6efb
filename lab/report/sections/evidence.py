"""The evidence index: every sealed file with its digest, size, job, attempt and lane.

The site shows the newest; all of them are in a file of lines beside it, so that a home of any size stays usable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.journal import query
from core.journal.query import Job
from core.states import JobState
from lab.evidence import batch_folders, listed, plain_cells
from lab.report.doc import Block, Code, Hash, Ident, Line, Name, Number, Page, Para, Section, Table
from lab.report.forms import Form
from lab.report.reading import Held, Reading
from lab.report.sections.jobs import one_line

PATH, LINES = "evidence.html", "evidence/files.tsv"
_A_PAGE, _MOST, _MOST_TROUBLES = 200, 1000, 100
_KEPT = ("artifacts/", "results/", "checkpoints/")  # what a page shows; specs, logs and environments are in the file
_BELOW = "The newest artifacts, results and checkpoints stand below. "
_HEAD = "sha256\tbytes\trun directory\tfile\tjob\tattempt\tlane"


@dataclass
class Index:
    """All sealed files. `shown`: those of a page, the newest first; `lines`: all, in order of jobs."""

    files: int = 0
    bytes: int = 0
    shown: list[Held] = field(default_factory=list)
    more: bool = False
    lines: list[str] = field(default_factory=lambda: [_HEAD])
    problems: list[tuple[int, str]] = field(default_factory=list)
    folded: dict[int, tuple[int, int]] = field(default_factory=dict)  # sweep -> (files, bytes)


def read(r: Reading) -> Index:
    """Go through all seals. Files are not hashed again here: `lab verify` does."""
    out = Index()
    newest: list[list[Held]] = []
    for job in r.top():
        if job.is_sweep:
            _sweep(r, out, job)
        elif job.state is JobState.SUCCEEDED:
            files, problem = r.files(job.id)
            if problem:
                out.problems.append((job.id, problem))
            for held in files:
                _enter(r, out, held)
            newest.append([h for h in files if h.name.startswith(_KEPT)])
    for files in reversed(newest):
        room = _MOST - len(out.shown)
        out.shown += files[:room]
        out.more = out.more or len(files) > room
    return out


def _enter(r: Reading, out: Index, held: Held) -> None:
    out.files += 1
    out.bytes += held.bytes
    where = r.run_of(held.job, held.attempt)
    out.lines.append(
        f"{held.sha256}\t{held.bytes}\t{where}\t{one_line(held.name)}\t{held.job}\t{held.attempt}\t{held.lane}"
    )


def _sweep(r: Reading, out: Index, job: Job) -> None:
    """Batches by their seals, cells that ran by themselves by theirs."""
    cells = query.sweep(r.conn, job.id).own
    files = size = 0
    for batch in batch_folders(r.conn, cells.start, cells.stop - 1):
        path = r.home.batches / batch.dir / "manifest.json"
        if batch.discarded is not None or batch.manifest is None:
            continue
        found = listed(path) if path.is_file() else None
        if found is None:
            out.problems.append((job.id, "the seal of a batch is missing or cannot be read"))
            continue
        for name, (digest, count) in sorted(found.items()):
            files, size = files + 1, size + count
            out.lines.append(f"{digest}\t{count}\tbatches/{batch.dir}\t{one_line(name)}\t{job.id}\t\t")
    for cell in plain_cells(r.conn, cells.start, cells.stop - 1):
        held, problem = r.files(cell)
        if problem:
            out.problems.append((cell, problem))
        for one in held:
            files, size = files + 1, size + one.bytes
            _enter(r, out, one)
            out.files, out.bytes = out.files - 1, out.bytes - one.bytes
    out.files, out.bytes = out.files + files, out.bytes + size
    if files:
        out.folded[job.id] = (files, size)


def totals(r: Reading, index: Index) -> tuple[Number, Number]:
    """How many files are sealed, and their bytes."""
    how = "counted over the seals of all attempts that were committed, batches among them"
    files = r.book.made("sealed files", index.files, how, command=_summed("1", "1"))
    size = r.book.made("bytes of sealed files", index.bytes, how, command=_summed("$2", "1"), form=Form.SIZE)
    return files, size


def _summed(what: str, where: str) -> str:
    """A line that adds up a column of the file of lines, in the folder of the report."""
    return f"awk -F'\\t' 'NR > 1 && {where} {{ n += {what} }} END {{ print n }}' {LINES}"


def pages(r: Reading, index: Index) -> list[Page]:
    """The index, so many files to a page."""
    files, size = totals(r, index)
    lead: list[Block] = [
        Para([files, " files of ", size, " are under a seal: ", Code(LINES), " lists all with their digests. ",
              _BELOW, Code("lab verify"), " hashes them again."]),
        *_troubles(r, index),
        *_folds(r, index),
    ]  # fmt: skip
    chunks = [index.shown[at : at + _A_PAGE] for at in range(0, len(index.shown), _A_PAGE)] or [[]]
    names = [PATH, *(f"evidence/{n}.html" for n in range(2, len(chunks) + 1))]
    out = []
    for n, some in enumerate(chunks):
        blocks: list[Block] = [] if n else lead
        if some:
            blocks = [*blocks, Section("files", ["Files"], [_table(r, some)])]
        if n == len(chunks) - 1 and index.more:
            blocks = [*blocks, Para(["Older files are in ", Code(LINES), "."], "faint")]
        before = names[n - 1] if n else ""
        behind = names[n + 1] if n + 1 < len(names) else ""
        out.append(Page(names[n], ["Evidence index"], blocks, "" if n else "Evidence", "" if n == 0 else PATH,
                        before, behind))  # fmt: skip
    return out


def _table(r: Reading, some: Sequence[Held]) -> Table:
    rows: list[Sequence[Line]] = []
    for held in some:
        row = r.file_row(held)
        rows.append(
            (
                [r.book.told(row, "file")],
                [Hash(held.sha256)],
                [r.book.number(row, "bytes", Form.WHOLE)],
                [Ident(f"job {held.job}", r.job_row(held.job))],
                [Ident(f"attempt {held.attempt}", r.attempt_row(held.job, held.attempt))],
                [Name(held.lane)],
            )
        )
    head: list[Line] = [["file"], ["digest"], ["bytes"], ["job"], ["attempt"], ["lane"]]
    return Table(["Sealed files, the newest job first"], head, rows, frozenset({2}))


def _folds(r: Reading, index: Index) -> Iterator[Block]:
    if not index.folded:
        return
    rows: list[Sequence[Line]] = []
    for sweep, (files, size) in sorted(index.folded.items()):
        how, row = "counted over the seals of its batches and cells", (r.job_row(sweep),)
        cells = query.sweep(r.conn, sweep).own
        of = f"$5 >= {sweep} && $5 < {cells.stop}"
        n = r.book.made(f"sealed files of sweep {sweep}", files, how, command=_summed("1", of), parts=row)
        b = r.book.made(f"bytes of sweep {sweep}", size, how, command=_summed("$2", of), parts=row, form=Form.SIZE)
        rows.append((r.called(sweep), [n], [b]))
    head: list[Line] = [["sweep"], ["files"], ["size"]]
    yield Section("sweeps", ["Sweeps"], [Table(["Sealed files of sweeps, folded"], head, rows, frozenset({1, 2}))])


def _troubles(r: Reading, index: Index) -> Iterator[Block]:
    if not index.problems:
        return
    rows: list[Sequence[Line]] = []
    for n, (job, said) in enumerate(index.problems[:_MOST_TROUBLES], 1):
        told = r.book.said(f"seal {n} of job {job}", said, "met while reading its seal", command=f"lab verify {job}",
                           parts=[r.job_row(job)])  # fmt: skip
        rows.append((r.called(job), [told]))
    cut = "; the list is cut short" if len(index.problems) > len(rows) else ""
    table = Table(["What is wrong with each", cut], [["job"], ["what is wrong"]], rows)
    yield Section("seals", ["Seals that do not hold"], [table])
