"""The network of the learned arms in Keras 3, written once; TensorFlow or PyTorch by KERAS_BACKEND.

Channels last: diffraction (B, N, N, C), positions (B, 1, 2, C), patches as two parts (B, N, N, C). See
`jobs.dose.architecture` for what it computes and `jobs.dose.network_oracle` for the same in double precision.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import JobFailed
from jobs.dose.architecture import (
    DECODERS,
    FEATURE_GAIN,
    FIELD_FLOOR,
    FIXED_STEPS,
    HEAD_START,
    UNIT_AMPLITUDE,
    Architecture,
)
from jobs.dose.network_oracle import canvas_weight, step

Array = npt.NDArray[Any]
BACKENDS = ("tensorflow", "torch")


def load_backend(name: str, *, threads: int, seed: int) -> dict[str, str]:
    """Import Keras on a backend and settle it; returns what was really loaded.

    Raises:
        JobFailed: this process has loaded Keras on another backend, or the other library, already.
    """
    other = next(b for b in BACKENDS if b != name)
    if sys.modules.get(other) is not None:
        raise JobFailed(f"{other} is loaded in this process: {name} needs one of its own", hint="start a new process")
    # Keras imports TensorFlow wherever it is installed, whatever it runs on, and does without where it is not.
    if not any(isinstance(finder, _Barred) and finder.name == other for finder in sys.meta_path):
        sys.meta_path.insert(0, _Barred(other))
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # ~/.keras/keras.json changes numbers (epsilon, floatx) and is declared by nobody: Keras is given an empty home.
    with tempfile.TemporaryDirectory() as home:
        os.environ["KERAS_HOME"] = home
        keras: Any = importlib.import_module("keras")
    found = keras.backend.backend()
    if found != name:
        raise JobFailed(f"Keras runs on {found} in this process, not on {name}", hint="start a new process")
    _shim().settle(threads)
    keras.backend.set_floatx("float32")
    keras.backend.set_image_data_format("channels_last")
    keras.utils.set_random_seed(seed)
    return loaded()


class _Barred(MetaPathFinder, Loader):
    """Makes a library as good as not installed in this process: importing it fails, asking for it breaks nothing.

    None in `sys.modules` would do for `import`, but those that look there for what is loaded (SciPy does, and Keras
    brings it along with scikit-learn) take it for a module.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        # A spec without a file: PyTorch asks where TensorFlow lies.
        return ModuleSpec(fullname, self) if fullname.partition(".")[0] == self.name else None

    def create_module(self, spec: ModuleSpec) -> None:
        raise ModuleNotFoundError(f"{spec.name} is barred: this process runs on another library", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never reached."""


def loaded() -> dict[str, str]:
    """What this process really computes with.

    Raises:
        JobFailed: both libraries are loaded, so nothing can be said.
    """
    keras: Any = sys.modules["keras"]
    name = str(keras.backend.backend())
    other = next(b for b in BACKENDS if b != name)
    if sys.modules.get(other) is not None:
        raise JobFailed(f"{other} was loaded beside {name}", hint="see what imports it: each has a process of its own")
    library: Any = sys.modules[name]
    return {"backend": name, "version": str(library.__version__), "keras": str(keras.__version__), "absent": other}


def _shim() -> Any:
    keras: Any = sys.modules["keras"]
    return importlib.import_module(f"jobs.dose.shim_{keras.backend.backend()}")


class Network:
    """The network with its weights.

    Args:
        probe: complex (N, N), in the units of the diffraction.
        pad: pixels around a group's canvas.
    """

    def __init__(self, architecture: Architecture, probe: Array, *, pad: int, seed: int = 0) -> None:
        self.architecture, self.pad = architecture, pad
        self.shim = _shim()
        self.keras: Any = sys.modules["keras"]
        tensor = self.keras.ops.convert_to_tensor
        self._probe, self._step = (
            (tensor(v.real.astype(np.float32)), tensor(v.imag.astype(np.float32))) for v in (probe, step(probe))
        )
        self._power = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
        self.weight = canvas_weight(probe)
        self._canvas = self.shim.averager(self.weight, pad)
        self.core = _core(self.keras, architecture, seed)

    @property
    def trainable(self) -> list[Any]:
        """Keras variables, in the order of `Architecture.shapes`."""
        found = {layer.name: layer for layer in self.core.layers}
        return [
            getattr(found[layer.name], part)
            for layer in self.architecture.convolutions()
            for part in ("kernel", "bias")
        ]

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """By name, float32."""
        names = self.architecture.shapes()
        return {name: self.shim.host(v.value).copy() for name, v in zip(names, self.trainable, strict=True)}

    def take(self, weights: Mapping[str, Array]) -> None:
        """Take weights over.

        Raises:
            ValueError: they are of another architecture.
        """
        shapes = self.architecture.shapes()
        found = {name: value.shape for name, value in weights.items()}
        if found != shapes:
            wrong = sorted(set(found.items()) ^ set(shapes.items()))[0]
            raise ValueError(f"weights of another network: {wrong[0]} {wrong[1]}")
        for name, variable in zip(shapes, self.trainable, strict=True):
            variable.assign(np.asarray(weights[name], np.float32))

    def forward(self, diffraction: Any, positions: Any) -> tuple[Any, Any]:
        """Amplitude and phase, each (B, N, N, C), of tensors of one static shape."""
        ops = self.keras.ops
        # Of each frame: its light over the flat object's.
        level = ops.sqrt(ops.sum(diffraction * diffraction, axis=(1, 2), keepdims=True) / self._power)
        own = self._estimated(diffraction, level)
        group = self.averaged(*own, positions)
        batch, size, _, members = diffraction.shape
        parts = [FEATURE_GAIN * p for p in (own[0] - level, own[1], group[0] - level, group[1])]
        flat = [ops.reshape(ops.transpose(p, (0, 3, 1, 2)), (batch * members, size, size, 1)) for p in parts]
        ends = self.core(ops.concatenate(flat, axis=-1))
        a, p = (ops.transpose(ops.reshape(e, (batch, members, size, size)), (0, 2, 3, 1)) for e in ends)
        return level * ops.softplus(a + UNIT_AMPLITUDE), np.pi * ops.tanh(p)

    def object_patches(self, diffraction: Any, positions: Any) -> tuple[Any, Any]:
        """Both parts of the patches as their group's canvas has them, (B, N, N, C): what is seen by the probe."""
        ops = self.keras.ops
        amplitude, phase = self.forward(diffraction, positions)
        return self.averaged(amplitude * ops.cos(phase), amplitude * ops.sin(phase), positions)

    def averaged(self, real: Any, imaginary: Any, positions: Any) -> tuple[Any, Any]:
        """Patches as their group's canvas has them; those of a group of one as they are."""
        if real.shape[-1] == 1:
            return real, imaginary
        re, im = self._canvas(real, imaginary, positions)
        return re, im

    def far(self, real: Any, imaginary: Any) -> tuple[Any, Any]:
        """FFT2(P·O)/N of patches (B, N, N, C) as (B, C, N, N), DC at [0, 0]."""
        ops, (pr, pi) = self.keras.ops, self._probe
        re, im = (ops.transpose(v, (0, 3, 1, 2)) for v in (real, imaginary))
        fr, fi = ops.fft2((re * pr - im * pi, re * pi + im * pr))
        return fr / self.architecture.size, fi / self.architecture.size

    def _estimated(self, diffraction: Any, level: Any) -> tuple[Any, Any]:
        ops, size = self.keras.ops, self.architecture.size
        (pr, pi), (sr, si) = self._probe, self._step
        shifted = ops.roll(ops.transpose(diffraction, (0, 3, 1, 2)), (-(size // 2), -(size // 2)), axis=(2, 3))
        light = shifted * shifted
        re = ops.transpose(level, (0, 3, 1, 2)) * ops.ones_like(light)
        im = ops.zeros_like(light)
        for _ in range(FIXED_STEPS):
            fr, fi = ops.fft2((re * pr - im * pi, re * pi + im * pr))
            fr, fi = fr / size, fi / size
            own = fr * fr + fi * fi
            gain = (light - own) / (light + own + FIELD_FLOOR)
            # The inverse by the forward one: conj(FFT(conj x))/N².
            br, bi = ops.fft2((fr * gain, -(fi * gain)))
            dr, di = br / size, -bi / size
            re, im = re + sr * dr - si * di, im + sr * di + si * dr
        return ops.transpose(re, (0, 2, 3, 1)), ops.transpose(im, (0, 2, 3, 1))


def _core(keras: Any, architecture: Architecture, seed: int) -> Any:
    """Features (n, N, N, 4) to the ends of the two decoders (n, N, N, 1)."""
    layers = keras.layers
    made = {}
    for number, spec in enumerate(architecture.convolutions()):
        start = keras.initializers.VarianceScaling(
            scale=2.0 if spec.relu else 2.0 * HEAD_START**2,
            mode="fan_in",
            distribution="truncated_normal",
            seed=seed * 1000 + number,
        )
        made[spec.name] = layers.Conv2D(
            spec.outputs,
            3,
            strides=spec.stride,
            padding="same",
            activation="relu" if spec.relu else None,
            kernel_initializer=start,
            name=spec.name,
        )
    size = architecture.size
    features = keras.Input((size, size, 4))
    encoded = [made["encoder_0"](features)]
    for level in (1, 2, 3):
        encoded.append(made[f"encoder_{level}b"](made[f"encoder_{level}a"](encoded[-1])))
    ends = []
    for name in DECODERS:
        values = encoded[3]
        for level in (2, 1, 0):
            up = layers.UpSampling2D(2, interpolation="nearest")(values)
            values = made[f"{name}_{level}"](layers.Concatenate()([up, encoded[level]]))
        ends.append(made[f"{name}_head"](values))
    return keras.Model(features, ends)
