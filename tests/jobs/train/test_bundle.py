"""The shipped bundle: equal trainings give equal bytes, and any change is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from jobs.train import bundle
from jobs.train.bundle import BundleRefused
from jobs.train.evaluate import Candidate, Quality
from kernels.postfilter.quantised import Quantised, encode, quantise
from kernels.postfilter.weights import Weights, shapes


def made(seed: int = 0) -> Quantised:
    rng = np.random.default_rng(seed)
    return quantise(Weights.of({n: rng.normal(size=s).astype(np.float32) for n, s in shapes(3).items()}))


def write(folder: Path, shipped: Quantised, *, measured: Quantised | None = None) -> bundle.Bundle:
    folder.mkdir(exist_ok=True)
    quality = Quality(1.5, {"reconstruction": 1.25, "sal": 2.5}, 30.0, math.nan)
    size, digest = len(encode(shipped)), (measured or shipped).weights().digest()
    return bundle.write(
        folder,
        shipped,
        Candidate(40, 20, quality, size, digest),
        branch="long20_qat_ema_alpha20_h3",
        quantity="surrogate value",
        decoded=quality,
        unsharp=quality,
        digests={"data": "d" * 64},
        encoded_bytes=123,
    )


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    found = write(tmp_path / "a", made())
    again = bundle.read(tmp_path / "a")
    assert again.shipped.weights() == made().weights()
    assert again.about == found.about
    assert again.size == len((tmp_path / "a" / bundle.FILE).read_bytes()) == 9 * 9 + 56 * 3 + 3 + 144
    assert again.about["evaluation"]["shipped"] == {
        "value": 1.5,
        "terms": {"reconstruction": 1.25, "sal": 2.5},
        "psnr": 30.0,
        "ms_ssim": None,
    }
    assert (again.about["epoch"], again.about["step"], again.about["encoded_bytes"]) == (20, 40, 123)


def test_equal_weights_give_equal_bytes_wherever_they_are_written(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("a-much-longer-name", 0), ("other", 1)):
        write(tmp_path / name, made(seed))
    for file in (bundle.FILE, bundle.MANIFEST):
        one, same, other = ((tmp_path / name / file).read_bytes() for name in ("one", "a-much-longer-name", "other"))
        assert one == same
        assert one != other


def test_weights_that_were_not_measured_are_not_shipped(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="not those that were measured"):
        write(tmp_path / "a", made(), measured=made(1))
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("file", [bundle.FILE, bundle.MANIFEST])
def test_a_missing_file_is_refused(file: str, tmp_path: Path) -> None:
    write(tmp_path / "a", made())
    (tmp_path / "a" / file).unlink()
    with pytest.raises(BundleRefused, match="no bundle"):
        bundle.read(tmp_path / "a")


@pytest.mark.parametrize("place", [0, 9, 100, -1])
def test_a_flipped_byte_is_refused(place: int, tmp_path: Path) -> None:
    write(tmp_path / "a", made())
    path = tmp_path / "a" / bundle.FILE
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleRefused, match="was changed"):
        bundle.read(tmp_path / "a")


@pytest.mark.parametrize(("name", "value"), [("format", 9), ("h", 4), ("weights_sha256", "0" * 64), ("bytes", 1)])
def test_a_manifest_that_tells_of_something_else_is_refused(name: str, value: object, tmp_path: Path) -> None:
    write(tmp_path / "a", made())
    path = tmp_path / "a" / bundle.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(BundleRefused):
        bundle.read(tmp_path / "a")


def test_a_good_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", made())
    write(tmp_path / "b", made(1))
    (tmp_path / "a" / bundle.FILE).write_bytes((tmp_path / "b" / bundle.FILE).read_bytes())
    with pytest.raises(BundleRefused, match="was changed"):
        bundle.read(tmp_path / "a")
