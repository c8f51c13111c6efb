"""Does the extractor that judges share weights with the encoder that a model was trained with?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.drift.digests import arrays_sha256

_LEAST = 8  # numbers; smaller arrays may be equal by chance or by a common start


def shared(extractor: Mapping[str, npt.NDArray[Any]], encoder: Mapping[str, npt.NDArray[Any]]) -> str:
    """What the two share, in words; empty: nothing. Names and the order of files do not matter.

    A model trained to please the features that judge it is judged by its own teacher.
    """
    if not encoder:
        return ""
    if arrays_sha256(extractor) == arrays_sha256(encoder):
        return f"both have the digest {arrays_sha256(encoder)}"
    known = {value: name for name, array in extractor.items() if (value := _value(array)) is not None}
    both = [f"{known[value]} is {name}" for name, array in encoder.items() if (value := _value(array)) in known]
    return f"the extractor's {'; '.join(sorted(both))} of the training encoder" if both else ""


def _value(array: npt.NDArray[Any]) -> bytes | None:
    """The numbers of an array of weights; None: too few, or all alike."""
    flat = np.asarray(array)
    if flat.size < _LEAST or flat.dtype.kind != "f" or bool((flat == flat.flat[0]).all()):
        return None
    return np.ascontiguousarray(flat, dtype="<f8").tobytes()
