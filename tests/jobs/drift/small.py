"""A small dataset, and trainings of it that take a second."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.rundir import Checkpoint
from jobs.drift.data import split
from jobs.drift.dataset import ARRAYS, DOCUMENT, Dataset
from jobs.drift.sources import Source
from jobs.drift_kinds.train import DriftTrain
from tests.jobs.context import Recorder

SMALL: dict[str, Any] = {
    "steps": 12, "samples": 6, "positives": 5, "unconditional": 4, "queue": 6, "queue_all": 12, "queue_push": 3,
    "hidden": 16, "depth": 1, "noise": 4, "checkpoint_steps": 4, "row_steps": 5,
}  # fmt: skip


def source(count: int = 60, side: int = 8, classes: int = 3, seed: int = 0) -> Source:
    """A bright bar somewhere, by class, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = rng.normal(-0.8, 0.05, (count, side, side, 1))
    for row, label in enumerate(labels):
        images[row, :, 1 + 2 * label] = 0.8 + 0.05 * rng.normal()
    about = {"name": "bars", "words": "bars"}
    return Source(images.clip(-1, 1).astype(np.float32), labels, tuple("abc"[:classes]), about)


def data(folder: Path, **about: Any) -> Path:
    """The artifacts of a drift-data job."""
    folder.mkdir(parents=True)
    made: Dataset = split(source(**about), reference=12, held=12, seed=1)
    made.save(folder / ARRAYS, folder / DOCUMENT)
    return folder


class Attempt(Recorder):
    """A drift-train context with real checkpoints in a folder, which later attempts of the same job see."""

    def __init__(self, root: Path, inputs: dict[str, Path], number: int = 1, **params: Any) -> None:
        kind = DriftTrain()
        given = kind.Params(**{**SMALL, **params})
        super().__init__(kind, given, root / str(number), inputs=inputs)
        self.attempt = number
        self.checkpoint_folder = root / "checkpoints"
        self.after: int | None = None  # how many progress reports until it is asked to stop
        self.metric_steps: list[int] = []

    @contextlib.contextmanager
    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Iterator[Path]:
        folder = self.checkpoint_folder / f"{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder

    def checkpoints(self) -> Iterator[Checkpoint]:
        there = sorted(self.checkpoint_folder.iterdir(), reverse=True) if self.checkpoint_folder.is_dir() else []
        return iter([Checkpoint(int(p.name), p, {}, 1) for p in there])

    def metrics(self, step: int, **values: Any) -> None:
        self.metric_steps.append(step)

    def progress(self, done: float, total: float, note: str = "") -> None:
        super().progress(done, total, note)
        if self.after is not None and done >= self.after:
            self.stopping = True

    def bytes_of(self, name: str) -> bytes:
        return (self.artifacts / name).read_bytes()
