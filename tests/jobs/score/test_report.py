"""The formula and the report: the page's table to the last digit, and every way in which a report can be wrong."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from core.errors import BadInput, JobFailed, LabError
from jobs.score.formula import ORIGINAL_BYTES, NoScore, Score
from jobs.score.report import ReportRefused, read_report

TABLE = [
    (0.05890975, 0.00579293, 864_168, 1.9222338722954064),
    (0.06215462, 0.00581255, 935_149, 1.9923143481540724),
    (0.38042614, 0.00946623, 2_244_900, 4.391861352599248),
]

TEXT = """=== Evaluation config ===
  batch_size: 16
  device: cpu
  report: submissions/baseline_fast/report.txt
  seed: 1234
=== Evaluation results over 600 samples ===
  Average PoseNet Distortion: 0.38042614
  Average SegNet Distortion: 0.00946623
  Submission file size: 2,244,900 bytes
  Original uncompressed size: 37,545,489 bytes
  Compression Rate: 0.05979147
  Final score: 100*segnet_dist + √(10*posenet_dist) + 25*rate = 4.39
"""


@pytest.mark.parametrize(("pose", "seg", "size", "score"), TABLE)
def test_the_table_to_the_last_digit(pose: float, seg: float, size: int, score: float) -> None:
    found = Score(pose, seg, size)
    assert found.value == score
    assert repr(found.value) == repr(score)
    exact = 100 * Decimal(str(seg)) + (10 * Decimal(str(pose))).sqrt() + 25 * Decimal(size) / ORIGINAL_BYTES
    assert found.value == float(exact), "it is the double nearest to the true value"
    assert found.value == found.seg_part + found.pose_part + found.rate_part


@pytest.mark.parametrize(("pose", "seg", "size", "score"), TABLE)
def test_the_table_notices_a_changed_weight(pose: float, seg: float, size: int, score: float) -> None:
    """The negative twin: each weight in turn is one part in a thousand off."""
    for wrong in (
        100.1 * seg + math.sqrt(10 * pose) + 25 * size / ORIGINAL_BYTES,
        100 * seg + math.sqrt(10.01 * pose) + 25 * size / ORIGINAL_BYTES,
        100 * seg + math.sqrt(10 * pose) + 25.025 * size / ORIGINAL_BYTES,
        100 * seg + math.sqrt(10 * pose) + 25 * size / (ORIGINAL_BYTES + 1000),
        100 * pose + math.sqrt(10 * seg) + 25 * size / ORIGINAL_BYTES,
    ):
        assert wrong != score


@pytest.mark.parametrize(
    "parts",
    [
        {"pose": math.nan},
        {"seg": math.inf},
        {"pose": -1e-9},
        {"seg": None},
        {"archive_bytes": -1},
        {"archive_bytes": 1.0},
        {"archive_bytes": True},
        {"original_bytes": 0},
    ],
)
def test_no_score_without_its_parts(parts: dict[str, Any]) -> None:
    good: dict[str, Any] = {"pose": 0.1, "seg": 0.1, "archive_bytes": 1}
    with pytest.raises(NoScore) as error:
        Score(**(good | parts))
    assert isinstance(error.value, BadInput)
    assert next(iter(parts)) in error.value.message


def test_a_report() -> None:
    report = read_report(TEXT, archive_bytes=2_244_900, original_bytes=ORIGINAL_BYTES, samples=600)
    assert report.score.value == 4.391861352599248
    assert (report.samples, report.printed) == (600, 4.39)
    # Half a unit of the eighth place: 100 of it for seg, 10 / (2 sqrt(10 pose)) of it for pose.
    assert report.resolution == pytest.approx(0.5e-8 * (100 + 5 / math.sqrt(3.8042614)), rel=1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("√", "sqrt"),
        ("over 600 samples ===", "over 600 samples (device: cuda) ==="),
        ("Submission file size:", "Submission file size (deflated):"),
        ("Average SegNet Distortion: ", "  Average  SegNet Distortion:\t  "),
        ("2,244,900 bytes", "2244900.00000000 bytes"),
        ("= 4.39", "= 4.39186135"),
        ("\n", "\r\n"),
        ("Compression Rate: 0.05979147", "Compression Rate (deflated):      0.05979147   "),
    ],
)
def test_the_same_said_otherwise(old: str, new: str) -> None:
    assert old in TEXT
    assert read_report(TEXT.replace(old, new), samples=600).score.value == 4.391861352599248


def test_a_report_of_long_ago() -> None:
    text = """=== Evaluation results over 600 samples ===
  Average PoseNet Distortion: 0.06430182
  Average SegNet Distortion: 0.00381109
  Submission file size (deflated): 14428760.00000000 bytes
  Original uncompressed size (deflated): 37533786.00000000 bytes
  Compression Rate (deflated): 0.38442059
  Final score: 100*segnet_dist + √(10*posenet_dist) + 25*rate = 10.79350826
"""
    assert read_report(text).score.value == pytest.approx(10.79350826, abs=1e-6)
    with pytest.raises(ReportRefused, match="contradicts itself"):
        read_report(text.replace("10.79350826", "10.79351826"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("= 4.39", "= 4.38", "ends with a score of 4.38"),
        ("= 4.39", "= 4.40", "ends with a score of 4.40"),
        ("= 4.39", "= 1.92", "contradicts itself"),
        ("= 4.39", "= nan", "ends with a score of nan"),
        ("0.05979147", "0.05979149", "Compression Rate: 0.05979149"),
        ("0.05979147", "nan", "Compression Rate: nan"),
        ("0.00946623", "nan", "seg is nan"),
        ("0.38042614", "inf", "pose is inf"),
        ("0.00946623", "-0.00946623", "seg is -0.00946623"),
        ("0.00946623", "0.00996623", "contradicts itself"),
        ("2,244,900 bytes", "2,244,900 bits", "cannot be read"),
        ("0.38042614", "much", "cannot be read"),
        ("  Average PoseNet Distortion: 0.38042614\n", "", "no lines `Average PoseNet Distortion"),
        ("  Final score", "  Final  scare", "no lines `Final score"),
        ("  Compression Rate: 0.05979147\n", "  Compression Rate: 0.05979147\n" * 2, "2 lines `Compression Rate"),
        ("100*segnet_dist", "50*segnet_dist", "another formula"),
        ("over 600 samples ===", "over 592 samples ===", "is over 592 samples, and must be over 600"),
        ("over 600 samples ===", "===", "does not say over how many samples"),
        ("=== Evaluation config", "Evaluation results over 16 samples\n=== Evaluation config", "says 2 times"),
        ("2,244,900", "2,244,901", "the archive has 2,244,901 bytes, and the file has 2,244,900"),
        ("37,545,489", "37,545,488", "the original has 37,545,488 bytes, and the file has 37,545,489"),
    ],
)
def test_a_report_that_is_no_evidence(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ReportRefused) as error:
        read_report(TEXT.replace(old, new, 1), archive_bytes=2_244_900, original_bytes=ORIGINAL_BYTES, samples=600)
    assert isinstance(error.value, JobFailed)
    assert isinstance(error.value, LabError)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_are_believed_only_from_the_files() -> None:
    """A consistent lie, all of it: only the file shows it."""
    lie = TEXT.replace("2,244,900", "864,168").replace("0.05979147", "0.02301656").replace("4.39", "3.47")
    assert read_report(lie).score.value < 4.3
    with pytest.raises(ReportRefused, match="the file has 2,244,900"):
        read_report(lie, archive_bytes=2_244_900)


@pytest.mark.parametrize("by", [-0.0049, 0.0049])
def test_rounding_alone_is_no_contradiction(by: float) -> None:
    """The printed score is 4.39 for all scores from 4.385 to 4.395, and for no other."""
    need = 4.39 + by - math.sqrt(3.8042614) - 25 * 2_244_900 / ORIGINAL_BYTES
    text = TEXT.replace("0.00946623", f"{need / 100:.8f}")
    assert read_report(text).score.value == pytest.approx(4.39 + by, abs=1e-6)
    over = need + math.copysign(0.0003, by)
    with pytest.raises(ReportRefused):
        read_report(TEXT.replace("0.00946623", f"{over / 100:.8f}"))


def test_nothing_is_over_no_samples() -> None:
    with pytest.raises(ReportRefused, match="nothing was evaluated"):
        read_report(TEXT.replace("over 600", "over 0"))
