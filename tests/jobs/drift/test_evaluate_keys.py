"""What the keys of the evaluating kinds cover: every module that makes their numbers, and no other."""

from __future__ import annotations

import pytest

from core.kind import Kind
from jobs.drift_kinds.contract import DriftContract
from jobs.drift_kinds.evaluate import DriftEval
from jobs.drift_kinds.extractor import DriftExtractor
from jobs.drift_kinds.nn import DriftNn
from tests.jobs.dose.test_keys import file_of, modules_of

KINDS = [DriftExtractor(), DriftEval(), DriftNn(), DriftContract()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_key_covers_what_makes_the_numbers_and_no_more(kind: Kind) -> None:
    needed = modules_of(type(kind).__module__)
    assert len(needed) > 4
    assert [n for n in sorted(needed) if not any(n == c or n.startswith(f"{c}.") for c in kind.code)] == []
    parts = {c for c in kind.code if c != "core"}
    assert [c for c in sorted(parts) if c not in needed] == []
    assert all(file_of(c) is not None for c in parts)
