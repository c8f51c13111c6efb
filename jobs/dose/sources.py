"""What a user brings: an NPZ of the contract, or a measured set of counts, probe and scan.

A measured set has `data` (n, N, N), whole counts; `probe` (N, N), complex; `scan` (n, 2), pixels. Axes of length 1 in
front are dropped, and it may be compressed as a whole (.npz.bz2). What a file is, its first bytes say and never its
name: a job finds its input under another one.
"""

from __future__ import annotations

import bz2
import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.dataset import Dataset, canonical, metadata_of, validate, violation
from jobs.dose.npz import read_npz
from kernels.diffraction.dose import normalisation, whole_counts

Array = npt.NDArray[Any]
Order = Literal["yx", "xy"]
Corner = Literal["corner", "centre"]

MARGIN = 2  # pixels of object around what the patches reach
_BZIP = b"BZh"


@dataclass(frozen=True)
class Measured:
    """Counts that were measured.

    Attributes:
        counts: int64 (n, N, N), DC at [N/2, N/2].
        probe: complex64 (N, N), a guess, scaled for normalised patterns: Σ|P|² = (N/2)².
        x, y: float64 (n,), pixels of an object of side `object_size`.
        object_size: M.
        words: where they come from, and how they were read.
    """

    counts: npt.NDArray[np.int64]
    probe: npt.NDArray[np.complex64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    object_size: int
    words: str


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz, compressed as a whole with bzip2 or not; nothing pickled.

    Raises:
        BadInput: it is none.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(len(_BZIP)) == _BZIP
        if not packed:
            return read_npz(path)
        with bz2.open(path) as stream:
            data = stream.read()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", hint="correct the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} cannot be read as NPZ: {what}", hint="give an .npz of plain arrays") from None


def read_user(path: Path, *, name: str | None = None) -> Dataset:
    """A user's own file in the contract's names: other floating or whole dtypes are converted, patterns normalised.

    Args:
        name: what its user calls the file; None: what it is called here.

    Raises:
        BadInput: it cannot be brought into the contract; names the key, what was expected and what was found.
    """
    where = name or path.name
    arrays = canonical(read_arrays(path), where)
    patterns = _real(arrays, "diffraction", where)
    if patterns.ndim != 3 or not patterns.size:
        raise violation(where, "diffraction", "(n, N, N)", str(patterns.shape))
    if not np.isfinite(patterns).all() or (patterns < 0).any():
        raise violation(where, "diffraction", "finite amplitudes, not negative", "others")
    if not patterns.any():
        raise violation(where, "diffraction", "amplitudes", "only zeros")
    factor = normalisation(patterns)
    meta = metadata_of(arrays.get("metadata"), where)
    if isinstance(meta.get("scale"), (int, float)):
        meta["scale"] = float(meta["scale"]) / factor
    dataset = Dataset(
        diffraction=(patterns.astype(np.float64) * factor).astype(np.float32),
        object_guess=_complex(arrays, "objectGuess", where),
        probe_guess=(_complex(arrays, "probeGuess", where).astype(np.complex128) * factor).astype(np.complex64),
        x=_real(arrays, "xcoords", where).astype(np.float64),
        y=_real(arrays, "ycoords", where).astype(np.float64),
        patches=_complex(arrays, "Y", where) if "Y" in arrays else None,
        scan_index=_real(arrays, "scan_index", where).astype(np.int64) if "scan_index" in arrays else None,
        meta=meta,
    )
    validate(dataset, where=where)
    return dataset


def read_measured(path: Path, *, scan_order: Order = "yx", dc: Corner = "corner", name: str | None = None) -> Measured:
    """A measured set, or a file of the contract whose metadata has the `scale` of its counts.

    Args:
        scan_order: which of the two columns of `scan` is y. No order looks wrong from here: whether the scan fits the
            patterns is seen in a reconstruction, and checked there.
        dc: where the counts have their zero frequency: [0, 0] or [N/2, N/2].
        name: what its user calls the file; None: what it is called here.

    Raises:
        BadInput: a key is missing or does not fit, counts that are none, or the light lies where `dc` says it is not.
    """
    where = name or path.name
    arrays = read_arrays(path)
    if "data" not in arrays and ("diffraction" in arrays or "diff3d" in arrays):
        return _of_contract(path, where)
    for key in ("data", "probe", "scan"):
        if key not in arrays:
            raise violation(where, key, "an array", f"none; there are {', '.join(sorted(arrays)) or 'no keys'}")
    data, scan, probe = _lean(arrays["data"], 3), _lean(arrays["scan"], 2), _lean(arrays["probe"], 2)
    if data.ndim != 3 or data.shape[1] != data.shape[2] or data.shape[1] % 2 or not len(data):
        raise violation(where, "data", "(n, N, N) with N even", str(arrays["data"].shape))
    if scan.shape != (len(data), 2) or np.iscomplexobj(scan) or not np.isfinite(scan).all():
        raise violation(where, "scan", f"({len(data)}, 2) finite numbers", f"{scan.dtype} {arrays['scan'].shape}")
    if probe.shape != data.shape[1:] or not np.iscomplexobj(probe) or not np.isfinite(probe).all():
        expected = f"complex {data.shape[1:]}, one mode"
        raise violation(where, "probe", expected, f"{probe.dtype} {arrays['probe'].shape}")
    if not np.abs(probe).any():
        raise violation(where, "probe", "a probe", "zeros")
    try:
        counts = whole_counts(data)
    except ValueError as error:
        raise violation(where, "data", "counts", str(error)) from None
    counts = _centred(counts, dc, where)
    y, x = (scan[:, scan_order.index(axis)].astype(np.float64) for axis in "yx")
    side = counts.shape[-1]
    extent = max(float(np.ptp(x)), float(np.ptp(y)))
    size = math.ceil(extent) + side + 2 * MARGIN
    size += size % 2
    x, y = (size / 2 + a - (float(a.min()) + float(a.max())) / 2 for a in (x, y))
    words = f"measured {where}, scan read as ({scan_order[0]}, {scan_order[1]}), DC in the {dc}"
    return Measured(counts, _scaled(probe), x, y, size, words)


def _of_contract(path: Path, where: str) -> Measured:
    data = read_user(path, name=where)
    return Measured(
        counts=data.counts().astype(np.int64),
        probe=_scaled(data.probe_guess),
        x=data.x,
        y=data.y,
        object_size=data.object_guess.shape[0],
        words=f"measured {where}",
    )


def _centred(counts: npt.NDArray[np.int64], dc: Corner, where: str) -> npt.NDArray[np.int64]:
    """DC at [N/2, N/2]. The half of the frequencies next to DC has more light than the half farthest from it."""
    shifted = np.fft.fftshift(counts, axes=(-2, -1)) if dc == "corner" else counts
    side = counts.shape[-1]
    inner = shifted[:, side // 4 : side - side // 4, side // 4 : side - side // 4].sum(dtype=np.int64)
    swapped = np.fft.fftshift(shifted, axes=(-2, -1))
    outer = swapped[:, side // 4 : side - side // 4, side // 4 : side - side // 4].sum(dtype=np.int64)
    if outer > inner:
        raise violation(where, "data", f"the zero frequency in the {dc}", "more light where the highest ones would be")
    return np.ascontiguousarray(shifted)


def _scaled(probe: Array) -> npt.NDArray[np.complex64]:
    """Σ|P|² = (N/2)²: over a flat object it gives normalised patterns."""
    wide = probe.astype(np.complex128)
    power = math.fsum((wide.real**2 + wide.imag**2).ravel())
    scaled: npt.NDArray[np.complex64] = (wide * (probe.shape[0] / 2 / math.sqrt(power))).astype(np.complex64)
    return scaled


def _lean(array: Array, axes: int) -> Array:
    """Without axes of length 1 in front of the last `axes`."""
    while array.ndim > axes and array.shape[0] == 1:
        array = array[0]
    return array


def _real(arrays: dict[str, Array], key: str, where: str) -> Array:
    found = arrays[key]
    if found.dtype.kind not in "uif":
        raise violation(where, key, "real numbers", str(found.dtype))
    return found


def _complex(arrays: dict[str, Array], key: str, where: str) -> npt.NDArray[np.complex64]:
    found = arrays[key]
    if found.dtype.kind != "c":
        raise violation(where, key, "complex numbers", str(found.dtype))
    return found.astype(np.complex64)
