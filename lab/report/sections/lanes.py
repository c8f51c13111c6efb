"""Lanes with their ladder: what each may do, and the evidence of each rung."""

from __future__ import annotations

from collections.abc import Sequence

from core.journal import query
from core.rungs import title
from lab.output.ladder import in_order
from lab.report.book import slug
from lab.report.doc import Block, Code, Facts, Inline, Line, Mark, Name, Page, Para, Section, Table, When, joined
from lab.report.forms import is_number
from lab.report.reading import Reading
from lab.report.sections.jobs import lane_row, state

PATH = "lanes.html"
_LEAD = (
    "A lane is a machine, or a part of one. A remote one is used for a role only when it has climbed the ladder, and "
    "each rung keeps its evidence: the event of the journal to which its sentence leads."
)
_TOLD = {"cores": "cores", "memory_mb": "memory", "gpus": "GPUs", "resources": "offers"}


def page(r: Reading) -> Page:
    """All lanes that the journal knows."""
    lanes = query.lanes(r.conn)
    blocks: list[Block] = [Para([_LEAD])]
    if not lanes:
        blocks.append(Para(["No controller has written of any lane yet."], "note"))
    earned = query.admitted(r.conn)
    jobs = {str(lane): int(n) for lane, n in r.conn.execute(_JOBS)}
    for lane in lanes:
        declared = lane.info.get("declared")
        declared = declared if isinstance(declared, dict) else {}
        remote = declared.get("transport", "local") != "local"
        row = lane_row(r, lane.name)
        pairs: list[tuple[Line, Line]] = [(["state"], [state(str(lane.state)), *_why(r, row, lane.reason)])]
        if declared:
            pairs.append((["reached by"], [Name(str(declared.get("transport", "local")))]))
        roles = sorted(earned.get(lane.name, frozenset()))
        if remote:
            pairs.append((["admitted for"], [", ".join(roles)] if roles else [Mark("nothing", "warn")]))
        else:
            named = [str(role) for role in declared.get("roles") or ()]
            pairs.append((["roles"], [", ".join(named) or "all", ", as declared: it is this machine"]))
        for column, word in _TOLD.items():
            value = lane.info.get(column)
            if value not in (None, [], ""):
                said: Inline = (
                    r.book.number(row, column, unit="MiB" if column == "memory_mb" else "")
                    if is_number(value)
                    else r.book.told(row, column, 300)
                )
                pairs.append(([word], [said]))
        if jobs.get(lane.name):
            sql = "select lane, count(*) n from jobs where state = 'succeeded' group by 1"
            n = r.book.made(f"jobs that succeeded on {lane.name}", jobs[lane.name], "counted in the journal",
                            command=f'lab results --sql "{sql}"', parts=[row])  # fmt: skip
            pairs.append((["jobs that succeeded there"], [n]))
        inner: list[Block] = [Facts(pairs)]
        ladder = _ladder(r, lane.name)
        if ladder:
            inner.append(ladder)
        elif remote:
            inner.append(Para(["It has not begun to climb: ", Code(f"lab lane admit {lane.name}"), "."]))
        blocks.append(Section(f"l-{slug(lane.name)}", [Name(lane.name)], inner))
    return Page(PATH, ["Lanes"], blocks, "Lanes")


_JOBS = "SELECT lane, count(*) FROM job_state WHERE state = 'succeeded' AND cells IS NULL GROUP BY lane"


def _why(r: Reading, row: str, reason: str) -> Line:
    return [": ", r.book.told(row, "reason", 400)] if reason else []


def _ladder(r: Reading, lane: str) -> Table | None:
    rungs = in_order(query.rungs(r.conn, lane))
    rows: list[Sequence[Line]] = []
    for rung in rungs:
        event = r.event_row(rung.seq)
        said: Line = [r.book.told(event, "message", 400)] if rung.data.get("message") else ["–"]
        rows.append(
            (
                [Name(title(rung.rung, rung.role))],
                [Mark("holds", "good") if rung.ok else Mark("does not hold", "bad")],
                said,
                [When(rung.at)],
            )
        )
    if not rows:
        return None
    head: list[Line] = [["rung"], ["verdict"], ["evidence"], ["written down"]]
    return Table(["The ladder of ", Name(lane), ", the lowest rung first"], head, rows)


def summary(r: Reading) -> Line:
    """The lanes in a line."""
    lanes = query.lanes(r.conn)
    return joined([[Name(lane.name, PATH), " ", state(str(lane.state))] for lane in lanes]) or ["none yet"]
