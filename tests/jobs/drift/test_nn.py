"""Nearest neighbours: copies stand out against held-out images, in subsets that are drawn alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput
from jobs.dose.npz import read_npz
from jobs.drift.subsets import counts
from tests.jobs.context import Recorder
from tests.jobs.drift.evaluated import Package, blobs


@pytest.fixture
def package(tmp_path: Path) -> Package:
    made = Package(tmp_path / "p")
    made.write_data({"train": blobs(96, 1), "reference": blobs(60, 2), "held": blobs(60, 3)})
    made.write_train({})
    made.write_samples(*blobs(48, 4))
    return made


def rows(context: Recorder) -> dict[str, dict[str, Any]]:
    return {row["which"]: row for row in context.tables["drift_nn"]}


def test_samples_that_were_never_seen_are_as_close_as_held_out_images(package: Package) -> None:
    found = rows(package.nearest())
    assert {(row["against"], row["n"], row["n_against"]) for row in found.values()} == {("train", 48, 96)}
    assert found["samples"]["p95"] == pytest.approx(found["held"]["p95"], abs=0.01)
    assert (found["samples"]["copies"], found["held"]["copies"]) == (0, 0)
    assert (found["samples"]["alpha"], found["held"]["alpha"]) == (1.5, None)


def test_a_model_that_repeats_its_training_set_stands_out(package: Package) -> None:
    images, labels = blobs(96, 1)
    rng = np.random.Generator(np.random.Philox(1))
    near = np.clip(images[:48] + rng.normal(0, 1e-3, (48, 8, 8, 1)), -1, 1).astype(np.float32)
    near[:5] = images[:5]
    package.write_samples(near, labels[:48])
    found = rows(package.nearest())
    assert found["samples"]["p95"] > 0.999 > found["held"]["p95"] + 0.001
    assert (found["samples"]["copies"], found["samples"]["label_match"]) == (5, 1.0)


def test_labels_travel_with_the_cosines(package: Package) -> None:
    package.nearest()
    found = read_npz(package.folder("nn") / "nn.npz")
    data = read_npz(package.folder("data") / "data.npz")
    samples = read_npz(package.folder("sample") / "samples.npz")
    np.testing.assert_array_equal(found["samples_label"], samples["labels"][found["samples_index"]])
    np.testing.assert_array_equal(found["held_nearest_label"], data["train_labels"][found["held_nearest"]])
    mean = data["train_images"].astype(np.float64).mean(axis=0)
    one = (samples["images"][found["samples_index"][3]] - mean).ravel()
    other = (data["train_images"][found["samples_nearest"][3]] - mean).ravel()
    wanted = one @ other / np.sqrt((one @ one) * (other @ other))
    assert found["samples_cosine"][3] == pytest.approx(wanted, abs=1e-12)


def test_both_subsets_have_the_same_classes_and_follow_the_seed(package: Package) -> None:
    images, labels = blobs(40, 6)
    package.write_samples(images[labels != 3], labels[labels != 3])
    context = package.nearest(n=20, seed=2)
    first = read_npz(package.folder("nn") / "nn.npz")
    assert counts(first["samples_label"]) == counts(first["held_label"])
    assert {row["n"] for row in rows(context).values()} == {20}
    package.nearest(n=20, seed=2)
    again = read_npz(package.folder("nn") / "nn.npz")
    package.nearest(n=20, seed=3)
    other = read_npz(package.folder("nn") / "nn.npz")
    np.testing.assert_array_equal(first["held_index"], again["held_index"])
    assert not np.array_equal(first["held_index"], other["held_index"])


def test_more_than_there_are_is_refused(package: Package) -> None:
    with pytest.raises(BadInput, match="n=49, and of the same classes there are 48"):
        package.nearest(n=49)


def test_samples_of_another_shape_are_refused(package: Package) -> None:
    package.write_samples(blobs(9, 4)[0][:, :6], blobs(9, 4)[1])
    with pytest.raises(BadInput, match="cannot be compared"):
        package.nearest()
