"""Torch against the oracle: every pixel, every count, on the CPU and where there is one on a CUDA device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kernels.fcell import Detector, Experiment, Grid, Shape, build, build_plan, oracle, torch_, torch_sample  # noqa: E402
from tests.kernels.fcell_cases import everything, experiment, small_grid, whole, worst  # noqa: E402
from tests.kernels.test_fcell import tied  # noqa: E402

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
DEVICES = [pytest.param("torch"), pytest.param("torch-cuda", marks=CUDA)]

CASES: dict[str, tuple[Experiment, Grid | None]] = {
    "plain": (experiment(), small_grid()),
    "no grid": (experiment(), None),
    "one sample": (experiment(oversample=1), small_grid()),
    "all zero": (experiment(default_f=0.0), None),
    **{f"everything {shape.value}": (everything(shape), small_grid()) for shape in Shape},
    "everything, no grid": (everything(), None),
    "everything, tricubic": (everything(interpolate=True), small_grid()),
    "tricubic": (experiment(interpolate=True), small_grid()),
    "tricubic, thin": (experiment(interpolate=True), Grid(np.ones((2, 9, 9)), np.ones((2, 9, 9), bool), -1, -4, -4)),
}


def agree(backend: str, told: Experiment, grid: Grid | None, **options: Any) -> None:
    plan = build_plan(told, grid, options.get("roi"))
    found, right = build(backend, options.get("threads"))(plan), oracle.simulate(plan)
    assert found.image.dtype == np.float32
    assert worst(found, right) <= 1e-6
    assert whole(found.counts) == whole(right.counts)
    assert found.counts.sum_f == pytest.approx(right.counts.sum_f, rel=1e-13)
    assert right.image64 is not None
    total = float(right.image.sum(dtype=np.float64))
    assert float(found.image.sum(dtype=np.float64)) == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_torch_is_the_oracle(backend: str, case: str) -> None:
    agree(backend, *CASES[case])


@pytest.mark.parametrize("backend", DEVICES)
def test_roi_chunks_and_threads_change_nothing(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told, grid = everything(), small_grid()
    agree(backend, told, grid, roi=(5, 17, 9, 10), threads=2)
    monkeypatch.setattr(torch_, "CPU_CHUNK", 30)
    monkeypatch.setattr(torch_, "CUDA_CHUNK", 30)
    agree(backend, told, grid, roi=(3, 9, 2, 43), threads=1)


@pytest.mark.parametrize("h", [0.5, 1.5, -0.5, -1.5])
def test_ties_go_down(h: float) -> None:
    plan = tied(h)
    assert whole(build("torch", 1)(plan).counts) == whole(oracle.simulate(plan).counts)


def test_another_kernel_would_be_told_apart() -> None:
    told, grid = experiment(), small_grid()
    moved = replace(told, detector=replace(told.detector, distance_mm=100.001))
    found = build("torch", 1)(build_plan(moved, grid))
    assert worst(found, oracle.simulate(build_plan(told, grid))) > 1e-5


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("pixel", [(0, 0), (13, 25), (17, 22)])
def test_probe_is_the_oracle_s(backend: str, pixel: tuple[int, int]) -> None:
    plan = build_plan(everything(), small_grid())
    device = "cuda" if backend == "torch-cuda" else "cpu"
    found, right = torch_.probe(plan, *pixel, device=device), oracle.probe(plan, *pixel)
    assert np.allclose(found.omegas, right.omegas, rtol=1e-14)
    assert whole(found.counts) == whole(right.counts)
    for name in ("intensity", "polar", "omega", "normalised", "physical", "final"):
        assert getattr(found, name) == pytest.approx(getattr(right, name), rel=1e-9), name
    assert found.steps == right.steps == 48


def test_threads_of_the_process_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    build("torch", before + 1)(build_plan(experiment(oversample=1)))
    assert torch.get_num_threads() == before


def test_evidence_says_where_it_ran() -> None:
    kernel = build("torch", 1)
    kernel(build_plan(replace(experiment(), detector=Detector(4, 4, 3.0, 100.0))))
    assert kernel.evidence()["device"] == "cpu"
    assert not kernel.evidence()["fused"]
    assert kernel.evidence()["why_eager"]


def test_small_images_thin_chunks_and_tricubic_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compiled(static: torch_sample.Static) -> Any:
        asked.append(static)
        return torch_sample.sample

    monkeypatch.setattr(torch_, "fused", compiled)
    kernel = torch_.make(1)
    kernel._why_eager = ""  # as on CUDA
    kernel(build_plan(experiment()))
    monkeypatch.setattr(torch_, "FUSE_FROM", 0)
    kernel(build_plan(experiment(), None, (0, 1, 0, 9)))
    kernel(build_plan(experiment(interpolate=True), small_grid()))
    assert not asked
    assert kernel.evidence()["why_eager"] == "too small an image, or tricubic"
    kernel(build_plan(experiment(interpolate=True)))
    assert set(asked) == {(Shape.SQUARE, False, False)}
    assert kernel.evidence()["fused"]


def test_a_compiler_that_fails_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(static: object) -> object:
        raise RuntimeError("no compiler here\nand a long trace")

    monkeypatch.setattr(torch_, "fused", broken)
    monkeypatch.setattr(torch_, "FUSE_FROM", 0)
    kernel, plan = torch_.make(1), build_plan(experiment(), small_grid())
    kernel._why_eager = ""  # as on CUDA
    assert worst(kernel(plan), oracle.simulate(plan)) <= 1e-6
    assert kernel.evidence()["why_eager"] == "torch.compile failed: no compiler here"
    assert not kernel.evidence()["fused"]


def test_the_compiled_path_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is captured whole, for chunks of any size, and run by torch's own reference backend: what a CPU
    # can show of the CUDA path without a compiler.
    compiled = torch.compile

    def graph(function: Any, **options: Any) -> Any:
        assert options == {"fullgraph": True, "dynamic": True}
        return compiled(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", graph)
    monkeypatch.setattr(torch_, "FUSE_FROM", 0)
    torch_sample.fused.cache_clear()
    try:
        kernel = torch_.make(1)
        kernel._why_eager = ""
        for roi in ((0, 36, 0, 44), (3, 9, 2, 43)):
            plan = build_plan(everything(), small_grid(), roi)
            found, right = kernel(plan), oracle.simulate(plan)
            assert kernel.evidence()["fused"], kernel.evidence()
            assert worst(found, right) <= 1e-6
            assert whole(found.counts) == whole(right.counts)
    finally:
        torch_sample.fused.cache_clear()
