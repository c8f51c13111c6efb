"""The evaluation: its numbers, its floor at the same n, what it counts, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import BadInput
from jobs.dose.npz import read_npz
from jobs.drift.contract import read_extractor
from jobs.drift.digests import images_sha256
from jobs.drift.evaluate import device_class
from jobs.drift.extractor_net import features_of
from jobs.drift.leakage import shared
from jobs.drift.subsets import counts, drawn, quotas, stratified
from jobs.drift_kinds.evaluate import EvalParams
from kernels.drifting.metrics import frechet
from tests.jobs.context import Recorder
from tests.jobs.drift.evaluated import Package, blobs, edit_arrays, edit_json, honest, restate_contract, small_encoder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return honest(tmp_path_factory.mktemp("good") / "package")


def rows(context: Recorder) -> dict[str, dict[str, Any]]:
    found = context.tables["drift_eval"]
    assert len({row["metric"] for row in found}) == len(found)
    return {row["metric"]: row for row in found}


def test_every_row_carries_what_it_was_measured_with(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    context = package.evaluate()
    found = rows(context)
    assert set(found) == {"fid", "is_mean", "accuracy", "fid_floor", "is_floor", "accuracy_floor"}
    extractor = read_extractor(package.folder("extractor"))
    samples = read_npz(package.folder("sample") / "samples.npz")["images"]
    for row in found.values():
        assert (row["n"], row["n_unique"], row["n_reference"]) == (48, 48, 60)
        assert (row["contract"], row["device_class"]) == (extractor.contract.sha256, "cpu")
        assert (row["leakage"], row["waiver"], row["profile"]) == ("none", "", "cached")
    own = found["fid"]
    assert (own["alpha"], own["seed"], own["control"], own["samples"]) == (1.5, 7, "", images_sha256(samples))
    features, _ = features_of(extractor.weights, samples)
    assert own["value"] == frechet(features, extractor.reference["features"]).distance
    assert json.loads((package.folder("eval") / "evaluation.json").read_text())["rows"] == context.tables["drift_eval"]
    assert context.expected["rows"] == {"drift_eval": 6, "drift_waiver": 0}


def test_noise_is_far_from_the_floor_and_real_images_are_near(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_samples(*blobs(48, 4))
    near = rows(package.evaluate())
    noise = np.random.Generator(np.random.Philox(3)).uniform(-1, 1, (48, 8, 8, 1)).astype(np.float32)
    package.write_samples(noise, np.arange(48) % 4)
    far = rows(package.evaluate())
    assert near["fid"]["value"] < 4 * near["fid_floor"]["value"] < far["fid"]["value"] / 10
    assert near["accuracy"]["value"] > 0.9 > 0.6 > far["accuracy"]["value"]
    assert far["fid_floor"] == near["fid_floor"]


def test_the_floor_has_as_many_images_of_each_class_in_the_same_shares(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_samples(*blobs(20, 6))
    few = rows(package.evaluate())
    assert (few["fid"]["n"], few["fid_floor"]["n"], few["fid_floor"]["alpha"]) == (20, 20, None)
    package.write_samples(*blobs(70, 6))
    many = rows(package.evaluate())
    assert (many["fid"]["n"], many["fid_floor"]["n"], many["fid_matched"]["n"]) == (70, 60, 60)
    assert many["fid_matched"]["samples"] != many["fid"]["samples"]


def test_equal_images_are_counted_once_and_equal_ids_are_refused(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    images, labels = blobs(24, 6)
    twice, both = np.concatenate([images, images]), np.concatenate([labels, labels])
    package.write_samples(twice, both)
    context = package.evaluate()
    assert {(row["n"], row["n_unique"]) for row in rows(context).values() if row["control"] != "held"} == {(48, 24)}
    assert any("24 different images" in line for line in context.logs)
    package.write_samples(twice, both, ids=[f"S{i % 24}" for i in range(48)])
    with pytest.raises(BadInput, match="each needs one of its own"):
        package.evaluate()


def restate(**changed: Any) -> Callable[[Package], None]:
    return lambda p: restate_contract(p, **changed)


def samples_say(**changed: Any) -> Callable[[Package], None]:
    return lambda p: edit_json(p.folder("sample") / "samples.json", **changed)


def overlap(p: Package) -> None:
    images, labels = blobs(60, 2)
    images[:2] = blobs(96, 1)[0][:2]
    p.write_data({"train": blobs(96, 1), "reference": (images, labels), "held": blobs(60, 3)})


def _other_model(p: Package) -> None:
    edit_arrays(p.folder("train") / "model.npz", **{"last.bias": lambda a: a + np.float32(1)})


def _other_data(p: Package) -> None:
    edit_json(p.folder("train") / "config.json", data_sha256="0" * 64)
    p.write_samples(*blobs(48, 4))


def _no_statistics(p: Package) -> None:
    (p.folder("extractor") / "reference.npz").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (samples_say(n=4800), "sample: n: expected 48, found 4800"),
        (samples_say(content_sha256="0" * 64), "sample: content digest"),
        (samples_say(config_sha256="0" * 64), "train: the samples' configuration"),
        (_other_model, "train: the samples' model"),
        (restate(data_sha256="0" * 64), "extractor: data digest"),
        (lambda p: edit_json(p.folder("extractor") / "contract.json", sha256="0" * 64), "extractor: contract hash"),
        (_other_data, "train: data digest"),
        (overlap, "data: images in train and reference: expected 0, found 2"),
        (_no_statistics, "there is no file"),
        (lambda p: p.write_samples(*blobs(1, 4)), "cannot be measured"),
        (lambda p: p.write_samples(blobs(9, 4)[0] * 3, blobs(9, 4)[1]), "outside"),
        (lambda p: p.write_samples(blobs(9, 4)[0], blobs(9, 4)[1] + 7), "sample: classes"),
        (lambda p: p.write_samples(blobs(9, 4)[0][:, :6], blobs(9, 4)[1]), "sample: shape"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    good: Package, tmp_path: Path, spoil: Callable[[Package], None], said: str
) -> None:
    package = good.copy(tmp_path / "p")
    spoil(package)
    with pytest.raises(BadInput, match=said):
        package.evaluate()


def test_an_extractor_that_is_the_training_encoder_is_refused_or_waived(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_train(read_npz(package.folder("extractor") / "extractor.npz"))
    package.write_samples(*blobs(48, 4))
    with pytest.raises(BadInput, match="what the model was trained with"):
        package.evaluate()
    context = package.evaluate(allow_shared_encoder=True, waiver_reason="there is no other")
    assert {(row["leakage"], row["waiver"]) for row in rows(context).values()} == {("shared", "allow_shared_encoder")}
    (waiver,) = context.tables["drift_waiver"]
    assert (waiver["gate"], waiver["reason"]) == ("no-leakage", "there is no other")
    assert waiver["extractor"] == waiver["encoder"]
    assert any("WAIVED" in line for line in context.logs)


def test_a_waiver_is_recorded_where_it_was_not_needed(good: Package, tmp_path: Path) -> None:
    context = good.copy(tmp_path / "p").evaluate(allow_shared_encoder=True)
    assert {(row["leakage"], row["waiver"]) for row in rows(context).values()} == {("none", "allow_shared_encoder")}
    assert len(context.tables["drift_waiver"]) == 1
    with pytest.raises(ValidationError, match="without allow_shared_encoder"):
        EvalParams(waiver_reason="why")


def test_an_untrained_model_is_a_control_and_no_other_is(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    with pytest.raises(BadInput, match="was trained, and control='untrained'"):
        package.evaluate(control="untrained")
    edit_json(package.folder("train") / "config.json", steps_done=0)
    package.write_samples(*blobs(48, 4))
    with pytest.raises(BadInput, match="was not trained, and control=''"):
        package.evaluate()
    found = rows(package.evaluate(control="untrained"))
    assert (found["fid"]["control"], found["fid_floor"]["control"]) == ("untrained", "held")


def test_without_a_training_the_rows_say_that_nothing_was_compared(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.folder("train").rename(tmp_path / "elsewhere")
    assert {row["leakage"] for row in rows(package.evaluate()).values()} == {"unchecked"}


def test_weights_are_shared_whatever_they_are_called() -> None:
    weights = {"a": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "b": np.zeros(9, np.float32)}
    assert shared(weights, weights)
    assert "a is z" in shared(weights, {"z": weights["a"].reshape(2, 6).astype(np.float64), "y": np.ones(3)})
    assert shared(weights, {"b": np.zeros(9, np.float32)}) == ""
    assert shared(weights, {}) == ""
    assert shared(weights, small_encoder()) == ""


def test_lots_are_drawn_again_by_anybody() -> None:
    names = [f"S{i}" for i in range(40)]
    labels = [i % 3 for i in range(40)]
    assert sorted(drawn(names, "w", 1)) == list(range(40))
    assert drawn(names, "w", 1) == drawn(names, "w", 1)
    assert len({tuple(drawn(names, word, seed)) for word in ("w", "v") for seed in (1, 2)}) == 4
    chosen = stratified(names, labels, {0: 2, 1: 5}, "w", 1)
    assert chosen == sorted(chosen)
    assert counts(labels[at] for at in chosen) == {0: 2, 1: 5}
    assert [at for at in drawn(names, "w", 1) if labels[at] == 0][:2] == sorted(
        (at for at in chosen if labels[at] == 0), key=drawn(names, "w", 1).index
    )


def test_quotas_add_up_and_never_exceed_what_there_is() -> None:
    assert quotas({0: 5, 1: 5, 2: 1}, 4) == {0: 2, 1: 2, 2: 0}
    rng = np.random.Generator(np.random.Philox(2))
    for _ in range(50):
        there = {label: int(n) for label, n in enumerate(rng.integers(0, 9, 5))}
        n = int(rng.integers(0, sum(there.values()) + 1))
        found = quotas(there, n)
        assert sum(found.values()) == n
        assert all(0 <= found[label] <= there[label] for label in there)
    with pytest.raises(ValueError, match="6 of 5"):
        quotas({0: 5}, 6)


def test_device_classes_are_words() -> None:
    assert device_class("cpu") == "cpu"


def test_features_on_a_gpu_are_those_of_the_cpu(good: Package) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weights = read_extractor(good.folder("extractor")).weights
    images = blobs(40, 5)[0]
    for one, other in zip(features_of(weights, images, "cuda"), features_of(weights, images), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert device_class("cuda").startswith("cuda ")
