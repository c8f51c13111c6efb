"""`lab submit`, `lab rerun`, `lab run`: what is said, what is in the journal, how waiting ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from core.errors import Exit
from core.journal import Journal, query
from core.journal.query import Job
from core.states import JobState
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.toys import finish
from tests.support import wait_for


def row(shell: Shell, job_id: int) -> tuple[Job, dict[str, object]]:  # noqa: F811
    with Journal.open(shell.home) as journal:
        job = query.job(journal.conn, job_id)
        return job, query.spec_of(journal.conn, job.spec)


def test_id_state_and_key_are_said_once_it_is_on_disk(shell: Shell) -> None:  # noqa: F811
    done = shell.ok("submit", "toy", "--set", "alpha=2")
    job, _ = row(shell, 1)
    assert done.out == f"1  toy  ○ queued  key {job.key[:10]}\n"
    assert done.err == ""
    assert job.params == {"alpha": 2.0, "sizes": [1, 4], "label": "x", "mode": "fast", "data": None}


def test_quiet_says_the_id_and_json_all(shell: Shell) -> None:  # noqa: F811
    assert shell.ok("submit", "toy", "--quiet").out == "1\n"
    answer = shell.ok("submit", "toy", "--set", "alpha=3", "--json").json
    assert answer["schema"] == "lab.submit/1"
    [job] = answer["jobs"]
    assert (job["id"], job["state"], job["cached"], job["answer"]) == (2, "queued", False, "new")


def test_every_option_arrives(shell: Shell) -> None:  # noqa: F811
    (shell.cwd / "data.csv").write_text("1\n")
    shell.ok("submit", "toy", "--set", "alpha=9", "-q")
    typed = (
        "submit program --set sizes=[1,2] --cores 2 --memory 1G --lane local --role eval --priority 7 --after any:1"
        " --time-limit 1:30:00 --grace 20s --retries 2 --retries time-limit=1 --key night --hold --name nice"
        " --input table=data.csv:in/data.csv --output out.txt --expect-artifact out.txt --expect-step 3"
        " --env ALPHA=1 --env HERE --allow-read /opt --tag a --tag b"
    )
    shell.ok(*typed.split(), "--note", "two words", HERE="yes")
    job, spec = row(shell, 2)
    assert (job.name, job.priority, job.idem, job.tags, job.note) == ("nice", 7, "night", ("a", "b"), "two words")
    assert job.state is JobState.HELD
    assert spec["needs"]["cores"] == 2  # type: ignore[index]
    assert spec["needs"]["memory_mb"] == 1024  # type: ignore[index]
    assert spec["needs"]["lane"] == "local"  # type: ignore[index]
    assert spec["limits"]["time_s"] == 5400.0  # type: ignore[index]
    assert spec["limits"]["grace_s"] == 20.0  # type: ignore[index]
    assert spec["retries"] == {"error": 2, "time-limit": 1}
    assert spec["env"] == {"ALPHA": "1", "HERE": "yes"}
    assert spec["outputs"] == ["out.txt"]
    assert spec["expect"]["artifacts"] == ["out.txt"]  # type: ignore[index]
    assert spec["expect"]["last_step"] == 3  # type: ignore[index]
    assert spec["inputs"][0]["name"] == "table"  # type: ignore[index]
    assert spec["inputs"][0]["dest"] == "in/data.csv"  # type: ignore[index]
    assert spec["allow_undeclared"] == ["/opt"]
    with Journal.open(shell.home) as journal:
        assert [(c, j.id) for c, j in query.dependencies(journal.conn, 2)] == [("any", 1)]


def test_words_after_the_dashes_are_the_program(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "command", "--code", "none", "--", "python", "train.py", "--alpha", "20", "--json", "--", "-x")
    job, _ = row(shell, 1)
    assert job.params["argv"] == ["python", "train.py", "--alpha", "20", "--json", "--", "-x"]
    assert shell.ok("status").out.splitlines()[1].split()[:5] == ["1", "command", "python", "train.py", "--alpha"]


def test_the_same_job_is_answered_and_nothing_runs(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy")
    assert "the same job is under way" in shell.ok("submit", "toy").out
    finish(shell.home, 1, rows=[{"cell": "a", "err": 0.5}])
    events = shell.events()
    done = shell.ok("submit", "toy")
    assert done.out == (
        "1  toy  ✓ already done by job 1 on local (same inputs, code and parameters): nothing runs; "
        "see `lab results 1`\n"
    )
    assert shell.ok("submit", "toy", "--wait").out == done.out
    shown = shell.ok("submit", "toy", "--wait", "--results").out
    assert "toys  1 row" in shown
    assert shell.events() == events
    assert shell.ok("submit", "toy", "--force", "-q").out == "2\n"


def test_an_answer_of_another_lane_says_where_it_ran(shell: Shell) -> None:  # noqa: F811
    shell.home.path.mkdir()
    lanes = "lanes:\n  local: {transport: local}\n  bat00: {transport: ssh, host: bat00}\n"
    (shell.home.path / "cluster.yaml").write_text(lanes)
    shell.ok("submit", "toy")
    finish(shell.home, 1)
    told = shell.ok("submit", "toy", "--lane", "bat00").out
    assert "already done by job 1 on local" in told
    assert "--force runs it on bat00" in told
    assert "--force" not in shell.ok("submit", "toy", "--lane", "local").out
    assert "queued" in shell.ok("submit", "toy", "--lane", "bat00", "--force").out
    two = shell("submit", "toy", "--lane", "local", "--lane", "bat00")
    assert two.code == Exit.BAD_INPUT
    assert two.err.startswith("lab: --lane names local and bat00, and a job runs on one lane")
    assert shell("submit", "toy", "--lane", "local", "--lane", "local").code == Exit.OK


def test_a_command_without_a_program(shell: Shell) -> None:  # noqa: F811
    done = shell("submit", "command")
    assert done.code == Exit.BAD_INPUT
    assert "put the program after --" in done.err
    assert shell.events() == 0


def test_same_key_makes_no_second_job(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy", "--key", "k")
    finish(shell.home, 1, state="failed", cause="error")
    done = shell.ok("submit", "toy", "--key", "k")
    assert done.out == "1  toy  ✗ failed, submitted before with this --key: nothing new\n"


def test_plan_writes_nothing(shell: Shell) -> None:  # noqa: F811
    done = shell.ok("submit", "toy", "--plan")
    assert "Nothing was submitted" in done.out
    assert "local" in done.out
    assert not shell.home.journal.exists()
    plan = shell.ok("submit", "toy", "--plan", "--json").json
    assert plan["schema"] == "lab.plan/1"
    assert plan["jobs"][0]["cached_id"] is None
    shell.ok("submit", "toy")
    finish(shell.home, 1)
    assert shell.ok("submit", "toy", "--plan", "--json").json["jobs"][0]["cached_id"] == 1


def test_a_file_of_jobs_is_one_submit(shell: Shell) -> None:  # noqa: F811
    (shell.cwd / "jobs.yaml").write_text(
        "- {name: second, kind: toy, set: {alpha: 2.0}, after: [ok:first]}\n- {name: first, kind: toy}\n"
    )
    assert shell.ok("submit", "--file", "jobs.yaml", "-q").out == "2\n1\n"
    done = shell("submit", "--file", "jobs.yaml", "--cores", "2")
    assert done.code == Exit.BAD_INPUT
    assert "put them into the file" in done.err


def test_waiting_ends_with_the_job(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--wait")
    wait_for(lambda: shell.jobs(), "the submit")
    finish(shell.home, 1, rows=[{"cell": "a", "err": 0.5}])
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].startswith("1  toy alpha=1")
    assert "✓ succeeded" in out


def test_waiting_for_a_failure_tells_why_and_ends_with_1(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--wait")
    wait_for(lambda: shell.jobs(), "the submit")
    finish(shell.home, 1, state="failed", cause="error")
    out, _err = process.communicate(timeout=30)
    assert process.returncode == Exit.JOB_FAILED
    assert "✗ failed  1.5s  it broke" in out  # the time of its attempt
    assert "| log of 1" in out


def test_waiting_in_json_is_one_document_a_line(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--wait", "--json")
    wait_for(lambda: shell.jobs(), "the submit")
    finish(shell.home, 1, state="failed", cause="error")
    out, err = process.communicate(timeout=30)
    assert err == ""
    first, second = (line for line in out.splitlines())
    assert '"schema": "lab.submit/1"' in first
    assert '"schema": "lab.ended/1"' in second
    assert '"succeeded": false' in second


def test_ctrl_c_stops_watching_only(shell: Shell) -> None:  # noqa: F811
    process = shell.start("submit", "toy", "--wait")
    wait_for(lambda: shell.jobs(), "the submit")
    assert process.stderr is not None
    heard = process.stderr.readline()  # "job 1 toy  queued": it watches now
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert "stopped watching; job 1 goes on" in heard + err
    assert "Traceback" not in err
    job, _ = row(shell, 1)
    assert (job.state, job.wish) == (JobState.QUEUED, None)


def test_rerun_is_a_new_job_with_the_code_of_then(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy", "--tag", "night")
    finish(shell.home, 1, state="failed", cause="error")
    assert shell.ok("rerun", "1", "-q").out == "2\n"
    job, _ = row(shell, 2)
    assert (job.rerun_of, job.key, job.tags) == (1, row(shell, 1)[0].key, ("night",))
    finish(shell.home, 2)
    assert "already done" in shell.ok("rerun", "1").out
    assert shell.ok("rerun", "--tag", "night", "--force", "-q").out == "3\n"


KIND = """
from core.kind import Kind, Params

class Quick(Kind):
    name = "quick"
    summary = "writes a table"
    Params = Params

    def tables(self):
        import pyarrow as pa
        return {"numbers": pa.schema([("n", pa.int64()), ("half", pa.float64())])}

    def run(self, ctx):
        here = "inside the kind"
        ctx.results("numbers", [{"n": i, "half": i / 2} for i in range(3)])

class Fails(Quick):
    name = "fails"

    def run(self, ctx):
        from core.errors import JobFailed
        raise JobFailed("the numbers are wrong", hint="look at them")
"""


def with_quick(shell: Shell) -> None:  # noqa: F811
    site = shell.cwd.parent / "site"
    (site / "quickmodule.py").write_text(KIND)
    with (site / "toykinds-1.0.dist-info" / "entry_points.txt").open("a") as f:
        f.write("quick = quickmodule:Quick\nfails = quickmodule:Fails\n")


def test_run_in_this_process_prints_the_table(shell: Shell) -> None:  # noqa: F811
    with_quick(shell)
    done = shell.ok("run", "quick")
    assert "numbers  3 rows" in done.out
    assert "quick  ✓ succeeded" in done.out
    answer = shell.ok("run", "quick", "--json").json
    assert answer["schema"] == "lab.run/1"
    assert answer["tables"]["numbers"][2] == {"n": 2, "half": 1.0}
    assert not shell.home.journal.exists()


def test_run_that_fails_ends_with_1(shell: Shell) -> None:  # noqa: F811
    with_quick(shell)
    done = shell("run", "fails")
    assert done.code == Exit.JOB_FAILED
    assert "✗ failed" in done.out
    assert "the numbers are wrong" in done.out


def test_an_input_without_a_path_is_not_the_current_folder(shell: Shell) -> None:  # noqa: F811
    with_quick(shell)
    empty = shell("run", "quick", "--input", "data=")
    assert empty.code == Exit.BAD_INPUT
    assert "the input 'data=' has no path" in empty.err


def test_a_debugger_stops_inside_the_kind_and_no_ray_is_there(shell: Shell) -> None:  # noqa: F811
    with_quick(shell)
    typed = "\n".join(
        [
            "import quickmodule, sys",
            "break quickmodule:15",
            "continue",
            "print('seen:', here, 'ray' in __import__('sys').modules)",
            "clear 1",
            "continue",
            "quit",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-m", "pdb", "-m", "lab", "run", "quick"],
        input=typed + "\n",
        env=shell.env,
        cwd=shell.cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "seen: inside the kind False" in done.stdout, done.stdout + done.stderr
    assert "✓ succeeded" in done.stdout


def test_two_submits_at_once_make_one_job(shell: Shell) -> None:  # noqa: F811
    shell.ok("submit", "toy", "--set", "alpha=9", "--hold")
    codes: list[str] = []

    def one() -> None:
        codes.append(shell.ok("submit", "toy", "--key", "same", "-q").out)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert codes == ["2\n"] * 3
    assert shell.jobs() == 2
