"""`lab claim`: what is said of results, and the label that it may have."""

from __future__ import annotations

from typing import Any


def group() -> Any:
    """The commands below `lab claim`."""
    from lab.cli import ClaimGroup, build_group

    return build_group(ClaimGroup, "claim", "State a claim, check it, show its label as it is now.")
