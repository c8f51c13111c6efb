"""The dataset contract: what a file of diffraction patterns holds, read, written and checked.

| key | shape, dtype | |
|---|---|---|
| diffraction | (n, N, N) float32 | amplitude, DC at [N/2, N/2], mean over frames of ΣX² near (N/2)² |
| objectGuess | (M, M) complex64 | the true object where it is known, else ones; never a start for a solver |
| probeGuess | (N, N) complex64 | in the units of the diffraction: X² = |FFT2(P·O)|²/N² |
| xcoords, ycoords | (n,) float64 | of a frame's pixel [N/2, N/2], in pixels of the object; x along its columns |
| Y | (n, N, N) complex64 | the true patches; may be missing |
| scan_index | (n,) int64 | which frame of the scan it was; may be missing |
| metadata | a string of JSON | may be missing |

`diff3d` for `diffraction` and an order of (N, N, n) are understood. Nothing pickled is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.npz import read_npz, write_npz
from kernels.diffraction.dose import mean_power

Array = npt.NDArray[Any]

HINT = "the contract stands in jobs/dose/dataset.py: correct the file"

_KEYS = {
    "diffraction": "diffraction",
    "object_guess": "objectGuess",
    "probe_guess": "probeGuess",
    "x": "xcoords",
    "y": "ycoords",
    "patches": "Y",
    "scan_index": "scan_index",
}
_DTYPES: dict[str, Any] = {
    "diffraction": np.float32,
    "object_guess": np.complex64,
    "probe_guess": np.complex64,
    "x": np.float64,
    "y": np.float64,
    "patches": np.complex64,
    "scan_index": np.int64,
}
_OPTIONAL = ("patches", "scan_index")

# A half that is normalised by another half's factor is off by what the object scatters there.
_NORMALISED = 2.0


@dataclass(frozen=True)
class Dataset:
    """Frames of one scan.

    Attributes:
        diffraction: float32 (n, N, N), normalised amplitude, fftshifted.
        object_guess: complex64 (M, M).
        probe_guess: complex64 (N, N).
        x, y: float64 (n,), pixels of the object.
        patches: complex64 (n, N, N), or None.
        scan_index: int64 (n,), or None.
        meta: plain JSON values. Of those that this project writes: `photons` asked for per frame, `photons_drawn`
            (mean of these frames), `scale` (root of counts = diffraction·scale), `seed`, `source` (words), `truth`
            (SHA-256 of the true object, or null).
    """

    diffraction: npt.NDArray[np.float32]
    object_guess: npt.NDArray[np.complex64]
    probe_guess: npt.NDArray[np.complex64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    patches: npt.NDArray[np.complex64] | None = None
    scan_index: npt.NDArray[np.int64] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.diffraction)

    @property
    def size(self) -> int:
        """N, the side of a frame."""
        return int(self.diffraction.shape[-1])

    @property
    def scale(self) -> float:
        """Root of counts for one unit of diffraction: counts = (diffraction·scale)².

        Raises:
            BadInput: the metadata does not say.
        """
        found = self.meta.get("scale")
        if not isinstance(found, (int, float)) or not found > 0:
            raise BadInput(f"metadata: expected a positive `scale`, found {found!r}", hint=HINT)
        return float(found)

    def counts(self) -> npt.NDArray[np.float64]:
        """(n, N, N) photons, rounded to whole ones where the scale is known."""
        return np.rint(np.square(self.diffraction.astype(np.float64) * self.scale))

    def select(self, frames: Array) -> Dataset:
        """Some of its frames, in that order."""
        index = self.scan_index if self.scan_index is not None else np.arange(self.count, dtype=np.int64)
        return Dataset(
            diffraction=self.diffraction[frames],
            object_guess=self.object_guess,
            probe_guess=self.probe_guess,
            x=self.x[frames],
            y=self.y[frames],
            patches=None if self.patches is None else self.patches[frames],
            scan_index=index[frames],
            meta=self.meta,
        )

    def save(self, path: Path) -> None:
        """Write it; the same arrays and metadata give the same bytes.

        Raises:
            BadInput: it violates the contract.
        """
        validate(self)
        arrays: dict[str, Array] = {_KEYS[name]: value for name, value in _arrays(self) if value is not None}
        arrays["metadata"] = np.asarray(json.dumps(dict(self.meta), sort_keys=True, allow_nan=False))
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read a file that keeps the contract to the letter, apart from `diff3d` and the order of its axes.

        Raises:
            BadInput: it does not; names the key, what was expected and what was found.
        """
        arrays = canonical(read_npz(path), str(path))
        found = cls(
            **{name: arrays.get(key) for name, key in _KEYS.items()},  # type: ignore[arg-type]
            meta=metadata_of(arrays.get("metadata"), str(path)),
        )
        validate(found, where=str(path))
        return found


def validate(dataset: Dataset | Path, *, where: str = "the dataset") -> None:
    """Check a dataset, or a file.

    Raises:
        BadInput: names the key, what was expected and what was found.
    """
    if isinstance(dataset, Path):
        Dataset.load(dataset)
        return
    for name, value in _arrays(dataset):
        if value is None:
            if name not in _OPTIONAL:
                raise violation(where, _KEYS[name], "an array", "nothing")
            continue
        wanted = np.dtype(_DTYPES[name])
        if not isinstance(value, np.ndarray) or value.dtype != wanted:
            raise violation(where, _KEYS[name], str(wanted), str(getattr(value, "dtype", type(value).__name__)))
    _check_shapes(dataset, where)
    for name, value in _arrays(dataset):
        if value is not None and not np.isfinite(value).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
            raise violation(where, _KEYS[name], "finite numbers", f"{value[bad]} at {list(bad)}")
    _check_amplitude(dataset, where)


def canonical(arrays: Mapping[str, Array], where: str) -> dict[str, Array]:
    """The same arrays with `diffraction` under that name and as (n, N, N).

    Raises:
        BadInput: a key is missing or there twice, or no order of the axes fits the positions and the probe.
    """
    found = dict(arrays)
    if "diff3d" in found:
        if "diffraction" in found:
            raise violation(where, "diffraction", "one of `diffraction` and `diff3d`", "both")
        found["diffraction"] = found.pop("diff3d")
    for name, key in _KEYS.items():
        if key not in found and name not in _OPTIONAL:
            raise violation(where, key, "an array", f"none; there are {', '.join(sorted(found)) or 'no keys'}")
    count, frame = np.shape(found["xcoords"]), np.shape(found["probeGuess"])
    for key in ("diffraction", "Y"):
        if key not in found or len(count) != 1:
            continue
        shape = found[key].shape
        if shape != (*count, *frame) and shape == (*frame, *count):
            found[key] = np.ascontiguousarray(np.moveaxis(found[key], -1, 0))
    return found


def metadata_of(found: Array | None, where: str) -> dict[str, Any]:
    """What the key `metadata` says; text that is no JSON stands under `text`."""
    if found is None:
        return {}
    if found.dtype.kind != "U" or found.ndim != 0:
        raise violation(where, "metadata", "one plain string", f"{found.dtype} {found.shape}")
    try:
        value = json.loads(str(found))
    except ValueError:
        return {"text": str(found)}
    if not isinstance(value, dict):
        raise violation(where, "metadata", "a JSON object", type(value).__name__)
    return value


def violation(where: str, key: str, expected: str, found: str) -> BadInput:
    """What every breach of the contract is told as."""
    return BadInput(f"{where}: {key}: expected {expected}, found {found}", hint=HINT)


def _arrays(dataset: Dataset) -> list[tuple[str, Any]]:
    return [(name, getattr(dataset, name)) for name in _KEYS]


def _check_shapes(dataset: Dataset, where: str) -> None:
    shape = dataset.diffraction.shape
    if len(shape) != 3 or shape[0] < 1 or shape[1] != shape[2] or shape[1] < 2 or shape[1] % 2:
        raise violation(where, "diffraction", "(n, N, N) with n at least 1 and N even", str(shape))
    count, size = shape[0], shape[1]
    wanted: dict[str, tuple[int, ...]] = {
        "probe_guess": (size, size),
        "x": (count,),
        "y": (count,),
        "patches": (count, size, size),
        "scan_index": (count,),
    }
    for name, want in wanted.items():
        value = getattr(dataset, name)
        if value is not None and value.shape != want:
            raise violation(where, _KEYS[name], str(want), str(value.shape))
    side = dataset.object_guess.shape
    if len(side) != 2 or side[0] != side[1] or side[0] < size:
        raise violation(where, "objectGuess", f"(M, M) with M at least {size}", str(side))
    for name in ("x", "y"):
        value = getattr(dataset, name)
        if not np.isfinite(value).all():
            continue  # said by the check of all numbers
        low, high = float(value.min()), float(value.max())
        if low < size / 2 or high > side[0] - size / 2:
            inside = f"patches inside the object, {size // 2} to {side[0] - size // 2}"
            raise violation(where, _KEYS[name], inside, f"{low:g} to {high:g}")


def _check_amplitude(dataset: Dataset, where: str) -> None:
    least = float(dataset.diffraction.min())
    if least < 0:
        raise violation(where, "diffraction", "amplitudes, not negative", f"{least:g}")
    power = mean_power(dataset.diffraction)
    wanted = (dataset.size / 2) ** 2
    if not wanted / _NORMALISED < power < wanted * _NORMALISED:
        raise violation(where, "diffraction", f"a mean ΣX² of about (N/2)² = {wanted:g}", f"{power:g}")
    if not np.abs(dataset.probe_guess).max() > 0:
        raise violation(where, "probeGuess", "a probe", "zeros")
