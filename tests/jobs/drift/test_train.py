"""A drift training: what it leaves, what its variants and encoders are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from core.errors import BadInput
from core.fsio import sha256_file
from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import arrays_sha256, payload_sha256
from jobs.drift.encoders import Convolutions, raw_features
from jobs.drift.generator import Architecture, Generator, weights_of
from jobs.drift.train_queue import Queues
from jobs.drift.train_run import NoNumber
from jobs.drift_kinds.train import DriftTrain, DriftTrainParams
from tests.jobs.drift.small import Attempt, data


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"data": data(tmp_path_factory.mktemp("bars") / "data")}


def ran(root: Path, inputs: dict[str, Path], **params: Any) -> Attempt:
    ctx = Attempt(root, inputs, **params)
    ctx.run()
    return ctx


def test_what_it_leaves(bars: dict[str, Path], tmp_path: Path) -> None:
    ctx = ran(tmp_path, bars, last_checkpoints=2)
    assert [row["step"] for row in ctx.tables["drift_steps"]] == [5, 10, 12] == ctx.metric_steps
    assert all(row["finite"] and row["negatives_per_group"] == 5 + 4 for row in ctx.tables["drift_steps"])
    assert all(row["unconditional_weight_mean"] > 0 for row in ctx.tables["drift_steps"])
    assert ctx.expected["rows"] == {"drift_steps": 3, "drift_training": 1}
    assert ctx.expected["last_step"] == 12
    assert all((ctx.artifacts / name).is_file() for name in ctx.expected["artifacts"])
    told = ctx.tables["drift_training"][0]
    assert (told["steps_planned"], told["steps_done"], told["resumed_at"]) == (12, 12, None)
    config = json.loads(ctx.bytes_of("config.json"))
    assert told["config_sha256"] == sha256_file(ctx.artifacts / "config.json") == payload_sha256(config)
    assert told["model_sha256"] == sha256_file(ctx.artifacts / "model.npz")
    assert config["data_sha256"] == told["data_sha256"]
    assert config["training_encoder_sha256"] is None
    assert config["models"] == {"8": "models/step-000008.npz", "12": "models/step-000012.npz"}
    assert ctx.bytes_of("models/step-000012.npz") == ctx.bytes_of("model.npz") != ctx.bytes_of("models/step-000008.npz")
    generator = Generator(Architecture(**config["architecture"]))
    weights = read_npz(ctx.artifacts / "model.npz")
    assert set(weights) == set(weights_of(generator))
    first = weights_of(Generator(Architecture(**config["architecture"]), seed=0))
    assert any(not np.array_equal(first[name], weights[name]) for name in first)


def test_the_same_again_is_the_same_and_another_seed_is_not(bars: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = ran(tmp_path / "a", bars)
    torch.manual_seed(2)  # no global chance is used
    np.random.seed(3)
    assert ran(tmp_path / "b", bars).bytes_of("model.npz") == one.bytes_of("model.npz")
    assert ran(tmp_path / "c", bars, seed=1).bytes_of("model.npz") != one.bytes_of("model.npz")


def test_every_variant_is_another_training(bars: dict[str, Path], tmp_path: Path) -> None:
    found = {}
    for variant in ("full", "attraction-only", "over-repulsion"):
        found[variant] = ran(tmp_path / variant, bars, variant=variant).bytes_of("model.npz")
    untrained = ran(tmp_path / "untrained", bars, variant="untrained", steps=None)
    found["untrained"] = untrained.bytes_of("model.npz")
    found["noise"] = ran(tmp_path / "noise", bars, real="noise").bytes_of("model.npz")
    found["inert"] = ran(tmp_path / "inert", bars, unconditional=0, queue_all=512).bytes_of("model.npz")
    assert len(set(found.values())) == len(found)
    assert "drift_steps" not in untrained.tables or untrained.tables["drift_steps"] == []
    assert untrained.expected["rows"]["drift_steps"] == 0
    assert untrained.tables["drift_training"][0]["steps_done"] == 0
    first = weights_of(Generator(Architecture(8, 8, 1, 3, noise=4, hidden=16, depth=1), seed=0))
    assert arrays_sha256(read_npz(untrained.artifacts / "model.npz")) == arrays_sha256(first)


def test_without_unconditional_negatives_alpha_has_no_weight(bars: dict[str, Path], tmp_path: Path) -> None:
    rows = ran(tmp_path, bars, unconditional=0, queue_all=512).tables["drift_steps"]
    assert [row["unconditional_weight_mean"] for row in rows] == [0.0, 0.0, 0.0]
    assert all(row["alpha_mean"] > 1 for row in rows), "it is drawn and shown to the network all the same"


def test_encoders(bars: dict[str, Path], tmp_path: Path) -> None:
    digests = []
    for encoder, more in (("tiny", {}), ("autoencoder", {"autoencoder_steps": 3})):
        ctx = ran(tmp_path / encoder, bars, encoder=encoder, **more)
        weights = read_npz(ctx.artifacts / "encoder.npz")
        told = ctx.tables["drift_training"][0]
        assert told["training_encoder_sha256"] == arrays_sha256(weights)
        assert (told["encoder_error"] is None) == (encoder == "tiny")
        digests.append(told["training_encoder_sha256"])
    assert digests[0] != digests[1], "the autoencoder was trained"
    assert digests[0] == arrays_sha256(weights_of(Convolutions(1, seed=0)))


def test_an_extractor_can_be_trained_against_and_says_so(bars: dict[str, Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "strides": np.array([1, 2]),
        "conv0_weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "conv0_bias": np.zeros(4, np.float32),
        "conv1_weight": rng.normal(size=(6, 4, 3, 3)).astype(np.float32),
        "conv1_bias": np.zeros(6, np.float32),
    }
    (tmp_path / "extractor").mkdir()
    write_npz(tmp_path / "extractor" / "extractor.npz", weights)
    inputs = {**bars, "extractor": tmp_path / "extractor"}
    ctx = ran(tmp_path / "run", inputs, encoder="extractor")
    assert ctx.tables["drift_training"][0]["training_encoder_sha256"] == arrays_sha256(weights)
    del weights["conv1_bias"]
    write_npz(tmp_path / "extractor" / "extractor.npz", weights)
    with pytest.raises(BadInput, match="holds no extractor"):
        ran(tmp_path / "broken", inputs, encoder="extractor")


def test_features_are_of_several_scales_and_any_side() -> None:
    for height, width, channels in ((8, 8, 1), (9, 7, 3), (16, 16, 1), (4, 4, 1)):
        images = torch.randn(5, height, width, channels, generator=torch.Generator().manual_seed(0))
        for features in (raw_features(images), Convolutions(channels, seed=1)(images)):
            assert all(f.ndim == 3 and len(f) == 5 for f in features)
            assert len({f.shape[1:] for f in features}) > 1
            assert all(bool(torch.isfinite(f).all()) for f in features)


def test_a_loss_that_is_no_number_ends_it(bars: dict[str, Path], tmp_path: Path) -> None:
    ctx = Attempt(tmp_path, bars, rate=1e30, clip=1e30, warmup_steps=0, checkpoint_steps=1)
    with pytest.raises(NoNumber):
        ctx.run()
    assert not (ctx.artifacts / "model.npz").exists()


def test_what_does_not_go_together_is_refused(bars: dict[str, Path], tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"variant": "untrained", "steps": 5}, "leave steps out"),
        ({"steps": 0}, "say so"),
        ({"scheduler": "cosine", "warmup_steps": 3}, "means nothing"),
        ({"warmup_steps": 500}, "longer than the training"),
        ({"autoencoder_steps": 5}, "means nothing"),
        ({"encoder_seed": 5}, "means nothing"),
        ({"unconditional": 0, "queue_all": 5}, "means nothing"),
        ({"temperatures": [0.1, 0.0]}, "give positive ones"),
        ({"alpha_least": 3, "alpha_greatest": 2}, "no range"),
        ({"encoder": "mae"}, "raw"),
    ]
    for given, said in wrong:
        with pytest.raises(ValidationError, match=said):
            DriftTrainParams(**given)
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="cuda was asked for"):
            ran(tmp_path / "cuda", bars, device="cuda")


def test_the_plan_follows_from_the_parameters() -> None:
    p = DriftTrainParams(steps=250, checkpoint_steps=100, last_checkpoints=2, row_steps=100)
    assert (p.checkpoints, p.row_at) == ([100, 200, 250], [100, 200, 250])
    assert list(p.models) == [200, 250]
    recipe = p.recipe()
    assert (recipe.warmup_steps, recipe.steps) == (12, 250)
    assert DriftTrainParams(scheduler="none").recipe().warmup_steps == 0
    names = set(DriftTrain().tables()["drift_steps"].names)
    assert {"step", "loss", "loss_pixel", "lr", "negatives_per_group", "alpha_mean", "unconditional_weight_mean",
            "drift_norm", "finite"} <= names  # fmt: skip


def test_a_queue_holds_the_newest_of_a_class_each_once() -> None:
    labels = np.arange(30, dtype=np.int64) % 3
    queues = Queues(labels, 3, size=4, whole=7, push=2, chance=np.random.default_rng(0))
    seen = set()
    for _ in range(40):
        queues.feed()
        for label in range(3):
            rows = queues.draw(label, 4)
            assert set(labels[rows]) == {label}
            assert len(set(rows)) == 4, "without replacement"
            seen |= set(rows.tolist())
        assert len(set(queues.draw_all(7))) == 7
        assert max(len(q) for q in queues.of_class) == 4
    assert seen == set(range(30)), "each row comes in once in a while"
    assert len(queues.draw(0, 9)) == 9  # more than there are: some twice
    newest = queues.order[queues.place - 1]
    assert queues.of_all[-1] == newest
