"""`lab claim`: what is said of results, and the label that it may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.cli import Entry, LazyGroup, build_group

COMMANDS: Mapping[str, Entry] = {
    "new": Entry("lab.commands.claim_new", "State a claim from a file.", "State"),
    "waive": Entry("lab.commands.claim_waive", "Relax a gate for a job, and say why.", "State"),
    "withdraw": Entry("lab.commands.claim_withdraw", "Withdraw a claim.", "State"),
    "check": Entry("lab.commands.claim_check", "Ask every gate; end with 1 if it is not what it wants.", "Judge"),
    "show": Entry("lab.commands.claim_show", "Show a claim with its label, and why it has that one.", "Judge"),
    "list": Entry("lab.commands.claim_list", "List the claims with their labels.", "Judge"),
}


class ClaimGroup(LazyGroup):
    table = COMMANDS


def group() -> Any:
    """The commands below `lab claim`."""
    return build_group(ClaimGroup, "claim", "State a claim, check it, show its label as it is now.")
