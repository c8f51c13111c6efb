"""Honest packages get what they want: no gate cries wolf. Each is another way of being honest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.claims import Gate, Outcome, Rung
from core.journal import Journal, query
from core.states import JobState
from lab.claims import sentence
from tests.lab.claims.conftest import Look
from tests.lab.claims.package import Made, Package

Claim = dict[str, Any]


def plain(made: Package, given: Claim) -> None:
    """As it is."""


def raw_encoder(made: Package, given: Claim) -> None:
    """Trained on raw pixels: there is no encoder."""
    made.encoder = False


def two_failures(made: Package, given: Claim) -> None:
    """A sweep's evaluation failed too, and the summary says so."""
    made.fail["eval-a2"] = "the disk was full"
    given["cites"]["sweep"] = given["cites"]["sweep"][:1]


def no_knob(made: Package, given: Claim) -> None:
    """Alpha 1 is no guidance, and no knob is claimed."""
    for name, params in made.params.items():
        if name.startswith("sample"):
            params["alpha"] = 3.0 if name == "sample-a1" else 2.0 if name == "sample-a2" else 1.0
    given |= {"knobs": [], "statement": "FID is {eval.fid} of {eval.fid.n} samples"}
    del given["cites"]["sweep"]


def by_id(made: Package, given: Claim) -> None:
    """Cited by id, stated once the jobs are in the queue."""
    given["cites"] = {
        role: [made.ids[j.rpartition("/")[2]] for j in what] if role == "sweep" else
        [{r: made.ids[j.rpartition("/")[2]] for r, j in each.items()} for each in what] if role == "seeds" else
        made.ids[what.rpartition("/")[2]]
        for role, what in given["cites"].items()
    }  # fmt: skip


def written_numbers(made: Package, given: Claim) -> None:
    """Numbers that stand in the text and are so: parameters, a metric as the row has it, counts."""
    given["statement"] = "With 600 steps at alpha 1.5, seeds 1 to 3 of 8x8 pixels, FID 15.0 of 400 samples; {eval.fid}"


def notes(made: Package, given: Claim) -> None:
    """Factors, percentages and magnitudes that are what the rows give."""
    given["notes"] = [
        {"text": "four-fold better than untrained", "of": "control.fid / eval.fid"},
        {"text": "75% lower than untrained", "of": "eval.fid / control.fid"},
        {"text": "less than one order of magnitude apart (0.6 orders of magnitude)", "of": "control.fid / eval.fid"},
        {"text": "a gap of 45.0", "of": "control.fid - eval.fid"},
        "the digits are from scikit-learn",
    ]


def closed_scope(made: Package, given: Claim) -> None:
    """Everything that was deferred is closed."""
    given["scope"] = {"current": "pixels", "closed": ["scheduler", "ConvNeXt encoder"], "policy": "label beside number"}


def more_seeds_later(made: Package, given: Claim) -> None:
    """Seed 3 is there, was not known when the claim was stated, and the rule does not name it."""
    given["cites"]["seeds"] = given["cites"]["seeds"][:2]
    given["selection"] = {"rule": "all", "over": {"seed": [1, 2]}}
    given["wants"] = "experimental"


def best_by_rule(made: Package, given: Claim) -> None:
    """The best of the seeds by a rule that was there before: it is seed 1."""
    given["selection"] = {"rule": "best", "by": "is_mean", "lower": True, "over": {"seed": [1, 2]}}
    given["cites"]["seeds"] = given["cites"]["seeds"][:2]
    given["wants"] = "experimental"
    made.params["train-s3"]["variant"] = "another"


def only_experimental(made: Package, given: Claim) -> None:
    """A small run that does not want more than it can have."""
    for name, params in made.params.items():
        if name.startswith("sample"):
            params["n"] = 120
        if name.startswith("train"):
            params["steps"] = 120
    given |= {"wants": "experimental"}


def smoke(made: Package, given: Claim) -> None:
    """Sixteen steps with a random extractor, and nothing is said but that it runs."""
    made.profile = "proxy"
    for name, params in made.params.items():
        if name.startswith("train"):
            params["steps"] = 16
    given |= {"wants": "smoke"}


def shuffled_rows(made: Package, given: Claim) -> None:
    """The table of samples lists them in another order than the file."""

    def change(files: Made) -> None:
        files["tables"]["drift_samples"].reverse()

    made.change["sample"] = change


def another_checkpoint(made: Package, given: Claim) -> None:
    """The samples are of the weights of a step, which lie beside the last ones."""

    def train(files: Made) -> None:
        files["arrays"]["model-000500.npz"] = {"w": np.full((8, 8), 0.5)}

    def sample(files: Made) -> None:
        import hashlib

        said = hashlib.sha256(made._files["train"]["model-000500.npz"]).hexdigest()
        files["json"]["samples.json"]["train_sha256"] = said

    made.change |= {"train": train, "sample": sample}


def more_samples_than_held_out(made: Package, given: Claim) -> None:
    """The floor is of fewer images, and a distance of as many samples stands beside it."""

    def matched(files: Made) -> None:
        for rows in (files["tables"]["drift_eval"], files["json"]["evaluation.json"]["rows"]):
            for row in rows:
                row["n"] = 200 if row["control"] == "held" else row["n"]
            rows.append({**rows[0], "metric": "fid_matched", "value": 16.5, "n": 200, "samples": "e" * 64})

    made.change |= {"eval": matched, "eval-s2": matched}


HONEST: list[Callable[[Package, Claim], None]] = [
    plain, raw_encoder, two_failures, no_knob, by_id, written_numbers, notes, closed_scope, more_seeds_later,
    best_by_rule, only_experimental, smoke, shuffled_rows, another_checkpoint,
    more_samples_than_held_out,
]  # fmt: skip


@pytest.mark.parametrize("variant", HONEST, ids=[v.__name__ for v in HONEST])
def test_an_honest_package_gets_what_it_wants(made: Package, look: Look, variant: Callable[..., None]) -> None:
    given = made.claim()
    if variant is not by_id:
        variant(made, given)
    made.submit()
    if variant is by_id:
        variant(made, given)
    made.state(given)
    made.run()
    found = look()
    assert found.label.reached, [(str(f.gate), f.reason) for f in found.label.by]
    assert found.label.word == given["wants"]
    assert f"[{given['wants']}]" in sentence(found)


def test_nothing_is_claimed_before_there_is_evidence(made: Package, look: Look) -> None:
    """Stated before its results: smoke, with the reasons; and each job that ends closes something."""
    made.submit()
    made.state()
    label = look().label
    assert label.rung in (None, Rung.SMOKE)
    assert not label.reached
    open_before = len(label.by)
    made.run("data", "extractor", "train", "sample")
    assert len(look().label.by) < open_before
    with Journal.open(made.home) as journal:
        assert query.job(journal.conn, made.ids["eval"]).state is JobState.QUEUED


def test_a_deferred_gate_keeps_a_claim_down_while_it_stands(made: Package, look: Look) -> None:
    item = {"name": "convnext", "why": "no pretrained encoder"}
    made.submit()
    made.state(made.claim(name="deferred", scope={"deferred": [item]}))
    made.state(made.claim(name="open", scope={"open": [{**item, "caps": "smoke"}]}))
    made.state(made.claim(name="modest", scope={"deferred": [item]}, wants="experimental"))
    made.run()
    deferred, open_, modest = (look(n).label for n in ("deferred", "open", "modest"))
    assert (deferred.rung, deferred.outcome, [f.gate for f in deferred.by]) == (
        Rung.EXPERIMENTAL, Outcome.DEFERRED, [Gate.DECIDED],
    )  # fmt: skip
    assert deferred.word == "experimental, closest-feasible deferred"
    assert (open_.rung, open_.reached) == (Rung.SMOKE, False)
    assert modest.reached
