"""Planted falsehoods, each one change of an honest package: refused or demoted, and the right gate says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.claims import Gate, Outcome, Rung
from jobs.drift.digests import image_digests, images_sha256, payload_sha256
from tests.lab.claims.conftest import Look
from tests.lab.claims.package import Made, N, Package, sample_rows

REFUSED, MISSING, CAPPED = Outcome.REFUSED, Outcome.MISSING, Outcome.CAPPED


def artifact(made: Package, job: str, name: str) -> Any:
    return made.home.run_dir(made.ids[job], 1).artifacts / name


# Before anything runs, or while it does.


def one_sample_forged(made: Package) -> None:
    """One sample, of which everything says that there are as many as were asked for."""

    def one(files: Made) -> None:
        images = files["arrays"]["samples.npz"]["images"][:1]
        files["arrays"]["samples.npz"] = {"images": images, "labels": np.zeros(1), "ids": np.array(["S000000"])}
        files["json"]["samples.json"]["content_sha256"] = images_sha256(images)

    def said(files: Made) -> None:
        for row in (*files["tables"]["drift_eval"], *files["json"]["evaluation.json"]["rows"]):
            row["n"] = 8192

    made.change |= {"sample": one, "eval": said}


def evaluation_only(made: Package) -> None:
    """An evaluation.json with a good number, and no rows."""

    def forged(files: Made) -> None:
        files["tables"].clear()
        files["arrays"].clear()
        files["json"]["evaluation.json"] = {"fid": 1.0, "n": 8192, "contract": "0" * 64, "passed": True}

    made.change["eval"] = forged


def evaluation_says_more(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["json"]["evaluation.json"]["rows"]:
            row["n"] = 8192

    made.change["eval"] = forged


def evaluation_says_better(made: Package) -> None:
    def forged(files: Made) -> None:
        files["json"]["evaluation.json"]["rows"][0]["value"] = 1.0

    made.change["eval"] = forged


def fake_contract_hash(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in (*files["tables"]["drift_eval"], *files["json"]["evaluation.json"]["rows"]):
            row["contract"] = "0" * 64

    made.change["eval"] = forged


def contract_says_other(made: Package) -> None:
    def forged(files: Made) -> None:
        files["json"]["contract.json"]["sha256"] = "0" * 64

    made.change["extractor"] = forged


def contract_changed(made: Package) -> None:
    """The payload is another one, and its hash follows: but the weights are still the old."""

    def forged(files: Made) -> None:
        payload = files["json"]["contract.json"]["payload"]
        payload["extractor_sha256"] = "1" * 64
        files["json"]["contract.json"]["sha256"] = payload_sha256(payload)

    made.change["extractor"] = forged


def no_statistics(made: Package) -> None:
    made.change["extractor"] = lambda files: files["arrays"].pop("reference.npz")


def few_statistics(made: Package) -> None:
    def forged(files: Made) -> None:
        files["arrays"]["reference.npz"] = {"features": np.zeros((2, 8)), "labels": np.zeros(2)}

    made.change["extractor"] = forged


def audit_row_failed(made: Package) -> None:
    made.change["contract"] = lambda files: files["tables"]["drift_contract"][0].update(passed=False)


def override_flag(made: Package) -> None:
    made.params["eval"]["allow_shared_encoder"] = True


def noise(made: Package) -> None:
    made.params["train"] |= {"steps": 16, "real": "noise"}


def few_steps(made: Package) -> None:
    made.params["train"]["steps"] = 40


def one_negative(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_steps"]:
            row["negatives_per_group"] = 1

    made.change["train"] = forged


def not_finite(made: Package) -> None:
    made.change["train"] = lambda files: files["tables"]["drift_steps"][3].update(loss=float("nan"), finite=True)


def half_trained(made: Package) -> None:
    def forged(files: Made) -> None:
        del files["tables"]["drift_steps"][15:]

    made.change["train"] = forged


def no_better_than_untrained(made: Package) -> None:
    made.better = 15.5


def same_encoder(made: Package) -> None:
    made.change["train"] = lambda files: files["arrays"].update(
        {"encoder.npz": dict(made._npz("extractor", "extractor.npz"))}
    )


def shared_weights(made: Package) -> None:
    """Other file, other names: one matrix is the same."""

    def forged(files: Made) -> None:
        files["arrays"]["encoder.npz"] = {"mine": made._npz("extractor", "extractor.npz")["w1"], "more": np.ones(3)}
        del files["json"]["config.json"]["training_encoder_sha256"]

    made.change["train"] = forged


def named_encoder(made: Package) -> None:
    """No encoder file, but the configuration names the extractor."""
    made.encoder = False

    def forged(files: Made) -> None:
        payload = made._files["extractor"]["contract.json"]
        files["json"]["config.json"]["training_encoder_sha256"] = __import__("json").loads(payload)["payload"][
            "extractor_sha256"
        ]

    made.change["train"] = forged


def overlap(made: Package) -> None:
    def forged(files: Made) -> None:
        arrays = files["arrays"]["data.npz"]
        arrays["reference_images"][:5] = arrays["train_images"][:5]
        digest = images_sha256(arrays["reference_images"])
        files["json"]["data.json"]["splits"]["reference"]["sha256"] = digest

    made.change["data"] = forged


def another_control(made: Package) -> None:
    """A bad variant in the place of the untrained model."""
    made.params["eval-untrained"]["control"] = ""


def sweep_of_another_model(made: Package) -> None:
    """What moves is the model."""
    made.takes["sample-a1"]["train"] = made.takes["eval-a1"]["train"] = "train-untrained"
    made.takes["sample-a2"]["train"] = made.takes["eval-a2"]["train"] = "train-untrained"


def duplicates(made: Package) -> None:
    """A quarter of the samples, four times, under different names."""

    def forged(files: Made) -> None:
        images = np.tile(files["arrays"]["samples.npz"]["images"][: N // 4], (4, 1, 1, 1))
        files["arrays"]["samples.npz"]["images"] = images
        files["json"]["samples.json"]["content_sha256"] = images_sha256(images)
        files["tables"]["drift_samples"] = sample_rows(images, 1.5)

    made.change["sample"] = forged


def same_names(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_samples"]:
            row["sample_id"] = "S000000"

    made.change["sample"] = forged


def table_of_others(made: Package) -> None:
    def forged(files: Made) -> None:
        other = np.random.default_rng(9).uniform(size=(N, 4, 4, 1)).astype(np.float32)
        for row, digest in zip(files["tables"]["drift_samples"], image_digests(other), strict=True):
            row["digest"] = digest

    made.change["sample"] = forged


def across_n(made: Package) -> None:
    made.params["sample-untrained"]["n"] = 64


def _control(**over: Any) -> Callable[[Package], None]:
    def change(made: Package) -> None:
        def forged(files: Made) -> None:
            for row in files["tables"]["drift_eval"]:
                row.update(over)
            files["json"].pop("evaluation.json")

        made.change["eval-untrained"] = forged

    return change


def stale_summary(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_summary"]:
            if row["node"] == "eval" and row["metric"] == "fid":
                row["value"] = 14.0
        files["json"].clear()

    made.change["summary"] = forged


def stale_summary_document(made: Package) -> None:
    def forged(files: Made) -> None:
        files["json"]["summary.json"] = {"nodes": [{"node": "eval", "metric": "fid", "value": 14.0, "alpha": 1.5}]}

    made.change["summary"] = forged


def dropped_failure(made: Package) -> None:
    def forged(files: Made) -> None:
        rows = files["tables"]["drift_summary"]
        files["tables"]["drift_summary"] = [r for r in rows if r["node"] != "eval-broken"]

    made.change["summary"] = forged


def failure_as_success(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_summary"]:
            row["state"] = "succeeded"

    made.change["summary"] = forged


def garbage(job: str, name: str) -> Callable[[Package], None]:
    def change(made: Package) -> None:
        made.change[job] = lambda files: files["files"].update({name: b"PK\x03\x04 this is no archive"})

    return change


def garbage_document(made: Package) -> None:
    made.change["train"] = lambda files: files["files"].update({"config.json": b'{"steps": NaN, '})


def of_other_samples(made: Package) -> None:
    """The evaluation is of the best seed's samples, and says that it is of these."""
    made.takes["eval"]["sample"] = "sample-s3"


def of_other_model(made: Package) -> None:
    made.change["sample"] = lambda files: files["json"]["samples.json"].update(train_sha256="2" * 64)


def of_other_config(made: Package) -> None:
    made.change["sample"] = lambda files: files["json"]["samples.json"].update(config_sha256="2" * 64)


def of_other_data(made: Package) -> None:
    made.change["train"] = lambda files: files["json"]["config.json"].update(data_sha256="2" * 64)


def no_environment(made: Package) -> None:
    made.change["train"] = lambda files: files["env"].update(python="N/A")


def no_seed(made: Package) -> None:
    made.params["sample"]["seed"] = None


def memorised(made: Package) -> None:
    def forged(files: Made) -> None:
        arrays, rows = files["arrays"]["nn.npz"], files["tables"]["drift_nn"]
        arrays["samples_cosine"] = np.full(300, 0.999)
        rows[0].update(mean=0.999, median=0.999, p95=0.999)

    made.change["nn"] = forged


def memorised_and_said_otherwise(made: Package) -> None:
    def forged(files: Made) -> None:
        files["arrays"]["nn.npz"]["samples_cosine"] = np.full(300, 0.999)

    made.change["nn"] = forged


def neighbours_elsewhere(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_nn"]:
            row["against"] = "reference"

    made.change["nn"] = forged


def inert(made: Package) -> None:
    made.move = 0.05


def no_weight(made: Package) -> None:
    def forged(files: Made) -> None:
        for row in files["tables"]["drift_steps"]:
            row["unconditional_weight_mean"] = 0.0

    made.change["train"] = forged


def audit_found_other(made: Package) -> None:
    made.change["audit"] = lambda files: files["tables"]["audit"][0].update(found="21.5", passed=True)


def audit_of_nothing(made: Package) -> None:
    made.change["audit"] = lambda files: files["tables"]["audit"].pop(0)


def audit_failed(made: Package) -> None:
    made.fail["audit"] = "fid is another"


RUNS: list[tuple[Callable[[Package], None], Gate, Outcome, str]] = [
    (one_sample_forged, Gate.COUNTS, REFUSED, "sample"),
    (evaluation_only, Gate.COUNTS, MISSING, "no table of metrics"),
    (evaluation_says_more, Gate.COUNTS, REFUSED, "8192"),
    (evaluation_says_better, Gate.COUNTS, REFUSED, "value = 1.0"),
    (fake_contract_hash, Gate.CONTRACT, REFUSED, "000000000000"),
    (contract_says_other, Gate.CONTRACT, REFUSED, "its payload gives"),
    (contract_changed, Gate.CONTRACT, REFUSED, "its weights give"),
    (no_statistics, Gate.CONTRACT, MISSING, "reference.npz"),
    (few_statistics, Gate.CONTRACT, REFUSED, "reference.npz has 2"),
    (audit_row_failed, Gate.CONTRACT, REFUSED, "failed at contract"),
    (override_flag, Gate.OVERRIDE, MISSING, "allow_shared_encoder=true"),
    (noise, Gate.TRAINED, CAPPED, "noise"),
    (few_steps, Gate.TRAINED, CAPPED, "40 steps"),
    (one_negative, Gate.TRAINED, CAPPED, "negatives"),
    (not_finite, Gate.TRAINED, REFUSED, "not finite"),
    (half_trained, Gate.TRAINED, REFUSED, "ended at step 280 of 600"),
    (no_better_than_untrained, Gate.TRAINED, CAPPED, "better by"),
    (another_control, Gate.TRAINED, MISSING, "not an untrained"),
    (sweep_of_another_model, Gate.LIVE_KNOB, MISSING, "no sweep"),
    (same_encoder, Gate.NO_LEAKAGE, REFUSED, "very extractor"),
    (shared_weights, Gate.NO_LEAKAGE, REFUSED, "1 arrays"),
    (named_encoder, Gate.NO_LEAKAGE, REFUSED, "very extractor"),
    (overlap, Gate.NO_LEAKAGE, REFUSED, "5 images of the reference"),
    (duplicates, Gate.COUNTS, REFUSED, "only 100 of them differ"),
    (same_names, Gate.COUNTS, REFUSED, "only 1 names"),
    (table_of_others, Gate.COUNTS, REFUSED, "lists other pictures"),
    (across_n, Gate.COMPARABILITY, REFUSED, "n is 400"),
    (_control(device_class="cuda"), Gate.COMPARABILITY, REFUSED, "device_class"),
    (_control(seed=8), Gate.COMPARABILITY, REFUSED, "seed"),
    (_control(reference="3" * 64), Gate.COMPARABILITY, REFUSED, "reference"),
    (_control(contract="3" * 64), Gate.CONTRACT, REFUSED, "contract"),
    (stale_summary, Gate.STATEMENT, REFUSED, "stale"),
    (stale_summary_document, Gate.STATEMENT, REFUSED, "stale"),
    (dropped_failure, Gate.COMPLETE, REFUSED, "does not list it"),
    (failure_as_success, Gate.COMPLETE, REFUSED, "does not list it"),
    (garbage("sample", "samples.npz"), Gate.COUNTS, MISSING, "cannot be read"),
    (garbage("extractor", "extractor.npz"), Gate.CONTRACT, MISSING, "cannot be read"),
    (garbage("nn", "nn.npz"), Gate.MEMORISATION, MISSING, "cannot be read"),
    (garbage("train", "encoder.npz"), Gate.NO_LEAKAGE, MISSING, "cannot be read"),
    (garbage("data", "data.npz"), Gate.NO_LEAKAGE, MISSING, "cannot be read"),
    (garbage_document, Gate.LINEAGE, MISSING, "config.json"),
    (of_other_samples, Gate.LINEAGE, REFUSED, "did not take"),
    (of_other_model, Gate.LINEAGE, REFUSED, "none of these bytes"),
    (of_other_config, Gate.LINEAGE, REFUSED, "another"),
    (of_other_data, Gate.LINEAGE, REFUSED, "other data"),
    (no_environment, Gate.IDENTITY, MISSING, "python"),
    (no_seed, Gate.IDENTITY, MISSING, "no seed"),
    (memorised, Gate.MEMORISATION, CAPPED, "0.999"),
    (memorised_and_said_otherwise, Gate.MEMORISATION, REFUSED, "its cosines give"),
    (neighbours_elsewhere, Gate.MEMORISATION, MISSING, "'reference'"),
    (inert, Gate.LIVE_KNOB, CAPPED, "inert"),
    (no_weight, Gate.LIVE_KNOB, CAPPED, "weight 0"),
    (audit_found_other, Gate.INDEPENDENT, REFUSED, "21.5"),
    (audit_of_nothing, Gate.INDEPENDENT, MISSING, "did not recompute fid"),
    (audit_failed, Gate.INDEPENDENT, REFUSED, "failed"),
]


@pytest.mark.parametrize(
    ("plant", "gate", "outcome", "word"), RUNS, ids=[r[0].__name__ + f"-{i}" for i, r in enumerate(RUNS)]
)
def test_planted_in_a_run(
    made: Package, look: Look, plant: Callable[[Package], None], gate: Gate, outcome: Outcome, word: str
) -> None:
    plant(made)
    made.submit()
    made.state()
    made.run()
    _is_caught(look, gate, outcome, word)


def _is_caught(look: Look, gate: Gate, outcome: Outcome, word: str) -> None:
    label = look().label
    found = {f.gate: f for f in label.findings}
    assert found[gate].outcome is outcome, {str(f.gate): f.reason for f in label.by}
    assert word in found[gate].reason
    assert gate in {f.gate for f in label.by}
    assert not label.reached
    assert label.rung is None if outcome is REFUSED else label.rung in (None, Rung.SMOKE)


# After the results are there.


def flip(made: Package) -> None:
    path = artifact(made, "sample", "samples.npz")
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(bytes(blob))


def delete(made: Package) -> None:
    artifact(made, "train", "model.npz").unlink()


def delete_statistics(made: Package) -> None:
    artifact(made, "extractor", "reference.npz").unlink()


def forge_on_disk(made: Package) -> None:
    artifact(made, "eval", "evaluation.json").write_text('{"fid": 1.0, "n": 8192}')


def forge_with_the_seal(made: Package) -> None:
    """The file and the manifest that lists it: the journal has another manifest."""
    from core.fsio import sha256_file

    path = artifact(made, "eval", "evaluation.json")
    manifest = made.home.run_dir(made.ids["eval"], 1).manifest
    old = sha256_file(path)
    path.write_text('{"fid": 1.0, "n": 8192}')
    manifest.write_text(manifest.read_text().replace(old, sha256_file(path)))


def forge_rows(made: Package) -> None:
    """The Parquet part of the evaluation's table."""
    for path in (made.home.tables / "drift_eval").rglob("*.parquet"):
        path.write_bytes(path.read_bytes().replace(b"PAR1", b"PAR2", 1))


def remove_run(made: Package) -> None:
    import shutil

    shutil.rmtree(made.home.run_dir(made.ids["sample"], 1).path)


def remove_code(made: Package) -> None:
    import shutil

    for folder in made.home.code.iterdir():
        shutil.rmtree(folder)


def forge_env(made: Package) -> None:
    made.home.run_dir(made.ids["train"], 1).env.write_text("{}")


DISK = [
    (flip, Gate.BYTES, REFUSED, "samples.npz"),
    (delete, Gate.BYTES, REFUSED, "model.npz"),
    (delete_statistics, Gate.BYTES, REFUSED, "reference.npz"),
    (forge_on_disk, Gate.BYTES, REFUSED, "evaluation.json"),
    (forge_with_the_seal, Gate.BYTES, REFUSED, "not the one that was committed"),
    (forge_rows, Gate.BYTES, REFUSED, "tables/drift_eval"),
    (remove_run, Gate.BYTES, REFUSED, "missing"),
    (remove_code, Gate.IDENTITY, MISSING, "no copy is kept"),
    (forge_env, Gate.BYTES, REFUSED, "env.json"),
]


@pytest.mark.parametrize(("plant", "gate", "outcome", "word"), DISK, ids=[r[0].__name__ for r in DISK])
def test_planted_on_the_disk(
    made: Package, look: Look, plant: Callable[[Package], None], gate: Gate, outcome: Outcome, word: str
) -> None:
    made.submit()
    made.state()
    made.run()
    assert look().label.reached
    plant(made)
    _is_caught(look, gate, outcome, word)


# What is said.

BEST = {"rule": "best", "by": "fid", "over": {"seed": [1, 2, 3]}}
FOLD = {"text": "the untrained control is 6.2 billion-fold worse", "of": "control.fid / eval.fid"}
WORDS: list[tuple[str, dict[str, Any], Gate, Outcome, str]] = [
    ("stale-number", {"statement": "FID 14.2 with {eval.fid.n} samples"}, Gate.STATEMENT, REFUSED, "stale"),
    ("loose-number", {"statement": "it takes 1234 steps less"}, Gate.STATEMENT, REFUSED, "1234"),
    ("loose-fold", {"statement": "4.0-fold better: {eval.fid}"}, Gate.STATEMENT, REFUSED, "not of what"),
    ("wrong-ratio", {"notes": [FOLD]}, Gate.STATEMENT, REFUSED, "10^-9"),
    (
        "wrong-percent",
        {"notes": [{"text": "40% lower", "of": "eval.fid / control.fid"}]},
        Gate.STATEMENT,
        REFUSED,
        "40%",
    ),
    ("no-such-metric", {"statement": "precision {eval.precision}"}, Gate.STATEMENT, MISSING, "no row of 'precision'"),
    ("not-better", {"comparisons": [{"a": "control.fid", "b": "eval.fid"}]}, Gate.COMPARABILITY, REFUSED, "not lower"),
    (
        "seeds-and-one",
        {"comparisons": [{"a": "seeds.fid.mean", "b": "control.fid"}]},
        Gate.COMPARABILITY,
        REFUSED,
        "seed",
    ),
    ("other-contract", {"contract": "4" * 64}, Gate.CONTRACT, REFUSED, "444444444444"),
    ("other-config", {"config": "4" * 64}, Gate.LINEAGE, REFUSED, "444444444444"),
    ("not-the-best", {"selection": BEST}, Gate.COMPLETE, REFUSED, "takes the best fid"),
    (
        "seed-not-there",
        {"selection": {"rule": "all", "over": {"seed": [1, 2, 3, 4]}}},
        Gate.COMPLETE,
        MISSING,
        "seed 4",
    ),
    ("no-package", {"package": ""}, Gate.COMPLETE, MISSING, "no package"),
]


@pytest.mark.parametrize(("over", "gate", "outcome", "word"), [w[1:] for w in WORDS], ids=[w[0] for w in WORDS])
def test_planted_in_what_is_said(
    made: Package, look: Look, over: dict[str, Any], gate: Gate, outcome: Outcome, word: str
) -> None:
    made.submit()
    made.state(made.claim(**over))
    made.run()
    _is_caught(look, gate, outcome, word)


NEEDED = {"nn": Gate.MEMORISATION, "audit": Gate.INDEPENDENT, "control": Gate.TRAINED, "sweep": Gate.LIVE_KNOB}


def test_a_role_that_nobody_fills(made: Package, look: Look) -> None:
    made.submit()
    for role in NEEDED:
        given = made.claim(name=f"no-{role}", statement="FID {eval.fid}", comparisons=[], notes=[])
        del given["cites"][role]
        made.state(given)
    made.run()
    for role, gate in NEEDED.items():
        label = look(f"no-{role}").label
        assert {f.gate for f in label.by} == {gate}
        assert (label.rung, label.outcome) == (Rung.SMOKE, MISSING)


def test_best_of_three_chosen_after_the_results(made: Package, look: Look) -> None:
    """The same rule, stated before and after: before it is a rule, after it is a choice."""
    best = {"rule": "best", "by": "fid", "over": {"seed": [1, 2, 3]}}
    roles = {r: f"pkg/{r}-s3" for r in ("train", "sample", "eval")}
    made.takes["nn"]["sample"] = "sample-s3"
    for job in ("contract", "audit"):
        made.takes[job] |= {"train": "train-s3", "sample": "sample-s3", "eval": "eval-s3"}
    made._audit = lambda _name, files: files["tables"].update(  # type: ignore[method-assign]
        audit=[{"check": r["metric"], "found": repr(r["value"])} for r in made._rows["eval-s3"]["drift_eval"]]
    )
    made.submit()

    def claim(name: str, **over: Any) -> dict[str, Any]:
        given = made.claim(name=name, selection=best, **over)
        given["cites"] |= roles
        given["cites"]["control"] = "pkg/eval-untrained"
        return given

    made.state(claim("before"))
    made.run()
    made.state(claim("after"))
    given = claim("only")
    given |= {"selection": {"rule": "only"}, "name": "only"}
    del given["cites"]["seeds"]
    given["statement"] = "FID {eval.fid}"
    made.state(given)
    before, after, only = (look(n).label for n in ("before", "after", "only"))
    assert before.reached, [f.reason for f in before.by]
    assert after.rung is None
    assert [f.gate for f in after.by] == [Gate.COMPLETE]
    assert "after the results" in after.by[0].reason
    assert [f.gate for f in only.by if f.outcome is REFUSED] == [Gate.COMPLETE]
    assert "could have been cited" in next(f.reason for f in only.by if f.outcome is REFUSED)


def test_a_name_that_two_different_results_have(made: Package, look: Look) -> None:
    """A package that was run again with another seed until it looked good, under the same names."""
    made.submit()
    made.state()
    made.run()
    assert look().label.reached
    again = Package(made.home, made.here, pytest.MonkeyPatch())
    again._files, again._rows = dict(made._files), dict(made._rows)
    again.params["train"]["seed"] = 11
    again.submit()
    again.run()
    label = look().label
    assert not label.reached
    assert "cite one by id" in next(f.reason for f in label.findings if f.gate is Gate.IDENTITY)


def test_an_archive_of_objects_is_not_unpickled(made: Package, look: Look) -> None:
    def forged(files: Made) -> None:
        out = io.BytesIO()
        np.savez(out, images=np.array([{"a": 1}], dtype=object))
        files["files"]["samples.npz"] = out.getvalue()

    made.change["sample"] = forged
    made.submit()
    made.state()
    made.run()
    _is_caught(look, Gate.COUNTS, MISSING, "cannot be read")


def test_any_role_with_metrics_stands_under_the_contract(made: Package, look: Look) -> None:
    """A rival under a role of its own is held to what holds for every evaluation."""

    def forged(files: Made) -> None:
        for row in files["tables"]["drift_eval"]:
            row["contract"] = "7" * 64
        files["json"].clear()

    made.change["eval-s2"] = forged
    made.submit()
    given = made.claim(comparisons=[{"a": "eval.fid", "b": "rival.fid"}], statement="FID {eval.fid}")
    given["cites"] = {
        **{r: f"pkg/{r}" for r in ("eval", "sample", "train", "data", "extractor")},
        "rival": "pkg/eval-s2",
    }
    given |= {"notes": [], "selection": {"rule": "only"}}
    made.state(given)
    made.run()
    refused = {f.gate for f in look().label.findings if f.outcome is REFUSED}
    assert refused == {Gate.CONTRACT, Gate.COMPARABILITY}


def test_whatever_is_done_to_a_file_is_seen_and_breaks_nothing(made: Package, look: Look) -> None:
    """Files of the cited jobs, each damaged in one of several ways: never a pass, never an exception."""
    import random

    made.submit()
    made.state()
    made.run()
    before = look()
    assert before.label.reached
    rng = random.Random(5)
    ways: list[Callable[[bytes], bytes]] = [
        lambda b: b[: len(b) // 2],
        lambda b: b"[1, 2]",
        lambda b: b'{"inputs": 5, "files": [], "packages": [], "payload": 1, "rows": {}}',
        lambda b: bytes([*b[:-1], b[-1] ^ 1]),
        lambda b: b.replace(b"numpy", b"numpx", 1) + b" ",
        lambda b: b"",
    ]
    files = [(c.job, f.path) for c in before.evidence.jobs for f in c.files if not f.path.startswith("tables/")]
    for job, name in rng.sample(files, 24):
        path = made.home.run_dir(job, 1).path / name
        good = path.read_bytes()
        path.write_bytes(rng.choice(ways)(good) if good else b"x")
        label = look().label
        assert label.rung is None, name
        assert Gate.BYTES in {f.gate for f in label.by}
        assert all("not of a form" not in f.reason for f in label.findings), name
        path.write_bytes(good)
    assert look().label.reached
