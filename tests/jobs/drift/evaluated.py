"""A small drift package as its jobs leave it: data, training and samples made here, the rest by the kinds themselves.

The images are blobs of four classes. The model has never seen them: its samples are those of its first weights. Where a
test wants good samples, they are real images of one more draw.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.fsio import sha256_file
from core.kind import Kind
from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import arrays_sha256, images_sha256, payload_sha256
from jobs.drift.generator import Architecture, Generator, take_weights, weights_of
from jobs.drift.sample import draw
from jobs.drift_kinds.contract import DriftContract
from jobs.drift_kinds.evaluate import DriftEval
from jobs.drift_kinds.extractor import DriftExtractor
from jobs.drift_kinds.nn import DriftNn
from tests.jobs.context import Recorder

CLASSES, SIDE = 4, 8
SHAPE = Architecture(SIDE, SIDE, 1, CLASSES, noise=6, hidden=16, depth=2)
SPLITS = ("train", "reference", "held")
Array = npt.NDArray[Any]


def blobs(n: int, seed: int) -> tuple[Array, Array]:
    """Images float32 (n, 8, 8, 1) in [-1, 1] and labels: a bright spot in one of four corners, somewhat moved."""
    rng = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(n, dtype=np.int64) % CLASSES
    y, x = np.mgrid[:SIDE, :SIDE]
    at = np.stack([2 + 3 * (labels // 2), 2 + 3 * (labels % 2)], axis=1) + rng.normal(0, 0.6, (n, 2))
    far = (y - at[:, 0, None, None]) ** 2 + (x - at[:, 1, None, None]) ** 2
    images = 2 * np.exp(-far / 4) - 1 + rng.normal(0, 0.05, far.shape)
    return np.clip(images, -1, 1).astype(np.float32)[..., None], labels


@dataclass
class Package:
    """Folders by the names of inputs, below `root`."""

    root: Path

    def folder(self, name: str) -> Path:
        return self.root / name

    @property
    def inputs(self) -> dict[str, Path]:
        """All that there are."""
        names = ("data", "extractor", "train", "sample", "eval", "nn")
        return {name: self.folder(name) for name in names if self.folder(name).is_dir()}

    def copy(self, root: Path) -> Package:
        shutil.copytree(self.root, root)
        return Package(root)

    # What jobs of others make.

    def write_data(self, splits: Mapping[str, tuple[Array, Array]]) -> None:
        arrays: dict[str, Array] = {}
        stated: dict[str, Any] = {}
        start = 0
        for name, (images, labels) in splits.items():
            ids = np.arange(start, start + len(labels), dtype=np.int64)
            start += len(labels)
            arrays |= {f"{name}_images": images, f"{name}_labels": labels, f"{name}_ids": ids}
            stated[name] = {"n": len(labels), "sha256": images_sha256(images)}
        folder = self._made("data")
        write_npz(folder / "data.npz", arrays)
        (folder / "data.json").write_text(json.dumps({"source": "blobs", "classes": CLASSES, "splits": stated}))

    @property
    def data_sha256(self) -> str:
        arrays = read_npz(self.folder("data") / "data.npz")
        return payload_sha256({name: images_sha256(arrays[f"{name}_images"]) for name in SPLITS})

    def write_train(self, encoder: Mapping[str, Array]) -> None:
        folder = self._made("train")
        # First weights of a generator leave its class and alpha without effect, so they are moved.
        rng = np.random.Generator(np.random.Philox(5))
        first = weights_of(Generator(SHAPE, seed=5))
        moved = {name: (w + rng.normal(0, 0.3, w.shape)).astype(np.float32) for name, w in sorted(first.items())}
        write_npz(folder / "model.npz", moved)
        if encoder:
            write_npz(folder / "encoder.npz", encoder)
        config = {
            "architecture": SHAPE.words(),
            "recipe": {"variant": "full", "steps": 16},
            "steps_done": 16,
            "data_sha256": self.data_sha256,
            "training_encoder_sha256": arrays_sha256(encoder) if encoder else None,
        }
        (folder / "config.json").write_text(json.dumps(config, sort_keys=True))

    def write_samples(self, images: Array, labels: Array, ids: list[str] | None = None, **stated: Any) -> None:
        folder = self._made("sample")
        names = [f"S{i:06d}" for i in range(len(images))] if ids is None else ids
        write_npz(folder / "samples.npz", {"images": images, "labels": labels, "ids": np.asarray(names)})
        said = {
            "train_sha256": sha256_file(self.folder("train") / "model.npz"),
            "config_sha256": sha256_file(self.folder("train") / "config.json"),
            "alpha": 1.5,
            "n": len(images),
            "seed": 7,
            "content_sha256": images_sha256(images),
        }
        (folder / "samples.json").write_text(json.dumps({**said, **stated}))

    def write_generated(self, n: int, *, alpha: float = 1.5, seed: int = 7, **stated: Any) -> None:
        """Samples that the model of the training makes."""
        generator = Generator(SHAPE)
        take_weights(generator, read_npz(self.folder("train") / "model.npz"))
        images, labels = draw(generator, n, alpha=alpha, seed=seed)
        self.write_samples(images, labels, alpha=alpha, seed=seed, **stated)

    # What the kinds make.

    def make(self, kind: Kind, name: str, names: tuple[str, ...], **params: Any) -> Recorder:
        """Run a kind on folders of the package; what it keeps becomes the folder `name`."""
        inputs = {n: self.folder(n) for n in names if self.folder(n).is_dir()}
        scratch = self.root / f"{name}.job"
        shutil.rmtree(scratch, ignore_errors=True)
        context = Recorder(kind, kind.Params(**params), scratch, inputs=inputs)
        context.run()
        shutil.rmtree(self.folder(name), ignore_errors=True)
        shutil.copytree(context.artifacts, self.folder(name))
        return context

    def extractor(self, **params: Any) -> Recorder:
        return self.make(DriftExtractor(), "extractor", ("data",), **{"feature_dim": 24, "epochs": 6, **params})

    def evaluate(self, **params: Any) -> Recorder:
        return self.make(DriftEval(), "eval", ("sample", "extractor", "data", "train"), **params)

    def nearest(self, **params: Any) -> Recorder:
        return self.make(DriftNn(), "nn", ("sample", "data"), **params)

    def contract(self, **params: Any) -> Recorder:
        return self.make(DriftContract(), "contract", ("data", "extractor", "train", "sample", "eval", "nn"), **params)

    def _made(self, name: str) -> Path:
        self.folder(name).mkdir(parents=True, exist_ok=True)
        return self.folder(name)


def small_encoder(seed: int = 9) -> dict[str, Array]:
    rng = np.random.Generator(np.random.Philox(seed))
    return {"layer0": rng.standard_normal((6, 1, 3, 3)).astype(np.float32)}


def honest(root: Path, **extractor: Any) -> Package:
    """Data of 96, 60 and 60 images, a training that is only named, 48 samples; evaluated."""
    package = Package(root)
    package.write_data({"train": blobs(96, 1), "reference": blobs(60, 2), "held": blobs(60, 3)})
    package.write_train(small_encoder())
    package.write_generated(48)
    package.extractor(**extractor)
    package.evaluate()
    package.nearest()
    return package


def edit_json(path: Path, **changed: Any) -> None:
    """Change names of a document's top level."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def edit_rows(path: Path, change: Any, which: Any = lambda row: True) -> None:
    """Let `change` alter those rows of a document that `which` picks."""
    document = json.loads(path.read_text())
    for row in document["rows"]:
        if which(row):
            change(row)
    path.write_text(json.dumps(document))


def edit_arrays(path: Path, **changed: Any) -> None:
    """Replace arrays, or change them by a function. None: leave it out."""
    found = read_npz(path)
    for name, value in changed.items():
        found[name] = value(found[name].copy()) if callable(value) else value
    write_npz(path, {name: value for name, value in found.items() if value is not None})


def restate_contract(package: Package, **changed: Any) -> None:
    """A forger's contract: its payload changed, and a hash that goes with it."""
    path = package.folder("extractor") / "contract.json"
    payload = {**json.loads(path.read_text())["payload"], **changed}
    path.write_text(json.dumps({"payload": payload, "sha256": payload_sha256(payload)}))
