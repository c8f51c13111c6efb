"""Comparing where an arm has holes: a sparse view leaves pixels of the object without light.

Positions are aligned, and errors averaged, over the pixels that were seen. Structural similarity needs whole images:
there the reference stands in the holes of every arm alike, which lifts the number, the more the less was seen; whoever
reads it must be told. A ring correlation is of the seen pixels alone: mean removed, and both images fade out toward
the holes. Cut off sharply, the same edges in both would correlate at every frequency (0.4 and more with a sixth in
holes), whatever the images are.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from kernels.devices import KernelRefused
from kernels.diffraction.frc import Curve, ring_correlation
from kernels.diffraction.registration import (
    CAP,
    UPSAMPLE,
    Alignment,
    Shift,
    Shifted,
    align,
    find_ramp,
    find_scale,
    find_shift,
    is_flat,
    move,
    without_ramp,
)
from kernels.diffraction.similarity import SIGMA, Similarity, similarity
from kernels.diffraction.windows import ALPHA, Complex

Seen = npt.NDArray[np.bool_]
_ROUNDS = 6
FADE = 8.0  # pixels


def align_seen(image: Complex, reference: Complex, seen: Seen, *, cap: float = CAP, alpha: float = ALPHA) -> Alignment:
    """As `align`, by the pixels that were seen; the others of the result are the reference's.

    Args:
        image, reference: complex (H, W). seen: bool (H, W).

    Raises:
        KernelRefused: as `align`, or nothing was seen.
    """
    if seen.all():
        return align(image, reference, cap=cap, alpha=alpha)
    if not seen.any():
        raise KernelRefused("no pixel of the region was seen")
    still = np.where(seen, reference, 0)
    mine = np.where(seen, image, 0).astype(np.complex128)
    ramp_x, ramp_y = find_ramp(mine, still, alpha=alpha)
    level = without_ramp(np.where(seen, image, image[seen].mean()), ramp_x, ramp_y)
    x = y = 0.0
    taken = 1.0 + 0j  # of the scale, so far
    state = Shifted.APPLIED
    if is_flat(np.where(seen, image, image[seen].mean()), alpha):
        state = Shifted.FLAT
    for _ in range(_ROUNDS if state is Shifted.APPLIED else 0):
        factor = find_scale(np.where(seen, level, 0), still)
        # The reference in the holes pulls the shift to 0, less from round to round.
        whole = np.where(seen, factor * level, reference)
        step = find_shift(whole, reference, cap=cap, alpha=alpha)
        x, y = x + step.x, y + step.y
        if not step.applied or math.hypot(x, y) > cap:
            state = Shifted.OVER_CAP
            level, taken = without_ramp(np.where(seen, image, image[seen].mean()), ramp_x, ramp_y), 1.0 + 0j
            break
        level, taken = move(whole, -step.x, -step.y), taken * factor
        if math.hypot(step.x, step.y) < 1.5 / UPSAMPLE:
            break
    again_x, again_y = find_ramp(np.where(seen, level, 0), still, alpha=alpha)
    level = without_ramp(level, again_x, again_y)
    scale = find_scale(np.where(seen, level, 0), still)
    found = np.where(seen, scale * level, reference)
    shift = Shift(round(x, 6), round(y, 6), state)
    return Alignment(found, shift, ramp_x + again_x, ramp_y + again_y, taken * scale)


def similarity_seen(image: Complex, reference: Complex, seen: Seen, *, sigma: float = SIGMA) -> Similarity:
    """As `similarity` of an image with the reference in its holes; errors are means over what was seen.

    The two SSIMs are of the whole region: see the module.
    """
    found = similarity(np.where(seen, image, reference), reference, sigma=sigma)
    part = float(seen.mean())
    if part == 1.0:
        return found
    decibels = 10 * math.log10(part)
    energy, mine = (float(np.sum(np.abs(t) ** 2)) for t in (reference, reference[seen]))
    return dataclasses.replace(
        found,
        mae_phase=found.mae_phase / part,
        mae_amplitude=found.mae_amplitude / part,
        mse_phase=found.mse_phase / part,
        mse_amplitude=found.mse_amplitude / part,
        psnr_phase=None if found.psnr_phase is None else found.psnr_phase + decibels,
        psnr_amplitude=None if found.psnr_amplitude is None else found.psnr_amplitude + decibels,
        relative_error=found.relative_error * math.sqrt(energy / mine),
    )


def correlation_seen(first: Complex, second: Complex, seen: Seen, *, alpha: float = ALPHA) -> Curve:
    """Ring correlation of what was seen of both: mean removed there, fading out toward the holes.

    Raises:
        KernelRefused: as `ring_correlation`, or the holes leave nothing.
    """
    if seen.all():
        return ring_correlation(first, second, alpha=alpha)
    weight = faded(seen)
    total = float(weight.sum())
    if not total > 0:
        raise KernelRefused("no pixel of the region was seen")
    a, b = (np.where(seen, image, 0) for image in (first, second))
    a, b = ((image - (weight * image).sum() / total) * weight for image in (a, b))
    return ring_correlation(a, b, alpha=alpha)


def faded(seen: Seen) -> npt.NDArray[np.float64]:
    """A weight for each pixel: 0 in the holes, rising as half a cosine over the `FADE` pixels next to them."""
    near = np.clip(distance_transform_edt(seen) / FADE, 0.0, 1.0)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * near), dtype=np.float64)
