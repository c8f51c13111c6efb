"""`lab lane add, trust, probe, admit, down`, `lab lanes`, `lab doctor` about lanes: words, refusals, records."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import cluster
from core.errors import BadInput, Exit
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import AskRow
from core.states import EventKind as K
from core.states import Rung
from lab import ladder, laneadd
from tests.lab.shell import Shell, shell  # noqa: F401
from tests.lab.test_cli_start import HEAVY, MODULES
from tests.lab.test_cli_terminal import Terminal
from tests.lanes.ssh.servers import NO_SSHD, Sshd

CLUSTER = """\
# Our lanes.
lanes:
  local:
    transport: local   # this very machine
    # cores: 4

  bat00:
    transport: ssh
    host: bat00.lab
    roles: [eval, train]
    admission: {outlive_s: 40}

# notify: [./tell.sh]
"""


@pytest.fixture
def lanes(shell: Shell) -> Shell:  # noqa: F811
    """A shell whose home has a remote lane."""
    shell.home.path.mkdir()
    file(shell).write_text(CLUSTER)
    shell.home = Home(shell.home.path, file(shell))
    return shell


def file(shell: Shell) -> Path:  # noqa: F811
    return shell.home.path / "cluster.yaml"


class Controller:
    """Stands in for the controller: holds its lock, and answers what is asked as the test says."""

    def __init__(self, home: Home, **answers: dict[str, Any]) -> None:
        self.home = home
        self.answers = answers
        self.asked: list[AskRow] = []
        self._end, self._paused = threading.Event(), threading.Event()
        Journal.open(home, Role.CLIENT, create=True).close()
        self._lock = os.open(home.controller_lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with Journal.open(self.home, Role.CONTROLLER) as journal:
            while not self._end.wait(0.02):
                if self._paused.is_set():
                    continue
                for ask in query.open_asks(journal.conn):
                    self.asked.append(ask)
                    said = self.answers.get(ask.what, {"ok": True, "message": "done"})
                    rungs = [Event(K.RUNG, lane=ask.lane, data=r) for r in said.get("rungs", ())]
                    data = {"ask": ask.seq, "ok": said["ok"], "message": said["message"], "hint": said.get("hint", "")}
                    done = Event(K.LANE_ANSWERED, lane=ask.lane, data={**data, "data": said.get("data", {})})
                    with journal.transaction() as tx:
                        tx.extend([*rungs, done])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It answers nothing meanwhile."""
        self._paused.set()
        try:
            yield
        finally:
            self._paused.clear()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        os.close(self._lock)


@contextlib.contextmanager
def answering(home: Home, **answers: dict[str, Any]) -> Iterator[Controller]:
    made = Controller(home, **answers)
    try:
        yield made
    finally:
        made.close()


def rung(name: Rung, ok: bool = True, message: str = "so it is", role: str = "", **more: Any) -> dict[str, Any]:
    return {"rung": str(name), "role": role, "ok": ok, "message": message, "hint": "", "evidence": {}, **more}


PROBED = {
    "ok": True,
    "message": "bat00 could be admitted",
    "rungs": [
        rung(Rung.REACHABLE, message="me@bat00.lab:22 answers"),
        rung(
            Rung.DEVICE,
            message="8 cores",
            evidence={"compared": [{"name": "gpus", "declared": 1, "probed": 1, "ok": True}]},
        ),
    ],
    "data": {"versions": {"numba": "0.62", "torch": "2.13"}},
}
ADMITTED = {
    "ok": True,
    "message": "bat00 is admitted for eval, train",
    "rungs": [rung(Rung.SMOKE, message="the first step, job 1, succeeded")],
    "data": {"roles": {"eval": {"ok": True, "reason": ""}, "train": {"ok": True, "reason": ""}}},
}
DIED = {
    "ok": False,
    "message": "bat00 is not admitted for train: first epoch: it died",
    "hint": "read `lab logs 2`, mend it; then: lab lane admit bat00",
    "rungs": [
        rung(
            Rung.SMOKE, False, "the first epoch, job 2, failed", role="train", hint="read `lab logs 2`",
            evidence={"job": 2, "log": ["epoch 1", "RuntimeError: boom"]},
        )
    ],
    "data": {"roles": {"train": {"ok": False, "reason": "first epoch: it died"}}},
}  # fmt: skip


# Declaring.


def test_add_keeps_every_other_byte(lanes: Shell) -> None:
    args = ("--host", "mini.lab", "--user", "me", "--prefix", "wsl -e", "--role", "eval", "--about", "a Mac: small")
    done = lanes.ok("lane", "add", "mini", *args, "--json")
    assert done.json["schema"] == "lab.lane-add/1"
    text = file(lanes).read_text()
    new = """
  mini:
    transport: ssh
    host: mini.lab
    user: me
    prefix: [wsl, "-e"]
    roles: [eval]
    about: "a Mac: small"
"""
    assert text == CLUSTER.replace("{outlive_s: 40}\n", "{outlive_s: 40}\n" + new)
    assert [x.name for x in cluster.load(file(lanes)).lanes] == ["local", "bat00", "mini"]
    assert cluster.load(file(lanes)).lane("mini").prefix == ("wsl", "-e")
    assert lanes.jobs() == 0
    assert not lanes.home.journal.exists(), "nobody needs to be told where nobody runs"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("bat00", "--host", "x"), "has a lane 'bat00' already, at line 7"),
        (("../x", "--host", "x"), "cannot be a lane's name"),
        (("-x", "--host", "x"), "x"),
        (("a b", "--host", "x"), "cannot be a lane's name"),
        (("mini", "--host", "me@mini"), "is no name of a machine"),
        (("mini", "--host", "-oProxyCommand=touch /tmp/x"), "is no name of a machine"),
        (("mini", "--host", "$(id)"), "is no name of a machine"),
        (("mini", "--host", "mini", "--user", "a;b"), "no name of an account"),
        (("mini", "--host", "mini", "--role", "king"), "role 'king'"),
        (("mini", "--host", "mini", "--cores", "0"), "`cores` of lane 'mini' is 0"),
        (("mini", "--host", "mini", "--port", "99999"), "99999"),
        (("mini", "--host", "mini", "--root", "/x\ny"), "root"),
        (("mini", "--host", "mini", "--prefix", "wsl '"), "cannot be split into words"),
    ],
)
def test_what_cannot_be_declared_changes_nothing(lanes: Shell, args: tuple[str, ...], words: str) -> None:
    done = lanes("lane", "add", *args)
    assert done.code == Exit.BAD_INPUT, done.out
    assert words in done.err
    assert "Traceback" not in done.err
    assert file(lanes).read_text() == CLUSTER


def test_add_without_a_file_says_what_to_do(shell: Shell) -> None:  # noqa: F811
    done = shell("lane", "add", "mini", "--host", "mini")
    assert done.code == Exit.BAD_INPUT
    assert "lab init" in done.err


def test_a_running_controller_is_told_to_read_it(lanes: Shell) -> None:
    with answering(lanes.home) as controller:
        lanes.ok("lane", "add", "mini", "--host", "mini")
        wait(lambda: controller.asked)
    assert [(a.lane, a.what) for a in controller.asked] == [("mini", "reload")]


def test_a_lane_that_is_being_given_up_is_not_resumed_before_that(lanes: Shell) -> None:
    with Journal.open(lanes.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.append(K.LANE, lane="bat00", data={"state": "draining", "reason": "hot"})
        tx.append(K.LANE_ASKED, lane="local", data={"what": "down"})
    with Journal.open(lanes.home, Role.CLIENT) as journal, journal.transaction() as tx:
        seq = tx.append(K.LANE_ASKED, lane="bat00", data={"what": "down"})
    assert "is about to be given up" in lanes.ok("lane", "resume", "bat00").out
    assert lanes.ok("lane", "drain", "bat00", "--reason", "hot", "--json").json["why_not"]
    with Journal.open(lanes.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.LANE_ANSWERED, lane="bat00", data={"ask": seq, "ok": True, "message": ""})
    assert "resume asked" in lanes.ok("lane", "resume", "bat00").out


def test_a_joined_lane_that_came_too_late_says_so(lanes: Shell) -> None:
    words = "its warm workers run without Ray until `lab down` and `lab up`"
    add = ("lane", "add", "--joined", "--host", "mini")
    assert words not in lanes.ok(*add, "first").out, "no controller runs: the next one lets it join"
    for joins, named in ((False, "late"), (True, "early")):
        with Journal.open(lanes.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            tx.append(K.CONTROLLER_UP, data={"pid": 1, "joins": joins})
        with answering(lanes.home):
            assert (words in lanes.ok(*add, named).out) is not joins
            assert words not in lanes.ok("lane", "add", f"{named}-ssh", "--host", "mini").out
            # Of three joined lanes each says it, and of no other.
            shown = " ".join(lanes.ok("lanes", "-v").out.split())
            assert (shown.count(words) > 0) is not joins
            rows = {row["name"]: row["joins_now"] for row in lanes.ok("lanes", "--json").json["lanes"]}
            assert (rows[named], rows["bat00"]) == (joins, None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lanes: {local: {transport: local}} # x\n", "lanes: {local: {transport: local}, m: {host: h}} # x\n"),
        ("lanes:\n  local:\n", "lanes:\n  local:\n\n  m:\n    host: h\n"),
        (
            "lanes:\n    a:\n      about: |\n        two\n        lines\n    b: {host: x}\n# e",
            "lanes:\n    a:\n      about: |\n        two\n        lines\n    b: {host: x}\n    m:\n      host: h\n# e",
        ),
        ("lanes:\r\n  a:\r\n    cores: 2\r\n", "lanes:\r\n  a:\r\n    cores: 2\r\n\r\n  m:\r\n    host: h\r\n"),
        ("lanes:\n  a:\n    cores: 2\nnotify: [x]\n", "lanes:\n  a:\n    cores: 2\n\n  m:\n    host: h\nnotify: [x]\n"),
        ("lanes:\n  a:\n    cores: 2", "lanes:\n  a:\n    cores: 2\n\n  m:\n    host: h\n"),
    ],
)
def test_lines_go_behind_the_last_lane(text: str, wanted: str) -> None:
    assert laneadd.insert(text, "m", {"host": "h"}) == wanted


def test_words_that_yaml_would_read_otherwise_are_quoted() -> None:
    words = ["yes", "no", "1", "1.5", "~", "null", "a: b", "#x", "-e", "", "a,b", "[x]", "12:30", "é"]
    import yaml

    text = laneadd.insert("lanes:\n  a:\n", "m", {"about": "x", "resources": words})
    assert yaml.safe_load(text)["lanes"]["m"]["resources"] == words
    with pytest.raises(BadInput, match="already"):
        laneadd.insert(text, "m", {})


# Who and where.


@pytest.mark.parametrize("verb", ["trust", "probe", "admit", "down"])
def test_a_lane_that_is_not_there_is_named(lanes: Shell, verb: str) -> None:
    done = lanes("lane", verb, "bat01", "--json")
    assert done.code == Exit.NOT_FOUND
    assert done.json["error"] == "not-found"
    assert "bat00" in done.json["hint"]
    assert lanes.events() == 0


@pytest.mark.parametrize("verb", ["trust", "probe", "admit", "down"])
def test_this_machine_needs_none_of_it(lanes: Shell, verb: str) -> None:
    done = lanes("lane", verb, "local")
    assert done.code == Exit.BAD_INPUT
    assert "is this machine" in done.err
    assert lanes.events() == 0


def test_completion_knows_lanes_and_commands(lanes: Shell) -> None:
    def complete(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        done = lanes(**{"_LAB_COMPLETE": "complete_bash", **words})
        return sorted(w.partition("\t")[0] for w in done.out.split("\n") if w)

    assert complete("lab lane admit b") == ["bat00"]
    assert complete("lab lane trust ") == ["bat00", "local"]
    assert {"add", "admit", "down", "drain", "probe", "resume", "trust"} <= set(complete("lab lane "))


# Trust, with a real sshd.


@pytest.fixture
def sshd(tmp_path: Path, lanes: Shell) -> Iterator[Sshd]:
    if NO_SSHD:
        pytest.skip(NO_SSHD)
    server = Sshd(tmp_path / "sshd")
    (tmp_path / "ssh_config").write_text("")
    file(lanes).write_text(
        f"lanes:\n  near:\n    transport: ssh\n    host: 127.0.0.1\n    port: {server.port}\n"
        f"    ssh_config: {tmp_path / 'ssh_config'}\n    identity: {server.user_key}\n"
    )
    try:
        yield server
    finally:
        server.stop()


def test_trust_shows_the_fingerprint_and_stores_nothing_unasked(lanes: Shell, sshd: Sshd) -> None:
    done = lanes("lane", "trust", "near")
    assert done.code == Exit.BAD_INPUT
    assert sshd.key().fingerprint in done.err
    assert "ssh-ed25519" in done.err
    assert not lanes.home.known_hosts.exists()
    other = "SHA256:" + "A" * 43
    done = lanes("lane", "trust", "near", "--fingerprint", other)
    assert done.code == Exit.REFUSED
    assert sshd.key().fingerprint in done.err
    assert not lanes.home.known_hosts.exists()
    done = lanes("lane", "trust", "near", "--fingerprint", "MD5:00:11")
    assert done.code == Exit.BAD_INPUT


def test_trust_by_fingerprint_for_scripts(lanes: Shell, sshd: Sshd) -> None:
    done = lanes.ok("lane", "trust", "near", "--fingerprint", sshd.key().fingerprint, "--json").json
    assert done["schema"] == "lab.lane-trust/1"
    assert done["stored"] is True
    (key,) = done["keys"]
    assert (key["fingerprint"], key["was"], key["kind"]) == (sshd.key().fingerprint, "unknown", "ssh-ed25519")
    assert lanes.home.known_hosts.stat().st_mode & 0o777 == 0o600
    again = lanes.ok("lane", "trust", "near", "--json").json
    assert again["stored"] is False
    assert "was trusted already" in lanes.ok("lane", "trust", "near").out


def test_a_changed_key_is_said_loudly_and_needs_replace(lanes: Shell, sshd: Sshd) -> None:
    lanes.ok("lane", "trust", "near", "--yes")
    before, old = lanes.home.known_hosts.read_text(), sshd.key().fingerprint
    sshd.new_host_key()
    for args in ((), ("--yes",), ("--fingerprint", sshd.key().fingerprint)):
        done = lanes("lane", "trust", "near", *args)
        assert done.code == Exit.REFUSED
        assert "HAS CHANGED" in done.err
        assert old in done.err
        assert sshd.key().fingerprint in done.err
        assert "--replace" in done.err
        assert lanes.home.known_hosts.read_text() == before
    done = lanes.ok("lane", "trust", "near", "--replace", "--yes", "--json")
    assert done.json["keys"][0]["was"] == "changed"
    assert old not in {k["fingerprint"] for k in done.json["keys"]}
    assert len(lanes.home.known_hosts.read_text().splitlines()) == 1


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", Exit.REFUSED), (b"\n", Exit.REFUSED)])
def test_a_person_is_asked_at_the_terminal(lanes: Shell, sshd: Sshd, answer: bytes, code: int) -> None:
    terminal = Terminal(lanes, "lane", "trust", "near")
    terminal.see(sshd.key().fingerprint)
    terminal.see("Trust it? [y/N]")
    terminal.type(answer)
    assert terminal.end() == code, terminal.shown
    assert lanes.home.known_hosts.exists() is (code == 0)


def test_a_lane_that_cannot_be_reached_cannot_be_trusted(lanes: Shell, sshd: Sshd) -> None:
    sshd.stop()
    done = lanes("lane", "trust", "near", "--yes")
    assert done.code == Exit.UNAVAILABLE
    assert "cannot be reached" in done.err
    assert "Traceback" not in done.err


def test_a_running_controller_hears_of_trust(lanes: Shell, sshd: Sshd) -> None:
    with answering(lanes.home) as controller:
        lanes.ok("lane", "trust", "near", "--yes")
        wait(lambda: controller.asked)
    assert [(a.lane, a.what) for a in controller.asked] == [("near", "trusted")]


# Probe, admit, down: what is asked, what is shown.


def test_probe_shows_the_ladder_beside_what_is_declared(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED):
        done = lanes.ok("lane", "probe", "bat00")
        told = lanes.ok("lane", "probe", "bat00", "--json").json
    assert "reachable" in done.out
    assert "me@bat00.lab:22 answers" in done.out
    assert "GPUs     declared 1, probed 1" in done.out
    assert done.out.rstrip().endswith("bat00 could be admitted")
    assert told["schema"] == "lab.climb/1"
    assert [r["rung"] for r in told["rungs"]] == ["reachable", "device"]
    assert lanes.jobs() == 0


def test_a_probe_that_fails_ends_with_1_and_the_remedy(lanes: Shell) -> None:
    bad = {
        "ok": False,
        "message": "device: the machine shows none",
        "hint": "set `gpus: 0`",
        "rungs": [rung(Rung.DEVICE, False, "the machine shows none", hint="set `gpus: 0`")],
    }
    with answering(lanes.home, probe=bad):
        done = lanes("lane", "probe", "bat00")
        admit = lanes("lane", "admit", "bat00")
    assert done.code == admit.code == Exit.JOB_FAILED
    assert done.out.count("set `gpus: 0`") == 1
    assert done.out.count("the machine shows none") == 1, "the rung has said it"
    assert done.out.endswith("bat00 cannot be admitted: device did not hold. Mend that, then `lab lane probe bat00`\n")
    assert admit.out.endswith("device did not hold. Mend that, then `lab lane admit bat00`\n")
    assert lanes.jobs() == 0, "a lane that cannot be admitted gets no jobs"


def test_a_failure_that_is_no_rung_is_told_in_full(lanes: Shell) -> None:
    bad = {"ok": False, "message": "lane bat00 cannot be reached: no route", "hint": "see `lab lanes -v`"}
    with answering(lanes.home, probe=bad):
        done = lanes("lane", "probe", "bat00")
    assert done.code == Exit.JOB_FAILED
    assert "lane bat00 cannot be reached: no route" in done.out
    assert "see `lab lanes -v`" in done.out


def test_an_untrusted_lane_is_to_be_trusted_first(lanes: Shell) -> None:
    bad = {"ok": False, "message": "trusted: unknown", "rungs": [rung(Rung.TRUSTED, False, "unknown")]}
    with answering(lanes.home, probe=bad):
        done = lanes("lane", "admit", "bat00")
    assert "trusted did not hold. `lab lane trust bat00`, then `lab lane admit bat00`" in done.out


def test_admit_submits_the_ladder_and_shows_the_verdict(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED, admit=ADMITTED) as controller:
        done = lanes.ok("lane", "admit", "bat00", "--json").json
    assert done["ok"] is True
    assert list(done["jobs"]) == ["smoke", "train", "parity", "outlives"]
    asked = controller.asked[-1]
    assert (asked.what, asked.data["roles"]) == ("admit", ["eval", "train"])
    assert asked.data["jobs"] == done["jobs"]
    assert asked.data["echo"]["name"] == "echo.bin"
    with Journal.open(lanes.home) as journal:
        jobs = {step: query.job(journal.conn, i) for step, i in done["jobs"].items()}
        specs = {step: query.spec_of(journal.conn, j.spec) for step, j in jobs.items()}
        waits = {step: [x.id for _, x in query.dependencies(journal.conn, j.id)] for step, j in jobs.items()}
    for spec in specs.values():
        assert spec["needs"]["lane"] == "bat00"
        assert spec["needs"]["admission"] is True
        assert set(spec["retries"].values()) == {0}, "a rung that holds at the third try does not hold"
    names = {"smoke": "first step", "train": "first epoch", "parity": "parity", "outlives": "outlives"}
    assert {step: j.name for step, j in jobs.items()} == {s: f"bat00: {n}" for s, n in names.items()}
    assert jobs["parity"].kind == "parity"
    assert jobs["parity"].params["backends"] == ["numba", "torch"], "those whose package is on the lane"
    assert jobs["train"].params["checkpoint"] is True
    # 40 s without a connection, a step a second, and some more.
    assert jobs["outlives"].params["steps"] >= 40
    assert waits["parity"] == [jobs["smoke"].id, jobs["train"].id]
    assert waits["outlives"] == [jobs["parity"].id]


def test_admit_runs_anew_what_succeeded_before(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED, admit=ADMITTED):
        first = lanes.ok("lane", "admit", "bat00", "--json").json["jobs"]
        second = lanes.ok("lane", "admit", "bat00", "--json").json["jobs"]
    assert not set(first.values()) & set(second.values())


def test_a_first_epoch_that_dies_is_shown_with_its_last_words(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED, admit=DIED):
        done = lanes("lane", "admit", "bat00", "--role", "train")
    assert done.code == Exit.JOB_FAILED
    assert "first epoch" in done.out
    assert "| RuntimeError: boom" in done.out
    last = done.out.splitlines()[-1]
    assert "bat00 is not admitted for train: first epoch did not hold." in last
    assert last.endswith("Mend that, then `lab lane admit bat00 --role train`")
    assert done.out.count("read `lab logs 2`") == 1


def test_admit_takes_a_program_for_its_first_epoch(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED, admit=ADMITTED):
        jobs = lanes.ok("lane", "admit", "bat00", "--json", "--smoke", "--", "python", "train.py", "--epochs", "1").json
    with Journal.open(lanes.home) as journal:
        train, smoke = (query.job(journal.conn, jobs["jobs"][s]) for s in ("train", "smoke"))
    assert (train.kind, train.params["argv"]) == ("command", ["python", "train.py", "--epochs", "1"])
    assert smoke.kind == "smoke"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--role", "promote"), "is not meant for 'promote'"),
        (("--role", "king"), "there is no role 'king'; there are: eval, "),
        (("--smoke",), "--smoke was given without a program"),
        (("--", "python", "x.py"), "a program follows --smoke"),
    ],
)
def test_admit_refuses_what_it_cannot_do(lanes: Shell, args: tuple[str, ...], words: str) -> None:
    done = lanes("lane", "admit", "bat00", *args)
    assert done.code == Exit.BAD_INPUT
    assert words in done.err
    assert lanes.events() == 0


def test_admit_without_waiting_says_what_climbs(lanes: Shell) -> None:
    done = lanes.ok("lane", "admit", "bat00", "--no-wait", "--json").json
    assert done["ok"] is None
    with Journal.open(lanes.home) as journal:
        (ask,) = query.open_asks(journal.conn)
        parity = query.job(journal.conn, done["jobs"]["parity"])
    assert ask.what == "admit"
    assert parity.params["backends"] == ["numba"], "nothing is known of the lane yet"


def test_a_climb_under_way_is_watched_and_not_doubled(lanes: Shell) -> None:
    first = lanes.ok("lane", "admit", "bat00", "--role", "eval", "--no-wait", "--json").json
    events = lanes.events()
    for words in (("--no-wait",), ("--role", "train"), ("--smoke", "--", "python", "x.py")):
        done = lanes("lane", "admit", "bat00", *words)
        assert done.code == Exit.JOB_FAILED
        assert "bat00 climbs already, since " in done.out
        assert "watch: lab lane admit bat00" in done.out
    assert lanes.events() == events, "nothing was submitted"
    terminal = Terminal(lanes, "lane", "admit", "bat00", "--role", "eval")
    terminal.see("watching that climb")
    with answering(lanes.home, admit=ADMITTED) as controller:
        assert terminal.end() == 0
    assert [a.data["jobs"] for a in controller.asked] == [first["jobs"]], "the one climb that there was"
    assert "bat00 is admitted for eval, train" in terminal.shown
    assert lanes.ok("lane", "admit", "bat00", "--no-wait", "--json").json["jobs"] != first["jobs"], "that one is over"


def test_ctrl_c_stops_watching_only(lanes: Shell) -> None:
    terminal = Terminal(lanes, "lane", "probe", "bat00")
    terminal.see("Ctrl-C stops watching only")
    terminal.type(b"\x03")
    assert terminal.end() == Exit.INTERRUPTED
    assert "the climb goes on" in terminal.shown
    with Journal.open(lanes.home) as journal:
        assert len(query.open_asks(journal.conn)) == 1


def test_a_step_of_a_ladder_cannot_be_had_by_hand(lanes: Shell) -> None:
    (lanes.cwd / "jobs.yaml").write_text("- kind: smoke\n  needs: {lane: bat00, admission: true}\n")
    done = lanes("submit", "--file", "jobs.yaml")
    assert done.code == Exit.BAD_INPUT
    assert "lab lane admit" in done.err
    job = lanes.ok("lane", "admit", "bat00", "--no-wait", "--json").json["jobs"]["smoke"]
    done = lanes("rerun", str(job))
    assert done.code == Exit.BAD_INPUT
    assert "lab lane admit bat00" in done.err


def test_down_gives_a_lane_up_with_its_reason(lanes: Shell) -> None:
    said = {"ok": True, "message": "lane bat00 is down: 2 attempts there go back to the queue", "hint": "later"}
    with answering(lanes.home, down=said) as controller:
        done = lanes.ok("lane", "down", "bat00", "--reason", "sold", "--json").json
    assert done["schema"] == "lab.lane-down/1"
    assert controller.asked[0].data["reason"] == "sold"
    assert "2 attempts" in done["message"]


def test_nobody_answers_is_an_error_with_a_limit(lanes: Shell) -> None:
    done = lanes("lane", "down", "bat00", "--timeout", "1s")
    assert done.code == Exit.UNAVAILABLE
    assert "has not answered within 1 s" in done.err


def test_jobs_of_a_ladder_are_few_and_small(lanes: Shell) -> None:
    config = cluster.load(file(lanes)).lane("bat00")
    roles = list(cluster.ROLES)
    made = ladder.requests(lanes.home, config, roles, nonce="n", versions={"torch": "2.13", "tensorflow": None})
    assert list(made) == ["smoke", "train", "cells", "parity", "outlives"]
    assert all(r.force and r.admission for r in made.values())
    assert made["parity"].params["backends"] == ["torch"]
    grid = made["cells"].grid
    assert grid is not None
    from dataclasses import replace

    gpu = ladder.requests(
        lanes.home, replace(config, gpus=2), ["eval"], nonce="n", versions={"torch": "2", "numba": "1"}
    )
    assert gpu["smoke"].needs["gpus"] == 1
    assert gpu["parity"].params["devices"] == ["cpu", "cuda"]
    blind = ladder.requests(lanes.home, replace(config, gpus=2), ["eval"], nonce="n", versions={"numba": "1"})
    assert blind["parity"].params["devices"] == ["cpu"]


# Looking.


def climbed(home: Home) -> None:
    old = {"compared": [{"name": "gpus", "declared": 1, "probed": 0, "ok": False}]}
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.append(K.LANE, lane="bat00", data={"state": "declared", "reason": ""})
        tx.append(K.RUNG, lane="bat00", data=rung(Rung.SMOKE, False, "it died", role="train", hint="mend it"))
        tx.append(K.RUNG, lane="bat00", data=rung(Rung.REACHABLE, message="it answers"))
        tx.append(K.RUNG, lane="bat00", data=rung(Rung.DEVICE, message="8 cores", evidence=old))
        tx.append(K.ADMITTED, lane="bat00", data={"role": "eval", "ok": True})


def test_lanes_says_what_each_is_admitted_for(lanes: Shell) -> None:
    assert "nothing" in lanes.ok("lanes").out.splitlines()[2]
    climbed(lanes.home)
    row = lanes.ok("lanes").out.splitlines()[2]
    assert "bat00" in row
    assert "eval" in row
    assert "it died" in row
    told = lanes.ok("lanes", "--json").json["lanes"][1]
    assert told["admitted"] == ["eval"]
    assert [r["rung"] for r in told["ladder"]] == ["reachable", "device", "smoke"]
    assert told["link"]["up"] is None, "no controller runs: nobody knows"
    assert lanes.ok("lanes", "--json").json["lanes"][0]["admitted"] == list(cluster.ROLES)


def test_lanes_v_shows_the_ladder_with_its_ages(lanes: Shell) -> None:
    climbed(lanes.home)
    out = lanes.ok("lanes", "-v").out
    assert "GPUs     declared 1, probed 0" in out
    assert "it answers  (" in out
    assert "ago)" in out
    lines = [line.strip() for line in out.splitlines()]
    places = [next(i for i, x in enumerate(lines) if word in x) for word in ("it answers", "8 cores  (", "it died  (")]
    assert places == sorted(places), "lowest rung first"
    assert "mend it" in out


def test_looking_loads_nothing_heavy(lanes: Shell) -> None:
    climbed(lanes.home)
    for args in (["lanes"], ["lanes", "-v"], ["status"], ["lane", "drain", "bat00", "--reason", "hot"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", MODULES, *args], cwd=lanes.cwd, env=lanes.env, capture_output=True, text=True
        )
        code, *modules = json.loads(done.stdout.splitlines()[-1])
        assert code == 0, done.stderr
        assert not set(HEAVY) - {"yaml"} & set(modules), args


def test_doctor_runs_tools_and_says_how_they_answer(lanes: Shell, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()

    def tool(name: str, text: str) -> None:
        (bin_ / name).write_text("#!/bin/sh\n" + text)
        (bin_ / name).chmod(0o755)

    tool("git", "echo 'git version 9.9'\n")
    tool("ssh", "[ \"$1\" = -V ] && { echo OpenSSH_99 >&2; exit 0; }; echo 'Bad configuration option' >&2; exit 255\n")
    tool("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    done = lanes("doctor", "--json", PATH=f"{bin_}:/usr/bin:/bin")
    told = {c["name"]: c for c in done.json["checks"]}
    assert told["git"]["said"] == "git version 9.9"
    assert told["ssh"]["verdict"] == "fail"
    assert "Bad configuration option" in told["ssh"]["said"]
    assert told["gpu"]["verdict"] == "fail"
    assert "Driver/library version mismatch" in told["gpu"]["said"]
    assert told["lane bat00"]["verdict"] == "ok"
    assert done.code == Exit.JOB_FAILED
    tool("nvidia-smi", "echo 'NVIDIA H200, 570.86, 143771 MiB'\n")
    tool("ssh", "echo OpenSSH_99 >&2\n")
    told = {c["name"]: c for c in lanes("doctor", "--json", PATH=f"{bin_}:/usr/bin:/bin").json["checks"]}
    assert told["gpu"]["verdict"] == told["ssh"]["verdict"] == "ok"
    assert told["gpu"]["said"].startswith("NVIDIA H200")


def test_doctor_names_a_lane_that_refuses_without_waiting_for_it(lanes: Shell) -> None:
    from core.live import LiveWriter

    climbed(lanes.home)
    with answering(lanes.home):
        live = LiveWriter(lanes.home)
        refused = {"rung": "trusted", "message": "the host key is not known", "hint": "lab lane trust bat00"}
        live.link("bat00", {"up": False, "age_s": 61.0, "error": "", "refused": refused, "tries": 3})
        live.close()
        told = {c["name"]: c for c in lanes("doctor", "--json").json["checks"]}["lane bat00"]
        row = lanes.ok("lanes", "--json").json["lanes"][1]["link"]
    assert (told["verdict"], told["hint"]) == ("fail", "lab lane trust bat00")
    with answering(lanes.home):
        live = LiveWriter(lanes.home)
        link = {"up": False, "age_s": 61.0, "error": "silent until 18:20 for its admission", "refused": None}
        live.link("bat00", {**link, "on_purpose": True, "silent_until": time.time() + 60})
        silent = {c["name"]: c for c in lanes("doctor", "--json").json["checks"]}["lane bat00"]
        live.link("bat00", link)
        away = {c["name"]: c for c in lanes("doctor", "--json").json["checks"]}["lane bat00"]
        live.close()
    assert silent["verdict"] == "ok"
    assert silent["said"].startswith("silent until 18:20 for its admission")
    assert away["verdict"] == "warn"
    assert row["up"] is False
    assert row["error"] == "the host key is not known"


def wait(condition: Any) -> None:
    from tests.support import wait_for

    wait_for(condition, "the stand-in to be asked", deadline_s=30)


def test_climb_documents_hold_plain_json(lanes: Shell) -> None:
    with answering(lanes.home, probe=PROBED):
        done = lanes.ok("lane", "probe", "bat00", "--json")
    assert json.loads(done.out)["lane"] == "bat00"
    assert lanes.ok("lanes", "-q").out == "local\nbat00\n"


def test_a_lane_connects_until_the_first_try_has_failed(lanes: Shell) -> None:
    with answering(lanes.home):
        pass

    def lane(reason: str) -> None:
        with Journal.open(lanes.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
            tx.append(K.LANE, lane="bat00", data={"state": "unreachable", "reason": reason})

    lane("it has not answered yet")
    assert "unreachable" in lanes.ok("lanes").out  # of a controller that is down nothing is under way
    lock = os.open(lanes.home.controller_lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = lanes.ok("lanes").out
        assert "connecting" in shown
        assert "not answered yet" not in shown
        lane("no route to host")
        shown = lanes.ok("lanes").out
        assert "unreachable" in shown
        assert "no route to host" in shown
    finally:
        os.close(lock)


def test_a_lane_that_is_declared_no_longer_is_not_this_machine(lanes: Shell) -> None:
    with Journal.open(lanes.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.append(K.LANE, lane="mini", data={"state": "down", "reason": "no longer in cluster.yaml", "info": {}})
        info = {"declared": {"transport": "ssh", "host": "old"}}
        tx.append(K.LANE, lane="molt", data={"state": "down", "reason": "no longer in cluster.yaml", "info": info})
    told = {x["name"]: x["transport"] for x in lanes.ok("lanes", "--json").json["lanes"]}
    assert told == {"local": "local", "bat00": "ssh", "mini": None, "molt": "ssh"}


def test_a_lane_that_is_down_is_not_resumed_but_admitted(lanes: Shell) -> None:
    with Journal.open(lanes.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.append(K.LANE, lane="bat00", data={"state": "down", "reason": "sold"})
    assert "is down; `lab lane admit bat00` brings it back" in lanes.ok("lane", "resume", "bat00").out


def test_draining_needs_a_reason(lanes: Shell) -> None:
    done = lanes("lane", "drain", "bat00")
    assert done.code == Exit.BAD_INPUT
    assert "draining lane bat00 needs a reason" in done.err


def test_provisioning_says_at_once_what_it_packs_and_at_the_end_what_is_kept(lanes: Shell) -> None:
    wheels = lanes.home.path / "wheels"
    told = lanes.home.lane_root("bat00") / "provision.json"
    said = {"ok": True, "message": "lane bat00 would get 2 packages", "data": {"packages": 2, "there": False}}
    process = None
    with answering(lanes.home, provision=said) as controller:
        with controller.paused():
            told.parent.mkdir(parents=True)
            told.write_text(json.dumps({"step": "packing numpy", "done": 1, "of": 2}))
            process = lanes.start("lane", "provision", "bat00", "--plan")
            assert process.stderr is not None
            assert (
                process.stderr.readline() == f"packing what is missing of 2 wheels, once; they are kept in {wheels}\n"
            )
            wheels.mkdir()
            (wheels / "numpy.whl").write_bytes(b"x" * 2048)
        out, _err = process.communicate(timeout=30)
        assert "Nothing was done on the lane." in out
        assert f"2.0 KiB of wheels were packed and are kept in {wheels}" in out
        assert "are kept" not in lanes.ok("lane", "provision", "bat00", "--plan").out  # nothing more was packed
