"""The learned arms' network as a parity run: the oracle, the mutants, and (long) both backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.parity import Parity, verdict
from jobs.parity.kernels.pinn import TOLERANCE, Pinn, unpacked
from jobs.parity.kernels.pinn_mutants import SPOILED
from jobs.parity.words import Verdict
from tests.jobs.context import Recorder

SMALL: dict[str, Any] = {"kernel": "pinn", "frames": "16x16", "outside": False, "repeats": 1, "batches": 0}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Pinn:
    return Pinn(Parity.Params(**SMALL), tmp_path_factory.mktemp("pinn"), {})  # type: ignore[arg-type]


def test_the_matrix_has_128_images_and_no_weight_is_zero(adapter: Pinn) -> None:
    assert [(c.size, c.channels) for c in adapter.cells()] == [(128, 1), (128, 4)]
    weights = unpacked(adapter.given(adapter.cells()[1]).inputs)[1]
    assert all(np.abs(w).min() > 0 for w in weights.values())


def test_every_mutant_is_caught_by_its_own_harm(adapter: Pinn) -> None:
    mutants = adapter.mutants()
    assert set(mutants) == set(SPOILED)
    for name, mutant in mutants.items():
        given = adapter.given(mutant.cells[0])
        values = SPOILED[name](*unpacked(given.inputs))
        assert verdict.judge(given.reference, values, given.tolerance).verdict is Verdict.FAIL, name
        assert mutant.symptom(given, values, given.tolerance), name
        right = given.reference.values.astype(np.complex64)
        assert not mutant.symptom(given, right, given.tolerance), name
        assert verdict.judge(given.reference, right, TOLERANCE).verdict is Verdict.PASS


def test_a_frame_that_no_network_takes_is_refused() -> None:
    for frame in ("16x24", "20x20", "8x8"):
        with pytest.raises(ValidationError, match="square"):
            Parity.Params(kernel="pinn", frames=frame)  # type: ignore[call-arg]


@pytest.mark.long
def test_both_backends_agree_with_the_oracle(tmp_path: Path) -> None:
    kind = Parity()
    ctx = Recorder(kind, kind.Params(**SMALL), tmp_path / "attempt")
    ctx.run()
    rows = [r for r in ctx.tables["parity"] if r["role"] == "candidate"]
    assert {(r["candidate"], r["verdict"]) for r in rows} == {("tensorflow", "pass"), ("torch", "pass")}
    assert all(r["own_reason"] for r in ctx.tables["parity"] if r["role"] == "mutant")
