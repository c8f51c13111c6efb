"""The extractor: its contract binds weights, data and reference; its forward pass; training that teaches it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import BadInput
from jobs.dose.npz import read_npz
from jobs.drift.contract import read_contract, read_extractor
from jobs.drift.contract_checks import extractor_checks, failed
from jobs.drift.digests import arrays_sha256
from jobs.drift.extractor_net import Weights, features_of, random_weights, shape_of
from jobs.drift.given import read_data
from jobs.drift_kinds.extractor import ExtractorParams
from kernels.drifting.metrics import accuracy
from tests.jobs.drift.evaluated import CLASSES, Package, blobs, edit_arrays, edit_json, restate_contract


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = Package(tmp_path_factory.mktemp("extractor") / "p")
    package.write_data({"train": blobs(96, 1), "reference": blobs(60, 2), "held": blobs(60, 3)})
    package.extractor()
    return package


def loop(weights: Weights, image: Any) -> Any:
    """Features of one image, pixel by pixel."""
    x = image.astype(np.float64)
    for kernel, bias, stride in zip(weights.kernels, weights.biases, weights.strides, strict=True):
        high, wide = (-(-side // stride) for side in x.shape[:2])
        out = np.zeros((high, wide, len(kernel)))
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        for i in range(high):
            for j in range(wide):
                part = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
                out[i, j] = np.maximum((part.transpose(2, 0, 1) * kernel).sum(axis=(1, 2, 3)) + bias, 0)
        x = out
    return x.mean(axis=(0, 1))


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 6, 3), (1, 1, 1)])
def test_features_are_what_a_loop_over_pixels_makes(shape: tuple[int, int, int]) -> None:
    weights = random_weights(max(shape[:2]), shape[2], 4, 7, seed=3)
    images = rng(4).uniform(-1, 1, (3, *shape)).astype(np.float32)
    features, probabilities = features_of(weights, images)
    np.testing.assert_allclose(features, [loop(weights, image) for image in images], rtol=1e-12, atol=1e-14)
    logits = features @ weights.head.astype(np.float64) + weights.offset
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, wanted, rtol=1e-12)


def test_layers_halve_an_image_until_little_is_left() -> None:
    assert shape_of(8, 64) == ((16, 32, 64), (1, 2, 2))
    assert shape_of(32, 20) == ((16, 32, 64, 64, 20), (1, 2, 2, 2, 2))
    assert shape_of(2, 5) == ((5,), (1,))


def test_everything_in_the_contract_is_recomputed(made: Package) -> None:
    extractor, data = read_extractor(made.folder("extractor")), read_data(made.folder("data"))
    assert failed(extractor_checks(extractor, data)) == []
    assert extractor.contract.payload["reference_n"] == 60
    assert extractor.contract.payload["metrics"]["fid"] == {"estimator": "unbiased-cov nuclear"}
    features, _ = features_of(extractor.weights, data.reference.images)
    np.testing.assert_array_equal(features, extractor.reference["features"])


def test_training_teaches_the_classes_and_a_proxy_knows_none(made: Package, tmp_path: Path) -> None:
    weights = read_extractor(made.folder("extractor")).weights
    images, labels = blobs(60, 9)
    assert accuracy(features_of(weights, images)[1], labels) > 0.9
    package = made.copy(tmp_path / "p")
    context = package.extractor(profile="proxy", epochs=40)
    row = context.tables["drift_extractor"][0]
    assert (row["epochs"], row["loss"], row["accuracy_held"]) == (0, None, None)
    payload = read_contract(package.folder("extractor") / "contract.json").payload
    assert (payload["head"], "accuracy" in payload["metrics"]) == ("random", False)


def test_the_row_says_what_the_files_hold(made: Package, tmp_path: Path) -> None:
    package = made.copy(tmp_path / "p")
    context = package.extractor()
    row = context.tables["drift_extractor"][0]
    assert row["extractor"] == arrays_sha256(read_npz(package.folder("extractor") / "extractor.npz"))
    assert row["contract"] == json.loads((package.folder("extractor") / "contract.json").read_text())["sha256"]
    assert row["classes"] == CLASSES
    assert context.expected["last_step"] == 6


def test_the_same_seed_gives_the_same_contract_and_another_another(made: Package, tmp_path: Path) -> None:
    package = made.copy(tmp_path / "p")

    def contract(**params: Any) -> str:
        return str(package.extractor(epochs=2, **params).tables["drift_extractor"][0]["contract"])

    assert contract() == contract(rate=2e-3)
    assert len({contract(), contract(seed=1), contract(is_splits=4)}) == 3


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"extractor_sha256": "0" * 64}, "extractor digest"),
        ({"data_sha256": "0" * 64}, "data digest"),
        ({"reference_sha256": "0" * 64}, "reference digest"),
        ({"reference_n": 61}, "reference n"),
        ({"reference_n": True}, "reference n"),
        ({"feature_dim": 25}, "feature dimension"),
        ({"schema": "x"}, "contract schema"),
        ({"architecture": {}}, "architecture"),
        ({"preprocessing": {"range": [0, 1], "side": 8, "channels": 1}}, "preprocessing"),
        ({"classes": 3}, "classes"),
        ({"reference_features_sha256": "0" * 64}, "reference statistics digest"),
    ],
)
def test_a_contract_about_something_else_is_found(
    made: Package, tmp_path: Path, change: dict[str, Any], check: str
) -> None:
    package = made.copy(tmp_path / "p")
    restate_contract(package, **change)
    wrong = failed(extractor_checks(read_extractor(package.folder("extractor")), read_data(package.folder("data"))))
    assert [each.check for each in wrong] == [check]


def test_a_hash_is_never_taken_from_the_document(made: Package, tmp_path: Path) -> None:
    package = made.copy(tmp_path / "p")
    edit_json(package.folder("extractor") / "contract.json", sha256="0" * 64)
    extractor = read_extractor(package.folder("extractor"))
    assert extractor.contract.sha256 == read_contract(made.folder("extractor") / "contract.json").sha256
    wrong = failed(extractor_checks(extractor, read_data(package.folder("data"))))
    assert [each.check for each in wrong] == ["contract hash"]


def test_weights_that_do_not_go_together_are_refused(made: Package, tmp_path: Path) -> None:
    for at, change in enumerate(
        (
            {"conv1_weight": None},
            {"conv1_weight": lambda a: a[:, :3]},
            {"head_bias": lambda a: a[:2]},
            {"more": np.zeros(3)},
            {"conv0_bias": lambda a: a * np.float32("nan")},
        )
    ):
        package = made.copy(tmp_path / str(at))
        edit_arrays(package.folder("extractor") / "extractor.npz", **change)
        with pytest.raises(BadInput, match="extractor"):
            read_extractor(package.folder("extractor"))


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(BadInput, match="3 channels"):
        features_of(random_weights(8, 1, 4, 7, seed=3), np.zeros((2, 8, 8, 3), np.float32))


def test_parameters_of_a_training_mean_nothing_to_a_proxy() -> None:
    with pytest.raises(ValidationError, match="rate means nothing with profile=proxy"):
        ExtractorParams(profile="proxy", rate=0.1)
