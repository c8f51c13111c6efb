"""The lean LSQML engine against equations in double precision, and what must not change its bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import kernels.diffraction.lsqml as engine
from kernels.devices import DeviceMissing
from kernels.diffraction import lsqml_oracle
from kernels.diffraction.lsqml import Frame, Lsqml, LsqmlRefused, Settings, batch_order

Array = npt.NDArray[Any]
N = 16
CLOSE = 2e-4  # float32, relative to what a minibatch moves


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(fractions: bool = True, count: int = 25) -> dict[str, Array]:
    """A probe, an object with structure, positions, amplitudes without noise."""
    rng = np.random.default_rng(5)
    r = np.hypot(*(np.mgrid[:N, :N] - N // 2))
    probe = (np.exp(-((r / 4.5) ** 2)) * np.exp(0.08j * r**2)).astype(np.complex64)
    side = int(np.sqrt(count))
    y, x = (v.ravel().astype(float) + 10 for v in np.meshgrid(np.arange(side) * 3, np.arange(side) * 4, indexing="ij"))
    if fractions:
        y, x = y + rng.uniform(-1, 1, y.size), x + rng.uniform(-1, 1, x.size)
    frame = Frame.of(x, y, N)
    smooth = rng.normal(size=(2, *frame.shape))
    for _ in range(3):
        smooth = (smooth + np.roll(smooth, 1, 1) + np.roll(smooth, 1, 2) + np.roll(smooth, -1, 1)) / 2.2
    truth = (1 + 0.1 * np.tanh(smooth[0])) * np.exp(0.5j * np.tanh(smooth[1]))
    amplitude = []
    for row, column, part in zip(frame.rows, frame.columns, frame.fraction, strict=True):
        wave = lsqml_oracle.moved(probe, *part) * truth[row : row + N, column : column + N]
        amplitude.append(np.abs(np.fft.fftshift(np.fft.fft2(wave))) / N)
    return {"amplitude": np.array(amplitude, np.float32), "x": x, "y": y, "probe": probe, "truth": truth}


def made(of: dict[str, Array], settings: Settings | None = None, **how: Any) -> Lsqml:
    return Lsqml(of["amplitude"], of["x"], of["y"], of["probe"], settings or Settings(batch=6), **how)


def relative(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def one_batch(of: dict[str, Array], batch: Array, **how: Any) -> tuple[float, float, float]:
    """(object, probe) of a minibatch, each as the distance of what was moved, relative to the oracle's own move.

    The third is how far the oracle moved the object, relative to it: a check on nothing would pass.
    """
    run = made(of, **how)
    start, probe = run.object, run.probe
    corners = np.stack([run.frame.rows, run.frame.columns], axis=1)
    wanted = lsqml_oracle.update(start, probe, of["amplitude"], corners, run.frame.fraction, batch)
    run.update(batch)
    moves = (run.object - start, wanted[0] - start), (run.probe - probe, wanted[1] - probe)
    return relative(*moves[0]), relative(*moves[1]), relative(wanted[0], start)


@pytest.mark.parametrize("loops", ["numba", "torch"])
@pytest.mark.parametrize("fractions", [True, False])
def test_a_minibatch_is_the_equations(loops: str, fractions: bool) -> None:
    object_, probe, moved = one_batch(scene(fractions), np.array([3, 17, 8, 0, 11]), loops=loops)
    assert object_ < CLOSE
    assert probe < CLOSE
    assert moved > 1e-2


@pytest.mark.parametrize("what", ["object_damping", "step_damping", "relaxation"])
@pytest.mark.parametrize("loops", ["numba", "torch"])
def test_a_missing_regulariser_is_seen(loops: str, what: str) -> None:
    settings = replace(Settings(batch=6), **{what: 0.0 if what != "relaxation" else 1.0})  # type: ignore[arg-type]
    object_, _, _ = one_batch(scene(), np.array([3, 17, 8, 0, 11]), loops=loops, settings=settings)
    assert object_ > 20 * CLOSE


@pytest.mark.parametrize("loops", ["numba", "torch"])
def test_a_wrong_sign_of_the_shift_is_seen(loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = engine._phases
    monkeypatch.setattr(engine, "_phases", lambda frame, n: right(replace(frame, fraction=-frame.fraction), n))
    object_, probe, _ = one_batch(scene(), np.array([3, 17, 8, 0, 11]), loops=loops)
    assert object_ > 20 * CLOSE
    assert probe > 20 * CLOSE


def test_a_wrong_sign_of_the_probes_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = engine.two_steps
    monkeypatch.setattr(engine, "two_steps", lambda sums, s: (right(sums, s)[0], -right(sums, s)[1]))
    object_, probe, _ = one_batch(scene(), np.array([3, 17, 8, 0, 11]))
    assert object_ < CLOSE
    assert probe > 1


def test_it_reconstructs_without_noise() -> None:
    of = scene()
    run = made(of)
    errors = [run.epoch() for _ in range(60)]
    seen = run.covered() & (run.frame.illumination(of["probe"]) > 0.3 * run.frame.illumination(of["probe"]).max())
    found, truth = run.object[seen], of["truth"][seen]
    apart = relative(np.vdot(found, truth) / np.vdot(found, found) * found, truth)
    assert errors[-1] < 0.1 * errors[0]
    # Against what it would be if nothing had been done.
    assert apart < 0.5 * relative(np.full(truth.shape, truth.mean()), truth)


def test_threads_change_no_bit() -> None:
    of = scene()
    found = []
    for threads in (1, 3):
        run = made(of, Settings(batch=12), threads=threads)
        errors = [run.epoch() for _ in range(2)]
        found.append((run.object, run.probe, errors))
        run.close()
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_it_goes_on_from_its_state() -> None:
    of = scene()
    whole = made(of)
    for _ in range(3):
        whole.epoch()
    first = made(of)
    first.epoch()
    second = made(of)
    second.restore(first.object, first.probe, first.epochs_done)
    other = made(of)
    other.restore(first.object, first.probe, 0)  # another order of the positions
    for run in (second, other):
        run.epoch()
        run.epoch()
    assert np.array_equal(second.object, whole.object)
    assert not np.array_equal(other.object, whole.object)


def test_the_seed_orders_the_positions() -> None:
    assert batch_order(9, 0, 0).tolist() == batch_order(9, 0, 0).tolist()
    assert batch_order(9, 0, 0).tolist() != batch_order(9, 1, 0).tolist()
    assert batch_order(9, 0, 0).tolist() != batch_order(9, 0, 1).tolist()
    # On every machine.
    assert batch_order(9, 0, 0).tolist() == ORDER


ORDER = [2, 0, 5, 1, 8, 3, 6, 7, 4]


def test_residuals_are_those_of_the_oracle() -> None:
    of = scene(count=9)
    run = made(of)
    run.epoch()
    wanted = []
    for i in range(9):
        row, column = run.frame.rows[i], run.frame.columns[i]
        wave = lsqml_oracle.moved(run.probe, *run.frame.fraction[i]) * run.object[row : row + N, column : column + N]
        wanted.append(np.sum((np.abs(np.fft.fftshift(np.fft.fft2(wave))) / N - of["amplitude"][i]) ** 2))
    np.testing.assert_allclose(run.residuals(), wanted, rtol=1e-3)


def test_a_probe_that_stays() -> None:
    of = scene()
    run = made(of, Settings(batch=6, refine_probe=False))
    before = run.probe
    run.epoch()
    assert np.array_equal(run.probe, before)
    assert not np.array_equal(run.object, np.ones_like(run.object))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.zeros(3)}, "x is a finite number"),
        ({"probe": np.zeros((N, N), np.complex64)}, "the probe is"),
        ({"amplitude": -np.ones((25, N, N), np.float32)}, "not negative"),
        ({"amplitude": np.ones((25, N, N + 1), np.float32)}, "even N"),
    ],
)
def test_what_is_no_data_set_is_refused(change: dict[str, Array], says: str) -> None:
    with pytest.raises(LsqmlRefused, match=says):
        made(scene() | change)


def test_cuda_is_refused_or_agrees() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceMissing):
            made(scene(), device="cuda")
        pytest.skip("torch finds no CUDA device here: the refusal was tested, the device's arithmetic was not")
    object_, probe, _ = one_batch(scene(), np.array([3, 17, 8, 0, 11]), device="cuda")
    assert object_ < CLOSE
    assert probe < CLOSE


def dim(photons: float = 30.0) -> dict[str, Array]:
    """The same with noise: far less than a photon a pixel."""
    of = scene()
    rates = of["amplitude"].astype(np.float64) ** 2
    scale = photons / rates.sum(axis=(1, 2)).mean()
    counts = np.random.default_rng(9).poisson(rates * scale)
    return of | {"amplitude": np.sqrt(counts / scale).astype(np.float32)}


@pytest.mark.parametrize("loops", ["numba", "torch"])
def test_no_factor_wanders_from_the_probe_to_the_object(loops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def power(run: Lsqml) -> float:
        return float(np.sum(np.abs(run.probe.astype(complex)) ** 2))

    of = dim()
    run = made(of, loops=loops)
    first = power(run)
    errors = [run.epoch() for _ in range(15)]
    assert power(run) == pytest.approx(first, rel=1e-5)
    # Without: the waves are the same, and the probe fades away.
    monkeypatch.setattr(Lsqml, "_balance", lambda self: None)
    other = made(of, loops=loops)
    assert other.epoch() == pytest.approx(errors[0], rel=1e-6)
    assert other.epoch() == pytest.approx(errors[1], rel=1e-4)
    for _ in range(13):
        other.epoch()
    assert abs(power(other) / first - 1) > 0.05


def test_a_factor_between_probe_and_object_changes_no_step() -> None:
    """What `_balance` rests on."""
    of = scene()
    moves = []
    for factor in (1.0, 8.0):
        run = made(of)
        run.restore(run.object * np.float32(factor), run.probe / np.float32(factor), 0)
        run.update(np.array([3, 17, 8, 0, 11]))
        moves.append((run.object / factor, run.probe * factor))
    assert relative(moves[1][0], moves[0][0]) < 1e-5
    assert relative(moves[1][1], moves[0][1]) < 1e-5
    assert relative(moves[0][0], np.ones_like(moves[0][0])) > 1e-3
