"""What the key of drift-summary covers; and that the studies are plans, which have none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.kind import Kind
from jobs.drift_kinds.ablation import DriftAblation
from jobs.drift_kinds.package import DriftPackage
from jobs.drift_kinds.summary import DriftSummary
from tests.jobs.dose.test_keys import file_of, modules_of


def test_the_key_covers_what_makes_the_summary_and_no_more() -> None:
    kind = DriftSummary()
    needed = modules_of(type(kind).__module__)
    assert len(needed) > 8
    assert [n for n in sorted(needed) if not any(n == c or n.startswith(f"{c}.") for c in kind.code)] == []
    parts = {c for c in kind.code if c != "core"}
    assert [c for c in sorted(parts) if c not in needed] == []
    assert all(file_of(c) is not None for c in parts)


@pytest.mark.parametrize("kind", [DriftAblation(), DriftPackage()], ids=lambda kind: kind.name)
def test_a_study_runs_nothing_itself(kind: Kind) -> None:
    """Its jobs are of other kinds, each with a key of its own; so it needs no list of code."""
    study = kind.study(kind.Params())
    assert study is not None
    assert kind.name not in {node.kind for node in study.nodes()}
    assert kind.code == Kind.code
    assert type(kind).run is Kind.run


def test_a_plan_loads_nothing_heavy() -> None:
    text = (
        "import sys\n"
        "from jobs.drift_kinds.ablation import DriftAblation\n"
        "from jobs.drift_kinds.package import DriftPackage\n"
        "for kind in (DriftAblation(), DriftPackage()):\n"
        "    kind.study(kind.Params())\n"
        "from jobs.drift_kinds import summary\n"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'pyarrow', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
