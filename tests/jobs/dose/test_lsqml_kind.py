"""The kind `dose-lsqml`: going on after a kill, starts that know the truth, swapped axes, views, engines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from core.errors import BadInput, JobFailed
from core.rundir import Checkpoint
from jobs.dose.axes import Axes, find_axes
from jobs.dose.dataset import Dataset
from jobs.dose.engines import Engine, Request, reconstruct
from jobs.dose.npz import write_npz
from jobs.dose.ptychi_engine import check_interpreter
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.starts import check_start, correlation
from jobs.dose_kinds.lsqml import DoseLsqml, DoseLsqmlParams
from kernels.diffraction.lsqml import Settings
from kernels.diffraction.lsqml_oracle import moved
from tests.jobs.context import Left, Recorder

Array = npt.NDArray[Any]
N, M = 16, 44


class Kept(Recorder):
    """With checkpoints, and a wish to stop after some epoch."""

    stop_after = 10**9

    def metrics(self, step: int, **values: Any) -> None:
        self.stopping = step >= self.stop_after

    @contextlib.contextmanager
    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Iterator[Path]:
        folder = self.work.parent / f"checkpoint-{step}"
        folder.mkdir()
        yield folder

    def checkpoints(self) -> Iterator[Checkpoint]:
        for folder in sorted(self.kept.glob("checkpoint-*"), key=lambda f: -int(f.name.split("-")[1])):
            yield Checkpoint(int(folder.name.split("-")[1]), folder, {}, 1)

    kept = Path("/nowhere")


def measured(photons: float = 3e4, *, swapped: bool = False, count: int = 36) -> tuple[Dataset, Array]:
    """A small set as a microscope would give it, and the object that was looked at."""
    rng = np.random.default_rng(11)
    r = np.hypot(*(np.mgrid[:N, :N] - N // 2))
    probe = np.exp(-((r / 4.5) ** 2)) * np.exp(0.08j * r**2)
    rows, columns = np.mgrid[:M, :M]
    # Bars in one direction, discs in the other: no mirror brings it back.
    phase = 0.8 * (np.sin(rows / 2.1 + 0.2 * columns) > 0) - 0.5 * (np.hypot(rows - 14, columns - 27) < 7)
    truth = ((1 - 0.2 * (columns % 9 < 3)) * np.exp(1j * phase)).astype(np.complex64)
    side = int(np.sqrt(count))
    y, x = (v.ravel().astype(float) for v in np.meshgrid(10 + 3 * np.arange(side), 12 + 3 * np.arange(side)))
    y, x = y + rng.integers(-64, 65, y.size) / 64, x + rng.integers(-64, 65, x.size) / 64
    frames = []
    for px, py in zip(x, y, strict=True):
        row, column = int(np.floor(py + 0.5)), int(np.floor(px + 0.5))
        wave = moved(probe, py - row, px - column) * truth[row - 8 : row + 8, column - 8 : column + 8]
        frames.append(np.abs(np.fft.fftshift(np.fft.fft2(wave))) ** 2)
    exact = np.array(frames)
    counts = rng.poisson(exact * photons / exact.sum(axis=(1, 2)).mean())
    scale = np.sqrt(counts.sum(axis=(1, 2)).mean()) / (N / 2)
    amplitude = (np.sqrt(counts) / scale).astype(np.float32)
    if swapped:
        x, y = y, x
    data = Dataset(amplitude, np.ones((M, M), np.complex64), probe.astype(np.complex64), x, y, meta={"scale": scale})
    return data, truth


def folder_of(root: Path, data: Dataset, truth: Array | None = None) -> Path:
    root.mkdir()
    data.save(root / "train.npz")
    if truth is not None:
        Reconstruction(truth, (0, 0), np.ones(truth.shape, bool)).save(root / "truth.npz")
    return root


def job(root: Path, data: Path, *, views: Path | None = None, **params: Any) -> Kept:
    inputs = {"data": data} | ({"views": views} if views is not None else {})
    said = DoseLsqmlParams(**{"split": "train", "epochs": 6, "checkpoint_epochs": 2, **params})
    return Kept(DoseLsqml(), said, root, cores=1, inputs=inputs)


def test_a_killed_one_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", measured()[0])
    whole = job(tmp_path / "whole", data)
    whole.run()
    first = job(tmp_path / "first", data)
    first.stop_after = 3
    with pytest.raises(Left):
        first.run()
    assert not (first.artifacts / "reconstruction.npz").exists()
    second = job(tmp_path / "second", data)
    second.kept = tmp_path / "first"
    second.run()
    assert any("epoch 3" in line for line in second.logs)
    wanted = (whole.artifacts / "reconstruction.npz").read_bytes()
    assert (second.artifacts / "reconstruction.npz").read_bytes() == wanted
    assert second.tables["dose_lsqml"] == whole.tables["dose_lsqml"]
    assert second.tables["dose_lsqml_time"][0]["epochs"] == 3

    # A state that was touched is another reconstruction; one that is damaged is passed over.
    state = tmp_path / "first" / "checkpoint-3" / "state.npz"
    with np.load(state) as file:
        arrays = {name: file[name] for name in file.files}
    write_npz(state, arrays | {"object": arrays["object"] * np.complex64(1.01)})
    other = job(tmp_path / "other", data)
    other.kept = tmp_path / "first"
    other.run()
    assert (other.artifacts / "reconstruction.npz").read_bytes() != wanted
    state.write_bytes(state.read_bytes()[:200])
    again = job(tmp_path / "again", data)
    again.kept = tmp_path / "first"
    again.run()
    assert any("passed over" in line for line in again.logs)
    assert (again.artifacts / "reconstruction.npz").read_bytes() == wanted


def test_frames_are_those_of_the_views_groups(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", measured()[0])
    views = tmp_path / "views"
    views.mkdir()
    members = np.array([[0, 1, 6, 7], [1, 2, 7, 8], [7, 8, 13, 14]], np.int32)
    write_npz(views / "train_groups.npz", {"members": members, "centres": np.zeros((3, 2))})
    run = job(tmp_path / "some", data, views=views, epochs=2)
    run.run()
    assert run.tables["dose_lsqml"][0]["frames"] == len(np.unique(members))
    found = Reconstruction.load(run.artifacts / "reconstruction.npz")
    assert found.covered.any()
    assert not found.covered.all()


def test_a_start_that_knows_the_truth_is_refused(tmp_path: Path) -> None:
    data, truth = measured()
    knowing = replace(data, object_guess=truth)
    folder = folder_of(tmp_path / "data", knowing, truth)
    with pytest.raises(BadInput, match="correlates with the true object"):
        job(tmp_path / "guess", folder, start="guess").run()
    flat = job(tmp_path / "flat", folder, epochs=1)
    flat.run()
    assert flat.tables["dose_lsqml"][0]["start_correlation"] == 0.0
    # Nobody knows the truth: the same start is taken, and the table does not say that it was checked.
    unknown = job(tmp_path / "unknown", folder_of(tmp_path / "unknown-data", knowing), start="guess", epochs=1)
    unknown.run()
    assert unknown.tables["dose_lsqml"][0]["start_correlation"] is None


def test_what_correlates_and_what_does_not() -> None:
    _, truth = measured()
    known = Reconstruction(truth, (5, 3), np.ones(truth.shape, bool))
    noise = np.random.default_rng(0).normal(size=(2, M, M))
    for start in (truth, 3j * truth, truth + 0.5 * noise[0], np.abs(truth) + 0j, np.exp(1j * np.angle(truth))):
        with pytest.raises(BadInput, match="correlates"):
            check_start(start, (5, 3), known)
    for start in (np.ones((M, M)), np.full((M, M), 2 - 1j), 1 + 0.1 * noise[0] + 0.1j * noise[1]):
        assert check_start(start, (5, 3), known) < 0.1
    # Where they lie counts, not where their arrays begin.
    with pytest.raises(BadInput, match="correlates"):
        check_start(truth[4:, 2:], (9, 5), known)
    assert correlation(truth, truth) == pytest.approx(1.0)


def test_a_faint_start_is_no_flat_one() -> None:
    """An object of amplitudes alone: its phase gives nothing away, and neither may a small factor hide it."""
    truth = (1 + 0.3 * np.random.default_rng(3).random((M, M))).astype(np.complex64)
    known = Reconstruction(truth, (0, 0), np.ones(truth.shape, bool))
    for factor in (1.0, 1e-7, 1e-20, 1e7):
        with pytest.raises(BadInput, match="correlates"):
            check_start(factor * truth, (0, 0), known)
        assert check_start(np.full((M, M), factor * (1 / 3 + 0.7j), np.complex64), (0, 0), known) == 0.0
    with pytest.raises(BadInput, match="not finite"):
        check_start(np.full((M, M), np.nan), (0, 0), known)


def test_swapped_axes_are_noticed(tmp_path: Path) -> None:
    right, swapped = measured()[0], measured(swapped=True)[0]
    for data, answer in ((right, Axes.RIGHT), (swapped, Axes.SWAPPED)):
        found = find_axes(data.diffraction, data.x, data.y, data.probe_guess)
        assert found.answer is answer, found.sentence()
    folder = folder_of(tmp_path / "data", swapped)
    with pytest.raises(JobFailed, match="x and y of the scan are swapped"):
        job(tmp_path / "check", folder, epochs=1).run()
    allowed = job(tmp_path / "allow", folder, epochs=1, axes="allow")
    allowed.run()
    assert allowed.tables["dose_lsqml"][0]["axes"] == "swapped"


def test_too_few_photons_are_no_alarm() -> None:
    for swapped in (False, True):
        data = measured(10.0, swapped=swapped)[0]
        found = find_axes(data.diffraction, data.x, data.y, data.probe_guess)
        assert found.answer is Axes.UNDECIDED, found.sentence()
    data = measured()[0]
    few = find_axes(data.diffraction[:4], data.x[:4], data.y[:4], data.probe_guess)
    assert few.answer is Axes.UNDECIDED


def test_ptychi_is_asked_for_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no interpreter"):
        check_interpreter(tmp_path / "python")
    without = tmp_path / "without"
    without.write_text("#!/bin/sh\nexit 1\n")
    without.chmod(0o755)
    with pytest.raises(BadInput, match="has no ptychi"):
        check_interpreter(without)
    with pytest.raises(ValueError, match="python means nothing with engine=lean"):
        DoseLsqmlParams(python="/usr/bin/python3")


def ptychi_python() -> Path:
    """The interpreter that LAB_PTYCHI_PYTHON names."""
    import os

    named = os.environ.get("LAB_PTYCHI_PYTHON")
    if not named:
        pytest.skip("LAB_PTYCHI_PYTHON names no interpreter with ptychi: the two engines were not compared")
    return Path(named)


@pytest.mark.long
def test_the_two_engines_agree() -> None:
    python = ptychi_python()
    data, truth = measured(1e6)
    request = Request(data.diffraction, data.x, data.y, data.probe_guess, epochs=60, settings=Settings(batch=6, seed=1))
    ours = reconstruct(request, Engine.LEAN)
    theirs = reconstruct(request, Engine.PTYCHI, python=python)
    both = ours.covered & theirs.covered
    row, column = ours.origin
    seen = truth[row : row + both.shape[0], column : column + both.shape[1]][both]

    def apart(first: Array, second: Array) -> float:
        factor = np.vdot(first, second) / np.vdot(first, first)
        return float(np.linalg.norm(factor * first - second) / np.linalg.norm(second))

    assert ours.origin == theirs.origin
    assert apart(ours.object[both], theirs.object[both]) < 0.1
    assert ours.error == pytest.approx(theirs.error, rel=0.2)
    # One pixel beside it would not agree.
    assert apart(np.roll(ours.object, 1, axis=1)[both], theirs.object[both]) > 0.2
    assert apart(ours.object[both], seen) < 1.2 * apart(theirs.object[both], seen)
    assert len(theirs.seconds) == request.epochs
