"""A choice of jobs, kept as ranges: the cells of a sweep lie side by side, and a hundred thousand of them are one."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_MOST_TERMS = 64  # ranges that are written out in SQL


@dataclass(frozen=True)
class Jobs:
    """Ids as ascending ranges (first, last) that do not touch."""

    spans: tuple[tuple[int, int], ...]

    @staticmethod
    def of(ids: Iterable[int]) -> Jobs:
        return _joined((i, i) for i in ids)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __len__(self) -> int:
        return sum(b - a + 1 for a, b in self.spans)

    def __contains__(self, job: int) -> bool:
        return self.meets(job, job)

    def meets(self, first: int, last: int) -> bool:
        """Is any id from `first` to `last` among them?"""
        at = bisect_right(self.spans, (last, 1 << 62)) - 1
        return at >= 0 and self.spans[at][1] >= first

    def covers(self, first: int, last: int) -> bool:
        """Are all ids from `first` to `last` among them?"""
        at = bisect_right(self.spans, (first, 1 << 62)) - 1
        return at >= 0 and self.spans[at][1] >= last

    def minus(self, other: Jobs) -> Jobs:
        """Those that are not in `other`."""
        out: list[tuple[int, int]] = []
        for first, last in self.spans:
            at = bisect_right(other.spans, (first, 1 << 62)) - 1
            for a, b in other.spans[max(at, 0) :]:
                if a > last:
                    break
                if b < first:
                    continue
                if a > first:
                    out.append((first, a - 1))
                first = b + 1
            if first <= last:
                out.append((first, last))
        return Jobs(tuple(out))

    def mask(self, jobs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which of `jobs` are among them."""
        import numpy as np

        if not self.spans:
            return np.zeros(len(jobs), dtype=bool)
        first = np.array([a for a, _ in self.spans], np.int64)
        last = np.array([b for _, b in self.spans], np.int64)
        at = np.searchsorted(first, jobs, side="right") - 1
        return np.asarray((at >= 0) & (jobs <= last[at]))

    def condition(self, column: str) -> str | None:
        """The choice as a condition in SQL; None where it has too many ranges to be written out."""
        if len(self.spans) > _MOST_TERMS:
            return None
        terms = [f"{column} = {a}" if a == b else f"{column} BETWEEN {a} AND {b}" for a, b in self.spans]
        return f"({' OR '.join(terms)})" if terms else "false"

    def said(self, most: int = 5) -> str:
        """For people: `3, 5-9`."""
        words = [str(a) if a == b else f"{a}-{b}" for a, b in self.spans[:most]]
        return ", ".join(words) + (", ..." if len(self.spans) > most else "")


def chosen(conn: sqlite3.Connection, ids: Iterable[int]) -> Jobs:
    """The jobs that `ids` name; a sweep stands for its cells and for the jobs that answer some of them."""
    given = list(ids)
    spans: list[tuple[int, int]] = []
    sweeps = "SELECT w.id, w.cells FROM sweep w WHERE w.id IN (SELECT value FROM json_each(?))"
    found = {int(r[0]): int(r[1]) for r in conn.execute(sweeps, (json.dumps(given),))} if given else {}
    for sweep, cells in found.items():
        spans.append((sweep + 1, sweep + cells))
        spans += Jobs.of(int(r[0]) for r in conn.execute("SELECT job FROM member WHERE sweep = ?", (sweep,))).spans
    spans += Jobs.of(i for i in given if i not in found).spans
    return _joined(spans)


def _joined(spans: Iterable[tuple[int, int]]) -> Jobs:
    out: list[tuple[int, int]] = []
    for first, last in sorted(s for s in spans if s[0] <= s[1]):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return Jobs(tuple(out))
