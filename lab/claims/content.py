"""What lies in a job's artifacts, read from the bytes: pictures and weights by digest, columns of numbers, documents.

The digests are written down in science terms (a picture's float32 little-endian C-order bytes; an array's name, dtype,
shape and bytes) and made here by code of its own: what made the numbers is not asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.claims.evidence import Images, Weights

if TYPE_CHECKING:
    import numpy as np

_MOST_JSON = 16 << 20
_TELLING = 16  # elements of an array that chance does not repeat
_IMAGES = "images"


@dataclass
class Content:
    """What was read, and what could not be."""

    images: dict[str, Images] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    series: dict[str, tuple[float, ...]] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read(artifacts: Path) -> Content:
    """Everything at the top of `artifacts` that a gate may ask about, and what of it cannot be read."""
    out = Content()
    for path in sorted(artifacts.glob("*.json")) if artifacts.is_dir() else ():
        try:
            if path.stat().st_size > _MOST_JSON:
                raise ValueError(f"it has {path.stat().st_size:,} bytes")
            out.documents[path.name] = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        except (OSError, ValueError, RecursionError) as error:
            out.problems.append(f"artifacts/{path.name} cannot be read ({_said(error)})")
    for path in sorted(artifacts.glob("*.npz")) if artifacts.is_dir() else ():
        try:
            _arrays(path, out)
        except Exception as error:  # whatever an archive that was tampered with makes its reader raise
            out.problems.append(f"artifacts/{path.name} cannot be read ({_said(error)})")
    return out


def content_sha256(digests: tuple[str, ...]) -> str:
    """Of a set of pictures: SHA-256 over their sorted digests, each followed by a newline."""
    whole = hashlib.sha256()
    for each in sorted(digests):
        whole.update(each.encode() + b"\n")
    return whole.hexdigest()


def _arrays(path: Path, out: Content) -> None:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    pictures = [n for n in arrays if n == _IMAGES or n.endswith(f"_{_IMAGES}")]
    for name in pictures:
        split = path.stem if name == _IMAGES else name.removesuffix(f"_{_IMAGES}")
        ids = arrays.get("ids" if name == _IMAGES else f"{split}_ids")
        digests = _pictures(arrays[name])
        known = tuple(str(i) for i in ids.tolist()) if ids is not None and ids.ndim == 1 else ()
        out.images[split] = Images(digests, content_sha256(digests), known)
    if pictures:
        return
    rows = [a.shape[0] for a in arrays.values() if a.ndim == 2]
    if path.stem in ("reference", "features") and rows:
        out.series[f"{path.name}:rows"] = (float(rows[0]),)
    for name, array in arrays.items():
        if array.ndim == 1 and array.dtype.kind in "fiu" and array.size <= 1_000_000:
            out.series[f"{path.name}:{name}"] = tuple(float(v) for v in array.tolist())
    out.weights[path.name] = _weights(arrays)


def _pictures(array: np.ndarray[Any, Any]) -> tuple[str, ...]:
    import numpy as np

    if array.ndim < 2:
        raise ValueError(f"images of shape {array.shape}")
    plain = np.ascontiguousarray(array, dtype="<f4")
    return tuple(hashlib.sha256(memoryview(image).tobytes()).hexdigest() for image in plain)


def _weights(arrays: dict[str, np.ndarray[Any, Any]]) -> Weights:
    import numpy as np

    whole = hashlib.sha256()
    telling: dict[str, str] = {}
    for name in sorted(arrays):
        value = arrays[name]
        plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).reshape(value.shape)
        raw = plain.tobytes()
        whole.update(f"{name} {plain.dtype.str} {plain.shape}\n".encode())
        whole.update(raw)
        if plain.size >= _TELLING and plain.dtype.kind == "f" and bool((plain != plain.flat[0]).any()):
            telling[name] = hashlib.sha256(raw).hexdigest()
    return Weights(whole.hexdigest(), telling)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _said(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
