"""The audit passes an honest package and finds every forgery; and there is a forgery for every check that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.errors import JobFailed
from core.home import Home
from jobs.audit.run import Found, audit
from jobs.audit_kind import Audit, AuditParams
from lanes.inline import run_inline
from tests.jobs.audit import forgeries
from tests.jobs.audit.forgeries import ALL
from tests.jobs.context import Recorder
from tests.jobs.drift.evaluated import Package, blobs, edit_json, edit_rows, honest


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return honest(tmp_path_factory.mktemp("good") / "package")


def look(package: Package, **params: Any) -> Found:
    return audit(AuditParams(**params), lambda name: package.inputs.get(name))


def failures(found: Found) -> set[str]:
    return {f"{entry.of}: {entry.check}" for entry in found.ledger.failed}


TRIPPED: dict[str, set[str]] = {}


def tripped(good: Package, root: Path, name: str) -> set[str]:
    """Checks that a forgery fails. Looked at once, by whichever test comes first."""
    if name not in TRIPPED:
        package = good.copy(root / name)
        ALL[name].forge(package)
        TRIPPED[name] = failures(look(package))
    return TRIPPED[name]


def job(package: Package, root: Path) -> Recorder:
    return Recorder(Audit(), AuditParams(), root, inputs=package.inputs)


def test_an_honest_package_passes_and_its_numbers_are_in_the_document(good: Package, tmp_path: Path) -> None:
    context = job(good, tmp_path / "job")
    context.run()
    assert all(row["passed"] for row in context.tables["audit"])
    said = json.loads((context.artifacts / "audit.json").read_text())
    rows = {r["metric"]: r for r in json.loads((good.folder("eval") / "evaluation.json").read_text())["rows"]}
    assert said["failed"] == 0
    assert said["recomputed"]["eval"]["fid"] == pytest.approx(rows["fid"]["value"], abs=1e-9)
    assert said["recomputed"]["contract"] == rows["fid"]["contract"]
    assert said["recomputed"]["n"] == 48
    assert set(said["files"]) >= {"train/encoder.npz", "eval/features.npz", "nn/nn.npz"}


@pytest.mark.parametrize("name", ALL)
def test_a_forgery_is_found_and_named(good: Package, tmp_path: Path, name: str) -> None:
    found = tripped(good, tmp_path, name)
    for wanted in ALL[name].finds:
        assert any(each.startswith(wanted) for each in found), (wanted, sorted(found))


def test_every_check_can_fail(good: Package, tmp_path: Path) -> None:
    """A check that no forgery trips may be one that cannot fail."""
    every = {f"{entry.of}: {entry.check}" for entry in look(good, least_n=1, contract="").ledger.entries}
    can_fail = set().union(*(tripped(good, tmp_path, name) for name in ALL))
    # The one that only a parameter can trip has a test below.
    assert sorted(every - can_fail) == ["sample: different images"]


def test_too_few_samples_and_another_contract_than_asked(good: Package) -> None:
    assert failures(look(good, least_n=49)) == {"sample: different images"}
    assert failures(look(good, contract="0" * 64)) == {"extractor: the contract that was asked for"}
    assert failures(look(good, contract=look(good).made["contract"])) == set()


def test_what_is_not_given_fails_unless_it_is_not_required(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    for name in ("train", "sample", "eval", "nn"):
        package.folder(name).rename(package.root / f"no-{name}")
    wanted = {f"{name}: there is one" for name in ("train", "sample", "eval", "nn")}
    assert failures(look(package)) == wanted
    assert failures(look(package, require=[])) == set()


def test_a_failed_audit_fails_the_job_and_still_says_what_it_found(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    forgeries.one_sample(package)
    context = job(package, tmp_path / "job")
    with pytest.raises(JobFailed, match=r"eval: fid: n: 48 by the audit, 1 found"):
        context.run()
    said = json.loads((context.artifacts / "audit.json").read_text())
    assert said["failed"] == sum(not row["passed"] for row in context.tables["audit"]) > 0
    assert any(line.startswith("FAILED eval: fid: n") for line in context.logs)


def test_what_failed_is_sealed_with_the_run(good: Package, tmp_path: Path) -> None:
    """As a lane runs it: the job fails, and its checks are still there to fetch."""
    package = good.copy(tmp_path / "p")
    forgeries.one_sample(package)
    run, outcome = run_inline(Audit(), AuditParams(), home=Home(tmp_path / "home"), inputs=package.inputs)
    assert (outcome["cause"], outcome["exit_code"]) == ("error", 1)
    assert "eval: fid: n" in outcome["message"]
    sealed = json.loads(run.manifest.read_text())["files"]
    assert {"artifacts/audit.json", "results/audit.arrow"} <= set(sealed)
    with pa.ipc.open_file(run.results / "audit.arrow") as file:
        rows = file.read_all().to_pylist()
    assert {row["check"] for row in rows if not row["passed"]} >= {"fid: n", "fid: n_unique"}


def test_images_that_are_not_square_and_have_colours(tmp_path: Path) -> None:
    package = Package(tmp_path / "p")
    splits = {name: blobs(n, seed) for name, n, seed in (("train", 40, 1), ("reference", 20, 2), ("held", 20, 3))}
    package.write_data({name: (np.repeat(i[:, :6], 3, axis=3), labels) for name, (i, labels) in splits.items()})
    package.extractor(epochs=1)
    found = look(package, require=[])
    assert failures(found) == set()
    said = [e.expected for e in found.ledger.entries if e.check == "contract: preprocessing"]
    assert said == ['{"channels": 3, "range": [-1, 1], "side": [6, 8]}']


def test_no_word_of_a_document_makes_a_pass(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    forgeries.one_sample(package)
    for path in package.root.rglob("*.json"):
        edit_json(path, passed=True, verified=True, ok=True, failed=0)
    edit_rows(forgeries.evaluation(package), lambda row: row.update(passed=True, verified="yes"))
    assert "eval: fid: n" in failures(look(package))


def test_a_shared_encoder_passes_only_where_it_is_told_and_waived(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_train(dict(np.load(package.folder("extractor") / "extractor.npz")))
    package.write_generated(48)
    package.evaluate(allow_shared_encoder=True, waiver_reason="a test")
    package.nearest()
    assert failures(look(package)) == set()
    edit_rows(forgeries.evaluation(package), lambda row: row.update(waiver=""))
    assert "eval: fid: waiver" in failures(look(package))


def test_samples_that_no_model_made_pass_only_where_they_are_not_drawn_again(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_samples(*blobs(48, 4))
    package.evaluate()
    package.nearest()
    assert failures(look(package)) == {"sample: pixels, drawn again from the model"}
    assert failures(look(package, redraw=False)) == set()


def test_more_samples_than_held_out_images(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    package.write_generated(75, seed=9)
    package.evaluate()
    package.nearest(n=30, seed=11)
    found = look(package)
    assert failures(found) == set()
    assert "fid_matched" in found.made["eval"]
    edit_rows(forgeries.evaluation(package), lambda row: row.update(value=1.0), lambda r: r["metric"] == "fid_matched")
    assert failures(look(package)) == {"eval: fid_matched: value"}


def test_a_control_that_says_so_and_a_proxy(tmp_path: Path) -> None:
    package = honest(tmp_path / "p", profile="proxy", epochs=40)
    edit_json(package.folder("train") / "config.json", steps_done=0)
    package.write_generated(20, alpha=2.0)
    package.evaluate(control="untrained")
    package.nearest()
    found = look(package)
    assert failures(found) == set()
    assert "accuracy" not in found.made["eval"]
