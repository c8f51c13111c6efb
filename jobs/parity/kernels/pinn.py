"""The learned arms' network under test: groups of diffraction patterns through random weights, on both Keras backends.

Weights are not those of a training and none of them is 0: every layer does something. What comes back are the complex
object patches as the group's canvas has them, so the canvas by the translation kernel is under test as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.dose import network_oracle
from jobs.dose.architecture import Architecture
from jobs.parity.adapter import Adapter, Answer, Array, Cell, Function, Given, Inputs, Mutant, Picture, described
from jobs.parity.verdict import Reference
from kernels.diffraction.probe import simulated_probe
from kernels.diffraction.seeds import generator

if TYPE_CHECKING:
    from jobs.parity import Params

TOLERANCE = 1e-5
GROUPS, MEMBERS = 32, 4  # B·C = 128
SMALL_GROUPS = 2  # of the cell that mutants are tried on
REACH, PAD = 6.0, 12  # how far patches lie from the middle of their group at most, and the canvas around them
PHOTONS = 2.0  # a pixel
WIDTH = 8


class Pinn(Adapter):
    """Diffraction (B, C, N, N), positions (B, C, 2), probe and weights; an answer is complex64 (B, C, N, N)."""

    name = "pinn"

    def __init__(self, params: Params, folder: Path, files: Mapping[str, Path]) -> None:
        super().__init__(params, folder, files)
        self._given = functools.lru_cache(4)(self._filled)

    def cells(self, candidate: str = "") -> Sequence[Cell]:
        sides = [tuple(int(n) for n in frame.split("x")) for frame in self.params.frames]
        return [
            *(_cell("single frames", GROUPS * MEMBERS, 1, side) for side, _ in sides),
            *(_cell("groups", GROUPS, MEMBERS, side) for side, _ in sides),
        ]

    def given(self, cell: Cell) -> Given:
        return self._given(cell)

    def _filled(self, cell: Cell) -> Given:
        inputs = filled(cell, self.params.seed)
        right = network_oracle.patches(*unpacked(inputs))
        # Relative to the patch: a pixel that happens to be dim is the difference of brighter ones.
        size = np.maximum(np.abs(right), np.abs(right).mean(axis=(-2, -1), keepdims=True))
        return Given(inputs, self.effective(inputs), Reference(right, size), self.params.tolerance or TOLERANCE)

    def mutants(self) -> Mapping[str, Mutant]:
        from jobs.parity.kernels.pinn_mutants import mutants

        return mutants(_cell("groups", SMALL_GROUPS, MEMBERS, 16))

    def picture(self, cell: Cell, values: Array) -> Picture | None:
        given = self._given(cell)
        relative = (np.abs(values - given.reference.values) / given.reference.scale).reshape(-1, *values.shape[-2:])
        which = int(relative.max(axis=(1, 2)).argmax())
        right, got = (self.amplitudes(v)[which] for v in (given.reference.values, values))
        seen = given.inputs.arrays["diffraction"].reshape(-1, *values.shape[-2:])[which]
        return Picture(f"patch {which}", self.quantity, seen, right, got, relative[which], TOLERANCE)

    @staticmethod
    def effective(inputs: Inputs) -> str:
        return described(inputs.arrays, inputs.settings)

    @staticmethod
    def load(target: str, threads: int) -> Function:
        return _Call(target, threads)

    @staticmethod
    def spoiled(name: str) -> Function:
        from jobs.parity.kernels.pinn_mutants import SPOILED

        return _Outside(SPOILED[name])

    @staticmethod
    def wrapped(function: Callable[..., Any]) -> Function:
        """(architecture, weights, probe, diffraction (B, C, N, N), positions (B, C, 2), pad) -> patches."""
        return _Outside(function)


class _Call:
    """Builds the network for the weights of a call once, so that timed calls time its forward."""

    def __init__(self, backend: str, threads: int) -> None:
        from jobs.dose.network import load_backend

        self._facts = load_backend(backend, threads=threads, seed=0)
        self._inputs: Inputs | None = None
        self._run: Any = None
        self._network: Any = None

    def __call__(self, inputs: Inputs) -> Answer:
        from jobs.dose.network import Network

        architecture, weights, probe, diffraction, positions, pad = unpacked(inputs)
        if inputs is not self._inputs:
            self._network = Network(architecture, probe, pad=pad)
            self._network.take(weights)
            self._run = self._network.shim.compiled(self._network.object_patches)
            self._inputs = inputs
        given = np.ascontiguousarray(np.moveaxis(diffraction, 1, -1)), np.moveaxis(positions, 1, -1)[:, None].copy()
        parts = self._run(*(self._network.keras.ops.convert_to_tensor(v) for v in given))
        real, imaginary = (np.moveaxis(self._network.shim.host(part), -1, 1) for part in parts)
        return Answer((real + 1j * imaginary).astype(np.complex64))

    def evidence(self) -> dict[str, Any]:
        """What this process really computes with."""
        from jobs.dose.network import loaded

        return {**self._facts, **loaded()}


class _Outside:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, inputs: Inputs) -> Answer:
        return Answer(np.asarray(self._function(*unpacked(inputs))))


def unpacked(inputs: Inputs) -> tuple[Architecture, dict[str, Array], Array, Array, Array, int]:
    """(architecture, weights, probe, diffraction, positions, pad)."""
    architecture = Architecture(inputs.settings["size"], inputs.settings["width"])
    weights = {name: inputs.arrays[name] for name in architecture.shapes()}
    arrays = inputs.arrays
    return architecture, weights, arrays["probe"], arrays["diffraction"], arrays["positions"], inputs.settings["pad"]


def filled(cell: Cell, seed: int) -> Inputs:
    """Photons, positions, and weights of which none is 0."""
    size = cell.height
    chance = generator("parity", "pinn", seed, str(cell), size)
    probe = simulated_probe(size).astype(np.complex128)
    probe = (probe * (size / 2) / np.sqrt((np.abs(probe) ** 2).sum())).astype(np.complex64)
    light = np.abs(np.fft.fftshift(np.fft.fft2(probe))) ** 2 / size**2
    scale = np.sqrt(PHOTONS / light.mean())
    counts = chance.poisson(scale**2 * np.broadcast_to(light, (cell.batch, cell.channels, size, size)))
    positions = chance.uniform(-REACH, REACH, (cell.batch, cell.channels, 2))
    positions -= positions.mean(axis=1, keepdims=True)
    architecture = Architecture(size, WIDTH)
    weights = {}
    for name, shape in architecture.shapes().items():
        spread = 1.4 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        values = chance.normal(size=shape) * spread
        weights[name] = np.where(np.abs(values) < 1e-3, 1e-3, values).astype(np.float32)
    arrays = {
        "probe": probe,
        "diffraction": (np.sqrt(counts) / scale).astype(np.float32),
        "positions": positions.astype(np.float32),
        **weights,
    }
    for array in arrays.values():
        array.setflags(write=False)
    return Inputs(arrays, {"size": size, "width": WIDTH, "pad": PAD})


def _cell(case: str, batch: int, channels: int, size: int) -> Cell:
    return Cell(case, "complex64", batch, channels, size, size)
