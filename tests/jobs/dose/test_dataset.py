"""The dataset contract: what is written is read again, and each violation is told with key, expected and found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput
from jobs.dose.dataset import Dataset, canonical, validate
from jobs.dose.npz import read_npz, write_npz
from kernels.diffraction import dose, seeds
from kernels.diffraction.forward import amplitude, patches
from kernels.diffraction.probe import simulated_probe

N, M, COUNT = 8, 24, 5


def small(seed: int = 1) -> Dataset:
    rng = seeds.generator("dataset", seed)
    canvas = np.exp(1j * rng.normal(size=(M, M))).astype(np.complex64)
    x, y = rng.integers(6, 18, (2, COUNT)).astype(np.float64)
    probe = simulated_probe(N)
    seen = patches(canvas, x, y, N)
    counts, _ = dose.draw(amplitude(probe, seen), 500.0, rng)
    scale = (counts.sum() / COUNT) ** 0.5 / (N / 2)
    return Dataset(
        diffraction=dose.amplitudes(counts, 1 / scale),
        object_guess=canvas,
        probe_guess=probe,
        x=x,
        y=y,
        patches=seen.astype(np.complex64),
        scan_index=np.arange(COUNT, dtype=np.int64),
        meta={"scale": scale, "photons": 500.0},
    )


GOOD = small()


def test_written_and_read_again(tmp_path: Path) -> None:
    GOOD.save(tmp_path / "a.npz")
    again = Dataset.load(tmp_path / "a.npz")
    for name in ("diffraction", "object_guess", "probe_guess", "x", "y", "patches", "scan_index"):
        one, other = getattr(GOOD, name), getattr(again, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert again.meta == GOOD.meta
    assert (again.count, again.size) == (COUNT, N)
    total = (again.diffraction.astype(float) ** 2).sum() * again.scale**2
    assert again.counts().sum() == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(again.counts(), (again.diffraction * again.scale) ** 2, atol=1e-3)
    keys = set(read_npz(tmp_path / "a.npz"))
    assert keys == {"diffraction", "objectGuess", "probeGuess", "xcoords", "ycoords", "Y", "scan_index", "metadata"}


def test_same_arrays_same_bytes_and_other_arrays_other_bytes(tmp_path: Path) -> None:
    for name, data in (("a", GOOD), ("b", small()), ("c", small(2)), ("d", replace(GOOD, meta={"scale": 1.0}))):
        data.save(tmp_path / name)
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_optional_keys_may_be_missing_and_metadata_may_be_any_text(tmp_path: Path) -> None:
    replace(GOOD, patches=None, scan_index=None).save(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz")
    assert "Y" not in arrays
    del arrays["metadata"]
    write_npz(tmp_path / "b.npz", arrays)
    assert Dataset.load(tmp_path / "b.npz").meta == {}
    with pytest.raises(BadInput, match="expected a positive `scale`, found None"):
        Dataset.load(tmp_path / "b.npz").counts()
    write_npz(tmp_path / "c.npz", {**arrays, "metadata": np.asarray("from my lab")})
    assert Dataset.load(tmp_path / "c.npz").meta == {"text": "from my lab"}
    for bad in (np.asarray([1, 2]), np.asarray(json.dumps([1]))):
        write_npz(tmp_path / "d.npz", {**arrays, "metadata": bad})
        with pytest.raises(BadInput, match="metadata: expected"):
            Dataset.load(tmp_path / "d.npz")


def test_other_names_and_orders_of_axes_are_understood(tmp_path: Path) -> None:
    GOOD.save(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz")
    arrays["diff3d"] = np.moveaxis(arrays.pop("diffraction"), 0, -1)
    arrays["Y"] = np.moveaxis(arrays["Y"], 0, -1)
    assert arrays["diff3d"].shape == (N, N, COUNT)
    write_npz(tmp_path / "b.npz", arrays)
    again = Dataset.load(tmp_path / "b.npz")
    assert again.diffraction.tobytes() == GOOD.diffraction.tobytes()
    assert again.patches is not None
    assert again.patches.tobytes() == small().patches.tobytes()  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="diffraction: expected one of"):
        canonical({**arrays, "diffraction": arrays["diff3d"]}, "it")
    for axes in ((1, 0, 2), (2, 1, 0)):  # no order that is known
        write_npz(
            tmp_path / "c.npz", {**arrays, "diff3d": np.zeros((N, COUNT, N), np.float32).transpose(axes)[:, :, :7]}
        )
        with pytest.raises(BadInput, match="diffraction: expected"):
            Dataset.load(tmp_path / "c.npz")


def broken(name: str, value: Any) -> Dataset:
    return replace(GOOD, **{name: value})


def with_nan(array: Any) -> Any:
    array = array.copy()
    array[2] = np.nan
    return array


@pytest.mark.parametrize(
    ("name", "value", "key", "expected", "found"),
    [
        ("diffraction", GOOD.diffraction.astype(np.float64), "diffraction", "float32", "float64"),
        ("diffraction", (GOOD.diffraction * 100).astype(np.uint16), "diffraction", "float32", "uint16"),
        ("diffraction", GOOD.diffraction[0], "diffraction", "(n, N, N)", "(8, 8)"),
        ("diffraction", GOOD.diffraction[:, :, :6], "diffraction", "(n, N, N)", "(5, 8, 6)"),
        ("diffraction", GOOD.diffraction[:0], "diffraction", "(n, N, N)", "(0, 8, 8)"),
        ("diffraction", -GOOD.diffraction, "diffraction", "not negative", "-"),
        ("diffraction", GOOD.diffraction * 3, "diffraction", "(N/2)² = 16", "14"),
        ("diffraction", with_nan(GOOD.diffraction), "diffraction", "finite numbers", "nan at [2, 0, 0]"),
        ("probe_guess", GOOD.probe_guess[:6], "probeGuess", "(8, 8)", "(6, 8)"),
        ("probe_guess", GOOD.probe_guess * 0, "probeGuess", "a probe", "zeros"),
        ("object_guess", GOOD.object_guess[:, :20], "objectGuess", "(M, M)", "(24, 20)"),
        ("object_guess", GOOD.object_guess.astype(np.complex128), "objectGuess", "complex64", "complex128"),
        ("x", GOOD.x[:4], "xcoords", "(5,)", "(4,)"),
        ("y", GOOD.y.astype(np.float32), "ycoords", "float64", "float32"),
        ("x", GOOD.x + 40, "xcoords", "4 to 20", "to 5"),
        ("y", GOOD.y - 20, "ycoords", "4 to 20", "-"),
        ("y", with_nan(GOOD.y), "ycoords", "finite numbers", "nan at [2]"),
        ("patches", GOOD.patches[:3], "Y", "(5, 8, 8)", "(3, 8, 8)"),  # type: ignore[index]
        ("scan_index", np.arange(COUNT, dtype=np.int32), "scan_index", "int64", "int32"),
        ("x", None, "xcoords", "an array", "nothing"),
        ("x", [1.0] * COUNT, "xcoords", "float64", "list"),
    ],
)
def test_a_violation_names_key_expected_and_found(name: str, value: Any, key: str, expected: str, found: str) -> None:
    validate(GOOD)
    with pytest.raises(BadInput) as caught:
        validate(broken(name, value), where="mine.npz")
    message = caught.value.message
    assert message.startswith(f"mine.npz: {key}: expected ")
    assert expected in message.split(", found ")[0]
    assert found in message.split(", found ")[1]


def test_a_bad_dataset_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        replace(GOOD, x=GOOD.x + 99).save(tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize("key", ["diffraction", "objectGuess", "probeGuess", "xcoords", "ycoords"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    GOOD.save(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz")
    del arrays[key]
    write_npz(tmp_path / "b.npz", arrays)
    with pytest.raises(BadInput, match=f"{key}: expected an array, found none; there are"):
        validate(tmp_path / "b.npz")


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    GOOD.save(tmp_path / "a.npz")
    arrays = read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{**arrays, "metadata": np.array({"a": print}, dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="cannot be read as NPZ"):
        Dataset.load(tmp_path / "b.npz")
    with pytest.raises(TypeError, match="holds Python objects"):
        write_npz(tmp_path / "c.npz", {"a": np.array([print], dtype=object)})


def test_some_frames(tmp_path: Path) -> None:
    part = GOOD.select(np.array([3, 1]))
    assert part.x.tolist() == [GOOD.x[3], GOOD.x[1]]
    assert part.scan_index is not None
    assert part.scan_index.tolist() == [3, 1]
    assert replace(GOOD, patches=None, scan_index=None).select(np.array([4])).scan_index.tolist() == [4]  # type: ignore[union-attr]
