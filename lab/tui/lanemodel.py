"""From what was read of the lanes to their rows: pure, as model.py is for the jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.states import LaneState
from lab.output import human
from lab.output import job as look
from lab.tui import clean
from lab.tui.facts import Holding, LaneFact, Snapshot, Usage
from lab.tui.model import FRESH_S, rate
from lab.tui.reading import MINUTE
from lanes.switched import NOT_YET

_LINKED = (LaneState.UP, LaneState.DRAINING)
_LONG_S = 60.0


@dataclass(frozen=True)
class LaneRow:
    """One lane. Shares are between 0 and 1, None where nobody said."""

    name: str
    state: str
    link: str
    link_role: str
    device: str
    slots: str
    slots_share: float | None
    cpu: float | None
    memory: float | None
    memory_said: str
    gpu: float | None
    gpu_said: str
    rate: str
    now: str
    note: str
    note_role: str = "text"


def lane_rows(snapshot: Snapshot) -> tuple[LaneRow, ...]:
    held: dict[str, list[Holding]] = {}
    for holding in snapshot.journal.holdings:
        held.setdefault(holding.lane, []).append(holding)
    labels = {j.id: look.label(j) for j in snapshot.journal.jobs if j.lane}
    return tuple(_lane_row(snapshot, lane, held.get(lane.name, []), labels) for lane in snapshot.lanes)


def _lane_row(snapshot: Snapshot, lane: LaneFact, held: list[Holding], labels: Mapping[int, str]) -> LaneRow:
    ages = [a.age_s for h in held if (a := snapshot.live.get((h.job, h.attempt))) is not None and a.age_s is not None]
    if lane.heard_s is not None:
        ages.append(lane.heard_s)
    heard = min(ages) if ages and lane.state is not LaneState.DECLARED else None
    if heard is not None and heard > _LONG_S and snapshot.controller_alive and lane.state in _LINKED:
        heard = None  # the controller, which knows, says that it answers; only nobody wrote down when
    silent = lane.state in (LaneState.UNREACHABLE, LaneState.DOWN)
    if silent:
        lane = replace(lane, usage=Usage())  # what was measured before it fell silent says nothing of now
    cores = sum(h.cores for h in held)
    if lane.cores:
        cores = min(cores, lane.cores)  # a batch that waits at a worker for the one before it holds no slot of its own
    gpus = sum(h.gpus for h in held)
    slots = f"{cores}/{lane.cores}" if lane.cores else str(cores) if cores else ""
    wish = {"drain": "drain asked", "resume": "resume asked"}.get(lane.wish or "", "")
    said = "; ".join(p for p in (wish, lane.silent or lane.reason) if p and p != NOT_YET)
    memory, memory_said = _memory(snapshot, lane, held) if not silent else (None, "")
    begins = lane.state is LaneState.UNREACHABLE and lane.reason == NOT_YET and snapshot.controller_alive
    use = lane.usage
    return LaneRow(
        name=clean.one_line(lane.name),
        state="connecting" if begins else str(lane.state),
        link=human.span(heard)
        if heard is not None and heard < 60
        else human.age(snapshot.at - heard, snapshot.at)
        if heard is not None
        else "",
        link_role="warn" if heard is not None and heard > FRESH_S else "text",
        device=_device(lane),
        slots=slots,
        slots_share=cores / lane.cores if lane.cores else None,
        cpu=use.cpu / 100 if use.cpu is not None else None,
        memory=memory,
        memory_said=memory_said,
        gpu=use.gpu / 100 if use.gpu is not None else gpus / len(lane.gpus) if lane.gpus else None,
        gpu_said=_gpu_said(lane, gpus),
        rate=_lane_rate(snapshot, lane.name),
        now=_now(held, labels),
        note=clean.one_line(said or (lane.about if not held else "")),
        note_role="warn" if said else "dim",
    )


def _device(lane: LaneFact) -> str:
    parts = []
    if lane.gpus:
        names = dict.fromkeys(lane.gpus)
        parts.append(" + ".join(f"{n}× {g}" if (n := lane.gpus.count(g)) > 1 else g for g in names))
    if lane.cores:
        parts.append(human.count(lane.cores, "core"))
    if lane.memory_mb:
        parts.append(human.size(lane.memory_mb * 1048576).replace("iB", ""))
    return clean.one_line(", ".join(parts))


def _gpu_said(lane: LaneFact, held: int) -> str:
    """How busy they are, or at least how many are taken."""
    if not lane.gpus:
        return ""
    return f"{lane.usage.gpu:.0f}%" if lane.usage.gpu is not None else f"{held}/{len(lane.gpus)}"


def _memory(snapshot: Snapshot, lane: LaneFact, held: list[Holding]) -> tuple[float | None, str]:
    """Memory in use: of the whole machine where it says so, else what our attempts take of it."""
    total = lane.usage.memory_total_mb or lane.memory_mb
    if lane.usage.memory_mb is not None and total:
        return lane.usage.memory_mb / total, _gib(lane.usage.memory_mb)
    ours = [a.rss_mb for h in held if (a := snapshot.live.get((h.job, h.attempt))) is not None and a.rss_mb]
    if not ours:
        return None, ""
    return (sum(ours) / total if total else None), _gib(sum(ours))


def _gib(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f}G" if mebibytes < 10_000 else f"{mebibytes / 1024:.0f}G"


def _lane_rate(snapshot: Snapshot, name: str) -> str:
    """Jobs and cells that ended here in the last minute."""
    done = [(at, n) for at, n in snapshot.journal.done.get(name, ()) if at > snapshot.at - MINUTE]
    if not done:
        return ""
    span = max(5.0, min(MINUTE, snapshot.at - done[0][0] + 1.0))
    return rate(sum(n for _, n in done) / span)


def _now(held: list[Holding], labels: Mapping[int, str]) -> str:
    parts = []
    cells = sum(h.cells for h in held)
    if cells:
        parts.append(human.count(cells, "cell"))
    for h in held:
        if not h.cells:
            parts.append(f"{h.job} {labels.get(h.job, '')}".strip())
    return clean.one_line(", ".join(parts))
