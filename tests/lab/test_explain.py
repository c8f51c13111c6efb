"""`lab explain`: one true sentence about why, and what differs from the nearest earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import NotFound
from core.home import Home
from core.journal import Journal, Role, query
from core.states import EventKind as K
from lab.explain import Explanation, explain
from lab.submission import Request, submit
from tests.lab.conftest import Submit
from tests.lab.toys import finish


def told(home: Home, job_id: int) -> Explanation:
    with Journal.open(home) as journal:
        return explain(home, journal.conn, job_id)


def event(home: Home, kind: K, **more: object) -> None:
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(kind, **more)  # type: ignore[arg-type]


@pytest.fixture
def running(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a controller were up."""
    monkeypatch.setattr("lab.explain.controller_alive", lambda _: True)
    return


def lane(home: Home, state: str = "up", reason: str = "") -> None:
    info = {"cores": 2, "memory_mb": 4000, "gpus": []}
    event(home, K.LANE, lane="local", data={"state": state, "reason": reason, "info": info})


def test_the_controller_is_down(home: Home, ask: Submit) -> None:
    said = told(home, ask().id)
    assert (
        said.sentence == "job 1 waits for the controller, which is down; `lab up` starts it, and it would go to local"
    )
    assert said.details == ["it is the first job of its kind here"]


def test_an_unknown_id(home: Home, ask: Submit) -> None:
    ask()
    with pytest.raises(NotFound, match="ids so far go from 1 to 1"):
        told(home, 5)


@pytest.mark.usefixtures("running")
def test_a_job_that_starts_again_later_says_when(home: Home, ask: Submit) -> None:
    it = ask().id
    lane(home)
    for wait_s in (0.0, 60.0):
        event(home, K.PLACED, job=it, attempt=1 + int(wait_s > 0), lane="local", data={"nonce": "n", "grant": {}})
        reason = "attempt 1: signal (killed)"
        event(home, K.REQUEUED, job=it, data={"cause": "signal", "reason": reason, "wait_s": wait_s})
        said = told(home, it).sentence
        if wait_s:
            assert said.startswith("job 1 starts again in ")
            assert said.endswith(f"s, after {reason}")
        else:
            assert said == "job 1 is about to start on local"


@pytest.mark.usefixtures("running")
def test_what_a_queued_job_waits_for(home: Home, ask: Submit) -> None:
    first = ask(alpha=1).id
    lane(home, "declared")
    assert "waits for a lane to come up: local: the lane is declared" in told(home, first).sentence
    lane(home)
    assert told(home, first).sentence == "job 1 is about to start on local"
    second = ask(alpha=2, request={"after": ["1"]}).id
    assert told(home, second).sentence == "job 2 waits for job 1, which is queued"
    third = ask(alpha=3).id
    assert told(home, third).sentence == "job 3 has 1 job before it (priority, then age); it would go to local"
    event(home, K.PLACED, job=1, attempt=1, lane="local", data={"nonce": "n", "grant": {"cores": 2}})
    assert told(home, third).sentence == ("job 3 waits for room: local: 0 cores free, 1 needed; it is the next")
    lane(home, "draining", "new disk")
    assert told(home, third).sentence.endswith("local: the lane is draining: new disk")
    event(home, K.CANCEL_ASKED, job=third, data={})
    assert "was asked to end" in told(home, third).sentence
    assert "job 1 is running: attempt 1 on local" in told(home, first).sentence


@pytest.mark.usefixtures("running")
def test_held_skipped_and_impossible(home: Home, here: Path, ask: Submit) -> None:
    lane(home_with(home, ask))
    held = ask(alpha=2, request={"held": True}).id
    assert told(home, held).sentence == f"job {held} is held: it waits until `lab release {held}`"
    finish(home, 1, state="failed", cause="error")
    never = ask(alpha=3, request={"after": ["1"]}).id
    assert "will be skipped: it needs job 1 to succeed, which failed" in told(home, never).sentence
    assert told(home, 1).sentence == "job 1 failed, attempt 1 on local (error): it broke"
    scores = ask(alpha=5, request={"needs": {"resources": ("scorer",)}}).id
    file = home.path.parent / "cluster.yaml"
    file.write_text("lanes: {local: {transport: local}}\n")  # since then it offers none
    assert told(Home(home.path, file), scores).sentence.endswith(
        f"waits for a lane that can take it: local does not offer scorer; write `resources: [scorer]` under `local:` "
        f"in {file}"
    )
    wide = ask(alpha=4, request={"needs": {"cores": 2}}).id
    event(home, K.LANE, lane="local", data={"state": "up", "info": {"cores": 1}})
    assert "waits for a lane that can take it: local has 1 core, 2 needed" in told(home, wide).sentence


def home_with(home: Home, ask: Submit) -> Home:
    ask(alpha=1)
    return home


def test_the_part_of_the_key_that_differs(home: Home, here: Path, toy: Path, ask: Submit) -> None:
    (here / "d.csv").write_text("1")
    request = {"inputs": ["d.csv"]}
    first = ask("program", request, alpha=20).id
    finish(home, first)
    far = ask("program", request, alpha=7, label="z").id
    changed = ask("program", request, alpha=10).id
    said = told(home, changed)
    assert said.nearest == first
    assert said.details[-1] == (
        "the nearest earlier run is job 1 (succeeded); it differs in parameter alpha: 10.0 here, 20.0 there"
    )
    assert told(home, far).nearest == first
    (here / "train.py").write_text("print(2)\n")
    (here / "more.py").write_text("")
    said = told(home, ask("program", request, alpha=20).id)
    assert "it differs in code: " in said.details[0]
    assert said.details[1] == "in the code these files differ: more.py, train.py"
    (here / "train.py").write_text("print(1)\n")
    (here / "more.py").unlink()
    (here / "d.csv").write_text("2")
    said = told(home, ask("program", request, alpha=20).id)
    assert "it differs in input d.csv: " in said.details[0]
    (here / "d.csv").write_text("1")
    toy.write_text(toy.read_text() + "# a line\n")
    said = told(home, ask("program", request, alpha=20).id)
    assert "it differs in kind code: " in said.details[0]
    assert said.details[1] == "in lab's own code or the kind's these files differ: toymodule.py"


def test_undeclared_files_are_named(home: Home, ask: Submit) -> None:
    first = ask().id
    finish(home, first, undeclared=["/data/a.csv", "/data/b.csv"])
    said = told(home, first)
    assert said.sentence == "job 1 succeeded: attempt 1 on local in 1.5s"
    assert said.details[0].startswith("it read files that were not declared: /data/a.csv, /data/b.csv; so it never")
    again = told(home, ask().id)
    assert again.details[-1] == "job 1 is the same but read files that were not declared"


def test_forced_and_rerun(home: Home, here: Path, ask: Submit) -> None:
    first = ask().id
    finish(home, first)
    forced = submit(home, [Request("toy", force=True)], cwd=here)[0].id
    assert "job 1 is the same and succeeded" in told(home, forced).details[-1]
    with Journal.open(home) as journal:
        assert query.job(journal.conn, forced).key == query.job(journal.conn, first).key


@pytest.mark.usefixtures("running")
def test_the_attempt_that_was_lost_last_is_named_too(home: Home, ask: Submit) -> None:
    first = ask().id
    lane(home)
    for n in (1, 2):
        event(home, K.PLACED, job=first, attempt=n, lane="local", data={"nonce": "n", "grant": {"cores": 1}})
        data = {"state": "lost", "cause": "unreachable", "message": f"gone {n}", "parts": []}
        event(home, K.ATTEMPT_ENDED, job=first, attempt=n, lane="local", data=data)
        event(home, K.REQUEUED, job=first, data={"cause": "unreachable", "reason": f"attempt {n}: unreachable"})
    said = told(home, first).details
    assert [x for x in said if x.startswith("attempt ")] == [
        "attempt 1 on local was lost (unreachable): gone 1",
        "attempt 2 on local was lost (unreachable): gone 2",
    ]
    finish(home, first, state="failed", cause="error")
    assert sum(x.startswith("attempt ") for x in told(home, first).details) == 2  # the third is in the sentence


def test_a_job_is_not_compared_with_itself_or_another_program(home: Home, here: Path) -> None:
    def run(*argv: str) -> int:
        request = Request("command", {"argv": list(argv)}, code="none", literal=True)
        return submit(home, [request], cwd=here)[0].id

    first = run("python3", "train.py", "--alpha", "1")
    finish(home, first, undeclared=["/data/a.csv"])
    assert not [x for x in told(home, first).details if "is the same but" in x]
    other = run("python3", "score.py", "--alpha", "1")
    assert told(home, other).nearest is None
    assert not [x for x in told(home, other).details if "first job of its kind" in x]
    assert told(home, run("python3", "train.py", "--alpha", "2")).nearest == first


def test_a_nonce_is_no_difference(home: Home, here: Path) -> None:
    def run(**params: object) -> int:
        return submit(home, [Request("smoke", params, literal=True)], cwd=here)[0].id

    first, twin = run(nonce="a", steps=1), run(nonce="b", steps=1)
    assert told(home, twin).nearest is None
    said = told(home, run(nonce="c", steps=2))
    assert said.nearest in (first, twin)
    assert said.details[-1].endswith("it differs in parameter steps: 2 here, 1 there")
