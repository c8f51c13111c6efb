"""How inputs and answers travel between the parity run and a side: files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.parity.adapter import Inputs


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


def put(folder: Path, inputs: Inputs) -> None:
    """Write inputs to a new folder: one .npy an array, and a list of everything as JSON."""
    folder.mkdir(parents=True)
    for name, array in inputs.arrays.items():
        save(folder / f"{name}.npy", array)
    listed = {
        "arrays": sorted(inputs.arrays),
        "settings": dict(inputs.settings),
        "files": {name: str(path) for name, path in inputs.files.items()},
    }
    (folder / "inputs.json").write_text(json.dumps(listed, indent=1))


def take(folder: Path) -> Inputs:
    """What `put` wrote."""
    listed = json.loads((folder / "inputs.json").read_text())
    return Inputs(
        arrays={name: load(folder / f"{name}.npy") for name in listed["arrays"]},
        settings=listed["settings"],
        files={name: Path(path) for name, path in listed["files"].items()},
    )
