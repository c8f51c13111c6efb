"""The training, from its first step to its last; what happens around a step is a hook's.

No step waits for the device: what a step says of itself is written into a table there, and read at the end of an epoch,
every `READ_EVERY` steps and before a checkpoint. A loss that is no number is found then; the average of the weights
stopped following at the step before, and no checkpoint is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jobs.train.model import Model
from jobs.train.objective import Local, Objective
from jobs.train.passes import Pair, Passes
from jobs.train.recipe import Recipe
from jobs.train.saliency import saliency
from kernels.postfilter.torch_ import plain_float32

READ_EVERY = 20
SALIENCY_BYTES = 1 << 30  # of maps that are kept once they are made


class Frames(Protocol):
    """What a training reads of its data: (n, 2, H, W, 3) uint8 each."""

    @property
    def original(self) -> npt.NDArray[np.uint8]: ...
    @property
    def decoded(self) -> npt.NDArray[np.uint8]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class StepRow:
    """What one optimizer step said of itself.

    Attributes:
        step: from 1, the number of steps made.
        epoch: from 0.
        value: the objective's, mean over the step's pairs; a training value, never a score.
        terms: by name, before they are weighted.
        gradient_norm: before it was clipped.
        ema_distance: Euclidean distance of the average from the weights, after the step.
        seconds: from the step before to this one, on the host.
    """

    step: int
    epoch: int
    value: float
    terms: dict[str, float]
    rate: float
    gradient_norm: float
    ema_distance: float
    seconds: float
    pairs: tuple[int, ...]


class Hooks(Protocol):
    """What happens around the steps of a training."""

    def rows(self, rows: Sequence[StepRow]) -> None:
        """The rows of some steps, in order, as soon as they are read."""
        ...

    def due(self, step: int) -> bool:
        """Whether to write a checkpoint after this many steps."""
        ...

    def checkpoint(self, model: Model) -> None:
        """All rows up to here were given, and all is finite."""
        ...

    def stopping(self) -> bool:
        """Whether to write a checkpoint and end before the next step."""
        ...


class NotFinite(ArithmeticError):
    """A loss or a gradient was no number. The model must be thrown away; the last checkpoint is good.

    Attributes:
        row: of the first such step.
    """

    def __init__(self, row: StepRow) -> None:
        said = ", ".join(f"{name} {value:g}" for name, value in row.terms.items())
        super().__init__(
            f"step {row.step} (epoch {row.epoch}, pairs {list(row.pairs)}) has a loss or a gradient that is no number: "
            f"{said}, gradient norm {row.gradient_norm:g}"
        )
        self.row = row


def train(
    model: Model, frames: Frames, objective: Objective, hooks: Hooks, *, threads: int = 1, read_every: int = READ_EVERY
) -> bool:
    """Train from the model's own step to the recipe's last; whether it got there (else: a stop was wished).

    Args:
        model: new, or one that a state was loaded into.
        threads: on a CPU; with an objective that is a sum over pixels they change no bit.

    Raises:
        NotFinite: see there.
        ValueError: the data has another number of pairs than the recipe.
    """
    recipe = model.recipe
    if len(frames) != recipe.pairs:
        raise ValueError(f"the data has {len(frames)} pairs of frames, and the recipe {recipe.pairs}")
    if model.steps == 0:
        torch.manual_seed(recipe.seed)
        np.random.seed(recipe.seed % 2**32)
    alone = isinstance(objective, Local) or model.device.type != "cpu"
    with (
        _settings(model.device, 1 if alone else threads),
        Passes(recipe.h, objective, model.device, threads) as passes,
        _Feed(recipe, frames, model.device, model.steps) as feed,
    ):
        record = _Record(recipe, objective, model.device, read_every)
        for step in range(model.steps, recipe.steps):
            if hooks.stopping():
                record.give(hooks)
                hooks.checkpoint(model)
                return False
            pairs = feed.next()

            values, passed = model.quantiser(model.flat)
            gradient, terms, value = passes.gradient(values, pairs, recipe.divisor(len(pairs)))
            if passed is not None:
                gradient.mul_(passed)
            norm, distance = model.step(gradient, recipe.rate_of(step), torch.isfinite(value))

            record.add(step, value, terms, norm, distance)
            due = hooks.due(model.steps)
            if due or record.full or model.steps % recipe.steps_per_epoch == 0:
                record.give(hooks)
            if due:
                hooks.checkpoint(model)
    return True


def pair_of(frames: Frames, index: int, *, both: bool, device: torch.device, known: Tensor | None = None) -> Pair:
    """A pair of frames in memory of its own, on the device; its saliency is made unless it is `known`."""
    original, decoded = np.array(frames.original[index]), np.array(frames.decoded[index])
    maps = saliency_of(original, both=both) if known is None else known
    tensors = [torch.from_numpy(original), torch.from_numpy(decoded), maps]
    if device.type == "cuda":
        tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    return Pair(tensors[0], tensors[1], tensors[2], index)


def saliency_of(original: npt.NDArray[np.uint8], *, both: bool) -> Tensor:
    """(1 or 2, H, W) uint8: of the second frame, or of both, of a pair (2, H, W, 3)."""
    return torch.from_numpy(np.stack([saliency(frame) for frame in (original if both else original[1:])]))


class _Feed:
    """The pairs of every step, read by a thread of its own while the step before is computed."""

    def __init__(self, recipe: Recipe, frames: Frames, device: torch.device, step: int) -> None:
        self.recipe, self.frames, self.device = recipe, frames, device
        self.maps: dict[int, Tensor] = {}
        self.reader = ThreadPoolExecutor(1)
        self.following = step
        self.waiting: Future[list[Pair]] | None = self._ask()

    def __enter__(self) -> _Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.shutdown(cancel_futures=True)

    def next(self) -> list[Pair]:
        assert self.waiting is not None
        pairs = self.waiting.result()
        self.waiting = self._ask()
        return pairs

    def _ask(self) -> Future[list[Pair]] | None:
        if self.following >= self.recipe.steps:
            return None
        step, self.following = self.following, self.following + 1
        return self.reader.submit(self._read, step)

    def _read(self, step: int) -> list[Pair]:
        both, found = self.recipe.sal_both_frames, []
        for index in self.recipe.pairs_of(step):
            known = self.maps.get(index)
            if known is None:
                known = saliency_of(np.asarray(self.frames.original[index]), both=both)
                if (len(self.maps) + 1) * known.numel() <= SALIENCY_BYTES:
                    self.maps[index] = known
            found.append(pair_of(self.frames, index, both=both, device=self.device, known=known))
        return found


class _Record:
    """What steps say of themselves, kept on the device until it is read."""

    def __init__(self, recipe: Recipe, objective: Objective, device: torch.device, most: int) -> None:
        self.recipe, self.names = recipe, objective.names
        self.table = torch.zeros((most, 3 + len(self.names)), device=device)
        self.host: list[tuple[int, float]] = []
        self.last = time.perf_counter()

    @property
    def full(self) -> bool:
        return len(self.host) == len(self.table)

    def add(self, step: int, value: Tensor, terms: Tensor, norm: Tensor, distance: Tensor) -> None:
        self.table[len(self.host)] = torch.cat([torch.stack([value, norm, distance]), terms])
        now = time.perf_counter()
        self.host.append((step, now - self.last))
        self.last = now

    def give(self, hooks: Hooks) -> None:
        """Hand over the rows since the last time; this waits for the device.

        Raises:
            NotFinite: one is not, and those before it were handed over.
        """
        good, wrong = self._read()
        if good:
            hooks.rows(good)
        if wrong is not None:
            raise NotFinite(wrong)

    def _read(self) -> tuple[list[StepRow], StepRow | None]:
        numbers = self.table[: len(self.host)].tolist()
        rows: list[StepRow] = []
        for (step, seconds), (value, norm, distance, *terms) in zip(self.host, numbers, strict=True):
            row = StepRow(
                step=step + 1,
                epoch=self.recipe.where(step)[0],
                value=value,
                terms=dict(zip(self.names, terms, strict=True)),
                rate=self.recipe.rate_of(step),
                gradient_norm=norm,
                ema_distance=distance,
                seconds=seconds,
                pairs=self.recipe.pairs_of(step),
            )
            if not all(map(math.isfinite, (value, norm, distance, *terms))):
                return rows, row
            rows.append(row)
        self.host.clear()
        return rows, None


@contextmanager
def _settings(device: torch.device, threads: int) -> Iterator[None]:
    """Whole float32 products, algorithms that give the same bits every time, and so many threads for torch itself."""
    before: Any = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)  # networks of others may have no such algorithm
    try:
        with plain_float32(device):
            yield
    finally:
        torch.set_num_threads(before[0])
        if device.type == "cuda":
            torch.use_deterministic_algorithms(before[1], warn_only=warned)
