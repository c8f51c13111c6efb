"""The supervisor of one attempt: limits, requests, inputs, outputs, memory, disk, and the verdict."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.fsio import read_json, sha256_file
from core.rundir import verify_manifest
from lanes.agent import beat, setup
from lanes.agent.agent import RESERVE
from lanes.agent.verdict import Ended, Found, Stop, verdict
from tests.lanes.support import STUBBORN, Lane, alive, declared, kill9, wait_file
from tests.support import wait_for

LIMITS = {"time_s": None, "grace_s": 5.0, "setup_s": 60.0}

# Writes that it runs, and on SIGTERM that it was warned; then ends as told.
POLITE = """
import os, signal, sys, time
def warned(*_):
    open(sys.argv[1] + "/warned", "a").write("x")
    if sys.argv[2] == "obey":
        sys.exit(0)
signal.signal(signal.SIGTERM, warned)
open(sys.argv[1] + "/runs", "w").write("x")
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    lane = Lane(tmp_path)
    yield lane
    lane.end()


# Time limit. What is to notice its warning has to listen before it comes, on a busy machine too.


def test_time_limit_warns_first(lane: Lane, tmp_path: Path) -> None:
    spec = lane.python(1, POLITE, str(tmp_path), "obey", limits={**LIMITS, "time_s": 4.0, "grace_s": 60.0})
    outcome = lane.outcome(spec)
    # It left with exit 0 inside its grace, and still did not finish.
    assert outcome["cause"] == "time-limit"
    assert (tmp_path / "warned").read_text() == "x"
    assert outcome["seconds"] < 30


def test_time_limit_kills_what_ignores_the_warning(lane: Lane, tmp_path: Path) -> None:
    spec = lane.python(1, STUBBORN, str(tmp_path), limits={**LIMITS, "time_s": 4.0, "grace_s": 0.3})
    lane.start(spec)
    pids = [int(wait_file(tmp_path / name, "a stubborn process")) for name in ("child", "grandchild")]
    outcome = lane.wait_gone(1)["outcome"]
    assert outcome["cause"] == "time-limit"
    assert outcome["seconds"] >= 4.3
    assert not any(alive(p) for p in pids)


def test_within_its_limit_nothing_happens(lane: Lane) -> None:
    assert lane.outcome(lane.spec(1, ["/bin/true"], limits={**LIMITS, "time_s": 30.0}))["cause"] == "ok"


# Cancel.


def test_cancel_before_the_start(lane: Lane, tmp_path: Path) -> None:
    spec = lane.spec(1, ["/usr/bin/touch", str(tmp_path / "ran")])
    lane.agent.adopt([(1, 1, str(lane.run_dir(1).path))])
    lane.agent.signal(1, 1, "stop", "cancelled", 5.0)
    outcome = lane.outcome(spec)
    assert outcome["cause"] == "cancelled"
    assert not (tmp_path / "ran").exists()


def test_cancel_during_set_up(lane: Lane, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as f:
        f.truncate(20 << 30)  # hashing it takes long, so that the set-up can be met half way
    item = {"name": "big", "path": str(tmp_path / "big"), "dest": None, "sha256": "0" * 64, "size": 20 << 30}
    lane.start(lane.spec(1, ["/usr/bin/touch", str(tmp_path / "ran")], inputs=[item]))
    first = lane.wait(1, lambda r: r["beat"] > 1, "a beat from the set-up")
    assert first["phase"] == "starting"
    lane.agent.signal(1, 1, "stop", "cancelled", 60.0)
    outcome = lane.wait_gone(1)["outcome"]
    assert outcome["cause"] == "cancelled"
    assert not (tmp_path / "ran").exists()


def test_cancel_while_it_runs_and_twice(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, POLITE, str(tmp_path), "ignore"))
    wait_file(tmp_path / "runs", "the program")
    lane.agent.signal(1, 1, "stop", "cancelled", 600.0)
    wait_file(tmp_path / "warned", "the warning")
    lane.agent.signal(1, 1, "stop", "cancelled", 600.0)
    assert lane.report(1)["phase"] == "running"  # it has its grace
    begun = time.monotonic()
    lane.agent.signal(1, 1, "kill", "cancelled", 0.0)
    lane.agent.signal(1, 1, "stop", "cancelled", 600.0)  # cannot give it back
    assert lane.wait_gone(1)["outcome"]["cause"] == "cancelled"
    assert time.monotonic() - begun < 20
    assert (tmp_path / "warned").read_text() == "x"  # warned once


def test_cancel_with_stubborn_grandchildren(lane: Lane, tmp_path: Path) -> None:
    lane.start(lane.python(1, STUBBORN, str(tmp_path)))
    pids = [int(wait_file(tmp_path / name, "a stubborn process")) for name in ("child", "grandchild")]
    lane.agent.signal(1, 1, "stop", "cancelled", 0.2)
    assert lane.wait_gone(1)["outcome"]["cause"] == "cancelled"
    assert not any(alive(p) for p in pids)


def test_cancel_after_the_program_ended_changes_nothing(lane: Lane) -> None:
    assert lane.outcome(lane.spec(1, ["/bin/true"]))["cause"] == "ok"
    seal = lane.run_dir(1).manifest.read_bytes()
    for _ in range(2):
        lane.agent.signal(1, 1, "stop", "cancelled", 0.0)
    assert lane.wait_gone(1)["outcome"]["cause"] == "ok"
    assert lane.run_dir(1).manifest.read_bytes() == seal


@pytest.mark.parametrize(("action", "cause"), [("stop", "ok"), ("revoke", None)])
def test_asked_while_it_seals(lane: Lane, action: str, cause: str | None) -> None:
    """What is finished stays finished when it is cancelled; what is revoked leaves no seal, however late."""
    lane.start(lane.spec(1, ["/bin/sh", "-c", 'truncate -s 600M "$LAB_ARTIFACTS/large"']))

    def sealing() -> bool:
        now = beat.read(lane.run_dir(1).heartbeat)
        return now is not None and now.phase == beat.Phase.SEALING

    wait_for(sealing, "the seal to begin", deadline_s=30)
    assert not lane.run_dir(1).manifest.exists()
    lane.agent.signal(1, 1, action, "cancelled", 0.0)
    report = lane.wait_gone(1)
    assert report["sealed"] is (cause is not None)
    if cause is None:
        assert (report["phase"], report["reason"]) == ("lost", "revoked")
    else:
        assert report["outcome"]["cause"] == cause


def test_a_supervisor_asked_to_leave_preempts(lane: Lane, tmp_path: Path) -> None:
    import signal

    lane.start(lane.python(1, POLITE, str(tmp_path), "obey"))
    wait_file(tmp_path / "runs", "the program")
    os.kill(lane.report(1)["pid"], signal.SIGTERM)
    assert lane.wait_gone(1)["outcome"]["cause"] == "preempted"


def test_leftovers_of_a_program_that_ended_are_killed(lane: Lane, tmp_path: Path) -> None:
    code = STUBBORN.rsplit("time.sleep(600)", 1)[0] + (
        "while not os.path.exists(os.path.join(folder, 'grandchild')): time.sleep(0.01)"
    )
    outcome = lane.outcome(lane.python(1, code, str(tmp_path)))
    assert outcome["cause"] == "ok"
    assert not any(alive(int((tmp_path / name).read_text())) for name in ("child", "grandchild"))


# Inputs.


def test_inputs_are_put_where_they_were_declared(lane: Lane, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    item = declared(tmp_path / "data.csv", dest="in/d.csv")
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", 'cat in/d.csv "$LAB_INPUTS/data"'], inputs=[item]))
    assert outcome["cause"] == "ok"
    assert lane.log(1).count("1,2") == 2
    assert outcome["undeclared"] == []


def test_an_input_that_changed_since_the_submit_is_refused(lane: Lane, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    item = declared(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_text("1,3\n")
    outcome = lane.outcome(lane.spec(1, ["/usr/bin/touch", str(tmp_path / "ran")], inputs=[item]))
    assert outcome["cause"] == "stale-input"
    assert "data.csv" in outcome["message"]
    assert not (tmp_path / "ran").exists()


def test_a_missing_input_is_refused(lane: Lane, tmp_path: Path) -> None:
    item = {"name": "data", "path": str(tmp_path / "gone"), "dest": None, "sha256": "0" * 64, "size": 1, "tree": False}
    outcome = lane.outcome(lane.spec(1, ["/bin/true"], inputs=[item]))
    assert outcome["cause"] == "stale-input"
    assert "cannot be read" in outcome["message"]


@pytest.mark.parametrize("change", [True, False])
def test_a_large_input_is_looked_at_again(lane: Lane, tmp_path: Path, change: bool) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as f:
        f.truncate(setup.COPY_LIMIT + 1)
    item = declared(big, dest="big.bin")
    wait = f"touch {tmp_path}/runs; while ! test -e {tmp_path}/go; do sleep 0.02; done; test -s big.bin"
    lane.start(lane.spec(1, ["/bin/sh", "-c", wait], inputs=[item]))
    wait_for(lambda: (tmp_path / "runs").exists(), "the program", deadline_s=30)
    assert (lane.run_dir(1).inputs / "data").is_symlink()
    with big.open("r+b") as f:
        f.write(b"x" if change else b"\0")  # the negative twin touches it and changes no byte
    (tmp_path / "go").touch()
    outcome = lane.wait_gone(1)["outcome"]
    assert outcome["cause"] == ("stale-input" if change else "ok")
    if change:
        assert "changed while the job ran" in outcome["message"]


def test_a_small_input_may_change_under_the_run(lane: Lane, tmp_path: Path) -> None:
    """It was copied: what was hashed is what is read."""
    data = tmp_path / "data.csv"
    data.write_text("before\n")
    wait = f"touch {tmp_path}/runs; while ! test -e {tmp_path}/go; do sleep 0.02; done; cat d"
    lane.start(lane.spec(1, ["/bin/sh", "-c", wait], inputs=[declared(data, dest="d")]))
    wait_for(lambda: (tmp_path / "runs").exists(), "the program", deadline_s=30)
    data.write_text("after\n")
    (tmp_path / "go").touch()
    assert lane.wait_gone(1)["outcome"]["cause"] == "ok"
    assert "before" in lane.log(1)


def test_a_folder_is_an_input(lane: Lane, tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x").write_text("x1")
    (tmp_path / "set" / "link").symlink_to("a")
    folder = tmp_path / "set"
    item: dict[str, Any] = {"name": "set", "path": str(folder), "dest": None, "size": 2, "tree": True}
    item["sha256"] = setup.hash_path(folder)
    assert lane.outcome(lane.spec(1, ["/bin/sh", "-c", "cat $LAB_INPUTS/set/a/x"], inputs=[item]))["cause"] == "ok"
    (folder / "a" / "x").write_text("x2")
    assert lane.outcome(lane.spec(2, ["/bin/true"], inputs=[item]))["cause"] == "stale-input"


def test_tree_digests_are_the_heads(tmp_path: Path) -> None:
    from core.digests import Digests

    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x").write_text("x1")
    (tmp_path / "set" / "b").write_text("")
    (tmp_path / "set" / "link").symlink_to("a")
    digests = Digests(tmp_path / "digests.db")
    try:
        assert setup.hash_path(tmp_path / "set") == digests.tree(tmp_path / "set").sha256
    finally:
        digests.close()


# The working folder.


def _code(tmp_path: Path) -> dict[str, Any]:
    snapshot = tmp_path / "snapshot"
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "sub" / "tool.py").write_text("print('tool')\n")
    (snapshot / "sub" / "main.py").write_text("import tool, os\nprint('in', os.path.basename(os.getcwd()))\n")
    (snapshot / "sub" / "out.csv").write_text("stale\n")
    return {"digest": "d", "path": str(snapshot), "subdir": "sub"}


def test_code_runs_from_its_snapshot_and_its_folder(lane: Lane, tmp_path: Path) -> None:
    outcome = lane.outcome(lane.spec(1, [sys.executable, "main.py"], code=_code(tmp_path)))
    assert outcome["cause"] == "ok"
    assert "tool" in lane.log(1)
    assert "in sub" in lane.log(1)
    assert outcome["left"] == []  # bytecode is no noise
    assert outcome["undeclared"] == []


def test_the_programs_path_holds_none_of_our_packages(lane: Lane, tmp_path: Path) -> None:
    show = "import sys, os; print(sys.path, sorted(k for k in os.environ if k.startswith('PYTHON')))"
    lane.outcome(lane.python(1, show))
    text = lane.log(1)
    assert "PYTHONPATH" not in text
    assert "PYTHONSAFEPATH" not in text
    lane.outcome(lane.python(2, show, env={"PYTHONPATH": "/declared/place"}))
    assert "/declared/place" in lane.log(2)


def test_outputs_are_kept_and_the_rest_is_named(lane: Lane, tmp_path: Path) -> None:
    script = "echo 1 > out.csv; mkdir d; echo 2 > d/x; echo 3 > forgotten.txt; echo 4 >> tool.py"
    spec = lane.spec(1, ["/bin/sh", "-c", script], code=_code(tmp_path), outputs=["out.csv", "d"])
    outcome = lane.outcome(spec)
    assert outcome["cause"] == "ok"
    artifacts = lane.run_dir(1).artifacts
    assert (artifacts / "out.csv").read_text() == "1\n"
    assert (artifacts / "d" / "x").read_text() == "2\n"
    assert outcome["left"] == ["sub/forgotten.txt", "sub/tool.py"]


def test_a_stale_output_is_no_output(lane: Lane, tmp_path: Path) -> None:
    """The file came with the code: the program wrote nothing and ended with 0."""
    outcome = lane.outcome(lane.spec(1, ["/bin/true"], code=_code(tmp_path), outputs=["out.csv"]))
    assert outcome["cause"] == "incomplete"
    assert "came with the code" in outcome["message"]


@pytest.mark.parametrize(
    ("script", "says"), [("true", "was not written"), ("ln -s /etc/hostname out.csv", "outside the run directory")]
)
def test_missing_outputs(lane: Lane, script: str, says: str) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", script], outputs=["out.csv"]))
    assert outcome["cause"] == "incomplete"
    assert says in outcome["message"]


def test_the_environment_is_said_in_full(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "x")
    monkeypatch.setenv("MY_SECRET", "x")
    grant: dict[str, Any] = {"cores": 3, "memory_mb": None, "gpus": [], "resources": []}
    lane.outcome(lane.spec(1, ["/usr/bin/env"], env={"DECLARED": "yes"}, grant=grant))
    env = dict(line.split("=", 1) for line in lane.log(1).splitlines() if "=" in line)
    assert env["DECLARED"] == "yes"
    assert env["OMP_NUM_THREADS"] == "3"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["TMPDIR"].startswith((str(lane.folder), "/tmp/lab-"))
    assert not {"RAY_ADDRESS", "MY_SECRET"} & set(env)


def test_temporary_files_go_with_the_attempt(lane: Lane) -> None:
    code = "import tempfile; f = tempfile.NamedTemporaryFile(delete=False); f.write(b'x'); print('at', f.name)"
    outcome = lane.outcome(lane.python(1, code))
    assert outcome["cause"] == "ok"
    assert outcome["undeclared"] == []
    place = next(line[3:] for line in lane.log(1).splitlines() if line.startswith("at "))
    assert not Path(place).exists()


# The program's end.


def test_exit_codes_are_kept(lane: Lane) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", "exit 7"]))
    assert (outcome["cause"], outcome["exit_code"]) == ("error", 7)
    assert "exit 7" in outcome["message"]


def test_a_program_ended_by_a_signal(lane: Lane) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", "kill -SEGV $$"]))
    assert (outcome["cause"], outcome["signal"]) == ("signal", 11)


@pytest.mark.parametrize(("argv", "code"), [(["no-such-program"], 127), (["./here"], 127), (["/usr"], 127)])
def test_programs_that_cannot_be_run(lane: Lane, argv: list[str], code: int) -> None:
    outcome = lane.outcome(lane.spec(1, argv))
    assert (outcome["cause"], outcome["exit_code"]) == ("error", code)
    assert argv[0] in outcome["message"]


def test_an_interpreter_that_is_gone(lane: Lane) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/true"], python="/no/such/python"))
    assert outcome["cause"] == "setup"
    assert "/no/such/python" in outcome["message"]


def test_a_kind_that_cannot_be_loaded(lane: Lane) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/true"], entry="no_such_module:Kind"))
    assert outcome["cause"] == "error"
    assert "no_such_module" in outcome["message"]


# Expectations.

METRICS = """
import json, os, sys
with open(os.environ["LAB_METRICS"], "a") as f:
    for step in range(int(sys.argv[1]) + 1):
        f.write(json.dumps({"step": step}) + "\\n")
    f.write("not a row\\n")
open(os.path.join(os.environ["LAB_ARTIFACTS"], "model.pt"), "w").write(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("steps", "weights", "cause", "says"),
    [
        ("300", "w", "ok", ""),
        ("150", "w", "incomplete", "the step rows end at 150 and step 300 was planned"),
        ("300", "", "incomplete", "the artifact model.pt is empty"),
    ],
)
def test_exit_0_is_not_enough(lane: Lane, steps: str, weights: str, cause: str, says: str) -> None:
    expect = {"rows": {}, "last_step": 300, "artifacts": ["model.pt"]}
    outcome = lane.outcome(lane.python(1, METRICS, steps, weights, expect=expect))
    assert outcome["cause"] == cause
    assert says in outcome["message"]
    assert outcome["last_step"] == int(steps)


def test_planned_rows_that_are_not_there(lane: Lane) -> None:
    outcome = lane.outcome(lane.spec(1, ["/bin/true"], expect={"rows": {"cells": 64}}))
    assert outcome["cause"] == "incomplete"
    assert "0 rows and 64 were planned" in outcome["message"]


# Memory and disk.

GROW = """
import sys, time
x = bytearray(int(sys.argv[1]) << 20)
x[::4096] = b"x" * len(x[::4096])
time.sleep({})
"""


def test_above_its_memory_grant(lane: Lane) -> None:
    grant = {"cores": 1, "memory_mb": 150, "gpus": [], "resources": []}
    outcome = lane.outcome(lane.python(1, GROW.format(600), "400", grant=grant))
    assert outcome["cause"] == "memory"
    assert "150 MiB" in outcome["message"]


def test_within_its_memory_grant(lane: Lane) -> None:
    grant = {"cores": 1, "memory_mb": 1500, "gpus": [], "resources": []}
    outcome = lane.outcome(lane.python(1, GROW.format(0.6), "200", grant=grant))
    assert outcome["cause"] == "ok"
    assert outcome["max_rss_mb"] >= 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "lab-test", str(place)], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"no small tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave not one free block. What was filled before stays."""
    place = next(p for p in (disk / f"fill-{n}" for n in itertools.count()) if not p.exists())
    with place.open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))


@pytest.mark.root
def test_inputs_that_do_not_fit(small_disk: Path, tmp_path: Path) -> None:
    lane = Lane(small_disk)
    try:
        (tmp_path / "data").write_bytes(bytes(9 << 20))
        outcome = lane.outcome(lane.spec(1, ["/bin/true"], inputs=[declared(tmp_path / "data")]))
        assert outcome["cause"] == "disk-full"
    finally:
        lane.end()


@pytest.mark.root
def test_a_disk_that_fills_under_a_program(small_disk: Path) -> None:
    lane = Lane(small_disk)
    try:
        outcome = lane.outcome(lane.spec(1, ["/bin/sh", "-c", "head -c 9000000 /dev/zero > fill"]))
        assert outcome["cause"] == "disk-full"
        assert verify_manifest(lane.run_dir(1)) == []
        # The negative twin: the program fails, and the disk is not full.
        shutil.rmtree(lane.run_dir(1).path)
        assert lane.outcome(lane.spec(2, ["/bin/sh", "-c", "head -c 9 /dev/zero > /no/fill"]))["cause"] == "error"
    finally:
        lane.end()


@pytest.mark.root
def test_a_disk_that_is_full_at_the_start(small_disk: Path) -> None:
    lane = Lane(small_disk)
    try:
        fill(small_disk)
        answer = lane.agent.start(lane.spec(1, ["/bin/true"]), str(lane.run_dir(1).path))
        assert (answer["ok"], answer["cause"]) == (False, "disk-full")
        (small_disk / "fill-0").unlink()
        assert lane.outcome(lane.spec(2, ["/bin/true"]))["cause"] == "ok"
    finally:
        lane.end()


@pytest.mark.root
def test_a_request_to_stop_fits_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """The agent gives up its reserve for it; without one it says so, and asks again when there is room."""
    lane = Lane(small_disk)
    try:
        for job in (1, 2, 3):
            lane.start(lane.spec(job, ["/bin/sh", "-c", f"echo x > {tmp_path}/runs-{job}; exec sleep 600"]))
            wait_file(tmp_path / f"runs-{job}", "the program")
        fill(small_disk)
        reserve = lane.root / RESERVE
        assert reserve.exists()
        assert lane.agent.signal(1, 1, "stop", "cancelled", 0.0) == {"ok": True, "known": True}
        assert not reserve.exists()
        assert lane.wait_gone(1)["outcome"]["cause"] == "cancelled"
        reserve.unlink(missing_ok=True)
        fill(small_disk)
        answer = lane.agent.signal(2, 1, "stop", "cancelled", 0.0)
        assert (answer["ok"], answer["known"], answer["retry"]) == (False, True, True)
        assert not lane.run_dir(2).stop.exists()
        assert lane.report(2)["phase"] == "running"
        fill(small_disk)
        assert not lane.agent.signal(3, 1, "revoke")["ok"]
        lane.agent.signal(3, 1, "stop", "cancelled", 60.0)  # cannot take it back
        # What may never commit is ended without a word in writing.
        report = lane.wait_gone(3)
        assert (report["phase"], report["reason"], report["sealed"]) == ("lost", "revoked", False)
        for name in ("fill-0", "fill-1", "fill-2"):
            (small_disk / name).unlink()
        assert lane.wait_gone(2)["outcome"]["cause"] == "cancelled"
        assert read_json(lane.run_dir(2).stop)["action"] == "stop"
        wait_for(lambda: lane.agent.poll({}, 0) and reserve.exists(), "the reserve to be held again", deadline_s=20)
    finally:
        lane.end()


# Names that are no text, and files of ours that a program has spoilt.


ODD_NAMES = b"""
import os, sys
os.makedirs("out")
open(b"out/caf\\xe9.txt", "w").write("x")
os.symlink(b"caf\\xe9.txt", b"out/l\\xe9nk")
open(b"left\\xe9.txt", "w").write("x")
os.symlink(os.environ["OUTSIDE"].encode() + b"/secr\\xe9t", "leads")
open(os.environ["OUTSIDE"].encode() + b"/secr\\xe9t", "a").write("x")
open(os.environ["OUTSIDE"].encode() + b"/re\\xe9d").read()
""".decode()


@pytest.mark.parametrize("outputs", [["out"], ["out", "leads"]])
def test_names_that_are_no_text(lane: Lane, tmp_path: Path, outputs: list[str]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with open(os.fsencode(outside) + b"/re\xe9d", "w") as f:
        f.write("x")
    env = {"OUTSIDE": str(outside)}
    outcome = lane.outcome(
        lane.spec(1, [sys.executable, "-c", ODD_NAMES], outputs=outputs, env=env, code=_code(tmp_path))
    )
    run = lane.run_dir(1)
    if len(outputs) > 1:
        assert outcome["cause"] == "incomplete"
        assert "secr\\udce9t" in outcome["message"]
        assert "secr\\udce9t" in lane.log(1)
    else:
        assert outcome["cause"] == "ok"
    assert "sub/left\\udce9.txt" in outcome["left"]
    if outcome["traced"] != "none":
        assert any(path.endswith("/re\\udce9d") for path in outcome["undeclared"])
    # Readable by anybody, and the files of the seal by their real names.
    json.dumps([outcome, read_json(run.opens)], ensure_ascii=False).encode()
    names = {os.fsencode(name) for name in read_json(run.manifest)["files"]}
    assert {b"artifacts/out/caf\xe9.txt", b"artifacts/out/l\xe9nk"} <= names
    assert verify_manifest(run) == []
    # The negative twin: one byte more in the file with the odd name.
    with open(os.fsencode(run.artifacts) + b"/out/caf\xe9.txt", "a") as f:
        f.write("y")
    assert len(verify_manifest(run)) == 1


@pytest.mark.parametrize("name", ["outcome.json", "plan.json", "stop.json", "progress.json", "metrics.jsonl"])
@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, '{"rows": [1], "last_step": "x", "step": []}'])
def test_files_of_ours_that_a_program_has_spoilt(lane: Lane, name: str, text: str) -> None:
    """It ends with a seal that says something, and the agent stays able to read it."""
    code = """
import os, sys
run = os.path.dirname(os.environ["LAB_METRICS"])
open(os.path.join(run, sys.argv[1]), "w").write(sys.argv[2] + "\\n")
"""
    outcome = lane.outcome(lane.python(1, code, name, text))
    assert outcome["cause"] == ("error" if name == "plan.json" and "rows" in text else "ok")
    assert verify_manifest(lane.run_dir(1)) == []


# The verdict, as a pure function.


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (Found(Ended(0), child={"cause": "ok"}), "ok"),
        (Found(Ended(0), child=None), "error"),
        (Found(Ended(1), child={"cause": "error", "message": "x"}), "error"),
        (Found(Ended(0), child={"cause": "ok"}, stop=Stop("time-limit", "x")), "time-limit"),
        (Found(Ended(93), child=None), "preempted"),
        (Found(Ended(92), child=None), "disk-full"),
        (Found(Ended(None, 9), oom_kill=True), "host-memory"),
        (Found(Ended(None, 9), oom_kill=False), "signal"),
        (Found(Ended(1), child={"cause": "signal", "signal": 9, "message": "x"}, oom_kill=True), "host-memory"),
        (Found(Ended(1), child={"cause": "error", "message": "x"}, disk_free=10), "disk-full"),
        (Found(Ended(0), child={"cause": "ok"}, disk_free=10), "ok"),
        (Found(Ended(0), child={"cause": "ok"}, missing=["rows"]), "incomplete"),
        (Found(Ended(0), child={"cause": "ok"}, stale=["data"], missing=["rows"]), "stale-input"),
        (Found(Ended(1), child={"cause": "check-cannot-fail", "message": "x"}), "check-cannot-fail"),
    ],
)
def test_verdicts(found: Found, cause: str) -> None:
    assert verdict(found)["cause"] == cause


def test_causes_are_those_of_core() -> None:
    from core.states import Cause
    from lanes.agent import verdict as module

    words = [v for k, v in vars(module).items() if k.isupper() and isinstance(v, str)]
    assert len(words) >= 11
    assert set(words) <= {str(c) for c in Cause}


def test_large_inputs_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.rundir import RunDir

    big = tmp_path / "big.bin"
    big.write_bytes(b"x" * 100)
    os.utime(big, (1, 1))
    monkeypatch.setattr(setup, "COPY_LIMIT", 10)
    monkeypatch.setattr(setup, "SETTLED_S", -1.0)
    hashed: list[Path] = []
    real = setup.hash_path

    def counted(path: Path, tick: Any) -> str:
        hashed.append(path)
        return real(path, tick)

    monkeypatch.setattr(setup, "hash_path", counted)
    item = declared(big)
    for n in range(2):
        run = RunDir(tmp_path / str(n))
        run.create()
        setup.prepare({"inputs": [item]}, run, digests=tmp_path / "digests", tick=lambda: None)
    assert len(hashed) == 1
    big.write_bytes(b"y" * 100)
    run = RunDir(tmp_path / "2")
    run.create()
    with pytest.raises(setup.SetupError, match="is not what it was"):
        setup.prepare({"inputs": [item]}, run, digests=tmp_path / "digests", tick=lambda: None)
    assert sha256_file(big) != item["sha256"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_paths_of_a_spec_stay_inside(tmp_path: Path, name: str) -> None:
    from core.rundir import RunDir

    (tmp_path / "data").write_text("x")
    run = RunDir(tmp_path / "run")
    run.create()
    with pytest.raises(setup.SetupError, match="outside"):
        setup.prepare({"inputs": [declared(tmp_path / "data", dest=name)]}, run, digests=None, tick=lambda: None)
    with pytest.raises(setup.SetupError, match="outside"):
        setup.prepare({"code": {"path": None, "subdir": name}}, run, digests=None, tick=lambda: None)


def test_nothing_is_lost_of_an_outcome_when_the_program_is_killed(lane: Lane) -> None:
    """Step rows, log and opens are sealed whatever the end."""
    code = METRICS + "\nimport time; print('printed', flush=True); time.sleep(600)"
    lane.start(lane.python(1, code, "5", "w"))
    lane.wait(1, lambda r: r["step"] == 5, "the last row")
    wait_for(lambda: "printed" in lane.log(1), "the log", deadline_s=20)
    kill9(lane.report(1)["child"])
    report = lane.wait_gone(1)
    files = read_json(lane.run_dir(1).manifest)["files"]
    assert {"metrics.jsonl", "log.txt", "opens.json", "artifacts/model.pt"} <= set(files)
    assert [json.loads(line)["step"] for line in report["metrics"]] == list(range(6))
