"""A study on the command line: its plan, its submit, its state, why a job of it waits, and its end."""

from __future__ import annotations

from core.errors import Exit
from lab.wait import _Reasons
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.toys import finish
from tests.support import wait_for

SIZE = ("--set", "seeds=20")
NOTE = "dose 1e9 is left out"


def test_a_study_from_plan_to_rerun(shell: Shell) -> None:  # noqa: F811
    said = shell.ok("submit", "doses", "--set", "seeds=2", "--plan", COLUMNS="160").out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert [line.partition(" ? ")[2] for line in lines[1:5]] == [
        "local, once the controller is up",
        "data local, once the controller is up",
        "data local, once the controller is up",
        "part1 (may fail), part2 (may fail) local, once the controller is up",
    ]
    assert f"note: {NOTE}" in lines
    assert lines[-1].startswith("4 jobs, 0 answered already, 4 to run; how long is not known")
    plan = shell.ok("submit", "doses", "--plan", "--json", *SIZE).json
    end = plan["jobs"][-1]
    assert plan["notes"] == [NOTE]
    assert end["study"] == "doses"
    assert end["after"][0] == {"job": "doses/part1", "must": "end"}
    assert end["takes"][0] == {"name": "part1", "job": "doses/part1", "file": "", "optional": True}
    assert shell.jobs() == 0
    said = shell.ok("submit", "doses", "--plan", *SIZE).out
    assert "doses/part1, doses/part2" not in said
    assert "part1, part2 and 18 more, all of which may fail" in " ".join(said.split())

    said = shell.ok("submit", "doses", *SIZE).out
    assert said.splitlines() == ["doses  22 jobs, 22 to run (jobs 1 to 22)", f"note: {NOTE}"]
    found = shell.ok("status", "--json").json
    assert found["studies"] == [{"study": "doses", "counts": {"queued": 22}}]
    said = shell.ok("status").out
    assert "doses  22 jobs: 22 queued  (`lab status doses` lists them)" in said
    assert "part7" not in said
    assert "part7" in shell.ok("status", "doses").out
    explained = shell.ok("explain", "2").out
    assert "waits for job 1, which is queued and makes its input data and truth" in " ".join(explained.split())
    assert "Its input truth is truth.npz of job 1 (doses/data), which is queued" in " ".join(explained.split())

    finish(shell.home, 1, artifacts={"truth.npz": "t"})
    for job in range(2, 22):
        bad = job == 8
        finish(shell.home, job, **({"state": "failed", "cause": "error"} if bad else {"artifacts": {"a": str(job)}}))
    said = shell.ok("explain", "22").out
    assert "Its input part7 is all files of job 8 (doses/part7), which failed: absent" in " ".join(said.split())
    finish(shell.home, 22)
    assert "Its input part7 was absent: job 8 (doses/part7) did not succeed" in " ".join(
        shell.ok("explain", "22").out.split()
    )
    ended = shell("submit", "doses", "--wait", *SIZE, "--plan")
    assert "22 jobs, 20 answered already, 2 to run" in " ".join(ended.out.split())
    again = shell.ok("rerun", "--failed", "doses", "--json").json
    assert [j["name"] for j in again["jobs"]] == ["doses/part7", "doses/end"]
    said = shell.ok("submit", "doses", *SIZE).out
    assert said.splitlines()[0] == "doses  22 jobs, 20 there already, 2 under way, nothing new runs"
    asked = shell.ok("cancel", "doses", "--json").json
    assert len(asked["jobs"]) == 2


def test_waiting_for_a_study_says_what_failed_and_ends_accordingly(shell: Shell) -> None:  # noqa: F811
    with shell.start("submit", "doses", "--wait", *SIZE) as waiting:
        wait_for(lambda: shell.jobs() == 22, "the submit")
        finish(shell.home, 1, artifacts={"truth.npz": "t"})
        for job in range(2, 22):
            finish(
                shell.home, job, **({"state": "failed", "cause": "error"} if job == 8 else {"artifacts": {"a": "b"}})
            )
        finish(shell.home, 22)
        out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == Exit.JOB_FAILED
    lines = out.splitlines()
    assert lines[0].startswith("doses  22 jobs")
    assert lines[2].startswith("8  toy doses/part7")
    assert lines[-1] == "21 of 22 jobs succeeded"
    assert "queued" not in err
    assert "job 8 toy doses/part7  failed: it broke" in err


def test_of_many_jobs_each_reason_is_told_once() -> None:
    room = "job {} waits for room: local: 0 cores free, 1 needed; {}"
    said = [room.format(5, "it is the next"), room.format(6, "1 job before it"), room.format(5, "it is the next")]
    said += ["job 9 waits for job 5, which is queued", "job 7 waits for a lane to come up: local: the lane is declared"]

    def told(*, many: bool) -> list[int]:
        reasons = _Reasons(None)  # type: ignore[arg-type]
        return [i for i, why in enumerate(said) if reasons._is_new(why, int(why.split()[1]), many=many)]

    assert told(many=True) == [0, 4]
    assert told(many=False) == [0, 1, 3, 4], "of few, each has its own"
