"""The figure itself: what `lab.plot` has planned, as matplotlib draws it. Imported only for --plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, BinaryIO

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lab.plot import Line, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours and one shape each: told apart without colour too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)))
_INK, _FAINT = "#222222", "#666666"

_MANY = 5000  # points: with more, only lines and bands
_TICKS = 12  # places that are named one by one
_STYLE = {"font.size": 11.0, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "lab"}
_NO_DATES: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def write(plot: Plot, form: str, out: BinaryIO) -> None:
    """Draw `plot` and write it: the same plot gives the same bytes."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        draw(plot).savefig(out, format=form, dpi=144, metadata=_NO_DATES[form])


def draw(plot: Plot) -> Figure:
    """The figure, as an object."""
    figure = Figure(figsize=(8.4, 5.2), layout="constrained", facecolor="white")
    ax = figure.subplots()
    points = sum(len(line.x) for line in plot.lines) <= _MANY
    for number, line in enumerate(plot.lines):
        _one(ax, plot, line, number, points=points)
    _across(ax, plot)
    _upward(ax, plot)
    ax.set_title(plot.title, loc="left", fontsize=12, color=_INK, wrap=True)
    ax.grid(color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    if plot.by is not None:
        legend = ax.legend(
            title=plot.by, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, alignment="left"
        )
        legend.get_title().set_color(_FAINT)
    if plot.notes:
        figure.supxlabel("\n".join(plot.notes), x=0.01, ha="left", fontsize=8.5, color=_FAINT)
    return figure


def _one(ax: Axes, plot: Plot, line: Line, number: int, *, points: bool) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    aside = _aside(plot, number)

    def up(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return values if plot.floor is None else np.maximum(values, plot.floor)

    if line.repeats:
        low, high = up(line.low), up(line.high)
        if plot.words is not None or len(line.places) == 1:  # there is nothing between two words
            ax.vlines(line.places + aside, low, high, color=colour, alpha=0.22, linewidth=9)
        else:
            ax.fill_between(line.places, low, high, color=colour, alpha=0.14, linewidth=0)
    style: dict[str, Any] = {"color": colour, "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)]}
    if not line.repeats or not points:  # the line's own places are the points
        style |= {"marker": marker, "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}
    width = 1.8 if plot.words is None else 1.2
    shown = ax.plot(line.places + aside, up(line.middle), linewidth=width, **style)[0]
    if line.repeats and points:
        alpha = 0.85 if len(line.x) < 200 else 0.4
        ax.plot(
            line.x + aside,
            up(line.y),
            marker,
            color=colour,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            alpha=alpha,
        )
        key = {"marker": marker, "markersize": 6, "markeredgecolor": "white", "linewidth": 1.8}
        shown = ax.plot([], [], color=colour, linestyle=style["linestyle"], **key)[0]  # type: ignore[arg-type]
    shown.set_label(_short(line.name, 32) or plot.y)


def _aside(plot: Plot, number: int) -> float:
    """Words leave room beside them: lines that have the same values are still seen, all of them."""
    if plot.words is None or len(plot.lines) < 2:
        return 0.0
    return 0.3 * (number / (len(plot.lines) - 1) - 0.5)


def _across(ax: Axes, plot: Plot) -> None:
    ax.set_xlabel(plot.x, color=_INK)
    if plot.words is not None:
        each = max(1, math.ceil(len(plot.words) / 30))
        named = range(0, len(plot.words), each)
        names = [_short(plot.words[i]) for i in named]
        crowded = sum(len(n) for n in names) > 70
        ax.set_xticks(list(named), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
        ax.set_xlim(-0.5, len(plot.words) - 0.5)
        return
    if plot.log_x:
        ax.set_xscale("log")
    places = np.unique(np.concatenate([line.places for line in plot.lines]))
    if len(places) <= _TICKS and (plot.log_x or _even(places)):
        ax.set_xticks(places, [f"{p:g}" for p in places])
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _even(places: np.ndarray[Any, Any]) -> bool:
    """Do their names have room beside each other?"""
    if len(places) < 2:
        return True
    return bool(np.diff(places).min() >= (places[-1] - places[0]) / 20)


def _upward(ax: Axes, plot: Plot) -> None:
    ax.set_ylabel(plot.y, color=_INK)
    if not plot.log_y:
        return
    ax.set_yscale("log")
    positive = np.concatenate([line.y[line.y > 0] for line in plot.lines])
    low, high = math.log10(positive.min()), math.log10(positive.max())
    bottom = math.log10(plot.floor) if plot.floor is not None else low
    room = max(0.06 * (high - bottom), 0.03)
    ax.set_ylim(10.0 ** (bottom - room), 10.0 ** (high + room))
    start = bottom + 0.1 if plot.floor is not None else low - room
    ticks = _ticks(low, high, start, high + room)
    names = [_power(t) for t in ticks]
    if plot.floor is not None:
        ticks, names = [plot.floor, *ticks], ["0", *names]
        ax.axhline(plot.floor, color=_FAINT, linewidth=0.9, linestyle=":", zorder=0.5)
    ax.set_yticks(ticks, names)
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def _ticks(low: float, high: float, start: float, end: float) -> list[float]:
    """Whole powers of ten; where they are few, twice and five times as much too."""
    steps = (1,) if high - low > 2 else (1, 2, 5) if high - low > 0.3 else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    first, last = math.floor(start), math.ceil(end)
    powers = range(first, last + 1, max(1, math.ceil((high - low) / 8)))
    return [m * 10.0**p for p in powers for m in steps if start <= math.log10(m * 10.0**p) <= end]


def _power(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    front = value / 10.0**power
    if -3 <= power <= 3:
        return f"{value:g}"
    return f"$10^{{{power}}}$" if abs(front - 1) < 1e-9 else f"${front:g}\\times10^{{{power}}}$"


def _short(words: str, most: int = 24) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
