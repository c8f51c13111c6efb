"""Steps of a learned arm, its state in a folder, and going on from there as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from core.fsio import digest
from jobs.dose.losses import Loss, poisson, supervised
from jobs.dose.network import Network
from jobs.dose.npz import read_npz, write_npz
from jobs.dose.recipe import Recipe
from jobs.dose.samples import Batch, Samples, groups_of
from kernels.diffraction.seeds import generator

Array = npt.NDArray[Any]
FORMAT = 1
_ARRAYS, _STATE = "state.npz", "state.json"


class StateRefused(ValueError):
    """The folder holds no state that this training may go on from; the message says why."""


class NotFinite(ValueError):
    """A loss or a weight is no number."""


class Hooks(Protocol):
    """What a training tells, and asks, between two steps."""

    def stepped(self, step: int, loss: float) -> None: ...
    def due(self, step: int) -> bool: ...
    def checkpoint(self, training: Training) -> None: ...
    def stopping(self) -> bool: ...


class Training:
    """A network, its optimizer and the number of steps done.

    Args:
        identity: SHA-256 of what else a state belongs to (code); recipe, data, network and backend are added.
    """

    def __init__(self, network: Network, samples: Samples, recipe: Recipe, *, identity: str, backend: str) -> None:
        self.network, self.samples, self.recipe = network, samples, recipe
        self.steps = 0
        self.identity = digest(
            [identity, asdict(recipe), network.architecture.words(), network.pad, backend, samples.digest()]
        )
        keras = network.keras
        schedule = keras.optimizers.schedules.CosineDecay(recipe.rate, max(1, recipe.steps))
        self.optimizer = keras.optimizers.Adam(schedule, global_clipnorm=recipe.clip)
        self.optimizer.build(network.trainable)
        self._step: Any = network.shim.stepper(self._loss(), network.trainable, self.optimizer)

    def _loss(self) -> Loss:
        if self.recipe.arm == "supervised":
            return supervised(self.network)
        return poisson(
            self.network,
            scale=self.samples.data.scale,
            part=self.recipe.held_back or 1.0,
            background=self.recipe.background,
        )

    def run(self, hooks: Hooks) -> bool:
        """To the last step; False: it was asked to stop, and a checkpoint was made.

        Raises:
            NotFinite: a loss is none.
        """
        while self.steps < self.recipe.steps:
            if hooks.stopping():
                hooks.checkpoint(self)
                return False
            tensors = [self.network.keras.ops.convert_to_tensor(t) for t in self._batch(self.steps).tensors]
            loss = float(self.network.shim.host(self._step(*tensors)))
            if not math.isfinite(loss):
                raise NotFinite(f"the loss of step {self.steps + 1} is {loss}")
            self.steps += 1
            hooks.stepped(self.steps, loss)
            if hooks.due(self.steps):
                hooks.checkpoint(self)
        return True

    def final_loss(self) -> float:
        """Of all training groups with all their photons: the number that runs are compared by.

        Raises:
            NotFinite: it is none.
        """
        recipe, network = self.recipe, self.network
        batch = recipe.batch(self.samples.members.shape[1])
        if recipe.arm == "pinn":
            loss = poisson(network, scale=self.samples.data.scale, part=1.0, background=recipe.background)
        else:
            loss = supervised(network)
        run = network.shim.compiled(loss)
        found, count = 0.0, len(self.samples)
        for start in range(0, count, batch):
            which = np.arange(start, start + batch) % count  # the last batch begins again at the first group
            given = (
                self.samples.truths(which)
                if recipe.arm == "supervised"
                else self.samples.photons(which, held_back=0.0, chance=None)
            )
            tensors = [network.keras.ops.convert_to_tensor(t) for t in given.tensors]
            found += float(network.shim.host(run(*tensors)))
        value = found / math.ceil(count / batch)
        if not math.isfinite(value):
            raise NotFinite(f"the loss over all training groups is {value}")
        return value

    def _batch(self, step: int) -> Batch:
        recipe, samples = self.recipe, self.samples
        batch = recipe.batch(samples.members.shape[1])
        which = groups_of(step, groups=len(samples), batch=batch, seed=recipe.seed)
        if recipe.arm == "supervised":
            return samples.truths(which)
        chance = generator("dose-train", "photons", recipe.seed, step)
        return samples.photons(which, held_back=recipe.held_back, chance=chance)

    def save(self, folder: Path) -> None:
        """Write the state into a folder that exists.

        Raises:
            NotFinite: a weight is none; such a state is never kept.
        """
        arrays = self._arrays()
        wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
        if wrong:
            raise NotFinite(f"the state of step {self.steps} is not kept: {wrong[0]} is not finite")
        write_npz(folder / _ARRAYS, arrays)
        state = {"format": FORMAT, "step": self.steps, "identity": self.identity, "arrays": state_digest(arrays)}
        (folder / _STATE).write_text(json.dumps(state, sort_keys=True))

    def load(self, folder: Path) -> None:
        """Take a state over.

        Raises:
            StateRefused: it is damaged, or of another training.
        """
        try:
            state = json.loads((folder / _STATE).read_text())
            arrays = read_npz(folder / _ARRAYS)
            step, identity, whole = int(state["step"]), state["identity"], state["arrays"]
        except Exception as error:
            raise StateRefused(f"{folder} holds no state: {error}") from None
        own = {name: value.shape for name, value in self._arrays().items()}
        if identity != self.identity:
            raise StateRefused(f"the state in {folder} is of another recipe, data, code or backend")
        if state_digest(arrays) != whole or {n: v.shape for n, v in arrays.items()} != own:
            raise StateRefused(f"the state in {folder} was changed: it does not match its digest")
        self.network.take({n.removeprefix("w."): v for n, v in arrays.items() if n.startswith("w.")})
        for number, variable in enumerate(self.optimizer.variables):
            variable.assign(arrays[f"o.{number:03d}"])
        self.steps = step

    def _arrays(self) -> dict[str, Array]:
        host = self.network.shim.host
        return {
            **{f"w.{name}": value for name, value in self.network.weights().items()},
            **{f"o.{i:03d}": host(v.value).copy() for i, v in enumerate(self.optimizer.variables)},
        }


def state_digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of arrays by name, dtype, shape and bytes."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        whole.update(f"{name} {value.dtype.str} {value.shape}\n".encode() + np.ascontiguousarray(value).tobytes())
    return whole.hexdigest()
