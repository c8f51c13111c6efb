"""The ssh transport and machines that drop, stall, print and corrupt: no hang, no silent success, it comes back."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core import cluster
from core.digests import Digests
from core.fsio import sha256_file
from core.home import Home
from lanes.carrier.source import Want
from lanes.carrier.stage import Stage
from lanes.ssh import bootstrap
from lanes.ssh import settings as ssh_settings
from lanes.ssh.hostkeys import store
from lanes.ssh.settings import Pace
from lanes.ssh.transport import SshTransport
from lanes.transport import LinkDown, LinkRefused
from tests.lab_net import (
    ENDLESS,
    GARBLE,
    NOISY_BASHRC,
    WSL,
    Fault,
    LabNet,
    Lane,
    Proxy,
    require,
    require_freezer,
)
from tests.lanes.ssh.servers import public_key
from tests.support import wait_for

pytestmark = pytest.mark.root
# No call may take longer, whatever happens to its link: several times all limits that the transport has here.
BOUND_S = 40.0
QUICK: dict[str, Any] = {
    "keepalive_s": 0.3,
    "beat_s": 0.2,
    "silence_s": 2.0,
    "connect_s": 6.0,
    "patience_s": 10.0,
    "pace": Pace(first_s=0.02, base_s=0.1, most_s=0.5, refused_s=600.0, settled_s=0.0),
}
SIZE = 2_000_000


@pytest.fixture(scope="module")
def lab() -> Iterator[LabNet]:
    require()
    with LabNet() as made:
        yield made


@pytest.fixture(scope="module")
def mini(lab: LabNet) -> Lane:
    return lab.add("mini", programs={"garble": GARBLE})


Connect = Callable[..., SshTransport]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One for all: a lane belongs to one head."""
    return Home(tmp_path_factory.mktemp("head") / "home")


@pytest.fixture
def connect(lab: LabNet, home: Home, tmp_path: Path) -> Iterator[Connect]:
    """connect(lane, [proxy=], [of the lane in cluster.yaml ...], [quick={of SshSettings}]), as the controller does."""
    made: list[SshTransport] = []

    def connect(lane: Lane, *, proxy: Proxy | None = None, quick: dict[str, Any] | None = None, **say: Any) -> Any:
        if proxy is not None:
            say |= {"host": proxy.address, "port": proxy.port}
        file = tmp_path / "cluster.yaml"
        lanes: dict[str, Any] = {lane.name: say}
        file.write_text(lab.cluster_yaml(**lanes))
        name = f"[{proxy.address}]:{proxy.port}" if proxy is not None else lane.address
        store(home.known_hosts, public_key(lane.folder / "etc/ssh/ssh_host_ed25519_key.pub", name), replace=True)
        told = ssh_settings.of(home, cluster.load(file).lane(lane.name))
        made.append(SshTransport(dataclasses.replace(told, **{**QUICK, **(quick or {})})))
        return made[-1]

    yield connect
    for transport in made:
        transport.close()


class Flight:
    """A call under way in a thread of its own."""

    def __init__(self, call: Callable[..., Any], *args: Any, **named: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call, args, named), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[..., Any], args: Any, named: Any) -> None:
        try:
            self.value = call(*args, **named)
        except BaseException as error:
            self.error = error

    def land(self) -> Any:
        """What the call gave, or raises what it raised; fails when it gives and raises nothing."""
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive(), f"a call hangs for {BOUND_S:g} s"
        if self.error is not None:
            raise self.error
        return self.value


def bounded(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return Flight(call, *args, **named).land()


def back(transport: SshTransport) -> None:
    """Wait until the link is up by itself: nobody calls, nobody knocks."""
    end = time.monotonic() + BOUND_S
    while not (transport.link()["up"] and answers(transport)):
        assert time.monotonic() < end, f"the link does not come back by itself: {transport.link()}"
        time.sleep(0.02)


def answers(transport: SshTransport) -> bool:
    try:
        return bool(bounded(transport.call, "hello"))
    except LinkDown:
        return False


def serving(lane: Lane) -> list[int]:
    """Far ends that run on a lane, each by its first process."""
    return [pid for pid, text in lane.pids().items() if "a2b_base64" in text and "bash" not in text]


# Links that go.


def hurts(lane: Lane) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    return {
        "cut": (lane.cut, lane.mend),
        "cut-to": (lambda: lane.cut("to"), lane.mend),
        "cut-from": (lambda: lane.cut("from"), lane.mend),
        "stalled": (lane.stall, lane.unstall),
        "asleep": (lane.freeze, lane.thaw),
        "off": (lane.kill_init, lane.boot),
    }


@pytest.mark.parametrize("how", ["cut", "cut-to", "cut-from", "stalled", "asleep", "off"])
def test_a_link_that_goes_silent_is_down_and_comes_back(how: str, mini: Lane, connect: Connect) -> None:
    if how == "asleep":
        require_freezer()
    hurt, mend = hurts(mini)[how]
    transport = connect(mini)
    boot = bounded(transport.call, "hello")["boot_id"]
    assert boot == mini.boot_id
    epoch = transport.peer["epoch"]
    waiting = Flight(transport.call, "poll", {}, 600.0)
    hurt()
    try:
        # A call that was under way, one that is made now, and one when it is known to be down.
        for call in (waiting, Flight(transport.call, "disk"), Flight(transport.call, "disk")):
            with pytest.raises(LinkDown):
                call.land()
        state = transport.link()
        assert not state["up"]
        assert state["refused"] is None
        assert state["error"]
        wait_for(lambda: transport.link()["age_s"] > state["age_s"] + 0.2, "the age to grow", deadline_s=BOUND_S)
        with pytest.raises(LinkDown):
            bounded(transport.call, "disk")
    finally:
        mend()
    back(transport)
    assert transport.peer["epoch"] > epoch
    assert (bounded(transport.call, "hello")["boot_id"] == boot) == (how != "off")
    # The far end of the old, half-open connection is gone: two would both believe that they serve this lane.
    wait_for(lambda: len(serving(mini)) == 1, "one far end", deadline_s=BOUND_S)


def test_a_reset_is_noticed_at_once_and_mended(mini: Lane, connect: Connect) -> None:
    # Not by silence: its limit is out of reach.
    transport = connect(mini, quick={"silence_s": 900.0})
    bounded(transport.call, "hello")
    waiting = Flight(transport.call, "poll", {}, 600.0)
    for _ in range(3):
        wait_for(lambda: transport.link()["up"], "the link", deadline_s=BOUND_S)
        assert mini.reset() >= 1
        with pytest.raises(LinkDown):
            waiting.land()
        back(transport)
        waiting = Flight(transport.call, "poll", {}, 600.0)


def test_a_session_that_is_killed_and_a_port_that_is_closed(mini: Lane, connect: Connect) -> None:
    transport = connect(mini, quick={"silence_s": 900.0})
    bounded(transport.call, "hello")
    waiting = Flight(transport.call, "poll", {}, 600.0)
    mini.refuse()
    try:
        assert mini.end_sessions() >= 1
        with pytest.raises(LinkDown):
            waiting.land()
        wait_for(lambda: "refused" in transport.link()["error"].lower(), "the reason", deadline_s=BOUND_S)
        with pytest.raises(LinkDown):
            bounded(transport.call, "disk")
    finally:
        mini.refuse(False)
    back(transport)


LATE = """#!/bin/sh
if rm /root/late 2>&-; then until [ -e /root/go ]; do sleep 0.02; done; echo $$ > /root/gone; fi
exec "$@"
"""


def test_a_far_end_that_was_given_up_and_starts_late(mini: Lane, connect: Connect) -> None:
    """As on a laptop that falls asleep while it is being connected to: the old start must not put out the new one."""
    mini.program("late", LATE)
    (mini.home / "late").touch()
    transport = connect(mini, prefix=["late"], quick={"connect_s": 2.0})
    with pytest.raises(LinkDown):
        bounded(transport.call, "hello")
    back(transport)
    (mini.home / "go").touch()
    gone = mini.home / "gone"
    pid = wait_for(lambda: gone.read_text().strip() if gone.exists() else "", "the late start", deadline_s=BOUND_S)
    there = ("test", "-d", f"/proc/{pid}")
    wait_for(lambda: mini.run(*there, check=False).returncode, "the late one to end", deadline_s=BOUND_S)
    back(transport)
    for name in ("go", "gone"):
        (mini.home / name).unlink()


def test_a_short_cut_costs_nothing(mini: Lane, connect: Connect) -> None:
    """The twin: what is shorter than the limit is waited out, on the same connection, and answers come once."""
    transport = connect(mini, quick={"silence_s": 60.0})
    path = bounded(transport.call, "put", "short", b"x" * 1000)
    epoch = transport.peer["epoch"]
    for hurt, mend in (hurts(mini)["cut"], hurts(mini)["stalled"]):
        hurt()
        calls = [Flight(transport.call, "read", path, n, 1) for n in range(20)]
        time.sleep(0.3)  # so long nothing passes
        assert all(call.value is None and call.error is None for call in calls)
        mend()
        assert [call.land() for call in calls] == [b"x"] * 20
    assert transport.link()["up"]
    assert transport.peer["epoch"] == epoch


def test_a_file_arrives_whole_over_a_link_that_goes_again_and_again(
    mini: Lane, connect: Connect, tmp_path: Path
) -> None:
    source = tmp_path / "data"
    source.write_bytes(random.Random(5).randbytes(12_000_000))
    want = Want("inputs", sha256_file(source), source, "the input", tree=False)
    with Proxy((mini.address, mini.port)) as proxy, Digests(None) as digests:
        transport = connect(mini, proxy=proxy)
        bounded(transport.call, "hello")
        for kind in ("reset", "eof", "flip", "stall"):
            proxy.add(Fault(kind, way="up", after=2_000_000))
        stage = Stage(transport, digests, lambda text: None)
        end = time.monotonic() + 4 * BOUND_S
        while True:
            try:
                (where,) = bounded(stage.send, [want], lambda *told: None, threading.Event()).values()
                break
            except LinkDown:
                assert time.monotonic() < end
                back(transport)
        assert proxy.pending() == 0
        assert proxy.connections >= 5
        # Resumed, not begun again: well under two whole transfers went up.
        assert proxy.passed["up"] < 2 * 12_000_000
    assert mini.run("sha256sum", where).stdout.split()[0] == want.digest


# What passes.


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind", ["eof", "reset", "flip", "stall"])
def test_the_connection_breaks_in_the_middle_of_a_transfer(kind: str, way: str, mini: Lane, connect: Connect) -> None:
    data = os.urandom(SIZE)
    with Proxy((mini.address, mini.port)) as proxy:
        transport = connect(mini, proxy=proxy)
        path = bounded(transport.call, "put", "there", data)
        fault = Fault(kind, way=way, after=SIZE // 3)
        proxy.add(fault)
        broken = ("put", "new", data) if way == "up" else ("read", path, 0, SIZE)
        with pytest.raises(LinkDown):
            bounded(transport.call, *broken)
        assert proxy.pending() == 0
        back(transport)
        path = bounded(transport.call, "put", "new", data)
        assert bounded(transport.call, "read", path, 0, SIZE) == data


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind", ["flip", "lose", "double", "say", "eof"])
def test_something_below_the_channel_garbles_what_passes(kind: str, way: str, mini: Lane, connect: Connect) -> None:
    """Not on the wire, where ssh itself would see it: between sshd and our far end, as a prefix may."""
    data = os.urandom(SIZE)
    transport = connect(mini, prefix=["garble"])
    path = bounded(transport.call, "put", "there", data)
    (mini.home / "garble").write_text(f"{way} {kind} {SIZE // 3}")
    transport.drop()
    broken = ("put", "new", data) if way == "up" else ("read", path, 0, SIZE)
    with pytest.raises(LinkDown):
        bounded(transport.call, *broken)
    assert not (mini.home / "garble").exists()
    back(transport)
    path = bounded(transport.call, "put", "new", data)
    assert bounded(transport.call, "read", path, 0, SIZE) == data


@pytest.mark.parametrize("seed", range(12))
def test_first_contact_is_garbled(seed: int, mini: Lane, connect: Connect) -> None:
    """Anywhere in the start of the far end, or in the code that is sent: it fails by name, or nothing was harmed."""
    dice = random.Random(seed)
    way = ("up", "down")[seed % 2]
    kind = dice.choice(["flip", "lose", "double", "say", "eof", "hang"])
    after = dice.randrange(300_000 if seed % 4 else 12_000) if way == "up" else dice.randrange(500)
    (mini.home / "garble").write_text(f"{way} {kind} {after}")
    root = f"/root/first-{seed}"
    transport = connect(mini, prefix=["garble"], root=root)
    try:
        bounded(transport.call, "hello")
    except (LinkDown, LinkRefused) as error:
        assert str(error)
        transport.knock()
    # The fault may also come when the link is up.
    wait_for(lambda: answers(transport), "the lane to answer", deadline_s=BOUND_S)
    assert not (mini.home / "garble").exists()
    assert transport.peer["root"] == root
    digest, listed, code = bootstrap.code()
    agent = mini.home / f"first-{seed}" / "agent" / digest[:16]
    assert b"".join((agent / name).read_bytes() for name, _ in listed) == code
    mini.run("rm", "-rf", root)


# Logins that are hard to talk to.


def test_everything_that_a_bad_login_does_at_once(lab: LabNet, connect: Connect) -> None:
    """Noise of .bashrc, a prefix that prints, one session only, and a banner that takes its time."""
    lane = lab.add("bat00", bashrc=NOISY_BASHRC, programs={"wsl": WSL}, sshd={"MaxSessions": 1})
    try:
        with Proxy((lane.address, lane.port), banner_delay_s=1.5) as proxy:
            transport = connect(lane, proxy=proxy, prefix=["wsl", "-e"])
            assert bounded(transport.call, "hello")["boot_id"] == lane.boot_id
            assert transport.peer["noise"] > 8000
            data = os.urandom(SIZE)
            uploads = [Flight(transport.call, "put", f"file{n}", data, bulk=True) for n in range(3)]
            assert bounded(transport.call, "disk")["free"] > 0
            for upload in uploads:
                assert bounded(transport.call, "read", upload.land(), 0, SIZE) == data
            assert proxy.connections == 1, "one connection with one session was enough"
            assert len(lane.sessions()) == 1
    finally:
        lane.kill_init()


def test_a_banner_that_never_comes(mini: Lane, connect: Connect) -> None:
    with Proxy((mini.address, mini.port), banner_delay_s=600.0) as proxy:
        transport = connect(mini, proxy=proxy, quick={"connect_s": 3.0})
        with pytest.raises(LinkDown):
            bounded(transport.call, "hello")
        proxy.banner_delay_s = 0.0
        back(transport)


def test_no_session_at_all_and_noise_without_end(lab: LabNet, connect: Connect) -> None:
    lane = lab.add("hard", sshd={"MaxSessions": 0}, programs={"endless": ENDLESS})
    try:
        transport = connect(lane)
        with pytest.raises((LinkDown, LinkRefused)):
            bounded(transport.call, "hello")
        lane.configure(MaxSessions=1)
        back(transport)
        with pytest.raises(LinkRefused) as caught:
            bounded(connect(lane, prefix=["endless"]).call, "hello")
        assert caught.value.cause == "noise"
        assert "noise without end" in caught.value.message
    finally:
        lane.kill_init()
