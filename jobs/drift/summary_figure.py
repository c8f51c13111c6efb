"""The figure of a drift study: each metric by variant, or over alpha, a point a seed, beside what real images have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from jobs.drift.summary_find import METRICS, Cell

_INK, _FLOOR = "#0072B2", "#333333"


def draw(out: BinaryIO, found: Sequence[Cell], floor: Mapping[str, float], title: str, *, x_label: str) -> None:
    """A panel a metric; a distance on a logarithmic axis.

    Args:
        found: names in the order of the axis. x_label: what the names are.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    metrics = [m for m in METRICS if any(c.metric == m and c.n for c in found)]
    figure, axes = plt.subplots(
        1, max(1, len(metrics)), figsize=(4.2 * max(1, len(metrics)), 3.6), squeeze=False, layout="constrained"
    )
    for axis, metric in zip(axes[0], metrics, strict=False):
        cells = [c for c in found if c.metric == metric]
        for x, cell in enumerate(cells):
            axis.plot([x] * cell.n, cell.values, "o", color=_INK, ms=4, alpha=0.55, mew=0)
            if cell.n:
                axis.plot([x - 0.22, x + 0.22], [cell.mean] * 2, color=_INK, lw=2)
            else:
                axis.text(x, 0.5, "no number", rotation=90, ha="center", va="center", transform=_across(axis))
        if metric in floor:
            axis.axhline(floor[metric], color=_FLOOR, lw=1, ls="--")
            axis.annotate(
                "held-out real images", (0.99, floor[metric]), xycoords=("axes fraction", "data"), fontsize=7,
                ha="right", va="bottom",
            )  # fmt: skip
        if metric == "fid" and all(v > 0 for c in cells for v in c.values):
            axis.set_yscale("log")
        axis.set_title(METRICS[metric][0], fontsize=9)
        axis.set_xticks(range(len(cells)), [c.name for c in cells], fontsize=8)
        if any(len(c.name) > 4 for c in cells):
            axis.tick_params(axis="x", labelrotation=35)
            for label in axis.get_xticklabels():
                label.set_ha("right")
        axis.set_xlabel(x_label, fontsize=8)
        axis.grid(axis="y", alpha=0.25)
        axis.margins(x=0.12)
    if not metrics:
        axes[0][0].text(0.5, 0.5, "nothing was measured", ha="center", va="center")
        axes[0][0].set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)


def _across(axis: object) -> object:
    """x in data, y in parts of the axis."""
    return axis.get_xaxis_transform()  # type: ignore[attr-defined]
