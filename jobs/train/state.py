"""The state of a training in a folder: everything that going on exactly needs, and refusals for what does not match.

    state.json   step, epoch, place in the epoch, digests of recipe, data and code, versions, digests of the arrays
    *.npy        weights, ema, first_moment, second_moment (float32, one vector each), adam_steps, torch_rng,
                 torch_cuda_rng, numpy_keys; read without pickle

The rate and the pairs of every step follow from the recipe and the step's number, so both the scheduler and the sampler
are the step's number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.failpoint import failpoint
from jobs.train.model import Model

FORMAT = 1
_STATE = "state.json"
_VECTORS = ("weights", "ema", "first_moment", "second_moment")
_ARRAYS = (*_VECTORS, "adam_steps", "torch_rng", "torch_cuda_rng", "numpy_keys")


class StateRefused(ValueError):
    """The folder holds no state that this training may go on from; the message says every reason."""


class Mode(StrEnum):
    """What is taken from a state.

    EXACT goes on as if nothing had happened. MODEL_ONLY takes weights and their average, and starts the recipe from its
    first step with a fresh Adam. RESET_RATE takes Adam's moments too, and starts the recipe from its first step.
    """

    EXACT = "exact"
    MODEL_ONLY = "model-only"
    RESET_RATE = "reset-rate"


@dataclass(frozen=True)
class Identity:
    """What a state belongs to: SHA-256 of the recipe (objective and device included by whoever makes it), the data and
    the code.
    """

    recipe: str
    data: str
    code: str


def save(folder: Path, model: Model, identity: Identity) -> None:
    """Write the state into a folder that exists. Whoever calls it makes the folder whole or absent.

    Raises:
        StateRefused: a value is not finite; such a state is never kept.
        OSError: the disk is full.
    """
    arrays = _arrays(model)
    wrong = [name for name in _VECTORS if not np.isfinite(arrays[name]).all()]
    if wrong or not bool(model.finite):
        raise StateRefused(f"the state of step {model.steps} is not kept: {', '.join(wrong) or 'a loss'} is not finite")
    epoch, place = model.recipe.where(model.steps)
    _, _, position, has_gauss, gauss = _numpy_state()
    state = {
        "format": FORMAT,
        "step": model.steps,
        "epoch": epoch,
        "place": place,
        "h": model.recipe.h,
        **asdict(identity),
        "torch": torch.__version__,
        "numpy_rng": {"position": int(position), "has_gauss": int(has_gauss), "gauss": float(gauss)},
        "arrays": {name: _digest(array) for name, array in arrays.items()},
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        failpoint("train.in_state")
    (folder / _STATE).write_text(json.dumps(state, indent=1, sort_keys=True))


def load(folder: Path, model: Model, identity: Identity, mode: Mode = Mode.EXACT) -> int:
    """Take a state over into a model that was just made; returns the step at which it goes on.

    Only EXACT changes the random number generators of the process.

    Raises:
        StateRefused: a file is missing or changed, or the state belongs to another recipe, data or code (EXACT), or to
            a filter of another width; the model is as it was.
    """
    state = _read(folder)
    reasons = _mismatches(state, model, identity, mode)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in _ARRAYS:
        try:
            arrays[name] = np.load(folder / f"{name}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reasons.append(f"{name}.npy cannot be read ({error})")
            continue
        if _digest(arrays[name]) != state["arrays"].get(name):
            reasons.append(f"{name}.npy was changed: it does not match its digest")
        elif name in _VECTORS and (arrays[name].shape != tuple(model.flat.shape) or arrays[name].dtype != np.float32):
            reasons.append(f"{name}.npy is {arrays[name].dtype} {arrays[name].shape}, not of this model")
        elif name in _VECTORS and not np.isfinite(arrays[name]).all():
            reasons.append(f"{name}.npy is not finite")
    if reasons:
        raise StateRefused(f"{folder} is no state to go on from ({mode}): {'; '.join(reasons)}")
    _take(model, arrays, mode)
    if mode is not Mode.EXACT:
        return 0
    torch.set_rng_state(torch.from_numpy(arrays["torch_rng"]))
    if model.device.type == "cuda" and arrays["torch_cuda_rng"].size:
        torch.cuda.set_rng_state(torch.from_numpy(arrays["torch_cuda_rng"]), model.device)
    rest = state["numpy_rng"]
    np.random.set_state(("MT19937", arrays["numpy_keys"], rest["position"], rest["has_gauss"], rest["gauss"]))
    model.steps = int(state["step"])
    return model.steps


def _arrays(model: Model) -> dict[str, npt.NDArray[Any]]:
    device = model.device
    cuda = torch.cuda.get_rng_state(device).numpy() if device.type == "cuda" else np.zeros(0, dtype=np.uint8)
    keys = _numpy_state()[1]
    return {
        "weights": model.flat.detach().cpu().numpy(),
        "ema": model.ema.cpu().numpy(),
        "first_moment": model.first_moment.cpu().numpy(),
        "second_moment": model.second_moment.cpu().numpy(),
        "adam_steps": model.adam_steps.cpu().numpy(),
        "torch_rng": torch.get_rng_state().numpy(),
        "torch_cuda_rng": cuda,
        "numpy_keys": np.asarray(keys),
    }


def _numpy_state() -> tuple[str, npt.NDArray[np.uint32], int, int, float]:
    state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = state
    return name, keys, position, has_gauss, gauss


def _take(model: Model, arrays: Mapping[str, npt.NDArray[Any]], mode: Mode) -> None:
    with torch.no_grad():
        model.flat.copy_(torch.from_numpy(arrays["weights"]))
        model.ema.copy_(torch.from_numpy(arrays["ema"]))
        if mode is not Mode.MODEL_ONLY:
            model.first_moment.copy_(torch.from_numpy(arrays["first_moment"]))
            model.second_moment.copy_(torch.from_numpy(arrays["second_moment"]))
            model.adam_steps.copy_(torch.from_numpy(arrays["adam_steps"]))


def _read(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / _STATE).read_text())
    except (OSError, ValueError) as error:
        raise StateRefused(f"{folder} is no state to go on from: {_STATE} cannot be read ({error})") from None
    wanted = {"format", "step", "h", "recipe", "data", "code", "torch", "numpy_rng", "arrays"}
    whole = isinstance(state, dict) and wanted <= set(state) and isinstance(state["arrays"], dict)
    if not whole or state["format"] != FORMAT or not {"position", "has_gauss", "gauss"} <= set(state["numpy_rng"]):
        raise StateRefused(f"{folder} is no state to go on from: {_STATE} is not of format {FORMAT}")
    return dict(state)


def _mismatches(state: Mapping[str, Any], model: Model, identity: Identity, mode: Mode) -> list[str]:
    reasons = []
    if state["h"] != model.recipe.h:
        reasons.append(f"it is of a filter of {state['h']} hidden channels, not {model.recipe.h}")
    if mode is Mode.EXACT:
        for name, own in asdict(identity).items():
            if state[name] != own:
                reasons.append(f"it belongs to another {name} ({str(state[name])[:12]}, this is {own[:12]})")
        if state["torch"] != torch.__version__:
            reasons.append(f"it was made by torch {state['torch']}, and this is {torch.__version__}")
        if not isinstance(state["step"], int) or not 0 <= state["step"] <= model.recipe.steps:
            reasons.append(f"its step {state['step']} is not one of this recipe's {model.recipe.steps}")
    return reasons


def _digest(array: npt.NDArray[Any]) -> str:
    head = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
