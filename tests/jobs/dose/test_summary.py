"""The summary: means, spreads and verdicts by hand, what is missing is listed, and the page stands by itself."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from core.errors import BadInput
from core.kind import Absent
from jobs.dose.conditions import CONTROLS, MUST_BEAT, TRAIN_HALF
from jobs.dose.gather import METRICS, read_metrics
from jobs.dose.manifest import trainings
from jobs.dose.summary import FEW, UNPLACED, Metric, Place, Value, cells, held_against, verdicts
from jobs.dose.tree import plan_of, summary_params
from jobs.dose_kinds.study import DoseParams
from jobs.dose_kinds.summary import DoseSummary, SummaryParams
from kernels.diffraction.registration import Shifted
from tests.jobs.context import Recorder
from tests.jobs.dose.comparisons import comparison

GREATER = Metric("q", "quality", "", True)
LESS = Metric("q", "error", "rad", False)


def values(arm, by_seed, *, photons=1e3, view="dense", metric="q"):
    return [Value(photons, view, 2, seed, arm, metric, number) for seed, number in by_seed.items()]


def cell(*numbers):
    (found,) = cells(values("pinn", dict(enumerate(numbers))))
    return found


def test_mean_and_spread_by_hand():
    (found,) = cells(values("pinn", {42: 1.0, 43: 2.0, 44: 6.0}))
    assert (found.mean, found.least, found.most, found.n) == (3.0, 1.0, 6.0, 3)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2), rel=1e-15)


def test_one_seed_has_no_spread():
    (found,) = cells(values("pinn", {42: 1.0}))
    assert found.sd is None
    assert held_against(found, found, True)[3] == FEW


def test_a_value_that_is_no_number_is_listed_and_not_averaged():
    (found,) = cells(values("pinn", {42: 1.0, 43: math.nan}))
    assert (found.seeds, found.lost, found.mean) == ((42,), (43,), 1.0)


def test_a_seed_that_counts_twice_is_refused():
    with pytest.raises(ValueError, match="two values"):
        cells(values("pinn", {42: 1.0}) + values("pinn", {42: 2.0}))


@pytest.mark.parametrize(
    ("one", "other", "greater", "answer"),
    [
        ((0.8, 0.82), (0.5, 0.55), True, "better"),
        ((0.8, 0.82), (0.5, 0.55), False, "worse"),
        ((0.5, 0.55), (0.8, 0.82), True, "worse"),
        ((0.5, 0.9), (0.4, 0.45), True, "within the spread"),  # the means differ by less than one side's range
        ((0.50, 0.58), (0.45, 0.51), True, "within the spread"),  # the ranges meet
        ((0.5, 0.5), (0.5, 0.5), True, "within the spread"),
        ((0.0, 0.5, 0.5), (-0.2, -0.1, 0.0), True, "within the spread"),  # three seeds: ranges that touch
        ((0.8,), (0.5, 0.55), True, FEW),
        ((-3.0, -2.9), (-5.0, -4.9), True, "better"),  # a negative measure: the guard of the seed was inverted there
        ((-3.0, -2.9), (-5.0, -4.9), False, "worse"),
    ],
)
def test_better_means_by_more_than_the_spread(one, other, greater, answer):
    margin, spread, n, said = held_against(cell(*one), cell(*other), greater)
    assert said == answer
    assert n == min(len(one), len(other))
    if n > 1:
        difference = sum(one) / len(one) - sum(other) / len(other)
        assert margin == pytest.approx(difference if greater else -difference, abs=1e-15)
        assert spread == pytest.approx(max(max(one) - min(one), max(other) - min(other)), abs=1e-15)


def test_what_an_arm_did_not_deliver_is_answered_missing():
    assert held_against(None, cell(1, 2), True)[3] == "missing"
    assert held_against(cell(math.nan, math.nan), cell(1, 2), True)[3] == "missing"
    found = verdicts(cells(values("lsqml", {1: 0.5, 2: 0.6})), [GREATER], ["pinn", "lsqml", "untrained"])
    assert {(v.question, v.answer) for v in found} == {("beats", "missing"), ("against-lsqml", "missing")}


def test_the_physics_alone_is_asked_about_and_is_no_claim_of_a_control():
    """What training adds is a question of its own: a trained arm that adds nothing still beats its controls."""
    made = values("pinn", {1: 0.5, 2: 0.51}) + values("untrained", {1: 0.2, 2: 0.21}) + values("mean", {1: 0, 2: 0.01})
    arms = ["pinn", *CONTROLS]

    def answers(*more):
        return {(v.question, v.other): v.answer for v in verdicts(cells([*made, *more]), [GREATER], arms)}

    beats = {("beats", control): "better" for control in MUST_BEAT}
    assert answers(*values("physics", {1: 0.5, 2: 0.505})) == beats | {("over-physics", "physics"): "within the spread"}
    assert answers(*values("physics", {1: 0.7, 2: 0.71})) == beats | {("over-physics", "physics"): "worse"}
    assert answers() == beats | {("over-physics", "physics"): "missing"}


def test_an_arm_that_is_not_registered_counts_nowhere():
    """One seed lies elsewhere: the one that is left would be a choice of the better."""
    good = values("pinn", {42: 0.8, 43: 0.82})
    bad = [good[0], dataclasses.replace(good[1], value=0.1, placed=False)]
    lost, whole = (cells(v)[0] for v in (bad, good))
    assert (lost.seeds, lost.lost, lost.unplaced, lost.mean) == ((42,), (43,), (43,), 0.8)
    assert (whole.lost, whole.unplaced) == ((), ())
    low = cells(values("mean", {42: 0.2, 43: 0.21}))[0]
    assert held_against(lost, low, True)[2:] == (1, UNPLACED)
    assert held_against(low, lost, True)[3] == UNPLACED, "on either side"
    assert held_against(whole, low, True)[3] == "better"
    # The trap, put back: with the number of another place in the mean the arm would be worse than it is.
    assert cells([good[0], dataclasses.replace(bad[1], placed=True)])[0].mean == pytest.approx(0.45)


def test_lsqml_is_asked_about_every_step_of_dose():
    numbers = {1e3: (0.5, 0.51), 1e4: (0.7, 0.71), 1e5: (0.7, 0.72)}
    made = [v for d, (a, b) in numbers.items() for v in values("lsqml", {1: a, 2: b}, photons=d)]
    found = [v for v in verdicts(cells(made), [GREATER], ["lsqml"]) if v.question == "dose"]
    assert [(v.place.photons, v.other, v.answer) for v in found] == [
        (1e4, "1000", "better"),
        (1e5, "10000", "within the spread"),
    ]
    falling = [v for v in verdicts(cells(made), [LESS], ["lsqml"]) if v.question == "dose"]
    assert falling[0].answer == "worse", "an error that grows with the dose is no success"


# ---------------------------------------------------------------- the kind


def grade(condition, arm):
    """Arms rise with the dose, controls do not; seeds differ by 0.01."""
    base = {"pinn": 0.5, "supervised": 0.45, "lsqml": 0.4, "untrained": 0.2, "mean": 0.15, "physics": 0.3}[arm]
    rise = 0 if arm in CONTROLS else 0.1 * (math.log10(condition.photons) - 3)
    return base + rise + 0.01 * (condition.seed - 42)


def summarise(tmp_path, quality=grade, *, drop=(), **wanted):
    """(recorder, plan) after a run over made-up comparisons; `drop`: names of conditions without one."""
    plan = plan_of(DoseParams(size="tiny", **{"seeds": [42, 43], **wanted}))
    params = SummaryParams(**summary_params(plan))
    inputs: dict[str, Path] = {
        f"compare_{c.name}": comparison(tmp_path / "in" / c.name, c, tuple(params.arms), quality)
        for c in plan.conditions
        if c.name not in drop
    }
    run = Recorder(DoseSummary(), params, tmp_path / "run", inputs=inputs)
    run.run()
    return run, plan


@pytest.fixture(autouse=True, scope="module")
def no_figure():
    """matplotlib takes most of the time of a run: one test draws, the others get along without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.dose.summary_run.draw_quality", lambda out, *_: out.write(b"drawn"))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return summarise(tmp_path_factory.mktemp("summary"))


def test_the_tables_say_what_the_comparisons_said(whole):
    run, plan = whole
    rows = run.tables["dose_summary"]
    row = next(
        r for r in rows if (r["photons"], r["view"], r["arm"], r["metric"]) == (1e5, "dense", "lsqml", "ms_ssim_phase")
    )
    assert row["mean"] == pytest.approx(0.605, abs=1e-12)
    assert (row["seeds"], row["planned"]) == (2, 2)
    assert row["most"] - row["least"] == pytest.approx(0.01, abs=1e-12)
    assert row["photons_per_pixel"] == 5e4
    assert {r["answer"] for r in run.tables["dose_verdicts"] if r["question"] == "beats"} == {"better"}
    assert {r["answer"] for r in run.tables["dose_verdicts"] if r["question"] == "dose"} == {"better"}
    assert "dose_skips" not in run.tables
    assert run.expected["rows"]["dose_summary"] == len(rows)
    places = len(plan.design.doses) * len(plan.design.views)
    one = [r for r in run.tables["dose_verdicts"] if r["metric"] == "frc50" and r["question"] == "beats"]
    assert len(one) == places * 2 * 2


def test_arms_that_are_no_better_than_a_control_are_said_to_be_so(tmp_path):
    """The negative twin: noise, with the same tables."""
    noise = {"pinn": 0.0, "supervised": 0.02, "lsqml": 0.01, "untrained": 0.01, "mean": 0.015, "physics": 0.005}
    run, _ = summarise(tmp_path, lambda c, arm: 0.3 + noise[arm] + 0.05 * (c.seed - 42))
    answers = {r["answer"] for r in run.tables["dose_verdicts"]}
    assert answers == {"within the spread"}


def test_a_failed_condition_is_listed_and_the_rest_is_there(tmp_path):
    gone = "d1000_dense_gs2_s42"

    def some(condition, arm):
        lost = arm == "pinn" and condition.name == "d100000_sparse_gs2_s43"
        return None if lost else grade(condition, arm)

    run, plan = summarise(tmp_path, some, drop=(gone,))
    skips = {(r["condition"], r["arm"]): (r["state"], r["reason"]) for r in run.tables["dose_skips"]}
    assert skips[gone, ""][0] == "failed"
    assert skips["d100000_sparse_gs2_s43", "pinn"] == ("missing", "no input pinn")
    assert len(skips) == 2
    few = [r for r in run.tables["dose_verdicts"] if r["photons"] == 1e3 and r["view"] == "dense"]
    assert few
    assert {r["answer"] for r in few if r["question"] != "dose"} == {FEW}
    text = (run.artifacts / "summary.md").read_text()
    assert gone in text
    assert f"{len(plan.conditions) - 1} of {len(plan.conditions)} planned conditions" in text
    assert gone in (run.artifacts / "index.html").read_text()


def test_arms_that_were_not_registered_are_listed_and_controls_count(tmp_path):
    over = {"shift_state": str(Shifted.OVER_CAP), "flags": "not registered: the shift that was found, (9, 0) px"}

    def spoilt(tmp_path, arms):
        run, _ = summarise(tmp_path / "a", views=["dense"], doses=[1e3])
        for folder in run.inputs.values():
            read = json.loads((folder / "metrics.json").read_text())
            if read["condition"]["seed"] == 43:
                read["rows"] = [{**r, **over} if r["arm"] in arms else r for r in read["rows"]]
                (folder / "metrics.json").write_text(json.dumps(read))
        again = Recorder(DoseSummary(), run.params, tmp_path / "b", inputs=run.inputs)
        again.run()
        cell = {r["arm"]: r for r in again.tables["dose_summary"] if r["metric"] == "ms_ssim_phase"}
        answers = {(r["arm"], r["other"]): r["answer"] for r in again.tables["dose_verdicts"]}
        states = {(r["condition"], r["arm"]): r["state"] for r in again.tables.get("dose_skips", [])}
        return again, cell, answers, states

    again, cell, answers, states = spoilt(tmp_path / "1", ["pinn"])
    assert (cell["pinn"]["seeds"], cell["pinn"]["lost"], cell["pinn"]["planned"]) == (1, 1, 2)
    assert cell["pinn"]["mean"] == pytest.approx(0.5)
    assert {a for (arm, _), a in answers.items() if arm == "pinn"} == {UNPLACED}
    assert {a for (arm, _), a in answers.items() if arm == "supervised"} == {"better"}
    assert states == {("d1000_dense_gs2_s43", "pinn"): UNPLACED}
    page, text = ((again.artifacts / name).read_text() for name in ("index.html", "summary.md"))
    assert "0.5 (1 seed), 1 lost" in text
    assert "| not registered |" in text
    assert page.count('aria-label="Legend"') > 0
    # Whatever a control looks like, an arm must beat it: it counts, and is flagged.
    _, cell, answers, states = spoilt(tmp_path / "2", ["mean", "untrained"])
    assert (cell["mean"]["seeds"], cell["mean"]["lost"]) == (2, 0)
    assert {a for (arm, _), a in answers.items() if arm in ("pinn", "supervised")} == {"better"}
    assert set(states.values()) == {"flagged"}


def test_the_training_half_stands_in_a_table_of_its_own(tmp_path):
    """It is of another part of the object: in no verdict, in no line of a chart, and its light is not the others'."""
    run, _ = summarise(tmp_path / "a", views=["dense"], doses=[1e3])
    for folder in run.inputs.values():
        read = json.loads((folder / "metrics.json").read_text())
        own = next(r for r in read["rows"] if r["arm"] == "lsqml")
        read["rows"].append({**own, "arm": TRAIN_HALF, "relative_error": 0.0777, "photons_per_pixel": 1e9})
        read["frc"][TRAIN_HALF] = read["frc"]["lsqml"]
        (folder / "metrics.json").write_text(json.dumps(read))
    again = Recorder(DoseSummary(), run.params, tmp_path / "b", inputs=run.inputs)
    again.run()
    assert again.tables["dose_verdicts"] == run.tables["dose_verdicts"]
    others = [r for r in again.tables["dose_summary"] if r["arm"] != TRAIN_HALF]
    assert others == run.tables["dose_summary"]
    own = {r["metric"]: r for r in again.tables["dose_summary"] if r["arm"] == TRAIN_HALF}
    assert own["relative_error"]["mean"] == pytest.approx(0.0777)
    assert own["relative_error"]["photons_per_pixel"] is None
    page, before = ((r.artifacts / "index.html").read_text() for r in (again, run))
    assert "LSQML on the training half" in page
    assert "LSQML on the training half" not in before, "and where there is none, no table"
    assert page.count("0.0777 ± ") == 1
    assert page.count("<polyline") == before.count("<polyline")
    assert "0.0777 ± " in (again.artifacts / "summary.md").read_text()


def test_what_a_failed_job_died_of_is_told(tmp_path):
    """Its artifacts are handed to nobody: the lane says how it ended."""
    run, plan = summarise(tmp_path / "a", views=["dense"], doses=[1e3], seeds=[42])
    (name,) = (c.name for c in plan.conditions)
    died = f"dose/pinn_{name} failed: the loss of step 7 is nan; 2 of 40 epochs were done"
    again = Recorder(DoseSummary(), run.params, tmp_path / "b", inputs={})
    again.raw = {
        "absent": [
            {"name": f"model_pinn_{name}", "made": {"why": died}},
            {"name": f"compare_{name}", "made": {"why": "dose/compare cancelled"}},
        ]
    }
    again.run()
    rows = {r["arm"]: r for r in again.tables["dose_trainings"]}
    assert (rows["pinn"]["status"], rows["pinn"]["error"]) == ("failed", died)
    assert rows["supervised"]["error"] == f"its job did not succeed: input model_supervised_{name} is absent"
    assert "dose/compare cancelled" in again.tables["dose_skips"][0]["reason"]
    assert died in (again.artifacts / "index.html").read_text()
    assert died in (again.artifacts / "summary.md").read_text()


def test_a_place_of_which_nothing_came_is_asked_about(tmp_path):
    """Every seed of it failed: no row of it is there, and its questions are answered all the same."""
    run, plan = summarise(tmp_path, drop=[f"d100000_dense_gs2_s{seed}" for seed in (42, 43)])
    assert not [r for r in run.tables["dose_summary"] if (r["photons"], r["view"]) == (1e5, "dense")]
    lost = [r for r in run.tables["dose_verdicts"] if (r["photons"], r["view"]) == (1e5, "dense")]
    assert {r["question"] for r in lost} == {"beats", "over-physics", "against-lsqml", "dose"}
    assert {(r["answer"], r["margin"]) for r in lost} == {("missing", None)}
    assert {r["answer"] for r in run.tables["dose_verdicts"] if r["view"] == "sparse"} >= {"better"}
    places = len(plan.design.doses) * len(plan.design.views)
    asked = [r for r in run.tables["dose_verdicts"] if r["metric"] == "frc50" and r["question"] == "beats"]
    assert len(asked) == places * 2 * 2


def test_a_dose_that_is_lost_is_no_step_to_skip():
    made = [v for d in (1e3, 1e5) for v in values("lsqml", {1: d / 1e5, 2: d / 1e5}, photons=d)]
    planned = [Place(d, "dense", 2) for d in (1e3, 1e4, 1e5)]

    def steps(*given):
        return [(v.place.photons, v.other, v.answer) for v in verdicts(cells(made), [GREATER], ["lsqml"], *given)]

    assert steps(planned) == [(1e4, "1000", "missing"), (1e5, "10000", "missing")]
    assert steps() == [(1e5, "1000", "better")]  # the twin: of what was found alone


def test_a_training_of_another_seed_is_refused(tmp_path):
    word = {"condition": "d1000_dense_gs2_s42", "photons": 1e3, "view": "dense", "gridsize": 2, "seed": 42}
    params = SummaryParams(arms=["pinn"], conditions=[word])
    path = tmp_path / "model.json"
    run = Recorder(DoseSummary(), params, tmp_path / "run", inputs={"model_pinn_d1000_dense_gs2_s42": path})
    told = {k: v for k, v in word.items() if k != "condition"} | {"arm": "pinn"}
    path.write_text(json.dumps({"condition": told, "status": "trained", "epochs_done": 3}))
    (row,) = trainings(run, params)
    assert (row["status"], row["epochs_done"], row["seed"]) == ("trained", 3, 42)
    assert row["paths"] == "pinn_d1000_dense_gs2_s42/reconstruction.npz"
    path.write_text(json.dumps({"condition": told, "status": "trained", "bundle": "model.npz"}))
    made = {"name": "model_pinn_d1000_dense_gs2_s42", "made": {"label": "mine/pinn"}}
    run.raw = {"inputs": [made]}
    (row,) = trainings(run, params)
    assert row["paths"] == "mine/pinn/model.npz, mine/pinn/reconstruction.npz"
    path.write_text(json.dumps({"condition": told, "status": "failed", "error": "the loss of step 7 is nan"}))
    (row,) = trainings(run, params)
    assert (row["status"], row["error"]) == ("failed", "the loss of step 7 is nan")
    path.write_text(json.dumps({"condition": told | {"seed": 43}, "status": "trained"}))
    with pytest.raises(BadInput, match="is the manifest of"):
        trainings(run, params)


def test_nothing_at_all_is_still_a_page(tmp_path):
    run, plan = summarise(tmp_path, drop=[c.name for c in plan_of(DoseParams(size="tiny", seeds=[42, 43])).conditions])
    assert len(run.tables["dose_skips"]) == len(plan.conditions)
    assert "nothing to compare" in (run.artifacts / "index.html").read_text()


def test_infeasible_views_are_skip_rows_with_their_numbers(tmp_path):
    plan = plan_of(DoseParams(size="seed"))
    params = SummaryParams(**summary_params(plan))
    run = Recorder(DoseSummary(), params, tmp_path / "run")
    run.run()
    rows = [r for r in run.tables["dose_skips"] if r["state"] == "infeasible"]
    assert {(r["view"], r["photons"]) for r in rows} == {(v, d) for v in ("dense", "sparse") for d in (1e3, 1e4, 1e5)}
    for row in rows:
        assert json.loads(row["numbers"])["test_groups"] < 16
        assert "px" in row["reason"]
        assert row["condition"] in (run.artifacts / "index.html").read_text()


def test_a_comparison_of_another_condition_is_refused(tmp_path):
    run, plan = summarise(tmp_path / "a")
    first, second = plan.conditions[:2]
    swapped = {**run.inputs, f"compare_{first.name}": run.inputs[f"compare_{second.name}"]}
    again = Recorder(DoseSummary(), run.params, tmp_path / "b", inputs=swapped)
    with pytest.raises(BadInput, match=f"is of the condition '{second.name}', not of '{first.name}'"):
        again.run()


@pytest.mark.parametrize("word", ["condition", "photons", "view", "gridsize", "seed"])
@pytest.mark.parametrize("where", ["document", "row"])
def test_a_comparison_that_says_another_condition_is_refused(tmp_path, where, word):
    """Rows and the document itself: a file that was put together of two would pass by its rows alone."""
    run, _ = summarise(tmp_path / "a", views=["dense"], doses=[1e3], seeds=[42])
    (folder,) = run.inputs.values()
    path = folder / "metrics.json"
    read = json.loads(path.read_text())
    (words,) = run.params.conditions
    assert read_metrics(path, words) == read
    said = read["condition"] if where == "document" else read["rows"][-1]
    said[word] = "other" if isinstance(said[word], str) else said[word] + 1
    path.write_text(json.dumps(read))
    with pytest.raises(BadInput, match=f"is of the {word} "):
        read_metrics(path, words)
    del read["condition"]
    path.write_text(json.dumps(read))
    with pytest.raises(BadInput, match="does not say of which condition"):
        read_metrics(path, words)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "lab.dose-compare/9", "rows": []}'])
def test_a_file_that_is_no_comparison_is_refused(tmp_path, text):
    run, _ = summarise(tmp_path / "a", views=["dense"], doses=[1e3], seeds=[42])
    (folder,) = run.inputs.values()
    (folder / "metrics.json").write_text(text)
    with pytest.raises(BadInput, match=r"metrics\.json is no"):
        Recorder(DoseSummary(), run.params, tmp_path / "b", inputs=run.inputs).run()


def test_a_condition_that_is_named_twice_is_refused():
    word = {"condition": "d1_x_gs1_s1", "photons": 1, "view": "x", "gridsize": 1, "seed": 1}
    with pytest.raises(ValidationError, match="named twice"):
        SummaryParams(arms=["lsqml"], conditions=[word, word])


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """Balanced tags, ids, links, and everything that could go to the network."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.fetched, self.tags = [], [], [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        self.fetched += [v for k, v in attrs if k in ("src", "srcset", "data") and not v.startswith("data:")]
        if tag == "img":
            assert found["alt"]
        if tag == "th":
            assert found["scope"] in ("row", "col")
        if tag not in ("meta", "img", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_by_itself_and_its_links_lead_somewhere(whole):
    run, _ = whole
    text = (run.artifacts / "index.html").read_text()
    page = Reader(text)
    assert not page.open
    assert not page.fetched
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links)
    assert (page.tags["h1"], page.tags["main"]) == (1, 1)
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_every_number_of_the_page_comes_from_the_tables(whole, tmp_path):
    """Another study, another page: the mean of a cell stands in it and the old one does not."""
    run, _ = whole
    text = (run.artifacts / "index.html").read_text()
    other, _ = summarise(tmp_path, lambda c, arm: grade(c, arm) + 0.0123)
    changed = (other.artifacts / "index.html").read_text()
    assert "0.605 ± " in text
    assert "0.617 ± " in changed
    assert "0.605 ± " not in changed


def test_the_same_comparisons_give_the_same_bytes(whole, tmp_path):
    run, _ = whole
    again = Recorder(DoseSummary(), run.params, tmp_path / "again", inputs=run.inputs)
    again.run()
    for name in ("index.html", "summary.md"):
        assert (again.artifacts / name).read_bytes() == (run.artifacts / name).read_bytes(), name


def test_the_figure_is_drawn_from_the_table_alone(whole):
    run, _ = whole
    kind, table = DoseSummary(), run.table("dose_summary")
    out = io.BytesIO()
    said = kind.figure(out, "svg", {"dose_summary": table}, [Absent(7, "other", "failed")], "Dose")
    text = out.getvalue().decode()
    assert "references" in said[1]
    assert "other: failed" in said[2]
    assert text.count("<svg") == 1
    assert "nan" not in text.lower().replace("dejavusans", "")
    assert kind.figure(io.BytesIO(), "svg", {}, [], "Dose") is None, "nothing to draw is no empty figure"
    doubled = pa.concat_tables([table, table])
    with pytest.raises(BadInput, match="two studies"):
        kind.figure(io.BytesIO(), "svg", {"dose_summary": doubled}, [], "Dose")


def test_words_of_a_failure_cannot_become_markup(tmp_path):
    run, _ = summarise(tmp_path / "a", views=["dense"], doses=[1e3], seeds=[42])
    (folder,) = run.inputs.values()
    read = json.loads((folder / "metrics.json").read_text())
    read["rows"][0] |= {"status": "failed", "reason": "<script>alert(1)</script> & | more"}
    (folder / "metrics.json").write_text(json.dumps(read))
    again = Recorder(DoseSummary(), run.params, tmp_path / "b", inputs=run.inputs)
    again.run()
    page = Reader((again.artifacts / "index.html").read_text())
    assert "script" not in page.tags
    assert r"\| more" in (again.artifacts / "summary.md").read_text()


def test_metrics_are_columns_of_the_comparison():
    from jobs.dose.compare_tables import TABLE_METRICS

    units = {f.name: (f.metadata or {}).get(b"unit", b"").decode() for f in TABLE_METRICS}
    for metric in METRICS:
        if metric.name != "rmse_phase":  # the root of mse_phase
            assert units[metric.name] == metric.unit
