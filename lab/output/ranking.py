"""The lanes for a job as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.output import human
from lab.output.page import Page
from lab.output.table import Column, lay_out
from lab.ranking import Ranked

_COLUMNS = (
    Column("LANE"),
    Column("STARTS"),
    Column("TAKES", right=True),
    Column("DONE IN", right=True),
    Column("SPEED", right=True),
    Column("KNOWN FROM"),
    Column("WHY"),
)


def ranking(page: Page, lanes: Sequence[Ranked]) -> Iterable[str]:
    """The earliest expected finish first, then the lanes that cannot take it."""
    rows = []
    for r in lanes:
        starts = "-" if not r.can else "now" if r.free else "?" if r.wait_s is None else f"in {human.span(r.wait_s)}"
        takes = f"~{human.span(r.takes_s)}" if r.can and r.takes_s is not None else "?" if r.can else "-"
        done = f"~{human.span(r.finish_s)}" if r.can and r.finish_s is not None else "?" if r.can else "-"
        speed = f"{r.speed:.2f}" if r.speed is not None else "?"
        why = human.clean(r.why) if r.why else "the earliest expected finish" if r is lanes[0] else ""
        rows.append((r.lane, starts, takes, done, speed, r.known_from or "nothing yet", why))
    return lay_out(page, _COLUMNS, rows)
