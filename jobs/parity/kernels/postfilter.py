"""The postfilter under test: windows of colour photographs through random weights, whole and by tiles.

Weights are not those of a training: its first step is the identity, which any copy of the input passes. Here the last
layer moves pixels by some tens of grey values, so that the clamp is reached at both ends.
"""

from __future__ import annotations

import functools
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
    Picture,
    described,
    remembered,
)
from jobs.parity.kernels.photographs import GREY, coloured, cut
from jobs.parity.verdict import Reference
from kernels.postfilter import BACKENDS, WHOLE, Weights, build
from kernels.postfilter.oracle import SIGMAS, UNIT, apply, error_bound
from kernels.postfilter.weights import shapes

if TYPE_CHECKING:
    from jobs.parity import Params

PHOTOGRAPHS = ("astronaut.png", "coffee.png")
TILE_CASE = "tiles of"
FRAMES = 2  # in a batch
# What known-bad filters are tried on, the same in every run: hard contrast, so that the clamp is reached for certain.
HARD, HARD_FRAME, HARD_H = "hard contrast", (60, 52), 8
LAST = 0.12  # reach of the last layer's weights
# Of the local size of rounding errors; six standard deviations of what float32 does.
TOLERANCE = SIGMAS * UNIT


def reference(frames: Array, weights: Weights) -> Reference:
    """The oracle's frames (n, 3, H, W), and per pixel the size that roundings of three layers are relative to."""
    return Reference(apply(frames, weights), error_bound(frames, weights) / TOLERANCE)


class Postfilter(Adapter):
    """Frames (B, 3, H, W) float32 from 0 to 255 and six tensors of weights; an answer has the frames' shape."""

    name = "postfilter"
    placeholders = ("frames", *shapes(1))
    quantity = "luminance"

    def cells(self, candidate: str = "") -> Sequence[Cell]:
        found = []
        for h in self.params.widths:
            for frame in self.params.frames:
                height, width = (int(n) for n in frame.split("x"))
                found.append(_cell(f"h{h}", height, width, h))
                if candidate in BACKENDS and BACKENDS[candidate].tiles:
                    found += [_cell(f"h{h} {TILE_CASE} {t}", height, width, h, t) for t in self.params.tiles]
        return found

    def __init__(self, params: Params, folder: Path, files: Mapping[str, Path]) -> None:
        super().__init__(params, folder, files)
        self._given = functools.lru_cache(remembered(params.frames))(self._filled)

    def given(self, cell: Cell) -> Given:
        return self._given(cell)

    def _filled(self, cell: Cell) -> Given:
        options = dict(cell.options)
        seed = 0 if cell.case == HARD else self.params.seed
        frames, weights = pictures(cell, seed), filled(options["h"], seed)
        inputs = Inputs({"frames": frames, **weights.tensors()}, {"tile": options["tile"]})
        tolerance = 0.0 if options["tile"] else self.params.tolerance or TOLERANCE
        right = reference(frames, weights)
        return Given(inputs, self.effective(inputs), right, tolerance, by_peer=bool(options["tile"]))

    def mutants(self) -> Mapping[str, Mutant]:
        from jobs.parity.kernels.postfilter_mutants import mutants

        return mutants(_cell(HARD, *HARD_FRAME, HARD_H))

    def amplitudes(self, values: Array) -> Array:
        return np.asarray(np.einsum("nchw,c->nhw", np.asarray(values, dtype=np.float64), GREY))

    def picture(self, cell: Cell, values: Array) -> Picture | None:
        if dict(cell.options)["tile"]:
            return None
        given = self._given(cell)
        relative = (np.abs(values - given.reference.values) / given.reference.scale).max(axis=1)
        which = int(relative.max(axis=(1, 2)).argmax())
        right, got, frames = (
            self.amplitudes(v)[which] for v in (given.reference.values, values, given.inputs.arrays["frames"])
        )
        return Picture(f"frame {which}", self.quantity, frames, right, got, relative[which], TOLERANCE)

    @staticmethod
    def effective(inputs: Inputs) -> str:
        return described(inputs.arrays, inputs.settings)

    @staticmethod
    def load(target: str, threads: int) -> Function:
        return _Call(lambda weights, tile: build(target, weights, tile=tile, threads=threads))

    @staticmethod
    def spoiled(name: str) -> Function:
        from jobs.parity.kernels.postfilter_mutants import SPOILED

        return _Outside(SPOILED[name])

    @staticmethod
    def wrapped(function: Callable[..., Any]) -> Function:
        """(weights, frames (B, 3, H, W)) -> frames."""
        return _Outside(function)


class _Call:
    """Builds a filter for the weights of a call once, so that timed calls time the filter."""

    def __init__(self, make: Callable[[Weights, Any], Any]) -> None:
        self._make = make
        self._inputs: Inputs | None = None
        self._filter: Any = None

    def __call__(self, inputs: Inputs) -> Answer:
        tile, frames = inputs.settings["tile"], inputs.arrays["frames"]
        if inputs is not self._inputs:
            self._filter = self._make(weights_of(inputs), tile)
            self._inputs = inputs
        values = self._filter(frames)
        return Answer(values, peer=self._make(weights_of(inputs), WHOLE)(frames) if tile else None)

    def evidence(self) -> dict[str, Any]:
        return dict(self._filter.evidence()) if self._filter is not None else {}


class _Outside:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, inputs: Inputs) -> Answer:
        return Answer(np.asarray(self._function(weights_of(inputs), inputs.arrays["frames"])))


def weights_of(inputs: Inputs) -> Weights:
    return Weights.of({name: inputs.arrays[name] for name in shapes(1)})


def filled(h: int, seed: int) -> Weights:
    """Weights whose every layer does something."""
    first = Weights.initial(h, seed)
    rng = np.random.default_rng([seed, h, 7])
    last = {name: rng.uniform(-LAST, LAST, first.tensors()[name].shape).astype(np.float32) for name in ("w3", "b3")}
    return Weights.of({**first.tensors(), **last})


def pictures(cell: Cell, seed: int) -> Array:
    """Windows of photographs, (B, 3, H, W) float32 from 0 to 255."""
    rng = np.random.default_rng([seed, cell.height, cell.width])
    windows = [
        cut(coloured(PHOTOGRAPHS[i % len(PHOTOGRAPHS)]), cell.height, cell.width, rng) for i in range(cell.batch)
    ]
    grey = np.stack(windows)
    if cell.case == HARD:
        grey = np.clip(4 * grey - 1.5, 0, 1)
    frames = np.ascontiguousarray(np.moveaxis(np.round(255 * grey), -1, 1)).astype(np.float32)
    frames.setflags(write=False)
    return frames


def _cell(case: str, height: int, width: int, h: int, tile: int | None = None) -> Cell:
    return Cell(case, "float32", FRAMES, 3, height, width, options=(("h", h), ("tile", tile)))
