"""How alike two aligned complex objects are: MS-SSIM, SSIM, PSNR, MAE and MSE of phase and amplitude, relative error.

What every number is of:

- Phase in radians, on the branch that is nearest to the reference's at each pixel, counted from the reference's least.
  Its range is the reference's own: dividing by 2π and calling the range 1 lifts SSIM from 0.69 to 0.91 and PSNR by
  13 dB, and nothing has become better.
- Amplitude in the reference's units. SSIM's range is the reference's greatest less its least; PSNR's peak is its
  greatest. 255 on data around 1 adds 48.13 dB.
- SSIM by scikit-image (Gaussian weights, sigma 1.5, no sample covariance), MS-SSIM by pytorch-msssim (11-pixel window,
  sigma 1.5, five scales, K 0.01 and 0.03), both in double precision. The MS-SSIM's `sigma` of the study is a Gaussian
  blur of the image before it is compared, and not the window's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.devices import KernelRefused
from kernels.diffraction.windows import Real

SIGMA = 1.0  # of the blur before MS-SSIM, pixels
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the five (Wang, Simoncelli and Bovik, 2003)
WINDOW, WINDOW_SIGMA, K = 11, 1.5, (0.01, 0.03)
MOST_TOO_SMALL = (WINDOW - 1) * 2 ** (len(SCALES) - 1)  # 160 pixels: five scales need longer sides
_TRUNCATE = 4.0  # sigmas at which the blur ends


def parameters(sigma: float = SIGMA) -> dict[str, Any]:
    """What the numbers were made with, for the record; plain JSON values."""
    from importlib.metadata import version

    return {
        "ms_ssim": {
            "by": f"pytorch-msssim {version('pytorch-msssim')}",
            "scales": len(SCALES),
            "weights": list(SCALES),
            "window": WINDOW,
            "window_sigma": WINDOW_SIGMA,
            "k": list(K),
            "precision": "float64",
            "blur_sigma": sigma,
            "blurred": "amplitude; the phase for *_blurred only",
        },
        "ssim": {
            "by": f"scikit-image {version('scikit-image')}",
            "gaussian_weights": True,
            "sigma": 1.5,
            "use_sample_covariance": False,
            "k": list(K),
        },
        "psnr_peak": "amplitude: the reference's greatest; phase: the reference's range",
        "phase": "radians, nearest branch to the reference, from the reference's least",
    }


@dataclass(frozen=True)
class Similarity:
    """See the module. What cannot be had is None and `why` says so.

    Attributes:
        ms_ssim_phase, ms_ssim_amplitude: as the study has them: the amplitude blurred, the phase as it is.
        ms_ssim_phase_blurred, ms_ssim_amplitude_unblurred: the other way round.
        mae_phase, mse_phase: radians, radians². mae_amplitude, mse_amplitude: the reference's units.
        psnr_*: dB; infinite where nothing differs.
        relative_error: ‖R - T‖ / ‖T‖.
        range_phase, range_amplitude: of the reference: greatest less least.
        peak_phase, peak_amplitude: of the PSNR.
        scales: of MS-SSIM; 0: none was made.
        why: for each number that is None, a sentence.
    """

    ms_ssim_phase: float | None
    ms_ssim_amplitude: float | None
    ms_ssim_phase_blurred: float | None
    ms_ssim_amplitude_unblurred: float | None
    ssim_phase: float | None
    ssim_amplitude: float | None
    psnr_phase: float | None
    psnr_amplitude: float | None
    mae_phase: float
    mae_amplitude: float
    mse_phase: float
    mse_amplitude: float
    relative_error: float
    range_phase: float
    range_amplitude: float
    peak_phase: float
    peak_amplitude: float
    scales: int
    why: tuple[str, ...] = ()


def similarity(image: npt.NDArray[Any], reference: npt.NDArray[Any], *, sigma: float = SIGMA) -> Similarity:
    """Compare a complex object (H, W) with its reference, to which it is aligned.

    Args:
        sigma: of the blur before MS-SSIM, in pixels; 0: none.

    Raises:
        KernelRefused: the shapes differ, a pixel is not finite, or the reference is zero.
    """
    r, t = _checked(image, reference)
    phases, amplitudes = phase_images(r, t), (np.abs(r), np.abs(t))
    range_phase, range_amplitude = (float(np.ptp(pair[1])) for pair in (phases, amplitudes))
    peak_amplitude = float(amplitudes[1].max())
    why: list[str] = []
    large = min(t.shape) > MOST_TOO_SMALL
    if not large:
        why.append(
            f"no MS-SSIM: its {len(SCALES)} scales need sides of more than {MOST_TOO_SMALL} pixels, and these are "
            f"{t.shape[0]}×{t.shape[1]}"
        )
    for what, extent in (("phase", range_phase), ("amplitude", range_amplitude)):
        if not extent > 0:
            why.append(f"no similarity of the {what}: the reference's is constant, so it has no range")

    def multi(pair: tuple[Real, Real], extent: float, blur_sigma: float) -> float | None:
        if not (large and extent > 0):
            return None
        first, second = (blur(x, blur_sigma) for x in pair)
        return ms_ssim(first, second, extent)

    def single(pair: tuple[Real, Real], extent: float) -> float | None:
        return ssim(*pair, extent) if extent > 0 and min(t.shape) >= WINDOW else None

    if min(t.shape) < WINDOW:
        why.append(f"no SSIM: its window is {WINDOW} pixels wide, and the images are {t.shape[0]}×{t.shape[1]}")
    return Similarity(
        ms_ssim_phase=multi(phases, range_phase, 0.0),
        ms_ssim_amplitude=multi(amplitudes, range_amplitude, sigma),
        ms_ssim_phase_blurred=multi(phases, range_phase, sigma),
        ms_ssim_amplitude_unblurred=multi(amplitudes, range_amplitude, 0.0),
        ssim_phase=single(phases, range_phase),
        ssim_amplitude=single(amplitudes, range_amplitude),
        psnr_phase=psnr(*phases, range_phase) if range_phase > 0 else None,
        psnr_amplitude=psnr(*amplitudes, peak_amplitude),
        mae_phase=mae(*phases),
        mae_amplitude=mae(*amplitudes),
        mse_phase=mse(*phases),
        mse_amplitude=mse(*amplitudes),
        relative_error=relative_error(r, t),
        range_phase=range_phase,
        range_amplitude=range_amplitude,
        peak_phase=range_phase,
        peak_amplitude=peak_amplitude,
        scales=len(SCALES) if large else 0,
        why=tuple(why),
    )


def phase_images(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> tuple[Real, Real]:
    """Phases (H, W) of both in radians, counted from the least of the reference's, which is 0.

    The reference's is cut opposite to its mean direction, and the image's is on the branch nearest to it, so that a
    pixel across the cut is no error of 2π. A pixel without amplitude has the phase of the mean
    direction, and not its reference's.
    """
    turn = complex(np.asarray(reference, dtype=np.complex128).sum())
    turn = turn / abs(turn) if turn != 0 else 1.0
    target = np.angle(reference * np.conj(turn))
    found = np.angle(image * np.conj(turn))
    difference = found - target
    near = target + (difference - 2 * np.pi * np.round(difference / (2 * np.pi)))
    least = float(target.min())
    return near - least, target - least


def ms_ssim(image: Real, reference: Real, data_range: float) -> float:
    """Multi-scale structural similarity of two real images (H, W) by pytorch-msssim, in double precision.

    Raises:
        KernelRefused: a side has not more than 160 pixels, or the range is not above 0.
    """
    import pytorch_msssim  # type: ignore[import-untyped]
    import torch

    _ranged(image, reference, data_range)
    if min(image.shape) <= MOST_TOO_SMALL:
        raise KernelRefused(
            f"MS-SSIM with {len(SCALES)} scales needs sides of more than {MOST_TOO_SMALL} pixels, not {image.shape}"
        )
    first, second = (
        torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))[None, None] for x in (image, reference)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the last digit does not depend on how many there are
    try:
        value = pytorch_msssim.ms_ssim(
            first, second, data_range=data_range, win_size=WINDOW, win_sigma=WINDOW_SIGMA, weights=list(SCALES), K=K
        )
    finally:
        torch.set_num_threads(threads)
    return float(value)


def ssim(image: Real, reference: Real, data_range: float) -> float:
    """Structural similarity of two real images (H, W) by scikit-image, Gaussian weights of sigma 1.5.

    Raises:
        KernelRefused: a side is shorter than the window, or the range is not above 0.
    """
    from skimage.metrics import structural_similarity

    _ranged(image, reference, data_range)
    if min(image.shape) < WINDOW:
        raise KernelRefused(f"SSIM needs sides of at least {WINDOW} pixels, not {image.shape}")
    return float(
        structural_similarity(
            reference, image, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=data_range
        )
    )


def psnr(image: Real, reference: Real, peak: float) -> float:
    """10·log10(peak² / MSE) dB; infinite where nothing differs.

    Raises:
        KernelRefused: the peak is not above 0, or the shapes differ.
    """
    _ranged(image, reference, peak)
    error = mse(image, reference)
    return 10.0 * math.log10(peak * peak / error) if error > 0 else math.inf


def mae(image: Real, reference: Real) -> float:
    """The mean of |image - reference|."""
    return float(np.mean(np.abs(image - reference)))


def mse(image: Real, reference: Real) -> float:
    """The mean of (image - reference)²."""
    return float(np.mean((image - reference) ** 2))


def relative_error(image: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """‖image - reference‖ / ‖reference‖ of complex objects."""
    return math.sqrt(float(np.sum(np.abs(image - reference) ** 2) / np.sum(np.abs(reference) ** 2)))


def blur(image: Real, sigma: float) -> Real:
    """A Gaussian blur of so many pixels (mirrored at the border, cut at 4 sigma); 0: the image itself."""
    from scipy.ndimage import gaussian_filter

    if not sigma >= 0:
        raise KernelRefused(f"a blur has a sigma of at least 0 pixels, not {sigma:g}")
    if sigma == 0:
        return image
    return np.asarray(gaussian_filter(np.asarray(image, dtype=np.float64), sigma, mode="reflect", truncate=_TRUNCATE))


def _ranged(image: Real, reference: Real, extent: float) -> None:
    if image.shape != reference.shape or image.ndim != 2:
        raise KernelRefused(f"images of one size are compared, not {image.shape} and {reference.shape}")
    if not (math.isfinite(extent) and extent > 0):
        raise KernelRefused(f"the range or peak of the data must be above 0, not {extent:g}: say what it is")


def _checked(
    image: npt.NDArray[Any], reference: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    if image.ndim != 2 or image.shape != reference.shape:
        raise KernelRefused(f"objects of one size are compared, not {image.shape} and {reference.shape}")
    r, t = np.asarray(image, dtype=np.complex128), np.asarray(reference, dtype=np.complex128)
    for name, array in (("object", r), ("reference", t)):
        if not np.isfinite(array).all():
            raise KernelRefused(f"the {name} has pixels that are not finite: mask or crop them first")
    if not np.abs(t).max() > 0:
        raise KernelRefused("the reference is zero: nothing can be compared with it")
    return r, t
