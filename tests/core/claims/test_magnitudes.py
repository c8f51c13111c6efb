"""Numbers in words: what is read, and what agrees with it."""

from __future__ import annotations

import pytest

from core.claims.magnitudes import Unit, agrees, written

READ = [
    ("~6.2 billion-fold variance", [(6.2e9, Unit.FOLD)]),
    ("6.2e12 times", [(6.2e12, Unit.FOLD)]),
    ("6.2×10¹²", [(6.2e12, Unit.PLAIN)]),
    ("6.2 x 10^12-fold", [(6.2e12, Unit.FOLD)]),
    ("a million-fold", [(1e6, Unit.FOLD)]),
    ("two-fold", [(2.0, Unit.FOLD)]),
    ("1,234.5 samples", [(1234.5, Unit.PLAIN)]),
    ("12% lower, 3 percent", [(12.0, Unit.PERCENT), (3.0, Unit.PERCENT)]),
    ("4 orders of magnitude", [(4.0, Unit.ORDERS)]),
    ("8×8 pixels", [(8.0, Unit.PLAIN), (8.0, Unit.PLAIN)]),
    ("conv2 of v1.5b on ImageNet-256, 2026-02-20, arXiv:2602.04770", []),
    ("FID 12.3.", [(12.3, Unit.PLAIN)]),
    ("from -1 to 1", [(-1.0, Unit.PLAIN), (1.0, Unit.PLAIN)]),
    ("a word and no number", []),
]


@pytest.mark.parametrize(("text", "found"), READ, ids=[t for t, _ in READ])
def test_what_is_read(text: str, found: list[tuple[float, Unit]]) -> None:
    assert [(w.value, w.unit) for w in written(text)] == found


# text, what the rows give, is it so?
AGREE = [
    ("6.2 billion-fold", 6.2e9, True),
    ("6.2 billion-fold", 6.2e12, False),  # the seed's own
    ("6.2 trillion-fold", 6.2e12, True),
    ("6.2 billion-fold", 6.24e9, True),
    ("6.2 billion-fold", 6.3e9, False),
    ("two-fold", 2.4, True),
    ("2.0-fold", 2.4, False),
    ("3-fold lower", 1 / 3, True),
    ("3-fold", 1 / 3, False),
    ("12% lower", 0.88, True),
    ("12% lower", 0.80, False),
    ("12% of it", 0.12, True),
    ("12% more", 1.12, True),
    ("6 orders of magnitude", 1.1e6, True),
    ("6 orders of magnitude", 1.1e9, False),
    ("a gap of 45.0", 45.02, True),
    ("a gap of 45.0", 45.3, False),
    ("2-fold", float("nan"), False),
    ("2-fold", float("inf"), False),
]


@pytest.mark.parametrize(("text", "ratio", "so"), AGREE, ids=[f"{t} is {r:g}" for t, r, _ in AGREE])
def test_what_agrees(text: str, ratio: float, so: bool) -> None:
    (number,) = written(text)
    assert agrees(number, ratio, text) is so
