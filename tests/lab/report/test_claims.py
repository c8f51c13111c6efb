"""Claims in the report: the label beside every number, the scope, and what a changed byte does to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal
from lab.report.build import Built, build, problems
from lab.report.sections.floor import Asked
from tests.lab.claims.package import Package
from tests.lab.report.test_build import words

SCOPE = {
    "current": "8x8 digits, one machine",
    "policy": "nothing is called paper-faithful before every gate is closed",
    "deferred": [{"name": "encoder of the paper", "why": "weights are not public since 2019", "caps": "experimental"}],
    "closed": ["scheduler is kept in checkpoints"],
}


@pytest.fixture
def package(home: Home, here: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    made = Package(home, here, monkeypatch)
    made.submit()
    return made


def report_of(package: Package) -> Built:
    with Journal.open(package.home) as journal:
        return build(package.home, journal.conn, Asked())


def test_a_claim_with_its_scope_and_its_fall(package: Package) -> None:
    package.state(package.claim(scope=SCOPE, statement="With alpha 1.5 FID is {eval.fid:.2f} on {eval.fid.n} digits."))
    package.run()
    report = report_of(package)
    assert problems(report.files) == []
    page, said = report.files["claims/digits.html"].decode(), words(report, "claims/digits.html")
    label = re.search(r"FID is 15\.00 \[([a-z, -]+)\] on 400 \[([a-z, -]+)\] digits", said)
    assert label is not None, said[:500]
    assert label[1] == label[2]
    (number,) = re.findall(r'href="\.\./rows/drift_eval-1\.html#(drift_eval-\d+-1-0)" data-col="value"', page)
    assert f'id="{number}"' in report.files["rows/drift_eval-1.html"].decode()
    for text in (SCOPE["current"], SCOPE["policy"], "encoder of the paper", "weights are not public since 2019"):
        assert str(text) in said
    assert "deferred gate" in said
    assert "scheduler is kept in checkpoints stated as closed" in said
    assert "digits" in words(report, "claims.html")
    assert f"digits {label[1]}" in words(report, "index.html")

    # A byte of what it cites changes: the next report says so by itself.
    run = package.home.run_dir(package.ids["train"], 1)
    model = run.artifacts / "model.npz"
    model.write_bytes(model.read_bytes() + b"x")
    fallen = report_of(package)
    assert fallen.files["claims/digits.html"] != report.files["claims/digits.html"]
    assert "refused" in words(fallen, "claims.html")
    assert "FID is 15.00 [refused]" in words(fallen, "claims/digits.html")


def test_a_number_that_is_not_there(package: Package) -> None:
    package.state(package.claim(statement="FID is {eval.fid:.2f}, a quotient {control.fid / eval.fid:.1f}."))
    before = words(report_of(package), "claims/digits.html")
    assert "FID is ? [" in before
    package.run()
    report = report_of(package)
    said = words(report, "claims/digits.html")
    assert re.search(r"a quotient 4\.0 \[", said)
    assert "control.fid / eval.fid:.1f of claim digits" in report.files["rows/made-1.html"].decode()
