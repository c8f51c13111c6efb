"""Timing that can be quoted: pairs in turn, medians, and the spread that says how noisy the machine was."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        return f"{min(self.seconds) * 1000:.1f} to {max(self.seconds) * 1000:.1f}"


def in_turn(runs: int, **what: Callable[[], object]) -> dict[str, Timing]:
    """Time each callable `runs` times, A B A B ..., after one warm-up of each, so that drift meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in what}
    for function in what.values():
        function()
    for _ in range(runs):
        for name, function in what.items():
            began = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - began)
    return {name: Timing(name, tuple(seconds)) for name, seconds in taken.items()}


def ratio(a: Timing, b: Timing) -> float:
    """The median over the pairs: what drifted in between cancels."""
    return statistics.median(x / y for x, y in zip(a.seconds, b.seconds, strict=True))


def process(argv: Sequence[str], env: dict[str, str] | None = None) -> Callable[[], object]:
    """A whole process, from start to end, its output thrown away."""
    full = {**os.environ, **(env or {})}

    def run() -> object:
        return subprocess.run(argv, env=full, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    return run


def table(title: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    print(f"\n{title}")
    head = ("what", "median ms", "min to max ms", "ratio")
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(4)]
    for row in (head, *rows):
        print(
            "  "
            + "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
