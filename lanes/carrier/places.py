"""From a spec with the head's paths to one with the lane's. Pure: no file is looked at, nothing is asked."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LanePlaces:
    """What lies where on the lane.

    Attributes:
        root: the agent's folder there.
        path: the lane's own PATH.
        wake: the socket at which the agent there is woken; empty: it looks by itself.
        python: the interpreter for attempts.
        code: store name of a snapshot -> its path there.
        inputs: digest of an input -> its path there.
        checkpoints: folders with checkpoints of earlier attempts, newest attempt first.
    """

    root: str
    path: str
    wake: str
    python: str
    code: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Sequence[str] = ()

    def run_dir(self, job: int, attempt: int) -> str:
        return f"{self.root}/attempts/{job}/{attempt}"


def lane_spec(frozen: Mapping[str, Any], places: LanePlaces) -> dict[str, Any]:
    """The spec as the lane is to have it.

    Nothing of the head's environment goes there: no PATH, no HOME, no USER. `env` is what the user declared and stays,
    as do `marker`, `key` and everything else by which the attempt is known.
    """
    spec = dict(frozen)
    code = dict(frozen.get("code") or {})
    if code.get("path"):
        code["path"] = places.code[store_name(code["path"])]
    spec["code"] = code
    spec["kind_path"] = places.code[store_name(frozen["kind_path"])] if frozen.get("kind_path") else ""
    spec["inputs"] = [
        item if item.get("lane") else {**item, "path": places.inputs[item["sha256"]]}
        for item in frozen.get("inputs") or ()
    ]
    spec["python"] = places.python
    spec["checkpoints"] = list(places.checkpoints)
    spec["wake"] = places.wake
    spec["base_env"] = {"PATH": search_path(places.python, places.path)}
    return spec


def search_path(python: str, path: str) -> str:
    """The lane's PATH with its interpreter's folder first: `python` means the one that was made for the lane."""
    first = posixpath.dirname(python)
    rest = [p for p in path.split(":") if p and p != first]
    return ":".join([first, *rest] if first else rest)


def store_name(path: str) -> str:
    """A snapshot's folder in the home's store is called by its content."""
    return posixpath.basename(path.rstrip("/"))
