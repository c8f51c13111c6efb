"""The drift studies as trees, and their summary: answers by hand, and what failed is listed and never dropped."""

from __future__ import annotations

import json
import math
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from core.errors import BadInput
from jobs.drift.ablation_tree import ablation_tree
from jobs.drift.package_tree import package_tree
from jobs.drift.sample import preview
from jobs.drift.summary_pictures import LEAST, MOST, ROWS, cut
from jobs.drift_kinds.ablation import VARIANTS, AblationParams
from jobs.drift_kinds.package import PackageParams
from jobs.drift_kinds.summary import DriftSummary, DriftSummaryParams
from tests.jobs.context import Recorder

HELD = {"fid": ("fid_floor", 2.0), "is_mean": ("is_floor", 9.0), "accuracy": ("accuracy_floor", 0.98)}


def by_kind(study):
    out = {}
    for node in study.nodes():
        out.setdefault(node.kind, []).append(node)
    return out


def test_every_variant_and_seed_has_its_own_branch_and_the_summary_waits_for_all():
    study = ablation_tree(AblationParams(seeds=[0, 1]))
    found = by_kind(study)
    branches = len(VARIANTS) * 2
    assert {kind: len(nodes) for kind, nodes in found.items()} == {
        "drift-data": 1,
        "drift-extractor": 1,
        "drift-train": branches,
        "drift-sample": branches,
        "drift-eval": branches,
        "drift-nn": branches,
        "drift-contract": branches,
        "drift-summary": 1,
    }
    (summary,) = found["drift-summary"]
    others = {n.name for nodes in found.values() for n in nodes} - {"summary"}
    assert {take.job for take in summary.takes} == others
    assert all(take.optional for take in summary.takes), "the summary runs whatever failed"
    assert {n["node"] for n in summary.params["nodes"]} == others
    assert [e.params.get("control") for e in found["drift-eval"]].count("untrained") == 2


def test_only_some_variants_and_one_that_is_none():
    study = ablation_tree(AblationParams(variants=["untrained", "raw"], seeds=[3], steps=40))
    trained = {n.name: n.params for n in study.nodes() if n.kind == "drift-train"}
    assert trained == {
        "train-raw-s3": {"seed": 3, "steps": 40},
        "train-untrained-s3": {"variant": "untrained", "seed": 3},
    }
    with pytest.raises(BadInput, match="no 'mae'"):
        ablation_tree(AblationParams(variants=["mae"]))


def test_the_package_sweeps_alpha_for_each_seed_and_audits_the_claimed_one():
    study = package_tree(PackageParams(seeds=[1, 2], alphas=[1.0, 1.5, 3.0], last=2, steps=600))
    nodes = {n.name: n for n in study.nodes()}
    assert {"sample", "sample-a1", "sample-a3", "sample-s2", "sample-a3-s2", "sample-step500"} <= set(nodes)
    assert {n for n in nodes if n.startswith("audit")} == {"audit", "audit-s2"}
    assert nodes["train"].params == {"last_checkpoints": 2, "seed": 1, "steps": 600}
    assert nodes["sample-step500"].params["checkpoint"] == 500
    assert nodes["eval-untrained"].params == {"control": "untrained"}
    for name in ("audit", "contract-s2"):
        assert {t.name for t in nodes[name].takes} == {"data", "extractor", "train", "sample", "eval", "nn"}
        assert nodes[name].params == {"least_n": 1000}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alpha": 1.25}, "not in alphas"),
        ({"alphas": [1.5, 7.0]}, "alpha 7"),
        ({"alphas": [1.5, 1.5]}, "twice"),
        ({"seeds": [1, 1]}, "twice"),
        ({"side": 8}, "side means nothing"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        PackageParams(**wrong)


def test_a_folder_is_held_against_the_splits_before_anything_is_submitted(tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        ablation_tree(AblationParams(source=str(tmp_path / "none")))
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for number in range(10):
            (tmp_path / name / f"{number}.png").touch()
    with pytest.raises(BadInput, match="has 20 images of 2 classes"):
        package_tree(PackageParams(source=str(tmp_path), reference=10, held=10))
    study = package_tree(PackageParams(source=str(tmp_path), reference=10, held=9))
    (data,) = by_kind(study)["drift-data"]
    assert data.params == {"source": str(tmp_path), "reference": 10, "held": 9}


def test_checkpoints_that_a_short_training_does_not_leave_are_said():
    assert "leaves 2 checkpoints only" in " ".join(package_tree(PackageParams(steps=200)).notes)
    assert "checkpoints only" not in " ".join(package_tree(PackageParams(steps=300)).notes)


def test_what_caps_a_claim_is_said_before_anything_runs():
    said = " ".join(package_tree(PackageParams(profile="proxy", unconditional=0)).notes)
    assert "stays at smoke" in said
    assert "inert" in said
    assert "inert" not in " ".join(package_tree(PackageParams()).notes)


class Package:
    """Files of nodes, as their jobs leave them."""

    def __init__(self, folder: Path, study) -> None:
        self.folder, self.files, self.absent = folder, {}, []
        self.summary = next(n for n in study.nodes() if n.kind == "drift-summary")
        self.words = {n["node"]: n for n in self.summary.params["nodes"]}

    def write(self, node: str, document) -> None:
        path = self.folder / f"{node}.json"
        path.write_text(json.dumps(document))
        self.files[node] = path

    def fill(self, value, *, unconditional: int = 16) -> Package:
        """`value(words, metric)` for every evaluation; everything else as it is when all is well."""
        for name, words in self.words.items():
            role = words["role"]
            if role == "eval":
                rows = [self.row(words, m, value(words, m)) for m in HELD]
                rows += [self.row(words, floor, v, control="held", alpha=None) for floor, v in HELD.values()]
                self.write(name, {"rows": rows})
            elif role == "nn":
                shared = {"n": 50, "mean": 0.8, "median": 0.8, "label_match": 0.9, "copies": 0, "samples": "x"}
                rows = [{"which": w, "p95": p, **shared} for w, p in (("samples", 0.91), ("held", 0.95))]
                self.write(name, {"rows": rows})
            elif role == "sample":
                path = self.folder / f"{name}.png"
                Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
                self.files[name] = path
            elif role == "train":
                self.write(name, {"recipe": {"unconditional": unconditional}})
            else:
                self.write(name, {"checks": [{"passed": True}, {"passed": True}]})
        return self

    def row(self, words, metric, value, **more):
        shared = {"n": 500, "std": None, "contract": "c" * 64, "samples": "d" * 64}
        return {
            "metric": metric,
            "value": value,
            "control": words.get("control", ""),
            "alpha": words["alpha"],
            **shared,
            **more,
        }

    def lose(self, node: str, state: str, why: str) -> None:
        del self.files[node]
        self.absent.append({"name": node, "made": {"state": state, "why": why}})

    def run(self, tmp_path: Path) -> Recorder:
        kind = DriftSummary()
        ctx = Recorder(kind, DriftSummaryParams(**self.summary.params), tmp_path / "run", inputs=self.files)
        ctx.raw = {"absent": self.absent}
        ctx.run()
        return ctx


def ablation(folder: Path, value, **params) -> Package:
    folder.mkdir(exist_ok=True)
    asked = {"variants": ["raw", "attraction-only", "untrained"], "seeds": [0, 1], **params}
    return Package(folder, ablation_tree(AblationParams(**asked))).fill(value)


def fids(raw, attraction, untrained):
    by = {"raw": raw, "attraction-only": attraction, "untrained": untrained}

    def value(words, metric):
        number = by[words["variant"]][words["seed"]]
        return number if metric == "fid" else {"is_mean": 10 - number / 100, "accuracy": 1 - number / 1000}[metric]

    return value


def answers(ctx, question, metric="fid"):
    return {
        (v["subject"], v["other"]): v
        for v in ctx.tables["drift_verdicts"]
        if v["question"] == question and v["metric"] == metric
    }


def test_a_control_that_is_worse_by_more_than_the_spread_is_found_worse(tmp_path):
    ctx = ablation(tmp_path / "in", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0))).run(tmp_path)
    worse = answers(ctx, "worse")
    assert worse["attraction-only", "raw"]["answer"] == "worse"
    assert worse["attraction-only", "raw"]["margin"] == pytest.approx(7.5)
    assert worse["attraction-only", "raw"]["spread"] == pytest.approx(2.0)
    assert answers(ctx, "worse", "accuracy")["untrained", "raw"]["answer"] == "worse"
    # Against real images: 2.5 on average where they have 2.0, and the seeds differ by 1.
    assert answers(ctx, "floor")["raw", "held-out real images"]["answer"] == "within the spread"
    assert answers(ctx, "floor")["untrained", "held-out real images"]["answer"] == "worse"


def test_a_control_within_the_spread_or_better_is_not_called_worse(tmp_path):
    ctx = ablation(tmp_path / "in", fids((2.0, 9.0), (9.5, 10.5), (1.0, 1.1))).run(tmp_path)
    worse = answers(ctx, "worse")
    assert worse["attraction-only", "raw"]["answer"] == "within the spread"
    assert worse["untrained", "raw"]["answer"] == "within the spread"
    ctx = ablation(tmp_path / "in", fids((9.0, 9.2), (9.1, 9.3), (1.0, 1.1))).run(tmp_path / "two")
    assert answers(ctx, "worse")["untrained", "raw"]["answer"] == "better"


def test_one_seed_answers_nothing(tmp_path):
    ctx = ablation(tmp_path / "in", fids((2.0,), (9.0,), (700.0,)), seeds=[0]).run(tmp_path)
    assert {v["answer"] for v in ctx.tables["drift_verdicts"]} == {"not enough seeds"}


def test_a_crashed_variant_is_listed_with_its_reason_and_the_rest_is_answered(tmp_path):
    package = ablation(tmp_path / "in", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0)))
    for role, state in (("train", "failed"), ("sample", "skipped"), ("eval", "skipped"), ("nn", "skipped")):
        package.lose(f"{role}-attraction-only-s1", state, f"{role}-attraction-only-s1 {state}: killed by signal 9")
    ctx = package.run(tmp_path)
    rows = {r["node"]: r for r in ctx.tables["drift_summary"] if r["state"] != "succeeded"}
    assert {n: r["state"] for n, r in rows.items()} == {
        "train-attraction-only-s1": "failed",
        "sample-attraction-only-s1": "skipped",
        "eval-attraction-only-s1": "skipped",
        "nn-attraction-only-s1": "skipped",
    }
    assert "signal 9" in rows["train-attraction-only-s1"]["reason"]
    worse = answers(ctx, "worse")
    assert worse["attraction-only", "raw"]["answer"] == "not enough seeds"  # and not the mean of what is left
    assert worse["untrained", "raw"]["answer"] == "worse"
    for file in ("index.html", "summary.md"):
        said = ctx.artifact(file).read_text()
        assert "train-attraction-only-s1" in said
        assert "signal 9" in said


def test_a_variant_of_which_nothing_is_left_is_answered_missing(tmp_path):
    package = ablation(tmp_path / "in", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0)))
    for seed in (0, 1):
        package.lose(f"eval-attraction-only-s{seed}", "failed", "no")
    assert answers(package.run(tmp_path), "worse")["attraction-only", "raw"]["answer"] == "missing"


def test_a_value_that_is_no_number_is_lost_and_not_averaged(tmp_path):
    package = ablation(tmp_path / "in", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0)))
    words = package.words["eval-raw-s1"]
    package.write("eval-raw-s1", {"rows": [package.row(words, "fid", None), package.row(words, "is_mean", 9.0)]})
    ctx = package.run(tmp_path)
    (row,) = [r for r in ctx.tables["drift_summary"] if r["node"] == "eval-raw-s1" and r["metric"] == "fid"]
    assert row["value"] is None
    assert row["reason"] == "it is no number"
    assert answers(ctx, "worse")["untrained", "raw"]["seeds"] == 1


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [({"alpha": 2.0}, "of alpha 2.0"), ({"control": "untrained"}, "control='untrained'")],
)
def test_an_evaluation_of_something_else_is_refused(tmp_path, spoiled, said):
    package = ablation(tmp_path / "in", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0)))
    words = package.words["eval-raw-s0"]
    package.write("eval-raw-s0", {"rows": [package.row(words, "fid", 2.0, **spoiled)]})
    with pytest.raises(BadInput, match=said):
        package.run(tmp_path)


def claimed(folder: Path, slope: float, noise: float, **params) -> Package:
    """A package whose inception score rises with alpha, by `slope` each, and differs by `noise` from seed to seed."""
    folder.mkdir(exist_ok=True)
    asked = {"seeds": [1, 2, 3], "alphas": [1.0, 1.5, 2.0], "steps": 600, **params}
    study = package_tree(PackageParams(**asked))

    def value(words, metric):
        if words.get("control") == "untrained":
            return {"fid": 700.0, "is_mean": 1.5, "accuracy": 0.1}[metric]
        if metric == "is_mean":
            return 8.0 + slope * words["alpha"] + noise * words["seed"]
        return {"fid": 2.0, "accuracy": 0.95}[metric]

    return Package(folder, study).fill(value, unconditional=params.get("unconditional", 16))


def test_alpha_is_live_only_beyond_the_spread_of_the_seeds(tmp_path):
    ctx = claimed(tmp_path / "live", 0.5, 0.1).run(tmp_path / "a")
    live = answers(ctx, "alpha", "is_mean")["2", "1"]
    assert (live["answer"], live["seeds"]) == ("live", 3)
    assert live["margin"] == pytest.approx(0.5)
    assert live["spread"] == pytest.approx(0.2)
    assert answers(ctx, "alpha", "accuracy")["2", "1"]["answer"].startswith("inert")
    drowned = claimed(tmp_path / "drowned", 0.5, 0.3).run(tmp_path / "b")
    assert answers(drowned, "alpha", "is_mean")["2", "1"]["answer"].startswith("inert")


def test_alpha_without_unconditional_negatives_is_inert_whatever_the_numbers_say(tmp_path):
    ctx = claimed(tmp_path / "in", 0.5, 0.1, unconditional=0).run(tmp_path)
    assert answers(ctx, "alpha", "is_mean")["2", "1"]["answer"] == "inert: the unconditional negatives weigh nothing"


def test_the_floor_is_compared_with_a_distance_of_as_many_images(tmp_path):
    package = claimed(tmp_path / "in", 0.5, 0.1)
    for name, words in package.words.items():
        if words["role"] == "eval" and not words.get("control"):
            read = json.loads(package.files[name].read_text())
            read["rows"].append(package.row(words, "fid_matched", 7.0 + words["seed"], n=250))
            package.write(name, read)
    ctx = package.run(tmp_path)
    floor = answers(ctx, "floor", "fid_matched")["1.5", "held-out real images"]
    assert (floor["margin"], floor["spread"], floor["answer"]) == (pytest.approx(7.0), pytest.approx(2.0), "worse")
    assert not answers(ctx, "floor", "fid")
    said = ctx.artifact("summary.md").read_text()
    assert "matched n of held-out real images, is 2.00: alpha 1.5 9.0 ± 1.0 (4.50 of the floor, farther)" in said


def test_an_untrained_control_that_was_lost_is_answered_missing(tmp_path):
    package = claimed(tmp_path / "in", 0.5, 0.1)
    package.lose("eval-untrained", "failed", "no")
    ctx = package.run(tmp_path)
    assert answers(ctx, "untrained")["1.5", "untrained"]["answer"] == "missing"
    assert "not found better than the untrained one" in ctx.artifact("summary.md").read_text()


def test_the_claimed_rows_are_marked_and_the_last_checkpoints_are_reported_beside_them(tmp_path):
    ctx = claimed(tmp_path / "in", 0.5, 0.1).run(tmp_path)
    rows = [r for r in ctx.tables["drift_summary"] if r["claimed"] and r["metric"] == "fid"]
    assert {r["node"] for r in rows} == {"eval", "eval-s2", "eval-s3"}
    assert not any(r["checkpoint"] for r in rows)
    said = ctx.artifact("summary.md").read_text()
    assert "step 400" in said
    assert "reported, not chosen" in said
    assert "none is chosen" in said


def leads(ctx) -> str:
    """What stands before the first heading of the Markdown; the page says the same."""
    lead = ctx.artifact("summary.md").read_text().split("\n## ")[0]
    page = ctx.artifact("index.html").read_text()
    assert all(escape(line.removeprefix("- ")) in page for line in lead.splitlines() if line.startswith("- "))
    return lead


def test_the_first_sentences_say_what_fails_and_how_near_the_rest_comes(tmp_path):
    good = leads(ablation(tmp_path / "a", fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0))).run(tmp_path / "one"))
    assert "must fail do: by Fréchet distance attraction-only (10.0 ± 1.4) and untrained (710 ± 14) are worse" in good
    assert "of held-out real images, is 2.00: raw 2.50 ± 0.71 (1.25 of the floor, within the spread)" in good
    bad = leads(ablation(tmp_path / "b", fids((2.0, 9.0), (9.5, 10.5), (700.0, 720.0))).run(tmp_path / "two"))
    assert "must fail do" not in bad
    assert "untrained (710 ± 14) is; but attraction-only (10.00 ± 0.71): within the spread." in bad


def test_a_metric_that_does_not_see_a_failure_is_named(tmp_path):
    def blind(words, metric):
        return fids((2.0, 3.0), (9.0, 11.0), (700.0, 720.0))(words, "fid") if metric == "fid" else 0.9

    said = leads(ablation(tmp_path / "in", blind).run(tmp_path))
    assert "Not every metric sees that: attraction-only is within the spread by inception score and" in said


def test_the_first_sentences_say_whether_alpha_is_live(tmp_path):
    live = leads(claimed(tmp_path / "a", 0.5, 0.1).run(tmp_path / "one"))
    assert "Alpha is live: from 1 to 2, inception score changes by +0.500 (spread over seeds 0.200)" in live
    drowned = leads(claimed(tmp_path / "b", 0.5, 0.3).run(tmp_path / "two"))
    assert "Alpha is inert: from 1 to 2 no metric" in drowned
    dead = leads(claimed(tmp_path / "c", 0.5, 0.1, unconditional=0).run(tmp_path / "three"))
    assert "Alpha is inert: the unconditional negatives weigh nothing" in dead
    few = leads(claimed(tmp_path / "d", 0.5, 0.1, seeds=[1]).run(tmp_path / "four"))
    assert "Whether alpha is live cannot be said" in few


@pytest.mark.parametrize(("classes", "shown"), [(2, LEAST), (7, 6), (10, MOST)])
def test_the_page_shows_the_upper_rows_of_a_preview_each_whole(tmp_path, classes, shown):
    images = np.linspace(-1, 1, 40 * 6 * 5, dtype=np.float32).reshape(40, 6, 5, 1)
    preview(tmp_path / "preview.png", images, np.arange(40) % classes, classes)
    with Image.open(tmp_path / "preview.png") as whole:
        rows = whole.height / ROWS
        assert rows == round(rows)
    cut(tmp_path / "preview.png", tmp_path / "cut.png")
    with Image.open(tmp_path / "cut.png") as part:
        assert part.height / part.width == pytest.approx(shown * rows / whole.width)


def test_page_stands_alone_and_documents_hold_every_row(tmp_path):
    ctx = claimed(tmp_path / "in", 0.5, 0.1).run(tmp_path)
    page = ctx.artifact("index.html").read_text()

    outside = []

    class Outside(HTMLParser):
        def handle_starttag(self, tag, attributes):
            for name, value in attributes:
                if name in ("src", "href") and not str(value).startswith(("data:", "#")):
                    outside.append(f"{tag} {value}")

    Outside().feed(page)
    assert outside == []
    document = json.loads(ctx.artifact("summary.json").read_text())
    assert len(document["rows"]) == len(ctx.tables["drift_summary"])
    with Image.open(ctx.artifact("quality.png")) as figure:
        assert figure.width > 1000
    assert ctx.expected["rows"] == {name: len(rows) for name, rows in ctx.tables.items()}
    assert all(r["value"] is None or math.isfinite(r["value"]) for r in document["rows"])
