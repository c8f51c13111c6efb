"""`make bench`: the kernels against named peers in the same run, beside what this machine can copy and multiply.

python -m benchmarks.kernels [machine] [translation] [fcell] [postfilter] [--hkl FILE] [--size N] [--runs N]

Everything but the lines that say otherwise runs on one core, to which this process ties itself. A kernel whose numbers
are wrong is not timed: each is held against the float64 oracle first, every pixel and every count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Timing, in_turn, ratio, table

Array = npt.NDArray[Any]
_MATRIX = 1536  # rows and columns of the matrices that are multiplied


def main(argv: list[str]) -> int:
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "machine": bench_machine,
        "translation": bench_translation,
        "fcell": bench_fcell,
        "postfilter": bench_postfilter,
    }
    parser = argparse.ArgumentParser(prog="benchmarks.kernels")
    parser.add_argument("part", nargs="*", help=", ".join(parts))
    parser.add_argument("--hkl", help="structure factors for fcell; without it a made grid of the same extent")
    parser.add_argument("--size", type=int, default=4096, help="pixels along each side of the fcell detector")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peak:
        return _peak_of(args)
    unknown = [p for p in args.part if p not in parts]
    if unknown:
        print(f"there is no part {unknown[0]!r}; there are: {', '.join(parts)}", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, Python {sys.version.split()[0]}")
    for name in args.part or parts:
        parts[name](args)
    return 0


# The machine.


def copy_gb_s(size: int, runs: int) -> float:
    """Bytes read plus bytes written a second when `size` bytes are copied, one core."""
    source, target = np.ones(size, dtype=np.uint8), np.empty(size, dtype=np.uint8)
    times = max(1, (1 << 28) // size)

    def copy() -> None:
        for _ in range(times):
            np.copyto(target, source)

    return 2 * size * times / min(in_turn(runs, copy=copy)["copy"].seconds) / 1e9


def matmul_gflop_s(runs: int, threads: int) -> float:
    """torch.mm of float32."""
    import torch

    n = _MATRIX
    a, b = torch.randn(n, n), torch.randn(n, n)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return 2 * n**3 / min(in_turn(runs, mm=lambda: torch.mm(a, b))["mm"].seconds) / 1e9
    finally:
        torch.set_num_threads(before)


def numpy_gflop_s(runs: int, threads: int) -> float:
    """The same by NumPy, whose library may be the better one here; in a process of its own, for its threads' sake."""
    code = (
        "import sys, time, numpy as np\n"
        f"n = {_MATRIX}; a, b = (np.random.rand(n, n).astype('f4') for _ in 'ab'); best = 9e9; a @ b\n"
        f"for _ in range({runs}): t = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - t)\n"
        "print(2 * n**3 / best / 1e9)"
    )
    env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    return float(done.stdout)


def bench_machine(args: argparse.Namespace) -> None:
    with cores(1):
        rows = [
            (f"copy of {label}", "", "", f"{copy_gb_s(size, args.runs):.1f} GB/s read and written, one core")
            for label, size in (("128 KiB", 1 << 17), ("8 MiB", 1 << 23), ("256 MiB", 1 << 28))
        ]
        rows.append(_products(args.runs, 1, "one core"))
    with cores(2) as n:
        rows.append(_products(args.runs, n, f"{n} cores"))
    table("what this machine can do", rows)


def _products(runs: int, threads: int, where: str) -> tuple[str, str, str, str]:
    said = f"torch {matmul_gflop_s(runs, threads):.0f}, NumPy {numpy_gflop_s(runs, threads):.0f} GFLOP/s, {where}"
    return "float32 matrix product", "", "", said


# Translation.


def bench_translation(args: argparse.Namespace) -> None:
    """256 and 8,192 complex64 patches of 64×64, each with an offset of its own."""
    for patches in (256, 8192):
        for reach in (0.95, 9.0):
            rng = np.random.default_rng(7)
            images = (rng.standard_normal((patches, 64, 64)) + 1j * rng.standard_normal((patches, 64, 64))).astype("c8")
            offsets = rng.uniform(-reach, reach, (patches, 2)).astype("f4")
            with cores(1):
                _translation(images, offsets, reach, args.runs)


def _translation(images: Array, offsets: Array, reach: float, runs: int) -> None:
    from kernels.translation import build
    from kernels.translation.numba_ import translate_into
    from kernels.translation.oracle import translate as oracle

    fast, torch_ = build("numba", threads=1), build("torch")
    began = time.perf_counter()
    moved = fast(images[:1], offsets[:1])
    compiled = time.perf_counter() - began
    some = slice(0, 256)
    right, parts = oracle(images[some], offsets[some]), np.abs(images[some].real) + 1j * np.abs(images[some].imag)
    scale = np.abs(oracle(parts, offsets[some]))
    for name, translate in (("numba", fast), ("torch", torch_)):
        moved = translate(images[some], offsets[some])
        wrong = np.abs(moved - right) > 8 * 2.0**-24 * scale
        assert not wrong.any(), f"{name}: {np.count_nonzero(wrong)} pixels are wrong"
    out = np.empty_like(images)
    grid_sample = _grid_sample(images, offsets)
    scipy_shift = _scipy_shift(images[:64], offsets[:64])
    what: dict[str, Callable[[], object]] = {
        "numba, into an array that is there": lambda: translate_into(images, offsets, out),
        "numba": lambda: fast(images, offsets),
        "torch": lambda: torch_(images, offsets),
        "torch.grid_sample": grid_sample,
        "a copy of the same bytes": lambda: np.copyto(out, images),
    }
    timed = in_turn(runs, **what)
    shift = in_turn(max(2, runs // 3), shift=scipy_shift)["shift"]
    slow = Timing("", tuple(s * len(images) / 64 for s in shift.seconds))
    rows = []
    for name, t in {**timed, "scipy.ndimage.shift (64 patches, scaled)": slow}.items():
        rate = f"{images.size / t.median / 1e6:,.0f} Mpixel/s"
        if name.startswith("numba"):
            against = f"{rate}; {ratio(timed['torch.grid_sample'], t):.1f} times grid_sample, "
            against += (
                f"{slow.median / t.median:.0f} times scipy, {ratio(timed['a copy of the same bytes'], t):.2f} of a copy"
            )
        else:
            against = rate
        rows.append((name, f"{t.median * 1e3:.2f}", t.spread, against))
    size = images.nbytes / 2**20
    table(f"translation: {len(images):,} complex64 64×64 ({size:.0f} MiB), offsets to ±{reach:g} px, one core", rows)
    print(f"  compiled in {compiled:.1f} s (not counted); every pixel within 8 roundoffs of the oracle")


def _grid_sample(images: Array, offsets: Array) -> Callable[[], object]:
    """Real and imaginary part as channels; the grid is built anew for each call, as offsets are new for each call."""
    import torch

    height, width = images.shape[-2:]
    moves = torch.from_numpy(offsets)
    planes = torch.view_as_real(torch.from_numpy(images)).permute(0, 3, 1, 2).contiguous()
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")

    def run() -> object:
        x = (xs[None] - moves[:, 0, None, None]) * (2 / (width - 1)) - 1
        y = (ys[None] - moves[:, 1, None, None]) * (2 / (height - 1)) - 1
        return torch.nn.functional.grid_sample(planes, torch.stack((x, y), dim=-1), align_corners=True)

    return run


def _scipy_shift(images: Array, offsets: Array) -> Callable[[], object]:
    from scipy.ndimage import shift

    def run() -> object:
        for image, (tx, ty) in zip(images, offsets, strict=True):
            for part in (image.real, image.imag):
                shift(part, (ty, tx), order=1, mode="grid-constant")
        return None

    return run


# F_cell.

CASES = {
    "N=5, cubic": {"cell": (100.0, 100.0, 100.0, 90.0, 90.0, 90.0), "cells": (5, 5, 5)},
    "N=(5,7,9), triclinic": {"cell": (74.0, 84.0, 97.0, 82.0, 95.0, 108.0), "cells": (5, 7, 9)},
}


def bench_fcell(args: argparse.Namespace) -> None:
    """The benchmark geometry, oversample 2, nearest, with a grid."""
    for name, case in CASES.items():
        _fcell(name, case, args)


def _fcell(name: str, case: dict[str, Any], args: argparse.Namespace) -> None:
    from kernels.fcell import build
    from kernels.fcell.numba_ import warm

    plan = fcell_plan(case, args.hkl, args.size, 2)
    compiled = warm(plan)
    lookups = plan.rows * plan.columns * plan.steps
    # The peers are slow: a band of rows is enough to know their rate.
    rows = max(1, args.size // 16)
    band = replace(plan, roi=(args.size // 2 - rows, args.size // 2, 0, args.size))
    share = (plan.rows * plan.columns) / (band.rows * band.columns)
    one, oracle = build("numba", threads=1), build("numpy")
    with cores(1):
        found, right = one(plan), oracle(plan)
        worst, total = _held(right, found)
        mine = in_turn(args.runs, numba=lambda: one(plan))["numba"]
        few = max(2, args.runs // 3)
        peers = in_turn(few, numpy=lambda: oracle(band), torch=lambda: eager_torch(band), numba=lambda: one(band))
    with cores(2) as n:
        many = build("numba", threads=n)
        single = in_turn(args.runs, one=lambda: one(plan), many=lambda: many(plan))
    out = [("numba, one core", mine, lookups, "")]
    scaled = {p: Timing(p, tuple(s * share for s in t.seconds)) for p, t in peers.items()}
    for peer, label in (
        ("numpy", "chunked NumPy (the oracle; a sixteenth)"),
        ("torch", "eager torch float64 (a sixteenth)"),
    ):
        out.append((label, scaled[peer], lookups, f", numba is {ratio(peers[peer], peers['numba']):.0f} times as fast"))
    both = single["many"]
    best = min(single["one"].seconds) / min(both.seconds)
    out.append(
        (
            f"numba, {n} cores",
            both,
            lookups,
            f", {ratio(single['one'], both):.2f} times one core, {best:.2f} best against best",
        )
    )
    shown = [
        (label, f"{t.median * 1e3:.0f}", t.spread, f"{work / t.median / 1e6:,.0f} Mlookup/s{more}")
        for label, t, work, more in out
    ]
    table(f"fcell: {name}, {args.size}², oversample 2, {'a file' if args.hkl else 'a made grid'}", shown)
    image = plan.rows * plan.columns * 4 / 2**20
    peak = _peak(name, args)
    print(f"  compiled in {compiled:.1f} s (not counted); worst pixel {worst:.1e}, sum {total:.1e}, all counts equal")
    print(f"  peak memory {peak:.0f} MiB over an idle process, image {image:.0f} MiB: {peak / image:.2f} times")


def fcell_plan(case: dict[str, Any], hkl: str | None, size: int, oversample: int) -> Any:
    from kernels.fcell import Beam, Crystal, Detector, Experiment, build_plan, read_hkl

    grid = read_hkl(hkl, 100.0) if hkl else made_grid()
    crystal = Crystal(default_f=100.0, **case)
    return build_plan(Experiment(crystal, Beam(0.5), Detector(size, size, 204.8 / size, 500.0, oversample)), grid)


def made_grid() -> Any:
    """As large as the one of lysozyme: h to ±24, k to ±28, l from -31 to 30, about half of it listed."""
    from kernels.fcell import Grid

    rng = np.random.default_rng(11)
    shape = (49, 57, 62)
    listed = rng.random(shape) < 0.37
    listed[0, 0, 0] = listed[-1, -1, -1] = True
    values = np.where(listed, rng.lognormal(4.5, 1.0, shape), 100.0)
    return Grid(values, listed, -24, -28, -31, 100.0)


def _held(right: Any, found: Any) -> tuple[float, float]:
    """The worst relative error of a pixel, and that of the sum; what does not hold is not timed."""
    want = right.image64
    worst = float(np.max(np.abs(found.image - want) / np.where(want == 0, 1.0, np.abs(want))))
    total = abs(float(found.image.sum(dtype=np.float64) / want.sum()) - 1)
    assert worst <= 1e-6, f"the worst pixel is off by {worst:.2e}"
    assert total <= 1e-8, f"the sum is off by {total:.2e}"
    a, b = right.counts, found.counts
    assert (a.listed, a.unlisted, a.out_of_grid, a.zero_f, a.bounds) == (
        b.listed,
        b.unlisted,
        b.out_of_grid,
        b.zero_f,
        b.bounds,
    ), f"counts differ: {a} and {b}"
    return worst, total


def eager_torch(plan: Any) -> object:
    """What one writes in an afternoon: rows of float64 tensors, one operation after the other. Returns the image."""
    import torch

    os_, pixel = plan.oversample, plan.pixel_m
    a = torch.from_numpy(plan.orientations[0])
    source, wavelength = torch.from_numpy(plan.sources[0]), float(plan.wavelengths_m[0])
    origin, fast_axis, slow_axis = (torch.from_numpy(v) for v in (plan.origin, plan.fast_axis, plan.slow_axis))
    values = torch.from_numpy(plan.grid.values)
    low = torch.tensor([plan.grid.hmin, plan.grid.kmin, plan.grid.lmin])
    high = low + torch.tensor(plan.grid.values.shape) - 1
    cells = torch.tensor(plan.cells, dtype=torch.float64)
    image = torch.empty((plan.rows, plan.columns), dtype=torch.float64)
    f = torch.arange(plan.roi[2], plan.roi[3], dtype=torch.float64)
    for row in range(0, plan.rows, 8):
        s = torch.arange(plan.roi[0] + row, min(plan.roi[0] + row + 8, plan.roi[1]), dtype=torch.float64)
        total = torch.zeros((len(s), len(f)), dtype=torch.float64)
        scale = total
        for n in range(os_ * os_):
            across = (f * os_ + n % os_ + 0.5) * (pixel / os_)
            down = (s * os_ + n // os_ + 0.5) * (pixel / os_)
            place = origin + across[None, :, None] * fast_axis + down[:, None, None] * slow_axis
            distance = torch.linalg.vector_norm(place, dim=-1)
            direction = place / distance[..., None]
            index = ((direction - source) / wavelength) @ a.T
            nearest = torch.ceil(index - 0.5)
            whole = nearest.long()
            inside = ((whole >= low) & (whole <= high)).all(-1)
            at = torch.where(inside[..., None], whole - low, 0)
            factor = torch.where(inside, values[at[..., 0], at[..., 1], at[..., 2]], plan.default_f)
            x = torch.pi * (index - nearest)
            sine = torch.sin(x)
            lattice = torch.where(sine == 0, cells, torch.sin(cells * x) / torch.where(sine == 0, 1.0, sine)).prod(-1)
            total = total + (factor * lattice) ** 2
            if n == 0:
                polar = 0.5 * (1 + (direction @ source) ** 2)
                scale = plan.scale * polar * pixel**2 / distance**2 * plan.close_distance / distance
        image[row : row + len(s)] = total * scale
    return image


def _peak(name: str, args: argparse.Namespace) -> float:
    """MiB over an idle process that one image takes, in a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.kernels", "--peak", name, "--size", str(args.size)]
    done = subprocess.run(
        [*argv, *(["--hkl", args.hkl] if args.hkl else [])], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _peak_of(args: argparse.Namespace) -> int:
    from kernels.fcell import build
    from kernels.fcell.numba_ import warm

    plan = fcell_plan(CASES[args.peak], args.hkl, args.size, 2)
    run = build("numba", threads=1)
    warm(plan)
    idle = _resident_mb("VmRSS")
    image = run(plan)
    print(_resident_mb("VmHWM") - idle if image.image.size else 0)
    return 0


def _resident_mb(what: str) -> float:
    with open("/proc/self/status") as status:
        return next(float(line.split()[1]) / 1024 for line in status if line.startswith(what + ":"))


# The postfilter.


def bench_postfilter(args: argparse.Namespace) -> None:
    """One frame of 1164×874."""
    for h in (16, 24, 32, 64):
        with cores(1):
            _postfilter(h, args.runs, 1)
    with cores(2) as n:
        _postfilter(16, args.runs, n)


def _postfilter(h: int, runs: int, threads: int) -> None:
    import torch

    from kernels.postfilter import Weights, build, oracle

    rng = np.random.default_rng(h)
    start = Weights.initial(h, h)
    last = {name: rng.uniform(-0.3, 0.3, start.tensors()[name].shape).astype(np.float32) for name in ("w3", "b3")}
    weights = Weights.of({**start.tensors(), **last})
    frame = np.round(rng.uniform(0, 255, (1, 3, 874, 1164))).astype(np.float32)
    ours, backend = build("numba", weights, threads=threads), build("torch", weights, threads=threads)
    began = time.perf_counter()
    ours(frame[..., :64, :64])
    compiled = time.perf_counter() - began
    corner = np.ascontiguousarray(frame[..., :120, :160])
    for name, run in (("numba", ours), ("torch", backend)):
        wrong = np.abs(run(corner) - oracle.apply(corner, weights)) > oracle.error_bound(corner, weights)
        assert not wrong.any(), f"{name}: {np.count_nonzero(wrong)} values are wrong"
    layers = _sequential(weights)
    left, right = torch.randn(_MATRIX, _MATRIX), torch.randn(_MATRIX, _MATRIX)
    tensor = torch.from_numpy(frame)
    channels_last = tensor.to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        timed = in_turn(
            runs,
            numba=lambda: ours(frame),
            torch=lambda: backend(frame),
            sequential=lambda: layers(tensor),
            last=lambda: layers(channels_last),
            matrix=lambda: torch.mm(left, right),
        )
    finally:
        torch.set_num_threads(before)
    rate = max(2 * _MATRIX**3 / min(timed.pop("matrix").seconds) / 1e9, numpy_gflop_s(runs, threads))
    peers = {"sequential": "torch.nn.Sequential", "last": "the same, channels last"}
    gflop = weights.flops_per_pixel() * frame[0, 0].size / 1e9
    rows = []
    for name, t in timed.items():
        said = f"{gflop / t.median:,.0f} GFLOP/s, {gflop / t.median / rate:.2f} of the matrix rate"
        if name not in peers:
            said += f", {ratio(timed['sequential'], t):.1f} and {ratio(timed['last'], t):.1f} times Sequential"
        label = peers.get(name, name)
        rows.append((label, f"{t.median * 1e3:.0f}", t.spread, said))
    where = "one core" if threads == 1 else f"{threads} cores"
    table(f"postfilter: h{h}, one frame of 1164×874, {where} (the better matrix product: {rate:.0f} GFLOP/s)", rows)
    print(f"  compiled in {compiled:.1f} s (not counted)")


def _sequential(weights: Any) -> Callable[[Any], object]:
    """The plain module, with the residual and the clamp."""
    import torch
    from torch import nn

    convs = [nn.Conv2d(3, weights.h, 3, padding=1), nn.Conv2d(weights.h, weights.h, 3, padding=1)]
    convs.append(nn.Conv2d(weights.h, 3, 3, padding=1))
    with torch.no_grad():
        for n, conv in enumerate(convs, start=1):
            conv.weight.copy_(torch.from_numpy(weights.tensors()[f"w{n}"]))
            assert conv.bias is not None
            conv.bias.copy_(torch.from_numpy(weights.tensors()[f"b{n}"]))
    layers = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def run(x: Any) -> object:
        with torch.inference_mode():
            return (x + layers(x)).clamp(0, 255)

    return run


# What all of them use.


@contextmanager
def cores(wanted: int) -> Iterator[int]:
    """Tie this process to so many cores, or as many as there are."""
    if not hasattr(os, "sched_setaffinity"):
        yield min(wanted, os.cpu_count() or 1)
        return
    before = os.sched_getaffinity(0)
    mine = set(sorted(before)[-wanted:])
    os.sched_setaffinity(0, mine)
    try:
        yield len(mine)
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
