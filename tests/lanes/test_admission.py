"""The ladder of admission: what holds is told with its evidence, what does not with its remedy; and its twins."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.cluster import LaneConfig
from core.fsio import write_json
from core.states import Cause, Rung
from lanes.admission import AttemptEnd, admit, environment, misbehaves, needed, probe
from lanes.admission.device import compare, device, notes
from lanes.admission.words import attainable
from lanes.agent import machine
from lanes.agent.probe import Probes
from lanes.joined.checks import here
from lanes.transport import CallTimeout, LinkDown, LinkRefused, RemoteError, Unreachable
from tests.lanes.admission import CARD, DISK, MACHINE, PACKAGES, World, data_of, unreachable

GROUND = ["reachable", "trusted", "authenticated", "python", "environment", "device", "disk"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# The whole climb.


def test_a_good_lane_climbs_every_rung_and_is_admitted(world: World) -> None:
    answer = admit(world, data_of(world, "eval", "train"), world.tools)
    assert answer["ok"], answer
    after = ["transfer", "smoke", "smoke train", "parity", "outlives", "returns"]
    assert list(world.rungs()) == [*GROUND, *after]
    assert all(world.rungs().values())
    assert world.roles() == {"eval": True, "train": True}
    assert world.closed == [120.0], "every connection has to be closed for two minutes"
    assert world.cancelled() == []
    assert [body for what, body in world.told if what == "admitting"] == [True, False]


def test_a_probe_runs_no_job_and_grants_nothing(world: World) -> None:
    answer = probe(world, {}, world.tools)
    assert answer["ok"]
    assert list(world.rungs()) == GROUND
    assert world.roles() == {}
    assert answer["data"]["versions"]["numba"] == "0.62"
    assert answer["data"]["machine"]["cores"] == 4


def test_every_role_needs_the_shared_rungs_and_promote_all() -> None:
    assert set(needed(["eval"])) == {(rung, "") for rung in Rung}
    assert set(needed(["promote"])) == set(needed(["eval", "train", "sweep"]))
    assert attainable(["eval", "train", "promote"], [(Rung.SMOKE, "train")]) == ["eval"]
    with pytest.raises(ValueError, match="no role 'king'"):
        needed(["king"])


# The link: what the transport says it was refused at is the rung that does not hold.

REFUSALS = [
    (LinkRefused("trusted", "host-key-changed", "THE HOST KEY OF x HAS CHANGED", "--replace"), "trusted", "--replace"),
    (
        LinkRefused("trusted", "host-key-unknown", "not known", "lab lane trust bat00"),
        "trusted",
        "lab lane trust bat00",
    ),
    (LinkRefused("authenticated", "refused-key", "it refuses our key", "add it"), "authenticated", "add it"),
    (LinkRefused("python", "old-python", "Python 3.6 is too old", "name one with `python:`"), "python", "`python:`"),
    (LinkRefused("owned", "other-head", "another head owns it", "lab lane down there"), "python", "lane down"),
    (LinkRefused("agent", "disk-full", "no space", ""), "python", "free some space"),
]


@pytest.mark.parametrize(("error", "rung", "remedy"), REFUSALS, ids=lambda v: getattr(v, "cause", None))
def test_a_refused_link_names_its_rung_and_remedy(world: World, error: LinkRefused, rung: str, remedy: str) -> None:
    world.answers["hello"] = error
    answer = admit(world, data_of(world, "eval"), world.tools)
    assert not answer["ok"]
    climbed = world.rungs()
    assert list(climbed) == GROUND[: GROUND.index(rung) + 1]
    assert list(climbed.values()) == [*[True] * (len(climbed) - 1), False]
    assert remedy in world.failed()["hint"]
    assert remedy in answer["hint"]
    assert error.message in world.failed()["message"]
    assert world.failed()["evidence"]["cause"] == error.cause
    assert world.roles() == {"eval": False}
    assert world.cancelled() == [1, 2, 3], "its jobs must not wait in the queue for ever"


def test_a_lane_out_of_reach_loses_nothing(world: World) -> None:
    world.answers["hello"] = unreachable
    answer = admit(world, data_of(world, "eval"), world.tools)
    assert not answer["ok"]
    assert world.rungs() == {"reachable": False}
    assert world.roles() == {}, "that it cannot be reached takes nothing from a lane"
    assert world.clock >= world.tools.reach_s, "a connection may be in the making for a while"


def test_what_the_network_is_sure_of_is_believed_soon(world: World) -> None:
    """Unlike a connection that is in the making: see above."""
    knocks = 0

    def hello() -> Any:
        nonlocal knocks
        knocks += 1
        world.state["tries"] += 1
        raise Unreachable("bat00.lab:22 cannot be reached (No route to host)")

    world.answers["hello"] = hello
    answer = probe(world, {}, world.tools)
    assert not answer["ok"]
    assert "No route to host" in answer["message"]
    assert knocks == 2
    assert world.clock < 2.0


def test_what_the_network_said_before_the_knock_is_not_believed(world: World) -> None:
    calls = 0

    def hello() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls < 5:  # the tries that count are still to come
            world.state["tries"] = -1
            raise Unreachable("no route")
        return dict(MACHINE)

    world.knock = lambda: None  # type: ignore[method-assign]
    world.state["tries"] = -1
    world.answers["hello"] = hello
    assert probe(world, {}, world.tools)["ok"]


def test_a_refusal_from_before_the_knock_is_not_believed(world: World) -> None:
    tries = 0

    def hello() -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries == 1:
            world.state["tries"] -= 1  # the new try has not ended yet
            raise LinkRefused("trusted", "host-key-unknown", "not known", "")
        world.state["tries"] += 1
        return {**MACHINE}

    world.answers["hello"] = hello
    assert probe(world, {}, world.tools)["ok"]


def test_an_agent_that_does_not_answer_is_no_refused_login(world: World) -> None:
    world.answers["hello"] = CallTimeout("no answer within 60 s")
    probe(world, {}, world.tools)
    assert world.failed()["rung"] == "python"
    assert world.rungs()["authenticated"]


# What is on the machine.


@pytest.mark.parametrize(
    ("python", "ray", "said"),
    [
        ("3.11.0", "2.60.0", "same patch version"),
        ("", "2.1.0", "it has Ray 2.1.0"),
        ("", None, "has no Ray"),
        ("", "", ""),
    ],
)
def test_a_joined_lane_must_fit_the_heads_ray(world: World, python: str, ray: str | None, said: str) -> None:
    found = {
        "python": python or here()["python"],
        "versions": {**dict.fromkeys(environment.NEEDED, "1"), "ray": here()["ray"] if ray == "" else ray},
    }
    judged = environment.judge("bat00", "/usr/bin/python3", found, {})
    assert judged.ok, "as an ssh lane it will do"
    joins = environment._joins("bat00", "/usr/bin/python3", found, judged)
    assert joins.ok is (said == "")
    assert said in joins.message
    assert joins.ok or "transport: ssh" in joins.hint


def test_a_missing_package_is_named_with_both_remedies(world: World) -> None:
    world.found["packages"] = {**PACKAGES, "versions": {**PACKAGES["versions"], "numba": None}}
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "environment"
    assert "package numba is missing" in failed["message"]
    assert "lab lane provision bat00" in failed["hint"]
    assert "`python:`" in failed["hint"]
    assert "transfer" not in world.rungs(), "no job may run"
    assert world.rungs()["disk"], "the rest of the machine is told all the same"


def test_a_wrong_python_for_kinds_is_named(world: World) -> None:
    world.found["packages"] = {**PACKAGES, "python": "3.9.18"}
    probe(world, {}, world.tools)
    assert "Python 3.9.18" in world.failed()["message"]
    assert "3.11" in world.failed()["message"]
    assert "lab lane provision bat00" in world.failed()["hint"]


def test_a_package_that_cannot_be_imported_is_not_there(world: World) -> None:
    world.found["packages"] = {**PACKAGES, "broken": {"numpy": "ImportError: libopenblas.so.0"}}
    probe(world, {}, world.tools)
    assert "numpy cannot be imported" in world.failed()["message"]
    assert "libopenblas" in world.failed()["message"]


def test_the_interpreter_that_kinds_run_in_is_the_one_that_is_asked(world: World) -> None:
    asked: list[Any] = []
    world.interpreter = "/root/.lab-lane/env/abc/bin/python"

    def begin_look(what: str, **named: Any) -> str:
        asked.append(named)
        return what

    world.answers["begin_look"] = begin_look
    probe(world, {}, world.tools)
    assert asked[0]["python"] == "/root/.lab-lane/env/abc/bin/python"


@pytest.mark.parametrize(
    ("settings", "found", "message", "remedy"),
    [
        ({"gpus": 1}, {}, "declares 1 GPU for bat00, and the machine shows none", "`gpus: 0`"),
        ({"gpus": 2}, {"gpus": [CARD]}, "declares 2 GPUs for bat00, and the machine shows 1", "`gpus: 1`"),
        ({"cores": 8}, {}, "declares 8 cores for bat00, which has 4", "`cores: 4`"),
        ({"memory_mb": 64000}, {}, "declares 64,000 MiB of memory for bat00, which has 8,000", "`memory_mb: 8000`"),
        ({}, {"memory_free_mb": 12}, "12 MiB of its 8,000 MiB of memory free", "end what fills it"),
        (
            {},
            {"gpus": [{**CARD, "programs": [{"pid": 9, "name": "blender", "memory_mb": 900, "ours": False}]}]},
            "not free: blender (process 9, 900 MiB) computes on it",
            "declare fewer",
        ),
        ({}, {"gpus": [{**CARD, "memory_used_mb": 20000}]}, "by a program that cannot be seen", "declare fewer"),
    ],
)
def test_what_is_declared_and_is_not_there(
    tmp_path: Path, settings: dict[str, Any], found: dict[str, Any], message: str, remedy: str
) -> None:
    world = World(tmp_path, **settings)
    world.found["machine"] = {**MACHINE, **found}
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "device"
    assert message in failed["message"]
    assert remedy in failed["hint"]
    assert world.roles() == {"eval": False}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"gpus": 1}, {"gpus": [CARD]}),
        ({"gpus": 0}, {"gpus": [{**CARD, "programs": [{"pid": 9, "name": "blender", "ours": False}]}]}),
        ({}, {"gpus": [{**CARD, "programs": [{"pid": 9, "name": "python", "ours": True}]}]}),
        ({"cores": 4, "memory_mb": 8000, "resources": ("scorer",)}, {}),
    ],
    ids=["there", "declared away", "our own attempt", "exactly"],
)
def test_what_is_declared_and_is_there(settings: dict[str, Any], found: dict[str, Any]) -> None:
    config = LaneConfig("bat00", transport="ssh", host="b", **settings)
    result = device(config, {**MACHINE, **found})
    assert result.ok, result.message
    assert all(c.ok for c in compare(config, {**MACHINE, **found}))


def test_heat_power_and_the_clock_are_told_and_not_judged() -> None:
    found = {
        **MACHINE,
        "gpus": [{**CARD, "slowed": ["power cap"]}],
        "power": {"battery": True, "mains": False, "percent": 31},
        "heat": [{"zone": "x86_pkg_temp", "celsius": 99.0}],
        "clock": 4600.0,
    }
    said = notes(found, 1000.0)
    assert said[0] == "GPU 0 is slowed down by power cap"
    assert "on its battery (31% left)" in said[1]
    assert "99 degrees" in said[2]
    assert "3,600 s ahead" in said[3]
    assert device(LaneConfig("bat00"), found, wall=1000.0).ok
    assert notes(MACHINE, 1000.0) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"free": 1 << 20}, "the disk of bat00 is full: 1 MiB free"),
        ({"write": {"ok": False, "full": True, "error": "No space left on device"}}, "is full"),
        ({"write": {"ok": False, "full": False, "error": "Read-only file system"}}, "Read-only file system"),
        ({"files_free": 3}, "only 3 more files"),
    ],
)
def test_a_full_disk_is_named(world: World, found: dict[str, Any], message: str) -> None:
    world.found["disk"] = {**DISK, **found}
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "disk"
    assert message in failed["message"]
    assert "`root:`" in failed["hint"]
    assert world.roles() == {"eval": False}


# What is sent.


def test_bytes_that_change_on_their_way_are_seen(world: World) -> None:
    put = world.store.put_chunk

    def flip(kind: str, name: str, offset: int, data: bytes, crc: int) -> Any:
        return put(kind, name, offset, data[:-1] + bytes([data[-1] ^ 1]), crc)

    world.answers["put_chunk"] = flip
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["rung"] == "transfer"
    assert "smoke" not in world.rungs()


def test_bytes_that_rot_on_the_lanes_disk_are_seen(world: World) -> None:
    finish = world.store.finish

    def rot(kind: str, name: str) -> Any:
        said = finish(kind, name)
        if said["state"] == "there":
            path = Path(said["path"])
            path.chmod(0o644)
            data = bytearray(path.read_bytes())
            data[100] ^= 1
            path.write_bytes(data)
        return said

    world.answers["finish"] = rot
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "transfer"
    assert "hashes otherwise" in failed["message"]


def test_code_that_arrives_otherwise_is_seen(world: World) -> None:
    verify = world.store.verify

    def wrong(kind: str, name: str) -> Any:
        if kind == "code":
            return {"state": "done", "equal": False, "why": "/lane/store/code/ccc/kernels/x.py is not what was sent"}
        return verify(kind, name)

    world.answers["verify"] = wrong
    admit(world, data_of(world, "eval"), world.tools)
    assert "kernels/x.py is not what was sent" in world.failed()["message"]


def test_a_store_without_room_is_a_full_disk(world: World) -> None:
    world.answers["begin"] = RemoteError("StoreFull", "600 KB are to come and the disk has 1 KB free")
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["message"].startswith("the disk of bat00 is full")
    assert "`root:`" in world.failed()["hint"]


def test_a_cut_during_the_transfer_is_begun_again(world: World) -> None:
    put, cuts = world.store.put_chunk, [LinkDown("reset"), LinkDown("reset")]

    def cut(*args: Any) -> Any:
        if cuts:
            raise cuts.pop()
        return put(*args)

    world.answers["put_chunk"] = cut
    assert admit(world, data_of(world, "eval"), world.tools)["ok"]


# Jobs.


def test_a_first_epoch_that_dies_refuses_train_and_keeps_its_evidence(world: World) -> None:
    log = "epoch 1\nTraceback (most recent call last):\nRuntimeError: CUDA out of memory\n"
    data = data_of(world, "train")
    world.ends["train"] = lambda job: world.badly(job, log=log)
    answer = admit(world, data, world.tools)
    failed = world.failed()
    assert (failed["rung"], failed["role"]) == ("smoke", "train")
    assert failed["evidence"]["job"] == data["jobs"]["train"]
    assert failed["evidence"]["cause"] == "error"
    assert failed["evidence"]["log"][-1] == "RuntimeError: CUDA out of memory"
    assert f"lab logs {data['jobs']['train']}" in failed["hint"]
    assert "it ended with exit 1" in failed["message"]
    assert world.roles() == {"train": False}
    assert not world.closed, "nothing more is tried"
    assert set(world.cancelled()) == {data["jobs"]["parity"], data["jobs"]["outlives"]}
    assert answer["message"].startswith("bat00 is not admitted for train: first epoch: ")


def test_what_only_one_role_needs_does_not_keep_the_others(world: World) -> None:
    data = data_of(world, "eval", "train")
    world.ends["train"] = world.badly
    answer = admit(world, data, world.tools)
    assert not answer["ok"]
    assert world.roles() == {"eval": True, "train": False}
    assert "is admitted for eval, and not for train" in answer["message"]


def test_a_first_epoch_without_a_checkpoint_is_none(world: World) -> None:
    def none(job: int) -> Any:
        events = world.well(job)
        (world.home.run_dir(job, 1).checkpoints / "1").rename(world.home.path / "gone")
        return events

    data = data_of(world, "train")
    world.ends["train"] = none
    admit(world, data, world.tools)
    assert "left no checkpoint" in world.failed()["message"]


def test_a_step_that_ran_on_another_machine_proves_nothing(world: World) -> None:
    world.ends["smoke"] = lambda job: world.well(job, hostname="mini")
    answer = admit(world, data_of(world, "eval"), world.tools)
    assert "ran on a machine called mini, not bat00" in world.failed()["message"]
    assert "for eval: first step: " in answer["message"], "a rung has one name, wherever it is told"


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (Cause.RUNNER_DIED, "loginctl enable-linger"),
        (Cause.DISK_FULL, "free some space"),
        (Cause.MEMORY, "more memory"),
        (Cause.LANE_REBOOTED, "restarted"),
        (Cause.BAD_SEAL, "distrust"),
        (Cause.UNREACHABLE, "network"),
    ],
)
def test_each_cause_has_its_remedy(world: World, cause: Cause, remedy: str) -> None:
    world.ends["smoke"] = lambda job: world.badly(job, cause=str(cause), reason="so it was")
    admit(world, data_of(world, "eval"), world.tools)
    assert remedy in world.failed()["hint"]
    assert world.failed()["evidence"]["cause"] == cause


# Parity: believed for its rows, not for its exit.


def test_a_broken_kernel_on_the_lane_refuses_admission(world: World) -> None:
    world.ends["parity"] = lambda job: world.badly(job, reason="3 of 5 cells did not pass: numba at mixed: fail")
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "parity"
    assert "numba at mixed" in failed["message"]
    assert world.roles() == {"eval": False}


def test_a_check_that_cannot_fail_refuses_admission(world: World) -> None:
    why = "the parity check proves nothing"
    world.ends["parity"] = lambda job: world.badly(job, cause="check-cannot-fail", reason=why)
    admit(world, data_of(world, "eval"), world.tools)
    assert "negative control" in world.failed()["hint"]


def _without(role: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.rows = [r for r in world.rows if r["role"] != role]

    return change


def _with(role: str, **values: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        for row in world.rows:
            if row["role"] == role:
                row.update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("mutant"), "cannot fail there: 0 of 0"),
        (_with("mutant", verdict="pass"), "cannot fail there: 0 of 1"),
        (_with("mutant", own_reason=False), "cannot fail there: 0 of 1"),
        (_without("candidate"), "0 of 0 cells"),
        (
            _with("candidate", verdict="fail", reason="off by one"),
            "0 of 1 cells of the parity probe passed: numba fail",
        ),
        (_with("candidate", verdict="blocked"), "0 of 1 cells"),
        (_without("gate"), "the judge"),
        (_with("gate", verdict="fail", reason="2 of 26 answers wrong"), "2 of 26 answers wrong"),
    ],
)
def test_a_parity_job_that_succeeded_is_believed_for_its_rows_only(
    world: World, change: Callable[[World], None], message: str
) -> None:
    change(world)
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["rung"] == "parity"
    assert message in world.failed()["message"]
    assert world.roles() == {"eval": False}


# The background attempt.


def test_an_attempt_that_is_ended_with_its_login_refuses_admission(world: World) -> None:
    def gone(_seconds: float) -> None:
        assert world.report is not None
        world.report.update(phase="lost", reason="runner-died", step=3, metrics=world.metrics(3))

    world.away = gone
    admit(world, data_of(world, "eval"), world.tools)
    failed = world.failed()
    assert failed["rung"] == "outlives"
    assert "did not outlive the closing of every connection (runner-died" in failed["message"]
    assert "enable-linger" in failed["hint"]
    assert world.roles() == {"eval": False}


def test_another_process_is_not_the_same_attempt(world: World) -> None:
    def other(seconds: float) -> None:
        world._go_on(seconds)
        assert world.report is not None
        world.report["pid"] = 78

    world.away = other
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["rung"] == "outlives"


def test_a_lane_that_restarts_meanwhile_is_named(world: World) -> None:
    def restart(seconds: float) -> None:
        world._go_on(seconds)
        world.answers["hello"] = {**MACHINE, "boot_id": "boot-2"}

    world.away = restart
    admit(world, data_of(world, "eval"), world.tools)
    assert "was restarted" in world.failed()["message"]


def test_an_attempt_that_stood_still_is_seen_by_its_own_steps(world: World) -> None:
    def still(_seconds: float) -> None:
        assert world.report is not None
        world.report.update(step=122, metrics=world.metrics(122, gap_after=10, gap_s=60.0))

    world.away = still
    admit(world, data_of(world, "eval"), world.tools)
    assert "stood still for 61 s" in world.failed()["message"]


def test_a_machine_that_slept_is_seen_by_what_it_did_not_do(world: World) -> None:
    def asleep(_seconds: float) -> None:
        assert world.report is not None
        world.report.update(step=5, metrics=world.metrics(5))

    world.away = asleep
    admit(world, data_of(world, "eval"), world.tools)
    assert "3 steps in 120 s" in world.failed()["message"]


def test_an_attempt_that_came_to_its_end_and_was_fetched_meanwhile_is_fine(world: World) -> None:
    world.away = lambda seconds: world._finish("outlives")
    assert admit(world, data_of(world, "eval"), world.tools)["ok"]


def test_an_attempt_that_ends_soon_after_the_closing_proves_too_little(world: World) -> None:
    """It ended well, 20 s into the two minutes: nothing was seen of the rest."""

    def soon(_seconds: float) -> None:
        assert world.report is not None
        world.report.update(phase="ended", outcome={"cause": "ok"}, step=22, metrics=world.metrics(22))

    world.away = soon
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["rung"] == "outlives"
    assert "had only 20 steps left" in world.failed()["message"]


def test_an_attempt_that_ended_before_the_closing_proves_nothing(world: World) -> None:
    world.ends["outlives"] = world.well
    admit(world, data_of(world, "eval"), world.tools)
    assert "had ended before its connections could be closed" in world.failed()["message"]


def test_a_lane_that_does_not_come_back_is_named(world: World) -> None:
    def dead(seconds: float) -> None:
        world._go_on(seconds)
        world.answers["hello"] = unreachable

    world.away = dead
    admit(world, data_of(world, "eval"), world.tools)
    assert "does not answer any more after 120 s" in world.failed()["message"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run.artifacts / "echo.bin").write_bytes(b"x" * 1024), "is not what was sealed"),
        (lambda run: (run.artifacts / "echo.bin").unlink(), "is not what was sealed"),
        (lambda run: (run.artifacts / "extra").write_text("x"), "is not what was sealed"),
        (lambda run: run.manifest.unlink(), "is not what was sealed"),
    ],
)
def test_results_that_do_not_come_back_as_they_were_refuse_admission(
    world: World, harm: Callable[[Any], Any], message: str
) -> None:
    def end(job: int) -> Any:
        events = world.well(job)
        harm(world.home.run_dir(job, 1))
        return events

    def away(seconds: float) -> None:
        world._go_on(seconds)
        world.ends["outlives"] = end

    world.away = away
    admit(world, data_of(world, "eval"), world.tools)
    assert world.failed()["rung"] == "returns"
    assert message in world.failed()["message"]
    assert world.roles() == {"eval": False}


def test_an_echo_of_somebody_else_is_refused(world: World) -> None:
    data = data_of(world, "eval")
    data["echo"]["nonce"] = "another"
    admit(world, data, world.tools)
    assert "does not hold what the head asked for" in world.failed()["message"]


# When a lane does not deserve it any more.

GOOD = AttemptEnd("ok")


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([AttemptEnd("runner-died")] * 3, "kills background processes"),
        ([GOOD, AttemptEnd("bad-seal"), GOOD, AttemptEnd("bad-seal")], "other than they were sealed"),
        ([AttemptEnd("error", "parity", contradicts=True)], "parity"),
        ([AttemptEnd("setup")] * 5, "could not even begin"),
    ],
)
def test_a_lane_that_misbehaves_is_named(history: list[AttemptEnd], reason: str) -> None:
    assert reason in (misbehaves(history) or "")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [AttemptEnd("error")] * 20,
        [AttemptEnd("error", "parity")] * 5,
        [AttemptEnd("runner-died"), GOOD, AttemptEnd("runner-died"), GOOD],
        [AttemptEnd("runner-died")] * 3 + [GOOD] * 10,
        [AttemptEnd("bad-seal")] + [GOOD] * 5,
        [AttemptEnd("setup")] * 4 + [GOOD],
        [AttemptEnd("lane-rebooted")] * 10,
    ],
)
def test_failures_that_say_nothing_of_a_lane(history: list[AttemptEnd]) -> None:
    assert misbehaves(history) is None


# The lane's own look at itself.


def test_a_look_is_begun_and_asked_for(tmp_path: Path) -> None:
    probes = Probes(tmp_path)
    name = probes.begin_look("disk", size=4096)
    found = _wait(probes, name)
    assert found["write"]["ok"]
    assert found["free"] > 0
    assert list(tmp_path.iterdir()) == [], "the file that was written must be gone"
    assert probes.look("disk-never")["known"] is False
    with pytest.raises(ValueError, match="no look called 'moon'"):
        probes.begin_look("moon")
    name = probes.begin_look("packages", python=sys.executable, names=["numpy", "nope"], imports=["json", "nope"])
    found = _wait(probes, name)
    assert found["versions"]["nope"] is None
    assert found["versions"]["numpy"]
    assert list(found["broken"]) == ["nope"]
    broken = _wait(probes, probes.begin_look("packages", python=str(tmp_path / "none"), names=[]))
    assert "cannot be run" in broken["error"]


def test_a_disk_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    said = machine.try_disk(tmp_path / "not there", 10)
    assert not said["ok"]
    assert "No such file" in said["error"]
    full = machine.try_disk(Path("/dev/full").parent, 0) if Path("/dev/full").exists() else {"ok": True}
    assert "ok" in full


def test_what_nvidia_smi_says_is_read() -> None:
    names = ["index", "name", "uuid", "memory_mb", "memory_used_mb", "busy", "temperature", "power_w"]
    names += ["power_limit_w", "driver", "throttle"]
    line = "0, NVIDIA H200, GPU-1a, 143771, 527, 3, 41, 118.29, 700.00, 570.86, 0x0000000000000024\n"
    (card,) = machine.gpu_lines(line, names)
    assert card["memory_mb"] == 143771
    assert card["power_w"] == 118.29
    assert card["slowed"] == ["power cap", "heat (software)"]
    assert machine.gpu_lines("0, GeForce, u, [N/A], 5, [N/A], 41, [N/A], 1, 5, [N/A]\n", names)[0]["slowed"] == []
    assert machine.gpu_lines("No devices were found\n", names) == []
    uuid, user = machine.app_lines("GPU-1a, 4242, /usr/bin/python3, train.py, 512\n")[0]
    assert (uuid, user) == ("GPU-1a", {"pid": 4242, "name": "/usr/bin/python3, train.py", "memory_mb": 512})


def test_power_is_read_from_what_linux_keeps(tmp_path: Path) -> None:
    def supply(name: str, **files: str) -> None:
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text + "\n")

    supply("AC", type="Mains", online="1")
    supply("BAT0", type="Battery", scope="System", capacity="80", status="Charging")
    supply("mouse", type="Battery", scope="Device", capacity="5", status="Discharging")
    assert machine.power_supplies(tmp_path) == {"mains": True, "battery": True, "percent": 80}
    (tmp_path / "AC" / "online").write_text("0\n")
    (tmp_path / "BAT0" / "status").write_text("Discharging\n")
    assert machine.power_supplies(tmp_path)["mains"] is False
    assert machine.power_supplies(tmp_path / "nothing") == {}
    mac = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t57%; discharging; 3:10 remaining\n"
    assert machine.battery_of_mac(mac) == {"mains": False, "battery": True, "percent": 57}
    assert machine.battery_of_mac("Now drawing from 'AC Power'\n") == {"mains": True}


def _wait(probes: Probes, name: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        said = probes.look(name)
        if said["done"]:
            assert said["error"] == "", said
            found: dict[str, Any] = said["found"]
            return found
        time.sleep(0.01)
    raise AssertionError(f"{name} is never done")


def test_the_echo_of_both_ends_is_one(tmp_path: Path) -> None:
    from jobs.smoke import echo as there
    from lanes.admission.ladder import echo as here

    assert here("n", 100_003) == there("n", 100_003)
    assert here("n", 64) != here("m", 64)
    write_json(tmp_path / "x", json.dumps({}))
