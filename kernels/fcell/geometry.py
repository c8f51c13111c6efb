"""Laboratory geometry in the MOSFLM convention: detector frame, cell vectors, spindle, sources.

Beam b = (1,0,0), fast f = (0,0,1), slow s = (0,-1,0), normal o = (1,0,0), spindle u = (0,0,1), polarisation
axis (0,0,1). a* lies along the beam and b* in the plane of beam and y; the real vectors follow from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kernels.fcell.types import Beam, Crystal, Detector, FloatArray, Goniometer

BEAM = np.array([1.0, 0.0, 0.0])
FAST = np.array([0.0, 0.0, 1.0])
SLOW = np.array([0.0, -1.0, 0.0])
NORMAL = np.array([1.0, 0.0, 0.0])
SPINDLE = np.array([0.0, 0.0, 1.0])
POLAR_AXIS = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Frame:
    """The detector in metres: `origin` is the outer corner of pixel (0, 0)."""

    pixel_m: float
    origin: FloatArray
    fast: FloatArray
    slow: FloatArray
    normal: FloatArray
    close_distance: float


def frame(detector: Detector) -> Frame:
    """Place the detector so that the beam meets it at its centre (pivot on the beam).

    The centre is given to the corner of a pixel, and half a pixel is added on both axes: MOSFLM counts from
    the middle of a pixel.
    """
    pixel = detector.pixel_mm * 1e-3
    x_beam, y_beam = centre(detector)
    f_beam, s_beam = y_beam + pixel / 2, x_beam + pixel / 2
    origin = -f_beam * FAST - s_beam * SLOW + detector.distance_mm * 1e-3 * BEAM
    return Frame(pixel, origin, FAST.copy(), SLOW.copy(), NORMAL.copy(), float(origin @ NORMAL))


def centre(detector: Detector) -> tuple[float, float]:
    """(Xbeam, Ybeam) as used, in metres: what the detector says, or the default."""
    if detector.centre_mm is not None:
        return detector.centre_mm[0] * 1e-3, detector.centre_mm[1] * 1e-3
    pixel = detector.pixel_mm * 1e-3
    return (detector.slow * pixel + pixel) / 2, (detector.fast * pixel + pixel) / 2


def reciprocal_vectors(cell: tuple[float, ...]) -> FloatArray:
    """(3, 3), rows a*, b*, c* in 1/Å of a crystal that nothing has rotated."""
    a, b, c = cell[:3]
    (ca, cb, cg), (sa, sb, sg) = _cosines_sines(cell[3:])
    volume = a * b * c * math.sqrt(1 + 2 * ca * cb * cg - ca * ca - cb * cb - cg * cg)
    a_star, b_star, c_star = b * c * sa / volume, c * a * sb / volume, a * b * sg / volume
    cos_alpha = (cb * cg - ca) / (sb * sg)
    cos_beta = (cg * ca - cb) / (sg * sa)
    cos_gamma = (ca * cb - cg) / (sa * sb)
    sin_gamma = math.sqrt((1 - cos_gamma) * (1 + cos_gamma))
    return np.array(
        [
            [a_star, 0.0, 0.0],
            [b_star * cos_gamma, b_star * sin_gamma, 0.0],
            # c is square to a* and b*, so it lies along z, and c*·c = 1 gives the last component.
            [c_star * cos_beta, c_star * (cos_alpha - cos_beta * cos_gamma) / sin_gamma, 1.0 / c],
        ]
    )


def real_vectors(crystal: Crystal) -> FloatArray:
    """(3, 3), rows a, b, c in Å, after the misset rotations and before the spindle turns."""
    a_star, b_star, c_star = reciprocal_vectors(crystal.cell)
    volume = 1.0 / float(a_star @ np.cross(b_star, c_star))
    real = volume * np.array([np.cross(b_star, c_star), np.cross(c_star, a_star), np.cross(a_star, b_star)])
    turn = np.eye(3)
    for axis, angle in zip(np.eye(3), crystal.misset_deg, strict=True):
        turn = rotation(axis, math.radians(angle)) @ turn
    # Rows are vectors, so the rotation is applied from the right, transposed.
    return np.asarray(real @ turn.T)


def spindle_rotations(goniometer: Goniometer) -> FloatArray:
    """(phisteps, 3, 3): R(phi0 + n·osc/phisteps) about the spindle."""
    step = goniometer.osc_deg / goniometer.phisteps
    angles = [goniometer.phi0_deg + n * step for n in range(goniometer.phisteps)]
    return np.array([rotation(SPINDLE, math.radians(angle)) for angle in angles])


def rotation(axis: FloatArray, angle: float) -> FloatArray:
    """Rodrigues: right-handed about a unit axis, radians. Exactly the identity at 0."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # 1 - cos by the half angle keeps its digits at the small angles of mosaic domains.
    return np.asarray(np.eye(3) + math.sin(angle) * cross + 2.0 * math.sin(angle / 2) ** 2 * (cross @ cross))


def sources(beam: Beam) -> tuple[FloatArray, FloatArray]:
    """Unit vectors (S, 3) the rays travel along, and wavelengths (S,) in metres."""
    if not beam.sources:
        return BEAM[None].copy(), np.array([beam.wavelength_a * 1e-10])
    directions = np.array([source.direction for source in beam.sources])
    # Divided by the largest component first: the square of a tiny or huge vector has no digits left.
    directions = directions / np.abs(directions).max(axis=1, keepdims=True)
    directions = directions / np.sqrt((directions * directions).sum(axis=1, keepdims=True))
    return directions, np.array([source.wavelength_a * 1e-10 for source in beam.sources])


def polar_basis(incident: FloatArray, axis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit vectors along E and across it, both square to the incident ray.

    Of no use, and 0, where the ray travels along the axis: that is refused where polarisation is not 0.
    """
    across = np.cross(incident, axis)
    length = float(np.sqrt(across @ across))
    if length == 0.0:
        return np.zeros(3), np.zeros(3)
    across = across / length
    return np.asarray(np.cross(across, incident)), across


def _cosines_sines(angles: tuple[float, ...]) -> tuple[list[float], list[float]]:
    cosines, sines = [], []
    for angle in angles:
        # cos 90° is 6e-17 in radians; a right angle shall be one.
        cosines.append(0.0 if angle == 90.0 else math.cos(math.radians(angle)))
        sines.append(1.0 if angle == 90.0 else math.sin(math.radians(angle)))
    return cosines, sines
