"""For how long a job waits for a lane that does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unreachable_s(spec: Mapping[str, Any]) -> float | None:
    """Seconds after which an attempt on a lane that is out of reach is given up; None: it waits, for ever."""
    word = str(spec.get("on_unreachable") or "wait")
    kind, _, seconds = word.partition(":")
    return float(seconds.removesuffix("s")) if kind == "requeue-after" else None
