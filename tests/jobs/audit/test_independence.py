"""The audit shares no code with what it audits, and its own arithmetic is right by itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import linalg

from jobs.audit import numbers
from jobs.audit.ledger import Ledger, Unauditable
from jobs.audit.reading import canonical, content_digest, payload_digest, picture_digests, weights_digest
from jobs.audit_kind import Audit
from jobs.drift import digests
from tests.jobs.dose.test_keys import modules_of

ROOT = Path(__file__).resolve().parents[3]


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_it_imports_nothing_that_makes_the_numbers() -> None:
    files = [ROOT / "jobs" / "audit_kind.py", *(ROOT / "jobs" / "audit").glob("*.py")]
    names = set[str]()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("jobs", "kernels", "lanes", "lab")}
    assert len(files) > 6
    assert all(name.startswith(("jobs.audit.", "jobs.audit_kind.")) for name in ours)
    assert not any(name.startswith("importlib") for name in names)
    assert {name.split(".")[0] for name in names} <= {
        *(
            "__future__",
            "ast",
            "collections",
            "contextlib",
            "dataclasses",
            "functools",
            "hashlib",
            "json",
            "math",
            "os",
        ),
        *("pathlib", "typing", "zipfile", "numpy", "pyarrow", "pydantic", "core", "jobs"),
    }


def test_its_key_covers_it_and_nothing_else() -> None:
    assert all(name.startswith("jobs.audit") for name in modules_of("jobs.audit_kind"))
    assert Audit.code == ("core", "jobs.audit", "jobs.audit_kind")


def test_its_distance_against_the_square_root_and_the_closed_form_below_full_rank() -> None:
    a = rng(1).standard_normal((200, 9)) @ rng(2).standard_normal((9, 9))
    b = rng(3).standard_normal((150, 9)) + 0.4
    one, two = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    wanted = float(shift @ shift + np.trace(one + two - 2 * linalg.sqrtm(one @ two).real))
    assert numbers.distance(a, b) == pytest.approx(wanted, rel=1e-9)
    n, d = 12, 70
    raw = rng(4).standard_normal((n, n - 1))
    basis = np.zeros((n, d))
    basis[:, : n - 1] = np.sqrt(n - 1) * np.linalg.qr(raw - raw.mean(axis=0))[0]
    wide, narrow = np.linspace(1, 3, d), np.linspace(2, 0.5, d)
    wanted = float(((wide - narrow)[: n - 1] ** 2).sum()) + d * 0.01
    assert numbers.distance(basis * wide + 0.1, basis * narrow) == pytest.approx(wanted, rel=1e-12)


def test_its_score_against_divergences() -> None:
    rows = rng(5).dirichlet(np.full(6, 0.4), size=31)
    parts = np.array_split(rows, 3)
    scores = [np.exp(np.mean([np.sum(p * np.log(p / part.mean(0))) for p in part])) for part in parts]
    mean, std = numbers.score(rows, 3)
    assert (mean, std) == (pytest.approx(np.mean(scores)), pytest.approx(np.std(scores)))
    assert numbers.score(np.eye(4), 1)[0] == pytest.approx(4)


def test_its_percentile_and_shares() -> None:
    values = rng(6).standard_normal(37).tolist()
    for share in (0.0, 0.5, 0.95, 1.0):
        assert numbers.percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))
    assert numbers.shares({0: 5, 1: 5, 2: 1}, 4) == {0: 2, 1: 2, 2: 0}
    assert numbers.shares({0: 3, 1: 3}, 6) == {0: 3, 1: 3}


@pytest.mark.parametrize(
    "value",
    [
        {"b": [1, 2.5, -0.0, 1e-9, 1e22], "a": None, "ü": '€ \U0001f600 \x07\n"\\/ \x7f', "": [True, False, {}, []]},
        "plain",
        -12345678901234567890,
    ],
)
def test_its_canonical_text_is_the_contracts(value: Any) -> None:
    assert canonical(value) == digests.canonical(value).decode()
    assert payload_digest(value) == digests.payload_sha256(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, b"x", [object()]])
def test_what_has_no_canonical_text_is_refused(value: Any) -> None:
    with pytest.raises((Unauditable, TypeError)):
        canonical(value)
        raise TypeError("a name that is no text") if isinstance(value, dict) else AssertionError


def test_its_digests_are_those_that_were_agreed() -> None:
    images = rng(7).standard_normal((5, 4, 4, 2)).astype(np.float32)
    assert content_digest(picture_digests(images[::-1])) == digests.images_sha256(images)
    weights = {"b": images, "a": np.int64(3) * np.ones(()), "c": np.arange(3), "d": np.zeros((0, 2), ">f8")}
    assert weights_digest(weights) == digests.arrays_sha256(weights)


def test_a_pass_needs_the_same_type_and_a_finite_number() -> None:
    ledger = Ledger(1e-8)
    for expected, found in ((1, True), (1, 1.0), (1, "1"), (None, 0), ("", None), (0, False)):
        ledger.same("x", "type", expected, found)
    for found in (True, "1.0", None, float("nan"), float("inf"), 1 + 1e-7):
        ledger.near("x", "number", 1.0, found)
    ledger.near("x", "own", float("nan"), float("nan"))
    assert len(ledger.failed) == 13
    ledger.near("x", "near", 1.0, 1 + 1e-9)
    ledger.same("x", "same", [1, {"a": 2}], [1, {"a": 2}])
    assert len(ledger.failed) == 13
