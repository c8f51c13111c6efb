"""What a program wrote: its floats and its effective input, believed only after a look.

Nothing here trusts a file: it may be a link to an old one, a pipe that never ends, too large, or cut short.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST_LIMIT = 1 << 20
_HEADER_ROOM = 1 << 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Format(StrEnum):
    """How the floats are written; the last two are raw, little-endian, in C order."""

    NPY = "npy"
    NPZ = "npz"
    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def file(self) -> str:
        return f"output.{self}" if self in (Format.NPY, Format.NPZ) else "output.bin"


@dataclass(frozen=True)
class Image:
    """The floats that a program must write.

    Attributes:
        shape: in C order, slowest first.
        array: the name in an .npz; "" for the only one in it.
    """

    format: Format
    shape: tuple[int, ...]
    array: str = ""


class Unusable(Exception):
    """What is wrong with an output, as a sentence."""


def read(path: Path, image: Image, made: bool | None) -> npt.NDArray[Any]:
    """The floats, checked.

    Raises:
        Unusable: they are not what was asked for.
    """
    info = _plain(path, "its floats")
    if made is False or (made is None and info.st_nlink > 1):
        raise Unusable(f"the program did not make {path.name} itself: it is a file from elsewhere under that name")
    count = math.prod(image.shape)
    try:
        if image.format in (Format.FLOAT32, Format.FLOAT64):
            kind = np.dtype("<f4" if image.format is Format.FLOAT32 else "<f8")
            if info.st_size != count * kind.itemsize:
                asked = f"{count * kind.itemsize} bytes ({_times(image.shape)} {image.format})"
                raise Unusable(f"{path.name} has {info.st_size} bytes, not {asked}")
            array: npt.NDArray[Any] = np.fromfile(path, dtype=kind).reshape(image.shape)
        elif image.format is Format.NPY:
            array = np.lib.format.open_memmap(path, mode="r")  # reads the header only
        else:
            array = _from_npz(path, image)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unusable(f"{path.name} is no whole {image.format} file: {error}") from error
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise Unusable(f"{path.name} holds {array.dtype}, not float32 or float64")
    if array.shape != image.shape:
        raise Unusable(f"{path.name} is {_times(array.shape)}, not {_times(image.shape)}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def told(path: Path) -> tuple[str | None, str, str]:
    """(digest, canonical words, why there is no digest) of what the program says about its input."""
    try:
        info = _plain(path, "its effective input")
        if info.st_size > DIGEST_LIMIT:
            raise Unusable(f"{path.name} is larger than {DIGEST_LIMIT >> 20} MiB")
        said = json.loads(path.read_bytes())
    except Unusable as unusable:
        return None, "", str(unusable)
    except (OSError, ValueError, RecursionError) as error:
        return None, "", f"{path.name} is no JSON: {error}"
    if not isinstance(said, dict):
        return None, "", f"{path.name} is no JSON object"
    text, digest = said.get("text", ""), said.get("sha256")
    if not isinstance(text, str) or not (text or digest):
        return None, "", f'{path.name} has neither "text" nor "sha256"'
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        return None, text, f'"sha256" in {path.name} is no SHA-256 in 64 small hexadecimal digits'
    computed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else digest
    if digest is not None and digest != computed:
        return None, text, f'"sha256" in {path.name} is not that of its "text"'
    return computed, text, ""


def difference(theirs: str, ours: str) -> str:
    """The first line in which two effective inputs differ; "" if one of them is not known."""
    if not theirs or not ours:
        return ""
    lines = zip_longest(ours.splitlines(), theirs.splitlines(), fillvalue="(nothing)")
    differing = [(a, b) for a, b in lines if a != b]
    if not differing:
        return "the effective inputs differ in how their lines end"
    first, second = (line if len(line) <= 200 else line[:200] + "..." for line in differing[0])
    more = f" ({len(differing)} lines differ)" if len(differing) > 1 else ""
    return f"the effective input is {first!r} here and {second!r} in the program{more}"


def _from_npz(path: Path, image: Image) -> npt.NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
    listed = ", ".join(sorted(members)) or "nothing"
    if not image.array and len(members) != 1:
        raise Unusable(f"{path.name} holds {listed}, and which one is the image was not said")
    name = image.array or next(iter(members))
    if name not in members:
        raise Unusable(f"{path.name} holds no array {name}, only {listed}")
    if members[name] > math.prod(image.shape) * 8 + _HEADER_ROOM:  # before it is unpacked
        raise Unusable(f"{name} in {path.name} is larger than {_times(image.shape)} numbers")
    with np.load(path, allow_pickle=False) as arrays:
        found: npt.NDArray[Any] = arrays[name]
    return found


def _plain(path: Path, what: str) -> os.stat_result:
    try:
        info = path.lstat()
    except OSError:
        raise Unusable(f"the program did not write {what} to {path.name}") from None
    if not stat.S_ISREG(info.st_mode):
        raise Unusable(f"{path.name} is no file of its own but a link, a folder or a pipe")
    return info


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in shape) or "a single number"
