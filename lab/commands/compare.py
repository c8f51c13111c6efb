"""`lab compare`: how two jobs or sweeps differ; how the cells of one sweep, or many jobs, rank."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput, NotFound, UnknownKind
from core.journal import query
from core.kind import load_kind
from lab import arguments, completion
from lab.compare import CellsDifference, Comparison, Spread, TableDifference, compare
from lab.output import Column, Page, Report, human, lay_out
from lab.output import job as look
from lab.output.standings import ranking_json, ranking_lines
from lab.selection import resolve
from lab.session import Session, session
from lab.standings import Standings, standings

EPILOG = """
Examples:
  lab compare 17 21
  lab compare 40            # the cells of sweep 40, ranked
  lab compare 40 52 61-63   # many, ranked

Ranked is what the kind allows: numbers of one meaning, on the same fixed inputs. Runs that
differ in their seeds only are one entry, and two entries that lie no further apart than twice
the spread of such runs share a rank.
"""


def compare_(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="A [B ...]", help="Two jobs or sweeps; or any number, ranked.",
                       autocompletion=completion.job_ids),
    ],
) -> None:  # fmt: skip
    """Say how two jobs or sweeps differ; rank many: the cells of one sweep, or any jobs.

    Rows are matched by the axes and by the columns that name them. Differences are A minus B; where seeds or repeats
    are there, the spread within each side stands beside them.
    """
    here = session()
    warnings: list[str] = []
    report: Report
    with here.reading() as journal:
        conn = journal.conn
        words = arguments.ids(ids)
        if len(words) == 2 and all(word.first == word.last for word in words):
            two = [resolve(conn, [word])[0] for word in words]
            found = compare(here.home, conn, two[0], two[1])
            warnings += found.warnings
            report = CompareReport(found, _ranked(here, conn, two))
        else:
            asked = resolve(conn, words)
            jobs = [query.job(conn, number) for number in asked]
            if len(jobs) == 1 and not jobs[0].is_sweep:
                raise BadInput(f"job {asked[0]} alone is compared with nothing", hint="name another: lab compare A B")
            report = StandingsReport(standings(here.home, conn, asked, warnings=warnings))
    for line in warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")
    here.out.show(report)


def _ranked(here: Session, conn: sqlite3.Connection, two: Sequence[int]) -> Standings | None:
    """How both rank, where their kind says how."""
    kinds = {query.job(conn, number).kind for number in two}
    try:
        if len(kinds) != 1 or load_kind(kinds.pop()).ranking() is None:
            return None
        return standings(here.home, conn, two)
    except (BadInput, NotFound, UnknownKind):  # of an older version, or of a package that is gone: the rest is shown
        return None


@dataclass(frozen=True)
class StandingsReport(Report):
    """Jobs in order, each only among those that it may be ranked against."""

    found: Standings

    schema = "lab.compare-ranking/1"

    def json(self) -> dict[str, Any]:
        return {"ranking": ranking_json(self.found)}

    def text(self, page: Page) -> Iterable[str]:
        return ranking_lines(page, self.found)

    def brief(self) -> Iterable[str]:
        return [f"{e.rank} {e.name}" for group in self.found.groups[:1] for e in group.entries]


@dataclass(frozen=True)
class CompareReport(Report):
    """Two jobs side by side."""

    found: Comparison
    ranking: Standings | None = None

    schema = "lab.compare/2"

    def json(self) -> dict[str, Any]:
        first, second = self.found.jobs
        return {
            "a": look.job_json(look.Shown(first)),
            "b": look.job_json(look.Shown(second)),
            "differences": self.found.key_parts,
            "cells": asdict(self.found.cells) if self.found.cells is not None else None,
            "tables": [_finite({**asdict(t), "equal": t.equal}) for t in self.found.tables],
            "equal": self.found.equal,
            "same_results": self.found.same_results,
            "warnings": self.found.warnings,
            "ranking": ranking_json(self.ranking) if self.ranking is not None else None,
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
            what = "the same job: kind, parameters" if self.found.cells is None else "alike but for their axes: kind"
            yield f"  {page.mark('ok')} {what}, inputs, code, packages and device are equal"
        if self.found.cells is not None:
            yield from _cells(page, self.found.cells)
        for table in self.found.tables:
            yield ""
            yield from _table(page, table)
        if not self.found.tables:
            yield "  neither has result tables"
        kinds = sorted({job.kind for job in self.found.jobs})
        if len(kinds) > 1:
            yield ""
            yield page.paint(f"  not ranked: a number of {' and one of '.join(kinds)} are other quantities", "dim")
        if self.ranking is not None and self.ranking.groups:
            yield ""
            yield from ranking_lines(page, self.ranking)

    def brief(self) -> Iterable[str]:
        return ["equal" if self.found.equal else "different"]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null and text."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _cells(page: Page, c: CellsDifference) -> Iterable[str]:
    if not c.only_first and not c.only_second:
        yield f"  {page.mark('ok')} the same {human.count(c.common, 'cell')}"
        return
    yield f"  {human.count(c.common, 'cell')} in both"
    for side, n, some in (("A", c.only_first, c.first_examples), ("B", c.only_second, c.second_examples)):
        if n:
            more = f" and {n - len(some):,} more" if n > len(some) else ""
            yield f"  only {side} has {human.count(n, 'cell')}: {human.clean('; '.join(some))}{more}"


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
    if t.repeated:
        matched = f"means over what repeats, {matched}"
    yield f"  {name}: {t.rows[0]:,} rows in A, {t.rows[1]:,} in B, {t.matched:,} {matched}"
    for side, n in (("A", t.rows_only_first), ("B", t.rows_only_second)):
        if n and t.joined_on:
            yield f"    {human.count(n, 'row')} only in {side}"
    for side, columns in (("A", t.only_first), ("B", t.only_second)):
        if columns:
            yield f"    only {side} has the columns {', '.join(columns)}"
    different = [c for c in t.columns if c.differing]
    rows = [
        (
            c.column,
            f"{c.differing:,}",
            "" if c.max_abs is None else f"{c.max_abs:.3g}",
            "" if c.max_rel is None else f"{c.max_rel:.3g}",
            f"{c.where}: {human.value(c.example[0])} / {human.value(c.example[1])}" if c.example else c.where,
        )
        for c in different
    ]
    shown = (
        Column("COLUMN"),
        Column("DIFFERENT", right=True),
        Column("LARGEST", right=True),
        Column("RELATIVE", right=True),
        Column("WHERE (A / B)"),
    )
    yield from ("    " + line for line in lay_out(page.narrower(4), shown, rows))
    numbers = [(c.column, c.spread) for c in different if c.spread is not None and c.spread.n > 1]
    if numbers:
        yield ""
        yield from ("    " + line for line in _spreads(page.narrower(4), numbers))


def _spreads(page: Page, columns: Sequence[tuple[str, Spread]]) -> Iterable[str]:
    """How A minus B is distributed, and how much each side varies by itself."""
    titles = ("A - B", "MEAN", "STD", "MEDIAN", "MIN", "MAX", "RMS", "WITHIN A", "WITHIN B")
    rows = []
    for name, d in columns:
        values = (d.mean, d.std, d.median, d.min, d.max, d.rms, d.within_first, d.within_second)
        rows.append((name, *("" if v is None else f"{v:.3g}" for v in values)))
    return lay_out(page, [Column(titles[0]), *(Column(n, right=True) for n in titles[1:])], rows)
