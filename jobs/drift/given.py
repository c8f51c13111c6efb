"""What the evaluating kinds are given, read and counted again: nothing that a document says of arrays is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import sha256_file
from jobs.dose.npz import read_npz
from jobs.drift.digests import image_digests, payload_sha256, set_digest

SPLITS = ("train", "reference", "held")


@dataclass(frozen=True)
class Images:
    """A set of images.

    Attributes:
        images: float32 (n, H, W, C) in [-1, 1].
        labels: int64 (n,).
        names: n words by which they are told apart.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.names)

    @cached_property
    def digests(self) -> list[str]:
        """Of each image's content."""
        return image_digests(self.images)

    @property
    def unique(self) -> int:
        """How many differ in content."""
        return len(set(self.digests))

    @property
    def sha256(self) -> str:
        """Of the content, whatever the order."""
        return set_digest(self.digests)

    def take(self, at: list[int]) -> Images:
        return Images(self.images[at], self.labels[at], tuple(self.names[i] for i in at))


@dataclass(frozen=True)
class Data:
    """The three splits of a drift-data job. Attributes: classes: how many there are; stated: its data.json."""

    splits: Mapping[str, Images]
    classes: int
    stated: Mapping[str, Any]

    @property
    def train(self) -> Images:
        return self.splits["train"]

    @property
    def reference(self) -> Images:
        return self.splits["reference"]

    @property
    def held(self) -> Images:
        return self.splits["held"]

    @cached_property
    def sha256(self) -> str:
        """Of the contents of the splits."""
        return payload_sha256({name: self.splits[name].sha256 for name in SPLITS})

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image."""
        return tuple(self.train.images.shape[1:])


@dataclass(frozen=True)
class Samples:
    """The images of a drift-sample job. Attributes: stated: its samples.json."""

    images: Images
    stated: Mapping[str, Any]

    @property
    def alpha(self) -> float | None:
        return _number(self.stated.get("alpha"))

    @property
    def seed(self) -> int:
        seed = self.stated.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else -1


@dataclass(frozen=True)
class Trained:
    """What a drift-train job left. Attributes: encoder: weights of its training encoder; empty: it has none."""

    config: Mapping[str, Any]
    config_sha256: str
    models: Mapping[str, str]  # file -> SHA-256 of its bytes
    encoder: Mapping[str, npt.NDArray[Any]]

    @property
    def untrained(self) -> bool:
        """Was no step made?"""
        recipe = self.config.get("recipe")
        named = recipe.get("variant") if isinstance(recipe, dict) else None
        return named == "untrained" or self.config.get("steps_done") == 0


def read_data(folder: Path) -> Data:
    """Read a drift-data job's folder.

    Raises:
        BadInput: a file is missing or damaged, or a split is no set of images.
    """
    path = folder / "data.npz"
    arrays, stated = read_npz(path), read_document(folder / "data.json")
    splits = {}
    for name in SPLITS:
        ids = _array(arrays, f"{name}_ids", path)
        labels = _array(arrays, f"{name}_labels", path)
        splits[name] = _images(_array(arrays, f"{name}_images", path), labels, [str(i) for i in ids], path)
        if splits[name].images.shape[1:] != splits["train"].images.shape[1:]:
            raise BadInput(f"{path}: images of {name} and of train differ in shape", hint="make it with drift-data")
    greatest = max(int(s.labels.max()) for s in splits.values())
    return Data(splits, _classes(stated.get("classes"), greatest + 1, path), stated)


def read_samples(folder: Path) -> Samples:
    """Read a drift-sample job's folder.

    Raises:
        BadInput: a file is missing or damaged, it holds no images, or an id stands twice.
    """
    path = folder / "samples.npz"
    arrays = read_npz(path)
    ids = [str(i) for i in _array(arrays, "ids", path)]
    images = _images(_array(arrays, "images", path), _array(arrays, "labels", path), ids, path)
    return Samples(images, read_document(folder / "samples.json"))


def read_trained(folder: Path) -> Trained:
    """Read what is needed of a drift-train job's folder.

    Raises:
        BadInput: a file is missing or damaged.
    """
    config = folder / "config.json"
    encoder = folder / "encoder.npz"
    models = sorted(p for p in folder.rglob("*.npz") if p.is_file() and p != encoder)
    return Trained(
        read_document(config),
        sha256_file(config),
        {str(p.relative_to(folder)): sha256_file(p) for p in models},
        read_npz(encoder) if encoder.is_file() else {},
    )


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadInput: there is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", hint="give the whole folder of the job that makes it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint="make it again") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no JSON object", hint="make it again")
    return found


def _array(arrays: Mapping[str, npt.NDArray[Any]], name: str, path: Path) -> npt.NDArray[Any]:
    if name not in arrays:
        raise BadInput(f"{path} has no array {name!r}", hint="it holds the arrays that the drift kinds write")
    return arrays[name]


def _images(given: npt.NDArray[Any], labels: npt.NDArray[Any], names: list[str], path: Path) -> Images:
    hint = "make it again with the drift kinds"
    if given.ndim != 4 or given.dtype != np.float32 or given.size == 0:
        raise BadInput(f"{path}: images are {given.dtype} {given.shape}, not float32 (n, H, W, C)", hint=hint)
    if labels.shape != (len(given),) or not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any():
        raise BadInput(f"{path}: {len(given)} images and labels {labels.dtype} {labels.shape} do not go", hint=hint)
    if len(names) != len(given) or len(set(names)) < len(names):
        raise BadInput(f"{path}: {len(given)} images and {len(set(names))} ids: each needs one of its own", hint=hint)
    if not np.isfinite(given).all() or float(np.abs(given).max()) > 1 + 1e-6:
        raise BadInput(f"{path}: there are pixels outside [-1, 1], or not finite", hint=hint)
    return Images(given, labels.astype(np.int64), tuple(names))


def _classes(stated: Any, least: int, path: Path) -> int:
    known = len(stated) if isinstance(stated, list) else stated
    if not isinstance(known, int) or isinstance(known, bool) or known < least:
        raise BadInput(f"{path} has {least} classes and its data.json says {stated!r}", hint="make it with drift-data")
    return known


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
