"""What placement sees of lanes and of what waits, and which of the one could ever take the other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.spec import Needs

_OVERDUE = 0.25


@dataclass(frozen=True)
class Capacity:
    """What a lane has, or has left. `memory_mb` None: unknown, not counted."""

    cores: int
    memory_mb: int | None
    gpus: tuple[int, ...]
    resources: frozenset[str] = frozenset()
    disk_mb: int | None = None


class Running(NamedTuple):
    """What is held on a lane, since when, and until when it should be; both on any clock that only goes forward."""

    since: float
    until: float
    cores: int
    memory_mb: int | None = None
    gpus: tuple[int, ...] = ()
    resources: frozenset[str] = frozenset()

    def left(self, now: float) -> float:
        """Seconds until it should be free. What has run longer than it should runs on for a good part of that."""
        return max(self.until - now, _OVERDUE * (now - self.since))


@dataclass(frozen=True)
class LaneView:
    """A lane as placement sees it.

    Attributes:
        total: all that the lane may use.
        free: what no living attempt holds (a slot whose processes are not all gone is not free).
        open: may new attempts start here now; if not, `why` says so.
        pools: cells can run here in warm workers.
        admitting: steps of its own ladder may run here, whether it is open or not.
        start_s: seconds for which an attempt holds its slot without working.
        running: what is not free, as far as it is known when it will be.
    """

    name: str
    total: Capacity
    free: Capacity
    roles: frozenset[str]
    open: bool = True
    why: str = ""
    pools: bool = False
    admitting: bool = False
    start_s: float = 0.0
    running: tuple[Running, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How the lanes do one kind of work.

    Attributes:
        slow: lane -> seconds that a second of work takes there; a lane that is not named takes one.
        power: seconds of work that all lanes together do in a second, one on each core; never less than they do.
        unsure: lanes of which next to nothing is known.
    """

    slow: Mapping[str, float]
    power: float
    unsure: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """Something to be placed.

    Attributes:
        pooled: a batch, which only a lane that pools can take.
        bars: lanes that cannot, although they pool.
        family: its kind of work, by which its pace is found.
        work_s: seconds of work; None: nobody knows, and it waits for no lane.
        at_most: seconds that it may well take; None: `work_s`.
        group: cells of one sweep, whose order among themselves is ours to choose. They stand together.
        most: no more of the group than this may be placed now.
        rest_s: seconds of work of the group that are not listed; said of its first.
    """

    job: int
    needs: Needs
    pooled: bool = False
    family: str = ""
    work_s: float | None = None
    at_most: float | None = None
    group: int | None = None
    most: int | None = None
    rest_s: float = 0.0
    bars: frozenset[str] = frozenset()

    @property
    def long_s(self) -> float:
        """Seconds of work to reckon with."""
        return self.at_most or self.work_s or 0.0


@dataclass(frozen=True)
class Placed:
    job: int
    lane: str
    gpus: tuple[int, ...]


def can_ever(needs: Needs, lane: LaneView) -> str | None:
    """None when the idle lane could run this; otherwise the reason in a few words."""
    total = lane.total
    if needs.lane is not None and needs.lane != lane.name:
        return f"the job asks for lane {needs.lane}"
    if needs.role not in lane.roles and not needs.admission:
        return f"not admitted for {needs.role}"
    if needs.cores > total.cores:
        return f"has {_of(total.cores, 'core')}, {needs.cores} needed"
    if needs.gpus > len(total.gpus):
        return f"has {_of(len(total.gpus), 'GPU')}, {needs.gpus} needed"
    if needs.memory_mb is not None and total.memory_mb is not None and needs.memory_mb > total.memory_mb:
        return f"has {total.memory_mb} MiB of memory, {needs.memory_mb} needed"
    missing = set(needs.resources) - total.resources
    if missing:
        return f"does not offer {', '.join(sorted(missing))}"
    return None


def able(needs: Needs, lane: LaneView, pooled: bool, bars: frozenset[str] = frozenset()) -> bool:
    """May this start on the lane as soon as there is room? `bars`: lanes that cannot, although they pool."""
    if pooled and lane.name in bars:
        return False
    # A step of a ladder names its lane; nothing else passes a closed door.
    if not lane.open and not (needs.admission and lane.admitting and needs.lane == lane.name):
        return False
    return (lane.pools or not pooled) and can_ever(needs, lane) is None


def fits(needs: Needs, free: Capacity) -> bool:
    return shortage(needs, free) is None


def shortage(needs: Needs, free: Capacity) -> str | None:
    """What is missing now, in a few words; None when the job fits."""
    if needs.cores > free.cores:
        return f"{_of(max(0, free.cores), 'core')} free, {needs.cores} needed"
    if needs.gpus > len(free.gpus):
        return f"{_of(len(free.gpus), 'GPU')} free, {needs.gpus} needed"
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


def returned(free: Capacity, back: Running) -> Capacity:
    """What is free once `back` has ended."""
    memory = free.memory_mb
    if memory is not None:
        memory += back.memory_mb or 0
    return Capacity(
        cores=free.cores + back.cores,
        memory_mb=memory,
        gpus=tuple(sorted({*free.gpus, *back.gpus})),
        resources=free.resources | back.resources,
        disk_mb=free.disk_mb,
    )


def times(needs: Needs, free: Capacity) -> int:
    """How many with these needs fit side by side."""
    if not fits(needs, free):
        return 0
    if needs.resources:
        return 1  # they are exclusive
    found = free.cores // needs.cores
    if needs.gpus:
        found = min(found, len(free.gpus) // needs.gpus)
    if needs.memory_mb and free.memory_mb is not None:
        found = min(found, free.memory_mb // needs.memory_mb)
    return found


_NOTHING = Running(0.0, 0.0, 0)


def openings(needs: Needs, lane: LaneView, now: float = 0.0) -> list[float]:
    """In how many seconds there is room on the lane for one with these needs, for a second, and so on.

    Each opening is used by one of them and not given back. What nobody knows the end of opens nothing.
    """
    if needs.memory_mb is None and not needs.gpus and not needs.resources and not needs.disk_mb:
        cores, each = lane.free.cores, needs.cores
        out = [0.0] * max(0, cores // each)
        cores -= len(out) * each
        for left_s, back in _in_turn(lane, now):
            cores += back.cores
            while cores >= each:
                out.append(left_s)
                cores -= each
        return out
    free, out = lane.free, []
    for left_s, back in [(0.0, _NOTHING), *_freed(lane, now)]:
        free = returned(free, back)
        while fits(needs, free):
            out.append(left_s)
            free = subtract(free, needs, free.gpus[: needs.gpus])
    return out


def _of(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def gpus_next(needs: Needs, lane: LaneView, now: float = 0.0) -> tuple[int, ...]:
    """The GPUs that one with these needs would get there at the first opening."""
    found = lane.free.gpus
    for _, back in _freed(lane, now):
        if len(found) >= needs.gpus:
            break
        found += back.gpus
    return found[: needs.gpus]


def _freed(lane: LaneView, now: float) -> list[tuple[float, Running]]:
    """What comes free and when. What is promised to somebody else from then on does not come free before they end."""
    out: list[tuple[float, Running]] = []
    gpus: set[int] = set()
    names: set[str] = set()
    for left_s, back in reversed(_in_turn(lane, now)):
        out.append(
            (left_s, back._replace(gpus=tuple(g for g in back.gpus if g not in gpus), resources=back.resources - names))
        )
        gpus.update(back.gpus)
        names |= back.resources
    return out[::-1]


def _in_turn(lane: LaneView, now: float) -> list[tuple[float, Running]]:
    if len(lane.running) == 1:
        return [(lane.running[0].left(now), lane.running[0])]
    return sorted(((r.left(now), r) for r in lane.running), key=lambda pair: pair[0])
