"""The pictures of one condition: every arm as amplitude, phase and error, and the ring correlations.

All arms are drawn on the same ranges, which are the reference's and stand in the figure. Phase has cyclic colours whose
one turn is a whole fraction of 2π, so that a phase and the same phase plus 2π have the same colour; the reference's
middle 95 % lies on the half of the circle that goes from dark to light, and the other half shows what is out of it.
What got no light is hatched in every picture alike. Widths and letters are chosen to be read on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kernels.diffraction.frc import HALF, NYQUIST, SEVENTH, half_bit
from kernels.diffraction.similarity import phase_images

if TYPE_CHECKING:
    from jobs.dose.compare import Comparison

Row = Mapping[str, Any]
Real = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How an arm is called and drawn: told apart without colour too."""

    title: str
    colour: str
    line: Any
    mark: str


# Okabe and Ito's colours.
LOOKS: dict[str, Look] = {
    "pinn": Look("PINN", "#0072B2", "-", "o"),
    "supervised": Look("Supervised", "#D55E00", "--", "s"),
    "lsqml": Look("LSQML", "#009E73", (0, (6, 1.5, 1.5, 1.5)), "D"),
    "ptychi": Look("ptychi", "#56B4E9", (0, (3, 1)), "^"),
    "untrained": Look("Untrained network", "#8a4a77", ":", "v"),
    "untrained_pinn": Look("Untrained PINN", "#8a4a77", ":", "v"),
    "untrained_supervised": Look("Untrained supervised", "#CC79A7", (0, (1, 2)), "<"),
    "mean": Look("Mean object", "#6b6b6b", (0, (1, 1)), "x"),
    "physics": Look("Physics layer alone", "#1f7a8c", (0, (4, 1, 1, 1, 1, 1)), "*"),
    "halves": Look("Half against half", "#a3790a", "-", "P"),
}
INK, FAINT, GRID, ALARM = "#222222", "#5a5f66", "#e6e6e6", "#B00020"
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PHASE, AMPLITUDE, ERROR = "twilight", "gray", "magma"
HOLE, STRIPES = "#d6d6d6", "#6f6f6f"
WIDE = 6.4  # inches; 390 pixels of a telephone are 61 an inch, and 11 points 9 pixels
_DPI = 200


@dataclass(frozen=True)
class Turn:
    """How phases become colours.

    Attributes:
        low, high: radians; the middle 95 % of the reference, which goes from dark to light.
        turn: radians of one turn of the colours.
    """

    low: float
    high: float
    turn: float

    @classmethod
    def of(cls, phase: Real) -> Turn:
        """For a reference: the least whole fraction of 2π that holds it once, and its middle 95 % about twice."""
        low, high = (float(v) for v in np.quantile(phase, (0.025, 0.975)))
        need = max(1.9 * (high - low), float(np.ptp(phase)))
        return cls(low, high, 2 * math.pi / max(1, math.floor(2 * math.pi / need)) if need > 0 else 2 * math.pi)

    def colours(self, phase: Real) -> Real:
        """Colours (H, W, 4) of phases in radians; what differs by 2π has the same."""
        # The middle lies at three quarters of the circle, which is the middle of the half that goes from dark to light.
        place = (phase - (self.low + self.high) / 2) / self.turn + 0.75
        return np.asarray(mpl.colormaps[PHASE](np.mod(place, 1.0)))

    def words(self) -> str:
        parts = round(2 * math.pi / self.turn)
        return f"{'2π' if parts == 1 else 'π' if parts == 2 else f'2π/{parts}'} = {self.turn:.2f} rad"


def objects_figure(path: Path, title: str, found: Comparison, rows: Sequence[Row]) -> None:
    """Write amplitude, phase and error of the reference and of every arm; equal arguments give equal bytes.

    Args:
        rows: of the table `dose_metrics`; those that are missing or failed are named with their reason.
    """
    shown = [row for row in rows if row["arm"] != "halves"]
    with mpl.rc_context(STYLE):
        _Objects(title, found, shown).figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


class _Objects:
    """Places are in inches from the upper left corner: all pictures have one size, and their pixels are square."""

    left, gap, right = 0.12, 0.08, 0.12
    head, row_head, below, foot = 0.86, 0.5, 0.12, 1.42

    def __init__(self, title: str, found: Comparison, rows: Sequence[Row]) -> None:
        self.found, self.against = found, _against(rows)
        height, width = found.reference.shape
        self.wide = (WIDE - self.left - self.right - 2 * self.gap) / 3
        # A tall region is drawn smaller, and never taller than it can be taken in.
        self.high = min(self.wide * height / width, 2.6)
        self.turn = Turn.of(phase_images(found.reference, found.reference)[1])
        self.grey = (float(np.abs(found.reference).min()), float(np.abs(found.reference).max()))
        # In a hole every arm holds the reference, and an error of 0 there is none that was made.
        lit = np.ones(found.reference.shape, dtype=np.bool_) if found.seen is None else found.seen
        errors = [np.abs(each.object - found.reference)[lit] for each in found.arms.values()]
        # One wild pixel must not make all others black.
        self.most = max(float(np.quantile(error, 0.995)) for error in errors) or 1.0
        each = self.row_head + self.high + self.below
        absent = [row for row in rows if row["status"] != "measured"]
        measured = [row for row in rows if row["status"] == "measured"]
        self.total = self.head + each * (1 + len(measured)) + 0.5 * len(absent) + self.foot
        self.total += 0.0 if found.seen is None else 0.17
        self.figure = Figure(figsize=(WIDE, self.total), facecolor="white")
        self.figure.text(
            *self._at(self.left, 0.1), f"{title}: all arms against the {self.against}", size=13, va="top", color=INK
        )
        region = found.region
        cover = "pixels that all arms cover" if found.seen is None else "pixels, hatched where not all arms cover them"
        self.figure.text(
            *self._at(self.left, 0.38),
            f"{region.height}×{region.width} {cover}, aligned alike;\nthe same ranges for all rows",
            size=10,
            va="top",
            color=FAINT,
            linespacing=1.25,
        )
        top = self.head
        self._row(top, self.against.capitalize(), "", found.reference, None)
        for row in measured:
            top += each
            look = LOOKS[row["arm"]]
            mine = found.arms[row["arm"]].object
            self._row(top, look.title, _words(row), mine, np.abs(mine - found.reference))
        top += each
        for row in absent:
            self._head(top, LOOKS[row["arm"]].title, f"{row['status']}: {_short(str(row['reason']))}", alarm=True)
            top += 0.5
        self._scales(top)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x / WIDE, 1 - y / self.total

    def _axes(self, x: float, y: float, wide: float, high: float) -> Axes:
        return self.figure.add_axes((x / WIDE, 1 - (y + high) / self.total, wide / WIDE, high / self.total))

    def _head(self, top: float, name: str, words: str, *, alarm: bool = False) -> None:
        self.figure.text(*self._at(self.left, top + 0.06), name, size=12, weight="bold", va="top", color=INK)
        self.figure.text(*self._at(self.left, top + 0.28), words, size=10, va="top", color=ALARM if alarm else FAINT)

    def _row(self, top: float, name: str, words: str, image: npt.NDArray[np.complex128], error: Real | None) -> None:
        self._head(top, name, words)
        y = top + self.row_head
        amplitude = self._picture(0, y)
        amplitude.imshow(np.abs(image), cmap=AMPLITUDE, vmin=self.grey[0], vmax=self.grey[1], interpolation="nearest")
        phase = self._picture(1, y)
        mine = phase_images(image, self.found.reference)[0]
        phase.imshow(self.turn.colours(mine), interpolation="nearest")
        self._holes(amplitude)
        self._holes(phase)
        if error is None:
            self._bar(amplitude)
            for k, label in enumerate(("amplitude", "phase", "error |R − T|")):
                x = self.left + k * (self.wide + self.gap) + self.wide / 2
                self.figure.text(*self._at(x, y - 0.05), label, size=11, ha="center", va="bottom", color=INK)
            note = self._picture(2, y)
            note.set_axis_off()
            note.text(0.5, 0.5, "brighter is worse", ha="center", va="center", size=10, color=FAINT)
        else:
            errors = self._picture(2, y)
            errors.imshow(error, cmap=ERROR, vmin=0.0, vmax=self.most, interpolation="nearest")
            self._holes(errors)

    def _holes(self, ax: Axes) -> None:
        """Cover what got no light: what the arrays hold there is the reference, and no arm's."""
        if self.found.seen is None:
            return
        dark = ~self.found.seen
        colour = mpl.colors.to_rgba_array(HOLE)[0] * dark[..., None]
        ax.imshow(colour, interpolation="nearest")
        with mpl.rc_context({"hatch.color": STRIPES, "hatch.linewidth": 0.9}):
            ax.contourf(dark, levels=[0.5, 1.5], colors="none", hatches=["////"])

    def _picture(self, column: int, top: float) -> Axes:
        ax = self._axes(self.left + column * (self.wide + self.gap), top, self.wide, self.high)
        ax.set_xticks([])
        ax.set_yticks([])
        for side in ax.spines.values():
            side.set_visible(False)
        return ax

    def _bar(self, ax: Axes) -> None:
        """A bar of a round number of pixels, about a quarter of the picture."""
        height, width = self.found.reference.shape
        length = max((n for n in (10, 20, 50, 100, 200, 500) if n <= max(width / 3, 10)), default=10)
        y, x = height * 0.93, width * 0.06
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        ax.text(x, y - height * 0.04, f"{length} px", size=10, color=INK, va="bottom", bbox=box)
        ax.plot([x, x + length], [y, y], color="white", linewidth=5, solid_capstyle="butt")
        ax.plot([x, x + length], [y, y], color=INK, linewidth=2.5, solid_capstyle="butt")

    def _scales(self, top: float) -> None:
        """One scale under each column."""
        y = top + 0.3
        ramp = np.linspace(0, 1, 256)[None, :]
        for column, (label, colours, ticks, names) in enumerate(
            (
                (
                    "amplitude",
                    mpl.colormaps[AMPLITUDE](ramp),
                    (0.0, 1.0),
                    (f"{self.grey[0]:.2g}", f"{self.grey[1]:.2g}"),
                ),
                ("phase, rad", *self._phase_scale(ramp)),
                ("error", mpl.colormaps[ERROR](ramp), (0.0, 1.0), ("0", f"{self.most:.2g}")),
            )
        ):
            ax = self._axes(self.left + column * (self.wide + self.gap), y, self.wide, 0.16)
            ax.imshow(colours, aspect="auto", extent=(0, 1, 0, 1))
            ax.set_yticks([])
            ax.set_xticks(ticks, names, size=10)
            for tick, place in zip(ax.get_xticklabels(), ticks, strict=True):
                tick.set_horizontalalignment("left" if place == 0 else "right" if place == 1 else "center")
            ax.tick_params(axis="x", length=3, pad=2)
            ax.set_title(label, size=10.5, pad=3, color=INK)
            for side in ax.spines.values():
                side.set_visible(False)
        seen = self.found.seen
        holes = ""
        if seen is not None:
            holes = f"Hatched: {1 - seen.mean():.1%} got no light; the SSIMs alone count the {self.against} there.\n"
        self.figure.text(
            *self._at(self.left, y + 0.56),
            f"{holes}Phase: cyclic colours, one turn is {self.turn.words()}; 0 is the {self.against}'s least.\n"
            f"The middle 95 % of the {self.against} goes from dark to light, blue is outside of it.\n"
            f"Error: |R − T|, brightest from the 99.5 % point of the worst arm on.",
            size=9.5,
            va="top",
            color=FAINT,
            linespacing=1.3,
        )

    def _phase_scale(self, ramp: Real) -> tuple[Real, tuple[float, ...], tuple[str, ...]]:
        """(colours of one whole turn with the reference's middle in the middle, places of two ticks, their names)."""
        low, high, turn = self.turn.low, self.turn.high, self.turn.turn
        share = (high - low) / turn / 2
        colours = self.turn.colours((low + high) / 2 + (ramp - 0.5) * turn)
        return colours, (0.5 - share, 0.5 + share), (f"{low:.2f}", f"{high:.2f}")


def curves_figure(path: Path, title: str, found: Comparison, rows: Sequence[Row]) -> None:
    """Write the ring correlation of every arm against frequency, its cutoffs and the thresholds."""
    with mpl.rc_context(STYLE):
        _curves(title, found, rows).savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _curves(title: str, found: Comparison, rows: Sequence[Row]) -> Figure:
    curves = {name: each.curve for name, each in found.arms.items()}
    if found.halves is not None:
        curves["halves"] = found.halves
    absent = [row for row in rows if row["status"] != "measured"]
    entries = len(curves) + len(absent)
    figure = Figure(figsize=(WIDE, 4.5 + 0.23 * entries), facecolor="white", layout="constrained")
    figure.suptitle(f"{title}: Fourier ring correlation", x=0.02, ha="left", size=13, color=INK)
    ax = figure.subplots()
    by_arm = {row["arm"]: row for row in rows}
    for name, curve in curves.items():
        look, row = LOOKS[name], by_arm[name]
        ax.plot(
            curve.frequency,
            curve.frc,
            color=look.colour,
            linestyle=look.line,
            linewidth=1.8,
            label=f"{look.title}: {_cut(row)}",
        )
        if row["frc50_reached"] == "crosses":
            ax.plot(row["frc50"], HALF, look.mark, color=look.colour, markersize=7, markeredgecolor="white", zorder=4)
    for row in absent:
        ax.plot([], [], linestyle="none", label=f"{LOOKS[row['arm']].title}: {row['status']}")
    some = next(iter(curves.values()))
    for level, words in ((HALF, "0.5"), (SEVENTH, "1/7")):
        ax.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(words, (NYQUIST, level), (-2, 2), textcoords="offset points", ha="right", size=10, color=FAINT)
    limits = half_bit(some.n)
    ax.plot(some.frequency, limits, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    ax.annotate(
        "half-bit", (NYQUIST, float(limits[-1])), (-2, 2), textcoords="offset points", ha="right", size=10, color=INK
    )
    ax.axhline(0.0, color=GRID, linewidth=0.9)
    ax.set_xlim(0, NYQUIST)
    ax.set_ylim(min(-0.1, min(float(np.nanmin(c.frc, initial=0.0)) for c in curves.values()) - 0.05), 1.04)
    ax.set_xlabel("spatial frequency, cycles/pixel")
    ax.set_ylabel("FRC")
    over: Any = ax.secondary_xaxis("top", functions=(_of_nyquist, _per_pixel))
    over.set_xlabel("fraction of Nyquist", color=INK)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    figure.legend(
        loc="outside lower left",
        ncols=1,
        frameon=False,
        fontsize=10.5,
        handlelength=3.2,
        title="cutoff at FRC 0.5, cycles/pixel",
        title_fontsize=10.5,
        alignment="left",
    )
    return figure


def _of_nyquist(frequency: Any) -> Any:
    return np.asarray(frequency) / NYQUIST


def _per_pixel(share: Any) -> Any:
    return np.asarray(share) * NYQUIST


def _cut(row: Row) -> str:
    """The cutoff, in words where it is no crossing."""
    if row["frc50_reached"] == "crosses":
        return f"{row['frc50']:.3f}"
    return {"never": "never below 0.5", "at_once": "below 0.5 from the first ring", "nothing": "no correlation"}[
        str(row["frc50_reached"])
    ]


def _words(row: Row) -> str:
    """The numbers of an arm in one line."""
    phase = row["ms_ssim_phase"] if row["ms_ssim_phase"] is not None else row["ssim_phase"]
    kind = "MS-SSIM" if row["ms_ssim_phase"] is not None else "SSIM"
    said = [f"{kind} of phase {phase:.3f}"] if phase is not None else []
    said.append(f"FRC50 {row['frc50']:.3f} c/px" if row["frc50_reached"] == "crosses" else f"FRC {_cut(row)}")
    said.append(f"error {row['relative_error']:.3f}")
    if row["flags"].startswith("not registered"):
        said.append("NOT REGISTERED")
    return "   ".join(said)


def _against(rows: Sequence[Row]) -> str:
    return str(rows[0]["against"]) if rows else "truth"


def _short(words: str, limit: int = 74) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
