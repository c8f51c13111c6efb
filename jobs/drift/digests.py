"""Digests of what a drift package is made of: images, weights, documents. Each is of the content, not of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def canonical(payload: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def payload_sha256(payload: Any) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(payload)).hexdigest()


def image_digests(images: npt.NDArray[Any]) -> list[str]:
    """SHA-256 (hex) of each image's float32 little-endian bytes in C order.

    Args:
        images: (n, H, W, C).
    """
    plain = np.ascontiguousarray(images, dtype="<f4")
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in plain]


def set_digest(digests: Iterable[str]) -> str:
    """SHA-256 (hex) of digests, sorted, each followed by a newline: a set's content, whatever its order."""
    return hashlib.sha256("".join(f"{d}\n" for d in sorted(digests)).encode()).hexdigest()


def images_sha256(images: npt.NDArray[Any]) -> str:
    """SHA-256 (hex) of the content of a set of images (n, H, W, C)."""
    return set_digest(image_digests(images))


def arrays_sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 (hex) of arrays: per name, sorted, its dtype, shape and C-order bytes. No array: that of nothing."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        value = np.asarray(arrays[name])
        plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).reshape(value.shape)
        whole.update(f"{name} {plain.dtype.str} {plain.shape}\n".encode() + plain.tobytes())
    return whole.hexdigest()


def splits_sha256(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the contents of a data.json's splits: what "the data" of a training or a contract are.

    Raises:
        KeyError: it has no splits.
    """
    return payload_sha256({name: part["sha256"] for name, part in document["splits"].items()})
