"""The F_cell kernel under test: small frames (`fcell_cases`), their taps, and what every side reads for itself.

The grid is made from the seed, or is the user's file; it is written as a file, and every side reads that again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.parity.adapter import (
    Adapter,
    Answer,
    Array,
    Cell,
    Function,
    Given,
    Inputs,
    Mutant,
    Perturbation,
    Picture,
    Record,
    Tapping,
    remembered,
)
from jobs.parity.kernels.fcell_cases import DEFAULT_F, KNOWN, made_grid, matrix
from jobs.parity.verdict import Reference
from kernels.fcell import (
    Beam,
    Counts,
    Crystal,
    Detector,
    Experiment,
    FcellRefused,
    Goniometer,
    Grid,
    Shape,
    build,
    build_plan,
    digest,
    read_hkl,
    write_hkl,
)
from kernels.fcell import taps as kernel_taps
from kernels.fcell.oracle import probe, simulate

if TYPE_CHECKING:
    from jobs.parity import Params

TOLERANCE = 1e-6  # of every pixel
SUM_LIMIT = 1e-8
TINY = 2.0**-126  # the least normal float32: below it a pixel has fewer digits than the tolerance asks for
LISTED = "listed"


def reference(experiment: Experiment, grid: Grid | None) -> tuple[Reference, Counts]:
    """The oracle's image (slow, fast) in double precision, and what its lookups met."""
    told = simulate(build_plan(experiment, grid))
    assert told.image64 is not None
    image = told.image64
    # Rounding a pixel to float32 shifts it by up to 2⁻²⁴ of itself. In a small frame few pixels hold most of the sum,
    # and their roundings do not average out: three standard deviations of that are allowed on top.
    rounding = 3 * 2.0**-24 / math.sqrt(3) * float(np.linalg.norm(image) / max(image.sum(), TINY))
    return Reference(image, np.maximum(image, TINY), SUM_LIMIT + rounding), told.counts


class Fcell(Adapter):
    """An experiment as settings and a file of structure factors; an answer is a float32 image (slow, fast)."""

    name = "fcell"
    placeholders = ("hkl",)
    has_taps = True
    quantity = "√photons"

    def __init__(self, params: Params, folder: Path, files: Mapping[str, Path]) -> None:
        super().__init__(params, folder, files)
        self._hkl = files.get("hkl")
        if self._hkl is None:
            self._hkl = folder / "made.hkl"
            write_hkl(self._hkl, made_grid(params.seed))
        self._grid = read_hkl(self._hkl, DEFAULT_F)
        self._given = functools.lru_cache(remembered(params.frames))(self._filled)
        self._tapping = functools.cache(self._tapped)
        self._experiments: dict[Cell, tuple[Experiment, bool]] = {}
        for frame in params.frames:
            slow, fast = (int(n) for n in frame.split("x"))
            for case, (experiment, gridded) in matrix(params, slow, fast).items():
                self._experiments[_cell(case, experiment)] = experiment, gridded

    def cells(self, candidate: str = "") -> Sequence[Cell]:
        return list(self._experiments)

    def given(self, cell: Cell) -> Given:
        return self._given(cell)

    def _filled(self, cell: Cell) -> Given:
        grid: Grid | None
        if cell.case in KNOWN:
            experiment, grid = KNOWN[cell.case]()
            path = self.folder / f"{cell.case}.hkl"
            write_hkl(path, grid)
            inputs = Inputs(settings=settings(experiment), files={"hkl": path})
        else:
            experiment, gridded = self._experiments[cell]
            grid = self._grid if gridded else None
            inputs = self._inputs(experiment, gridded)
        right, counts = reference(experiment, grid)
        effective = digest.effective_input(experiment, grid).text
        return Given(inputs, effective, right, self.params.tolerance or TOLERANCE, _counts(counts))

    def _inputs(self, experiment: Experiment, gridded: bool, hkl: Path | None = None) -> Inputs:
        path = hkl or self._hkl
        assert path is not None
        return Inputs(settings=settings(experiment), files={"hkl": path} if gridded else {})

    def mutants(self) -> Mapping[str, Mutant]:
        from jobs.parity.kernels.fcell_mutants import mutants

        return mutants(**{case: _cell(case, make()[0]) for case, make in KNOWN.items()})

    def tapped(self) -> Sequence[Cell]:
        cases = {f"grid ×{n}" for n in self.params.oversamples} | {"triclinic"}
        return [cell for cell in self._experiments if cell.case in cases]

    def tapping(self, cell: Cell) -> Tapping:
        return self._tapping(cell)

    def _tapped(self, cell: Cell) -> Tapping:
        experiment, _ = self._experiments[cell]
        listed, index = self._on_a_listed_cell(cell)
        pixels = {"edge": (0, 0), "centre": (cell.height // 2, cell.width // 2), LISTED: listed}
        for word in self.params.pixels:
            slow, fast = (int(n) for n in word.split("x"))
            pixels[word] = (slow, fast)
        beam, detector = experiment.beam, experiment.detector
        brighter = dataclasses.replace(experiment, beam=dataclasses.replace(beam, fluence=2 * beam.fluence))
        farther = dataclasses.replace(detector, distance_mm=1.01 * detector.distance_mm)
        moved = dataclasses.replace(experiment, detector=farther)
        at = tuple(n - low for n, (low, _) in zip(index, self._grid.bounds, strict=True))
        perturbations = {
            "configuration": Perturbation(self._inputs(brighter, True), ((1, "edge", "fluence"),)),
            "geometry": Perturbation(
                self._inputs(moved, True), tuple((t, p, f) for t, p in ((2, "edge"), (3, "centre")) for f in OMEGA)
            ),
            "grid": Perturbation(
                self._inputs(experiment, True, self._changed(at, 1.5)),
                tuple((tap, LISTED, name) for tap, names in OF_THE_GRID.items() for name in names),
            ),
            "list": Perturbation(
                self._inputs(experiment, True, self._changed(at, None)),
                ((4, LISTED, "listed"), (4, LISTED, "unlisted")),
            ),
        }
        inputs = self._inputs(experiment, True)
        records = {"": tap_records("numpy", 1, inputs, pixels)}
        for name, p in perturbations.items():
            records[name] = tap_records("numpy", 1, p.inputs, pixels)
        return Tapping(inputs, pixels, perturbations, records, TOLERANCE)

    def _on_a_listed_cell(self, cell: Cell) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """The brightest pixel whose lookups all meet one listed cell, and that cell.

        Raises:
            FcellRefused: this frame has none, so its taps could not be shown to read the grid.
        """
        experiment, _ = self._experiments[cell]
        plan = build_plan(experiment, self._grid)
        image = self._given(cell).reference.values
        for flat in np.argsort(image, axis=None)[::-1]:
            slow, fast = (int(n) for n in np.unravel_index(int(flat), image.shape))
            counts = probe(plan, slow, fast).counts
            if counts.listed == counts.lookups and not counts.zero_f and all(a == b for a, b in counts.bounds):
                (h, _), (k, _), (n, _) = counts.bounds
                return (slow, fast), (h, k, n)
        raise FcellRefused(
            f"no pixel of {cell.case} sees one listed cell alone, so taps cannot be shown to read a grid"
        )

    def _changed(self, at: tuple[int, ...], factor: float | None) -> Path:
        """The list with one structure factor multiplied, or left out."""
        path = self.folder / f"{'-'.join(str(n) for n in at)}-{factor}.hkl"
        if not path.exists():
            values, listed = self._grid.values.copy(), self._grid.listed.copy()
            if factor is None:
                listed[at], values[at] = False, self._grid.default_f
            else:
                values[at] *= factor
            grid = Grid(values, listed, self._grid.hmin, self._grid.kmin, self._grid.lmin, self._grid.default_f)
            write_hkl(path, grid)
        return path

    def told_taps(self, path: Path, pixels: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
        told = []
        for record in kernel_taps.read_taps(path):
            places = [place for place, pixel in pixels.items() if list(pixel) == record["pixel"]]
            told += [{**record, "place": place, "utc": str(record.get("utc", ""))} for place in places]
        return told

    def amplitudes(self, values: Array) -> Array:
        return np.sqrt(np.maximum(super().amplitudes(values), 0.0))

    def picture(self, cell: Cell, values: Array) -> Picture | None:
        right = self._given(cell).reference
        if values.shape != right.values.shape:
            return None
        oracle, shown = (self.amplitudes(v)[0] for v in (right.values, values))
        relative = np.abs(values - right.values) / right.scale
        return Picture(f"{cell.height}×{cell.width} pixels", self.quantity, None, oracle, shown, relative, TOLERANCE)

    def program_shape(self, cell: Cell) -> tuple[int, ...]:
        return (cell.height, cell.width)

    @staticmethod
    def effective(inputs: Inputs) -> str:
        return digest.effective_input(*taken(inputs)).text

    @staticmethod
    def load(target: str, threads: int) -> Function:
        return _Call(build(target, threads))

    @staticmethod
    def spoiled(name: str) -> Function:
        from jobs.parity.kernels.fcell_mutants import SPOILED

        return _Image(SPOILED[name])

    @staticmethod
    def wrapped(function: Callable[..., Any]) -> Function:
        """(experiment, grid or None) -> image (slow, fast)."""
        return _Image(function)

    @staticmethod
    def taps(target: str, threads: int, inputs: Inputs, pixels: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
        return tap_records(target, threads, inputs, pixels)

    @staticmethod
    def fields(record: Record) -> dict[str, Any]:
        return dict(kernel_taps.leaves(record["values"]))


OMEGA = ("used", "mean")
OF_THE_GRID = {
    4: ("mean_f_cell",),
    5: ("accumulated", "normalised"),
    6: ("physical",),
    7: ("final", "without_roi"),
}


def settings(experiment: Experiment) -> dict[str, Any]:
    """An experiment as JSON can hold it."""
    told = dataclasses.asdict(experiment)
    told["crystal"]["shape"] = experiment.crystal.shape.value
    told["beam"]["sources"] = [[list(s.direction), s.wavelength_a] for s in experiment.beam.sources]
    return told


def taken(inputs: Inputs) -> tuple[Experiment, Grid | None]:
    """The experiment of `settings`, and the grid of the file that lies beside it."""
    told = inputs.settings
    crystal = Crystal(**{**told["crystal"], "shape": Shape(told["crystal"]["shape"])})
    experiment = Experiment(
        crystal,
        Beam(**told["beam"]),
        Detector(**told["detector"]),
        Goniometer(**told["goniometer"]),
        told["interpolate"],
    )
    path = inputs.files.get("hkl")
    return experiment, read_hkl(path, crystal.default_f) if path is not None else None


def tap_records(
    backend: str, threads: int, inputs: Inputs, pixels: Mapping[str, tuple[int, int]]
) -> list[dict[str, Any]]:
    """A backend's own intermediate numbers; its whole frame goes along, to be held against the pixel alone."""
    experiment, grid = taken(inputs)
    frame = build(backend, threads)(build_plan(experiment, grid)).image
    told = kernel_taps.taps(experiment, grid, pixels, backend, backend, frame=frame)
    # The configuration is that of the frame: at the first pixel it has been said.
    first = next(iter(pixels))
    return [record for record in told if record["tap"] != 1 or record["place"] == first]


class _Prepared:
    """Reads the inputs of a call once, so that timed calls time the kernel and not the parsing of a file."""

    def __init__(self) -> None:
        self._inputs: Inputs | None = None
        self._taken: tuple[Experiment, Grid | None] | None = None

    def take(self, inputs: Inputs) -> tuple[Experiment, Grid | None]:
        if self._taken is None or inputs is not self._inputs:
            self._inputs, self._taken = inputs, taken(inputs)
        return self._taken


class _Call(_Prepared):
    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self._kernel = kernel

    def __call__(self, inputs: Inputs) -> Answer:
        told = self._kernel(build_plan(*self.take(inputs)))
        return Answer(told.image, _counts(told.counts))

    def evidence(self) -> dict[str, Any]:
        told: dict[str, Any] = self._kernel.evidence()
        return told


class _Image(_Prepared):
    """A function that makes an image and counts nothing."""

    def __init__(self, image: Callable[[Experiment, Grid | None], Array]) -> None:
        super().__init__()
        self._image = image

    def __call__(self, inputs: Inputs) -> Answer:
        return Answer(np.asarray(self._image(*self.take(inputs))))


def _cell(case: str, experiment: Experiment) -> Cell:
    d = experiment.detector
    return Cell(case, "float32", 1, 1, d.slow, d.fast, options=(("oversample", d.oversample),))


def _counts(counts: Counts) -> dict[str, int]:
    names = ("lookups", "listed", "unlisted", "out_of_grid", "no_grid", "zero_f")
    told = {name: int(getattr(counts, name)) for name in names}
    for axis, (low, high) in zip("hkl", counts.bounds, strict=True):
        told |= {f"{axis}_least": int(low), f"{axis}_greatest": int(high)}
    return told
