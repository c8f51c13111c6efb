"""The figure of a drift study: each metric by variant, or over alpha, a point a seed, beside what real images have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.drift.summary_find import METRICS, REAL, Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FLOOR = "#0072B2", "#333333"
_WIDTH, _HEIGHT, _DPI = 3.6, 3.3, 170  # inches of a panel
_DECADE = 10.0  # a distance whose values span more has a logarithmic axis


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
        cells: names in the order of the axis. floor: metric -> what held-out real images have. x_label: what names are.
    """

    cells: tuple[Cell, ...]
    floor: Mapping[str, float]
    title: str
    x_label: str

    @property
    def metrics(self) -> list[str]:
        """Those that have a number."""
        return [m for m in METRICS if any(c.metric == m and c.n for c in self.cells)]

    def save(self, path: Path) -> None:
        """All metrics beside each other, as a PNG."""
        self._save(path, self.metrics, self.title)

    def panels(self, folder: Path) -> dict[str, Path]:
        """Metric -> a PNG of it alone: beside each other on a wide page, one below another on a narrow one."""
        out = {metric: folder / f"panel-{metric}.png" for metric in self.metrics}
        for metric, path in out.items():
            self._save(path, [metric])
        return out

    def _save(self, path: Path, metrics: Sequence[str], title: str = "") -> None:
        from matplotlib.figure import Figure

        many = max(1, len(metrics))
        figure = Figure(figsize=(_WIDTH * many, _HEIGHT), facecolor="white", layout="constrained")
        axes = figure.subplots(1, many, squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=False):
            self._panel(axis, metric)
        if not metrics:
            axes[0].text(0.5, 0.5, "nothing was measured", ha="center", va="center")
            axes[0].set_axis_off()
        if title:
            figure.suptitle(title, fontsize=10)
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})

    def _panel(self, axis: Axes, metric: str) -> None:
        cells = [c for c in self.cells if c.metric == metric]
        for x, cell in enumerate(cells):
            axis.plot([x] * cell.n, cell.values, "o", color=_INK, ms=5, alpha=0.55, mew=0)
            if cell.n:
                axis.plot([x - 0.22, x + 0.22], [cell.mean] * 2, color=_INK, lw=2)
            else:
                across = axis.get_xaxis_transform()  # x as the values have it, y in parts of the axis
                axis.text(x, 0.5, "no number", rotation=90, ha="center", va="center", transform=across)
        if metric in self.floor:
            axis.axhline(self.floor[metric], color=_FLOOR, lw=1, ls="--")
            where = (0.99, self.floor[metric])
            axis.annotate(REAL, where, xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
        shown = [v for c in cells for v in c.values] + [self.floor[m] for m in (metric,) if m in self.floor]
        if not METRICS[metric].greatest and min(shown) > 0 and max(shown) > _DECADE * min(shown):
            _logarithmic(axis)
        axis.set_title(METRICS[metric].name, fontsize=10)
        axis.set_xticks(range(len(cells)), [c.name for c in cells], fontsize=9)
        if any(len(c.name) > 4 for c in cells):
            axis.tick_params(axis="x", labelrotation=35)
            for label in axis.get_xticklabels():
                label.set_horizontalalignment("right")
        axis.set_xlabel(self.x_label, fontsize=9)
        axis.tick_params(axis="y", labelsize=9)
        axis.grid(axis="y", alpha=0.25)
        axis.margins(x=0.12)


def _logarithmic(axis: Axes) -> None:
    """With plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
