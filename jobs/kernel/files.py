"""The files that a `kernel` job is given: read, and refused in one sentence, at submit and again where it runs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from kernels.devices import KernelRefused

ARRAYS = {"translation": ("images", "offsets"), "postfilter": ("frames",)}


def refuse_bad(kernel: str, name: str, path: Path) -> None:
    """Look into a file as far as it takes to know that it can be used.

    Raises:
        BadInput: it cannot, and why.
    """
    try:
        if name == "hkl":
            from kernels.fcell.hkl import read_hkl

            read_hkl(path)
        elif name == "weights":
            from kernels.postfilter.quantised import read

            read(path)
        else:
            read_arrays(kernel, path)
    except KernelRefused as error:
        raise BadInput(str(error)) from None


def read_arrays(kernel: str, path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file, by name.

    Raises:
        BadInput: it is no such file, or an array is missing or cannot be used.
    """
    names = ARRAYS[kernel]
    hint = f"write it with numpy.savez(path, {', '.join(f'{n}={n}' for n in names)})"
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [n for n in names if n not in file.files]
            if missing:
                held = ", ".join(sorted(file.files)) or "nothing"
                raise BadInput(f"{path} has no array {missing[0]!r} (it holds {held})", hint=hint)
            found = {n: file[n] for n in names}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(f"{path} is no .npz file of plain arrays ({error})", hint=hint) from None
    try:
        _check(kernel, found)
    except KernelRefused as error:
        raise BadInput(f"{path}: {error}") from None
    return found


def _check(kernel: str, arrays: dict[str, npt.NDArray[Any]]) -> None:
    if kernel == "translation":
        from kernels.translation.shapes import check_arrays, check_finite

        check_arrays(arrays["images"], arrays["offsets"])
        check_finite(arrays["images"])
    else:
        from kernels.postfilter.shapes import check_frames

        check_frames(arrays["frames"])
