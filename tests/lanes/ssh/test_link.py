"""The link: lost in every way that a link can be lost, noticed, made again; and what is asked meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.fsio import write_atomic
from lanes.agent import procs
from lanes.ssh import bootstrap
from lanes.ssh.connect import connect
from lanes.ssh.settings import Pace, SshSettings
from lanes.transport import CallTimeout, LinkDown, LinkRefused, RemoteError, Unreachable
from tests.lanes.ssh.servers import Lanes, Proxy, Server, Sshd, shipped_store
from tests.lanes.support import Lane, alive
from tests.support import wait_for

# Methods for tests, at the far end.
STORE = """
    import os, threading, time
    class Store:
        def __init__(self, root):
            self.done = []
            self.gate = threading.Event()
        def obey(self, n, wait=0.0):
            time.sleep(wait)
            self.done.append(n)
            return n
        def order(self):
            return list(self.done)
        def wait(self):
            self.gate.wait(60)
            return "waited"
        def open(self):
            self.gate.set()
            return True
        def take(self, data):
            return len(data)
        def echo(self, value):
            return value
        def give(self, size):
            return os.urandom(1) * size
        def mark(self, path):
            open(path, "x").close()
            return True
        def fail(self):
            raise ValueError("no " + "x" * 10000)
        def odd(self):
            return {1, 2}
"""


def eventually(transport: Any, method: str = "hello", *args: Any) -> Any:
    """The answer, once the link is there again."""

    def ask() -> Any:
        try:
            return [transport.call(method, *args, timeout_s=30)]
        except LinkRefused:
            raise
        except LinkDown:
            return None

    return wait_for(ask, f"{method} to be answered", deadline_s=60)[0]


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


@pytest.fixture
def proxy(sshd: Sshd, serve: Callable[[Server], Server]) -> Proxy:
    made = Proxy(sshd.port)
    serve(made)
    return made


# Calls.


def test_calls_of_many_threads_get_their_own_answers(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path))

        def one(n: int) -> bool:
            value = {"n": n, "data": os.urandom(n * 977 % 200_000), "text": "é" * n}
            answer: bool = transport.call("echo", value, timeout_s=60, bulk=n % 3 == 0) == value
            return answer

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(one, range(300)))


def test_orders_are_done_in_order_and_nothing_else_waits_for_them(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path))
        assert transport.call("order", timeout_s=60) == []
        waiting, waited = in_background(lambda: transport.call("wait", timeout_s=60))
        first, _ = in_background(lambda: transport.call("obey", 1, 0.5, timeout_s=60))
        wait_for(lambda: transport._line is not None and len(transport._line._calls) == 2, "both to be sent")
        assert transport.call("obey", 2, timeout_s=60) == 2
        assert transport.call("order", timeout_s=60) == [1, 2]
        assert waiting.is_alive()
        transport.call("open", timeout_s=60)
        waiting.join(30)
        first.join(30)
        assert waited == ["waited"]


def test_too_many_calls_are_told_so(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path))
        transport.call("order", timeout_s=60)
        waits = [in_background(lambda: transport.call("wait", timeout_s=60)) for _ in range(80)]
        wait_for(lambda: sum(bool(found) for _, found in waits) == 80 - 64, "those beyond 64 to be refused")
        refused = [found[0] for _, found in waits if found]
        assert {(type(e).__name__, e.type) for e in refused} == {("RemoteError", "Busy")}
        # Orders have their own way: a cancel is never refused.
        assert transport.call("obey", 1, timeout_s=60) == 1
        waits.pop(next(i for i, (_, found) in enumerate(waits) if not found))
        transport.drop()


def test_errors_of_the_far_end(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path))
        with pytest.raises(RemoteError) as caught:
            transport.call("fail", timeout_s=60)
        assert caught.value.type == "ValueError"
        assert len(caught.value.message) < 5000
        with pytest.raises(RemoteError, match="set"):
            transport.call("odd", timeout_s=60)
        with pytest.raises(RemoteError) as caught:
            transport.call("echo", timeout_s=60)
        assert caught.value.type == "TypeError"
        with pytest.raises(TypeError):
            transport.call("echo", {1, 2}, timeout_s=60)
        assert transport.call("echo", "\udce9", timeout_s=60) == "\udce9"
        assert transport.link()["up"]


def test_a_call_ends_at_its_own_limit_and_the_link_stays(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path))
        transport.call("order", timeout_s=60)
        epoch = transport.peer["epoch"]
        with pytest.raises(CallTimeout, match="wait"):
            transport.call("wait", timeout_s=0.1)
        transport.call("open", timeout_s=60)
        assert transport.call("echo", 1, timeout_s=60) == 1
        assert transport.peer["epoch"] == epoch


# Small before large. The wire is held until all is queued: what is sent first then is the queues' doing alone.


def _behind_it(lane: Lanes, sshd: Sshd, tmp_path: Path, serve: Callable[[Server], Server], *, bulk: bool) -> float:
    """Which part of an upload is sent behind a call that was made after it."""
    proxy = Proxy(sshd.port, room=64 << 10)
    serve(proxy)
    size, count = 2 << 20, 6
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path, port=proxy.port, silence_s=60.0))
        transport.call("order", timeout_s=60)
        line = transport._line
        assert line is not None
        sent: list[bytes] = []
        take = line._outbox.get

        def noted(wait_s: float) -> bytes | None:
            data = take(wait_s)
            sent.extend([] if data is None else [data])
            return data

        line._outbox.get = noted  # type: ignore[method-assign]
        proxy.flowing.clear()
        with ThreadPoolExecutor(count + 1) as pool:

            def queued(calls: int) -> None:
                """`withdraw` is there when a call is in its queue."""
                wait_for(
                    lambda: len(now := list(line._calls.values())) == calls and all(c.withdraw for c in now),
                    f"{calls} calls to be queued",
                )

            try:
                data = bytes(size)
                jobs = [pool.submit(transport.call, "take", data, bulk=True, timeout_s=240) for _ in range(count)]
                queued(count)
                late = pool.submit(transport.call, "obey", 1, timeout_s=240, bulk=bulk)
                queued(count + 1)
            finally:
                proxy.flowing.set()
            assert late.result() == 1
            assert [job.result() for job in jobs] == [size] * count
    (place,) = (i for i, data in enumerate(sent) if b'"obey"' in data)
    return sum(map(len, sent[place + 1 :])) / (size * count)


def test_a_command_overtakes_an_upload(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    assert _behind_it(lane, sshd, tmp_path, serve, bulk=False) > 0.5


def test_what_is_bulk_itself_waits_its_turn(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    """The negative twin: the same call in the other queue comes last, but for signs of life."""
    assert _behind_it(lane, sshd, tmp_path, serve, bulk=True) < 0.01


def test_an_answer_overtakes_a_download(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    """At the lane's end too: small answers go before large ones, whether or not these were asked for as bulk."""
    size, count = 8 << 20, 4  # more than there is room for on the way
    proxy = Proxy(sshd.port, room=64 << 10)
    serve(proxy)
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path, port=proxy.port, silence_s=60.0))
        transport.call("order", timeout_s=60)
        line = transport._line
        assert line is not None
        come: list[Any] = []
        take, passed, go = line._take, [0], threading.Event()

        def noted(message: dict[str, Any]) -> None:
            come.append(message.get("ok"))
            take(message)

        def held(data: bytes) -> bytes:
            passed[0] += len(data)
            if passed[0] > 256 << 10:
                go.wait()
            return data

        line._take = noted  # type: ignore[method-assign]
        proxy.change = held
        with ThreadPoolExecutor(count + 1) as pool:
            try:
                jobs = [pool.submit(transport.call, "give", size, timeout_s=240) for _ in range(count)]
                wait_for(lambda: passed[0] > 256 << 10, "the download to be under way")
                mark = tmp_path / "obeyed"
                late = pool.submit(transport.call, "mark", str(mark), timeout_s=240)
                wait_for(mark.exists, "the command to reach the lane")
                assert not any(job.done() for job in jobs)
            finally:
                go.set()
            assert late.result() is True
            assert [len(job.result()) for job in jobs] == [size] * count
        large = [at for at, answer in enumerate(come) if isinstance(answer, bytes) and len(answer) == size]
        assert len(large) == count
        assert next(at for at, answer in enumerate(come) if answer is True) < large[-1], "it waited for all of them"


# Lost, and made again.


def test_the_link_is_made_again_and_goes_on(sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path, port=proxy.port))
        transport.call("order", timeout_s=60)
        assert transport.link()["up"]
        for _ in range(3):
            epoch = transport.peer["epoch"]
            thread, found = in_background(lambda: transport.call("wait", timeout_s=60))
            wait_for(lambda: transport._line is not None and transport._line._calls, "the call to be under way")
            proxy.cut()
            thread.join(30)
            assert isinstance(found[0], LinkDown), found
            assert "wait was under way" in found[0].message
            # By itself: nobody calls.
            wait_for(lambda epoch=epoch: transport.peer["epoch"] > epoch and transport.link()["up"], "the new link")
            assert transport.call("echo", 5, timeout_s=60) == 5


def test_a_server_that_goes_and_comes(make_sshd: Callable[..., Sshd], lane: Lanes, tmp_path: Path) -> None:
    sshd = make_sshd()
    transport = lane(sshd.settings(tmp_path))
    transport.call("hello", timeout_s=60)
    sshd.stop()
    wait_for(lambda: transport.link()["tries"] > 2 and not transport.link()["up"], "some tries in vain")
    link = transport.link()
    assert "cannot be reached" in link["error"]
    assert link["refused"] is None
    assert link["age_s"] > 0
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="cannot be reached"):
        transport.call("hello", timeout_s=60)
    assert time.monotonic() - begun < 5, "a call does not wait for a link that is known to be down"
    sshd.start()
    assert eventually(transport)


@pytest.mark.parametrize("what", ["stops", "holds-back-answers"])
def test_a_half_open_link_is_noticed(what: str, sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    transport = lane(sshd.settings(tmp_path, port=proxy.port, silence_s=1.0, connect_s=5.0))
    transport.call("hello", timeout_s=60)
    old = transport.peer
    if what == "stops":
        proxy.flowing.clear()
    else:
        proxy.change = lambda data: b"" if data else None
    with pytest.raises(LinkDown, match=r"nothing was heard|under way") as caught:
        transport.call("poll", {}, 60.0, timeout_s=60)
    assert not isinstance(caught.value, Unreachable), "silence may end"
    assert not transport.link()["up"]
    assert transport.link()["age_s"] >= 1.0
    proxy.change = lambda data: data
    proxy.flowing.set()
    eventually(transport)
    assert transport.peer["epoch"] > old["epoch"]
    wait_for(lambda: not alive(old["pid"]), "the older far end to be gone")


def test_a_quiet_link_is_no_dead_link(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """The negative twin: an answer that takes longer than the limit of silence."""
    transport = lane(sshd.settings(tmp_path, silence_s=3.0))
    transport.call("hello", timeout_s=60)
    epoch = transport.peer["epoch"]
    assert transport.call("poll", {}, 5.0, timeout_s=60)["reports"] == []
    assert transport.peer["epoch"] == epoch
    assert transport.link()["up"]


def test_a_far_end_that_stands_still_is_replaced(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    transport = lane(sshd.settings(tmp_path, silence_s=1.0))
    transport.call("hello", timeout_s=60)
    old = transport.peer
    os.kill(old["pid"], signal.SIGSTOP)
    with pytest.raises(LinkDown):
        transport.call("poll", {}, 60.0, timeout_s=60)
    eventually(transport)
    assert transport.peer["epoch"] > old["epoch"]
    assert not alive(old["pid"]), "it cannot go on where it stood"


def test_a_far_end_that_is_killed_is_replaced(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    transport = lane(sshd.settings(tmp_path))
    transport.call("hello", timeout_s=60)
    old = transport.peer
    os.kill(old["pid"], signal.SIGKILL)
    wait_for(lambda: transport.peer["epoch"] > old["epoch"], "another far end")
    assert eventually(transport)


def test_the_far_end_goes_when_the_head_is_silent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SshSettings, "far_silence_s", 1.0)
    settings = sshd.settings(tmp_path)
    deadline = time.monotonic() + 30
    made = connect(settings, deadline, lambda _: None)
    try:
        channel = made.transport.open_session()
        _parser, peer = bootstrap.start(channel, settings, deadline)
        assert alive(peer["pid"])
        wait_for(lambda: not alive(peer["pid"]), "the far end to leave", deadline_s=30)
    finally:
        made.close()


def test_the_far_end_goes_with_the_connection(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    transport = lane(sshd.settings(tmp_path))
    transport.call("hello", timeout_s=60)
    pid = transport.peer["pid"]
    thread, found = in_background(lambda: transport.call("poll", {}, 60.0))
    wait_for(lambda: transport._line is not None and transport._line._calls, "the call to be under way")
    transport.close()
    thread.join(30)
    assert isinstance(found[0], LinkDown)
    wait_for(lambda: not alive(pid), "the far end to leave")
    with pytest.raises(LinkDown, match="closed"):
        transport.call("hello")
    transport.knock()
    assert not transport.link()["up"]


def test_attempts_outlive_the_far_end(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    work = Lane(tmp_path / "work")
    try:
        transport = lane(sshd.settings(tmp_path))
        spec = work.python(7, "import time; time.sleep(600)")
        run = str(work.run_dir(7).path)
        assert transport.call("start", spec, run, timeout_s=60)["ok"]

        def running() -> Any:
            (report,) = eventually(transport, "poll", {}, 0)["reports"]
            return report if report["phase"] == "running" and report["child"] else None

        first = wait_for(running, "the attempt to run")
        os.kill(transport.peer["pid"], signal.SIGKILL)
        wait_for(lambda: transport.peer["epoch"] > 1, "another far end")
        again = wait_for(running, "the attempt to be known again")
        assert (again["pid"], again["child"]) == (first["pid"], first["child"])
        assert eventually(transport, "signal", 7, 1, "kill")["ok"]
        wait_for(lambda: eventually(transport, "poll", {}, 0)["reports"][0]["clear"], "its end")
    finally:
        work.end()


# Damage.


def test_bytes_that_change_on_the_way(sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    """ssh notices: the connection ends, the next one is sound."""
    with shipped_store(STORE):
        transport = lane(sshd.settings(tmp_path, port=proxy.port))
        transport.call("order", timeout_s=60)
        seen = [0]

        def flip(data: bytes) -> bytes:
            seen[0] += len(data)
            if seen[0] > 200_000 and data:
                proxy.change = lambda d: d
                at = len(data) // 2
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            return data

        proxy.change = flip
        with pytest.raises(LinkDown):
            transport.call("give", 1 << 20, timeout_s=60)
        assert seen[0] > 200_000
        data = eventually(transport, "give", 1 << 20)
        assert data == data[:1] * (1 << 20)


MEDDLER = """
import os, subprocess, sys, threading
# Runs its arguments and meddles, once: at byte `at` of what goes `way` it flips a bit, or ends.
flag, way, at, what = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
fresh = not os.path.exists(flag)
open(flag, "w").close()
p = subprocess.Popen(sys.argv[5:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def pump(source, sink, mine):
    seen = 0
    while True:
        data = os.read(source, 4096)
        if not data:
            break
        if mine and fresh and seen <= at < seen + len(data):
            i = at - seen
            if what == "end":
                os.write(sink, data[:i])
                break
            data = data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1:]
        seen += len(data)
        while data:
            data = data[os.write(sink, data):]
    os.close(sink)
threading.Thread(target=pump, args=(0, p.stdin.fileno(), way == "up"), daemon=True).start()
pump(p.stdout.fileno(), 1, way == "down")
os._exit(0)
"""


@pytest.mark.parametrize("what", ["flip", "end"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_bytes_that_change_at_the_lane(way: str, what: str, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Inside a sound ssh stream, in the middle of a frame: the frames' own checksums notice; EOF there is no answer."""
    script, flag = tmp_path / "meddler.py", tmp_path / "meddled"
    script.write_text(MEDDLER)
    with shipped_store(STORE):
        # First without it, so that the code lies there and the byte that is meddled with is one of a later frame.
        quiet = lane(sshd.settings(tmp_path))
        quiet.call("order", timeout_s=60)
        quiet.close()
        prefix = (sys.executable, str(script), str(flag), way, "150000", what)
        transport = lane(sshd.settings(tmp_path, prefix=prefix))
        transport.call("order", timeout_s=60)
        with pytest.raises(LinkDown):
            transport.call("echo", bytes(400_000), timeout_s=60)
        data = os.urandom(400_000)
        assert eventually(transport, "echo", data) == data


@pytest.mark.parametrize("at", [5, 40, 300, 3000])
@pytest.mark.parametrize("way", ["up", "down"])
def test_damage_while_the_far_end_starts(way: str, at: int, sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Whatever is hit, the first try fails with a word, or is not harmed; a later one succeeds."""
    script, flag = tmp_path / "meddler.py", tmp_path / "meddled"
    script.write_text(MEDDLER)
    prefix = (sys.executable, str(script), str(flag), way, str(at), "flip")
    transport = lane(sshd.settings(tmp_path, prefix=prefix, connect_s=3.0, pace=Pace(0.01, 0.02, 0.1, 0.1, 0.0)))

    def ask() -> Any:
        try:
            return transport.call("hello", timeout_s=30)
        except (LinkDown, LinkRefused) as error:
            assert str(error)
            return None

    assert wait_for(ask, "an answer", deadline_s=60)


# Whose lane is it?


def test_another_head_is_kept_out_until_the_owner_is_no_more(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    ours = lane(sshd.settings(tmp_path))
    ours.call("hello", timeout_s=60)
    pid = ours.peer["pid"]
    theirs = sshd.settings(tmp_path, home_hash="ba9876543210", head="you@there:/home/you/.lab")
    other = lane(theirs)
    with pytest.raises(LinkRefused) as caught:
        other.call("hello", timeout_s=60)
    assert (caught.value.rung, caught.value.cause) == ("owned", "foreign-owner")
    assert "me@here:/home/me/.lab" in caught.value.message
    assert "owner.json" in caught.value.hint
    assert ours.call("hello", timeout_s=60)["pid"] == pid, "the owner was not disturbed"

    (Path(theirs.root) / "owner.json").unlink()  # as the hint says
    taker = lane(theirs)
    taker.call("hello", timeout_s=60)
    wait_for(lambda: ours.link()["refused"], "the former owner to notice")
    assert not alive(pid)
    with pytest.raises(LinkRefused) as caught:
        ours.call("hello", timeout_s=60)
    assert caught.value.rung == "owned"
    assert taker.call("hello", timeout_s=60), "the former owner does not answer in kind"


def test_a_newer_connection_of_the_same_head_evicts_the_older(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    older, newer = lane(sshd.settings(tmp_path)), lane(sshd.settings(tmp_path))
    older.call("hello", timeout_s=60)
    newer.call("hello", timeout_s=60)
    assert not alive(older.peer["pid"])
    wait_for(lambda: older.link()["refused"], "the older to be refused")
    assert older.link()["refused"]["cause"] == "evicted"
    assert newer.call("hello", timeout_s=60)["pid"] == newer.peer["pid"]


def test_two_lanes_of_one_head_share_a_root(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """The negative twin: another name is another lane, and nobody is evicted."""
    one, two = lane(sshd.settings(tmp_path)), lane(sshd.settings(tmp_path, lane="bat00"))
    for _ in range(3):
        one.call("hello", timeout_s=60)
        two.call("hello", timeout_s=60)
    assert one.peer["epoch"] == 1
    assert two.peer["epoch"] == 2
    assert alive(one.peer["pid"])
    assert alive(two.peer["pid"])


def test_the_epoch_is_looked_at_before_every_call(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    """Also between two beats: whoever was replaced does nothing more."""
    settings = sshd.settings(tmp_path, beat_s=3600.0, silence_s=600.0)
    with shipped_store(STORE):
        transport = lane(settings)
        assert transport.call("obey", 1, timeout_s=60) == 1
        place = Path(settings.root) / "owner.json"
        owner = json.loads(place.read_text())
        owner["lanes"]["mini"] += 1
        write_atomic(place, json.dumps(owner))
        with pytest.raises(LinkRefused) as caught:
            transport.call("obey", 2, timeout_s=60)
        assert caught.value.cause == "evicted"


# Pace.


def test_a_refusal_is_not_tried_again_until_somebody_knocks(
    sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy
) -> None:
    settings = sshd.settings(tmp_path, port=proxy.port, trusted=False)
    transport = lane(settings)
    for _ in range(5):
        with pytest.raises(LinkRefused):
            transport.call("hello", timeout_s=60)
    assert proxy.accepted == 1
    assert transport._next - time.monotonic() > 250, "minutes, whatever the pace of other tries"
    transport.knock()
    with pytest.raises(LinkRefused):
        transport.call("hello", timeout_s=60)
    assert proxy.accepted == 2
    sshd.trust(settings.known_hosts, proxy.port)
    transport.knock()
    assert transport.call("hello", timeout_s=60)
    assert proxy.accepted == 3


def test_dropped_on_purpose(sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    transport = lane(sshd.settings(tmp_path, port=proxy.port))
    transport.call("hello", timeout_s=60)
    pid = transport.peer["pid"]
    transport.drop(for_s=600)
    wait_for(lambda: not alive(pid), "the far end to be gone")
    assert not transport.link()["up"]
    with pytest.raises(LinkDown, match="on purpose"):
        transport.call("hello", timeout_s=60)
    assert proxy.accepted == 1
    transport.knock()
    assert transport.call("hello", timeout_s=60)
    # Without a time, the next call connects again.
    transport.drop()
    assert transport.call("hello", timeout_s=60)
    assert proxy.accepted == 3


def test_nothing_is_done_before_the_first_call(sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    transport = lane(sshd.settings(tmp_path, port=proxy.port))
    link = transport.link()
    assert (link["up"], link["age_s"], link["refused"], link["tries"]) == (False, None, None, 0)
    assert proxy.accepted == 0


def test_dropped_while_it_connects(sshd: Sshd, lane: Lanes, tmp_path: Path, proxy: Proxy) -> None:
    proxy.flowing.clear()
    transport = lane(sshd.settings(tmp_path, port=proxy.port, connect_s=60.0))
    thread, found = in_background(lambda: transport.call("hello", timeout_s=60))
    wait_for(lambda: proxy.accepted, "the connection to be begun")
    transport.drop(for_s=600)
    thread.join(30)
    assert isinstance(found[0], LinkDown)
    proxy.flowing.set()
    transport.knock()
    assert transport.call("hello", timeout_s=60)


def test_pauses_grow_and_are_bounded(
    sshd: Sshd, lane: Lanes, tmp_path: Path, serve: Callable[[Server], Server]
) -> None:
    server = serve(Server(lambda sock: sock.close()))
    transport = lane(sshd.settings(tmp_path, port=server.port, pace=Pace(0.01, 1.0, 60.0, 300.0, 0.0)))
    pauses = []
    for _ in range(12):
        tries = transport.link()["tries"]
        transport.knock()
        with pytest.raises(LinkDown):
            transport.call("hello", timeout_s=60)
        assert transport.link()["tries"] == tries + 1
        pauses.append(transport._next - time.monotonic())
    assert all(pause <= limit for pause, limit in zip(pauses, [1, 2, 4, 8, 16, 32, *[60] * 6], strict=True))
    assert all(pause > limit / 2 - 1 for pause, limit in zip(pauses, [1, 2, 4, 8, 16, 32, *[60] * 6], strict=True))


def test_nothing_is_left_running(sshd: Sshd, lane: Lanes, tmp_path: Path) -> None:
    before = threading.active_count()
    transport = lane(sshd.settings(tmp_path))
    for _ in range(3):
        transport.call("hello", timeout_s=60)
        transport.drop()
    transport.close()
    wait_for(lambda: threading.active_count() <= before, "our threads to end", deadline_s=30)
    needle = os.fsencode(str(tmp_path))
    mine = [p for p in procs.descendants(os.getpid()) if needle in _cmdline(p)]
    assert mine == []


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
