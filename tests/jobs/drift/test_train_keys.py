"""The keys of drift-data, drift-train and drift-sample cover every module that makes their bytes, and no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.kind import Kind
from jobs.drift_kinds.data import DriftData
from jobs.drift_kinds.sample import DriftSample
from jobs.drift_kinds.train import DriftTrain
from tests.jobs.dose.test_keys import file_of, modules_of

KINDS = [DriftData(), DriftTrain(), DriftSample()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_key_covers_what_makes_the_bytes_and_no_more(kind: Kind) -> None:
    needed = modules_of(type(kind).__module__)
    assert len(needed) > 4
    assert [n for n in sorted(needed) if not any(n == c or n.startswith(f"{c}.") for c in kind.code)] == []
    parts = {c for c in kind.code if c != "core"}
    assert [c for c in sorted(parts) if c not in needed] == []
    assert all(file_of(c) is not None for c in parts)


def test_a_submit_loads_nothing_heavy() -> None:
    text = (
        "import sys\n"
        "from jobs.drift_kinds.train import DriftTrainParams\n"
        "from jobs.drift_kinds import data, sample\n"
        "DriftTrainParams().recipe(), data.DriftDataParams(), sample.DriftSampleParams()\n"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
