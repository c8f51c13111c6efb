"""The design: counts that follow from it, views that the geometry forbids, filters that match nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import BadInput
from jobs.dose.conditions import ARMS, CONTROLS, MUST_BEAT, PHYSICS, SPLITS, TRAIN_HALF, Condition, View
from jobs.dose.design import SETS, Design
from jobs.dose.feasibility import most_points, positions, view_checks
from jobs.dose.tree import plan_of
from jobs.dose_kinds.study import Dose, DoseParams
from jobs.dose_kinds.summary import SummaryParams
from jobs.dose_kinds.train import DoseTrain, DoseTrainParams
from tests.jobs.dose.test_measured_path import star

SEED, SMALL, TINY = (Design.named(name) for name in ("seed", "small", "tiny"))


def study(**params):
    return Dose().study(DoseParams(**params))


def kinds(made):
    """kind -> how many nodes."""
    out = {}
    for node in made.nodes():
        out[node.kind] = out.get(node.kind, 0) + 1
    return out


def test_the_seed_design_has_the_seeds_constants():
    assert SEED.doses == (1e3, 1e4, 1e5)
    assert (SEED.patch, SEED.neighbours, SEED.blur, SEED.frc_threshold) == (128, 7, 1.0, 0.5)
    assert {(v.name, v.overlap, v.gridsize) for v in SEED.views} == {
        ("baseline", None, 1),
        ("dense", 0.7, 2),
        ("sparse", 0.2, 2),
    }
    first = SEED.conditions()[0]
    assert (first.seed, first.grouping_seed, first.subsampling_seed) == (42, 123, 456)
    assert (SEED.scan.cols, SEED.scan.rows) == (165, 166)
    spacings = {c.view.name: c.spacing for c in SEED.checks()}
    assert spacings == {"baseline": 0, "dense": 38.4, "sparse": 102.4}


def test_a_condition_is_named_by_what_it_is():
    assert Condition(1e3, View("dense", 0.7, 2), 42).name == "d1000_dense_gs2_s42"
    assert Condition(1e6, View("dense", 0.7, 2), 42).name == "d1000000_dense_gs2_s42", "no name has 1e+06 in it"


@pytest.mark.parametrize("design", SETS.values(), ids=SETS)
def test_counts_follow_from_the_design(design):
    counts = design.counts()
    cells = len(design.doses) * len(design.views) * len(design.seeds)
    assert counts.conditions == len(design.conditions()) == cells
    assert counts.trainings == 2 * cells
    assert counts.reconstructions == cells * len(SPLITS)
    # The negative twin: another design has other counts, so none of them is typed.
    more = replace(design, doses=(*design.doses, 1e7)).counts()
    assert more.trainings == 2 * (cells + len(design.views) * len(design.seeds))


def test_the_seeds_own_counts():
    """9 trainings of an arm and 18 reconstructions, if every view were feasible."""
    counts = SEED.counts(["pinn", "lsqml"])
    assert (counts.trainings, counts.reconstructions) == (9, 18)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_tree_has_as_many_jobs_as_the_design_counts(size):
    made, counts = study(size=size), Design.named(size).counts()
    found = kinds(made)
    assert found["dose-train"] == counts.trainings + counts.controls
    assert found["dose-lsqml"] == counts.reconstructions
    assert found["dose-compare"] == found["dose-views"] == counts.comparisons
    assert found["dose-data"] == counts.doses * counts.seeds
    assert found["dose-summary"] == 1
    assert any(counts.sentence() in note for note in made.notes)


def test_both_views_of_the_small_design_are_feasible():
    checks = SMALL.checks()
    assert all(check.feasible and not check.reason for check in checks)
    for check in checks:
        assert {s.split for s in check.splits} == set(SPLITS)
        assert all(split.groups >= 16 for split in check.splits)


def test_the_test_half_of_the_small_design_exceeds_160_pixels():
    """Centres alone: MS-SSIM's five scales need more than 160 px, and what is compared reaches beyond the centres."""
    from kernels.diffraction.split import y_split

    x, y = positions(SMALL, 42)
    _, test, _ = y_split(x, y, SMALL.patch, fraction=SMALL.scan.train_fraction)
    assert np.ptp(x[test]) > 160
    assert np.ptp(y[test]) > 160


def test_the_sparse_view_of_the_seed_is_infeasible_and_says_so_with_numbers():
    baseline, dense, sparse = SEED.checks()
    assert baseline.feasible
    assert not dense.feasible
    assert not sparse.feasible
    whole = {s.split: s for s in sparse.splits}["whole scan"]
    assert whole.groups < 16
    assert sparse.most is not None
    assert whole.groups <= sparse.most < 16
    for number in ("102.4 px", f"{whole.groups} of {whole.candidates} candidates", f"more than {sparse.most}"):
        assert number in sparse.reason


def test_a_scan_that_is_large_enough_makes_the_same_view_feasible():
    """The negative twin: it is the geometry that decides."""
    large = replace(SEED, views=SEED.views[2:], scan=replace(SEED.scan, rows=900, cols=700, step=24))
    (sparse,) = view_checks(large, 42, *positions(large, 42))
    assert sparse.feasible, sparse.reason
    assert sparse.reason == ""


@pytest.mark.parametrize("side", [50.0, 165.0, 400.0])
def test_no_choice_of_points_holds_more_than_the_bound(side):
    """Held against a packing that is nearly the densest there is: rows of a triangular lattice."""
    spacing = 40.0
    rows = int(side / (spacing * 3**0.5 / 2)) + 1
    lattice = sum(int((side - (r % 2) * spacing / 2) / spacing + 1e-9) + 1 for r in range(rows))
    assert lattice <= most_points(side, side, spacing)
    assert most_points(side, side, spacing / 2) > most_points(side, side, spacing), "and it is no constant"


def test_an_infeasible_view_is_a_skip_row_and_a_note_and_no_job():
    made = study(size="seed")
    assert {n.params["view"] for n in made.nodes() if n.kind == "dose-views"} == {"baseline"}
    assert sum("infeasible" in note and "sparse" in note and "102.4 px" in note for note in made.notes) == 1
    summary = SummaryParams(**next(n.params for n in made.nodes() if n.kind == "dose-summary"))
    assert {(s.view, s.photons) for s in summary.skips} == {(v, d) for v in ("dense", "sparse") for d in SEED.doses}
    assert all("px" in s.reason and s.numbers["train_groups"] < 16 for s in summary.skips)
    planned = Design.named("seed").counts(conditions=plan_of(DoseParams(size="seed")).conditions)
    assert kinds(made)["dose-compare"] == planned.comparisons == 3
    assert not any("infeasible" in note for note in study(size="tiny").notes), "one that is feasible is no skip"


def test_a_study_of_which_nothing_is_feasible_is_refused():
    with pytest.raises(BadInput, match=r"nothing of the design 'seed' is feasible.*102\.4 px"):
        study(size="seed", views=["sparse"])


def test_the_plan_and_the_jobs_agree_on_the_groups(tmp_path):
    """What is said before anything is made is what dose-views finds."""
    from jobs.dose.views_run import view_of
    from jobs.dose_kinds.views import DoseViewsParams
    from kernels.diffraction.split import y_split

    made = study(size="tiny")
    x, y = positions(TINY, 42)
    train, test, _ = y_split(x, y, TINY.patch, fraction=TINY.scan.train_fraction)
    for check in TINY.checks():
        node = next(n for n in made.nodes() if n.kind == "dose-views" and n.params["view"] == check.view.name)
        params = DoseViewsParams(**node.params)
        for split, frames in (("train", train), ("test", test)):
            told = next(s for s in check.splits if s.split == split)
            found = view_of(x[frames], y[frames], TINY.patch, split, params)
            assert (told.groups, told.frames) == (len(found.members), len(frames))


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({"doses": [1e9]}, "1000, 10000, 100000"),
        ({"views": ["dens"]}, "baseline, dense, sparse"),
        ({"gridsizes": [3]}, "1, 2"),
        ({"views": ["dense"], "gridsizes": [1]}, "there are: 2"),
        ({"arms": ["ptychi"]}, ", ".join(ARMS)),
        ({"doses": []}, "leave it out"),
    ],
)
def test_a_filter_that_matches_nothing_is_an_error_that_names_what_there_is(given, there):
    with pytest.raises(BadInput) as caught:
        study(size="small", **given)
    assert there in str(caught.value)
    assert next(iter(given)) in caught.value.message or "gridsizes" in caught.value.message


def test_filters_keep_what_they_name():
    made = study(size="tiny", doses=[1e3], views=["dense"], gridsizes=[2], arms=["lsqml"], seeds=[7])
    assert kinds(made) == {"dose-data": 1, "dose-views": 1, "dose-lsqml": 2, "dose-compare": 1, "dose-summary": 1}
    assert {n.params["seed"] for n in made.nodes() if n.kind == "dose-data"} == {7}
    assert kinds(study(size="tiny", arms=["pinn"]))["dose-train"] == 6 * (1 + len(CONTROLS))


def test_a_failed_arm_does_not_take_the_comparison_with_it():
    made = {n.name: n for n in study(size="tiny").nodes()}
    compare = made["compare_d1000_dense_gs2_s42"]
    optional = {take.name: take.optional for take in compare.takes}
    arms = {*ARMS, *CONTROLS, TRAIN_HALF}
    assert {name for name, may_fail in optional.items() if may_fail} == arms
    assert {name for name, may_fail in optional.items() if not may_fail} == {"truth", "views"}
    assert all(take.optional for take in made["summary"].takes)
    compared = {take.name for take in made["summary"].takes if take.name.startswith("compare_")}
    assert compared == {f"compare_{c.name}" for c in TINY.conditions()}


def test_the_physics_alone_is_a_control_of_each_condition_with_nothing_to_train():
    made = {n.name: n for n in study(size="tiny").nodes()}
    name = TINY.conditions()[0].name
    assert made[f"{PHYSICS}_{name}"].params == {"arm": PHYSICS, "epochs": 0, "seed": 42}
    assert made[f"{PHYSICS}_{name}"].takes == made[f"pinn_{name}"].takes, "it sees what the trained arms see"
    assert PHYSICS in made[f"compare_{name}"].params["arms"]
    assert f"model_{PHYSICS}_{name}" in {take.name for take in made["summary"].takes}
    assert (*MUST_BEAT, PHYSICS) == CONTROLS
    assert TINY.counts().controls == len(TINY.conditions()) * 3
    lsqml = {n.name for n in study(size="tiny", arms=["lsqml"]).nodes()}
    assert not any(n.startswith(PHYSICS) for n in lsqml), "without a trained arm there is nothing to hold against it"


def test_both_halves_of_lsqml_are_compared():
    """Each reconstruction that is planned is taken by a comparison: none is made for nobody."""
    nodes = study(size="tiny").nodes()
    taken = {take.job for n in nodes if n.kind == "dose-compare" for take in n.takes}
    assert {n.name for n in nodes if n.kind == "dose-lsqml"} <= taken


def test_every_node_has_parameters_that_its_kind_takes(tmp_path):
    """Nothing is left to a default that another job may have changed: the configuration is in the parameters."""
    from core.kind import load_kind

    for made in (study(size="tiny"), study(data=str(star(tmp_path / "star.npz")))):
        for node in made.nodes():
            load_kind(node.kind).Params(**node.params)


def test_the_configuration_is_explicit_and_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEED.patch = 64  # type: ignore[misc]
    with pytest.raises(ValidationError):
        DoseParams().size = "seed"  # type: ignore[misc]
    before = [n.params for n in study(size="tiny").nodes()]
    study(size="tiny", lsqml_epochs=3, doses=[1e3])
    assert [n.params for n in study(size="tiny").nodes()] == before, "one study leaves nothing behind for the next"
    changed = [n.params for n in study(size="tiny", lsqml_epochs=3).nodes()]
    assert changed != before, "and what is asked for arrives"


def shared(nodes):
    """Nodes that may run in a process together with others: cells of sweeps, and what runs in batches."""
    from core.kind import load_kind

    def pools(node):
        kind = load_kind(node.kind)
        return kind.pools(kind.Params(**node.params))

    return [node.name for node in nodes if node.grid is not None or pools(node)]


def test_every_condition_is_trained_in_a_process_of_its_own(monkeypatch):
    """TensorFlow keeps memory from one training to the next, and globals keep settings: no process sees two."""
    nodes = study(size="tiny").nodes()
    assert shared(nodes) == []
    takes = [frozenset((t.name, t.job, t.file) for t in n.takes) for n in nodes if n.kind == "dose-train"]
    conditions = len(TINY.conditions())
    assert len(set(takes)) == conditions, "each condition has its own data and views"
    monkeypatch.setattr(DoseTrain, "pooled", True)  # the twin: batches of warm workers
    assert len(shared(nodes)) == len(takes)


def test_a_wrong_design_is_refused():
    with pytest.raises(BadInput, match="C=gridsize² must not exceed K"):
        replace(TINY, views=(View("four", None, 4),))
    with pytest.raises(BadInput, match="doses"):
        replace(TINY, doses=(1e3, 1e3))
    with pytest.raises(BadInput, match="no set 'large'"):
        Design.named("large")


def test_repetitions_differ_in_all_three_seeds():
    first, second = (Condition(1e3, TINY.views[0], seed) for seed in (42, 43))
    assert (second.grouping_seed, second.subsampling_seed) == (first.grouping_seed + 1, first.subsampling_seed + 1)
    one, other = positions(TINY, 42), positions(TINY, 43)
    assert not np.array_equal(one[0], other[0])
    assert np.array_equal(one[0], positions(TINY, 42)[0])


def test_a_measured_study_has_one_arm_and_says_why(tmp_path):
    made = study(data=str(star(tmp_path / "star.npz")), doses=[1e3], seeds=[1])
    assert kinds(made) == {"dose-data": 4, "dose-views": 1, "dose-lsqml": 4, "dose-compare": 1, "dose-summary": 1}
    assert any("PINN and supervised are left out" in note for note in made.notes)
    with pytest.raises(ValidationError, match="arms means nothing for a measured set"):
        DoseParams(data=__file__, arms=["pinn"])
    with pytest.raises(ValidationError, match="scan_order means nothing without a measured set"):
        DoseParams(scan_order="xy")
    with pytest.raises(BadInput, match="is no file"):
        study(data="/nowhere/star.npz")


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, jobs.dose.design, jobs.dose_kinds.study, jobs.dose_kinds.summary\n"
        "print([m for m in ('numpy', 'torch', 'keras', 'tensorflow', 'pyarrow', 'matplotlib') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_users_file_is_planned_by_its_own_scan(tmp_path):
    from jobs.dose.dataset import Dataset

    def given(name, step):
        y, x = (a.ravel() * step + 20.0 for a in np.mgrid[:14, :10])
        n, side = len(x), int(20 + step * 14) + 20
        Dataset(
            diffraction=np.full((n, 16, 16), 0.5, np.float32),
            object_guess=np.ones((side, side), np.complex64),
            probe_guess=np.ones((16, 16), np.complex64),
            x=x.astype(np.float64),
            y=y.astype(np.float64),
        ).save(tmp_path / name)
        return str(tmp_path / name)

    wide = study(size="tiny", source=given("wide.npz", 12), views=["sparse"])
    data = next(n for n in wide.nodes() if n.kind == "dose-data")
    assert data.params["source"] == str(tmp_path / "wide.npz")
    assert "rows" not in data.params
    assert "N=16" in wide.notes[0]
    with pytest.raises(BadInput, match="nothing of the design"):
        study(size="tiny", source=given("narrow.npz", 1), views=["sparse"])


def test_goldens_go_to_the_trainings_they_are_called_after(tmp_path: Path) -> None:
    name = plan_of(DoseParams(size="tiny")).conditions[0].name
    with pytest.raises(BadInput, match="no golden of a training of this study"):
        study(size="tiny", goldens=str(tmp_path))
    (tmp_path / f"{name}_pinn.json").write_text("{}")
    tree = study(size="tiny", goldens=str(tmp_path))
    held = {n.name: n.params["golden"] for n in tree.nodes() if "golden" in n.params}
    assert held == {f"pinn_{name}": str(tmp_path / f"{name}_pinn.json")}
    assert any("trainings are held against a golden" in note and note.startswith("1 of ") for note in tree.notes)
    params = DoseTrainParams(golden=held[f"pinn_{name}"])
    assert DoseTrain().inputs(params) == {"golden": tmp_path / f"{name}_pinn.json"}
    with pytest.raises(BadInput, match="is no file"):
        DoseTrain().inputs(DoseTrainParams(golden=str(tmp_path / "none.json")))
    with pytest.raises(BadInput, match="is no folder"):
        study(size="tiny", goldens=str(tmp_path / "none"))
