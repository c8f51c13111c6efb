"""Step rows as curves: of one job over all its attempts, of the cells of a sweep side by side."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from typing import Any, TypeGuard

from core.home import Home
from core.live import metric_rows
from core.states import JobState
from lab.tui import clean
from lab.tui.facts import Series

MOST_SERIES = 8  # cells of a sweep whose curves are drawn into one another
_MOST_POINTS = 4000
_NO_CURVES = frozenset(("step", "t", "job", "attempt", "epoch"))


class Curves:
    """The step rows of a job as points; only new rows are read, and many are thinned.

    An attempt that went on from a checkpoint goes on with its curve too: where it begins, what lay beyond is dropped.
    """

    def __init__(self) -> None:
        self._attempt = 0
        self._after = -1
        self._xs: dict[str, list[float]] = {}
        self._ys: dict[str, list[float]] = {}
        self.points: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}

    def read(self, home: Home, job: int, attempt: int) -> None:
        """What is new, up to this attempt."""
        while self._attempt < attempt:
            self._read(home, job)
            self._attempt, self._after = self._attempt + 1, -1
        self._read(home, job)

    def _read(self, home: Home, job: int) -> None:
        if not self._attempt:
            return
        rows = metric_rows(home, job, self._attempt, after=self._after)
        if not rows:
            return
        touched = set()
        if self._after < 0:
            touched |= self._cut(next((float(r["step"]) for _, r in rows if is_number(r.get("step"))), math.inf))
        self._after = rows[-1][0]
        for _, row in rows:
            step = row.get("step")
            if not is_number(step):
                continue
            for name, value in row.items():
                if name not in _NO_CURVES and is_number(value):
                    key = clean.one_line(str(name))[:40]
                    self._xs.setdefault(key, []).append(float(step))
                    self._ys.setdefault(key, []).append(float(value))
                    touched.add(key)
        points = dict(self.points)
        for key in touched:
            xs, ys = self._xs[key], self._ys[key]
            if len(xs) > 2 * _MOST_POINTS:
                last = (xs[-1], ys[-1])
                del xs[1::2], ys[1::2]
                if xs[-1] != last[0]:
                    xs.append(last[0])
                    ys.append(last[1])
            points[key] = (tuple(xs), tuple(ys))
        self.points = {key: found for key, found in points.items() if found[0]}

    def _cut(self, first: float) -> set[str]:
        """Drop what lies at this step and beyond. Returns whose points are fewer now."""
        touched = set()
        for key, xs in self._xs.items():
            keep = len(xs)
            while keep and xs[keep - 1] >= first:
                keep -= 1
            if keep < len(xs):
                del xs[keep:], self._ys[key][keep:]
                touched.add(key)
        return touched


class Together:
    """The curves of the cells of a sweep: of a few, for more cannot be told apart."""

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None  # the sweep, and how often the journal has changed
        self._cells: list[tuple[int, str, JobState, int]] = []
        self._curves: dict[int, Curves] = {}
        self._done: set[tuple[int, int]] = set()

    def read(self, home: Home, conn: sqlite3.Connection, sweep: int, version: int) -> tuple[Series, ...]:
        if self._of is None or self._of[0] != sweep:
            self._curves, self._done = {}, set()
        if self._of != (sweep, version):
            self._cells, self._of = _cells(conn, sweep), (sweep, version)
        out = []
        for job, name, state, attempts in self._cells:
            curves = self._curves.setdefault(job, Curves())
            if (job, attempts) not in self._done:
                curves.read(home, job, attempts)
                if state.terminal:
                    self._done.add((job, attempts))
            if curves.points:
                out.append(Series(job, clean.one_line(name), state, curves.points))
        return tuple(out)


def _cells(conn: sqlite3.Connection, sweep: int) -> list[tuple[int, str, JobState, int]]:
    """(job, name, state, attempts) of the cells whose curves are shown, in order; those that run before others."""
    rows = conn.execute(
        "SELECT s.id, j.name, s.state, s.attempts FROM job_state s JOIN job j ON j.id = s.id WHERE s.attempts > 0 "
        "AND (s.sweep = ?1 OR s.id IN (SELECT job FROM member WHERE sweep = ?1)) "
        f"ORDER BY s.state NOT IN ('running', 'cancelling'), s.id LIMIT {MOST_SERIES}",
        (sweep,),
    ).fetchall()
    return sorted((int(i), str(name or i), JobState(state), int(n)) for i, name, state, n in rows)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
