"""Reads weights in an older form: a dict saved by torch, with int8 weights and float biases.

    NAME.q       int8, the tensor's shape
    NAME.s       float, one number or one per output channel
    LAYER.bias   float, as it is
    __meta__     plain values about the run; only a number of channels in it is looked at

NAME is LAYER.weight. Layers are called conv1, conv2, conv3, or 0, 2, 4 as a `torch.nn.Sequential` numbers them,
with or without a common prefix; other names are told with `layers`. The file is read as plain tensors only, so
that nothing in it can run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kernels.postfilter.quantised import FileRefused
from kernels.postfilter.weights import Weights, shapes

META = "__meta__"
LAYERS = (("conv1", "conv2", "conv3"), ("0", "2", "4"))
CHANNELS = ("h", "hidden")


def read(path: Path, layers: Sequence[str] | None = None) -> Weights:
    """The weights of such a file, q·s in float32.

    Raises:
        FileRefused: not such a file; or tensors missing, extra, or of a wrong shape or type, each named.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        found = torch.load(Path(path), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in the unpickler in as many ways as there are
        raise FileRefused(f"{path} is no whole file of plain tensors saved by torch: {_line(error)}") from error
    if not isinstance(found, dict):
        raise FileRefused(f"{path} holds a {type(found).__name__}, where a dict of tensors is expected")
    return from_dict(found, str(path), layers)


def from_dict(found: Mapping[Any, Any], name: str = "the file", layers: Sequence[str] | None = None) -> Weights:
    """The same from the dict itself; `name` is what a refusal calls it."""
    keys = {str(key) for key in found} - {META}
    layers = list(layers) if layers is not None else _layers(keys)
    expected = [f"{layer}.{part}" for layer in layers for part in ("weight.q", "weight.s", "bias")]
    if missing := [key for key in expected if key not in keys]:
        raise FileRefused(f"{name} lacks {', '.join(missing)}")
    if extra := sorted(keys - set(expected)):
        raise FileRefused(f"{name} holds {', '.join(extra)}, which this operator has not")
    tensors = {key: _array(found[key], f"{key} of {name}", integer=key.endswith(".q")) for key in expected}

    h = tensors[f"{layers[0]}.bias"].size
    told = [f"{META} of {name} tells {key} {meta[key]}" for meta in [found.get(META)] if isinstance(meta, Mapping)
            for key in CHANNELS if isinstance(meta.get(key), int) and meta[key] != h]  # fmt: skip
    if told:
        raise FileRefused(f"{told[0]}, and {layers[0]}.bias has {h} channels")
    weights, wrong = {}, []
    for k, layer in enumerate(layers, 1):
        q, s, bias = (tensors[f"{layer}.{part}"] for part in ("weight.q", "weight.s", "bias"))
        shape = shapes(max(h, 1))[f"w{k}"]
        if q.shape != shape:
            wrong.append(f"{layer}.weight.q is {q.shape} and must be {shape}")
        if s.size != 1 and s.shape != shape[:1]:
            wrong.append(f"{layer}.weight.s is {s.shape} and must be one number or {shape[:1]}")
        if bias.shape != shape[:1]:
            wrong.append(f"{layer}.bias is {bias.shape} and must be {shape[:1]}")
        if not wrong:
            weights[f"w{k}"], weights[f"b{k}"] = q.astype(np.float32) * s.reshape(-1, 1, 1, 1), bias
    if wrong:
        raise FileRefused(f"{name}, {h} channels by its first bias: {'; '.join(wrong)}")
    return Weights.of(weights)


def _layers(keys: set[str]) -> list[str]:
    """The three layers by the usual names that fit most keys; a common prefix is taken from the keys."""
    choices = []
    for names in LAYERS:
        prefixes = {key[: key.index(f"{names[0]}.")] for key in keys if _names(key, names[0])} or {""}
        choices += [[prefix + name for name in names] for prefix in sorted(prefixes)]
    return max(choices, key=lambda layers: sum(key.startswith(f"{layer}.") for key in keys for layer in layers))


def _names(key: str, layer: str) -> bool:
    return key.startswith(f"{layer}.") or f".{layer}." in key


def _array(value: Any, what: str, *, integer: bool) -> npt.NDArray[Any]:
    """A tensor as an array: int8 as it is, floats as float32."""
    if isinstance(value, float) and not integer:
        value = torch.tensor(value)
    if not isinstance(value, torch.Tensor):
        raise FileRefused(f"{what} is a {type(value).__name__}, where a tensor is expected")
    if integer and value.dtype != torch.int8:
        raise FileRefused(f"{what} is {value.dtype}, where int8 is expected")
    if not integer and not value.is_floating_point():
        raise FileRefused(f"{what} is {value.dtype}, where floating point numbers are expected")
    plain = value.detach()  # a saved parameter wants its gradient still
    return np.asarray(plain.numpy() if integer else plain.float().numpy())


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:160]
