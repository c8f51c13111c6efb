"""Checks of what a number stands on: the data's splits, the extractor with its contract, the samples and their line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.audit.generator import redraw
from jobs.audit.ledger import Ledger, Unauditable
from jobs.audit.network import forward
from jobs.audit.reading import (
    Arrays,
    array,
    arrays,
    content_digest,
    document,
    file_digest,
    payload_digest,
    picture_digests,
    weights_digest,
)

SPLITS = ("train", "reference", "held")
SCHEMA = "lab.eval-contract/1"
_LEAST = 8  # numbers of an array; fewer may be equal by chance


@dataclass(frozen=True)
class Pictures:
    """Images (n, H, W, C), labels and names, as they were found."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    names: list[str]

    @cached_property
    def digests(self) -> list[str]:
        return picture_digests(self.images)

    @cached_property
    def content(self) -> str:
        return content_digest(self.digests)

    @property
    def different(self) -> int:
        return len(set(self.digests))


@dataclass(frozen=True)
class Data:
    """The splits. Attributes: digest: over the contents of all; classes: as stated."""

    splits: dict[str, Pictures]
    digest: str
    classes: int


@dataclass(frozen=True)
class Judge:
    """The extractor as it was found.

    Attributes:
        contract: the hash of the payload, made by the audit. payload: what it says.
        features, probabilities: of the reference split, made by the audit.
    """

    weights: Arrays
    digest: str
    payload: dict[str, Any]
    contract: str
    features: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """The samples. Attributes: stated: their document."""

    pictures: Pictures
    stated: dict[str, Any]


def check_data(ledger: Ledger, folder: Path) -> Data:
    """Splits are the stated ones, apart by content and by name.

    Raises:
        Unauditable: there is no data.
    """
    found, stated = arrays(folder / "data.npz"), document(folder / "data.json")
    splits = {name: _pictures(found, f"{name}_") for name in SPLITS}
    told = stated.get("splits")
    for name, split in splits.items():
        words = told.get(name) if isinstance(told, dict) else None
        ledger.same("data", f"{name} content", split.content, words.get("sha256") if isinstance(words, dict) else None)
        ledger.same("data", f"{name} ids that stand twice", 0, len(split.names) - len(set(split.names)))
        _in_range(ledger, "data", name, split)
    for at, one in enumerate(SPLITS):
        for other in SPLITS[at + 1 :]:
            both = set(splits[one].digests) & set(splits[other].digests)
            ledger.same("data", f"images of {one} that are in {other}", 0, len(both))
            same = set(splits[one].names) & set(splits[other].names)
            ledger.same("data", f"ids of {one} that are in {other}", 0, len(same))
    known = stated.get("classes")
    classes = len(known) if isinstance(known, list) else known
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise Unauditable(f"data.json says that there are {known!r} classes")
    greatest = max(int(split.labels.max()) for split in splits.values())
    ledger.holds("data", "classes", f"above {greatest}", classes, classes > greatest)
    return Data(splits, payload_digest({name: split.content for name, split in splits.items()}), classes)


def check_extractor(ledger: Ledger, folder: Path, data: Data, wanted: str) -> Judge:
    """The contract is that of its payload, the payload is about this, and the reference's features come out again.

    Raises:
        Unauditable: a file is missing, or the extractor cannot be run.
    """
    said, weights = document(folder / "contract.json"), arrays(folder / "extractor.npz")
    reference = arrays(folder / "reference.npz")
    payload = said.get("payload")
    if not isinstance(payload, dict):
        raise Unauditable("contract.json has no payload")
    contract, digest, split = payload_digest(payload), weights_digest(weights), data.splits["reference"]
    ledger.same("extractor", "contract hash", contract, said.get("sha256"))
    if wanted:
        ledger.same("extractor", "the contract that was asked for", wanted, contract)
    features, probabilities = forward(weights, split.images)
    high, wide, deep = (int(n) for n in split.images.shape[1:])
    side = high if high == wide else [high, wide]
    for name, value in (
        ("schema", SCHEMA),
        ("extractor_sha256", digest),
        ("data_sha256", data.digest),
        ("reference_sha256", split.content),
        ("reference_n", len(split.images)),
        ("reference_features_sha256", weights_digest(reference)),
        ("feature_dim", features.shape[1]),
        ("classes", data.classes),
        ("preprocessing", {"range": [-1, 1], "side": side, "channels": deep}),
    ):
        ledger.same("extractor", f"contract: {name}", value, payload.get(name))
    for name, value in (("features", features), ("probabilities", probabilities)):
        agree(ledger, "extractor", f"{name} of the reference split", value, reference)
    stood = array(reference, "labels", "iu", len(split.labels))
    ledger.same("extractor", "labels of the reference split that differ", 0, int((stood != split.labels).sum()))
    return Judge(weights, digest, payload, contract, features, probabilities)


def check_samples(ledger: Ledger, folder: Path, data: Data, least: int) -> Drawn:
    """Samples are counted by names and by contents.

    Raises:
        Unauditable: there are none.
    """
    stated, pictures = document(folder / "samples.json"), _pictures(arrays(folder / "samples.npz"), "")
    n = len(pictures.images)
    ledger.same("sample", "n", n, stated.get("n"))
    ledger.same("sample", "ids that stand twice", 0, n - len(set(pictures.names)))
    ledger.same("sample", "images that stand twice", 0, n - pictures.different)
    ledger.holds("sample", "different images", f"at least {least}", pictures.different, pictures.different >= least)
    ledger.same("sample", "content", pictures.content, stated.get("content_sha256"))
    ledger.same("sample", "shape", list(data.splits["train"].images.shape[1:]), list(pictures.images.shape[1:]))
    greatest = int(pictures.labels.max())
    ledger.holds("sample", "labels", f"below {data.classes}", greatest, greatest < data.classes)
    _in_range(ledger, "sample", "samples", pictures)
    return Drawn(pictures, stated)


def check_line(ledger: Ledger, folder: Path, data: Data, drawn: Drawn) -> tuple[dict[str, Any], Arrays]:
    """Samples name a model and a configuration of this training, and that names this data and its own encoder.

    Returns:
        the configuration, and the weights of the training encoder.

    Raises:
        Unauditable: there is no training.
    """
    config = document(folder / "config.json")
    models = {
        file_digest(p)[0]: p.name for p in sorted(folder.rglob("*.npz")) if p.is_file() and p.name != "encoder.npz"
    }
    model = drawn.stated.get("train_sha256")
    have = ", ".join(f"{name} {digest}" for digest, name in models.items()) or "no model"
    ledger.holds("train", "the model that samples name", have, model, model in models)
    ledger.same("train", "configuration", file_digest(folder / "config.json")[0], drawn.stated.get("config_sha256"))
    ledger.same("train", "data", data.digest, config.get("data_sha256"))
    encoder = arrays(folder / "encoder.npz") if (folder / "encoder.npz").exists() else {}
    wanted = weights_digest(encoder) if encoder else "none"
    ledger.same("train", "training encoder", wanted, config.get("training_encoder_sha256") or "none")
    return config, encoder


def check_redrawn(ledger: Ledger, folder: Path, config: dict[str, Any], drawn: Drawn, pixel: float) -> None:
    """The samples are what their model makes of their seed and alpha.

    Args:
        pixel: how far one may be off.

    Raises:
        Unauditable: the model cannot be run.
    """
    stated, pictures = drawn.stated, drawn.pictures
    files = [p for p in sorted(folder.rglob("*.npz")) if p.is_file() and p.name != "encoder.npz"]
    file = next((p for p in files if file_digest(p)[0] == stated.get("train_sha256")), None)
    alpha, seed, shape = stated.get("alpha"), stated.get("seed"), config.get("architecture")
    if file is None or not isinstance(shape, dict):
        raise Unauditable("there is no model to draw the samples from")
    if type(seed) is not int or not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not alpha >= 1:
        raise Unauditable(f"no samples are drawn at alpha {alpha!r} with the seed {seed!r}")
    images, labels = redraw(arrays(file), shape, len(pictures.names), float(alpha), seed)
    ledger.same("sample", "labels, drawn again, that differ", 0, int((labels != pictures.labels).sum()))
    if images.shape != pictures.images.shape:
        ledger.same("sample", "shape, drawn again", list(images.shape), list(pictures.images.shape))
        return
    furthest = float(np.abs(images - pictures.images).max())
    ledger.holds("sample", "pixels, drawn again from the model", f"within {pixel:g}", furthest, furthest <= pixel)


def in_common(one: Arrays, other: Arrays) -> list[str]:
    """Names of arrays of `other` whose numbers are those of an array of `one`, whatever it is called or shaped."""
    found = []
    for name, theirs in sorted(other.items()):
        if theirs.dtype.kind == "f" and theirs.size >= _LEAST and float(np.ptp(theirs)) > 0:
            flat = theirs.astype(np.float64).ravel()
            if any(
                mine.size == flat.size and np.array_equal(mine.astype(np.float64).ravel(), flat)
                for mine in one.values()
            ):
                found.append(name)
    return found


def agree(ledger: Ledger, of: str, check: str, made: npt.NDArray[np.float64], stated: Arrays) -> None:
    """Every number of an array within the tolerance, relative to the greatest of them or to 1."""
    allowed = ledger.tolerance * max(1.0, float(np.abs(made).max()))
    wanted = f"{made.shape}, within {allowed:.3g} everywhere"
    try:
        there = array(stated, check.partition(" ")[0], "f", *made.shape)
    except Unauditable as error:
        ledger.holds(of, check, wanted, str(error), False)
        return
    furthest = float(np.abs(there - made).max())
    ledger.holds(of, check, wanted, furthest, furthest <= allowed)


def _pictures(found: Arrays, before: str) -> Pictures:
    images = array(found, f"{before}images", "f", None, None, None, None)
    if images.dtype != np.float32:
        raise Unauditable(f"{before}images are {images.dtype}, not float32")
    labels = array(found, f"{before}labels", "iu", len(images)).astype(np.int64)
    names = [str(name) for name in array(found, f"{before}ids", "iuU", len(images)).tolist()]
    return Pictures(images, labels, names)


def _in_range(ledger: Ledger, of: str, name: str, pictures: Pictures) -> None:
    low, high = float(pictures.images.min()), float(pictures.images.max())
    good = low >= -1 - 1e-6 and high <= 1 + 1e-6 and int(pictures.labels.min()) >= 0
    ledger.holds(of, f"range of {name}", "[-1, 1], labels from 0", [low, high, int(pictures.labels.min())], good)
