"""The charts of the summary's page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from jobs.dose.chart import Chart, Point, Scale, Series
from jobs.dose.conditions import dose_word
from jobs.dose.gather import Curve
from jobs.dose.summary import Cell, Metric, Place

# Colour and marker of an arm, everywhere; of a view, where lines are views.
STYLES = {"pinn": 0, "supervised": 1, "lsqml": 2, "untrained": 3, "mean": 4, "physics": 5}
NAMES = {
    "pinn": "PINN",
    "lsqml": "LSQML",
    "untrained": "untrained network",
    "mean": "mean object",
    "physics": "physics layer alone",
}
_VIEWS = ("baseline", "dense", "sparse")
_DOSE = "photons a pattern"
_LIGHT = "total photons per pixel of the object"
_REFERENCES = 40  # points of a reference line

Light = Mapping[tuple[float, str, int, int], float]


def view_order(view: str) -> tuple[int, str]:
    """For sorting."""
    return (_VIEWS.index(view) if view in _VIEWS else len(_VIEWS), view)


def dose_charts(cells: Sequence[Cell], metric: Metric, arms: Sequence[str]) -> list[Chart]:
    """One chart a view: the metric against dose, a line an arm. All have the same limits."""
    mine = [c for c in cells if c.metric == metric.name and c.n]
    limits = _limits([v for c in mine for v in (c.least, c.most)])
    out = []
    for view, gridsize in _views(c.place for c in mine):
        series = []
        for arm in arms:
            line = _sorted(c for c in mine if (c.place.view, c.place.gridsize, c.arm) == (view, gridsize, arm))
            if line:
                points = tuple(Point(c.place.photons, c.mean, c.least, c.most) for c in line)
                series.append(Series(NAMES.get(arm, arm), points, _style(arm)))
        title = f"{view}, gridsize {gridsize}"
        label = f"{metric.title}{f', {metric.unit}' if metric.unit else ''}"
        out.append(Chart(title, _DOSE, label, tuple(series), _told(series), y_range=limits))
    return out


def light_charts(
    cells: Sequence[Cell], light: Light, arms: Sequence[str], metric: Metric, *, bounds: bool
) -> list[Chart]:
    """One chart an arm: the metric at equal light, a line a view; all with the same limits.

    Args:
        bounds: draw the theoretical lines of a phase's error too; the scale is a logarithm's then.
    """
    mine = [c for c in cells if c.metric == metric.name and c.n and c.arm in arms and _light_of(c, light) is not None]
    limits = None if bounds else _limits([v for c in mine for v in (c.least, c.most)])
    out = []
    for arm in arms:
        series = []
        for i, (view, gridsize) in enumerate(_views(c.place for c in mine)):
            line = _sorted(c for c in mine if (c.arm, c.place.view, c.place.gridsize) == (arm, view, gridsize))
            points = tuple(Point(_light_of(c, light) or 0.0, c.mean, c.least, c.most) for c in line)
            if points:
                series.append(Series(f"{view} gs{gridsize}", points, i))
        if not series:
            continue
        told, scale = _told(series), _scale(bounds)
        if bounds:
            series += _bounds([_light_of(c, light) or 1.0 for c in mine])
        label = f"{metric.title}{f', {metric.unit}' if metric.unit else ''}"
        out.append(Chart(NAMES.get(arm, arm), _LIGHT, label, tuple(series), told, y_scale=scale, y_range=limits))
    return out


def frc_charts(curves: Sequence[Curve], arms: Sequence[str]) -> list[Chart]:
    """One chart a dose and view; a line a seed."""
    out = []
    places = {(c.photons, c.view, c.gridsize) for c in curves}
    for photons, view, gridsize in sorted(places, key=lambda p: (view_order(p[1]), p[2], p[0])):
        series = []
        for arm in arms:
            for c in curves:
                if (c.photons, c.view, c.gridsize, c.arm) == (photons, view, gridsize, arm):
                    points = tuple(Point(f, v, v, v) for f, v in zip(c.frequency, c.frc, strict=True))
                    series.append(Series(NAMES.get(arm, arm), points, _style(arm), marked=False))
        told = f"Fourier ring correlation of {len(series)} reconstructions; the cutoffs are in the tables."
        for threshold, name in ((0.5, "0.5"), (1 / 7, "1/7")):
            level = tuple(Point(x, threshold, threshold, threshold) for x in (0.0, 0.5))
            series.append(Series(f"threshold {name}", level, None))
        title = f"{dose_word(photons)} photons, {view} gs{gridsize}"
        chart = Chart(title, "cycles/pixel", "FRC", tuple(series), told, x_scale="linear", y_range=(-0.1, 1.02))
        out.append(chart)
    return out


def _bounds(light: Sequence[float]) -> list[Series]:
    from kernels.diffraction.bounds import ptychography_limit, quantum_limit

    low, high = min(light) / 2, max(light) * 2
    xs = [low * (high / low) ** (i / (_REFERENCES - 1)) for i in range(_REFERENCES)]
    out = []
    for name, of in (("1/√(2n)", ptychography_limit), ("1/(2√n)", quantum_limit)):
        points = tuple(Point(x, y, y, y) for x, y in zip(xs, (float(v) for v in of(xs)), strict=True))
        out.append(Series(name, points, None))
    return out


def _light_of(cell: Cell, light: Light) -> float | None:
    p = cell.place
    found = [light[at] for s in cell.seeds if (at := (p.photons, p.view, p.gridsize, s)) in light]
    return statistics.fmean(found) if found else None


def _views(places: Iterable[Place]) -> list[tuple[str, int]]:
    found = {(p.view, p.gridsize) for p in places}
    return sorted(found, key=lambda v: (view_order(v[0]), v[1]))


def _sorted(cells: Iterable[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda c: c.place.photons)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _scale(logarithm: bool) -> Scale:
    return "log" if logarithm else "linear"


def _style(arm: str) -> int:
    return STYLES.get(arm, len(STYLES))


def _told(series: Sequence[Series]) -> str:
    return "; ".join(
        f"{s.name}: " + ", ".join(f"{p.y:.3g} at {p.x:.3g}" for p in s.points) for s in series if s.style is not None
    )
