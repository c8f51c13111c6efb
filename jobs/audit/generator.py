"""The drifting generator's forward pass in plain NumPy, and the noise of its samples: so that they can be drawn again.

f(ε, c, alpha): a linear layer of the noise, residual blocks of which the class and alpha scale and shift the input,
a layer norm, a linear layer, tanh. In float64, where the model computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.audit.ledger import Unauditable
from jobs.audit.reading import array

Floats = npt.NDArray[np.float64]
# What alpha says is √(alpha-1), alpha-1 and log alpha, centred and scaled by their mean and deviation under
# p(alpha) ∝ alpha⁻³ on [1, 4].
_MEAN = np.array([0.674, 0.6, 0.4076])
_SPREAD = np.array([0.3818, 0.6304, 0.3367])
_EPSILON = 1e-5  # of the layer norms
_STREAM, _BATCH = 6, 250  # the stream of a seed that noise comes from, and the rows that are drawn at a time
_MOST = 10_000_000  # numbers of noise


def redraw(
    weights: Mapping[str, npt.NDArray[Any]], architecture: Mapping[str, Any], n: int, alpha: float, seed: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Images (n, H, W, C) and labels of the first n samples: the classes in turn.

    Args:
        weights: by name, of the model's file. architecture: of the training's configuration.

    Raises:
        Unauditable: these are no weights of such a generator.
    """
    height, width, channels, classes, size, hidden, depth = (
        _whole(architecture, name) for name in ("height", "width", "channels", "classes", "noise", "hidden", "depth")
    )
    if n * size > _MOST or seed < 0:
        raise Unauditable(f"{n} samples of {size} numbers with the seed {seed}")
    chance = np.random.default_rng([seed, _STREAM])
    batches = [chance.standard_normal((_BATCH, size), dtype=np.float32) for _ in range(-(-n // _BATCH))]
    noise = np.concatenate(batches)[:n].astype(np.float64)
    labels = np.arange(n, dtype=np.int64) % classes

    def layer(name: str, x: Floats, rows: int, columns: int, *, bias: bool = True) -> Floats:
        out = x @ array(weights, f"{name}.weight", "f", rows, columns).astype(np.float64).T
        return np.asarray(out + array(weights, f"{name}.bias", "f", rows) if bias else out)

    strength = float(np.float32(alpha))
    told = np.array([math.sqrt(max(strength - 1, 0)), strength - 1, math.log(strength)])
    about = hidden // 2
    classed = array(weights, "label.weight", "f", classes, about).astype(np.float64)[labels]
    guided = layer("guidance", (told - _MEAN) / _SPREAD, about, 3, bias=False)
    condition = _silu(classed) + guided
    x = layer("first", noise, hidden, size)
    for i in range(depth):
        film = layer(f"blocks.{i}.film", condition, 2 * hidden, about)
        y = _norm(x) * (1 + film[:, :hidden]) + film[:, hidden:]
        x = x + layer(f"blocks.{i}.down", _silu(layer(f"blocks.{i}.up", y, hidden, hidden)), hidden, hidden)
    gain, shift = (array(weights, f"norm.{part}", "f", hidden).astype(np.float64) for part in ("weight", "bias"))
    flat = np.tanh(layer("last", _norm(x) * gain + shift, height * width * channels, hidden))
    return np.asarray(flat.reshape(n, height, width, channels)), labels


def _norm(x: Floats) -> Floats:
    centred = x - x.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + _EPSILON))


def _silu(x: Floats) -> Floats:
    return np.asarray(x / (1 + np.exp(-x)))


def _whole(architecture: Mapping[str, Any], name: str) -> int:
    value = architecture.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 16:
        raise Unauditable(f"the configuration's architecture says {name}={value!r}")
    return value
