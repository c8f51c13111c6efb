"""LSQML against `ptychi`: seconds an epoch, time to the same resolution, and quality against dose, in one run.

python -m benchmarks.lsqml --python ENV/bin/python [--size 64 --size 128] [--threads 1 --threads 2] [--epochs 60]
                           [--turns 2] [--batch 8] [--photons 1e5] [--dose 1e3 --dose 1e4 --dose 1e5]

Both start from the same flat object and the same probe, with minibatches of the same size, on the same frames, in turn.
ptychi runs in its own process under the interpreter that has it; what it needs to start is not counted. Quality is the
FRC-0.5 cutoff against the true object, aligned alike, after every epoch. From it comes a curve of resolution against
time, and the time to a resolution is where the curve first crosses it, between two epochs in proportion. Several
resolutions are asked for, as shares of the best that the worse of the two reaches at all.

Then, at the first size, both at several doses: resolution, and the error of the phase beside 1/√(2n) and 1/(2√n) for n
photons per object pixel. These bound unbiased estimators only. Smaller batches are faster on a CPU for both; `--batch`.

The exit code is 1 where the lean engine is less than 3 times as fast, by epochs or to any of the resolutions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.dose.engines import Engine, Found, Request, reconstruct
from jobs.dose.objects import Photographs, object_of
from kernels.devices import usable_cores
from kernels.diffraction.bounds import ptychography_limit, quantum_limit
from kernels.diffraction.fluence import photons_per_pixel
from kernels.diffraction.forward import amplitude, patches
from kernels.diffraction.frc import cutoff, ring_correlation
from kernels.diffraction.lsqml import Settings
from kernels.diffraction.probe import simulated_probe
from kernels.diffraction.registration import align

Array = npt.NDArray[Any]

SIDE = 12  # positions along each axis
LEAST = 3.0  # times as fast, at equal quality
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)  # of the lesser of the two best cutoffs
DOSES = (1e3, 1e4, 1e5)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.lsqml")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has ptychi")
    parser.add_argument("--size", type=int, action="append", help="N; may be given more than once [64, 128]")
    parser.add_argument("--threads", type=int, action="append", help="may be given more than once [1, 2]")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--photons", type=float, default=1e5, help="a pattern")
    parser.add_argument("--dose", type=float, action="append", help="photons a pattern of the last table; 0: no table")
    args = parser.parse_args(argv)
    if args.epochs < 2:
        parser.error("--epochs: the first epoch warms up, so there are at least 2")
    torch.set_num_threads(1)
    print(f"{usable_cores()} cores, load {os.getloadavg()[0]:.2f} at the start, torch {torch.__version__}")
    sizes = args.size or [64, 128]
    least = float("inf")
    for size in sizes:
        scene = made(size, args.photons)
        for threads in args.threads or (1, 2):
            found = [turn(scene, threads, args) for _ in range(args.turns)]
            least = min(least, report(size, threads, args, scene, found))
    doses = [dose for dose in args.dose or DOSES if dose > 0]
    if doses:
        against_dose(sizes[0], doses, args)
    print(f"\nthe least of all these ratios is {least:.1f}; load {os.getloadavg()[0]:.2f} at the end")
    return 0 if least >= LEAST else 1


@dataclass(frozen=True)
class Scene:
    """amplitude (n, N, N), positions, probe, and what was looked at."""

    amplitude: Array
    x: Array
    y: Array
    probe: Array
    truth: Array
    photons: float

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns between the outermost positions."""
        high, wide = (slice(int(np.ceil(v.min())), int(np.floor(v.max())) + 1) for v in (self.y, self.x))
        return high, wide


def made(size: int, photons: float) -> Scene:
    """Two photographs under a raster whose points are moved by parts of a pixel; Poisson noise."""
    rng = np.random.default_rng(1)
    step = size / 10
    steps = np.arange(SIDE) * step
    margin = size // 2 + 4
    side = int(2 * margin + steps[-1]) + 2
    truth = object_of(side, Photographs())
    y, x = (v.ravel() + margin for v in np.meshgrid(steps, steps, indexing="ij"))
    y, x = (np.round((v + rng.uniform(-2, 2, v.size)) * 64) / 64 for v in (y, x))
    probe = simulated_probe(size)
    exact = amplitude(probe, patches(truth, x, y, size)) ** 2
    counts = rng.poisson(exact * photons / exact.sum(axis=(1, 2)).mean())
    return Scene(np.sqrt(counts).astype(np.float32), x, y, probe, truth, photons)


def turn(scene: Scene, threads: int, args: argparse.Namespace) -> dict[Engine, Found]:
    request = Request(
        scene.amplitude,
        scene.x,
        scene.y,
        scene.probe,
        args.epochs,
        Settings(batch=args.batch),
        threads=threads,
        keep=tuple(range(1, args.epochs + 1)),
    )
    return {engine: reconstruct(request, engine, python=args.python) for engine in (Engine.PTYCHI, Engine.LEAN)}


def aligned(scene: Scene, object_: Array, origin: tuple[int, int]) -> tuple[Array, Array]:
    """The region of a reconstruction, in register, and that of the truth."""
    rows, columns = scene.region
    ours = object_[rows.start - origin[0] : rows.stop - origin[0], columns.start - origin[1] : columns.stop - origin[1]]
    wanted = scene.truth[rows, columns]
    return align(ours, wanted).object, wanted


def resolved(scene: Scene, object_: Array, origin: tuple[int, int]) -> float:
    """FRC-0.5 against the truth, cycles per pixel, of what lies between the outermost positions."""
    return cutoff(ring_correlation(*aligned(scene, object_, origin))).frequency


def phase_error(scene: Scene, object_: Array, origin: tuple[int, int]) -> float:
    """Root mean square of the phase's error over the same region, radians."""
    ours, wanted = aligned(scene, object_, origin)
    return float(np.sqrt(np.mean(np.angle(ours * np.conj(wanted)) ** 2)))


def reached(seconds: Sequence[float], curve: Sequence[float], level: float) -> float:
    """Seconds until a curve first is at a level; between two epochs in proportion, in the first epoch all of it.

    Args:
        seconds: at the end of each epoch. curve: what was found then.

    Raises:
        ValueError: it never is.
    """
    ends = list(zip(seconds, curve, strict=True))
    if ends and ends[0][1] >= level:
        return ends[0][0]
    for (before, low), (after, high) in pairwise(ends):
        if high >= level:
            return before + (after - before) * (level - low) / (high - low)
    raise ValueError(f"no epoch reaches {level}")


def report(size: int, threads: int, args: argparse.Namespace, scene: Scene, turns: list[dict[Engine, Found]]) -> float:
    """Print what was found. Returns the least ratio, of seconds an epoch and of times to a resolution."""
    curves = {
        engine: [resolved(scene, found.kept[e], found.origin) for e in range(1, args.epochs + 1)]
        for engine, found in turns[0].items()
    }
    seconds = {e: [statistics.median(t[e].seconds[1:]) for t in turns] for e in curves}
    cpu = {e: [statistics.median(t[e].cpu[1:]) for t in turns] for e in curves}
    n = len(scene.x)
    print(f"\nN={size}, {n} positions, {threads} threads, batches of {args.batch}, {args.photons:g} photons a pattern")
    wall, used = ({e: statistics.median(each[e]) for e in curves} for each in (seconds, cpu))
    for engine, curve in curves.items():
        print(
            f"  {engine:7} {wall[engine] * 1e3:8.1f} ms an epoch (each turn: "
            f"{', '.join(f'{1e3 * s:.1f}' for s in seconds[engine])}; {wall[engine] / n * 1e6:.0f} us a position, "
            f"processor {used[engine] / n * 1e6:.0f} us); FRC best {max(curve):.3f}/px in epoch "
            f"{int(np.argmax(curve)) + 1}, after {args.epochs} {curve[-1]:.3f}/px; error {turns[0][engine].error:.4f}"
        )
    ratios = [wall[Engine.PTYCHI] / wall[Engine.LEAN]]
    shares = used[Engine.PTYCHI] / used[Engine.LEAN]
    print(f"  lean is {ratios[0]:.1f} times as fast an epoch (processor {shares:.1f})")
    # Each epoch takes the median of its engine's turns: a neighbour's burst in one epoch is none of its doing.
    ends = {e: list(accumulate([wall[e]] * args.epochs)) for e in curves}
    best = min(max(curve) for curve in curves.values())
    for share in SHARES:
        level = share * best
        theirs, ours = (reached(ends[e], curves[e], level) for e in (Engine.PTYCHI, Engine.LEAN))
        ratios.append(theirs / ours)
        epochs = [reached(range(1, args.epochs + 1), curves[e], level) for e in (Engine.PTYCHI, Engine.LEAN)]
        print(
            f"    to FRC {level:.3f}/px ({share:4.0%} of the lesser best): ptychi {theirs:7.3f} s ({epochs[0]:.1f} "
            f"epochs), lean {ours:7.3f} s ({epochs[1]:.1f}): {ratios[-1]:.1f} times as fast"
        )
    return min(ratios)


def against_dose(size: int, doses: Sequence[float], args: argparse.Namespace) -> None:
    """Print the quality of both at each dose, beside the bounds."""
    print(f"\nN={size}, {args.epochs} epochs; phase error in radians beside 1/sqrt(2n) and 1/(2 sqrt(n))")
    for dose in doses:
        scene = made(size, dose)
        rows, columns = scene.region
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        light = photons_per_pixel(scene.probe, scene.x, scene.y, dose, origin=(rows.start, columns.start), shape=shape)
        n = float(light.mean())
        said = []
        for engine, found in turn(scene, 1, args).items():
            frc, apart = (of(scene, found.object, found.origin) for of in (resolved, phase_error))
            said.append(f"{engine} FRC {frc:.3f}/px, phase {apart:.4f}")
        bounds = f"{float(ptychography_limit(n)):.4f}, {float(quantum_limit(n)):.4f}"
        print(f"  {dose:8g} photons a pattern, n={n:.3g}: {'; '.join(said)}; bounds {bounds}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
