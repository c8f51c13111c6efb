"""Quality against dose as one figure, from rows of the table dose_summary alone.

lab results ID --plot quality.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from core.errors import BadInput
from jobs.dose.conditions import TRAIN_HALF

Row = Mapping[str, Any]

# Okabe and Ito's colours and one marker each.
_STYLE = {
    "pinn": ("#0072B2", "o", "PINN"),
    "supervised": ("#D55E00", "s", "supervised"),
    "lsqml": ("#009E73", "^", "LSQML"),
    "untrained": ("#CC79A7", "D", "untrained network"),
    "mean": ("#666666", "v", "mean object"),
    "physics": ("#56B4E9", "X", "physics layer alone"),
}
_OTHER = ("#E69F00", "P")
_SHOWN = (
    ("ms_ssim_phase", "MS-SSIM, phase"),
    ("ssim_phase", "SSIM, phase"),
    ("frc50", "FRC 0.5 cutoff, cycles/pixel"),
    ("rmse_phase", "RMS error of the phase, rad"),
)
_VIEWS = ("baseline", "dense", "sparse")
_MOST_ROWS = 3
_BESIDE = 1.6  # times the least and the greatest dose: what an axis has beyond them
_NO_DATES: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
_STYLE_SHEET: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "lab"}


def draw_quality(out: BinaryIO, form: str, rows: Sequence[Row], title: str) -> list[str]:
    """Draw it: a column a view, a row a metric, a line an arm; bars from the least to the greatest seed.

    The last row, the phase's error, is against total photons per pixel, beside the theoretical lines.

    Args:
        form: png, pdf or svg.

    Returns:
        What is drawn, in a phrase, and what the reader has to know, in sentences.

    Raises:
        BadInput: rows of two studies stand at the same place.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The training half is another part of the object: it stands in no line beside the others.
    good = [row for row in rows if row["mean"] is not None and row["arm"] != TRAIN_HALF]
    seen: set[tuple[Any, ...]] = set()
    for row in good:
        at = tuple(row[name] for name in ("photons", "view", "gridsize", "arm", "metric"))
        if at in seen:
            raise BadInput("there are two studies in these rows", hint="draw one at a time")
        seen.add(at)
    views = sorted({(r["view"], r["gridsize"]) for r in good}, key=lambda v: (_order(v[0]), v[1]))
    there = [m for m in _SHOWN if any(r["metric"] == m[0] for r in good)]
    if len(there) > _MOST_ROWS and there[0][0] == "ms_ssim_phase":
        del there[1]  # SSIM stands in only where MS-SSIM cannot be had
    with mpl.rc_context(_STYLE_SHEET):
        figure = Figure(figsize=(3.3 * max(len(views), 2), 2.5 * max(len(there), 1) + 0.9), layout="constrained")
        grid = figure.subplots(max(len(there), 1), max(len(views), 1), squeeze=False, sharey="row")
        for i, (metric, label) in enumerate(there):
            for j, (view, gridsize) in enumerate(views):
                axes = grid[i][j]
                light = metric == "rmse_phase"
                mine = [r for r in good if (r["metric"], r["view"], r["gridsize"]) == (metric, view, gridsize)]
                _panel(axes, mine, "photons_per_pixel" if light else "photons")
                if light:
                    axes.set_yscale("log")
                if i == 0:
                    axes.set_title(f"{view}, gridsize {gridsize}")
                if j == 0:
                    axes.set_ylabel(label)
                axes.set_xlabel("total photons per object pixel" if light else "photons a pattern")
        if not there:
            grid[0][0].text(0.5, 0.5, "no comparison succeeded", ha="center", va="center")
        handles = {str(h.get_label()): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]}
        if handles:
            figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(title)
        figure.savefig(out, format=form, dpi=150, metadata=_NO_DATES.get(form))
    note = (
        "Bars reach from the least to the greatest seed. Dashed lines are references: they bound unbiased estimators."
    )
    return ["quality against dose over the seeds", note]


def _panel(axes: Any, rows: Sequence[Row], x: str) -> None:
    axes.set_xscale("log")
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.7)
    arms = [a for a in _STYLE if any(r["arm"] == a for r in rows)]
    arms += sorted({r["arm"] for r in rows} - set(arms))
    xs: list[float] = []
    for arm in arms:
        line = sorted((r for r in rows if r["arm"] == arm and r[x]), key=lambda r: float(r[x]))
        if not line:
            continue
        colour, marker, name = _STYLE.get(arm, (*_OTHER, arm))
        at, mean = [float(r[x]) for r in line], [float(r["mean"]) for r in line]
        xs += at
        bars = [[float(r["mean"] - r["least"]) for r in line], [float(r["most"] - r["mean"]) for r in line]]
        axes.errorbar(at, mean, bars, color=colour, marker=marker, ms=4, lw=1.4, capsize=2, label=name)
    if xs:  # a single dose leaves a logarithmic axis no limits of its own
        axes.set_xlim(min(xs) / _BESIDE, max(xs) * _BESIDE)
    if x == "photons_per_pixel" and xs:
        from kernels.diffraction.bounds import ptychography_limit, quantum_limit

        low, high = min(xs) / _BESIDE, max(xs) * _BESIDE
        span = [low * (high / low) ** (i / 40) for i in range(41)]
        axes.plot(span, ptychography_limit(span), color="#222222", lw=1, ls=(0, (5, 3)), label="1/√(2n)")
        axes.plot(span, quantum_limit(span), color="#222222", lw=1, ls=(0, (2, 2)), label="1/(2√n)")


def _order(view: str) -> tuple[int, str]:
    return (_VIEWS.index(view) if view in _VIEWS else len(_VIEWS), view)
