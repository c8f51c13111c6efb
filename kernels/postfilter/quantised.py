"""Weights as int8, and the file they are shipped in: equal weights give equal bytes, whatever the file's name.

Each tensor, biases too, has one scale: s = max|w|/127, or 1 where that is 0, and
q = clamp(round(w/s), -127, 127) with ties to the even number, in float32 as a training's forward pass has it.

The file, little-endian, n = 9h² + 56h + 3 bytes of weights and 144 around them:

    8   b"\\x89PF8\\r\\n\\x1a\\n": a transfer as text, or one cut to seven bits, breaks it
    8   uint16 × 4: format version (1), h, number of tensors (6), 0
    72  per tensor, in the order of the operator: its name (2 letters), uint8 dimensions, 0, uint16 × 4 sides
    n   int8: the tensors one after another, C order
    24  float32 × 6: the scales
    32  SHA-256 of everything before
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernels.postfilter.shapes import PostfilterRefused
from kernels.postfilter.weights import MOST_CHANNELS, Weights, shapes

MAGIC = b"\x89PF8\r\n\x1a\n"
VERSION = 1
HEADER, ENTRY, CHECKSUM = struct.Struct("<8s4H"), struct.Struct("<2sBB4H"), 32
LIMIT = 127


class FileRefused(PostfilterRefused):
    """A file is no whole, unchanged file of quantised weights."""


@dataclass(frozen=True)
class Quantised:
    """What is shipped: int8 tensors by name, and one float32 scale for each."""

    values: Mapping[str, npt.NDArray[np.int8]]
    scales: Mapping[str, np.float32]

    @property
    def h(self) -> int:
        return len(self.values["b1"])

    def weights(self) -> Weights:
        """q·s, the weights that a filter runs with."""
        return Weights.of({name: q.astype(np.float32) * self.scales[name] for name, q in self.values.items()})


def quantise(weights: Weights) -> Quantised:
    """Round weights to int8, tensor by tensor."""
    scales = {name: scale(tensor) for name, tensor in weights.tensors().items()}
    return Quantised({name: rounded(t, scales[name]) for name, t in weights.tensors().items()}, scales)


def scale(tensor: npt.NDArray[np.float32]) -> np.float32:
    """max|w|/127; 1 where that is 0, so that a tensor of zeros has a scale and its values stay 0."""
    s = np.float32(np.abs(tensor).max() / np.float32(LIMIT))
    return s if s > 0 else np.float32(1)


def rounded(tensor: npt.NDArray[np.float32], s: np.float32) -> npt.NDArray[np.int8]:
    """clamp(round_half_even(w/s), -127, 127)."""
    q: npt.NDArray[np.int8] = np.clip(np.rint(tensor / s), -LIMIT, LIMIT).astype(np.int8)
    return q


def encode(quantised: Quantised) -> bytes:
    """The bytes of the file."""
    table = shapes(quantised.h)
    parts = [HEADER.pack(MAGIC, VERSION, quantised.h, len(table), 0), _table(quantised.h)]
    parts += [np.ascontiguousarray(quantised.values[name]).tobytes() for name in table]
    parts.append(np.array([quantised.scales[name] for name in table], dtype="<f4").tobytes())
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, name: str = "the file") -> Quantised:
    """Read what `encode` wrote; `name` is what a refusal calls it.

    Raises:
        FileRefused: another kind of file, another version, cut short, with bytes behind its end, or changed.
    """
    if len(data) < HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise FileRefused(f"{name} is no file of quantised postfilter weights, or was cut or changed at its start")
    _, version, h, count, spare = HEADER.unpack_from(data)
    if version != VERSION:
        raise FileRefused(f"{name} has format version {version}, and this program reads version {VERSION}")
    if not 1 <= h <= MOST_CHANNELS:
        raise FileRefused(f"{name} says it has {h} hidden channels: it was changed")
    table = shapes(h)
    sizes = {key: int(np.prod(shape)) for key, shape in table.items()}
    start = HEADER.size + ENTRY.size * len(table)
    length = start + sum(sizes.values()) + 4 * len(table) + CHECKSUM
    if len(data) != length:
        what = "was cut short" if len(data) < length else "has bytes behind its end"
        raise FileRefused(
            f"{name} {what}: {len(data)} bytes where weights of {h} channels have {length}; copy it again"
        )
    if hashlib.sha256(data[:-CHECKSUM]).digest() != data[-CHECKSUM:]:
        raise FileRefused(f"{name} was changed: its bytes do not match its checksum; copy it again")
    scales = np.frombuffer(data, "<f4", len(table), length - CHECKSUM - 4 * len(table)).astype(np.float32)
    whole = np.frombuffer(data, np.int8, sum(sizes.values()), start)
    # A writer other than ours may have signed what no writer may write.
    if count != len(table) or spare != 0 or data[HEADER.size : start] != _table(h):
        raise FileRefused(f"{name} has a table of tensors that is not the one of weights with {h} channels")
    if not (np.isfinite(scales) & (scales > 0)).all() or whole.min() < -LIMIT:
        raise FileRefused(f"{name} has a scale that is not above 0, or an int8 value of -128: no writer may write it")
    ends = np.cumsum(list(sizes.values()))[:-1]
    values = {key: q.reshape(table[key]) for key, q in zip(table, np.split(whole, ends), strict=True)}
    return Quantised(values, dict(zip(table, scales, strict=True)))


def write(path: Path, quantised: Quantised) -> None:
    """Write the file as a whole or not at all: under another name first, then renamed."""
    path = Path(path)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode(quantised))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)  # a temporary file starts readable by its owner only
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def read(path: Path) -> Quantised:
    """Read a file of quantised weights.

    Raises:
        FileRefused: see `decode`.
        OSError: there is no such file, or it cannot be read.
    """
    return decode(Path(path).read_bytes(), str(path))


def _table(h: int) -> bytes:
    entries = []
    for name, shape in shapes(h).items():
        sides = (*shape, 0, 0, 0, 0)[:4]
        entries.append(ENTRY.pack(name.encode(), len(shape), 0, *sides))
    return b"".join(entries)
