"""Small line charts as SVG text, in the colours of the page they stand in (light or dark), without any library.

Colours are CSS classes `s0`..`s6`, and each series has a marker of its own: no meaning is carried by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 360, 264
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 30, 44
_SHAPES = 7  # markers that are told apart
_DODGE = 3.0  # px between the series of one x, so that bars do not cover each other

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Point:
    """A value with its range over the seeds; low == high: one seed, no bar."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        style: index of colour and marker; None: a reference, dashed and without markers.
    """

    name: str
    points: tuple[Point, ...]
    style: int | None
    marked: bool = True


@dataclass(frozen=True)
class Chart:
    """What is drawn, and what it says to who cannot see it.

    Attributes:
        told: a sentence for screen readers.
        y_range: fixed limits, or None: those of the values.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    told: str
    x_scale: Scale = "log"
    y_scale: Scale = "linear"
    y_range: tuple[float, float] | None = None


def svg(chart: Chart, name: str) -> str:
    """The chart as one `<svg>` element.

    Args:
        name: an id that is unique in the page.
    """
    shown = [_usable(s, chart) for s in chart.series]
    points = [p for s in shown for p in s.points]
    x_low, x_high = _limits([p.x for p in points], chart.x_scale, pad=0.06)
    y_low, y_high = chart.y_range or _limits([v for p in points for v in (p.low, p.high)], chart.y_scale, pad=0.08)
    x_at = _axis(x_low, x_high, LEFT, WIDTH - RIGHT, chart.x_scale)
    y_at = _axis(y_low, y_high, HEIGHT - BOTTOM, TOP, chart.y_scale)
    out = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(chart.title)}</title><desc id="{name}-d">{escape(chart.told)}</desc>',
        f'<text class="head" x="{LEFT}" y="16">{escape(chart.title)}</text>',
    ]
    for value in ticks(y_low, y_high, chart.y_scale):
        y = y_at(value)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="tick" x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in ticks(x_low, x_high, chart.x_scale):
        x = x_at(value)
        out.append(f'<path class="axis" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>')
        out.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_number(value)}</text>'
        )
    out.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(chart.x_label)}</text>')
    height = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text class="label" transform="translate(12 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.y_label)}</text>"
    )
    if not points:
        out.append(f'<text class="label" x="{middle}" y="{height}" text-anchor="middle">no values</text>')
    drawn = [s for s in shown if s.style is not None and s.marked]
    for series in shown:
        shift = (drawn.index(series) - (len(drawn) - 1) / 2) * _DODGE if series in drawn else 0.0
        out += _line(series, lambda v, by=shift: x_at(v) + by, y_at)  # type: ignore[misc]
    return "\n".join([*out, "</svg>"])


def swatch(style: int | None) -> str:
    """What stands before a name in the legend."""
    line = f'<path class="line {"ref" if style is None else f"s{style % _SHAPES}"}" d="M0 7H26"/>'
    mark = "" if style is None else _marker(style, 13, 7)
    return f'<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">{line}{mark}</svg>'


def ticks(low: float, high: float, scale: Scale) -> list[float]:
    """Round values between the limits: powers of ten (with 2 and 5 where there are few), or steps of 1, 2, 5."""
    if scale == "log":
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            found = [s * 10.0**e for e in range(first, last + 1) for s in steps if low <= s * 10.0**e <= high]
            if len(found) >= 3:
                return found
        return found
    step = 10.0 ** math.floor(math.log10((high - low) / 2)) if high > low else 1.0
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _usable(series: Series, chart: Chart) -> Series:
    """Without what a logarithm cannot show, and without values that are no numbers."""

    def fits(p: Point) -> bool:
        if not all(math.isfinite(v) for v in (p.x, p.y, p.low, p.high)):
            return False
        return (chart.x_scale == "linear" or p.x > 0) and (chart.y_scale == "linear" or p.low > 0)

    return Series(series.name, tuple(p for p in series.points if fits(p)), series.style, series.marked)


def _limits(values: Sequence[float], scale: Scale, *, pad: float) -> tuple[float, float]:
    if not values:
        return (1.0, 10.0) if scale == "log" else (0.0, 1.0)
    low, high = min(values), max(values)
    if scale == "log":
        a, b = math.log10(low), math.log10(high)
        more = (b - a) * pad if b > a else 0.5
        return 10 ** (a - more), 10 ** (b + more)
    more = (high - low) * pad if high > low else abs(high) * 0.1 or 1.0
    return low - more, high + more


def _axis(low: float, high: float, start: float, end: float, scale: Scale) -> Callable[[float], float]:
    def of(value: float) -> float:
        return math.log10(value) if scale == "log" else value

    a, b = of(low), of(high)
    return lambda value: start + (of(value) - a) / (b - a) * (end - start)


def _line(series: Series, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[str]:
    if not series.points:
        return []
    kind = "ref" if series.style is None else f"s{series.style % _SHAPES}"
    path = " ".join(f"{x_at(p.x):.1f},{y_at(p.y):.1f}" for p in series.points)
    out = [f'<g><title>{escape(series.name)}</title><polyline class="line {kind}" points="{path}"/>']
    if series.style is not None and series.marked:
        for p in series.points:
            x = x_at(p.x)
            if p.high > p.low:
                out.append(f'<path class="bar {kind}" d="M{x:.1f} {y_at(p.low):.1f}V{y_at(p.high):.1f}"/>')
            out.append(_marker(series.style, x, y_at(p.y)))
    return [*out, "</g>"]


def _marker(style: int, x: float, y: float) -> str:
    kind, r = f"mark s{style % _SHAPES}", 4.0
    shapes = (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>',
        f'<path class="{kind}" d="M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"/>',
        f'<path class="{kind}" d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>',
        f'<path class="{kind}" d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        f'<path class="{kind}" d="M{x:.1f} {y + 5:.1f}l5 -9h-10z"/>',
        f'<path class="cross {kind}" d="M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"/>',
        f'<path class="cross {kind}" d="M{x - r:.1f} {y:.1f}h{2 * r}m{-r} {-r}v{2 * r}"/>',
    )
    return shapes[style % _SHAPES]


def _number(value: float) -> str:
    if value and value >= 1000 and math.isclose(math.log10(value), round(math.log10(value))):
        return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(d)] for d in str(round(math.log10(value))))
    return f"{value:.4g}"
