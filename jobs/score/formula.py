"""The score of the challenge, in one place.

    score = 100·seg + sqrt(10·pose) + 25·rate,   rate = archive bytes / original bytes

Lower is better. The evaluator prints it rounded to two decimals; here it keeps all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.errors import BadInput

ORIGINAL_BYTES = 37_545_489  # of the challenge's clip
SEG_WEIGHT, POSE_WEIGHT, RATE_WEIGHT = 100.0, 10.0, 25.0


class NoScore(BadInput):
    """These parts have no score: one is missing, negative or not finite."""

    slug = "no-score"


@dataclass(frozen=True)
class Score:
    """A score and its three parts; they sum to it.

    Attributes:
        pose, seg: mean distortions, without unit, at least 0.
        archive_bytes, original_bytes: sizes of the files.
    """

    pose: float
    seg: float
    archive_bytes: int
    original_bytes: int = ORIGINAL_BYTES

    def __post_init__(self) -> None:
        for name in ("pose", "seg"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise NoScore(f"{name} is {value!r}: a distortion is a number of at least 0")
        for name, least in (("archive_bytes", 0), ("original_bytes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise NoScore(f"{name} is {value!r}: a size is a whole number of at least {least}")

    @property
    def rate(self) -> float:
        """Archive bytes per original byte."""
        return self.archive_bytes / self.original_bytes

    @property
    def seg_part(self) -> float:
        return SEG_WEIGHT * self.seg

    @property
    def pose_part(self) -> float:
        return math.sqrt(POSE_WEIGHT * self.pose)

    @property
    def rate_part(self) -> float:
        """25·bytes / original: multiplied first, which rounds once less and gives the published digits."""
        return RATE_WEIGHT * self.archive_bytes / self.original_bytes

    @property
    def value(self) -> float:
        """100·seg + sqrt(10·pose) + 25·rate, all decimals."""
        return self.seg_part + self.pose_part + self.rate_part
