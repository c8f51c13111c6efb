"""How arrays travel between the parity run and a side, and how both prove that they mean the same bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def digest(*arrays: npt.NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and C-ordered bytes of each array."""
    whole = hashlib.sha256()
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        whole.update(f"{little.dtype.str} {little.shape}\n".encode())
        whole.update(np.ascontiguousarray(little).tobytes())
    return whole.hexdigest()


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write under a temporary name, then rename: a reader sees all of it or nothing."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    with tmp.open("wb") as f:
        np.save(f, array, allow_pickle=False)
    tmp.replace(path)


def load(path: Path) -> npt.NDArray[Any]:
    """Read-only: a candidate that works in place shows itself instead of changing its own input."""
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    array.setflags(write=False)
    return array
