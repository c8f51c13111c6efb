"""`lab results`: result tables, shown, queried, or written to a file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import BadInput, NotFound
from lab import arguments, completion
from lab.commands._tables import SHOWN, Head, TablesReport, WrittenReport
from lab.commands._whose import Whose, whose
from lab.output import JsonFace, Page, human
from lab.questions import main_table
from lab.session import Session, session

if TYPE_CHECKING:
    import sqlite3

    from core.tables import Choice, Stream
    from lab.plot import Asked

_FORMATS = ("table", "csv", "json", "parquet", "arrow")
_ENDINGS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".arrow": "arrow"}
_FIGURE = "Figure"

EPILOG = """
Examples:
  lab results 17
  lab results 40 --where "error < 0.1" --sort -error --limit 20
  lab results 40 --params --columns size,backend,error -o sweep.csv
  lab results --table parity --format csv -o parity.csv
  lab results --sql "select backend, max(error) from parity group by backend"
  lab results --sql "select * from parity join jobs using (job) where tags like '%night%'"
  lab results parity --ask worst
  lab results parity 17 21 --ask drift
  lab results dose                       what the study dose led to, as it was submitted last
  lab results dose --table dose_metrics  a table of any of its jobs
  lab results --tag night
  lab results 40 --plot sweep.png
  lab results 40 --plot speed.pdf --x size --y seconds --by backend --where "seconds > 0"

A sweep stands for its cells, and its axes become the first columns. Of a study, and of all jobs
with a tag, people see the tables of the jobs that no other of them waits for. A figure has the first axis
across and the first number of the table upward, unless --x and --y say otherwise. A kind may have
a figure of its own (train: the branches); a table, or --x, --y or --by, asks for the plain one.
"""


def results_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE] [ID]",
            help="A table; only of these jobs and sweeps, or of a study.",
            autocompletion=completion.finished_jobs_or_studies,
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option("--tag", metavar="TAG", help="Only jobs with this tag.", autocompletion=completion.tags),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", "-t", metavar="NAME", help="Only this table.", autocompletion=completion.tables),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="EXPR", help="Only rows for which this holds, as in SQL.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Only these columns, in this order.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="A,-B", help="Sort by these columns; -B: greatest first.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the first N rows.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", help="Only the last N rows.")] = None,
    params: Annotated[
        bool, typer.Option("--params", help="Put the parameters of its job in front of each row.")
    ] = False,
    sql: Annotated[
        str | None, typer.Option("--sql", metavar="SELECT", help="A query over all tables, and over `jobs` (DuckDB).")
    ] = None,
    ask: Annotated[
        str | None, typer.Option("--ask", metavar="NAME", help="A question that the kind of these jobs answers.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(_FORMATS),
            help="How to show or write them.",
            autocompletion=lambda: list(_FORMATS),
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file (format by its ending).")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw them: FILE.png, .pdf or .svg.", rich_help_panel=_FIGURE),
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="COLUMN", help="What goes across.", rich_help_panel=_FIGURE)
    ] = None,
    y: Annotated[
        str | None, typer.Option("--y", metavar="COLUMN", help="What goes upward.", rich_help_panel=_FIGURE)
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="A line for each value.", rich_help_panel=_FIGURE)
    ] = None,
) -> None:
    """Show, query or write result tables.

    Only rows of jobs that succeeded are there, each with its job, attempt, lane and key.
    """
    here = session()
    words = (where, columns, sort, limit, tail, sql, ask, form, output, x, y, by)
    plain = table is None and not params and all(word is None for word in words)
    if plot is not None and plain and _own_figure(here, plot, ids, tag):
        return
    narrow = {"--where": where, "--columns": columns, "--sort": sort, "--limit": limit, "--tail": tail}
    if ask is not None:
        arguments.refuse_beside("--ask", {"--sql": sql, "--plot": plot, **narrow, "--params": params})
    if sql is not None:
        arguments.refuse_beside("--sql", {"jobs": ids, "--tag": tag, "--table": table, **narrow, "--params": params})
    if limit is not None and tail is not None:
        raise BadInput("--limit and --tail were both given", hint="choose one end")
    for option, n in (("--limit", limit), ("--tail", tail)):
        if n is not None and n < 0:
            raise BadInput(f"{option} {n} is negative", hint="give a number of rows")
    wanted = _Wanted(ids, tag, table, where or "", _names(columns), _names(sort), limit, tail, params, sql, ask)
    figure = _figure(plot, {"--x": x, "--y": y, "--by": by}, form, output, sql)
    form = _format(form, output)
    warnings: list[str] = []
    with _opened(here, wanted, warnings) as tables:
        if plot is not None:
            _draw(here, tables, wanted, plot, figure, warnings)
        elif output is not None:
            _write(here, output, _only(tables, "a file"), form, warnings)
        elif form == "table":
            _show(here, tables, warnings)
        else:
            _pipe(here, _only(tables, form), form, warnings)


def _own_figure(here: Session, path: Path, words: Sequence[str] | None, tag: str | None) -> bool:
    """Draw what the kind of these jobs draws of them all; False: it has no figure of its own."""
    from lab.commands._plotted import draw_own

    if not words and tag is None:
        return False
    warnings: list[str] = []
    with here.reading() as journal:
        meant = whose(journal.conn, words, tag, None)
        if meant.table is not None or meant.all_jobs:
            return False
        done = draw_own(here.home, journal.conn, meant.ends, path, warnings)
    _warn(here, warnings)
    if done is not None:
        here.out.show(done)
    return done is not None


def show_tables(here: Session, ids: Sequence[int]) -> None:
    """The tables of these jobs, which were submitted together, if they have any."""
    warnings: list[str] = []
    wanted = _Wanted([str(i) for i in ids], None, None, "", (), (), None, None, False, None, None, submitted=True)
    try:
        with _opened(here, wanted, warnings) as tables:
            _show(here, tables, warnings)
    except NotFound:
        here.out.remark("no result tables: these jobs wrote none")


@dataclass(frozen=True)
class _Wanted:
    ids: Sequence[str] | None
    tag: str | None
    table: str | None
    where: str
    columns: tuple[str, ...]
    sort: tuple[str, ...]
    limit: int | None
    tail: int | None
    params: bool
    sql: str | None
    ask: str | None
    submitted: bool = False

    @property
    def narrowed(self) -> bool:
        return bool(self.where or self.columns or self.sort)


_Tables = list[tuple[str, "Choice | str"]]


@contextlib.contextmanager
def _opened(here: Session, wanted: _Wanted, warnings: list[str]) -> Iterator[_Opened]:
    with here.reading() as journal:
        conn = journal.conn
        if wanted.sql is not None:
            yield _Opened(here, conn, [("", wanted.sql)], warnings)
        elif wanted.ask is not None:
            from lab.questions import sql_of

            meant = whose(conn, wanted.ids, wanted.tag, wanted.table, asked=True)
            ids = meant.ends if meant.table is None else meant.ids
            yield _Opened(here, conn, [("", sql_of(conn, wanted.ask, meant.table, ids))], warnings)
        else:
            whole = isinstance(here.out, JsonFace) and not wanted.narrowed
            meant = whose(conn, wanted.ids, wanted.tag, wanted.table, submitted=wanted.submitted)
            tables, others = _choices(conn, wanted, meant, whole=whole)
            yield _Opened(here, conn, tables, warnings, others, meant.ids)


class _Opened:
    """What is to be shown, table by table; each is read when it is asked for."""

    def __init__(
        self,
        here: Session,
        conn: sqlite3.Connection,
        tables: _Tables,
        warnings: list[str],
        others: Sequence[str] = (),
        ids: Sequence[int] = (),
    ) -> None:
        self._here, self.conn, self._warnings = here, conn, warnings
        self.tables = tables
        self.others = others  # which the same jobs wrote as well
        self.ids = ids  # that were named

    @contextlib.contextmanager
    def rows(self, what: Choice | str) -> Iterator[Stream]:
        from core.tables import stream

        with stream(self._here.home, self.conn, what, warnings=self._warnings) as found:
            yield found


def _choices(conn: sqlite3.Connection, wanted: _Wanted, meant: Whose, *, whole: bool) -> tuple[_Tables, Sequence[str]]:
    """The tables, and the names of those left out.

    Of several, people see the one that is named as the kind; of a study, those of what it leads to.

    Args:
        whole: all of them.
    """
    from core.tables import Choice, tables_of
    from core.tables.read import nothing
    from core.tables.select import chosen
    from lab import axes

    ids = meant.ids
    jobs = None if meant.all_jobs else chosen(conn, ids)
    names = [meant.table] if meant.table is not None else tables_of(conn, jobs)
    if not names:
        raise _no_tables(conn, ids) or nothing(conn, None, jobs)
    shown = names
    if len(names) > 1 and not whole:
        if meant.ends != ids:
            shown = tables_of(conn, chosen(conn, meant.ends)) or names
        main = main_table(conn, meant.ends, shown)
        shown = [main] if main is not None else shown
    names, others = shown, [n for n in names if n not in shown]
    if len(names) > 1 and wanted.narrowed:
        raise BadInput(f"there are several tables: {', '.join(names)}", hint="choose one with --table")
    swept = axes.axes_of(conn, ids)
    beside = None
    if wanted.params:
        beside = axes.parameter_table(conn, jobs)
        beside = beside.select(["job", *(n for n in _first(swept, beside.column_names) if n != "job")])
    elif swept:
        beside = axes.parameter_table(conn, jobs, swept)
    choices: _Tables = [
        (
            name,
            Choice(
                name,
                jobs,
                beside,
                wanted.params,
                wanted.columns,
                wanted.where,
                wanted.sort,
                wanted.limit,
                wanted.tail,
                first=swept,
            ),
        )
        for name in names
    ]
    return choices, others


def _no_tables(conn: sqlite3.Connection, ids: Sequence[int]) -> NotFound | None:
    """That one job succeeded and wrote none; None where something else is the matter."""
    from core.journal import query
    from core.states import JobState
    from lab.evidence import discarded_at

    job = query.job(conn, ids[0]) if len(ids) == 1 else None
    if job is None or job.is_sweep or job.state is not JobState.SUCCEEDED or discarded_at(conn, job.id) is not None:
        return None
    return NotFound(
        f"job {job.id} ({job.kind}) has no tables", hint=f"`lab logs {job.id}` and `lab fetch {job.id}` show the rest"
    )


def _first(some: Sequence[str], all_: Sequence[str]) -> list[str]:
    return [*(n for n in some if n in all_), *(n for n in all_ if n not in some)]


def _show(here: Session, opened: _Opened, warnings: list[str]) -> None:
    whole = isinstance(here.out, JsonFace)
    heads = []
    trouble: NotFound | None = None
    for name, what in opened.tables:
        try:
            with opened.rows(what) as rows:
                heads.append(_head(name, rows, None if whole else SHOWN))
        except NotFound as error:  # one table cannot be read; the others can
            if len(opened.tables) == 1:
                raise
            trouble = error
            warnings.append(str(error))
    if trouble is not None and not heads:
        raise trouble
    _warn(here, warnings)
    here.out.show(TablesReport(heads, tuple(warnings)))
    if opened.others and here.out.people:
        here.out.remark(f"also: {', '.join(opened.others)} (--table NAME)")


def _head(name: str, rows: Stream, most: int | None) -> Head:
    import pyarrow as pa

    kept, count = [], 0
    for batch in rows.batches:
        if most is None or count < most:
            kept.append(batch if most is None else batch.slice(0, most - count))
        count += batch.num_rows
    return Head(name, pa.Table.from_batches(kept, rows.schema), count)


def _write(here: Session, path: Path, opened: tuple[_Opened, Choice | str], form: str, warnings: list[str]) -> None:
    from lab import exports

    with opened[0].rows(opened[1]) as rows:
        _warn(here, warnings)
        with exports.new_file(path) as out:
            if form == "table":
                head = _head("", rows, SHOWN)
                out.write(("\n".join(TablesReport([head]).text(Page(None, False, True, False))) + "\n").encode())
                count = head.total
            else:
                count = exports.write(rows, form, out)
    here.out.show(WrittenReport(path, form, count))


def _draw(here: Session, opened: _Opened, wanted: _Wanted, path: Path, asked: Asked, warnings: list[str]) -> None:
    from core.tables import Choice
    from lab.commands._plotted import draw, title_of

    name, what = opened.tables[0]
    _only(opened, "a figure")
    axes = what.first if isinstance(what, Choice) else ()
    title = title_of(opened.conn, opened.ids, name, wanted.where) if wanted.sql is None else human.clean(wanted.sql)
    with opened.rows(what) as rows:
        narrowed = bool(wanted.where or wanted.sql)
        done = draw(rows, path, asked, axes=axes, title=title, narrowed=narrowed)
    _warn(here, warnings)
    here.out.show(done)


def _pipe(here: Session, opened: tuple[_Opened, Choice | str], form: str, warnings: list[str]) -> None:
    from lab import exports

    with opened[0].rows(opened[1]) as rows:
        _warn(here, warnings)
        with io.BufferedWriter(exports.Pipe(here.out.raw_bytes), 1 << 20) as out:
            exports.write(rows, form, out)


def _warn(here: Session, warnings: Sequence[str]) -> None:
    for line in warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")


def _only(opened: _Opened, what: str) -> tuple[_Opened, Choice | str]:
    if len(opened.tables) != 1:
        raise BadInput(
            f"{what} holds one table, but there are {', '.join(n for n, _ in opened.tables)}",
            hint="choose one with --table",
        )
    return opened, opened.tables[0][1]


def _figure(
    plot: Path | None, named: dict[str, str | None], form: str | None, output: Path | None, sql: str | None
) -> Asked:
    """The columns that were named for a figure, once it is clear that there is to be one."""
    from lab.plot import Asked, format_of

    given = [option for option, column in named.items() if column is not None]
    if plot is None and given:
        raise BadInput(f"{given[0]} was given without --plot", hint="name the file of the figure with --plot FILE.png")
    if plot is not None:
        format_of(plot)
        for option, value in (("--format", form), ("--output", output)):
            if value is not None:
                raise BadInput(f"--plot was given together with {option}", hint="choose one of them")
        missing = [option for option in ("--x", "--y") if named[option] is None]
        if sql is not None and missing:
            hint = f"name the column with {missing[0]} COLUMN"
            raise BadInput(f"a figure of --sql needs --x and --y, and {missing[0]} is missing", hint=hint)
    return Asked(*named.values())


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(n.strip() for n in text.split(",") if n.strip()) if text else ()


def _format(form: str | None, output: Path | None) -> str:
    if form is None and output is not None:
        form = {**_ENDINGS, ".feather": "arrow"}.get(output.suffix)
        if form is None:
            raise BadInput(f"the ending of {output} says no format", hint="add --format csv, json, parquet or arrow")
    form = form or "table"
    if form not in _FORMATS:
        raise BadInput(f"--format {form!r} does not exist", hint=f"there are: {', '.join(_FORMATS)}")
    return form
