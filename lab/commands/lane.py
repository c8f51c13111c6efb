"""`lab lane`: what is done to one lane."""

from __future__ import annotations

from typing import Any


def group() -> Any:
    """The commands below `lab lane`."""
    from lab.cli import LaneGroup, build_group

    return build_group(LaneGroup, "lane", "Add, trust, admit, drain or give up one lane.")
