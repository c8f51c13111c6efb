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

from jobs.parity.adapter import Array, Picture
from jobs.parity.words import Role, Verdict

Row = Mapping[str, Any]
Column = tuple[str, str, int, int, int, int]  # dtype, case, batch, channels, height, width

# Okabe and Ito's colours and one shape each: told apart without colour too.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P"))
STYLE: Any = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
BEYOND = 1e4  # an error above this is not told from an infinite one
INK, ALARM = "#222222", "#B00020"


def draw(path: Path, rows: Sequence[Row], example: Picture | None) -> None:
    """Write the figure of a whole run to `path`."""
    with mpl.rc_context(STYLE):
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


def draw_grid(path: Path, batches: Mapping[str, Sequence[Array]], quantity: str) -> None:
    """Write real predictions of every side: patches (H, W) of one frame, as they are and normalised."""
    with mpl.rc_context(STYLE):
        count = max((len(b) for b in batches.values()), default=1)
        high, wide = next((b[0].shape for b in batches.values()), (1, 1))
        each = min(5.6 / count, 2.4)
        size = (1.8 + 2 * count * each, 0.6 + len(batches) * (each * high / wide + 0.06))
        figure = plt.figure(figsize=size if batches else (8, 1), layout="constrained", facecolor="white")
        if not batches:
            figure.suptitle("No candidate predicted anything that could be shown", color=ALARM)
        else:
            _grid(figure, batches, quantity, between=" " if size[0] > 9 else "\n")
        figure.savefig(path, dpi=130, metadata={"Software": None})
        plt.close(figure)


def _grid(figure: Any, batches: Mapping[str, Sequence[Array]], quantity: str, *, between: str) -> None:
    first = next(iter(batches.values()))
    top = max((float(np.nanmax(p)) for p in first if np.isfinite(p).any()), default=0.0) or 1.0
    axes = figure.subplots(len(batches), 2, squeeze=False)
    figure.suptitle(
        between.join(
            (
                f"Predictions, {quantity}.",
                f"Left: as it is, black 0, white {top:.3g}.",
                "Right: each from its own least to its own greatest value",
            )
        ),
        color=INK,
        fontsize=9,
    )
    colours = mpl.colormaps["gray"].with_extremes(bad="white")
    for (raw, stretched), (name, batch) in zip(axes, batches.items(), strict=True):
        for ax, patches in ((raw, [p / top for p in batch]), (stretched, [_stretched(p) for p in batch])):
            ax.imshow(_side_by_side(patches), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
        raw.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)


def _stretched(patch: Array) -> Array:
    """From its least value, 0, to its greatest, 1. An even patch has nothing to be stretched."""
    if not np.isfinite(patch).any():
        return patch
    low, high = float(np.nanmin(patch)), float(np.nanmax(patch))
    return (patch - low) / (high - low) if high > low else patch / max(high, 1.0)


def _side_by_side(patches: Sequence[Array]) -> Array:
    """One picture (H, W), white between the patches."""
    gap = np.full((patches[0].shape[0], max(1, patches[0].shape[1] // 24)), np.nan)
    return np.concatenate([x for p in patches for x in (p, gap)][:-1], axis=1)


def _pictures(figure: Any, example: Picture) -> None:
    figure.suptitle(f"A picture of the cell with the largest error: {example.title}", color=INK)
    shown_ones = [(example.oracle, "float64 oracle"), (example.candidate, "candidate")]
    if example.input is not None:
        shown_ones.insert(0, (example.input, "input"))
    axes = figure.subplots(1, len(shown_ones) + 1)
    low = min(0.0, float(np.nanmin(example.oracle)))
    top = max(float(np.nanmax(a)) for a, _ in shown_ones[:-1])
    for ax, (array, title) in zip(axes, shown_ones, strict=False):
        shown = ax.imshow(array, cmap="gray", vmin=low, vmax=top, interpolation="nearest")
        ax.set_title(f"{title}, {example.quantity}")
        _bar(figure, shown, ax)
    error = example.relative / example.tolerance
    error = np.where(np.isfinite(error), error, np.nan)
    limit = max(1.0, float(np.nanmax(error, initial=0.0)))
    shown = axes[-1].imshow(error, cmap="viridis", vmin=0, vmax=limit, interpolation="nearest")
    axes[-1].set_title("local error ÷ tolerance")
    _bar(figure, shown, axes[-1])
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
    columns = _columns(rows)
    names = list(dict.fromkeys(r["candidate"] for r in rows))
    place = {column: i for i, column in enumerate(columns)}
    scale = _Scale(rows)
    spread = np.linspace(-0.27, 0.27, len(names)) if len(names) > 1 else [0.0]
    for number, name in enumerate(names):
        colour, marker = STYLES[number % len(STYLES)]
        mine = [r for r in rows if r["candidate"] == name]
        for row in mine:
            x = place[_column(row)] + spread[number]
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
        limit = max(r["tolerance"] for r in rows if _column(r) == column)
        ax.plot([x - 0.45, x + 0.45], [scale.at(limit)] * 2, color=INK, linewidth=1.2)
    if any(r["verdict"] == Verdict.FAIL for r in rows):
        ax.plot([], [], "o", color="none", markeredgecolor=ALARM, markeredgewidth=1.6, label="hollow: failed")
    scale.apply(ax.yaxis, ax.set_yscale, ax.set_ylim, room=2.2)
    ax.plot([], [], color=INK, linewidth=1.2, label="tolerance (0: bit for bit)")
    alone = len(_runs([c[:2] for c in columns])) == len(columns)  # every cell has a name of its own
    frames = len({c[4:] for c in columns}) > 1
    if alone:
        names = [f"{c[1]} {c[4]}×{c[5]}" if frames else c[1] for c in columns]
        ax.set_xticks(range(len(columns)), names, rotation=40, ha="right", rotation_mode="anchor")
    else:
        turned = 60 if len(columns) > 16 else 0
        names = [f"{c[4]}×{c[5]}" if frames else f"{c[2]}×{c[3]}" for c in columns]
        ax.set_xticks(range(len(columns)), names, rotation=turned)
        _groups(ax, columns)
    ax.tick_params(axis="x", labelsize=7.5, length=0)
    ax.set_xlim(-0.6, len(columns) - 0.4)
    ax.set_ylabel("largest local relative error")
    ax.set_title(
        "Candidates: every mark must lie on or under its line"
        + ("" if alone else " (columns: height × width)" if frames else " (columns: batch × channels)"),
        loc="left",
    )
    ax.legend(loc="upper left", ncols=3, frameon=False, fontsize=8, borderaxespad=0.2)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.8)
    ax.set_axisbelow(True)


def _column(row: Row) -> Column:
    dtype, case, *numbers = (row[n] for n in ("dtype", "case", "batch", "channels", "height", "width"))
    batch, channels, height, width = numbers
    return dtype, case, batch, channels, height, width


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The cells: by precision and case as the plan has them, then by size."""
    dtypes, cases = (list(dict.fromkeys(r[name] for r in rows)) for name in ("dtype", "case"))
    return sorted(
        dict.fromkeys(_column(r) for r in rows),
        key=lambda c: (dtypes.index(c[0]), cases.index(c[1]), c[4] * c[5], c[2] * c[3], c[3]),
    )


def _groups(ax: Axes, columns: Sequence[Column]) -> None:
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
    """A logarithmic axis that also has a place for 0 and, where it is needed, for all beyond what can be shown."""

    def __init__(self, rows: Sequence[Row]) -> None:
        errors = [r["max_rel"] for r in rows if r["max_rel"] is not None]
        finite = [v for v in errors if 0 < v <= BEYOND]
        limits = [r["tolerance"] for r in rows if r["tolerance"] > 0] or [1e-7]
        decade = math.floor(math.log10(min(finite + limits)))
        self.zero = 10.0 ** (decade - 3)
        self.top = 10.0 ** math.ceil(math.log10(max(finite + limits)) + 0.5)
        self.beyond = self.top * 1e2 if len(finite) < sum(v != 0 for v in errors) else None
        self.word = f">$10^{{{round(math.log10(BEYOND))}}}$" if any(BEYOND < v < math.inf for v in errors) else "∞"

    def at(self, value: float) -> float:
        if not value <= BEYOND:
            return self.beyond or self.top
        return max(value, self.zero)

    def apply(self, axis: Any, set_scale: Any, set_limits: Any, *, room: float) -> None:
        """`room`: decades to leave above, for a legend."""
        set_scale("log")
        set_limits(self.zero / 3, (self.beyond or self.top) * 10**room)
        first, last = round(math.log10(self.zero)) + 2, round(math.log10(self.top))
        powers = range(first, last + 1, max(1, math.ceil((last - first) / 5)))
        ticks, names = [self.zero, *(10.0**p for p in powers)], ["0", *(f"$10^{{{p}}}$" for p in powers)]
        if self.beyond is not None:
            ticks, names = [*ticks, self.beyond], [*names, self.word]
        axis.set_major_locator(mpl.ticker.FixedLocator(ticks))
        axis.set_major_formatter(mpl.ticker.FixedFormatter(names))
        axis.set_minor_locator(mpl.ticker.NullLocator())


def _short(words: str, limit: int = 66) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
