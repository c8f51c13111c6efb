"""The picture of a training: its course, its candidates, and what the filter does to frames it has never seen.

Which parts of the frames are shown is no choice: every held-out frame is cut into squares, the squares are put in order
of what the filter gains in them, and the one with the most, the one in the middle and the one with the least are shown.
The rule stands in the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from jobs.train.loop import Frames
    from kernels.postfilter.quantised import Quantised

Row = Mapping[str, Any]
Image = npt.NDArray[np.uint8]  # (H, W, 3), RGB

# Okabe and Ito's colours, and a line of its own for each: told apart without colour too.
LINES: tuple[tuple[str, Any], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", (0, (5, 1, 1, 1))),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (1, 1))),
)
INK, FAINT, GRID, ALARM = "#222222", "#666666", "#e6e6e6", "#B00020"
STYLE: Any = {"font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}

SIDE = 160  # pixels of a square that is shown
ZOOM = 2  # dots a pixel
RULE = (
    "Every held-out frame is cut into squares of {side}×{side} pixels from its upper left corner. Of all {count:,} "
    "squares these have the most, the middle and the least gain: PSNR filtered - PSNR decoded. "
    "Each pixel is shown as {zoom}×{zoom}."
)
# Rows of the candidate table that are no candidates: what the filter is held against.
OTHERS = ("decoded", "unsharp")
_DPI = 100
# A line further away than so many times the height of the candidates and the decoded input is named and not drawn.
_AWAY = 3.0


@dataclass(frozen=True)
class Curves:
    """The means of the steps of each epoch.

    Attributes:
        epochs: in order, each once.
        value: the training value. terms: by name, before they are weighted. rate: Adam's.
        steps: that were counted, each once.
    """

    epochs: tuple[int, ...]
    value: tuple[float, ...]
    terms: Mapping[str, tuple[float, ...]]
    rate: tuple[float, ...]
    steps: int


@dataclass(frozen=True)
class View:
    """One held-out frame: as it was, decoded, through the unsharp mask and through the filter; (H, W, 3) uint8 each."""

    source: str
    original: Image
    decoded: Image
    unsharp: Image
    filtered: Image


@dataclass(frozen=True)
class Crop:
    """A square of a frame.

    Attributes:
        which: `most`, `middle` or `least`.
        frame: the number of the view. x, y: of the upper left corner, in pixels.
        gain: dB.
        psnr: dB, of `decoded`, `unsharp` and `filtered` in the square; infinite where nothing differs.
        images: (side, side, 3) uint8 of `original`, `decoded`, `unsharp` and `filtered`.
    """

    which: str
    source: str
    frame: int
    x: int
    y: int
    gain: float
    psnr: Mapping[str, float]
    images: Mapping[str, Image]


@dataclass(frozen=True)
class Crops:
    """What is shown of the held-out frames.

    Attributes:
        side: of a square. count: of all squares; better: of those that the filter made better.
    """

    side: int
    count: int
    better: int
    shown: tuple[Crop, ...]

    @property
    def rule(self) -> str:
        return RULE.format(side=self.side, count=self.count, zoom=ZOOM)


def curves(steps: Sequence[Row], terms: Sequence[str]) -> Curves:
    """What the step rows come to, epoch by epoch.

    Args:
        steps: rows with `step`, `epoch`, `training_value`, `rate` and each term, in the order they were written.
            A step that was made again after an interruption counts once, as it was made last. Rows without a training
            value, which are of a candidate, are passed over.

    Raises:
        KeyError: a row lacks a column.
    """
    last = {int(row["step"]): row for row in steps if row.get("training_value") is not None}
    epochs: dict[int, list[Row]] = {}
    for step in sorted(last):
        epochs.setdefault(int(last[step]["epoch"]), []).append(last[step])

    def means(name: str) -> tuple[float, ...]:
        return tuple(math.fsum(float(row[name]) for row in rows) / len(rows) for rows in epochs.values())

    return Curves(tuple(epochs), means("training_value"), {t: means(t) for t in terms}, means("rate"), len(last))


class HeldOut:
    """The views of some pairs, made when they are asked for: view 2i and 2i+1 are the frames of pair i.

    Args:
        sources: what each pair was taken from.
        shipped: the int8 weights; the frames go through them exactly as candidates are measured.
    """

    def __init__(self, frames: Frames, sources: Sequence[str], shipped: Quantised, *, threads: int = 1) -> None:
        import torch

        from jobs.train.model import flattened
        from jobs.train.objective import Surrogate
        from jobs.train.passes import Passes

        self.frames, self.sources, self._device = frames, sources, torch.device("cpu")
        self._flat = flattened(shipped.weights(), self._device)
        self._passes = Passes(shipped.h, Surrogate(), self._device, threads)  # the objective is not asked
        self._known: tuple[int, Image] | None = None  # a pair's frames are asked for one after the other

    def __len__(self) -> int:
        return 2 * len(self.frames)

    def __call__(self, number: int) -> View:
        from jobs.train.evaluate import unsharp

        pair, k = divmod(number, 2)
        original, decoded = (np.array(x[pair, k]) for x in (self.frames.original, self.frames.decoded))
        return View(self.sources[pair], original, decoded, unsharp(decoded), self._filtered(pair)[k])

    def close(self) -> None:
        self._passes.close()

    def __enter__(self) -> HeldOut:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _filtered(self, index: int) -> Image:
        """(2, H, W, 3) uint8."""
        from jobs.train.loop import pair_of

        if self._known is None or self._known[0] != index:
            pair = pair_of(self.frames, index, both=False, device=self._device)
            shown = self._passes.filtered(self._flat, pair).round().clamp_(0, 255)
            self._known = index, shown.permute(0, 2, 3, 1).byte().numpy()
        return self._known[1]


def choose_crops(view: Callable[[int], View], count: int, *, side: int = SIDE) -> Crops:
    """The squares with the most, the middle and the least gain of all views; of equals the first.

    Args:
        view: gives the view of each number from 0 to count - 1; asked again for those that are shown, so that never
            more than one lies in memory.
        side: of a square, in pixels; frames that are smaller are cut into squares of their shorter side.

    Of an even number of squares the lower of the two in the middle is shown.

    Raises:
        ValueError: there is no view, or its frames differ in size.
    """
    if count < 1:
        raise ValueError("there is no held-out frame to cut squares from")
    gains: list[float] = []
    places: list[tuple[int, int, int, int]] = []  # frame, y, x, side
    for number in range(count):
        found = view(number)
        high, wide = found.original.shape[:2]
        shapes = {x.shape for x in (found.original, found.decoded, found.unsharp, found.filtered)}
        if len(shapes) > 1:
            raise ValueError(f"the frames of {found.source} differ in size: {sorted(shapes)}")
        own = min(side, high, wide)
        before, after = (_square_errors(found.original, x, own) for x in (found.decoded, found.filtered))
        for (row, column), was in np.ndenumerate(before):
            gains.append(
                _decibels(float(after[row, column])) - _decibels(float(was)) if was != after[row, column] else 0.0
            )
            places.append((number, row * own, column * own, own))
    order = sorted(range(len(gains)), key=lambda i: (gains[i], i))
    most = next(i for i in order if gains[i] == gains[order[-1]])
    chosen = {"most": most, "middle": order[(len(order) - 1) // 2], "least": order[0]}
    shown = tuple(_cut(which, view(places[i][0]), places[i], gains[i]) for which, i in chosen.items())
    return Crops(shown[0].images["original"].shape[0], len(gains), sum(g > 0 for g in gains), shown)


def training_figure(
    path: Path,
    *,
    title: str,
    steps: Curves,
    candidates: Sequence[Row],
    crops: Crops,
) -> None:
    """Write the figure as PNG; equal arguments give equal bytes.

    Args:
        title: the name of the branch, and what the reader must know of it.
        candidates: rows of the table CANDIDATES (see `schema`), of the decoded frames and the unsharp mask too.

    Raises:
        ValueError: not exactly one candidate is chosen, the decoded frames or the unsharp mask are missing, or the
            values are of several quantities.
    """
    chosen = [row for row in candidates if row["chosen"]]
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen)} of {len(candidates)} candidates are the chosen one: there must be one")
    for name in OTHERS:
        if sum(row["weights"] == name for row in candidates) != 1:
            raise ValueError(f"the candidates have not one row of {name!r}, which the filter is held against")
    if len(quantities := {row["quantity"] for row in candidates}) > 1:
        raise ValueError(f"values of {' and '.join(sorted(quantities))} cannot stand in one figure")
    with mpl.rc_context(STYLE):
        figure = _draw(title, steps, candidates, crops)
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _draw(title: str, steps: Curves, candidates: Sequence[Row], crops: Crops) -> Figure:
    """All places are in dots, from the upper left corner, so that a pixel of a square is exactly ZOOM dots."""
    dots, gap, left = SIDE * ZOOM, 12, 190
    wide = left + 4 * dots + 3 * gap + 28
    top, curve_high = 114, 400  # where the curves begin, how high they are
    crops_at = top + curve_high + 150
    high = crops_at + len(crops.shown) * (dots + 34) + 6
    figure = Figure(figsize=(wide / _DPI, high / _DPI), dpi=_DPI, facecolor="white")

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / wide, 1 - (y + h) / high, w / wide, h / high))

    def words(x: float, y: float, text: str, **how: Any) -> None:
        figure.text(x / wide, 1 - y / high, text, **{"color": INK, "va": "top", **how})

    words(24, 18, title, fontsize=15)
    words(24, 60, "Training: epoch means, terms unweighted", fontsize=12)
    _course([axes(90, top, 330, 118), axes(90, top + 162, 330, 118), axes(90, top + 324, 330, 76)], steps)
    words(520, 60, "Evaluation of the int8 weights on the fixed, held-out pairs: decoded → chosen", fontsize=12)
    room = (wide - 28 - 520 - 2 * 84) / 3
    quantity = str(candidates[0]["quantity"])
    for number, (column, name) in enumerate(
        (("evaluation_value", quantity), ("psnr", "PSNR, dB"), ("ms_ssim", "MS-SSIM"))
    ):
        _candidates(
            axes(520 + number * (room + 84), top, room, curve_high), column, name, candidates, first=number == 0
        )
    # The squares.
    words(24, crops_at - 84, "Before and after", fontsize=12)
    words(24, crops_at - 62, crops.rule, fontsize=9.5, color=FAINT)
    words(
        24,
        crops_at - 44,
        f"The filter makes {crops.better:,} of the {crops.count:,} squares better ({crops.better / crops.count:.0%}).",
        fontsize=9.5,
        color=FAINT,
    )
    for number, crop in enumerate(crops.shown):
        y = crops_at + number * (dots + 34)
        words(24, y + 4, f"{crop.which.capitalize()} gain", fontsize=12, weight="bold")
        words(24, y + 28, _signed(crop.gain), fontsize=12, color=ALARM if crop.gain < 0 else INK)
        words(24, y + 56, f"{_short(crop.source)}\nheld-out frame {crop.frame}\nat x {crop.x}, y {crop.y}", color=FAINT)
        for k, (name, image) in enumerate(crop.images.items()):
            x = left + k * (dots + gap)
            if number == 0:
                words(x, y - 22, _TITLES[name], fontsize=11)
            ax = axes(x, y, dots, dots)
            ax.imshow(image, interpolation="nearest", aspect="equal")
            ax.set_axis_off()
            if name in crop.psnr:
                words(x, y + dots + 4, f"{_number(crop.psnr[name])} dB", fontsize=10.5)
    return figure


_TITLES = {
    "original": "original",
    "decoded": "decoded",
    "unsharp": "unsharp mask",
    "filtered": "filtered (int8 weights)",
}


def _course(axes: Sequence[Axes], steps: Curves) -> None:
    value, terms, rate = axes
    value.plot(steps.epochs, steps.value, color=INK)
    value.set_title("value", loc="left")
    for (name, values), (colour, dash) in zip(steps.terms.items(), LINES, strict=False):
        known = [v if v > 0 else math.nan for v in values]  # on a logarithmic scale nothing else has a place
        terms.plot(steps.epochs, known, color=colour, linestyle=dash, label=name)
    if any(v > 0 for values in steps.terms.values() for v in values):
        terms.set_yscale("log")
    terms.set_title("terms", loc="left")
    terms.legend(loc="lower right", bbox_to_anchor=(1.03, 0.95), ncols=5, frameon=False, fontsize=9, columnspacing=1)
    rate.plot(steps.epochs, steps.rate, color=INK)
    top = max(steps.rate, default=1.0)
    rate.set_ylim(0, top * 1.15)
    rate.yaxis.set_major_formatter(lambda v, _: f"{v:.2g}")
    rate.set_title("rate", loc="left")
    rate.set_xlabel("epoch")
    for ax in axes:
        _grid(ax)
    for ax in (value, terms):
        ax.tick_params(labelbottom=False)
        ax.set_xlim(rate.get_xlim())


def _candidates(ax: Axes, column: str, name: str, candidates: Sequence[Row], *, first: bool) -> None:
    decoded, other = (_value(next(r for r in candidates if r["weights"] == w), column) for w in OTHERS)
    rows = sorted((r for r in candidates if r["weights"] not in OTHERS), key=lambda row: int(row["epoch"]))
    values = [_value(row, column) for row in rows]
    ax.set_title(name, loc="left")
    ax.set_xlabel("epoch")
    _grid(ax)
    seen = [v for v in (*values, decoded) if math.isfinite(v)]
    if not seen:
        ax.text(0.5, 0.5, "none: the frames\nare too small", transform=ax.transAxes, ha="center", color=FAINT)
        return
    best = next(row for row in rows if row["chosen"])
    chosen = _value(best, column)
    digits = 4 if column == "ms_ssim" else 2 if max(map(abs, seen)) >= 1 else 5
    ax.set_title(f"{decoded:.{digits}f} → {chosen:.{digits}f}", loc="right", fontsize=10, color=LINES[1][0])
    epochs = [int(row["epoch"]) for row in rows]
    mark = "o" if len(rows) <= 60 else None
    ax.plot(epochs, values, color=LINES[0][0], marker=mark, markersize=4, label="candidates")
    star: Any = {"color": LINES[1][0], "markersize": 15, "markeredgecolor": "white", "zorder": 5}
    ax.plot([int(best["epoch"])], [chosen], "*", label=f"chosen: epoch {best['epoch']}", linestyle="none", **star)
    ax.axhline(decoded, color=INK, linestyle="--", linewidth=1.2, label="decoded, no filter")
    ax.axhline(other, color=FAINT, linestyle=":", linewidth=1.6, label="decoded, unsharp mask")
    low, high = min(seen), max(seen)
    room = (high - low) or abs(high) * 0.01 or 1.0
    away = math.isfinite(other) and not low - _AWAY * room <= other <= high + _AWAY * room
    if away:
        below = other < low
        low, high = (low - 0.16 * room, high) if below else (low, high + 0.16 * room)
        said = f"unsharp mask: {other:.{digits}f} {'↓' if below else '↑'}"
        up: Any = {"va": "bottom"} if below else {"va": "top"}
        ax.text(0.98, 0.015 if below else 0.985, said, transform=ax.transAxes, ha="right", color=FAINT, **up)
    elif math.isfinite(other):
        low, high = min(low, other), max(high, other)
        room = (high - low) or room
    ax.set_ylim(low - 0.06 * room, high + 0.06 * room)
    ax.ticklabel_format(axis="y", useOffset=False)
    if first:
        ax.legend(loc="upper left", bbox_to_anchor=(-0.13, -0.13), ncols=4, frameon=False)


def _value(row: Row, column: str) -> float:
    return math.nan if row[column] is None else float(row[column])


def _grid(ax: Axes) -> None:
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=6))


def _square_errors(a: Image, b: Image, side: int) -> npt.NDArray[np.float64]:
    """(rows, columns) mean squared difference of each whole square; exact until it is divided."""
    rows, columns = a.shape[0] // side, a.shape[1] // side
    difference = a[: rows * side, : columns * side].astype(np.int32) - b[: rows * side, : columns * side]
    squares = np.square(difference).reshape(rows, side, columns, side, 3)
    means: npt.NDArray[np.float64] = squares.sum(axis=(1, 3, 4), dtype=np.int64) / (3 * side * side)
    return means


def _decibels(error: float) -> float:
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _cut(which: str, view: View, place: tuple[int, int, int, int], gain: float) -> Crop:
    frame, y, x, side = place
    images = {
        name: np.ascontiguousarray(getattr(view, name)[y : y + side, x : x + side])
        for name in ("original", "decoded", "unsharp", "filtered")
    }
    psnr = {
        name: _decibels(float(_square_errors(images["original"], image, side)[0, 0]))
        for name, image in images.items()
        if name != "original"
    }
    return Crop(which, view.source, frame, x, y, gain, psnr, images)


def _signed(gain: float) -> str:
    return f"{gain:+.2f} dB" if math.isfinite(gain) else f"{'+' if gain > 0 else '-'}∞ dB"


def _number(decibels: float) -> str:
    return f"{decibels:.2f}" if math.isfinite(decibels) else "∞"


def _short(words: str, most: int = 24) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
