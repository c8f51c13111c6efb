"""The network's forward in double precision, in NumPy alone: what both Keras backends are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from jobs.dose.architecture import (
    DECODERS,
    FEATURE_GAIN,
    FIELD_FLOOR,
    FIXED_STEPS,
    PROBE_FLOOR,
    UNIT_AMPLITUDE,
    WEIGHT_FLOOR,
    Architecture,
)
from kernels.translation.groups import extract, reassemble

Array = npt.NDArray[Any]
Wide = npt.NDArray[np.complex128]


def patches(
    architecture: Architecture,
    weights: Mapping[str, Array],
    probe: Array,
    diffraction: Array,
    positions: Array,
    pad: int,
    *,
    before: int = 0,
) -> Wide:
    """Object patches of groups as their canvas has them: what the loss is made of. See `forward`."""
    found = forward(architecture, weights, probe, diffraction, positions, pad, before=before)
    return averaged(found, positions, probe, pad)


def forward(
    architecture: Architecture,
    weights: Mapping[str, Array],
    probe: Array,
    diffraction: Array,
    positions: Array,
    pad: int,
    *,
    before: int = 0,
) -> Wide:
    """Object patches of groups, each frame's own.

    Args:
        weights: by name, as `Architecture.shapes`.
        probe: (N, N), in the units of the diffraction.
        diffraction: (B, C, N, N), amplitude, DC at [N/2, N/2].
        positions: (B, C, 2), [x, y] in pixels.
        pad: pixels around a group's canvas, at least its largest offset.
        before: of the one pixel of zeros that a strided layer needs, how many lie before the image. Keras says 0; 1 is
            the other convention, and another network.

    Returns:
        complex128 (B, C, N, N).
    """
    own, level = estimated(probe, diffraction), flat_level(probe, diffraction)
    group = averaged(own, positions, probe, pad)
    features = FEATURE_GAIN * np.stack([own.real - level, own.imag, group.real - level, group.imag], axis=-1)
    size = architecture.size
    flat = features.reshape(-1, size, size, features.shape[-1])
    amplitude, phase = convolved(architecture, weights, flat, before)
    turned: Wide = amplitude * np.exp(1j * phase)
    found: Wide = turned.reshape(diffraction.shape) * level
    return found


def estimated(probe: Array, diffraction: Array) -> Wide:
    """What each frame (..., N, N) says of its patch by itself; see `jobs.dose.architecture`."""
    wide, back = probe.astype(np.complex128), step(probe)
    light = np.fft.ifftshift(diffraction.astype(np.float64), axes=(-2, -1)) ** 2
    found: Wide = np.broadcast_to(flat_level(probe, diffraction), light.shape).astype(np.complex128)
    for _ in range(FIXED_STEPS):
        far = np.fft.fft2(wide * found) / probe.shape[0]
        own = far.real**2 + far.imag**2
        found = found + back * np.fft.ifft2(far * (light - own) / (light + own + FIELD_FLOOR)) * probe.shape[0]
    return found


def flat_level(probe: Array, diffraction: Array) -> npt.NDArray[np.float64]:
    """(..., 1, 1): the amplitude of the flat object that gives as much light as each frame has."""
    light = (diffraction.astype(np.float64) ** 2).sum(axis=(-2, -1), keepdims=True)
    found: npt.NDArray[np.float64] = np.sqrt(light / (np.abs(probe.astype(np.complex128)) ** 2).sum())
    return found


def step(probe: Array) -> Wide:
    """(N, N): conj(P)/(|P|² + floor), of the fixed layer."""
    wide = probe.astype(np.complex128)
    power = wide.real**2 + wide.imag**2
    found: Wide = np.asarray(wide.conj() / (power + PROBE_FLOOR * float(power.max())), np.complex128)
    return found


def averaged(patches: Wide, positions: Array, probe: Array, pad: int) -> Wide:
    """The group's canvas by these patches, weighted by the probe, cut into patches again."""
    size = patches.shape[-1]
    canvas = reassemble(patches, positions, weight=canvas_weight(probe).astype(np.float64), pad=pad)
    found: Wide = extract(canvas, positions, (size, size))
    return found


def canvas_weight(probe: Array) -> npt.NDArray[np.float32]:
    """(N, N): |P|² in parts of its greatest, and a floor."""
    power = np.abs(probe.astype(np.complex128)) ** 2
    weight: npt.NDArray[np.float32] = (power / power.max() + WEIGHT_FLOOR).astype(np.float32)
    return weight


def convolved(
    architecture: Architecture, weights: Mapping[str, Array], features: Array, before: int = 0
) -> tuple[Array, Array]:
    """(amplitude, phase), each (n, N, N), of features (n, N, N, 4)."""
    layers = {layer.name: layer for layer in architecture.convolutions()}

    def layer(name: str, values: Array) -> Array:
        spec = layers[name]
        kernel, bias = (weights[f"{name}.{part}"].astype(np.float64) for part in ("kernel", "bias"))
        out = _convolution(values, kernel, spec.stride, before) + bias
        return np.maximum(out, 0) if spec.relu else out

    encoded = [layer("encoder_0", features)]
    for level in (1, 2, 3):
        encoded.append(layer(f"encoder_{level}b", layer(f"encoder_{level}a", encoded[-1])))
    ends = []
    for name in DECODERS:
        values = encoded[3]
        for level in (2, 1, 0):
            up = values.repeat(2, axis=1).repeat(2, axis=2)
            values = layer(f"{name}_{level}", np.concatenate([up, encoded[level]], axis=-1))
        ends.append(layer(f"{name}_head", values)[..., 0])
    return np.logaddexp(0, ends[0] + UNIT_AMPLITUDE), np.pi * np.tanh(ends[1])


def _convolution(values: Array, kernel: Array, stride: int, before: int) -> Array:
    # "same": one pixel of zeros on both sides, or for stride 2 and an even side one in all.
    first, last = (1, 1) if stride == 1 else (before, 1 - before)
    padded = np.pad(values, ((0, 0), (first, last), (first, last), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    out: Array = np.einsum("nhwiyx,yxio->nhwo", windows, kernel, optimize=True)
    return out
