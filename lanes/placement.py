"""Placement: which queued job goes to which lane now. A pure function: no clock, no journal, no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.spec import Needs


@dataclass(frozen=True)
class Capacity:
    """What a lane has, or has left. `memory_mb` None: unknown, not counted."""

    cores: int
    memory_mb: int | None
    gpus: tuple[int, ...]
    resources: frozenset[str] = frozenset()
    disk_mb: int | None = None


@dataclass(frozen=True)
class LaneView:
    """A lane as placement sees it.

    Attributes:
        total: all that the lane may use.
        free: what no living attempt holds (a slot whose processes are not all gone is not free).
        open: may new attempts start here now; if not, `why` says so.
        pools: cells can run here in warm workers.
    """

    name: str
    total: Capacity
    free: Capacity
    roles: frozenset[str]
    open: bool = True
    why: str = ""
    pools: bool = False


@dataclass(frozen=True)
class Wanted:
    """Something to be placed. `pooled`: a batch, which only a lane that pools can take."""

    job: int
    needs: Needs
    pooled: bool = False


@dataclass(frozen=True)
class Placed:
    job: int
    lane: str
    gpus: tuple[int, ...]


def place(wanted: Sequence[Wanted], lanes: Iterable[LaneView]) -> list[Placed]:
    """Place as many of `wanted` (in order: priority, then age) as fit.

    A job that could run on a lane but does not fit now reserves its share there, so that smaller jobs behind it
    cannot keep it waiting for ever; they may use what would be left beside it.
    """
    views = {lane.name: lane for lane in lanes}
    out: list[Placed] = []
    for want in wanted:
        able = [v for v in views.values() if _able(want.needs, v, want.pooled)]
        fitting = [v for v in able if fits(want.needs, v.free)]
        if fitting:
            best = max(fitting, key=lambda v: (v.free.cores / max(1, v.total.cores), len(v.free.gpus), v.name))
            gpus = best.free.gpus[: want.needs.gpus]
            out.append(Placed(want.job, best.name, gpus))
            views[best.name] = replace(best, free=subtract(best.free, want.needs, gpus))
        elif able:
            # Waiting only for an exclusive name holds up nobody else.
            short = [v for v in able if set(want.needs.resources) <= v.free.resources]
            if short:
                best = max(short, key=lambda v: (v.free.cores, len(v.free.gpus), v.name))
                views[best.name] = replace(
                    best, free=subtract(best.free, want.needs, best.free.gpus[: want.needs.gpus])
                )
    return out


def room(needs: Needs, lanes: Iterable[LaneView], *, pooled: bool = False) -> int:
    """How many with these needs would fit now, if nothing else were placed."""
    return sum(_times(needs, v.free) for v in lanes if _able(needs, v, pooled))


def can_ever(needs: Needs, lane: LaneView) -> str | None:
    """None when the idle lane could run this; otherwise the reason in a few words."""
    total = lane.total
    if needs.lane is not None and needs.lane != lane.name:
        return f"the job asks for lane {needs.lane}"
    if needs.role not in lane.roles:
        return f"not admitted for {needs.role}"
    if needs.cores > total.cores:
        return f"has {total.cores} cores, {needs.cores} needed"
    if needs.gpus > len(total.gpus):
        return f"has {len(total.gpus)} GPUs, {needs.gpus} needed"
    if needs.memory_mb is not None and total.memory_mb is not None and needs.memory_mb > total.memory_mb:
        return f"has {total.memory_mb} MiB of memory, {needs.memory_mb} needed"
    missing = set(needs.resources) - total.resources
    if missing:
        return f"does not offer {', '.join(sorted(missing))}"
    return None


def fits(needs: Needs, free: Capacity) -> bool:
    return shortage(needs, free) is None


def shortage(needs: Needs, free: Capacity) -> str | None:
    """What is missing now, in a few words; None when the job fits."""
    if needs.cores > free.cores:
        return f"{max(0, free.cores)} cores free, {needs.cores} needed"
    if needs.gpus > len(free.gpus):
        return f"{len(free.gpus)} GPUs free, {needs.gpus} needed"
    if needs.memory_mb is not None and free.memory_mb is not None and needs.memory_mb > free.memory_mb:
        return f"{max(0, free.memory_mb)} MiB of memory free, {needs.memory_mb} needed"
    taken = set(needs.resources) - free.resources
    if taken:
        return f"{', '.join(sorted(taken))} in use"
    if needs.disk_mb and free.disk_mb is not None and needs.disk_mb > free.disk_mb:
        return f"{free.disk_mb} MiB of disk free, {needs.disk_mb} needed"
    return None


def subtract(free: Capacity, needs: Needs, gpus: tuple[int, ...]) -> Capacity:
    """What is left of `free` once `needs` is taken out (below zero where it was only reserved)."""
    memory = free.memory_mb
    if memory is not None and needs.memory_mb is not None:
        memory -= needs.memory_mb
    return Capacity(
        cores=free.cores - needs.cores,
        memory_mb=memory,
        gpus=tuple(g for g in free.gpus if g not in gpus),
        resources=free.resources - set(needs.resources),
        disk_mb=free.disk_mb,
    )


def _able(needs: Needs, lane: LaneView, pooled: bool) -> bool:
    return lane.open and (lane.pools or not pooled) and can_ever(needs, lane) is None


def _times(needs: Needs, free: Capacity) -> int:
    if not fits(needs, free):
        return 0
    if needs.resources:
        return 1  # they are exclusive
    times = free.cores // needs.cores
    if needs.gpus:
        times = min(times, len(free.gpus) // needs.gpus)
    if needs.memory_mb and free.memory_mb is not None:
        times = min(times, free.memory_mb // needs.memory_mb)
    return times
