"""Lanes that also join the head's Ray: an `ssh` lane whose pooled cells run in workers that Ray starts there."""

from lanes.joined.checks import Refusal, refusal
from lanes.joined.node import JoinedNode, look

__all__ = ["JoinedNode", "Refusal", "look", "refusal"]
