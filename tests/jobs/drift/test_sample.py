"""Samples: what they say of themselves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import BadInput
from core.fsio import sha256_file
from jobs.dose.npz import read_npz
from jobs.drift.digests import image_digests, images_sha256
from jobs.drift_kinds.sample import DriftSample
from tests.jobs.context import Recorder
from tests.jobs.drift.small import Attempt, data


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    ctx = Attempt(root, {"data": data(root / "data")}, last_checkpoints=2)
    ctx.run()
    return ctx.artifacts


def ran(root: Path, trained: Path, **params: Any) -> Recorder:
    kind = DriftSample()
    ctx = Recorder(kind, kind.Params(**{"n": 20, **params}), root, inputs={"train": trained})
    ctx.run()
    return ctx


def images(ctx: Recorder) -> Any:
    return read_npz(ctx.artifacts / "samples.npz")["images"]


def test_what_they_say_of_themselves(trained: Path, tmp_path: Path) -> None:
    ctx = ran(tmp_path, trained)
    arrays = read_npz(ctx.artifacts / "samples.npz")
    told = json.loads((ctx.artifacts / "samples.json").read_text())
    assert arrays["images"].shape == (20, 8, 8, 1)
    assert arrays["images"].dtype == np.float32
    assert float(np.abs(arrays["images"]).max()) <= 1
    assert arrays["labels"].tolist() == [n % 3 for n in range(20)]
    assert [str(i) for i in arrays["ids"]] == [f"S{n:06d}" for n in range(20)]
    assert told["content_sha256"] == images_sha256(arrays["images"])
    assert told["train_sha256"] == sha256_file(trained / "model.npz")
    assert told["config_sha256"] == sha256_file(trained / "config.json")
    assert (told["n"], told["alpha"], told["seed"], told["step"]) == (20, 1.5, 0, 12)
    rows = ctx.tables["drift_samples"]
    assert [row["digest"] for row in rows] == image_digests(arrays["images"])
    assert ctx.expected["rows"] == {"drift_samples": 20}
    with Image.open(ctx.artifacts / "preview.png") as picture:
        assert picture.size == (3 * 9 * 4, 16 * 9 * 4)


def test_they_follow_from_seed_alpha_and_checkpoint_and_not_from_how_many(trained: Path, tmp_path: Path) -> None:
    one = ran(tmp_path / "a", trained)
    assert (ran(tmp_path / "b", trained).artifacts / "samples.npz").read_bytes() == (
        one.artifacts / "samples.npz"
    ).read_bytes()
    more = images(ran(tmp_path / "more", trained, n=300))
    assert np.array_equal(more[:20], images(one))
    assert len(set(image_digests(more))) == 300
    assert not np.array_equal(images(ran(tmp_path / "seed", trained, seed=1)), images(one))
    assert not np.array_equal(images(ran(tmp_path / "alpha", trained, alpha=3)), images(one))
    earlier = ran(tmp_path / "step", trained, checkpoint=8)
    assert not np.array_equal(images(earlier), images(one))
    told = json.loads((earlier.artifacts / "samples.json").read_text())
    assert told["train_sha256"] == sha256_file(trained / "models" / "step-000008.npz")
    assert np.array_equal(images(ran(tmp_path / "last", trained, checkpoint=12)), images(one))


def test_what_cannot_be_sampled_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model of step 5; there are: 8, 12"):
        ran(tmp_path / "a", trained, checkpoint=5)
    with pytest.raises(BadInput, match="above 4"):
        ran(tmp_path / "b", trained, alpha=5)
    with pytest.raises(BadInput, match="holds no training"):
        ran(tmp_path / "c", tmp_path)
    copied = tmp_path / "copied"
    copied.mkdir()
    (copied / "model.npz").write_bytes((trained / "model.npz").read_bytes())
    config = json.loads((trained / "config.json").read_text())
    config["architecture"]["hidden"] = 32
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="is not of"):
        ran(tmp_path / "d", copied)
