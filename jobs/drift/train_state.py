"""The state of a drift training in a folder: everything that a step changes, so that going on is exact.

    state.json   step, identity, chances of NumPy, scheduler, step rows, digest of the arrays
    state.npz    g.* generator, e.* average, o.* optimizer, q.* queues, rng.noise, c.* encoder, m.STEP.* kept averages

The rate follows from the scheduler and the step; both are written down and compared. Nothing else of a process is used
up by a step: no global random number generator, and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.errors import BadInput
from core.failpoint import failpoint
from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import arrays_sha256
from jobs.drift.generator import take_weights, weights_of
from jobs.drift.training import StepRow, Training

FORMAT = 1
ARRAYS, STATE = "state.npz", "state.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

Arrays = dict[str, npt.NDArray[Any]]


class StateRefused(ValueError):
    """The folder holds no state that this training may go on from; the message says why."""


@dataclass
class Told:
    """What a training has said so far, which an attempt that goes on has to know.

    Attributes:
        rows: of steps, in order. kept: averages by step, that are to be artifacts. encoder: its weights, or none.
        encoder_error: of the autoencoder.
    """

    rows: list[StepRow] = field(default_factory=list)
    kept: dict[int, Arrays] = field(default_factory=dict)
    encoder: Arrays = field(default_factory=dict)
    encoder_error: float | None = None


def save(folder: Path, training: Training, told: Told, identity: str) -> None:
    """Write the state into a folder that exists. Whoever calls it makes the folder whole or absent.

    Raises:
        StateRefused: a weight or a moment is not finite; such a state is never kept.
    """
    arrays = arrays_of(training, told)
    wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if wrong:
        raise StateRefused(f"the state of step {training.steps} is not kept: {wrong[0]} is not finite")
    write_npz(folder / ARRAYS, arrays)
    failpoint("drift.in_state")
    state = {
        "format": FORMAT,
        "step": training.steps,
        "identity": identity,
        "arrays": arrays_sha256(arrays),
        "chance": training.chance.bit_generator.state,
        "queue_chance": training.queues.chance.bit_generator.state,
        "scheduler": scheduler_of(training),
        "rows": [asdict(row) for row in told.rows],
        "encoder_error": told.encoder_error,
        "torch": torch.__version__,
    }
    (folder / STATE).write_text(json.dumps(state, sort_keys=True))


def load(folder: Path, training: Training, identity: str) -> Told:
    """Take a state over into a training that was just made.

    Raises:
        StateRefused: it is damaged, or of another training; the training is as it was.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        arrays = read_npz(folder / ARRAYS)
        if state["format"] != FORMAT:
            raise ValueError(f"its format is {state['format']}")
        step = int(state["step"])
        rows = [StepRow(**row) for row in state["rows"]]
        chances = state["chance"], state["queue_chance"]
        whole, own, scheduler = state["arrays"], state["identity"], state["scheduler"]
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        raise StateRefused(f"{folder} holds no state: {error}") from None
    if own != identity:
        raise StateRefused(f"the state in {folder} is of another recipe, data, encoder or code")
    if arrays_sha256(arrays) != whole:
        raise StateRefused(f"the state in {folder} was changed: it does not match its digest")
    if state["torch"] != torch.__version__:
        raise StateRefused(f"the state in {folder} was made by torch {state['torch']}, this is {torch.__version__}")
    before = training.steps
    training.steps = step
    if scheduler_of(training) != scheduler:
        training.steps = before
        raise StateRefused(f"the state in {folder} is of another scheduler: {scheduler}")
    _take(training, arrays, chances)
    return Told(rows, _kept(arrays), _under(arrays, "c."), state.get("encoder_error"))


def arrays_of(training: Training, told: Told) -> Arrays:
    """All arrays of the state, by name."""
    return {
        **{f"g.{name}": value for name, value in weights_of(training.generator).items()},
        **{f"e.{name}": value for name, value in weights_of(training.average).items()},
        **_optimizer(training),
        **{f"q.{name}": value for name, value in training.queues.arrays().items()},
        "rng.noise": training.noise.get_state().numpy().copy(),
        **{f"c.{name}": value for name, value in told.encoder.items()},
        **{f"m.{step}.{name}": value for step, kept in told.kept.items() for name, value in kept.items()},
    }


def scheduler_of(training: Training) -> dict[str, Any]:
    """Where the scheduler stands."""
    r = training.recipe
    return {
        "scheduler": r.scheduler,
        "rate": r.rate,
        "warmup_steps": r.warmup_steps,
        "steps": r.steps,
        "step": training.steps,
        "next_rate": training.rate(),
    }


def _optimizer(training: Training) -> Arrays:
    out: Arrays = {}
    for number, parameter in enumerate(training.generator.parameters()):
        moments = training.optimizer.state.get(parameter, {})
        for name in _MOMENTS:
            if name in moments:
                out[f"o.{number:03d}.{name}"] = moments[name].detach().cpu().numpy().copy()
    return out


def _take(training: Training, arrays: Mapping[str, npt.NDArray[Any]], chances: tuple[Any, Any]) -> None:
    take_weights(training.generator, _under(arrays, "g."))
    take_weights(training.average, _under(arrays, "e."))
    training.optimizer.state.clear()
    for number, parameter in enumerate(training.generator.parameters()):
        moments = _under(arrays, f"o.{number:03d}.")
        if moments:
            # AdamW keeps its count of steps on the host.
            training.optimizer.state[parameter] = {
                name: torch.from_numpy(value.copy()).to("cpu" if name == "step" else training.device)
                for name, value in moments.items()
            }
    training.queues.take(_under(arrays, "q."))
    training.noise.set_state(torch.from_numpy(arrays["rng.noise"].copy()))
    training.chance.bit_generator.state = chances[0]
    training.queues.chance.bit_generator.state = chances[1]


def _kept(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[int, Arrays]:
    found: dict[int, Arrays] = {}
    for name, value in _under(arrays, "m.").items():
        step, _, own = name.partition(".")
        found.setdefault(int(step), {})[own] = value
    return dict(sorted(found.items()))


def _under(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
