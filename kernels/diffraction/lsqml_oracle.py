"""One minibatch of LSQML in double precision, as the equations stand, position by position: what the engine is held to.

Nothing here is shared with `lsqml.py` but the settings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def update(
    object_: Array,
    probe: Array,
    amplitude: Array,
    corners: Array,
    fractions: Array,
    batch: Array,
    *,
    damping: float = 0.1,
    step_damping: float = 0.1,
    relaxation: float = 0.9,
) -> tuple[Array, Array]:
    """Object and probe after one minibatch.

    Args:
        object_: (H, W); probe: (N, N).
        amplitude: (n, N, N), DC at [N/2, N/2].
        corners: int (n, 2), first (row, column) of each patch.
        fractions: (n, 2), by which the probe is moved along (rows, columns).
        batch: which of the n.
    """
    n = probe.shape[0]
    object_, probe = object_.astype(np.complex128), probe.astype(np.complex128)
    light = np.zeros(object_.shape)
    for r, c in corners:
        light[r : r + n, c : c + n] += np.abs(probe) ** 2

    seen, lit, chis = [], [], []
    for i in batch:
        r, c = corners[i]
        seen.append(object_[r : r + n, c : c + n].copy())
        lit.append(moved(probe, *fractions[i]))
        psi = lit[-1] * seen[-1]
        far = np.fft.fftshift(np.fft.fft2(psi)) / n
        size = np.abs(far)
        fitted = np.where(size > 0, amplitude[i] * far / np.where(size > 0, size, 1), 0)
        chis.append(np.fft.ifft2(np.fft.ifftshift(fitted)) * n - psi)

    toward_probe = [moved(x * o.conj(), *-fractions[i]) for x, o, i in zip(chis, seen, batch, strict=True)]
    d_probe = sum(toward_probe) / len(batch)
    d_object = np.zeros(object_.shape, np.complex128)
    for i, x, p in zip(batch, chis, lit, strict=True):
        r, c = corners[i]
        d_object[r : r + n, c : c + n] += x * p.conj()
    d_object /= np.sqrt(light**2 + (damping * light.max()) ** 2)

    matrices, sides = [], []
    for i, x, p, o in zip(batch, chis, lit, seen, strict=True):
        r, c = corners[i]
        a, b = d_object[r : r + n, c : c + n] * p, d_probe * o
        mixed = np.sum((a * b.conj()).real)
        matrices.append([[np.sum(np.abs(a) ** 2), mixed], [mixed, np.sum(np.abs(b) ** 2)]])
        sides.append([np.sum((a.conj() * x).real), np.sum((b.conj() * x).real)])
    system = np.array(matrices)
    for k in range(2):
        system[:, k, k] += step_damping * system[:, k, k].mean()
    steps = np.clip([np.linalg.solve(m, s) for m, s in zip(system, np.array(sides), strict=True)], 0, None)
    to_object, to_probe = relaxation * steps.mean(axis=0)
    return object_ + to_object * d_object, probe + to_probe * d_probe


def moved(image: Array, down: float, right: float) -> Array:
    """Moved by a part of a pixel: phases in Fourier space."""
    f = np.fft.fftfreq(image.shape[0])
    phase = np.exp(-2j * np.pi * (down * f[:, None] + right * f[None, :]))
    return np.asarray(np.fft.ifft2(np.fft.fft2(image) * phase))
