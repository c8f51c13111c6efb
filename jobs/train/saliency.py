"""Where a picture draws the eye, from the picture itself: strong edges, spread over their surroundings.

    saliency = min(1, blur(|∇ luma|) / its 99th percentile)

∇ is Sobel's gradient and the blur a Gaussian; the luma is that of ITU-R BT.601. Edge strength is the oldest and
simplest of the feature maps that models of visual attention start from (Itti, Koch and Niebur, IEEE TPAMI 20, 1254,
1998). The challenge's own saliency is made by its networks; this one stands in where they are absent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LUMA = (0.299, 0.587, 0.114)
SIGMA = 2.0  # pixels
PERCENTILE = 99.0
LEVELS = 255


def saliency(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The saliency of an RGB frame (H, W, 3), in 255ths: (H, W) uint8; all 0 where the picture is flat."""
    luma = np.asarray(frame @ np.asarray(LUMA, dtype=np.float32), dtype=np.float32)
    across = ndimage.sobel(luma, axis=1, mode="nearest")
    down = ndimage.sobel(luma, axis=0, mode="nearest")
    strength = ndimage.gaussian_filter(np.hypot(across, down), SIGMA, mode="nearest", truncate=3.0)
    # Below a tenth of a level per pixel (Sobel's weights sum to 8) there is no edge, only the rounding of the sums.
    unit = np.percentile(strength, PERCENTILE)
    if not unit > 0.8:
        return np.zeros(luma.shape, dtype=np.uint8)
    return np.asarray(np.rint(np.minimum(strength / unit, 1) * LEVELS), dtype=np.uint8)
