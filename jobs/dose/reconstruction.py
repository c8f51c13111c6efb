"""What every arm of the study hands over: an object, where it lies, and which of its pixels were seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.npz import read_npz, write_npz

_HINT = "it is written by dose-train and dose-lsqml; give the folder of such a job"


@dataclass(frozen=True)
class Reconstruction:
    """A complex object in the frame of its data set's coordinates.

    Attributes:
        object: complex64 (H, W).
        origin: (row, column) of its pixel [0, 0] in the frame of the data set: the pixel [i, j] lies at
            y = origin[0] + i, x = origin[1] + j.
        covered: bool (H, W); pixels that the arm has an opinion of. The rest is not to be looked at.
        probe: complex64 (N, N), or None where the arm does not refine it.
        meta: plain JSON values: arm, engine, what was recorded of the run.
    """

    object: npt.NDArray[np.complex64]
    origin: tuple[int, int]
    covered: npt.NDArray[np.bool_]
    probe: npt.NDArray[np.complex64] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.object.ndim != 2 or self.object.dtype != np.complex64:
            found = f"{self.object.dtype} {self.object.shape}"
            raise BadInput(f"a reconstruction's object is complex64 (H, W), found {found}", hint=_HINT)
        if self.covered.shape != self.object.shape or self.covered.dtype != np.bool_:
            found = f"{self.covered.dtype} {self.covered.shape}"
            raise BadInput(f"`covered` is bool {self.object.shape}, found {found}", hint=_HINT)
        if not np.isfinite(self.object[self.covered]).all():
            raise BadInput("a reconstruction has pixels that are not finite where it is covered", hint=_HINT)

    def save(self, path: Path) -> None:
        """Write it; the same arrays give the same bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "object": self.object,
            "origin": np.asarray(self.origin, dtype=np.int64),
            "covered": self.covered,
            "meta": np.asarray(json.dumps(dict(self.meta), sort_keys=True)),
        }
        if self.probe is not None:
            arrays["probe"] = self.probe
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Reconstruction:
        """Read it.

        Raises:
            BadInput: it is no such file; names the key, what was expected and what was found.
        """
        arrays = read_npz(path)
        for key in ("object", "origin", "covered", "meta"):
            if key not in arrays:
                raise BadInput(f"{path} has no {key!r}: it is no reconstruction", hint=_HINT)
        row, column = (int(v) for v in arrays["origin"])
        return cls(
            object=arrays["object"],
            origin=(row, column),
            covered=arrays["covered"],
            probe=arrays.get("probe"),
            meta=json.loads(str(arrays["meta"])),
        )
