"""NPZ files whose bytes follow from their arrays alone, and which never run code when they are read."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under sorted names, uncompressed, with a fixed time stamp: equal arrays, equal bytes.

    Raises:
        TypeError: an array holds Python objects.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name]) if np.ndim(arrays[name]) else np.asarray(arrays[name])
            if array.dtype.hasobject:
                raise TypeError(f"{name} holds Python objects")
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.external_attr = 0o644 << 16
            file.writestr(info, data.getvalue())
    write_atomic(path, out.getvalue())


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a file.

    Raises:
        BadInput: there is no such file, it is no NPZ, it is damaged, or it holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", hint="correct the path") from None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path} cannot be read as NPZ: {what}", hint="give an .npz of plain arrays") from None
