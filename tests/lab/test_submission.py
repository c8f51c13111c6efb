"""Submitting: everything wrong is refused in one sentence before anything exists; the same job is never run twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core import digests
from core.errors import BadInput, NotFound
from core.home import Home
from core.journal import Journal, Role, query
from core.states import Cond, JobState
from core.states import EventKind as K
from lab.submission import Request, plan, prepare, rerun, submit
from tests.lab.conftest import Submit
from tests.lab.toys import finish

ROWS = [{"cell": "a", "err": 0.5}]


def row(home: Home, job_id: int) -> query.Job:
    with Journal.open(home) as journal:
        return query.job(journal.conn, job_id)


def spec(home: Home, job_id: int) -> dict[str, Any]:
    with Journal.open(home) as journal:
        return query.spec_of(journal.conn, query.job(journal.conn, job_id).spec)


# What is recorded.


def test_words_of_the_command_line_become_values(home: Home, ask: Submit) -> None:
    job = ask(alpha="1e-3", sizes="[2, 8]", label="20", mode="slow")
    want = {"alpha": 0.001, "sizes": [2, 8], "label": "20", "mode": "slow", "data": None}
    assert row(home, job.id).params == want
    assert row(home, ask(label="1:30").id).params["label"] == "1:30"
    assert row(home, ask(label="2024-01-01").id).params["label"] == "2024-01-01"
    assert row(home, ask(label="[a").id).params["label"] == "[a"


def test_equal_jobs_have_equal_keys(home: Home, here: Path, toy: Path) -> None:
    def key(params: dict[str, Any], **more: Any) -> str:
        return prepare(home, Request("toy", params, **more), here).key

    same = {key({"alpha": "20"}), key({"alpha": 20}), key({"alpha": 20.0, "sizes": (1, 4)}), key({"alpha": "2e+1"})}
    assert len(same) == 1
    assert key({"alpha": 20}, needs={"cores": 1}, priority=5, note="n", tags=["t"], limits={"time_s": "5m"}) in same
    others = {
        key({"alpha": 21}),
        key({"alpha": 20}, env={"A": "1"}),
        key({"alpha": 20}, outputs=["o"]),
        key({"alpha": 20}, inputs=["train.py"]),
        key({"alpha": 20}, inputs=["data=train.py"]),
        key({"alpha": 20}, needs={"gpus": 0}),
    }
    assert len(others) == 6
    assert others & same == {key({"alpha": 20})}


def test_everything_that_was_asked_for_is_recorded(home: Home, here: Path, ask: Submit) -> None:
    first = ask()
    (here / "sub").mkdir()
    (here / "data.csv").write_text("1")
    request = Request(
        "program",
        {"label": "b"},
        needs={"memory_mb": "64M"},
        limits={"time_s": "1h30m", "grace_s": 2},
        inputs=["../data.csv", "other=../train.py"],
        outputs=["out/./x.csv"],
        expect={"artifacts": ["out/x.csv"], "last_step": 3},
        after=["any:1", "ok:1"],
        env={"A": "1"},
        idem="k1",
        priority=7,
        tags=["t1", "t2"],
        note="why",
        held=True,
        retries={"error": 2},
        allow_undeclared=["/data"],
        on_unreachable="requeue-after:2h",
        argv=("lab", "submit"),
        code=here,
    )
    answer = submit(home, [request], cwd=here / "sub")[0]
    assert (answer.id, answer.state, answer.answer) == (first.id + 1, JobState.HELD, "new")
    job, what = row(home, answer.id), spec(home, answer.id)
    assert (job.name, job.priority, job.tags, job.note, job.idem) == ("program b", 7, ("t1", "t2"), "why", "k1")
    assert [(i["name"], i["dest"], i["size"]) for i in what["inputs"]] == [
        ("data.csv", "data.csv", 1),
        ("other", "sub/other", 9),
    ]
    assert what["needs"]["memory_mb"] == 64
    assert what["limits"]["time_s"] == 5400
    assert what["outputs"] == ["out/x.csv"]
    assert what["entry"] == "toymodule:Program"
    assert what["code"]["subdir"] == "sub"
    assert what["on_unreachable"] == "requeue-after:7200"
    assert what["python"] == sys.executable
    assert (home.code / what["code"]["store"] / "train.py").is_file()
    stored = home.code / what["kind_code"]["store"]
    assert (stored / "toymodule.py").is_file()
    assert (stored / "lanes" / "agent").is_dir()
    with Journal.open(home) as journal:
        assert [(c, u.id) for c, u in query.dependencies(journal.conn, answer.id)] == [(Cond.OK, 1)]


def test_the_code_root_is_the_repository_around(home: Home, here: Path, toy: Path) -> None:
    subprocess.run(["git", "init", "-q", str(here)], check=True)
    (here / ".gitignore").write_text("scratch/\n")
    (here / "exp").mkdir()
    (here / "exp" / "run.py").write_text("")
    (here / "scratch").mkdir()
    (here / "scratch" / "try.py").write_text("")
    inside = prepare(home, Request("program"), here / "exp").spec.code
    assert inside is not None
    assert (inside.root, inside.subdir) == (str(here), "exp")
    ignored = prepare(home, Request("program"), here / "scratch")
    assert ignored.spec.code is not None
    assert ignored.spec.code.root == str(here / "scratch")
    assert [e.name for e in ignored.snapshots[1].listing.entries] == ["try.py"]
    assert prepare(home, Request("program", code="none"), here).spec.code is None


def test_preparing_writes_nothing_unless_told(home: Home, here: Path, toy: Path) -> None:
    prepare(home, Request("program"), here)
    plan(home, [Request("program")], cwd=here)
    assert not home.path.exists()
    stored = prepare(home, Request("program"), here, write=True)
    assert stored.spec.code is not None
    assert (home.code / stored.spec.code.store / "train.py").is_file()


def test_one_spec_for_a_sweep_and_one_transaction(home: Home, here: Path, toy: Path) -> None:
    answers = submit(home, [Request("toy", {"alpha": i + 1}) for i in range(50)], cwd=here)
    assert [a.id for a in answers] == list(range(1, 51))
    with Journal.open(home) as journal:
        kinds = [e.kind for e in query.events(journal.conn)]
    assert kinds.count(K.SPEC) == 1
    assert kinds.count(K.SUBMITTED) == 50


# What is answered.


def test_the_same_job_again(home: Home, ask: Submit) -> None:
    first = ask(alpha=2)
    again = ask(alpha="2.0")
    assert (again.id, again.answer, again.cached) == (first.id, "queued-already", False)
    finish(home, first.id, rows=ROWS)
    cached = ask(alpha=2)
    assert (cached.id, cached.answer, cached.state, cached.cached) == (first.id, "cached", JobState.SUCCEEDED, True)
    forced = ask(alpha=2, request={"force": True})
    assert (forced.id, forced.answer) == (first.id + 1, "new")
    assert ask(alpha=3).answer == "new"


def test_what_changed_runs(home: Home, here: Path, toy: Path, ask: Submit) -> None:
    (here / "d.csv").write_text("1")
    request = {"inputs": ["d.csv"]}
    first = ask("program", request)
    finish(home, first.id)
    assert ask("program", request).cached
    (here / "train.py").write_text("print(2)\n")
    code = ask("program", request)
    (here / "train.py").write_text("print(1)\n")
    assert ask("program", request).id == first.id
    (here / "d.csv").write_text("2")
    data = ask("program", request)
    (here / "d.csv").write_text("1")
    toy.write_text(toy.read_text() + "# a line\n")
    kind = ask("program", request)
    assert [a.answer for a in (code, data, kind)] == ["new"] * 3
    assert len({a.key for a in (first, code, data, kind)}) == 4


def test_a_changed_lane_makes_no_new_job(home: Home, here: Path, ask: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    import core.kindcode
    from core.snapshot import Entry

    first = prepare(home, Request("toy"), here)
    plain = core.kindcode.walk_package

    def changed(folder: Path, prefix: str, digests: Any) -> list[Entry]:
        found = plain(folder, prefix, digests)
        return [*found, Entry("lanes/new.py", found[0].source, "0" * 64, 1)] if prefix == "lanes" else found

    monkeypatch.setattr(core.kindcode, "walk_package", changed)
    second = prepare(home, Request("toy"), here)
    assert first.key == second.key
    assert first.spec.kind_code.store != second.spec.kind_code.store


def test_undeclared_jobs_never_answer(home: Home, ask: Submit) -> None:
    first = ask()
    finish(home, first.id, undeclared=["/data/secret.csv"])
    again = ask()
    assert again.answer == "new"
    assert f"job {first.id} is the same but read files that were not declared: it runs again" in again.message


@pytest.mark.parametrize("what", ["run", "manifest", "part", "part-size"])
def test_an_answer_whose_evidence_is_gone_runs_again(home: Home, ask: Submit, what: str) -> None:
    first = ask()
    finish(home, first.id, rows=ROWS)
    assert ask().cached
    run, part = home.run_dir(first.id, 1), home.tables / "toys" / "1-1.parquet"
    if what == "run":
        run.path.rename(run.path.with_name("moved"))
    elif what == "manifest":
        run.manifest.write_text(json.dumps({"files": {}}))
    elif what == "part":
        part.unlink()
    else:
        os.truncate(part, 10)
    again = ask()
    assert again.answer == "new"
    assert f"job {first.id} is the same but its " in again.message


@pytest.mark.parametrize("state", ["failed", "cancelled", "skipped"])
def test_only_success_answers(home: Home, ask: Submit, state: str) -> None:
    finish(home, ask().id, state=state, cause="error")
    assert ask().answer == "new"


def test_a_job_that_is_being_cancelled_does_not_answer(home: Home, ask: Submit) -> None:
    first = ask()
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(K.CANCEL_ASKED, job=first.id, data={})
    assert ask().id == first.id + 1


def test_keys_of_the_user(home: Home, here: Path, ask: Submit) -> None:
    first = ask(alpha=2, request={"idem": "night"})
    same = ask(alpha=2, request={"idem": "night"})
    assert (same.id, same.answer) == (first.id, "same-key")
    finish(home, first.id, state="failed", cause="error")
    assert ask(alpha=2, request={"idem": "night"}).state is JobState.FAILED
    with pytest.raises(BadInput, match=r"belongs to job 1, which is a different job \(parameter alpha: 3.0 here, 2.0"):
        ask(alpha=3, request={"idem": "night"})
    with pytest.raises(BadInput, match="belongs to job 1"):
        ask(alpha=2, request={"idem": "night", "force": True})
    twins = [Request("toy", {"alpha": a}, idem="day") for a in (1, 5)]
    with pytest.raises(BadInput, match="two different jobs of this submit"):
        submit(home, twins, cwd=here)


def test_two_submits_at_once_make_one_job(home: Home, here: Path, ask: Submit) -> None:
    def one(_: int) -> int:
        return submit(home, [Request("toy", {"alpha": 9}, idem="once")], cwd=here)[0].id

    def two(_: int) -> int:
        return submit(home, [Request("toy", {"alpha": 8})], cwd=here)[0].id

    ask()
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(one, range(12)))) == 1
        assert len(set(pool.map(two, range(12)))) == 1


def test_the_same_job_twice_in_one_submit(home: Home, here: Path, toy: Path) -> None:
    answers = submit(home, [Request("toy"), Request("toy"), Request("toy", force=True)], cwd=here)
    assert [(a.id, a.answer) for a in answers] == [(1, "new"), (1, "queued-already"), (2, "new")]


def test_waiting_for_what_failed_is_said(home: Home, ask: Submit) -> None:
    finish(home, ask(alpha=2).id, state="failed", cause="error")
    assert "will be skipped" in ask(alpha=3, request={"after": ["ok:1"]}).message
    assert ask(alpha=4, request={"after": ["any:1"]}).message == ""


def test_rerun(home: Home, here: Path, ask: Submit) -> None:
    (here / "d.csv").write_text("1")
    first = ask(request={"inputs": ["d.csv"], "idem": "k", "tags": ["t"]})
    finish(home, first.id, state="failed", cause="error")
    second = rerun(home, [first.id])[0]
    job = row(home, second.id)
    assert (job.rerun_of, job.key, job.params, job.tags, job.idem) == (
        first.id,
        first.key,
        row(home, first.id).params,
        ("t",),
        None,
    )
    finish(home, second.id)
    assert rerun(home, [first.id])[0].id == second.id
    assert rerun(home, [first.id], force=True)[0].id == second.id + 1
    with pytest.raises(NotFound):
        rerun(home, [99])
    (here / "d.csv").write_text("2")
    with pytest.raises(BadInput, match="is no longer what it was for job 1"):
        rerun(home, [first.id])


def test_plan(home: Home, here: Path, ask: Submit) -> None:
    fresh = plan(home, [Request("program")], cwd=here)[0]
    assert (fresh.lane, fresh.cached_id, fresh.expected_s) == ("local", None, None)
    assert (fresh.code, fresh.code_files) == (str(here), 1)
    first = ask(alpha=2)
    assert "is the same and queued" in plan(home, [Request("toy", {"alpha": 2})], cwd=here)[0].why
    finish(home, first.id, seconds=3.0)
    done = plan(home, [Request("toy", {"alpha": 2})], cwd=here)[0]
    assert (done.cached_id, done.lane, done.expected_s) == (first.id, None, 0.0)
    other = plan(home, [Request("toy", {"alpha": 3})], cwd=here)[0]
    assert other.expected_s == other.lanes[0].takes_s == pytest.approx(3.5, abs=1.0)
    with Journal.open(home) as journal:
        assert len(query.jobs(journal.conn)) == 1


def test_a_warm_submit_reads_and_stores_only_what_changed(
    home: Home, here: Path, ask: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why a warm submit is quick; how quick is measured in benchmarks/spine.py."""
    (here / "util.py").write_text("")
    read: list[str] = []
    synced: list[int] = []
    hash_it, sync = digests.sha256_file, os.fsync
    monkeypatch.setattr(digests, "SETTLED_S", -1.0)  # these files are older than they look
    monkeypatch.setattr(digests, "sha256_file", lambda path: read.append(Path(path).name) or hash_it(path))
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(fd) or sync(fd))

    def stored() -> dict[Path, int]:
        return {p: p.stat().st_ino for p in home.code.rglob("*")}

    ask("program")  # it makes the home: from the next one on there is a place to remember in
    ask("program", label="1")
    assert {"train.py", "util.py", "toymodule.py"} <= set(read)
    assert synced
    before = stored()
    read.clear()
    synced.clear()
    ask("program", label="2")
    assert (read, synced) == ([], [])
    assert stored() == before
    # The twin: one file has changed.
    (here / "train.py").write_text("print(1234)\n")
    ask("program", label="3")
    assert read == ["train.py"]
    assert synced
    assert stored().keys() > before.keys()


def test_submitting_loads_nothing_heavy() -> None:
    heavy = ("ray", "torch", "tensorflow", "pyarrow", "duckdb", "numpy", "paramiko", "textual")
    code = f"import sys, lab, lab.submission, lab.jobsfile; print([m for m in {heavy!r} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    code = "import sys, lab; print([m for m in sys.modules if m.startswith(('core', 'lab.', 'pydantic'))])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
