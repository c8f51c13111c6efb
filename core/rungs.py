"""What people call the rungs of the ladder of admission: one name for each, wherever it is told."""

from __future__ import annotations

from collections.abc import Mapping

from core.states import Rung

__all__ = ["STEPS", "step_title", "title"]

_TITLES: Mapping[tuple[str, str], str] = {
    (Rung.SMOKE, ""): "first step",
    (Rung.SMOKE, "train"): "first epoch",
    (Rung.SMOKE, "sweep"): "pooled cells",
}

# Names of the ladder's jobs, in the order in which they run -> the rung that each is, and of which role only.
STEPS: Mapping[str, tuple[Rung, str]] = {
    "smoke": (Rung.SMOKE, ""),
    "train": (Rung.SMOKE, "train"),
    "cells": (Rung.SMOKE, "sweep"),
    "parity": (Rung.PARITY, ""),
    "outlives": (Rung.OUTLIVES, ""),
}


def title(rung: str, role: str) -> str:
    """How people call a rung; `role`: of which role only, or empty."""
    return _TITLES.get((rung, role)) or (f"{rung} ({role})" if role else str(rung))


def step_title(step: str) -> str:
    """How people call the rung that a job of the ladder is."""
    return title(*STEPS[step]) if step in STEPS else step
