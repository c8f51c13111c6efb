"""Quotas of `lab gc`: what goes first, what never goes, and what is said where a limit cannot be met."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.cluster import load
from core.errors import BadInput, Exit
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.retention import Quota, Retention, quota_word
from core.states import EventKind as K
from core.study import Take
from lab import gc, main
from lab.evidence import verify
from lab.gc import DAY_S, Collected, Limits, Plan, collect, plan
from lab.held import Because, held
from tests.lab.conftest import Submit
from tests.lab.toys import finish

KB = 1000


def planned(home: Home, *quotas: str, keep_answers: bool | None = None, days: float = 0.5, keep_last: int = 0) -> Plan:
    limits = Limits(keep_last=keep_last, keep_answers=keep_answers, quotas=tuple(quota_word(q) for q in quotas))
    with Journal.open(home) as journal:
        return plan(home, journal.conn, limits, time.time() + days * DAY_S)


def removed(home: Home, what: Plan) -> Collected:
    with Journal.open(home, Role.CLIENT) as journal:
        return collect(home, journal, what)


def weighs(home: Home, job: int, kb: int, *, scratch: int = 0, **more: str) -> None:
    """The job ends, and leaves so much."""
    finish(home, job, artifacts={"w.bin": "w" * kb * KB} if kb else None, **more)  # type: ignore[arg-type]
    if scratch:
        (home.run_dir(job, 1).work / "s.bin").write_bytes(b"s" * scratch * KB)


@pytest.fixture
def jobs(home: Home, ask: Submit) -> dict[str, int]:
    """A success with scratch, a failure, a success that was run again, and that which runs."""
    made = {"good": ask(alpha=1.0).id, "bad": ask(alpha=2.0).id, "old": ask(alpha=3.0).id}
    weighs(home, made["good"], 100, scratch=50)
    weighs(home, made["bad"], 70, state="failed", cause="error")
    weighs(home, made["old"], 60)
    made["new"] = ask(alpha=3.0, request={"force": True}).id
    weighs(home, made["new"], 60)
    made["runs"] = ask(alpha=5.0).id
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.PLACED, job=made["runs"], attempt=1, lane="local", data={"nonce": "x", "grant": {"cores": 1}})
    home.run_dir(made["runs"], 1).create()
    (home.run_dir(made["runs"], 1).work / "x").write_bytes(b"x" * 40 * KB)
    return made


def holds(home: Home) -> int:
    (verdict,) = planned(home, "bytes=900T").verdicts
    assert verdict.met
    return verdict.holds


def test_without_quotas_nothing_young_goes(home: Home, jobs: dict[str, int]) -> None:
    assert planned(home).items == ()
    assert planned(home, "bytes=1T").items == ()


def test_what_goes_first(home: Home, jobs: dict[str, int]) -> None:
    """Working folders, failures, what a newer success replaced; then no more, though the limit asks for it."""
    all_ = holds(home)
    for less, want in (
        (1, [(gc.SCRATCH, "good")]),
        (60, [(gc.SCRATCH, "good"), (gc.FAILED, "bad")]),
        (130, [(gc.SCRATCH, "good"), (gc.FAILED, "bad"), (gc.RESULTS_OF, "old")]),
        (250, [(gc.SCRATCH, "good"), (gc.FAILED, "bad"), (gc.RESULTS_OF, "old")]),
    ):
        said = planned(home, f"bytes={all_ - less * KB}")
        assert [(i.sort, i.job) for i in said.items] == [(sort, jobs[who]) for sort, who in want]
        assert said.met == (less < 250)
    answers = planned(home, f"bytes={all_ - 250 * KB}", keep_answers=False)
    assert {i.job for i in answers.items} == {jobs["good"], jobs["bad"], jobs["old"]}
    assert answers.met  # the largest of a day first, and its working folder is not counted twice
    assert [i.sort for i in answers.items if i.job == jobs["good"]] == [gc.RESULTS_OF]
    paths = [p for i in answers.items for p in i.paths]
    assert not [p for p in paths for q in paths if p != q and p.startswith(f"{q}/")]


def test_what_was_said_is_what_the_home_then_holds(home: Home, jobs: dict[str, int]) -> None:
    said = planned(home, "bytes=150K", keep_answers=False)
    before = holds(home)
    assert removed(home, said).kept == []
    # The record of what went is all that came.
    log = (home.path / "gc.log").stat().st_size
    journal = before - said.verdicts[0].left - sum(i.bytes for i in said.items)
    assert journal == 0
    assert holds(home) >= said.verdicts[0].left
    assert holds(home) - said.verdicts[0].left <= log + 64 * 1024  # and the journal's own growth
    assert home.run_dir(jobs["runs"], 1).work.exists()
    assert not (home.attempts / str(jobs["bad"])).exists()


def test_a_limit_that_cannot_be_met_says_why(home: Home, jobs: dict[str, int]) -> None:
    said = planned(home, "bytes=1K")
    assert not said.met
    (verdict,) = said.verdicts
    reasons = {r: n for r, n, _ in verdict.because}
    assert reasons[Because.ANSWERS] > 160 * KB  # the good one, and the newer of the equal two
    assert reasons[Because.UNFINISHED] >= 40 * KB
    told = verdict.said(done=False)
    assert told.startswith("the home would hold ")
    assert "where 1.0 KiB may stay: " in told
    assert "answering the cache (--no-keep-answers lets go of it)" in told
    assert sum(n for _, n, _ in verdict.because) == verdict.left


def test_limits_of_a_kind(home: Home, jobs: dict[str, int]) -> None:
    two = planned(home, "toy:jobs=2", keep_answers=False)
    assert {(i.sort, i.job) for i in two.items} == {(gc.RESULTS_OF, jobs["old"]), (gc.FAILED, jobs["bad"])}
    assert two.met
    assert {i.job for i in planned(home, "toy:jobs=3").items} == {jobs["bad"]}
    (told,) = planned(home, "toy:jobs=1").verdicts
    assert (told.holds, told.left) == (4, 2)
    want = "kind toy keeps 2 jobs where 1 may stay: 2 answering the cache (--no-keep-answers lets go of it)"
    assert told.said(done=True) == want
    assert planned(home, "toy:age=2d", keep_answers=False).items == ()
    old = planned(home, "toy:age=2d", keep_answers=False, days=3)
    assert {i.job for i in old.items if i.by_quota} >= {jobs["bad"], jobs["old"], jobs["new"]}
    assert old.met
    assert planned(home, "program:bytes=1", "program:jobs=0").items == ()
    small = planned(home, "toy:bytes=250K")
    assert [i.sort for i in small.items][:2] == [gc.SCRATCH, gc.FAILED]


def test_the_newest_stay(home: Home, jobs: dict[str, int]) -> None:
    said = planned(home, "bytes=1K", keep_answers=False, keep_last=1)
    assert {i.job for i in said.items} == {jobs["good"], jobs["bad"], jobs["old"]}
    assert Because.NEWEST in {r for r, _, _ in said.verdicts[0].because}


def pin(home: Home, *jobs: int) -> None:
    """What a claim does when it is stated."""
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.extend(Event(K.PINNED, j, data={"claim": "ablation"}) for j in jobs)


def chain(home: Home, ask: Submit) -> list[int]:
    """Three jobs that take files of each other."""
    a = ask(label="a").id
    weighs(home, a, 30)
    b = ask(label="b", request={"takes": [Take("in", a, "w.bin")]}).id
    weighs(home, b, 30)
    c = ask(label="c", request={"takes": [Take("in", b, "w.bin")]}).id
    return [a, b, c]


def test_pins_hold_against_everything(home: Home, jobs: dict[str, int], ask: Submit) -> None:
    a, b, c = chain(home, ask)
    weighs(home, c, 30, scratch=5)
    before = planned(home, "bytes=1K", keep_answers=False)
    assert {a, b, c} <= {i.job for i in before.items}
    pin(home, c, jobs["bad"])
    said = planned(home, "bytes=1K", "toy:jobs=0", "toy:age=0s", keep_answers=False)
    assert {i.job for i in said.items} == {jobs["good"], jobs["old"], jobs["new"]}  # what c took of is pinned with it
    assert [v.met for v in said.verdicts] == [False] * 3
    assert all("pinned (claim ablation)" in v.said(done=False) for v in said.verdicts)
    with Journal.open(home) as journal:
        aged = plan(home, journal.conn, Limits(0.0, 0.0, 0.0), time.time() + 9 * DAY_S)
    assert not {a, b, c, jobs["bad"]} & {i.job for i in aged.items}
    # Pinned between the look and the removal: it stays all the same.
    pin(home, *(i.job for i in before.items if i.job))
    done = removed(home, before)
    assert done.items == []
    assert len(done.kept) == len(before.items)


def test_pins_by_hand(
    home: Home, jobs: dict[str, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(home.path))
    bad = str(jobs["bad"])
    assert main.main(["gc", "--pin", bad]) == Exit.BAD_INPUT
    assert "add --why TEXT" in capsys.readouterr().err
    assert main.main(["gc", "--pin", bad, "--why", "it diverged", "--yes"]) == Exit.BAD_INPUT
    assert main.main(["gc", "--pin", "99", "--why", "x"]) == Exit.NOT_FOUND
    assert main.main(["gc", "--why", "x"]) == Exit.BAD_INPUT
    capsys.readouterr()
    assert main.main(["gc", "--pin", bad, "--why", "it diverged"]) == Exit.OK
    assert "by hand: it diverged" in capsys.readouterr().out
    assert jobs["bad"] not in {i.job for i in planned(home, "bytes=1K").items}
    pin(home, jobs["bad"])  # a claim, too
    assert main.main(["gc", "--unpin", bad]) == Exit.OK
    assert main.main(["gc", "--unpin", bad]) == Exit.BAD_INPUT
    assert "claim ablation cites it" in capsys.readouterr().err
    assert main.main(["gc", "--pins", "--json"]) == Exit.OK
    (told,) = json.loads(capsys.readouterr().out)["pins"]
    assert (told["job"], told["claim"]) == (jobs["bad"], "ablation")
    assert jobs["bad"] not in {i.job for i in planned(home, "bytes=1K").items}
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(K.UNPINNED, job=jobs["bad"], data={"claim": "ablation"})
    assert jobs["bad"] in {i.job for i in planned(home, "bytes=1K").items}


def test_what_unfinished_jobs_take_stays(home: Home, ask: Submit) -> None:
    a, b, c = chain(home, ask)
    said = planned(home, "bytes=1K", keep_answers=False)
    assert said.items == ()
    assert f"needed by jobs that have not ended (job {c})" in said.verdicts[0].said(done=False)
    weighs(home, c, 30)
    assert {i.job for i in planned(home, "bytes=1K", keep_answers=False).items} == {a, b, c}


def test_a_job_that_comes_to_take_files_meanwhile(home: Home, ask: Submit) -> None:
    a = ask(label="a").id
    weighs(home, a, 30)
    said = planned(home, "bytes=1K", keep_answers=False)
    ask(label="b", request={"takes": [Take("in", a, "w.bin")]})
    done = removed(home, said)
    assert done.items == []
    assert done.kept == [f"attempts/{a} is in use again"]
    assert (home.run_dir(a, 1).artifacts / "w.bin").exists()


def test_a_path_into_the_home_is_an_input_too(home: Home, ask: Submit) -> None:
    a = ask(label="a").id
    weighs(home, a, 30)
    b = ask(data=home.run_dir(a, 1).artifacts / "w.bin").id
    with Journal.open(home) as journal:
        assert held(home, journal.conn, []).needed == {a: b}
    assert planned(home, "bytes=1K", keep_answers=False).items == ()


def test_of_equal_jobs_the_one_stays_that_stands(home: Home, jobs: dict[str, int]) -> None:
    """The newer one is damaged: the older answers, and stays."""
    home.run_dir(jobs["new"], 1).manifest.write_text("{}")
    said = planned(home, "bytes=1K")
    assert {i.job for i in said.items if i.sort == gc.RESULTS_OF} == {jobs["new"]}


@pytest.mark.parametrize("where", ["gc-recorded", "gc-removing"])
def test_a_kill_in_the_middle_is_finished_by_the_next(
    home: Home, jobs: dict[str, int], tmp_path: Path, where: str
) -> None:
    """Results are recorded as discarded, and then somebody kills us: nothing is left of them after the next run."""
    points = tmp_path / "points"
    points.mkdir()
    (points / where).touch()
    words = ["-m", "lab", "gc", "--quota", "bytes=1K", "--no-keep-answers", "--yes"]
    env = {**os.environ, "LAB_HOME": str(home.path), "LAB_FAILPOINTS": str(points)}
    killed = subprocess.run([sys.executable, "-P", *words], env=env, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (home.attempts / str(jobs["old"])).exists()
    with Journal.open(home) as journal:
        gone = {e.job for e in query.events(journal.conn) if e.kind == K.DISCARDED}
        assert gone == {jobs["good"], jobs["bad"], jobs["old"], jobs["new"]}
        assert all(v.ok for v in verify(home, journal.conn, [jobs["good"], jobs["old"]]))
    again = planned(home)  # no quota needed: it was said already
    assert {i.job for i in again.items} >= {jobs["good"], jobs["old"], jobs["new"]}
    removed(home, planned(home, "bytes=1K", keep_answers=False))
    assert [p.name for p in home.attempts.iterdir()] == [str(jobs["runs"])]


def test_code_that_a_submit_wants_again_goes_back(home: Home, tmp_path: Path) -> None:
    home.create()
    store = home.code / ("a" * 64)
    store.mkdir()
    (store / "train.py").write_text("x")
    assert gc._remove_store(store).endswith("is in use again")  # somebody just touched it
    assert (store / "train.py").exists()
    assert [p.name for p in home.code.iterdir()] == [store.name]
    os.utime(store, (1.0, 1.0))
    assert gc._remove_store(store) == ""
    assert list(home.code.iterdir()) == []


def test_words(
    home: Home, jobs: dict[str, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(home.path))
    assert main.main(["gc", "--plan", "--quota", "bytes=1K", "--json"]) == Exit.NO_RESOURCE
    said = json.loads(capsys.readouterr().out)
    (told,) = said["quotas"]
    assert (told["kind"], told["limit"], told["most"], told["met"]) == (None, "bytes", 1024, False)
    assert said["removed"] is False
    assert main.main(["gc", "--plan", "--quota", "toy:jobs=3"]) == Exit.OK
    assert "kind toy would keep 3 jobs where 3 may stay" in capsys.readouterr().out
    (home.path / "cluster.yaml").write_text("lanes:\n  local: {}\nretention:\n  kinds:\n    toy: {jobs: 3}\n")
    assert main.main(["gc", "--yes"]) == Exit.OK
    assert "kind toy keeps 3 jobs where 3 may stay" in capsys.readouterr().out
    assert not (home.attempts / str(jobs["bad"])).exists()
    assert main.main(["gc", "--yes", "--quota", "toy:jobs=0"]) == Exit.NO_RESOURCE  # in place of what the file says
    assert "answering the cache" in capsys.readouterr().out
    (home.path / "cluster.yaml").write_text("lanes:\n  local: {}\nretention:\n  kinds:\n    tyo: {jobs: 3}\n")
    assert main.main(["gc", "--yes"]) == Exit.BAD_INPUT
    assert "cluster.yaml:5: there is no kind 'tyo'; did you mean `toy`?" in capsys.readouterr().err


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    text = (
        "lanes: {local: {}}\nretention:\n  bytes: 200G\n  older_than: 14d\n  results_older_than: 26w\n  keep_last: 5\n"
    )
    file.write_text(text + "  keep_answers: false\n  kinds:\n    train:\n      bytes: 1.5T\n      age: 90d\n")
    found = load(file).retention
    assert found == Retention(
        14 * DAY_S,
        26 * 7 * DAY_S,
        5,
        False,
        (
            Quota("", "bytes", 200 << 30, f"{file}:3"),
            Quota("train", "bytes", 3 << 39, f"{file}:10"),
            Quota("train", "age", 90 * DAY_S, f"{file}:11"),
        ),
    )
    assert found.with_quotas((quota_word("bytes=1G"),)).quotas[0].most == 1 << 30


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("  most: 200G", ":3: `retention` has no setting `most`"),
        ("  bytes: lots", ":3: `bytes` of the home is 'lots'; write it as bytes: 200G"),
        ("  older_than: 30", ":3: `retention.older_than` is '30', no age; write it as 30d"),
        ("  keep_last: many", ":3: `retention.keep_last` must be a whole number"),
        ("  keep_last: -1", ":3: `retention.keep_last` is -1"),
        ("  keep_answers: perhaps", ":3: `retention.keep_answers` must be true or false"),
        ("  kinds:\n    train: {files: 3}", ":4: there is no limit `files` of kind train; there are: bytes, jobs, age"),
        ("  kinds:\n    train: {jobs: 3.5}", ":4: `jobs` of kind train is '3.5'; write it as jobs: 20"),
        ("  kinds: 5", ":3: `retention.kinds` must be a mapping"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f"lanes: {{local: {{}}}}\nretention:\n{line}\n")
    with pytest.raises(BadInput) as error:
        load(file)
    assert f"{file}{words}" in str(error.value)


@pytest.mark.parametrize(
    "word", ["200G", "jobs=3", "toy:jobs", ":jobs=3", "toy:jobs=x", "toy:age=5", "bytes=", "a:b:c=1"]
)
def test_quotas_that_make_no_sense(word: str) -> None:
    with pytest.raises(BadInput):
        quota_word(word)
