"""`lab results`: result tables, shown, queried, or written to a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import BadInput, NotFound
from lab import arguments, completion
from lab.output import Page, Report, human
from lab.session import Session, session

if TYPE_CHECKING:
    import pyarrow as pa

_FORMATS = ("table", "csv", "json", "parquet", "arrow")
_BINARY = ("parquet", "arrow")

EPILOG = """
Examples:
  lab results 17
  lab results --table parity --format csv -o parity.csv
  lab results --sql "select backend, max(error) from parity group by backend"
  lab results --sql "select * from parity join jobs using (job) where tags like '%night%'"
"""


def results_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Only of these jobs.", autocompletion=completion.finished_job_ids),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", "-t", metavar="NAME", help="Only this table.", autocompletion=completion.tables),
    ] = None,
    sql: Annotated[
        str | None, typer.Option("--sql", metavar="SELECT", help="A query over all tables, and over `jobs` (DuckDB).")
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
) -> None:
    """Show, query or write result tables.

    Only rows of jobs that succeeded are there, each with its job, attempt, lane and key.
    """
    here = session()
    if sql is not None and (ids or table):
        raise BadInput("--sql was given together with jobs or --table", hint="put both into the query: where job = 17")
    chosen = arguments.job_ids(ids)
    form = _format(form, output)
    warnings: list[str] = []
    found = _query(here, sql, warnings) if sql is not None else _read(here, table, chosen, warnings)
    for line in warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")
    if output is not None:
        one = _only(found, "a file")
        _write(output, _encode(one, form))
        here.out.show(WrittenReport(output, form, one.num_rows))
    elif form == "table":
        here.out.show(TablesReport(found, tuple(warnings)))
    elif form in _BINARY:
        here.out.raw_bytes(_encode(_only(found, form), form))
    else:
        here.out.raw(_encode(_only(found, form), form).decode())


@dataclass(frozen=True)
class TablesReport(Report):
    """Some tables, row by row."""

    tables: Sequence[tuple[str, pa.Table]]
    warnings: tuple[str, ...] = ()

    schema = "lab.results/1"

    def json(self) -> dict[str, Any]:
        tables = [
            {"table": n, "columns": t.column_names, "rows": [_plain(r) for r in t.to_pylist()]} for n, t in self.tables
        ]
        return {"tables": tables, "warnings": list(self.warnings)}

    def text(self, page: Page) -> Iterable[str]:
        from lab.output.data import table_lines

        for i, (name, table) in enumerate(self.tables):
            if i:
                yield ""
            if name:
                yield page.paint(f"{name}  {human.count(table.num_rows, 'row')}", "head")
            yield from table_lines(page, table)


@dataclass(frozen=True)
class WrittenReport(Report):
    path: Path
    format: str
    rows: int

    schema = "lab.results-written/1"

    def json(self) -> dict[str, Any]:
        return {"path": str(self.path), "format": self.format, "rows": self.rows}

    def text(self, page: Page) -> Iterable[str]:
        return [f"{human.count(self.rows, 'row')} written to {self.path} ({self.format})"]

    def brief(self) -> Iterable[str]:
        return [str(self.path)]


def show_tables(here: Session, ids: Sequence[int]) -> None:
    """The tables of these jobs, if they have any."""
    warnings: list[str] = []
    try:
        here.out.show(TablesReport(_read(here, None, tuple(ids), warnings), tuple(warnings)))
    except NotFound:
        here.out.remark("no result tables: these jobs wrote none")
    for line in warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")


def _read(here: Session, table: str | None, ids: tuple[int, ...], warnings: list[str]) -> list[tuple[str, pa.Table]]:
    from core import tables
    from core.journal import query

    with here.reading() as journal:
        for i in ids:
            query.job(journal.conn, i)
        names = [table] if table is not None else _names(journal.conn, ids)
        if not names:
            names = [None]  # type: ignore[list-item]  # gives the error that says what there is
        return [(n, tables.read_table(here.home, journal.conn, n, ids or None, warnings=warnings)) for n in names]


def _names(conn: Any, ids: tuple[int, ...]) -> list[str]:
    where = f"WHERE job IN ({', '.join(map(str, ids))})" if ids else ""
    return [str(r[0]) for r in conn.execute(f"SELECT DISTINCT tbl FROM part {where} ORDER BY tbl")]


def _query(here: Session, sql: str, warnings: list[str]) -> list[tuple[str, pa.Table]]:
    from core import tables

    with here.reading() as journal:
        return [("", tables.query(here.home, journal.conn, sql, warnings=warnings))]


def _format(form: str | None, output: Path | None) -> str:
    if form is None and output is not None:
        form = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}.get(
            output.suffix
        )
        if form is None:
            raise BadInput(f"the ending of {output} says no format", hint="add --format csv, json, parquet or arrow")
    form = form or "table"
    if form not in _FORMATS:
        raise BadInput(f"--format {form!r} does not exist", hint=f"there are: {', '.join(_FORMATS)}")
    return form


def _only(found: Sequence[tuple[str, pa.Table]], what: str) -> pa.Table:
    if len(found) != 1:
        raise BadInput(
            f"{what} holds one table, but there are {', '.join(n for n, _ in found)}", hint="choose one with --table"
        )
    return found[0][1]


def _encode(table: pa.Table, form: str) -> bytes:
    import json

    import pyarrow as pa

    sink = io.BytesIO()
    if form == "csv":
        import pyarrow.csv

        pa.csv.write_csv(_flat(table), sink)
    elif form == "parquet":
        import pyarrow.parquet

        pa.parquet.write_table(table, sink, compression="zstd")
    elif form == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif form == "json":
        sink.write(
            "".join(
                json.dumps(_plain(row), default=str, ensure_ascii=False) + "\n" for row in table.to_pylist()
            ).encode()
        )
    else:
        page = Page(None, False, True, False)
        sink.write(("\n".join(TablesReport([("", table)]).text(page)) + "\n").encode())
    return sink.getvalue()


def _flat(table: pa.Table) -> pa.Table:
    """CSV knows no lists: they become JSON text."""
    import json

    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [None if v is None else json.dumps(v) for v in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null and text."""
    out: dict[str, Any] = {}
    for name, v in row.items():
        if isinstance(v, float) and v != v:
            v = None
        elif isinstance(v, float) and v in (float("inf"), float("-inf")):
            v = "Infinity" if v > 0 else "-Infinity"
        out[name] = v
    return out


def _write(path: Path, data: bytes) -> None:
    from core.fsio import write_atomic

    try:
        write_atomic(path, data)
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror})", hint="give a path in a folder of yours"
        ) from error
