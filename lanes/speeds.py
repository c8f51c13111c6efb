"""What ended attempts teach: how fast each lane is, how much work a cell is, and how long a lane takes to begin.

Cells differ and lanes differ, so neither can be read off alone. Both are estimated together, by kind, as a sum of
logarithms:

    log seconds = the kind + each parameter's value + slope * log(each number) + slowness of the lane for the kind

Every term has a prior that pulls it to nothing (a lane's: to what it is for other kinds, or to its admission probe),
so that a term which explains nothing stays small and a lane of which nothing is known counts as an ordinary one, with
the doubt said. Refitted by Gauss-Seidel over the newest ends of the kind; older ones live on in the priors.

Pure: no clock, no journal. `lanes/outlook.py` feeds it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lanes.views import Pace
from lanes.work import Value, Work, work_of

__all__ = ["Estimate", "Speeds", "Work", "work_of"]

_WINDOW = 384  # ends of a kind that are fitted together
_PASSES, _MOST_PASSES, _STEPS = 3, 30, 2000  # over all terms: fewer where there are many ends
_AGAIN, _SELDOM = 24, 192  # ends after which a full window is fitted again; when thousands are known already
_MOST_VALUES = 64  # a parameter with more values is only looked at as a number
_NOISE = 0.15**2  # variance of log seconds between equal cells on one lane, before it is known
_LEAST_NOISE, _MOST_NOISE = 0.03**2, 0.8**2
_VALUE = 0.5**2  # prior variances: of a value's effect before it is known how much this parameter matters,
_BESIDE = 0.25**2  # of what the value of a number adds to its power law,
_SLOPE = 1.5**2  # of the exponent of a number,
_KIND = 100.0  # of the kind's own term: nothing is known,
_LANE = 1.0  # of a lane nobody has measured: a third or three times as fast as others is nothing odd,
_UNSURE = 0.3**2  # a lane with more doubt than this is tried on a short cell first
_PROBED = 0.35**2  # of a lane with a probe,
_OTHER_KIND = 0.3**2  # and of how much more a lane may differ from one kind to another.
_ODD = 2.5  # standard deviations beyond which an end counts for less
_MEMORY = 40  # so many ends of old are remembered in a prior: lanes and code change
_START_S, _STARTS = 0.5, 0.2  # start-up of a lane that has started nothing yet; weight of the newest start

_Key = tuple[str, str]


class Estimate(NamedTuple):
    """Of a logarithm: its mean, its variance, and how many ends of the kind stand behind it."""

    log: float
    var: float
    ends: int

    @property
    def factor(self) -> float:
        """The expected value of what it is the logarithm of; doubt makes it larger."""
        return math.exp(min(self.log + min(self.var, 2.0) / 2, 60.0))

    @property
    def at_most(self) -> float:
        """The value one standard deviation up: what is not known yet counts as long, and so is tried early."""
        return math.exp(min(self.log + math.sqrt(self.var), 60.0))


@dataclass
class _Term:
    """One term of the sum: its value, what was believed before the window, and what is believed now."""

    mean: float = 0.0
    prior: float = 0.0
    weight: float = 1.0  # of the prior: one over its variance
    var: float = 1.0


class _End(NamedTuple):
    lane: str
    axes: tuple[Value, ...]
    log: float


@dataclass
class _Family:
    """One kind of work."""

    window: deque[_End] = field(default_factory=deque)
    terms: dict[_Key, _Term] = field(default_factory=dict)
    lanes: dict[str, _Term] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # ends on each lane
    values: dict[str, set[str]] = field(default_factory=dict)  # of each parameter, as many as matter
    spreads: dict[str, float] = field(default_factory=dict)  # variance between the values of a parameter
    centres: dict[str, float] = field(default_factory=dict)
    noise: float = _NOISE
    ends: int = 0
    fresh: int = 0  # ends that are not fitted yet
    fits: int = 0


class Speeds:
    """All that is learned, for every lane and kind of work."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._probed: dict[str, float] = {}
        self._starts: dict[str, float] = {}
        self._tails: dict[str, float] = {}

    # In.

    def probed(self, lane: str, slowness: float) -> None:
        """What a small fixed piece of work took there, relative to an ordinary lane (2: twice as long)."""
        if slowness > 0 and math.isfinite(slowness):
            self._probed[lane] = math.log(slowness)

    def ended(self, lane: str, work: Work, seconds: float) -> None:
        """An attempt at `work` succeeded there in so many seconds."""
        if not (math.isfinite(seconds) and seconds > 0):
            return
        family = self._families.setdefault(work.family, _Family())
        for axis, value, log in work.axes:
            seen = family.values.setdefault(axis, set())
            if len(seen) <= _MOST_VALUES:
                seen.add(value)
            if log is not None:
                family.centres.setdefault(axis, log)
        end = _End(lane, work.axes, math.log(max(seconds, 1e-4)))
        family.window.append(end)
        family.ends += 1
        family.fresh += 1
        family.counts[lane] = family.counts.get(lane, 0) + 1
        due = max(1, len(family.window) // 8) if family.ends < _WINDOW else family.ends // 64
        if family.fresh >= min(due, _AGAIN if family.ends < 4 * _WINDOW else _SELDOM):
            self._fit(work.family, family)
        else:
            self._nudge(work.family, family, end)

    def started(self, lane: str, seconds: float) -> None:
        """From its placement an attempt took so long until it began there."""
        self._starts[lane] = _smooth(self._starts.get(lane), seconds)

    def closed(self, lane: str, seconds: float) -> None:
        """From its last moment an attempt took so long until its slot was free again."""
        self._tails[lane] = _smooth(self._tails.get(lane), seconds)

    # Out.

    def ends(self, family: str) -> int:
        """How many ends of this kind of work are known."""
        found = self._families.get(family)
        return found.ends if found is not None else 0

    def fits(self, family: str) -> int:
        """A number that changes when estimates of this kind of work have changed."""
        found = self._families.get(family)
        return found.fits if found is not None else 0

    def work(self, work: Work) -> Estimate | None:
        """Logarithm of the seconds on an ordinary lane; None: no such work has ever ended."""
        family = self._families.get(work.family)
        if family is None or not family.ends:
            return None
        log, var = 0.0, 0.0
        for key, x in _factors(family, work.axes):
            term = family.terms.get(key)
            if term is None:
                var += x * x * _spread(family, key)
            else:
                log += x * term.mean
                var += x * x * term.var
        return Estimate(log, var, family.ends)

    def slowness(self, lane: str, family: str) -> Estimate:
        """Logarithm of how many times longer than on an ordinary lane this kind of work takes there."""
        known = self._families.get(family)
        term = known.lanes.get(lane) if known is not None else None
        if known is None or term is None:
            mean, var = self._believed(lane, family)
            return Estimate(mean, var, 0)
        return Estimate(term.mean, term.var, known.counts.get(lane, 0))

    def seconds(self, lane: str, work: Work) -> Estimate | None:
        """Logarithm of the seconds that `work` should take on that lane."""
        found, slow = self.work(work), self.slowness(lane, work.family)
        if found is None:
            return None
        return Estimate(found.log + slow.log, found.var + slow.var + self._families[work.family].noise, slow.ends)

    def pace(self, family: str, lanes: Iterable[tuple[str, int]]) -> Pace:
        """How these lanes, each with its cores, do this kind of work."""
        slow: dict[str, float] = {}
        unsure: list[str] = []
        power = 0.0
        for name, cores in lanes:
            found = self.slowness(name, family)
            slow[name] = found.at_most  # in doubt a lane is slow
            power += cores / math.exp(found.log)
            if found.var > _UNSURE:
                unsure.append(name)
        return Pace(slow, power, frozenset(unsure))

    def start_s(self, lane: str) -> float:
        """Seconds from a placement to the beginning."""
        found = self._starts.get(lane)
        return _START_S if found is None else found

    def overhead_s(self, lane: str) -> float:
        """Seconds for which an attempt holds its slot beyond its own."""
        return self.start_s(lane) + self._tails.get(lane, 0.0)

    def known_from(self, lane: str, family: str) -> str:
        """What its slowness for this kind of work rests on, in a few words; empty: nothing."""
        known = self._families.get(family)
        here = known.counts.get(lane, 0) if known is not None else 0
        if here:
            return f"{here:,} run{'' if here == 1 else 's'}"
        others = sum(f.counts.get(lane, 0) for f in self._families.values())
        if others:
            return f"{others:,} of other kinds"
        return "its probe" if lane in self._probed else ""

    # How it is fitted.

    def _believed(self, lane: str, but: str) -> tuple[float, float]:
        """Mean and variance of a lane's slowness from everything but one kind of work: probe and other kinds."""
        probed = self._probed.get(lane)
        mean, var = (0.0, _LANE) if probed is None else (probed, _PROBED)
        weight = 1 / var
        total = weight * mean
        for name, family in self._families.items():
            term = family.lanes.get(lane)
            if term is not None and name != but and family.counts.get(lane):
                other = 1 / (term.var + _OTHER_KIND)
                weight += other
                total += other * term.mean
        return total / weight, 1 / weight + _OTHER_KIND

    def _lane(self, name: str, family: _Family, lane: str) -> _Term:
        term = family.lanes.get(lane)
        if term is None:
            mean, var = self._believed(lane, name)
            term = family.lanes[lane] = _Term(mean, mean, 1 / var, var)
        return term

    def _nudge(self, name: str, family: _Family, end: _End) -> None:
        """What one end says of its lane, until all is fitted again."""
        term = self._lane(name, family, end.lane)
        rest = end.log - term.mean
        for key, x in _factors(family, end.axes):
            found = family.terms.get(key)
            rest -= x * found.mean if found is not None else 0.0
        gain = term.var / (term.var + family.noise)
        limit = _ODD * math.sqrt(term.var + family.noise)
        term.mean += gain * max(-limit, min(limit, rest))
        term.var *= 1 - gain

    def _fit(self, name: str, family: _Family) -> None:
        while len(family.window) > _WINDOW:
            self._age(name, family, family.window.popleft())
        ends = list(family.window)
        rows: dict[_Key, list[tuple[int, float]]] = {}
        rest: list[float] = []
        for i, end in enumerate(ends):
            left = end.log - self._lane(name, family, end.lane).mean
            for key, x in _factors(family, end.axes):
                term = family.terms.get(key)
                if term is None:
                    var = _spread(family, key)
                    term = family.terms[key] = _Term(0.0, 0.0, 1 / var, var)
                left -= x * term.mean
                rows.setdefault(key, []).append((i, x))
            rest.append(left)
        of_lanes: dict[str, list[tuple[int, float]]] = {}
        for i, end in enumerate(ends):
            of_lanes.setdefault(end.lane, []).append((i, 1.0))
        trust = _trust(rest, family.noise)
        # The few that explain much come first.
        order = sorted(rows, key=lambda key: (key[0] != "", key[1] != _NUMBER))
        all_terms = [(family.terms[key], rows[key]) for key in order]
        all_terms += [(family.lanes[lane], mine) for lane, mine in of_lanes.items()]
        for _ in range(max(_PASSES, min(_MOST_PASSES, _STEPS // max(1, len(ends) * (1 + len(rows) // 8))))):
            for term, mine in all_terms:
                _settle(term, mine, rest, trust)
        self._reckon(family, rest, rows)
        family.fresh = 0
        family.fits += 1

    def _reckon(self, family: _Family, rest: Sequence[float], rows: Mapping[_Key, Sequence[tuple[int, float]]]) -> None:
        """From what is left over: how much equal cells differ, and how much each parameter matters."""
        if len(rest) >= 6:
            # The median of squares, so that a few odd ends do not blur the rest; a fitted term explains one end.
            squares = sorted(r * r for r in rest)
            spare = max(0.2, 1 - len(rows) / (2 * len(rest)))
            family.noise = min(_MOST_NOISE, max(_LEAST_NOISE, squares[len(squares) // 2] / 0.455 / spare))
        sums: dict[str, list[float]] = {}
        for axis, value in rows:
            if axis and value != _NUMBER:
                term = family.terms[axis, value]
                sums.setdefault(axis, []).append(term.mean**2 + term.var)
        for axis, found in sums.items():
            spread = min(4.0, max(0.05**2, (sum(found) + _VALUE) / (len(found) + 1)))
            family.spreads[axis] = spread
            for value in family.values.get(axis, ()):
                term_of = family.terms.get((axis, value))
                if term_of is not None and term_of.prior == 0.0:
                    term_of.weight = 1 / spread

    def _age(self, name: str, family: _Family, end: _End) -> None:
        """Let an end that leaves the window live on in what is believed before it."""
        lane = self._lane(name, family, end.lane)
        found = [(family.terms[key], x) for key, x in _factors(family, end.axes) if key in family.terms]
        left = end.log - lane.mean - sum(x * term.mean for term, x in found)
        limit = _ODD * math.sqrt(family.noise)
        left = max(-limit, min(limit, left))
        for term, x in [(lane, 1.0), *found]:
            if abs(x) < 0.5:
                continue
            more = 1 / family.noise
            whole = min(term.weight + more, _MEMORY / family.noise)
            term.prior += (term.mean + left - term.prior) * min(1.0, more / whole)
            term.weight = whole


_NUMBER = "\0number"


def _factors(family: _Family, axes: Iterable[Value]) -> list[tuple[_Key, float]]:
    """The terms of one cell with what each is multiplied with; the lane's is apart."""
    out: list[tuple[_Key, float]] = [(("", ""), 1.0)]
    for axis, value, log in axes:
        seen = family.values.get(axis)
        if seen is None or (len(seen) < 2 and value in seen):
            continue  # it has never varied: the kind's own term says it all
        # A value seen once explains whatever happened then, and so nothing.
        repeats = len(seen) <= _MOST_VALUES and family.ends >= 2 * len(seen)
        if repeats:
            out.append(((axis, value), 1.0))
        if log is not None and (len(seen) > 2 or not repeats):
            out.append(((axis, _NUMBER), log - family.centres.get(axis, log)))
    return out


def _spread(family: _Family, key: _Key) -> float:
    axis, value = key
    if not axis:
        return _KIND
    if value == _NUMBER:
        return _SLOPE
    usual = _VALUE if axis not in family.centres or len(family.values[axis]) <= 2 else _BESIDE
    return family.spreads.get(axis, usual)


def _settle(term: _Term, mine: Sequence[tuple[int, float]], rest: list[float], trust: Sequence[float]) -> None:
    """Give one term the value that explains best what all others leave over."""
    pull, weight = term.weight * (term.prior - term.mean), term.weight
    for i, x in mine:
        pull += trust[i] * x * rest[i]
        weight += trust[i] * x * x
    step = pull / weight
    term.mean += step
    term.var = 1 / weight
    for i, x in mine:
        rest[i] -= x * step


def _trust(rest: Sequence[float], noise: float) -> list[float]:
    limit = _ODD * math.sqrt(noise)
    return [(1.0 if abs(r) <= limit else limit / abs(r)) / noise for r in rest]


def _smooth(old: float | None, new: float) -> float:
    new = max(0.0, new) if math.isfinite(new) else 0.0
    if old is None:
        return new
    # One slow start says little: it is believed only as far as three times what was usual.
    return old + _STARTS * (min(new, 3 * old + 1.0) - old)
