"""Candidates and controls of other people's packages, found by entry point and loaded only in a side's process.

    [project.entry-points."lab.parity.candidates"]   # held against the oracle like ours: must pass
    mine = "my_package.kernels:translate"
    [project.entry-points."lab.parity.controls"]     # known bad: a run that lets it pass fails
    broken = "my_package.kernels:translate_wrongly"

The object is a callable in the kernel's own signature, all NumPy. These two groups are of the translation: (images
(B, C, H, W) complex, offsets (B, C, 2) real) -> images. Another kernel's groups end with its name:

    lab.parity.candidates.fcell        (experiment, grid or None) -> image (slow, fast)
    lab.parity.candidates.postfilter   (weights, frames (B, 3, H, W)) -> frames
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.parity.words import Role

CANDIDATES = "lab.parity.candidates"
CONTROLS = "lab.parity.controls"


@dataclass(frozen=True)
class Outsider:
    """One registered name. `folder` is where its distribution lies: the side's process must find it again."""

    group: str
    name: str
    role: Role
    module: str
    folder: Path | None

    @property
    def target(self) -> str:
        return f"entry:{self.group}:{self.name}"


def registered(kernel: str) -> list[Outsider]:
    """All of one kernel's, candidates first, by name. Nothing is imported."""
    return list(_registered(kernel))


def sources(kernel: str) -> dict[str, Path]:
    """Input name -> source file of each outsider that can be found without importing it."""
    found = {}
    for outsider in registered(kernel):
        path = _source(outsider.module)
        if path is not None:
            found[f"{outsider.role}-{outsider.name}"] = path
    return found


def groups(kernel: str) -> dict[str, Role]:
    end = "" if kernel == "translation" else f".{kernel}"
    return {f"{CANDIDATES}{end}": Role.CANDIDATE, f"{CONTROLS}{end}": Role.CONTROL}


def _registered(kernel: str) -> Iterator[Outsider]:
    for group, role in groups(kernel).items():
        points = importlib.metadata.entry_points(group=group)
        for name in sorted(points.names):
            point = points[name]
            folder = Path(str(point.dist.locate_file(""))) if point.dist is not None else None
            yield Outsider(group, name, role, point.module, folder)


def _source(module: str) -> Path | None:
    """The file of a module. Only the top-level package is looked up, as that imports nothing."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [Path(p) for p in spec.submodule_search_locations or ()]
    if not rest and not places:
        return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    for place in places:
        path = place.joinpath(*rest)
        for file in (path.with_suffix(".py") if rest else path / "__init__.py", path / "__init__.py"):
            if file.is_file():
                return file
    return None
