"""Files of evidence, read with suspicion, and their digests. What cannot be read is said, never guessed."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.audit.ledger import Unauditable

Arrays = dict[str, npt.NDArray[Any]]
_BLOCK = 1 << 16


def file_digest(path: Path) -> tuple[str, int]:
    """(SHA-256 of its bytes, how many).

    Raises:
        Unauditable: it is not there, or cannot be read.
    """
    whole, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
                size += len(block)
    except OSError as error:
        raise Unauditable(f"{path.name}: {os.strerror(error.errno or 0)}") from None
    return whole.hexdigest(), size


def document(path: Path) -> dict[str, Any]:
    """A JSON object. A name that stands twice is refused: two readers would see two documents. So is NaN.

    Raises:
        Unauditable: it is none.
    """
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=_once, parse_constant=_refuse)
    except OSError as error:
        raise Unauditable(f"{path.name}: {os.strerror(error.errno or 0)}") from None
    except (ValueError, RecursionError) as error:
        raise Unauditable(f"{path.name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unauditable(f"{path.name} holds no JSON object")
    return found


def arrays(path: Path) -> Arrays:
    """All arrays of an NPZ; no code in it is run.

    Raises:
        Unauditable: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile) or len(set(file.files)) < len(file.files):
                raise Unauditable(f"{path.name} is no NPZ of arrays with names of their own")
            return {name: np.array(file[name]) for name in file.files}
    except OSError as error:
        raise Unauditable(f"{path.name}: {os.strerror(error.errno) if error.errno else 'damaged'}") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, AttributeError, NotImplementedError) as error:
        raise Unauditable(f"{path.name} cannot be read: {error}") from None
    except Exception as error:  # zlib's and struct's own
        raise Unauditable(f"{path.name} cannot be read: {type(error).__name__}: {error}") from None


def array(given: Mapping[str, npt.NDArray[Any]], name: str, kinds: str, *shape: int | None) -> npt.NDArray[Any]:
    """One array, of a dtype's kind and a shape; None: any length.

    Raises:
        Unauditable: there is no such array.
    """
    found = given.get(name)
    if found is None:
        raise Unauditable(f"there is no array {name}")
    fits = found.ndim == len(shape) and all(w is None or w == h for w, h in zip(shape, found.shape, strict=True))
    if found.dtype.kind not in kinds or not fits or found.size == 0:
        raise Unauditable(f"{name} is {found.dtype} {found.shape}")
    if found.dtype.kind == "f" and not bool(np.all(np.isfinite(found))):
        raise Unauditable(f"{name} has numbers that are not finite")
    return found


def canonical(value: Any) -> str:
    """The one text of a JSON value: names sorted, no spaces, ASCII; written out here, not by a JSON library.

    Raises:
        Unauditable: it has none.
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return '"' + "".join(_letter(c) for c in value) + '"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value == value and value not in (float("inf"), float("-inf")):
        return repr(value)
    if isinstance(value, list):
        return "[" + ",".join(canonical(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"
    raise Unauditable(f"{value!r} has no canonical form")


def payload_digest(value: Any) -> str:
    """SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def picture_digests(images: npt.NDArray[Any]) -> list[str]:
    """SHA-256 of each image's float32 little-endian bytes, rows first."""
    return [hashlib.sha256(np.asarray(image, dtype="<f4").tobytes(order="C")).hexdigest() for image in images]


def content_digest(digests: Iterable[str]) -> str:
    """SHA-256 of digests in rising order, a line each."""
    whole = hashlib.sha256()
    for each in sorted(digests):
        whole.update(each.encode("ascii") + b"\n")
    return whole.hexdigest()


def weights_digest(given: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over arrays by name: a line `NAME DTYPE SHAPE` each (shape as a tuple), then the little-endian bytes."""
    whole = hashlib.sha256()
    for name, found in sorted(given.items()):
        little = np.asarray(found).astype(np.asarray(found).dtype.newbyteorder("<"))
        shape = "(" + ", ".join(map(str, little.shape)) + ("," if little.ndim == 1 else "") + ")"
        whole.update(f"{name} {little.dtype.str} {shape}\n".encode())
        whole.update(little.tobytes(order="C"))
    return whole.hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the name {twice[0]!r} stands twice")
    return dict(pairs)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number")


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _letter(c: str) -> str:
    if c in _SHORT:
        return _SHORT[c]
    if " " <= c <= "~":
        return c
    code = ord(c)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
