"""LSQML seconds an epoch and time to a given FRC: the lean engine against `ptychi`, in turn, in one run.

python -m benchmarks.lsqml --python ENV/bin/python [--size 64 --size 128] [--threads 1 --threads 2] [--epochs 30]

Both start from the same flat object and the same probe, with minibatches of the same size, on the same frames. ptychi
runs in its own process under the interpreter that has it; what it needs to start is not counted. Quality is the FRC-0.5
cutoff against the true object, aligned alike; the time to it is that until the first epoch in which an engine reaches
the goal, a share of the lesser of the two final cutoffs. Smaller batches are faster on a CPU for both; `--batch`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.dose.engines import Engine, Found, Request, reconstruct
from jobs.dose.objects import Photographs, object_of
from kernels.devices import usable_cores
from kernels.diffraction.forward import amplitude, patches
from kernels.diffraction.frc import cutoff, ring_correlation
from kernels.diffraction.lsqml import Settings
from kernels.diffraction.probe import simulated_probe
from kernels.diffraction.registration import align

Array = npt.NDArray[Any]

SIDE = 12  # positions along each axis
GOAL = 0.95  # of the lesser final cutoff


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.lsqml")
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has ptychi")
    parser.add_argument("--size", type=int, action="append", help="N; may be given more than once [64, 128]")
    parser.add_argument("--threads", type=int, action="append", help="may be given more than once [1, 2]")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--photons", type=float, default=1e5, help="a pattern")
    args = parser.parse_args(argv)
    if args.epochs < 2:
        parser.error("--epochs: the first epoch warms up, so there are at least 2")
    torch.set_num_threads(1)
    print(f"{usable_cores()} cores, load {os.getloadavg()[0]:.2f} at the start, torch {torch.__version__}")
    least = float("inf")
    for size in args.size or (64, 128):
        scene = made(size, args.photons)
        for threads in args.threads or (1, 2):
            found = [turn(scene, threads, args) for _ in range(args.turns)]
            least = min(least, report(size, threads, args, scene, found))
    print(f"\nthe least ratio of seconds an epoch is {least:.1f}; load {os.getloadavg()[0]:.2f} at the end")
    return 0 if least >= 3 else 1


@dataclass(frozen=True)
class Scene:
    """amplitude (n, N, N), positions, probe, and what was looked at."""

    amplitude: Array
    x: Array
    y: Array
    probe: Array
    truth: Array


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
    return Scene(np.sqrt(counts).astype(np.float32), x, y, probe, truth)


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


def resolved(scene: Scene, object_: Array, origin: tuple[int, int]) -> float:
    """FRC-0.5 against the truth, cycles per pixel, of what lies between the outermost positions."""
    (top, bottom), (left, right) = ((int(np.ceil(v.min())), int(np.floor(v.max())) + 1) for v in (scene.y, scene.x))
    ours = object_[top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]]
    wanted = scene.truth[top:bottom, left:right]
    return cutoff(ring_correlation(align(ours, wanted).object, wanted)).frequency


def report(size: int, threads: int, args: argparse.Namespace, scene: Scene, turns: list[dict[Engine, Found]]) -> float:
    """Print what was found. Returns the ratio of seconds an epoch."""
    curves = {
        engine: [resolved(scene, found.kept[e], found.origin) for e in range(1, args.epochs + 1)]
        for engine, found in turns[0].items()
    }
    goal = GOAL * min(curve[-1] for curve in curves.values())
    seconds = {e: [statistics.median(t[e].seconds[1:]) for t in turns] for e in curves}
    cpu = {e: [statistics.median(t[e].cpu[1:]) for t in turns] for e in curves}
    until = {e: next(i for i, value in enumerate(curve, 1) if value >= goal) for e, curve in curves.items()}
    n = len(scene.x)
    print(f"\nN={size}, {n} positions, {threads} threads, batches of {args.batch}, {args.photons:g} photons a pattern")
    for engine, curve in curves.items():
        wall, used = statistics.median(seconds[engine]), statistics.median(cpu[engine])
        print(
            f"  {engine:7} {wall * 1e3:8.1f} ms an epoch ({wall / n * 1e6:.0f} us a position; processor "
            f"{used / n * 1e6:.0f} us); FRC {goal:.3f}/px after {until[engine]} epochs, {until[engine] * wall:.2f} s; "
            f"at the end FRC {curve[-1]:.3f}/px, error {turns[0][engine].error:.4f}"
        )
    pairs = list(zip(seconds[Engine.PTYCHI], seconds[Engine.LEAN], strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    shares = statistics.median(a / b for a, b in zip(cpu[Engine.PTYCHI], cpu[Engine.LEAN], strict=True))
    to_goal = ratio * until[Engine.PTYCHI] / until[Engine.LEAN]
    print(f"  lean is {ratio:.1f} times as fast an epoch (processor {shares:.1f}), {to_goal:.1f} times to that FRC")
    return ratio


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
