"""The splits, where images come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from core.errors import BadInput
from jobs.drift.data import split
from jobs.drift.dataset import SPLITS, Dataset
from jobs.drift.digests import arrays_sha256, canonical, image_digests, images_sha256, payload_sha256
from jobs.drift.sources import Source, folder_of, noise
from jobs.drift_kinds.data import DriftData, DriftDataParams
from tests.jobs.context import Recorder
from tests.jobs.drift.small import data, source


def ran(root: Path, **params: Any) -> Recorder:
    kind = DriftData()
    ctx = Recorder(kind, kind.Params(**params), root)
    ctx.run()
    return ctx


def test_the_digits(tmp_path: Path) -> None:
    ctx = ran(tmp_path / "a")
    made = Dataset.load(ctx.artifacts)
    assert {name: len(part.images) for name, part in made.splits.items()} == {
        "train": 797, "reference": 500, "held": 500,
    }  # fmt: skip
    assert made.train.images.shape[1:] == (8, 8, 1)
    every = np.concatenate([part.images for part in made.splits.values()])
    assert (every.min(), every.max()) == (-1.0, 1.0)
    assert sorted(np.concatenate([part.ids for part in made.splits.values()])) == list(range(1797))
    assert made.classes == [str(n) for n in range(10)]
    again = ran(tmp_path / "b")
    assert (again.artifacts / "data.npz").read_bytes() == (ctx.artifacts / "data.npz").read_bytes()
    other = ran(tmp_path / "c", seed=1)
    assert Dataset.load(other.artifacts).sha256 != made.sha256
    from sklearn.datasets import load_digits

    known = load_digits()
    part = made.splits["held"]
    assert np.array_equal((part.images[..., 0] + 1) * 8, known.images[part.ids])
    assert np.array_equal(part.labels, known.target[part.ids])


def test_duplicates_stand_on_one_side() -> None:
    plain = source(60)
    doubled = Source(
        np.concatenate([plain.images, plain.images[:20]]),
        np.concatenate([plain.labels, plain.labels[:20]]),
        plain.classes,
        plain.about,
    )
    for seed in range(5):
        made = split(doubled, reference=20, held=20, seed=seed)
        sets = {name: set(image_digests(made.splits[name].images)) for name in SPLITS}
        assert not sets["train"] & sets["reference"]
        assert not sets["train"] & sets["held"]
        assert not sets["reference"] & sets["held"]
        assert sum(len(part.images) for part in made.splits.values()) == 80
        assert made.document["duplicates"] == 20
    # Rows drawn without a look at their content stand on two sides.
    order = np.random.default_rng(0).permutation(80)
    parts = [set(image_digests(doubled.images[rows])) for rows in (order[:20], order[20:40], order[40:])]
    assert parts[0] & parts[2]


def test_a_folder_of_the_users(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (12, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    (tmp_path / "mine" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "mine" / "empty").mkdir()
    ctx = ran(tmp_path / "run", source=str(tmp_path / "mine"), reference=4, held=4, side=8)
    made = Dataset.load(ctx.artifacts)
    assert made.classes == ["cat", "dog"]
    assert made.train.images.shape == (8, 8, 8, 1)
    assert made.document["source"]["files"][0][0] == "cat/0.png"
    as_is = folder_of(tmp_path / "mine", side=None, colour=True)
    assert as_is.images.shape == (16, 12, 10, 3)
    row = np.asarray(Image.open(tmp_path / "mine" / "dog" / "0.png"), np.float32) / 127.5 - 1
    assert np.allclose(as_is.images[8, ..., 1], row)
    (tmp_path / "mine" / "dog" / "0.png").write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"0\.png cannot be read"):
        folder_of(tmp_path / "mine", side=8, colour=False)
    Image.new("L", (5, 5)).save(tmp_path / "mine" / "dog" / "0.png")
    with pytest.raises(BadInput, match="5×5 px"):
        folder_of(tmp_path / "mine", side=None, colour=False)


def test_what_cannot_be_used_is_refused_before_it_starts(tmp_path: Path) -> None:
    kind = DriftData()
    for path, said in ((tmp_path / "none", "no folder"), (tmp_path, "no subfolder with images")):
        with pytest.raises(BadInput, match=said):
            kind.inputs(DriftDataParams(source=str(path)))
    for given in ({"side": 8}, {"count": 100}, {"source": "noise", "colour": True}):
        with pytest.raises(ValidationError, match="means nothing"):
            DriftDataParams(**given)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="cannot have 50"):
        split(source(60), reference=20, held=50, seed=0)
    with pytest.raises(BadInput, match="images left to train on"):
        split(source(60), reference=29, held=29, seed=0)


def test_a_changed_image_is_seen(tmp_path: Path) -> None:
    folder = data(tmp_path / "data")
    Dataset.load(folder)
    blob = bytearray((folder / "data.npz").read_bytes())
    at = blob.index(b"train_images") + 2000
    blob[at] ^= 1
    (folder / "data.npz").write_bytes(blob)
    with pytest.raises(BadInput):
        Dataset.load(folder)
    fresh = data(tmp_path / "again")
    document = json.loads((fresh / "data.json").read_text())
    document["splits"]["held"]["sha256"] = "0" * 64
    (fresh / "data.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match="held images"):
        Dataset.load(fresh)


def test_noise_has_nothing_to_learn() -> None:
    made = noise(400, 0)
    assert made.images.shape == (400, 8, 8, 1)
    means = [made.images[made.labels == c].mean(0) for c in range(10)]
    assert max(float(np.abs(m).max()) for m in means) < 0.5
    assert not np.array_equal(made.images, noise(400, 1).images)


def test_digests_are_of_content() -> None:
    images = source(6).images
    assert images_sha256(images) == images_sha256(images[::-1])
    assert images_sha256(images) != images_sha256(images[:5])
    assert image_digests(images.astype(">f4")) == image_digests(images)
    weights = {"b": np.ones(3, np.float32), "a": np.zeros(2)}
    assert arrays_sha256(weights) == arrays_sha256(dict(reversed(weights.items())))
    assert arrays_sha256(weights) != arrays_sha256({**weights, "a": np.zeros((2, 1))})
    assert arrays_sha256({"a": np.float64(1)}) != arrays_sha256({"a": np.ones(1)})
    assert canonical({"b": 1, "ä": [1.5]}) == b'{"b":1,"\\u00e4":[1.5]}'
    assert payload_sha256({"a": 1}) != payload_sha256({"a": 2})
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})
