"""The picture of a parity run: one real patch through both sides, and every cell against its tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from jobs.parity.cases import Case
from jobs.parity.words import Role, Verdict

Row = Mapping[str, Any]

# Okabe and Ito's colours and one shape each: told apart without colour too.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
INK, ALARM = "#222222", "#B00020"


def draw(path: Path, rows: Sequence[Row], example: Mapping[str, Any] | None) -> None:
    """Write the figure of a whole run to `path`."""
    style: Any = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        height = 8.6 if example is not None else 5.0  # nothing to show where nothing could be judged
        figure = plt.figure(figsize=(13, height), layout="constrained", facecolor="white")
        below: Any = figure
        if example is not None:
            halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25), hspace=0.04)
            above, below = halves
            _pictures(above, example)
        left, right = below.subplots(1, 2, width_ratios=(1.55, 1))
        _cells(left, [r for r in rows if r["role"] == Role.CANDIDATE])
        _controls(right, [r for r in rows if r["role"] in (Role.MUTANT, Role.CONTROL)])
        figure.savefig(path, dpi=130, metadata={"Software": None})
        plt.close(figure)


def _pictures(figure: Any, example: Mapping[str, Any]) -> None:
    tx, ty = example["offset"]
    figure.suptitle(
        f"A picture of the cell with the largest error: {example['title']}, content moved by [{tx:+.3f}, {ty:+.3f}] px",
        color=INK,
    )
    axes = figure.subplots(1, 4)
    top = float(np.abs(example["input"]).max())
    for ax, key, title in zip(
        axes, ("input", "oracle", "candidate"), ("input, amplitude", "float64 oracle", "candidate"), strict=False
    ):
        shown = ax.imshow(np.abs(example[key]), cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        ax.set_title(title)
        _bar(figure, shown, ax)
    error = example["relative"] / example["tolerance"]
    error = np.where(np.isfinite(error), error, np.nan)
    limit = max(1.0, float(np.nanmax(error, initial=0.0)))
    shown = axes[3].imshow(error, cmap="viridis", vmin=0, vmax=limit, interpolation="nearest")
    axes[3].set_title("local error ÷ tolerance")
    _bar(figure, shown, axes[3])
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)


def _bar(figure: Any, shown: Any, ax: Axes) -> None:
    bar = figure.colorbar(shown, ax=ax, shrink=0.8, pad=0.02, aspect=16)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)


def _cells(ax: Axes, rows: Sequence[Row]) -> None:
    """One column a cell, one mark a candidate, the tolerance as a line over the cells that it holds for."""
    cases = list(Case)
    columns = sorted(
        dict.fromkeys((r["dtype"], r["case"], r["batch"], r["channels"]) for r in rows),
        key=lambda c: (c[0] != rows[0]["dtype"], c[0], cases.index(Case(c[1])), c[2] * c[3], c[3]),
    )
    names = list(dict.fromkeys(r["candidate"] for r in rows))
    place = {column: i for i, column in enumerate(columns)}
    scale = _Scale(rows)
    spread = np.linspace(-0.27, 0.27, len(names)) if len(names) > 1 else [0.0]
    for number, name in enumerate(names):
        colour, marker = STYLES[number % len(STYLES)]
        mine = [r for r in rows if r["candidate"] == name]
        for row in mine:
            x = place[row["dtype"], row["case"], row["batch"], row["channels"]] + spread[number]
            if row["max_rel"] is None:
                ax.text(
                    x, scale.zero * 3, row["verdict"], rotation=90, color=ALARM, fontsize=7, ha="center", va="bottom"
                )
                continue
            ok = row["verdict"] == Verdict.PASS
            face, edge, width = (colour, "white", 0.5) if ok else ("none", ALARM, 1.6)
            y = scale.at(row["max_rel"])
            ax.plot(x, y, marker, color=face, markeredgecolor=edge, markeredgewidth=width, markersize=6.5)
        passed = sum(r["verdict"] == Verdict.PASS for r in mine)
        ax.plot([], [], marker, color=colour, markersize=6.5, label=f"{name}  {passed}/{len(mine)} pass")
    for column, x in place.items():
        limit = max(r["tolerance"] for r in rows if (r["dtype"], r["case"], r["batch"], r["channels"]) == column)
        ax.plot([x - 0.45, x + 0.45], [scale.at(limit)] * 2, color=INK, linewidth=1.2)
    if any(r["verdict"] == Verdict.FAIL for r in rows):
        ax.plot([], [], "o", color="none", markeredgecolor=ALARM, markeredgewidth=1.6, label="hollow: failed")
    scale.apply(ax.yaxis, ax.set_yscale, ax.set_ylim, room=2.2)
    ax.plot([], [], color=INK, linewidth=1.2, label="tolerance (0: bit for bit)")
    ax.set_xticks(range(len(columns)), [f"{b}×{c}" for _, _, b, c in columns], rotation=60 if len(columns) > 16 else 0)
    ax.tick_params(axis="x", labelsize=7.5, length=0)
    ax.set_xlim(-0.6, len(columns) - 0.4)
    _groups(ax, columns)
    ax.set_ylabel("largest local relative error")
    ax.set_title("Candidates: every mark must lie on or under its line (columns: batch × channels)", loc="left")
    ax.legend(loc="upper left", ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.8)
    ax.set_axisbelow(True)


def _groups(ax: Axes, columns: Sequence[tuple[str, str, int, int]]) -> None:
    """The case, and the precision where there are two, under the columns that share it."""
    crowded = len(columns) > 16
    for start, end in _runs([c[:2] for c in columns]):
        _under(ax, columns[start][1], start, end, lines=1.6 if crowded else 0.8, size=7.5 if crowded else 8.5)
        if start:
            ax.axvline(start - 0.5, color="#cccccc", linewidth=0.8, zorder=0)
    precisions = _runs([c[0] for c in columns])
    for start, end in precisions if len(precisions) > 1 else ():
        _under(ax, columns[start][0], start, end, lines=2.6 if crowded else 1.8, size=8.5)


def _runs(values: Sequence[Any]) -> list[tuple[int, int]]:
    """(start, end) of each stretch of equal values."""
    starts = [i for i, v in enumerate(values) if i == 0 or v != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True))


def _under(ax: Axes, words: str, start: int, end: int, *, lines: float, size: float) -> None:
    ax.annotate(
        words,
        ((start + end - 1) / 2, 0),
        xycoords=("data", "axes fraction"),
        xytext=(0, -8 - 15 * lines),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=size,
        color=INK,
    )


def _controls(ax: Axes, rows: Sequence[Row]) -> None:
    """Known-bad candidates and gates: each must be caught, and how it was."""
    names = list(dict.fromkeys(r["candidate"] for r in rows))
    scale = _Scale(rows)
    for y, name in enumerate(names):
        mine = [r for r in rows if r["candidate"] == name]
        for row in mine:
            if row["max_rel"] is not None:
                colour = INK if row["verdict"] == Verdict.FAIL else ALARM
                ax.plot(scale.at(row["max_rel"]), y, "x", color=colour, markersize=6, markeredgewidth=1.6)
        missed = [r for r in mine if r["verdict"] != Verdict.FAIL]
        if missed or all(r["max_rel"] is None for r in mine):
            words = f"{missed[0]['verdict']}: {missed[0]['reason']}" if missed else mine[0]["reason"]
            ax.text(
                scale.zero,
                y,
                _short(words),
                fontsize=7.5,
                va="center",
                color=ALARM if missed else "#555555",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
    tolerance = max((r["tolerance"] for r in rows), default=0.0)
    ax.axvline(scale.at(tolerance), color=INK, linewidth=1.2, zorder=1)
    scale.apply(ax.xaxis, ax.set_xscale, ax.set_xlim, room=1.0)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("largest local relative error (line: tolerance)")
    caught = sum(any(r["verdict"] == Verdict.FAIL for r in rows if r["candidate"] == n) for n in names)
    ax.set_title(f"Known bad: {caught} of {len(names)} caught", loc="left")
    ax.grid(axis="x", color="#eeeeee", linewidth=0.8)
    ax.set_axisbelow(True)


class _Scale:
    """A logarithmic axis that also has a place for 0 and, where it is needed, for infinity."""

    def __init__(self, rows: Sequence[Row]) -> None:
        errors = [r["max_rel"] for r in rows if r["max_rel"] is not None]
        finite = [v for v in errors if math.isfinite(v) and v > 0]
        limits = [r["tolerance"] for r in rows if r["tolerance"] > 0] or [1e-7]
        decade = math.floor(math.log10(min(finite + limits)))
        self.zero = 10.0 ** (decade - 3)
        self.top = 10.0 ** math.ceil(math.log10(max(finite + limits)) + 0.5)
        self.infinity = self.top * 1e2 if len(finite) < sum(v != 0 for v in errors) else None

    def at(self, value: float) -> float:
        if not math.isfinite(value):
            return self.infinity or self.top
        return max(value, self.zero)

    def apply(self, axis: Any, set_scale: Any, set_limits: Any, *, room: float) -> None:
        """`room`: decades to leave above, for a legend."""
        set_scale("log")
        set_limits(self.zero / 3, (self.infinity or self.top) * 10**room)
        first, last = round(math.log10(self.zero)) + 2, round(math.log10(self.top))
        powers = range(first, last + 1, max(1, math.ceil((last - first) / 5)))
        ticks, names = [self.zero, *(10.0**p for p in powers)], ["0", *(f"$10^{{{p}}}$" for p in powers)]
        if self.infinity is not None:
            ticks, names = [*ticks, self.infinity], [*names, "∞"]
        axis.set_major_locator(mpl.ticker.FixedLocator(ticks))
        axis.set_major_formatter(mpl.ticker.FixedFormatter(names))
        axis.set_minor_locator(mpl.ticker.NullLocator())


def _short(words: str, limit: int = 66) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
