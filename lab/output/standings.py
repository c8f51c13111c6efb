"""How jobs rank, as tables: one for each group of numbers that may be ranked against each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from lab.output import human
from lab.output.page import Page
from lab.output.table import Column, fold, lay_out
from lab.standings import FACTOR, Group, Standings

_COLUMNS = (
    Column("RANK", right=True),
    Column("NAME", shrink=True),
    Column("MEAN", right=True),
    Column("SPREAD", right=True),
    Column("RUNS", right=True),
    Column("BEHIND", right=True),
    Column("JOBS", shrink=True),
)
_MOST_JOBS = 8


def ranking_json(found: Standings) -> dict[str, Any]:
    groups = [{**asdict(group), "noise": group.noise} for group in found.groups]
    return {**asdict(found), "groups": groups}


def ranking_lines(page: Page, found: Standings) -> Iterable[str]:
    """The groups, why they are apart, what is missing."""
    for number, group in enumerate(found.groups):
        if number:
            yield ""
        yield from _group(page, group)
    if not found.groups:
        yield "nothing can be ranked: no job has a result"
    said = [*found.apart, *found.notes]
    said += [f"not ranked: {one.job} {one.name} ({one.why})" for one in found.absent]
    if said:
        yield ""
    for text in said:
        for line in fold(human.clean(text), page.width or 0, page, 4) if page.width else [human.clean(text)]:
            yield page.paint(line, "dim")


def _group(page: Page, group: Group) -> Iterable[str]:
    better = "greatest first" if group.greater else "least first"
    alone = len(group.entries) == 1
    yield f"{page.paint(human.clean(group.label), 'head')}  {'one entry' if alone else better}"
    best = group.entries[0].value
    rows = []
    for e in group.entries:
        shown = ", ".join(map(str, e.jobs[:_MOST_JOBS])) + (", ..." if len(e.jobs) > _MOST_JOBS else "")
        rank = f"{'=' if e.tied else ''}{e.rank}"
        spread = "" if e.spread is None else f"{e.spread:.3g}"
        behind = "" if e is group.entries[0] else f"{abs(e.value - best):.4g}"
        rows.append((rank, human.clean(e.name), f"{e.value:.8g}", spread, str(len(e.jobs)), behind, shown))
    yield from ("  " + line for line in lay_out(page.narrower(2), _COLUMNS, rows))
    if group.spread is not None and not alone:
        said = f"up to {group.noise:.3g} apart is equal: {FACTOR:g} spreads of runs that differ in their seeds only"
        yield "  " + page.paint(said, "dim")
