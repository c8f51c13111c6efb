"""A grid of branches, alpha × hidden channels × horizon: what each came to, as a table and as one figure.

A value's `sal` term depends on alpha, so values stand beside each other within one alpha only; the gain in PSNR over
the decoded frames means the same for all. Neither is compared between other fixed pairs or another quantity.

`lab results 40 --plot branches.png` draws it, from the result tables alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import BadInput
from core.kind import Absent
from jobs.train.recipe import branch_of

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

INK, FAINT, GRID = "#222222", "#666666", "#e6e6e6"
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "lab",
}
_NO_DATES: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
_MOST_NAMED = 6  # of those that are not shown
# Okabe and Ito's colours and one shape each for the widths; a dash for each horizon.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1, 1, 1)))
DECODED: Any = (0, (1, 3))
NOTE = (
    "A value's sal term depends on alpha: compare values within one alpha, and PSNR between all.\n"
    "Several runs of a branch: the line is their median, the band from the least to the greatest."
)


@dataclass(frozen=True)
class Run:
    """One job of a branch.

    Attributes:
        epochs, values: of its candidates, in order.
        epoch, value, psnr, ms_ssim, size: of the one that ships; dB and bytes; no MS-SSIM is NaN.
        gain: dB, PSNR over that of the decoded frames; decoded: the value of those.
    """

    job: int
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    epoch: int
    value: float
    psnr: float
    ms_ssim: float
    size: int
    gain: float
    decoded: float


@dataclass(frozen=True)
class Branch:
    """All runs of one branch, which differ in their seeds only."""

    name: str
    epochs: int
    alpha: float
    h: int
    runs: tuple[Run, ...]

    @property
    def size(self) -> int:
        """Bytes of the int8 file, which follow from h."""
        return self.runs[0].size

    def curve(self) -> list[tuple[int, float, float, float]]:
        """(epoch, median, least, greatest value) of the runs that have a candidate there."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            for epoch, value in zip(run.epochs, run.values, strict=True):
                if math.isfinite(value):
                    found.setdefault(epoch, []).append(value)
        return [(e, statistics.median(v), min(v), max(v)) for e, v in sorted(found.items())]

    def spread(self, name: str) -> tuple[float, float, float]:
        """(median, least, greatest) over the runs of `value`, `psnr`, `gain` or `ms_ssim` of what ships."""
        values = [getattr(run, name) for run in self.runs]
        return statistics.median(values), min(values), max(values)


def branches(candidates: Iterable[Row], training: Iterable[Row]) -> tuple[Branch, ...]:
    """The branches of these result tables, by alpha, h and horizon.

    Args:
        candidates, training: rows of the tables of that name (see `schema`), with `job`.

    Raises:
        BadInput: there are none; they are of several quantities or fixed pairs, or values of one alpha are made of
            different things; a job lacks its chosen candidate, its decoded frames or its row in `training`; or the runs
            of a branch differ in more than their seeds.
    """
    trained = {int(row["job"]): row for row in training}
    jobs: dict[int, list[Row]] = {}
    for row in candidates:
        jobs.setdefault(int(row["job"]), []).append(row)
    if not jobs:
        raise BadInput("there is no candidate of any branch", hint="only jobs that succeeded have result tables")
    without = sorted(set(jobs) ^ set(trained))
    if without:
        raise BadInput(
            f"job {without[0]} is in one of the tables candidates and training only", hint="take both of the same jobs"
        )
    _one("quantity", {(str(r["quantity"])) for rows in jobs.values() for r in rows})
    _one("fixed pairs", {str(row["evaluation_sha256"])[:12] for row in trained.values()})
    _alike(trained)
    found: dict[str, list[Run]] = {}
    for job, rows in sorted(jobs.items()):
        found.setdefault(str(trained[job]["branch"]), []).append(_run(job, rows))
    result = []
    for name, runs in found.items():
        epochs, alpha, h = branch_of(name)
        if len({run.size for run in runs}) > 1:
            raise BadInput(f"the runs of {name} have files of {' and '.join(str(r.size) for r in runs)} bytes")
        result.append(Branch(name, epochs, alpha, h, tuple(runs)))
    return tuple(sorted(result, key=lambda b: (b.alpha, b.h, b.epochs)))


def summary(found: Sequence[Branch]) -> pa.Table:
    """One row a branch: what ships, medians over its runs with the least and the greatest; decimals unrounded."""
    import pyarrow as pa

    rows = []
    for branch in found:
        row: dict[str, Any] = {"branch": branch.name, "alpha": branch.alpha, "h": branch.h, "epochs": branch.epochs}
        row |= {"runs": len(branch.runs), "bytes": branch.size}
        for name in ("value", "gain"):
            row |= dict(zip((name, f"{name}_least", f"{name}_most"), branch.spread(name), strict=True))
        row |= {name: branch.spread(name)[0] for name in ("psnr", "ms_ssim")}
        row["chosen_epochs"] = " ".join(str(run.epoch) for run in branch.runs)
        rows.append(row)
    return pa.Table.from_pylist(rows)


def draw(
    out: BinaryIO, form: str, tables: Mapping[str, pa.Table], absent: Sequence[Absent], title: str
) -> Sequence[str]:
    """As `core.kind.Kind.figure` has it."""
    rows = {name: tables[name].to_pylist() if name in tables else [] for name in ("candidates", "training")}
    if not rows["training"] and absent:
        raise BadInput(f"no branch has results: {absent[0].name} {absent[0].why}", hint="`lab explain` says why")
    found = branches(rows["candidates"], rows["training"])
    quantity = str(rows["candidates"][0]["quantity"])
    missing = missing_words(absent)
    branches_figure(out, found, title=title, quantity=quantity, form=form, missing=missing)
    runs = sum(len(branch.runs) for branch in found)
    said = f"{quantity} against epoch and bytes: {len(found)} branches, {runs} runs"
    return [said, *missing]


def missing_words(absent: Sequence[Absent]) -> list[str]:
    """A line for each job that has no curve, as far as there is room for them."""
    said = [f"not shown: {one.job} {one.name} ({one.why})" for one in absent[:_MOST_NAMED]]
    more = len(absent) - _MOST_NAMED
    return [*said, f"not shown: {more} more that have no results"] if more > 0 else said


def branches_figure(
    out: BinaryIO, found: Sequence[Branch], *, title: str, quantity: str, form: str = "png", missing: Sequence[str] = ()
) -> None:
    """Write the figure; equal arguments give equal bytes.

    Args:
        found: of `branches`.
        quantity: what a value is called.
        form: png, pdf or svg.
        missing: lines about branches that are not there.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    with mpl.rc_context(STYLE):
        figure = _draw(found, title, quantity, missing)
        figure.savefig(out, format=form, dpi=110, metadata=_NO_DATES[form])


def _one(what: str, seen: set[str]) -> None:
    if len(seen) > 1:
        raise BadInput(
            f"the branches are of several {what}: {', '.join(sorted(seen))}",
            hint="only values of one quantity on equal fixed pairs may stand beside each other: leave the others out",
        )


def _alike(trained: Mapping[int, Row]) -> None:
    """Refuse values of one alpha that are made of different things, and runs of a branch that are no repeats."""
    values: dict[float, dict[str, int]] = {}
    settings: dict[str, dict[str, int]] = {}
    for job, row in sorted(trained.items()):
        name = str(row["branch"])
        values.setdefault(branch_of(name)[1], {}).setdefault(str(row.get("value_sha256")), job)
        settings.setdefault(name, {}).setdefault(str(row.get("settings_sha256")), job)
    for alpha, made in values.items():
        if len(made) > 1:
            raise BadInput(
                f"the values of jobs {' and '.join(map(str, made.values()))} are made of different things, "
                f"at one alpha of {alpha:g}: other weights of the terms, or other networks",
                hint="name the jobs whose values may stand beside each other",
            )
    for name, made in settings.items():
        if len(made) > 1:
            raise BadInput(
                f"jobs {' and '.join(map(str, made.values()))} are both called {name}, and differ in more than their "
                "seeds",
                hint="name the jobs that belong together: lab results ID ... --plot FILE; `lab compare` ranks them all",
            )


def _run(job: int, rows: Sequence[Row]) -> Run:
    chosen = [row for row in rows if row["chosen"]]
    decoded = [row for row in rows if row["weights"] == "decoded"]
    if len(chosen) != 1 or len(decoded) != 1:
        raise BadInput(
            f"job {job} has {len(chosen)} chosen candidates and {len(decoded)} rows of decoded frames, not one each",
            hint="take the whole table, without --where and --limit",
        )
    measured = sorted((r for r in rows if r["epoch"] is not None), key=lambda r: int(r["epoch"]))
    best, psnr = chosen[0], float(chosen[0]["psnr"])
    return Run(
        job,
        tuple(int(r["epoch"]) for r in measured),
        tuple(float(r["evaluation_value"]) for r in measured),
        int(best["epoch"]),
        float(best["evaluation_value"]),
        psnr,
        math.nan if best["ms_ssim"] is None else float(best["ms_ssim"]),
        int(best["bytes"]),
        psnr - float(decoded[0]["psnr"]),
        float(decoded[0]["evaluation_value"]),
    )


def _draw(found: Sequence[Branch], title: str, quantity: str, missing: Sequence[str]) -> Figure:
    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    colours = mpl.colormaps["viridis"]
    alphas = sorted({b.alpha for b in found})
    widths, horizons = sorted({b.h for b in found}), sorted({b.epochs for b in found})
    columns = len(alphas) + 1
    figure = Figure(figsize=(1.0 + 3.7 * columns, 7.6 + 0.16 * len(missing)), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=14, color=INK)
    figure.supxlabel("\n".join([*missing, NOTE]), x=0.012, ha="left", fontsize=9, color=FAINT)
    axes = figure.subplots(2, columns, squeeze=False)
    for k, alpha in enumerate(alphas):
        mine = [b for b in found if b.alpha == alpha]
        above, below = axes[0][k], axes[1][k]
        for branch in mine:
            _curve(above, branch, widths.index(branch.h), horizons.index(branch.epochs))
        above.axhline(mine[0].runs[0].decoded, color=INK, linestyle=DECODED, linewidth=1)
        above.set_title(f"alpha {alpha:g}", loc="left")
        above.set_xlabel("epoch")
        above.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=6))
        _against_bytes(below, mine, "value", widths, horizons)
        for ax in (above, below):
            ax.set_ylabel(f"{quantity}, evaluation" if k == 0 else "")
    last = axes[1][-1]
    shades = [colours(x) for x in np.linspace(0.0, 0.8, len(alphas))]
    for alpha, colour in zip(alphas, shades, strict=True):
        for number, horizon in enumerate(horizons):
            mine = sorted((b for b in found if b.alpha == alpha and b.epochs == horizon), key=lambda b: b.size)
            _line(last, mine, "gain", color=colour, marker="o", dash=DASHES[number % len(DASHES)], number=number)
    last.axhline(0, color=INK, linewidth=1)
    last.set_title("all alphas: gain in PSNR over decoded, dB", loc="left")
    _bytes_axis(last, found)
    _legend(axes[0][-1], widths, horizons, dict(zip(alphas, shades, strict=True)))
    for ax in (*axes[0][:-1], *axes[1]):
        ax.grid(color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.ticklabel_format(axis="y", useOffset=False)
    return figure


def _curve(ax: Axes, branch: Branch, width: int, horizon: int) -> None:
    curve = branch.curve()
    if not curve:
        return
    epochs, middle, low, high = zip(*curve, strict=True)
    colour, dash = COLOURS[width % len(COLOURS)], DASHES[horizon % len(DASHES)]
    if len(branch.runs) > 1:
        ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(epochs, middle, color=colour, linestyle=dash, linewidth=1.7)
    for run in branch.runs:
        ax.plot([run.epoch], [run.value], "*", color=colour, markersize=11, markeredgecolor="white", zorder=5)


def _against_bytes(ax: Axes, mine: Sequence[Branch], name: str, widths: Sequence[int], horizons: Sequence[int]) -> None:
    for number, horizon in enumerate(horizons):
        line = sorted((b for b in mine if b.epochs == horizon), key=lambda b: b.size)
        _line(ax, line, name, color=FAINT, marker="", dash=DASHES[number % len(DASHES)])
        for branch in line:
            k = widths.index(branch.h)
            middle = branch.spread(name)[0]
            colour = COLOURS[k % len(COLOURS)]
            ax.plot(
                [branch.size], [middle], MARKERS[k % len(MARKERS)], color=colour, markersize=8, **_mark(number, colour)
            )
    _bytes_axis(ax, mine)


def _mark(horizon: int, colour: Any) -> dict[str, Any]:
    """Marks of the first horizon are full, those of the others are not: where only one width has run for so long."""
    inside = colour if horizon == 0 else "white" if horizon == 1 else (0.75, 0.75, 0.75)
    return {"markerfacecolor": inside, "markeredgecolor": colour, "markeredgewidth": 1.6}


def _line(ax: Axes, line: Sequence[Branch], name: str, *, color: Any, marker: str, dash: Any, number: int = 0) -> None:
    if not line:
        return
    sizes = [b.size for b in line]
    middle, low, high = zip(*(b.spread(name) for b in line), strict=True)
    ax.plot(
        sizes, middle, color=color, linestyle=dash, marker=marker, linewidth=1.3, markersize=6, **_mark(number, color)
    )
    if any(len(b.runs) > 1 for b in line):
        ax.vlines(sizes, low, high, color=color, alpha=0.35, linewidth=5)


def _bytes_axis(ax: Axes, found: Sequence[Branch]) -> None:
    sizes = {b.size: b.h for b in found}
    ax.set_xticks(list(sizes), [f"{size:,}\nh{h}" for size, h in sizes.items()], fontsize=9)
    ax.set_xlabel("bytes of the int8 file")
    ax.margins(x=0.15)


def _legend(ax: Axes, widths: Sequence[int], horizons: Sequence[int], alphas: Mapping[float, Any]) -> None:
    """What colours, marks and dashes mean, in a panel of its own."""
    ax.set_axis_off()
    inside: list[Any] = []
    for k, h in enumerate(widths):
        mark: Any = {"marker": MARKERS[k % len(MARKERS)], "markeredgecolor": "white", "markersize": 9}
        inside += ax.plot([], [], color=COLOURS[k % len(COLOURS)], label=f"{h} hidden channels", **mark)
    for k, horizon in enumerate(horizons):
        inside += ax.plot(
            [], [], "o", color=FAINT, linestyle=DASHES[k % len(DASHES)], label=f"{horizon} epochs", **_mark(k, FAINT)
        )
    inside += ax.plot([], [], color=INK, linestyle=DECODED, linewidth=1, label="decoded, no filter")
    inside += ax.plot([], [], "*", color=FAINT, markersize=11, label="chosen: what ships")
    below = [ax.plot([], [], color=c, marker="o", label=f"alpha {alpha:g}")[0] for alpha, c in alphas.items()]
    how: Any = {"frameon": False, "alignment": "left", "borderaxespad": 0}
    ax.add_artist(ax.legend(handles=inside, loc="upper left", bbox_to_anchor=(0, 1), **how))
    ax.legend(handles=below, loc="lower left", bbox_to_anchor=(0, -0.12), title="below", ncols=2, **how)
