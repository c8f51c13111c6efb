"""Placement by expected finish: one look at all lanes and all that waits. Pure; see `lanes.placement`."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lanes.views import LaneView, Pace, Placed, Running, Wanted, able, fits, gpus_next, openings, subtract, times

_ALIKE = 1.05  # finishes as near as this are the same: then the emptier lane
_FINE = 24  # more lanes than this are put together with those of nearly the same slowness
_COARSE = 10.0  # classes of slowness for each factor e
_MARGIN = 0.9


class _Opening(NamedTuple):
    """Room on a lane for one: `free` now, or as soon as something ends."""

    lane: str
    start_s: float
    free: bool


class _Class(NamedTuple):
    """Openings on lanes of one slowness: (ready, how full its lane is, number), soonest first."""

    slow: float
    heap: list[tuple[float, float, int]]


class Round:
    """One call of `place` with paces."""

    def __init__(self, views: dict[str, LaneView], paces: Mapping[str, Pace], now: float) -> None:
        self.views = views
        self.now = now
        self.paces = paces
        self.out: list[Placed] = []
        self._able: dict[tuple[int, bool, frozenset[str]], list[str]] = {}

    def place(self, wanted: Sequence[Wanted]) -> list[Placed]:
        groups = list(_groups(wanted))
        for n, members in enumerate(groups):
            if not any(v.free.cores > 0 for v in self.views.values()):
                break
            self._group(members, last=n == len(groups) - 1)
        return self.out

    def _group(self, members: list[Wanted], *, last: bool) -> None:
        first = members[0]
        needs, pooled = first.needs, first.pooled
        cores = needs.cores
        free = [
            v
            for v in self.views.values()
            if v.free.cores >= cores and fits(needs, v.free) and able(needs, v, pooled, first.bars)
        ]
        pace = self.paces.get(first.family) or _ALL_ALIKE
        most = len(members) if first.most is None else min(first.most, len(members))
        if not free:
            if not last:
                self._reserve(first, pace)
        elif first.work_s is None:
            self._unknown(members, most, free, pace, last=last)
        else:
            self._known(members, most, free, pace, last=last)

    def _who(self, want: Wanted) -> list[LaneView]:
        """All lanes that can take it, whether there is room now or not."""
        key = id(want.needs), want.pooled, want.bars
        names = self._able.get(key)
        if names is None:
            names = [n for n, v in self.views.items() if able(want.needs, v, want.pooled, want.bars)]
            self._able[key] = names
        return [self.views[n] for n in names]

    def _put(self, want: Wanted, view: LaneView, finish: float) -> LaneView:
        """Place it; the lane's view afterwards."""
        gpus = view.free.gpus[: want.needs.gpus]
        self.out.append(Placed(want.job, view.name, gpus))
        return self._hold(want, view, gpus, finish)

    def _hold(self, want: Wanted, view: LaneView, gpus: tuple[int, ...], finish: float) -> LaneView:
        needs = want.needs
        free = subtract(view.free, needs, gpus)
        running = view.running
        if finish < math.inf:
            kept = Running(self.now, self.now + finish, needs.cores, needs.memory_mb, gpus, frozenset(needs.resources))
            running = (*running, kept)
        now = self.views[view.name] = replace(view, free=free, running=running)
        return now

    # Work of which nothing is known.

    def _unknown(self, members: list[Wanted], most: int, free: list[LaneView], pace: Pace, *, last: bool) -> None:
        needs = members[0].needs
        left = {v.name: v for v in free}
        # Of equal cells a lane that is known to be slow would end one after all the others have ended theirs.
        useless = math.inf
        if len(members) > 1 and pace.power > 0:
            useless = max(min(pace.slow.values(), default=1.0), len(members) * needs.cores / pace.power)
        for want in members[:most]:
            fitting = [v for v in left.values() if fits(needs, v.free) and pace.slow.get(v.name, 1.0) <= useless]
            if not fitting:
                if not last:
                    self._reserve(want, pace)
                return
            quick = min(pace.slow.get(v.name, 1.0) for v in fitting) * _ALIKE
            best = max((v for v in fitting if pace.slow.get(v.name, 1.0) <= quick), key=emptier)
            left[best.name] = self._put(want, best, math.inf)

    def _reserve(self, want: Wanted, pace: Pace) -> None:
        """Nothing fits: keep room where it is expected to finish first."""
        # Waiting only for an exclusive name holds up nobody else.
        short = [v for v in self._who(want) if set(want.needs.resources) <= v.free.resources]
        if not short:
            return
        work = want.long_s
        found: list[tuple[float, LaneView]] = []
        for v in short:
            opens = openings(want.needs, v, self.now)[:1]
            ready = opens[0] + v.start_s if opens else math.inf
            found.append((ready + work * pace.slow.get(v.name, 1.0), v))
        soonest = min(f for f, _ in found)
        near = [v for f, v in found if f <= soonest * _ALIKE]
        best = max(near, key=lambda v: (v.free.cores, len(v.free.gpus), v.name))
        finish = soonest if want.work_s is not None else math.inf
        self._hold(want, best, gpus_next(want.needs, best, self.now), finish)

    # Work of which we know how long it takes.

    def _known(self, members: list[Wanted], most: int, free: list[LaneView], pace: Pace, *, last: bool) -> None:
        needs = members[0].needs
        waiting = deque(sorted(members, key=_longest) if len(members) > 1 else members)
        slots: list[tuple[float, float, str]] = []
        for v in free:
            slow = pace.slow.get(v.name, 1.0)
            slots += [(slow, -v.free.cores / max(1, v.total.cores), v.name)] * times(needs, v.free)
        slots.sort()
        # All lanes together need at least so long for what waits: what a lane ends before that delays nobody.
        whole = sum(w.work_s or 0.0 for w in members) + members[0].rest_s
        enough = whole * needs.cores / pace.power if pace.power > 0 else 0.0
        fastest = _ALIKE * min(pace.slow.values(), default=1.0)
        at = 0
        while at < len(slots) and most and waiting:
            slow, _, name = slots[at]
            view = self.views[name]
            # A lane that nobody knows shows on a short cell what it is worth.
            trial = name in pace.unsure
            want = waiting[-1 if trial else 0]
            finish = view.start_s + want.long_s * slow
            if finish > enough and slow > fastest:
                break  # it might be done sooner on a lane that is busy now
            if trial:
                waiting.pop()
            else:
                waiting.popleft()
            self._put(want, view, finish)
            at, most = at + 1, most - 1
        if at < len(slots) and most and waiting:
            self._plan(list(waiting), most, pace, enough, last=last)

    def _plan(self, members: list[Wanted], most: int, pace: Pace, enough: float, *, last: bool) -> None:
        """List the openings of all lanes, give the longest cell its earliest finish, then the next longest, ..."""
        needs = members[0].needs
        who = self._who(members[0])
        fine = len(who) <= _FINE
        slots: list[_Opening] = []
        classes: dict[int, _Class] = {}
        idle = 0
        for n, view in enumerate(who):
            slow = pace.slow.get(view.name, 1.0)
            key = n if fine else round(_COARSE * math.log(slow))
            # The emptier of equal lanes first.
            rank = -view.free.cores / max(1, view.total.cores)
            for at in openings(needs, view, self.now):
                found = classes.get(key)
                if found is None:
                    found = classes[key] = _Class(slow if fine else math.exp(key / _COARSE), [])
                found.heap.append((at + view.start_s, rank, len(slots)))
                slots.append(_Opening(view.name, view.start_s, at == 0.0))
                idle += at == 0.0
        for found in classes.values():
            heapq.heapify(found.heap)
        kinds = list(classes.values())
        promised: dict[int, tuple[Wanted, float]] = {}
        passed: list[Wanted] = []
        latest = enough
        for want in members:
            if not idle or not most:
                break
            work = want.long_s
            best, soonest = kinds[0], math.inf
            for found in kinds:
                ready, _, n = found.heap[0]
                finish = ready + work * found.slow
                if slots[n].free:
                    finish /= _ALIKE  # a bird in the hand
                if finish < soonest:
                    best, soonest = found, finish
            ready, rank, n = best.heap[0]
            slot = slots[n]
            finish = ready + work * best.slow
            heapq.heapreplace(best.heap, (finish + slot.start_s, rank, n))
            if slot.free:
                slots[n] = slot._replace(free=False)
                self._put(want, self.views[slot.lane], finish)
                idle, most = idle - 1, most - 1
            else:
                promised[n] = (want, finish)
                passed.append(want)
                latest = max(latest, finish)
        if idle and most and passed:
            self._relieve(passed, most, pace, latest)
        if not last:
            for n, (want, finish) in promised.items():
                view = self.views[slots[n].lane]
                self._hold(want, view, gpus_next(want.needs, view, self.now), finish)

    def _relieve(self, passed: list[Wanted], most: int, pace: Pace, latest: float) -> None:
        """An idle lane takes the longest of the promised cells that it ends well before the last of all."""
        needs = passed[0].needs
        left = list(passed)
        idle = [v for v in self._who(passed[0]) if v.free.cores >= needs.cores]
        for view in sorted(idle, key=lambda v: pace.slow.get(v.name, 1.0)):
            slow = pace.slow.get(view.name, 1.0)
            while most and left and fits(needs, view.free):
                bound = (_MARGIN * latest - view.start_s) / slow
                at = bisect_left(left, -bound, key=_longest)
                if at == len(left):
                    break
                want = left.pop(at)
                view = self._put(want, view, view.start_s + want.long_s * slow)
                most -= 1


_ALL_ALIKE = Pace({}, 0.0)


def emptier(view: LaneView) -> tuple[float, int, str]:
    """Of two lanes that would do equally well, the one where this is larger."""
    return view.free.cores / max(1, view.total.cores), len(view.free.gpus), view.name


def _longest(want: Wanted) -> float:
    return -want.long_s


def _groups(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """What stands together and needs the same; anything else by itself."""
    group: list[Wanted] = []
    for want in wanted:
        if group and not _together(group[0], want):
            yield group
            group = []
        group.append(want)
    if group:
        yield group


def _together(a: Wanted, b: Wanted) -> bool:
    return (
        a.group is not None
        and a.group == b.group
        and (a.needs is b.needs or a.needs == b.needs)
        and a.pooled == b.pooled
        and a.bars == b.bars
        and a.family == b.family
        and (a.work_s is None) == (b.work_s is None)
    )
