"""What goes to a remote lane for a batch, and which cells may go there at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.fsio import digest
from core.home import Home
from lanes.pool.crew import crew_key, why_not_anywhere
from lanes.pool.types import Batch
from lanes.pool.words import PROTOCOL

BUDGET_S = 0.5  # after this no new cell of a batch is begun
IDLE_S = 60.0


class Reach(Protocol):
    """The hold on the lane, as lanes.remote.RemoteHandle has it."""

    interpreter: str | None

    def ask(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any: ...

    def carry(self, method: str, *args: Any, **named: Any) -> Any: ...


class RayWorkers(Protocol):
    """Workers that Ray starts on a joined lane (lanes.joined)."""

    def ready(self) -> str:
        """Empty when it can, else why not just now."""
        ...

    def refused(self) -> str:
        """Why it never can until a person does something; empty while there is no such reason."""
        ...

    def start(self, folder: str) -> None:
        """Have Ray start the worker whose folder that is, unless it was asked before. Returns at once."""
        ...


@dataclass
class Far:
    """A batch that was given to the lane, or is on its way there."""

    batch: Batch
    time_limit: float | None
    ahead: bool
    since: float
    number: int
    tried: bool = False  # the lane may have it
    sent: int | None = None  # the number of polls begun when the lane said that it has it
    adopted: bool = False  # an earlier controller sent it
    stops: dict[int, tuple[float, str]] = field(default_factory=dict)  # job -> when it was asked, cause
    unfit: int = 0


def crew_of(spec: Mapping[str, Any], interpreter: str | None, *, ray: bool) -> str:
    """What the lane calls the crew of this spec: with another interpreter it is another one."""
    return digest([crew_key(spec), interpreter, ray])[:16]


def setup_of(
    home: Home, batch: Batch, crew: str, interpreter: str | None, kind_path: str, *, ray: bool
) -> dict[str, Any]:
    """What all workers of a crew have in common, as the lane is told."""
    spec = batch.spec
    return {
        "protocol": PROTOCOL,
        "kind_path": kind_path,
        "entry": spec["entry"],
        "python": interpreter,
        "env": dict(spec.get("env") or {}),
        "cores": batch.grant.get("cores"),
        "gpus": list(batch.grant.get("gpus") or ()),
        "memory_mb": (spec.get("needs") or {}).get("memory_mb"),
        "setup_s": float((spec.get("limits") or {}).get("setup_s") or 600.0),
        "idle_s": IDLE_S,
        "marker": f"lab:{home.hash}:crew:{crew}",
        "ray": ray,
    }


def order_of(reach: Reach, far: Far, root: str) -> bytes:
    """The batch as lanes.pool.post has it, with the lane's paths; its inputs are sent.

    Args:
        root: the agent's own folder on the lane.
    """
    batch, spec = far.batch, dict(far.batch.spec)
    inputs = [
        dict(item) if item.get("lane") else {**item, "path": str(reach.carry("ensure_input", dict(item)))}
        for item in spec.get("inputs") or ()
    ]
    spec = {**spec, "inputs": inputs, "python": reach.interpreter or spec["python"]}
    head = {
        "nonce": batch.nonce,
        "dir": batch.dir,
        "time_limit": far.time_limit,
        "grace_s": float((spec.get("limits") or {}).get("grace_s") or 0.0),
    }
    body = {
        "folder": f"{root}/batches/{batch.dir}",
        "lane": batch.lane,
        "spec_digest": batch.spec_digest,
        "spec": json.dumps(spec, sort_keys=True, separators=(",", ":")),
        "grant": dict(batch.grant),
        "budget_s": BUDGET_S,
        "cells": list(zip(*batch.cells, strict=True)),
    }
    return json.dumps(head).encode() + b"\n" + json.dumps(body, separators=(",", ":")).encode()


def why_not_afar(home: Home, lane: str, spec: Mapping[str, Any]) -> str:
    """Why cells of this spec can never run in warm workers on that lane; empty when they may."""
    why = why_not_anywhere(home, spec)
    if why:
        return why
    place = Path(home.code) / str(spec["kind_code"]["store"]) / "lanes" / "pool" / "afar.py"
    if not place.exists():
        return "it was submitted with a version of lab that had no warm workers on other lanes"
    for item in spec.get("inputs") or ():
        if item.get("lane") not in (None, lane):
            return f"its input {item['name']!r} lies on lane {item['lane']}"
    return ""
