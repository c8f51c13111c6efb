"""Images in three splits, as files: data.npz and data.json in one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic
from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import images_sha256, splits_sha256

SPLITS = ("train", "reference", "held")
ARRAYS, DOCUMENT = "data.npz", "data.json"
SCHEMA = "lab.drift-data/1"

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Some of the images.

    Attributes:
        images: (n, H, W, C) in [-1, 1]. labels: (n,), numbers of classes. ids: (n,), rows of the source.
    """

    images: Images
    labels: Labels
    ids: Labels


@dataclass(frozen=True)
class Dataset:
    """All splits, and what data.json says of them."""

    splits: dict[str, Split]
    document: dict[str, Any]

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def classes(self) -> list[str]:
        return list(self.document["classes"])

    @property
    def sha256(self) -> str:
        """Of the contents of its splits."""
        return splits_sha256(self.document)

    def save(self, arrays: Path, document: Path) -> None:
        """Write both files."""
        write_npz(
            arrays,
            {
                f"{name}_{what}": value
                for name, split in self.splits.items()
                for what, value in (("images", split.images), ("labels", split.labels), ("ids", split.ids))
            },
        )
        write_atomic(document, (json.dumps(self.document, indent=1, sort_keys=True) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Of a folder with both files.

        Raises:
            BadInput: they are no such files, or the images are not those of which the document speaks.
        """
        hint = "give the artifacts of a drift-data job"
        arrays = read_npz(folder / ARRAYS)
        try:
            document = json.loads((folder / DOCUMENT).read_text("utf-8"))
            if document["schema"] != SCHEMA:
                raise ValueError(f"its schema is {document['schema']}")
            splits = {name: _split(arrays, name) for name in SPLITS}
            told = {name: str(document["splits"][name]["sha256"]) for name in SPLITS}
            classes = [str(name) for name in document["classes"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{folder} holds no data of this kind: {error}", hint=hint) from None
        for name, split in splits.items():
            if images_sha256(split.images) != told[name]:
                raise BadInput(f"the {name} images in {folder} are not those of its {DOCUMENT}", hint=hint)
            if len(split.labels) and (split.labels.min() < 0 or split.labels.max() >= len(classes)):
                raise BadInput(f"the {name} labels in {folder} are not of its {len(classes)} classes", hint=hint)
        return cls(splits, document)


def _split(arrays: dict[str, npt.NDArray[Any]], name: str) -> Split:
    images, labels, ids = (arrays[f"{name}_{what}"] for what in ("images", "labels", "ids"))
    if images.ndim != 4 or images.dtype != np.float32 or labels.shape != ids.shape or len(labels) != len(images):
        raise ValueError(f"{name}: {images.dtype} {images.shape} images and {labels.shape} labels do not go together")
    return Split(images, labels.astype(np.int64), ids.astype(np.int64))
