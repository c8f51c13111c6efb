"""A simulated probe: a disc with a soft edge and a curved wavefront."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Parts are multiples of this fraction of the peak: cos and sin differ in their last bits from one machine to another,
# and what is rounded that coarsely does not.
GRID = 2.0**-20


def simulated_probe(
    size: int, *, diameter: float | None = None, curvature: float = 1.5, edge: float = 0.15
) -> npt.NDArray[np.complex64]:
    """A probe with finite support, centred on pixel [N/2, N/2], of peak modulus 1.

    Within r < R(1 - edge) the modulus is 1, it falls as a cosine to 0 at R(1 + edge), and the phase is
    curvature·(r/R)², as out of focus. With steps of R and less a few radians cost nothing; from some 12 on 100 epochs
    of LSQML do not get there.

    Args:
        size: N, the side, even.
        diameter: 2R in pixels, to half of the modulus; 0.6·N by default.
        curvature: radians from the centre to R.
        edge: half the width of the edge, in parts of R; 0 is a hard one.

    Returns:
        complex64 (N, N).

    Raises:
        ValueError: N is odd or too small, or the support does not fit into the frame.
    """
    if size < 4 or size % 2:
        raise ValueError(f"a probe has an even side of at least 4 pixels, not {size}")
    radius = (0.6 * size if diameter is None else diameter) / 2
    if not 0 <= edge < 1 or not radius > 0 or radius * (1 + edge) > size / 2:
        raise ValueError(f"a disc of diameter {2 * radius:g} with an edge of {edge:g} does not fit into {size} pixels")
    axis = np.arange(size, dtype=np.float64) - size // 2
    r = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2) / radius
    if edge > 0:
        ramp = np.clip((r - (1 - edge)) / (2 * edge), 0.0, 1.0)
        modulus = 0.5 * (1.0 + np.cos(np.pi * ramp))
    else:
        modulus = (r <= 1.0).astype(np.float64)
    phase = curvature * r**2
    return on_grid(modulus * np.cos(phase), modulus * np.sin(phase))


def on_grid(real: npt.NDArray[np.float64], imaginary: npt.NDArray[np.float64]) -> npt.NDArray[np.complex64]:
    """Both parts rounded to multiples of 2^-20, which complex64 holds exactly up to 16."""
    out = np.empty(real.shape, np.complex64)
    out.real = np.rint(real / GRID) * GRID + 0.0  # + 0: no negative zero
    out.imag = np.rint(imaginary / GRID) * GRID + 0.0
    return out
