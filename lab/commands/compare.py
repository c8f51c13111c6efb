"""`lab compare`: how two jobs differ, in what makes them themselves and in their results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from lab import arguments, completion
from lab.compare import Comparison, TableDifference, compare
from lab.output import Column, Page, Report, human, lay_out
from lab.output import job as look
from lab.session import session


def compare_(
    a: Annotated[str, typer.Argument(metavar="A", help="A job.", autocompletion=completion.job_ids)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", autocompletion=completion.job_ids)],
) -> None:
    """Say how two jobs and their results differ."""
    here = session()
    ids = arguments.job_id(a), arguments.job_id(b)
    with here.reading() as journal:
        found = compare(here.home, journal.conn, *ids)
    for line in found.warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")
    here.out.show(CompareReport(found))


@dataclass(frozen=True)
class CompareReport(Report):
    """Two jobs side by side."""

    found: Comparison

    schema = "lab.compare/1"

    def json(self) -> dict[str, Any]:
        first, second = self.found.jobs
        return {
            "a": look.job_json(look.Shown(first)),
            "b": look.job_json(look.Shown(second)),
            "differences": self.found.key_parts,
            "tables": [{**asdict(t), "equal": t.equal} for t in self.found.tables],
            "equal": self.found.equal,
            "same_results": self.found.same_results,
            "warnings": self.found.warnings,
        }

    def text(self, page: Page) -> Iterable[str]:
        for name, job in zip("AB", self.found.jobs, strict=True):
            taken = human.span(look.run_time(job, job.ended)) if job.ended else ""
            yield "  ".join(
                p
                for p in (
                    page.paint(name, "head"),
                    str(job.id),
                    look.label(job),
                    page.state(job.state),
                    taken,
                    job.lane,
                )
                if p
            )
        yield ""
        if self.found.key_parts:
            yield from (f"  {human.clean(_sides(part))}" for part in self.found.key_parts)
        else:
            yield f"  {page.mark('ok')} the same job: kind, parameters, inputs, code, packages and device are equal"
        for table in self.found.tables:
            yield ""
            yield from _table(page, table)
        if not self.found.tables:
            yield "  neither has result tables"

    def brief(self) -> Iterable[str]:
        return ["equal" if self.found.equal else "different"]


def _sides(sentence: str) -> str:
    """`20 here, 10 there` reads better as A and B."""
    head, _, tail = sentence.rpartition(" here, ")
    return f"{head} in A, {tail.removesuffix(' there')} in B" if head else sentence


def _table(page: Page, t: TableDifference) -> Iterable[str]:
    name = page.paint(t.table, "head")
    if t.equal:
        yield f"  {page.mark('ok')} {name}: {human.count(t.rows[0], 'row')}, every value is equal"
        return
    matched = f"matched by {', '.join(t.joined_on)}" if t.joined_on else "matched by their order"
    yield f"  {name}: {t.rows[0]:,} rows in A, {t.rows[1]:,} in B, {t.matched:,} {matched}"
    for side, columns in (("A", t.only_first), ("B", t.only_second)):
        if columns:
            yield f"    only {side} has the columns {', '.join(columns)}"
    rows = [
        (
            c.column,
            f"{c.differing:,}",
            "" if c.max_abs is None else f"{c.max_abs:.3g}",
            "" if c.max_rel is None else f"{c.max_rel:.3g}",
            f"{c.where}: {human.value(c.example[0])} / {human.value(c.example[1])}" if c.example else c.where,
        )
        for c in t.columns
        if c.differing
    ]
    shown = (
        Column("COLUMN"),
        Column("DIFFERENT", right=True),
        Column("LARGEST", right=True),
        Column("RELATIVE", right=True),
        Column("WHERE (A / B)"),
    )
    yield from ("    " + line for line in lay_out(page.narrower(4), shown, rows))
