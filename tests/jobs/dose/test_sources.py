"""A user's own file and measured sets; objects of photographs."""

from __future__ import annotations

import bz2
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput
from jobs.dose.objects import LEVELS, Photographs, levels, object_of
from jobs.dose.simulate import thinned
from jobs.dose.sources import read_measured, read_user
from kernels.diffraction import dose, seeds
from kernels.diffraction.forward import intensity, patches
from kernels.diffraction.probe import simulated_probe

N = 16


def measured_set(path: Path, **other: Any) -> dict[str, Any]:
    """A small set as a beamline writes it: counts with DC at [0, 0], (y, x) around 0, axes of length 1 in front."""
    rng = seeds.generator("measured")
    canvas = np.exp(1j * rng.uniform(-1, 1, (12, 12))).repeat(5, 0).repeat(5, 1)
    scan = rng.uniform(-18, 18, (20, 2)) * (1, 0.7)
    probe = simulated_probe(N, curvature=3.0)
    rates = intensity(probe, patches(canvas, 30 + scan[:, 1], 30 + scan[:, 0], N))
    counts = rng.poisson(rates * 400 / rates.sum(axis=(1, 2)).mean())
    arrays = {
        "data": counts.astype(np.float32)[None],
        "probe": probe[None, None, None, None],
        "scan": scan.astype(np.float32)[None],
    } | other
    arrays = {name: value for name, value in arrays.items() if value is not None}
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    path.write_bytes(bz2.compress(data.getvalue()) if path.suffix == ".bz2" else data.getvalue())
    return {"counts": counts, "scan": scan, "canvas": canvas, "probe": probe}


@pytest.mark.parametrize("name", ["set.npz", "set.npz.bz2"])
def test_a_measured_set_is_read(tmp_path: Path, name: str) -> None:
    truth = measured_set(tmp_path / name)
    found = read_measured(tmp_path / name)
    np.testing.assert_array_equal(found.counts, np.fft.fftshift(truth["counts"], axes=(1, 2)))
    assert found.counts[:, 4:12, 4:12].sum() > 2 * found.counts.sum() / 4
    np.testing.assert_allclose(found.x - found.x.mean(), truth["scan"][:, 1] - truth["scan"][:, 1].mean(), atol=1e-4)
    np.testing.assert_allclose(found.y - found.y.mean(), truth["scan"][:, 0] - truth["scan"][:, 0].mean(), atol=1e-4)
    assert (np.abs(found.probe.astype(complex)) ** 2).sum() == pytest.approx((N / 2) ** 2, rel=1e-5)
    for a in (found.x, found.y):
        assert a.min() - N / 2 >= 1
        assert a.max() + N / 2 + 1 <= found.object_size
    # Positions and patterns belong together: the known object, at these places, gives these counts.
    x, y = (a - (a.min() + a.max()) / 2 for a in (found.x, found.y))
    middle = [(truth["scan"][:, i].min() + truth["scan"][:, i].max()) / 2 + 30 for i in (1, 0)]
    rates = intensity(truth["probe"], patches(truth["canvas"], x + middle[0], y + middle[1], N))
    good = np.corrcoef(np.fft.fftshift(rates, axes=(1, 2)).ravel(), found.counts.ravel())[0, 1]
    assert good > 0.95
    swapped = read_measured(tmp_path / name, scan_order="xy")
    assert swapped.x.tolist() == found.y.tolist()
    assert "(x, y)" in swapped.words
    assert "(y, x)" in found.words


@pytest.mark.parametrize("name", ["set.npz", "set.npz.bz2"])
def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    """A job finds its input under the input's name, and still calls it what its user does."""
    measured_set(tmp_path / name)
    shutil.copyfile(tmp_path / name, tmp_path / "source")
    found = read_measured(tmp_path / "source", name=name)
    np.testing.assert_array_equal(found.counts, read_measured(tmp_path / name).counts)
    assert found.words == read_measured(tmp_path / name).words
    measured_set(tmp_path / name, scan=None)
    shutil.copyfile(tmp_path / name, tmp_path / "source")
    with pytest.raises(BadInput, match=f"^{name}: scan: expected an array"):
        read_measured(tmp_path / "source", name=name)
    (tmp_path / "source").write_bytes(b"BZh and no more")
    with pytest.raises(BadInput, match="cannot be read as NPZ"):
        read_measured(tmp_path / "source", name=name)


def bad_sets() -> list[tuple[dict[str, Any], str]]:
    rng = np.random.default_rng(1)
    probe = simulated_probe(N)
    return [
        ({"scan": None}, "scan: expected an array, found none; there are data, probe"),
        ({"probe": np.stack([probe, probe])}, r"probe: expected complex \(16, 16\), one mode, found complex64 \(2"),
        ({"probe": np.abs(probe)}, "probe: expected complex"),
        ({"probe": probe * 0}, "probe: expected a probe, found zeros"),
        ({"scan": np.zeros((19, 2))}, r"scan: expected \(20, 2\) finite numbers"),
        ({"scan": np.full((20, 2), np.nan)}, r"scan: expected \(20, 2\) finite numbers"),
        ({"data": rng.uniform(size=(20, N, N))}, "data: expected counts, found counts are whole numbers"),
        ({"data": rng.poisson(3, (20, N, N + 2))}, "data: expected"),
        ({"data": -np.ones((20, N, N))}, "data: expected counts"),
        ({"data": np.array([print], dtype=object)}, "cannot be read as NPZ"),
    ]


@pytest.mark.parametrize(("other", "message"), bad_sets())
def test_a_bad_measured_set_is_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    measured_set(tmp_path / "set.npz", **other)
    with pytest.raises(BadInput, match=message):
        read_measured(tmp_path / "set.npz")


def test_where_dc_lies_is_looked_at(tmp_path: Path) -> None:
    truth = measured_set(tmp_path / "corner.npz")
    shifted = np.fft.fftshift(truth["counts"], axes=(1, 2))
    measured_set(tmp_path / "centre.npz", data=shifted)
    one, other = read_measured(tmp_path / "corner.npz"), read_measured(tmp_path / "centre.npz", dc="centre")
    np.testing.assert_array_equal(one.counts, other.counts)
    for name, dc in (("centre.npz", "corner"), ("corner.npz", "centre")):
        with pytest.raises(BadInput, match=f"data: expected the zero frequency in the {dc}"):
            read_measured(tmp_path / name, dc=dc)  # type: ignore[arg-type]


def test_not_there_and_no_npz(tmp_path: Path) -> None:
    for name in ("a.npz", "a.npz.bz2"):
        with pytest.raises(BadInput, match="there is no file"):
            read_measured(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing of the sort")
        with pytest.raises(BadInput, match="cannot be read as NPZ"):
            read_measured(tmp_path / name)
    (tmp_path / "b.npz.bz2").write_bytes(bz2.compress(b"no zip"))
    with pytest.raises(BadInput, match="cannot be read as NPZ"):
        read_measured(tmp_path / "b.npz.bz2")


def test_thinned_counts_and_halves_that_share_no_photon(tmp_path: Path) -> None:
    measured_set(tmp_path / "set.npz")
    found = read_measured(tmp_path / "set.npz")
    full = thinned(found, None, seed=42)
    np.testing.assert_array_equal(full.datasets["train"].counts(), found.counts)
    made = thinned(found, 100.0, seed=42)
    train, first, second = (made.datasets[name] for name in ("train", "half_a", "half_b"))
    np.testing.assert_array_equal(first.counts() + second.counts(), train.counts())
    assert (train.counts() <= found.counts).all()
    assert abs(made.drawn["train"].photons_mean - 100) < 5 * made.drawn["train"].error
    assert made.drawn["half_a"].photons == 50
    assert (train.object_guess == 1).all()
    for data in made.datasets.values():
        assert dose.mean_power(data.diffraction) == pytest.approx((N / 2) ** 2, rel=1e-6)
    for half, name in ((1, "half_a"), (2, "half_b")):
        np.testing.assert_array_equal(
            thinned(found, 100.0, seed=42, half=half).datasets["train"].counts(), made.datasets[name].counts()
        )
    same, other = thinned(found, 100.0, seed=42), thinned(found, 100.0, seed=43)
    assert same.datasets["train"].diffraction.tobytes() == train.diffraction.tobytes()
    assert other.datasets["train"].diffraction.tobytes() != train.diffraction.tobytes()
    with pytest.raises(BadInput, match="1000 photons per pattern cannot be thinned out of 4"):
        thinned(found, 1e3, seed=42)


def user_file(path: Path, **other: Any) -> dict[str, Any]:
    rng = seeds.generator("user")
    canvas = np.exp(1j * rng.normal(size=(40, 40)))
    x, y = rng.uniform(10, 30, (2, 6))
    probe = simulated_probe(N)
    amplitude = np.sqrt(np.fft.fftshift(intensity(probe, patches(canvas, x, y, N)), axes=(1, 2)))
    arrays: dict[str, Any] = {
        "diffraction": amplitude,
        "objectGuess": canvas,
        "probeGuess": probe,
        "xcoords": x,
        "ycoords": y,
    } | other
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
def test_a_users_file_is_brought_into_the_contract(tmp_path: Path, dtype: str) -> None:
    given = user_file(tmp_path / "plain.npz")["diffraction"]
    # Amplitudes up to 60000 as uint16: their squares would wrap around.
    user_file(tmp_path / "mine.npz", diffraction=np.moveaxis((given * 60000 / given.max()).astype(dtype), 0, -1))
    found = read_user(tmp_path / "mine.npz")
    assert found.diffraction.dtype == np.float32
    assert dose.mean_power(found.diffraction) == pytest.approx((N / 2) ** 2, rel=1e-5)
    np.testing.assert_allclose(found.diffraction, read_user(tmp_path / "plain.npz").diffraction, atol=2e-3)
    # Probe and patterns stay in one unit.
    plain = read_user(tmp_path / "plain.npz")
    again = intensity(plain.probe_guess, patches(plain.object_guess, plain.x, plain.y, N))
    np.testing.assert_allclose(np.fft.fftshift(again, axes=(1, 2)), plain.diffraction.astype(float) ** 2, atol=1e-4)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"diffraction": np.zeros((6, N, N))}, "diffraction: expected amplitudes, found only zeros"),
        ({"diffraction": np.full((6, N, N), -1.0)}, "diffraction: expected finite amplitudes"),
        ({"diffraction": np.ones((6, N, N), complex)}, "diffraction: expected real numbers, found complex128"),
        ({"diffraction": np.ones((5, N, N))}, r"probeGuess|xcoords: expected \(5,\), found \(6,\)"),
        ({"objectGuess": np.ones((40, 40))}, "objectGuess: expected complex numbers, found float64"),
        ({"xcoords": np.full(6, 200.0)}, "xcoords: expected patches inside the object"),
        ({"diff3d": np.ones((6, N, N))}, "expected one of `diffraction` and `diff3d`, found both"),
    ],
)
def test_a_bad_user_file_is_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    user_file(tmp_path / "mine.npz", **other)
    with pytest.raises(BadInput, match=message):
        read_user(tmp_path / "mine.npz")


def test_object_of_two_photographs() -> None:
    found = object_of(96, Photographs())
    assert found.dtype == np.complex64
    assert found.shape == (96, 96)
    assert np.abs(found).min() == pytest.approx(0.5, abs=1e-5)
    assert np.abs(found).max() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(np.angle(found)).max() == pytest.approx(np.pi / 3, abs=1e-5)
    assert abs(np.corrcoef(np.abs(found).ravel(), np.angle(found).ravel())[0, 1]) < 0.3
    assert object_of(96, Photographs()).tobytes() == found.tobytes()
    with pytest.raises(BadInput, match="is both amplitude and phase"):
        Photographs("moon", "moon")
    with pytest.raises(BadInput, match="no photograph 'sun'"):
        object_of(96, Photographs("camera", "sun"))


@pytest.mark.parametrize("size", [8, 12, 20, 50])
def test_levels_are_exact_averages_or_a_mirror_image(size: int) -> None:
    grey = np.arange(24 * 20, dtype=np.int64).reshape(24, 20) ** 2 % 977
    found = levels(grey, size)
    square = grey[2:22]
    if size <= 20:
        fine = square.repeat(size, 0).repeat(size, 1).reshape(size, 20, size, 20).sum(axis=(1, 3))
    else:
        fine = np.pad(square, ((0, size - 20),) * 2, mode="symmetric")
    ranked = np.sort(fine, axis=None)
    cut = len(ranked) // 100
    low, high = ranked[cut], ranked[-1 - cut]
    np.testing.assert_array_equal(found, (fine.clip(low, high) - low) * LEVELS // (high - low))
    assert (found.min(), found.max()) == (0, LEVELS)
    with pytest.raises(BadInput, match="one grey"):
        levels(np.ones((9, 9), np.int64), 4)
