"""`lab compare` of many, and the figure of a kind's own: only what means the same is ranked, and chance is no rank."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.errors import Exit
from core.grid import Grid
from core.home import Home
from core.kind import Measure, Ranking
from jobs.train.alike import settings_digest, value_digest
from jobs.train.schema import CANDIDATES, TRAINING
from jobs.train_kind import Train, TrainParams
from lab import main
from lab.standings import Group, Standings, rank
from lab.submission import Request, submit
from tests.lab.toys import end_sweep, finish, open_sweep

RANKING = Ranking(
    "",
    (
        Measure("value", "label", "within", "other things"),
        Measure("psnr", "label", "pairs", "other pairs", greater=True),
    ),
    "settings",
)


def row(job: int, value: float | None, **more: Any) -> dict[str, Any]:
    given = {
        "job": job,
        "name": f"n{job}",
        "label": "l",
        "within": "w",
        "pairs": "p",
        "settings": f"s{job}",
        "psnr": 30,
    }
    return {**given, "value": value, **more}


def ranks(group: Group) -> dict[str, int]:
    return {entry.name: entry.rank for entry in group.entries}


def one(found: Standings, by: str = "value") -> Group:
    (group,) = [g for g in found.groups if g.by == by]
    return group


# The rules, on rows that are written down.


def test_the_least_is_first_and_of_a_psnr_the_greatest() -> None:
    found = rank("k", RANKING, [row(1, 3.0, psnr=31.0), row(2, 1.0, psnr=33.0), row(3, 2.0, psnr=35.0)])
    assert ranks(one(found)) == {"n2": 1, "n3": 2, "n1": 3}
    assert list(ranks(one(found))) == ["n2", "n3", "n1"]
    assert ranks(one(found, "psnr")) == {"n3": 1, "n2": 2, "n1": 3}
    assert found.apart == ()
    assert "nobody knows how much of a difference is chance" in found.notes[0]


def test_what_is_of_another_group_is_never_ranked_against_it() -> None:
    rows = [row(1, 3.0), row(2, 1.0, within="other"), row(3, 2.0)]
    found = rank("k", RANKING, rows)
    groups = [ranks(g) for g in found.groups if g.by == "value"]
    assert groups == [{"n3": 1, "n1": 2}, {"n2": 1}]
    assert found.apart == ("2 rankings by value: other things",)
    assert ranks(one(found, "psnr")) == {"n1": 1, "n2": 1, "n3": 1}, "their PSNR is on the same pairs"
    # The twin: nothing but what it was measured within makes the difference.
    assert ranks(one(rank("k", RANKING, [{**r, "within": "w"} for r in rows]))) == {"n2": 1, "n3": 2, "n1": 3}


def test_runs_that_differ_in_their_seeds_are_one_entry_and_their_spread_decides() -> None:
    """Pooled: (0.02 + 0.02) / 2 degrees of freedom, so 0.1414; up to 0.2828 is equal."""
    rows = [
        *(row(n, value, name="a", settings="a") for n, value in ((1, 1.0), (2, 1.2))),
        *(row(n, value, name="b", settings="b") for n, value in ((3, 1.25), (4, 1.45))),
        row(5, 1.5, name="c"),
    ]
    group = one(rank("k", RANKING, rows))
    assert group.spread == pytest.approx(0.02**0.5)
    assert ranks(group) == {"a": 1, "b": 1, "c": 2}
    assert [(e.value, e.jobs, e.tied) for e in group.entries] == [
        (pytest.approx(1.1), (1, 2), True),
        (pytest.approx(1.35), (3, 4), True),
        (1.5, (5,), False),
    ]
    assert group.entries[2].spread is None
    # Closer runs make the same difference one that counts.
    close = [
        {**r, "value": r["value"] + (0.09 if r["job"] in (1, 3) else -0.09 if r["job"] in (2, 4) else 0)} for r in rows
    ]
    assert ranks(one(rank("k", RANKING, close))) == {"a": 1, "b": 2, "c": 3}
    # Runs of one name with other settings are no repeats, and give no spread.
    other = [{**r, "settings": str(r["job"])} for r in rows]
    found = one(rank("k", RANKING, other))
    assert found.spread is None
    assert [entry.rank for entry in found.entries] == [1, 2, 3, 4, 5]


def test_what_does_not_say_what_it_is_or_is_no_number_is_named_and_not_ranked() -> None:
    rows = [row(1, 3.0), row(2, None), row(3, float("nan")), row(4, 1.0, within=None), row(5, 2.0, settings=None)]
    found = rank("k", RANKING, rows)
    assert ranks(one(found)) == {"n1": 1}
    assert {a.job: a.why for a in found.absent} == {
        2: "its value is no number",
        3: "its value is no number",
        4: "its table does not say within",
        5: "its table does not say settings",
    }


# What the kind `train` says its jobs may be ranked by.


def digests(**changed: Any) -> tuple[str, str]:
    p = TrainParams(**changed)
    return value_digest(p, None, "pairs"), settings_digest(p, None, "data", "code")


def test_a_value_is_another_with_another_objective_and_settings_are_all_but_seeds() -> None:
    value, settings = digests()
    for changed in ({"alpha": 10}, {"sal_weight": 0.2}, {"sal_both_frames": True}):
        assert digests(**changed)[0] != value
        assert digests(**changed)[1] != settings
    for changed in ({"h": 32}, {"rate": 1e-3}, {"epochs": 40}, {"candidate_epochs": 3}, {"cut_largest": True}):
        assert digests(**changed)[0] == value, "the same quantity of another branch"
        assert digests(**changed)[1] != settings
    for changed in ({"seed": 3}, {"weights_seed": 3}, {"preview": False}, {"cache": "/x"}, {"checkpoint_epochs": 2}):
        assert digests(**changed) == (value, settings)
    p = TrainParams(objective="upstream", checkout="/x")
    assert value_digest(p, None, "pairs") != value, "a surrogate value is none of the networks'"
    assert value_digest(p, "one", "pairs") != value_digest(p, "other", "pairs")
    assert value_digest(p, None, "pairs") != value_digest(p.model_copy(update={"pose_weight": 1.0}), None, "pairs")
    assert value_digest(TrainParams(), None, "other pairs") != value


# As a user types it.

VALUES = {5: {16: (4.0, 4.2), 32: (3.0, 3.2)}, 20: {16: (2.0, 2.2), 32: (None, 2.15)}}


def tables(job: int, p: TrainParams, value: float, **more: Any) -> Mapping[str, list[dict[str, Any]]]:
    name = p.recipe().name
    of_all = {"branch": name, "quantity": "surrogate value"}
    chosen = {"weights": "average-int8", "epoch": 500, "evaluation_value": value, "psnr": 40 - value, "chosen": True}
    chosen |= {"bytes": 100 * p.h, "ms_ssim": 0.9}
    other = {"weights": "decoded", "evaluation_value": 9.0, "psnr": 30.0, "chosen": False, "epoch": None}
    empty = dict.fromkeys(CANDIDATES.names)
    training = {**dict.fromkeys(TRAINING.names, ""), **of_all, "evaluation_sha256": "e" * 64}
    training |= {"value_sha256": value_digest(p, None, "e"), "settings_sha256": settings_digest(p, None, "d", "c")}
    return {
        "candidates": [{**empty, **of_all, **chosen}, {**empty, **of_all, **other}],
        "training": [{**training, **more}],
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Sweep 1: alpha × h × seed, 8 cells; one failed."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("LAB_HOME", str(home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)
    grid = Grid.of({"alpha": list(VALUES), "h": [16, 32], "seed": [0, 1]})
    submit(home, [Request("train", {}, grid=grid, literal=True)], cwd=tmp_path)
    open_sweep(home, 1)
    number = 1
    for alpha, widths in VALUES.items():
        for h, values in widths.items():
            for seed, value in enumerate(values):
                number += 1
                if value is None:
                    finish(home, number, state="failed", cause="not-finite")
                else:
                    finish(home, number, more=tables(number, TrainParams(alpha=alpha, h=h, seed=seed), value))
    end_sweep(home, 1)
    return home


def out(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    ended = main.main(list(args))
    seen = capsys.readouterr()
    assert ended == code, seen.err
    return seen.out if code == 0 else seen.err


def test_branches_are_called_by_their_recipe(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    said = out(capsys, "status", "1", "--cells")
    for name in ("long500_qat_ema_alpha5_h16 seed=0", "long500_qat_ema_alpha20_h32 seed=1"):
        assert name in said
    assert "alpha=5" not in said


def test_branches_of_a_sweep_are_ranked_within_an_alpha(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, "compare", "1", "--json"))
    assert found["schema"] == "lab.compare-ranking/1"
    five, twenty, psnr = sorted(found["ranking"]["groups"], key=lambda g: (g["by"], "alpha 20" in g["label"]))
    assert [(e["name"], e["rank"], e["jobs"]) for e in five["entries"]] == [
        ("long500_qat_ema_alpha5_h32", 1, [4, 5]),
        ("long500_qat_ema_alpha5_h16", 2, [2, 3]),
    ]
    # 2.1 and 2.15 are nearer than runs of one branch are to each other.
    assert [(e["name"].split()[0], e["rank"]) for e in twenty["entries"]] == [
        ("long500_qat_ema_alpha20_h16", 1),
        ("long500_qat_ema_alpha20_h32", 1),
    ]
    assert "surrogate value, alpha 20" in twenty["label"]
    assert (psnr["by"], len(psnr["entries"])) == ("psnr", 4)
    text = out(capsys, "compare", "1")
    assert "=1  long500_qat_ema_alpha20_h16" in text
    assert "up to 0.283 apart is equal: 2 spreads" in text
    assert "2 rankings by evaluation_value: values of another objective, another alpha or other fixed pairs" in text
    assert "not ranked: 8 long500_qat_ema_alpha20_h32 seed=0 (failed: not-finite" in text
    assert out(capsys, "compare", "1", "--quiet").startswith("1 long500")


def test_two_are_laid_side_by_side_and_ranked_where_they_may_be(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    same = json.loads(out(capsys, "compare", "2", "4", "--json"))
    assert same["schema"] == "lab.compare/2"
    by_value = [g for g in same["ranking"]["groups"] if g["by"] == "evaluation_value"]
    assert [[e["jobs"] for e in g["entries"]] for g in by_value] == [[[4], [2]]]
    other = json.loads(out(capsys, "compare", "2", "6", "--json"))
    by_value = [g for g in other["ranking"]["groups"] if g["by"] == "evaluation_value"]
    assert [len(g["entries"]) for g in by_value] == [1, 1], "another alpha: each by itself"
    assert "evaluation_value" in json.dumps(other["tables"])


def test_what_cannot_be_ranked_is_refused(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*ids: str) -> str:
        return out(capsys, "compare", *ids, code=Exit.BAD_INPUT)

    assert "job 2 alone is compared with nothing" in refused("2")
    submit(home, [Request("smoke", {}), Request("smoke", {"steps": 3})], cwd=tmp_path)
    assert "are of 2 kinds (smoke, train), and only jobs of one are ranked" in refused("2", "3", "10")
    assert "not ranked: a number of smoke and one of train are other quantities" in out(capsys, "compare", "2", "10")
    assert json.loads(out(capsys, "compare", "2", "10", "--json"))["ranking"] is None
    assert "kind smoke says nothing by which its jobs could be ranked" in refused("10", "11", "10", "11")
    assert main.main(["compare", "2", "3", "99"]) == Exit.NOT_FOUND
    # Other fixed pairs: neither the value nor the PSNR.
    submit(home, [Request("train", {"data_seed": 1})], cwd=tmp_path)
    p = TrainParams(data_seed=1)
    more = {"evaluation_sha256": "f" * 64, "value_sha256": value_digest(p, None, "f")}
    finish(home, 12, more=tables(12, p, 0.1, **more))
    capsys.readouterr()
    found = json.loads(out(capsys, "compare", "2", "4", "12", "--json"))["ranking"]
    by_value = [[e["jobs"] for e in g["entries"]] for g in found["groups"] if g["by"] == "evaluation_value"]
    by_psnr = [[e["jobs"] for e in g["entries"]] for g in found["groups"] if g["by"] == "psnr"]
    assert by_value == by_psnr == [[[4], [2]], [[12]]]
    assert len(found["apart"]) == 2


def test_the_figure_of_a_sweep_of_branches(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(out(capsys, "results", "1", "--plot", "a.svg", "--json"))
    assert (said["schema"], said["path"], said["kind"]) == ("lab.plot-of-kind/1", "a.svg", "train")
    assert said["about"] == "surrogate value against epoch and bytes: 4 branches, 7 runs"
    assert said["notes"][0].startswith("not shown: 8 long500_qat_ema_alpha20_h32 seed=0 (failed: not-finite")
    drawn = (tmp_path / "a.svg").read_text()
    assert "sweep 1: train" in drawn
    assert "not shown: 8" in drawn
    # A table, or a column, asks for the plain figure.
    assert "evaluation_value over" in out(capsys, "results", "candidates", "1", "--plot", "c.svg")
    # The same branch with other settings is no repeat of it.
    submit(home, [Request("train", {"alpha": 5, "h": 16, "rate": 1e-3})], cwd=tmp_path)
    finish(home, 10, more=tables(10, TrainParams(alpha=5, h=16, rate=1e-3), 1.0))
    refused = out(capsys, "results", "1", "10", "--plot", "d.png", code=Exit.BAD_INPUT)
    assert "jobs 2 and 10 are both called long500_qat_ema_alpha5_h16, and differ in more than their seeds" in refused
    assert not (tmp_path / "d.png").exists()
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".d.png")]


def test_training_values_are_in_no_table() -> None:
    """So that no ranking and no figure can take one for an evaluation value."""
    assert not [n for schema in (CANDIDATES, TRAINING) for n in schema.names if "training_value" in n]
    ranking = Train().ranking()
    assert [m.column for m in ranking.measures] == ["evaluation_value", "psnr"]
    assert "metric" not in ranking.sql
