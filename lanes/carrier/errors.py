"""What can go wrong on the way, apart from the link itself (LinkDown, LinkRefused, RemoteError of lanes.transport)."""

from __future__ import annotations


class BadHarvest(Exception):
    """What the lane gives as the result of an attempt is not one, or not of this attempt: one sentence."""


class Cancelled(Exception):
    """Somebody does not want it any more. What was sent stays, for another time."""


class NotSendable(Exception):
    """An attempt cannot begin on this lane.

    Args:
        cause: as the agent says it: "stale-input", "setup", "disk-full".
        reason: one sentence.
    """

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(cause, reason)
        self.cause = cause
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
