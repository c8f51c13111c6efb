"""Bring a reconstruction into register with a reference: shift, phase ramp and complex scale, in that order.

A ptychographic object is known only up to these three: the probe can carry a shift, a phase ramp and a factor.
Whatever is compared goes through `align`, the controls too; comparing one arm registered with another that is not
once decided a study.

1. The coarse ramp: the peak of FFT(R·conj(T)) under the window. It comes off first, for a correlation of complex
   images finds nothing where one of them has a ramp.
2. The shift, by scikit-image's `phase_cross_correlation(upsample_factor=50, normalization=None)` on images under the
   window with their mean removed (Guizar-Sicairos, Thurman and Fienup, Opt. Lett. 33, 156, 2008). Its defaults gave
   shifts of up to 12 pixels on poor reconstructions. The window does not move with the content and holds it back,
   so what was found is undone and looked for again until less than a step is left. A shift over the cap is recorded
   and not applied.
3. The shift is undone in Fourier space, on the image continued by its mirror image: this blurs nothing, as
   interpolation would, and a blur would flatter a noisy arm.
4. The ramp again: the peak, then a least-squares plane on the wrapped residual, weighted by |R|·|T| since a pixel
   without amplitude has no phase, until it stays.
5. The complex scale that makes ‖c·R - T‖ least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused
from kernels.diffraction.windows import ALPHA, Complex, Real, prepared, window

UPSAMPLE = 50  # shifts are found to 1/50 pixel
CAP = 4.0  # pixels
_ROUNDS = 6
_PAD = 16  # pixels of mirror image around what is shifted
_FLAT = 1e-6  # of the largest pixel: what single precision leaves of a constant object without its mean


class Shifted(StrEnum):
    """What became of the shift that was found."""

    APPLIED = "applied"
    OVER_CAP = "over the cap, not applied"
    FLAT = "the object is flat: it has no place"


@dataclass(frozen=True)
class Shift:
    """How far the content of a reconstruction lies from that of the reference, in pixels: undone by the negative.

    Attributes:
        x, y: found, along columns and rows.
        state: whether it was undone.
    """

    x: float
    y: float
    state: Shifted

    @property
    def applied(self) -> bool:
        return self.state is Shifted.APPLIED


@dataclass(frozen=True)
class Alignment:
    """A reconstruction in register with its reference.

    Attributes:
        object: complex128 (H, W).
        shift: see there.
        ramp_x, ramp_y: radians per pixel that were taken off.
        scale: the complex factor that was put on, after the ramp (whose phase is 0 in the middle) was taken off.
    """

    object: Complex
    shift: Shift
    ramp_x: float
    ramp_y: float
    scale: complex


def find_shift(
    image: npt.NDArray[Any], reference: npt.NDArray[Any], *, cap: float = CAP, alpha: float = ALPHA
) -> Shift:
    """How far the content of `image` (H, W) lies from that of `reference`, to 1/50 pixel.

    Args:
        cap: a longer shift, in pixels, is not believed.
        alpha: of the Tukey window.

    Raises:
        KernelRefused: the shapes differ, the cap is negative, a pixel is not finite, or the reference is flat.
    """
    from skimage.registration import phase_cross_correlation

    _alike(image, reference)
    if not cap >= 0:
        raise KernelRefused(f"the cap of a shift is at least 0 pixels, not {cap:g}")
    still = prepared(reference, alpha)
    if is_flat(reference, alpha):
        raise KernelRefused("the reference is flat: nothing can be registered with it")
    if is_flat(image, alpha):
        return Shift(0.0, 0.0, Shifted.FLAT)
    x = y = 0.0
    for _ in range(_ROUNDS):
        moving = prepared(move(image, -x, -y) if x or y else image, alpha)
        (dy, dx), _, _ = phase_cross_correlation(still, moving, upsample_factor=UPSAMPLE, normalization=None)
        # Whole steps; + 0.0: no negative zero in tables.
        x, y = (round((v - float(d)) * UPSAMPLE) / UPSAMPLE + 0.0 for v, d in ((x, dx), (y, dy)))
        if math.hypot(x, y) > cap:
            return Shift(x, y, Shifted.OVER_CAP)
        if math.hypot(dx, dy) < 1.5 / UPSAMPLE:
            break
    return Shift(x, y, Shifted.APPLIED)


def is_flat(image: npt.NDArray[Any], alpha: float = ALPHA) -> bool:
    """Is nothing left of the image (H, W) without its mean, but rounding?"""
    return float(np.abs(prepared(image, alpha)).max()) <= _FLAT * float(np.abs(image).max())


def move(image: npt.NDArray[Any], x: float, y: float) -> Complex:
    """Move the content by +x along columns and +y along rows, in Fourier space on the mirror-continued image.

    Whole pixels are moved exactly, and what comes in over the border is the mirror image.
    """
    pad = max(_PAD, math.ceil(max(abs(x), abs(y))))
    pads = [(min(pad, side), min(pad, side)) for side in image.shape]
    wide = np.pad(np.asarray(image, dtype=np.complex128), pads, mode="symmetric")
    if float(x).is_integer() and float(y).is_integer():
        moved = np.roll(wide, (int(y), int(x)), axis=(0, 1))
    else:
        fy, fx = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.fftfreq(wide.shape[1])[None, :]
        moved = np.fft.ifft2(np.fft.fft2(wide) * np.exp(-2j * np.pi * (fy * y + fx * x)))
    (top, _), (left, _) = pads
    return np.ascontiguousarray(moved[top : top + image.shape[0], left : left + image.shape[1]])


def find_ramp(
    image: npt.NDArray[Any], reference: npt.NDArray[Any], *, alpha: float = ALPHA, rounds: int = 8
) -> tuple[float, float]:
    """(x, y) radians per pixel of the phase ramp that `image` (H, W) has over `reference`.

    Raises:
        KernelRefused: the shapes differ, one of them has no energy, or all of it lies on one line.
    """
    _alike(image, reference)
    product = np.asarray(image, dtype=np.complex128) * np.conj(reference)
    weight = np.abs(product)
    if not weight.sum() > 0:
        raise KernelRefused("an object that is zero wherever it is compared has no phase")
    x, y = _peak(product, alpha)
    rows, columns = _centred((product.shape[0], product.shape[1]))
    basis = (np.ones(product.shape), rows + 0 * columns, columns + 0 * rows)
    # Plain sums: those of a BLAS depend on the number of threads in their last digits.
    normal = np.array([[np.sum(weight * a * b) for b in basis] for a in basis])
    for _ in range(rounds):
        left = product * np.exp(-1j * (columns * x + rows * y))
        # Around its mean direction, so that as little as possible is wrapped.
        residual = np.angle(left * np.conj(left.sum()))
        try:
            _, dy, dx = np.linalg.solve(normal, np.array([np.sum(weight * residual * a) for a in basis]))
        except np.linalg.LinAlgError:
            raise KernelRefused("what both objects have lies on one line: no plane fits its phase") from None
        x, y = x + float(dx), y + float(dy)
        if math.hypot(dx * product.shape[1], dy * product.shape[0]) < 1e-9:
            break
    return x, y


def without_ramp(image: npt.NDArray[Any], x: float, y: float) -> Complex:
    """The image less a phase ramp of so many radians per pixel that is 0 in its middle."""
    rows, columns = _centred((image.shape[0], image.shape[1]))
    return np.asarray(image * np.exp(-1j * (columns * x + rows * y)), dtype=np.complex128)


def find_scale(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> complex:
    """The complex c that makes ‖c·image - reference‖ least.

    Raises:
        KernelRefused: the shapes differ, or the image has no energy.
    """
    _alike(image, reference)
    energy = float(np.sum(np.abs(image) ** 2, dtype=np.float64))
    if not energy > 0:
        raise KernelRefused("an object that is zero wherever it is compared has no scale")
    return complex(np.sum(np.conj(image) * reference, dtype=np.complex128) / energy)


def align(image: npt.NDArray[Any], reference: npt.NDArray[Any], *, cap: float = CAP, alpha: float = ALPHA) -> Alignment:
    """All steps of the module's list; the result has the size of the image.

    As many pixels along each border as the shift is long are the mirror image: crop them, from every arm alike.

    Args:
        image, reference: complex (H, W).
        cap: of the shift, in pixels.
        alpha: of the Tukey window.

    Raises:
        KernelRefused: the shapes differ, the image is zero, the reference is flat, or a pixel is not finite.
    """
    first = find_ramp(image, reference, alpha=alpha)
    level = without_ramp(image, *first)
    # Asked of the image as it is: less the reference's own ramp, a constant is one no more.
    flat = Shift(0.0, 0.0, Shifted.FLAT) if is_flat(image, alpha) else None
    shift = flat or find_shift(level, reference, cap=cap, alpha=alpha)
    if shift.applied:
        level = move(level, -shift.x, -shift.y)
    second = find_ramp(level, reference, alpha=alpha)
    level = without_ramp(level, *second)
    scale = find_scale(level, reference)
    return Alignment(scale * level, shift, first[0] + second[0], first[1] + second[1], scale)


def _peak(product: Complex, alpha: float) -> tuple[float, float]:
    """(x, y) radians per pixel of the strongest frequency of R·conj(T) under the window."""
    shape = product.shape[0], product.shape[1]
    spectrum = np.abs(np.fft.fft2(window(shape, alpha) * product))
    row, column = np.unravel_index(int(spectrum.argmax()), shape)
    fy, fx = np.fft.fftfreq(shape[0])[row], np.fft.fftfreq(shape[1])[column]
    return float(2 * np.pi * fx), float(2 * np.pi * fy)


def _centred(shape: tuple[int, int]) -> tuple[Real, Real]:
    """Rows (H, 1) and columns (1, W), 0 in the middle."""
    rows, columns = (np.arange(side, dtype=np.float64) - (side - 1) / 2 for side in shape)
    return rows[:, None], columns[None, :]


def _alike(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
    if image.ndim != 2 or image.shape != reference.shape:
        raise KernelRefused(f"images of one size are aligned, not {image.shape} and {reference.shape}")
