"""The report of the upstream evaluator: read line by line, and refused when it disagrees with itself.

Its last line is rounded to two decimals (older ones: eight), and its distortions to eight: the score is computed again
from the parts, and the sizes are counted from the files. A report is evidence only where all of it agrees.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from core.errors import JobFailed
from jobs.score.formula import POSE_WEIGHT, SEG_WEIGHT, NoScore, Score

_NUMBER = r"([+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|nan|inf))"
_BYTES = r"([0-9][0-9,]*)(?:\.0+)?\s*bytes"
# Label of each line, and what stands behind it.
_LINES = {
    "pose": ("Average PoseNet Distortion", _NUMBER),
    "seg": ("Average SegNet Distortion", _NUMBER),
    "archive": ("Submission file size", _BYTES),
    "original": ("Original uncompressed size", _BYTES),
    "rate": ("Compression Rate", _NUMBER),
    "final": ("Final score", r".*=\s*" + _NUMBER),
}
_FORMULA = re.compile(r"100\*segnet_dist\+(?:√|sqrt)\(10\*posenet_dist\)\+25\*rate=[^=]*")
_SAMPLES = re.compile(r"Evaluation results over\s+([0-9,]+)\s+samples")
_FLOAT = 1e-9  # relative: how differently two programs may add the same three numbers


class ReportRefused(JobFailed):
    """The report is no evidence: a line is missing, said twice, unreadable, or contradicts another or a file."""

    slug = "report-refused"


@dataclass(frozen=True)
class Report:
    """What the evaluator said, recomputed.

    Attributes:
        samples: over how many pairs it averaged; None when it does not say.
        printed: its last line, rounded as it was printed.
        resolution: by so much the score may be off because the distortions were rounded when they were printed.
    """

    score: Score
    samples: int | None
    printed: float
    resolution: float


def read_report(
    text: str, *, archive_bytes: int | None = None, original_bytes: int | None = None, samples: int | None = None
) -> Report:
    """Read an evaluator's report.

    Args:
        archive_bytes, original_bytes: sizes, counted from the files.
        samples: of how many pairs the video has; a report over another number is refused.

    Raises:
        ReportRefused: see there; the message names the line.
    """
    found = {key: _line(text, label, pattern) for key, (label, pattern) in _LINES.items()}
    said = _whole(found["archive"]), _whole(found["original"])
    for what, told, counted in (("archive has", said[0], archive_bytes), ("original has", said[1], original_bytes)):
        if counted is not None and told != counted:
            raise ReportRefused(f"the report says the {what} {told:,} bytes, and the file has {counted:,}")
    try:
        score = Score(float(found["pose"]), float(found["seg"]), *said)
    except NoScore as error:
        raise ReportRefused(f"the report has no score: {error.message}") from None
    _refuse_other_rate(found["rate"], score)
    low, high = _between(score, _half(found["pose"]), _half(found["seg"]))
    _refuse_other_final(found["final"], score, low, high)
    over = _samples(text)
    if samples is not None and over != samples:
        told_over = "does not say over how many samples it is" if over is None else f"is over {over:,} samples"
        raise ReportRefused(f"the report {told_over}, and must be over {samples:,}")
    if over == 0:
        raise ReportRefused("the report is over 0 samples: nothing was evaluated")
    return Report(score, over, float(found["final"]), max(high - score.value, score.value - low))


def _refuse_other_rate(printed: str, score: Score) -> None:
    rate = float(printed)
    if not abs(rate - score.rate) <= _half(printed) + _FLOAT * score.rate:
        raise ReportRefused(
            f"the report says `Compression Rate: {printed}`, and its sizes give {score.rate:.8f}: it contradicts itself"
        )


def _refuse_other_final(printed: str, score: Score, low: float, high: float) -> None:
    """`printed` must be what some score between `low` and `high` is rounded to."""
    final, slack = float(printed), _half(printed) + _FLOAT * max(1.0, high)
    if not low - slack <= final <= high + slack:
        raise ReportRefused(
            f"the report ends with a score of {printed}, and its parts give {score.value:.8f}: it contradicts itself"
        )


def _between(score: Score, pose: float, seg: float) -> tuple[float, float]:
    """The least and the greatest score of distortions that are printed as these are."""

    def value(by: float) -> float:
        at_seg, at_pose = max(0.0, score.seg + by * seg), max(0.0, score.pose + by * pose)
        return SEG_WEIGHT * at_seg + math.sqrt(POSE_WEIGHT * at_pose) + score.rate_part

    return value(-1.0), value(1.0)


def _half(printed: str) -> float:
    """Half a unit of the last place that was printed."""
    digits, _, exponent = printed.lower().partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def _line(text: str, label: str, pattern: str) -> str:
    words = r"[ \t]+".join(map(re.escape, label.split()))
    lines = re.findall(rf"^[ \t]*{words}(?:[ \t]*\([a-z]+\))?[ \t]*:[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
    if len(lines) != 1:
        raise ReportRefused(f"the report has {len(lines) or 'no'} lines `{label}: ...`, and must have one")
    match = re.fullmatch(pattern, lines[0])
    if match is None:
        raise ReportRefused(f"the report's line `{label}: {lines[0]}` cannot be read")
    if label == "Final score" and not _FORMULA.fullmatch(re.sub(r"\s", "", lines[0])):
        raise ReportRefused(f"the report's score is made by another formula: `{lines[0]}`")
    return match.group(1)


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _samples(text: str) -> int | None:
    found = _SAMPLES.findall(text)
    if len(found) > 1:
        raise ReportRefused(f"the report says {len(found)} times over how many samples it is: {', '.join(found)}")
    return _whole(found[0]) if found else None
