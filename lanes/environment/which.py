"""Which interpreter runs attempts on a lane."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.cluster import LaneConfig
from core.fsio import read_json, write_json
from core.home import Home


def known(home: Home, lane: str) -> dict[str, Any] | None:
    """What was made for a lane last, if anything was."""
    found = read_json(_file(home, lane))
    return found if isinstance(found, dict) else None


def remember(home: Home, lane: str, found: Mapping[str, Any]) -> None:
    """Keep what `evidence` says for `known`, beyond this controller's life."""
    path = _file(home, lane)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(found))


def _file(home: Home, lane: str) -> Path:
    return home.lane_root(lane) / "environment.json"


def lane_python(config: LaneConfig, known: Mapping[str, Any] | None) -> str | None:
    """The interpreter for attempts on a lane; None: the one that runs the agent, which is the one that
    cluster.yaml names (found there as the lane's own shell finds it).

    Args:
        known: what `known` says of it.

    An environment that was made counts, unless `python` in cluster.yaml was changed since: whoever names another
    interpreter means that one.
    """
    made = known or {}
    if made.get("python") and made.get("made") and made.get("named") == config.python:
        return str(made["python"])
    return None


def evidence(config: LaneConfig, status: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What the rung "environment" says of an environment that was made ; also what `lane_python` reads."""
    return {
        "made": True,
        "named": config.python,
        "python": str(status["python"]),
        "version": str(status["version"]),
        "digest": str(status["digest"]),
        "by": str(status.get("by") or ""),
        "source": source,
        "packages": dict(status.get("packages") or {}),
        "unmet": list(status.get("unmet") or ()),
    }
