"""How sweeps look: in one line, as a card, and their cells as a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.journal.query import Job
from core.states import JobState
from lab.folded import Folded, cell_name
from lab.output import human
from lab.output import job as look
from lab.output.job import Shown
from lab.output.page import Page
from lab.output.table import Column, lay_out

# What a person wants to know first; what succeeded is in the fraction.
_TOLD = (JobState.FAILED, JobState.RUNNING, JobState.CANCELLING, JobState.CANCELLED, JobState.SKIPPED, JobState.HELD)
_VALUES = 8  # of an axis, on the card

_CELL_COLUMNS = (
    Column("CELL", right=True),
    Column("ID", right=True),
    Column("PARAMETERS", shrink=True),
    Column("STATE"),
    Column("LANE", shrink=True),
    Column("TIME", right=True),
    Column("NOTE"),
)


@dataclass(frozen=True)
class SweepCard:
    """All about one sweep.

    Attributes:
        failures: the first cells that failed, by id.
        members: some jobs that answer cells of it.
        tables: names of the result tables that its cells wrote.
    """

    shown: Shown
    spec: Mapping[str, Any]
    failures: Sequence[Job]
    members: Sequence[int]
    tables: Sequence[str]
    after: Sequence[tuple[str, Job]] = ()
    before: Sequence[tuple[str, Job]] = ()


def brief(f: Folded) -> str:
    """`812/1,000, 3 failed, 8 running`: of cells, those that succeeded."""
    parts = [f"{f.of(JobState.SUCCEEDED):,}/{f.total:,}"]
    parts += [f"{f.of(s):,} {s}" for s in _TOLD if f.of(s)]
    return ", ".join(parts)


def pace(f: Folded) -> str:
    """`120/s, about 2s left`, while it goes on."""
    if f.rate is None or f.eta_s is None:
        return ""
    return f"{rate(f.rate)}, about {human.span(f.eta_s)} left"


def rate(per_second: float) -> str:
    """Cells a second, a minute or an hour, whichever can be read."""
    if per_second >= 1:
        return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"
    return f"{per_second * 60:.1f}/min" if per_second * 60 >= 1 else f"{per_second * 3600:.1f}/h"


def failure(job: Job) -> str:
    """One failed cell in a line: `17.3 alpha=2: it broke`."""
    name = f" {job.name}" if job.name else ""
    return human.clean(f"{cell_name(job)}{name}: {look.why(job) or job.state}")


def cells_table(page: Page, cells: Sequence[Shown], sweep: int, now: float) -> list[str]:
    rows = []
    for s in cells:
        job = s.job
        rows.append(
            (
                cell_name(job) if job.sweep == sweep else "",
                str(job.id),
                human.clean(job.name or human.params(job.params))[:80],
                page.state(job.state),
                job.lane or "",
                human.span(look.run_time(job, now)),
                look.note(s),
            )
        )
    return lay_out(page, _CELL_COLUMNS, rows)


def card(page: Page, c: SweepCard, now: float | None = None) -> list[str]:
    """Everything about one sweep, for people."""
    now = time.time() if now is None else now
    job, f = c.shown.job, c.shown.folded
    assert f is not None
    taken = human.span(look.run_time(job, now))
    head = f"{page.paint(str(job.id), 'head')}  {page.paint(look.label(job), 'head')}  {page.state(job.state)}"
    lines = [head + (f"  {taken}" if taken else "")]
    lines += look.said(page, look.note(c.shown, first=False))
    lines += ["", *look.facts(page, _facts(c, f, now))]
    if c.failures:
        lines += ["", page.paint(f"failed: {f.of(JobState.FAILED):,}, the first of them", "dim")]
        lines += ["    " + line for line in _failures(page.narrower(4), c.failures)]
    return lines


def _facts(c: SweepCard, f: Folded, now: float) -> list[tuple[str, str]]:
    job, sweep = c.shown.job, f.sweep
    facts = look.when_and_what(job, now)
    facts += [(name, _axis(values)) for name, values in sweep.axes]
    own = f"jobs {sweep.id + 1} to {sweep.id + sweep.cells}" if sweep.cells else "none of its own"
    others = f.total - sweep.cells
    if others:
        named = ", ".join(map(str, c.members[:5])) + (", ..." if others > 5 else "")
        own += f"; {human.count(others, 'cell')} answered by other jobs: {named}"
    facts.append(("cells", f"{f.total:,}: {own}"))
    facts.append(("states", ", ".join(f"{f.of(s):,} {s}" for s in JobState if f.of(s))))
    if f.rate is not None:
        facts.append(("pace", rate(f.rate)))
    if sweep.at_once is not None:
        facts.append(("at once", f"{sweep.at_once:,} cells"))
    if sweep.max_fails is not None:
        facts.append(("max fails", f"{sweep.max_fails:,}: with one more, no further cell starts"))
    facts += look.of_spec(job, c.spec)
    facts += look.relations(job, c.after, c.before)
    if c.tables:
        facts.append(("tables", ", ".join(c.tables)))
    return facts


def _axis(values: Sequence[Any]) -> str:
    shown = ", ".join(human.value(v) for v in values[:_VALUES])
    more = f", ... ({len(values):,} values, the last {human.value(values[-1])})" if len(values) > _VALUES else ""
    return shown + more


def _failures(page: Page, failures: Sequence[Job]) -> list[str]:
    columns = (Column("CELL", right=True), Column("ID", right=True), Column("PARAMETERS", shrink=True), Column("WHY"))
    rows = [(cell_name(j), str(j.id), human.clean(j.name), human.clean(look.why(j))) for j in failures]
    return lay_out(page, columns, rows)


# JSON.


def folded_json(f: Folded) -> dict[str, Any]:
    return {
        "total": f.total,
        "own": f.sweep.cells,
        "members": f.total - f.sweep.cells,
        "counts": {str(s): n for s, n in f.counts.items() if n},
        "ended": f.ended,
        "rate": f.rate,
        "eta_s": f.eta_s,
        "first_failure": failure_json(f.first) if f.first is not None else None,
    }


def failure_json(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "cell": cell_name(job),
        "name": job.name,
        "params": job.params,
        "cause": job.cause,
        "reason": job.reason,
        "lane": job.lane,
    }


def card_json(c: SweepCard) -> dict[str, Any]:
    f = c.shown.folded
    assert f is not None
    return {
        **look.job_json(c.shown),
        "axes": [{"name": name, "values": list(values)} for name, values in f.sweep.axes],
        "first_cell": f.sweep.id + 1 if f.sweep.cells else None,
        "last_cell": f.sweep.id + f.sweep.cells if f.sweep.cells else None,
        "pooled": f.sweep.pooled,
        "at_once": f.sweep.at_once,
        "max_fails": f.sweep.max_fails,
        "failures": [failure_json(j) for j in c.failures],
        "tables": list(c.tables),
        "spec": dict(c.spec),
        "after": [{"cond": str(cond), "job": j.id, "state": str(j.state)} for cond, j in c.after],
        "before": [{"cond": str(cond), "job": j.id, "state": str(j.state)} for cond, j in c.before],
    }
