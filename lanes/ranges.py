"""Sets of job ids as ranges: what the cells of a sweep do, they mostly do side by side."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]  # first and last, both included


class Ids:
    """A set of ids that costs what its gaps cost."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        self._n = 0
        for first, last in spans:
            self.add(first, last)

    def __len__(self) -> int:
        return self._n

    def __contains__(self, i: int) -> bool:
        at = bisect_right(self._spans, (i, 1 << 62)) - 1
        return at >= 0 and i <= self._spans[at][1]

    def __iter__(self) -> Iterator[int]:
        for first, last in self._spans:
            yield from range(first, last + 1)

    def spans(self) -> list[Span]:
        return list(self._spans)

    def add(self, first: int, last: int | None = None) -> None:
        """Put in an id, or all from `first` to `last`."""
        last = first if last is None else last
        if last < first:
            return
        lo = bisect_right(self._spans, (first, -1))
        if lo and self._spans[lo - 1][1] >= first - 1:
            lo -= 1
        hi = lo
        while hi < len(self._spans) and self._spans[hi][0] <= last + 1:
            a, b = self._spans[hi]
            first, last = min(first, a), max(last, b)
            self._n -= b - a + 1
            hi += 1
        self._spans[lo:hi] = [(first, last)]
        self._n += last - first + 1

    def discard(self, i: int) -> bool:
        """Take out one id. True when it was there."""
        at = bisect_right(self._spans, (i, 1 << 62)) - 1
        if at < 0 or i > self._spans[at][1]:
            return False
        first, last = self._spans[at]
        self._spans[at : at + 1] = [(a, b) for a, b in ((first, i - 1), (i + 1, last)) if a <= b]
        self._n -= 1
        return True

    def peek(self, n: int) -> list[Span]:
        """The lowest `n` ids."""
        out: list[Span] = []
        for first, last in self._spans:
            if n <= 0:
                break
            last = min(last, first + n - 1)
            out.append((first, last))
            n -= last - first + 1
        return out

    def take(self, n: int) -> list[Span]:
        """Take out the lowest `n` ids."""
        out = self.peek(n)
        if out:
            last = out[-1][1]
            rest = self._spans[len(out) - 1][1]
            self._spans[: len(out)] = [(last + 1, rest)] if rest > last else []
            self._n -= count(out)
        return out

    def clear(self) -> None:
        self._spans, self._n = [], 0


def count(spans: Iterable[Span]) -> int:
    return sum(last - first + 1 for first, last in spans)


def spans_of(ids: Iterable[int]) -> list[Span]:
    """Ascending ids as ranges."""
    out: list[Span] = []
    first = last = None
    for i in ids:
        if last is not None and i == last + 1:
            last = i
            continue
        if first is not None and last is not None:
            out.append((first, last))
        first = last = i
    if first is not None and last is not None:
        out.append((first, last))
    return out


def runs_of(numbered: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Ascending (job, attempt) as [first job, last job, attempt], the way batches are written down."""
    out: list[list[int]] = []
    for job, n in numbered:
        if out and out[-1][1] == job - 1 and out[-1][2] == n:
            out[-1][1] = job
        else:
            out.append([job, job, n])
    return out
