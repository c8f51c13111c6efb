"""The test lab itself: its lanes are machines of their own, hide the head, and can be hurt as machines are."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from core.home import Home
from tests.lab_net import (
    ENDLESS,
    NOISY_BASHRC,
    WSL,
    Fault,
    LabNet,
    LabNetError,
    Lane,
    Proxy,
    other_minor,
    require,
    require_freezer,
    require_quota,
)
from tests.lanes.support import REPO
from tests.netlab import cgroups, stale
from tests.support import wait_for

pytestmark = pytest.mark.root
WAIT_S = 20.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabNet]:
    """One lab for all: making a lane takes a tenth of a second, and each test makes those that it needs."""
    require()
    with LabNet() as made:
        yield made


@pytest.fixture(scope="module")
def mini(lab: LabNet) -> Lane:
    """A lane that tests leave as they found it."""
    return lab.add("mini")


class Echo:
    """`cat` at the far end of an ssh connection: what is said comes back while the connection lives."""

    def __init__(self, lab: LabNet, lane: Lane) -> None:
        argv = lab.ssh_argv(lane, "-o", "ServerAliveInterval=0")
        self.process = subprocess.Popen(
            [*argv, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self.say(b"begin\n") == b"begin\n"

    def say(self, words: bytes, wait_s: float = WAIT_S) -> bytes:
        """Send, and what comes back within `wait_s`: b"" for nothing (yet, or ever)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if words:
            self.process.stdin.write(words)
        ready = select.select([self.process.stdout], [], [], wait_s)[0]
        return os.read(self.process.stdout.fileno(), 4096) if ready else b""

    def end(self) -> int:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return self.process.wait(WAIT_S)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.end()


def out(lab: LabNet, lane: Lane, command: str) -> str:
    done = lab.ssh(lane, command)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


def established(lane: Lane) -> tuple[int, int]:
    """Connections to the lane's sshd as the head sees them, and as the lane does."""
    query = ["ss", "-Htn", "state", "established"]
    here = subprocess.run([*query, "dst", lane.address], capture_output=True, text=True).stdout
    there = lane.run(*query, "sport", "=", ":22").stdout
    return len(here.splitlines()), len(there.splitlines())


# What a lane is.


def test_lanes_are_machines_of_their_own(lab: LabNet, mini: Lane) -> None:
    molt = lab.add("molt")
    asked = f"hostname; cat {BOOT_ID}; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; ip -br -4 addr show eth0"
    seen = [out(lab, lane, asked).splitlines() for lane in (mini, molt)]
    assert [words[0] for words in seen] == ["mini", "molt"]
    ids = {words[1] for words in seen} | {Path(BOOT_ID).read_text().strip()}
    assert len(ids) == 3
    assert {mini.boot_id, molt.boot_id} < ids
    for words, lane in zip(seen, (mini, molt), strict=True):
        assert int(words[3]) < 12, "a lane sees its own processes only"
        assert f"{lane.address}/24" in words[4]
    # Each has sshd and host key of its own, and reaches the other and the head.
    assert mini.fingerprint != molt.fingerprint
    reach = "exec 3<>/dev/tcp/{}/22 && head -c 4 <&3"
    assert out(lab, mini, f"bash -c '{reach.format(molt.address)}'") == "SSH-"
    with socket.create_server((lab.head, 0)) as server:
        out(lab, molt, f"bash -c 'exec 3<>/dev/tcp/{lab.head}/{server.getsockname()[1]}'")
        assert server.accept()[1][0] == molt.address
    # Nothing else is reachable: there is no way out.
    assert "default" not in out(lab, molt, "ip route")


def test_a_lane_cannot_read_the_head(lab: LabNet, mini: Lane, lab_home: Home, tmp_path: Path) -> None:
    lab_home.create()
    lab_home.create_runtime()
    secret = tmp_path / "secret"
    places = {
        lab_home.path / "journal.witness": lab_home.path,
        lab_home.runtime / "token": lab_home.runtime,
        secret: tmp_path,
        Path.home() / ".labnet-secret": None,
    }
    try:
        for file in places:
            file.write_text("of the head")
        asked = "; ".join(f"cat {file}; ls {file.parent}" for file in [*places, REPO / "pyproject.toml"])
        done = lab.ssh(mini, asked)
        assert "of the head" not in done.stdout
        assert "pyproject.toml" not in done.stdout
        assert done.stderr.count("No such file") >= len(places) + 1
        # The twin: a lane that is shown the home reads it, and nothing but it; and never writes it.
        peeper = lab.add("peeper", sees=(lab_home.path,))
        done = lab.ssh(peeper, f"{asked}; echo mine > {lab_home.path}/journal.witness")
        assert done.stdout.count("of the head") == 1
        assert "Read-only" in done.stderr
        peeper.kill_init()
    finally:
        for file in places:
            file.unlink(missing_ok=True)


def test_interpreters(lab: LabNet, mini: Lane) -> None:
    asked = 'python3 -c "import sys, lab; print(lab.__file__, sys.prefix)"'
    assert "No module named 'lab'" in lab.ssh(mini, asked).stderr
    whole = lab.add("whole", python="venv")
    assert out(lab, whole, asked) == f"{REPO / 'lab/__init__.py'} {sys.prefix}"
    assert lab.ssh(whole, f"ls {REPO}/tests {REPO}/.git").returncode != 0
    none = lab.add("none", python=None)
    done = lab.ssh(none, "python3 -V || ls /usr/bin/python3* || which python")
    assert (done.returncode, done.stdout) == (1, "")
    assert "python3: command not found" in done.stderr
    for lane in (whole, none):
        lane.kill_init()


def test_another_minor_version(lab: LabNet) -> None:
    other = other_minor()
    if other is None:
        pytest.skip("no other Python from 3.9 on is on this machine")
    lane = lab.add("other", python=other)
    assert lane.python == other
    version = out(lab, lane, f"{other} -c 'import json, sys; print(*sys.version_info[:2])'").split()
    assert version[0] == "3"
    assert int(version[1]) != sys.version_info.minor
    lane.kill_init()


def test_cluster_yaml_names_every_lane(lab: LabNet, mini: Lane) -> None:
    text = lab.cluster_yaml(mini={"roles": ["eval"], "identity": None})
    lanes = yaml.safe_load(text)["lanes"]
    assert lanes["local"] == {"transport": "local"}
    assert lanes["mini"]["host"] == mini.address
    assert lanes["mini"]["roles"] == ["eval"]
    assert "identity" not in lanes["mini"]
    assert yaml.safe_load(lab.cluster_yaml(by_name=True))["lanes"]["mini"]["host"] == "mini"
    shown = subprocess.run(["ssh", "-G", "-F", str(lab.ssh_config), "mini"], capture_output=True, text=True).stdout
    assert f"hostname {mini.address}\n" in shown


# The link.


def test_a_cut_loses_packets_and_no_connection(lab: LabNet, mini: Lane) -> None:
    with Echo(lab, mini) as echo:
        mini.cut()
        assert echo.say(b"lost?\n", wait_s=0.5) == b""
        assert echo.process.poll() is None
        assert established(mini) == (1, 1), "half-open: both ends believe in it"
        with pytest.raises(OSError, match="timed out"):
            socket.create_connection((mini.address, 22), timeout=0.3)
        mini.mend()
        assert echo.say(b"") == b"lost?\n", "TCP sends it again, and nothing is lost or doubled"
        assert echo.say(b"after\n") == b"after\n"


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_cut_of_one_way(lab: LabNet, mini: Lane, way: str) -> None:
    with Echo(lab, mini) as echo:
        mini.cut(way)
        assert echo.say(b"lost?\n", wait_s=0.3) == b""
        unacknowledged = subprocess.run(
            ["ss", "-Htn", "dst", mini.address], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        assert int(unacknowledged) > 0
        mini.mend()
        assert echo.say(b"") == b"lost?\n"


def test_a_reset_is_an_error_at_once(lab: LabNet, mini: Lane) -> None:
    with socket.create_connection((mini.address, 22), timeout=WAIT_S) as raw, Echo(lab, mini) as echo:
        assert raw.recv(4) == b"SSH-"
        assert mini.reset() == 2
        with pytest.raises(ConnectionResetError):
            while raw.recv(4096):
                pass
        assert echo.process.wait(WAIT_S) == 255
    assert mini.reset() == 0
    assert out(lab, mini, "echo back") == "back"


def test_a_session_that_ends_properly(lab: LabNet, mini: Lane) -> None:
    with socket.create_connection((mini.address, 22), timeout=WAIT_S) as raw:
        assert raw.recv(4) == b"SSH-"
        wait_for(mini.sessions, "a session", deadline_s=WAIT_S)
        assert mini.end_sessions() >= 1
        while raw.recv(4096):
            pass  # an end, and no error


def test_stalled_sshd_says_nothing(lab: LabNet, mini: Lane) -> None:
    with Echo(lab, mini) as echo:
        mini.stall()
        assert echo.say(b"lost?\n", wait_s=0.3) == b""
        with socket.create_connection((mini.address, 22), timeout=WAIT_S) as raw:
            raw.settimeout(0.3)
            with pytest.raises(TimeoutError):
                raw.recv(4)  # accepted by the kernel, and no banner
            assert established(mini)[0] == 2
            mini.unstall()
            raw.settimeout(WAIT_S)
            assert raw.recv(4) == b"SSH-"
        assert echo.say(b"") == b"lost?\n"


def test_refused(lab: LabNet, mini: Lane) -> None:
    with Echo(lab, mini) as echo:
        mini.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((mini.address, 22), timeout=WAIT_S)
        assert echo.say(b"open ones stay\n") == b"open ones stay\n"
        mini.refuse(False)
    assert out(lab, mini, "echo back") == "back"


# The machine.


def test_reboot(lab: LabNet) -> None:
    lane = lab.add("phoenix")
    out(lab, lane, "echo kept | tee /root/disk > /var/disk; echo lost > /tmp/memory; setsid sleep 600 >&- 2>&- &")
    before, old = lane.boot_id, set(lane.pids())
    assert any("sleep" in text for text in lane.pids().values())
    with Echo(lab, lane) as echo:
        lane.kill_init()
        # As after a power cut: nobody is told. Once it is up, who asks is told that there is no such connection.
        assert echo.say(b"?\n", wait_s=0.3) == b""
        assert echo.process.poll() is None
        lane.boot()
        assert echo.process.wait(WAIT_S) == 255
    assert not any(Path(f"/proc/{pid}").exists() for pid in old)
    assert out(lab, lane, f"cat {BOOT_ID} /root/disk /var/disk").split() == [lane.boot_id, "kept", "kept"]
    assert lane.boot_id != before
    assert lab.ssh(lane, "cat /tmp/memory").returncode != 0
    assert not any("sleep" in text for text in lane.pids().values())
    lane.kill_init()
    with pytest.raises(TimeoutError):
        socket.create_connection((lane.address, 22), timeout=0.3)


def test_an_init_that_dies_takes_all_with_it(lab: LabNet) -> None:
    lane = lab.add("mortal")
    out(lab, lane, "setsid sleep 600 >&- 2>&- &")
    old = set(lane.pids())
    assert len(old) >= 3
    os.kill(lane.pid, signal.SIGKILL)
    wait_for(lambda: not any(os.path.exists(f"/proc/{p}/exe") for p in old), "all to be gone", deadline_s=WAIT_S)
    lane.boot()
    assert out(lab, lane, "hostname") == "mortal"
    lane.kill_init()


def test_asleep(lab: LabNet) -> None:
    require_freezer()
    lane = lab.add("laptop")
    out(lab, lane, "(while :; do echo >> /root/ticks; sleep 0.01; done) >&- 2>&- &")

    def ticks() -> int:
        return (lane.home / "ticks").stat().st_size

    wait_for(lambda: (lane.home / "ticks").exists() and ticks() > 3, "ticks", deadline_s=WAIT_S)
    lane.freeze()
    held = ticks()
    with pytest.raises(TimeoutError):
        socket.create_connection((lane.address, 22), timeout=0.3)
    assert ticks() == held
    lane.thaw()
    wait_for(lambda: ticks() > held, "ticks after the sleep", deadline_s=WAIT_S)
    assert out(lab, lane, "echo awake") == "awake"
    lane.freeze()
    lane.reboot()  # the battery ran out
    assert out(lab, lane, "echo awake") == "awake"
    lane.kill_init()


def test_lanes_are_unequal(lab: LabNet) -> None:
    """None gets more processor time than its quota, whatever else this machine does; the last had another first."""
    require_quota()
    quotas = (0.24, 0.06, 0.06)
    lanes = [lab.add(f"speed{n}", quota=cores) for n, cores in enumerate((0.24, 0.06, 0.24))]
    lanes[2].set_quota(0.06)
    for lane in lanes:
        out(lab, lane, "(while :; do :; done) >&- 2>&- &")

    def spent() -> list[int]:
        found = []
        for lane in lanes:
            pids = [p for p, text in lane.pids().items() if "while :" in text]
            found.append(sum(sum(map(int, _stat(p)[11:13])) for p in pids))
        return found

    begun, start = time.monotonic(), spent()

    def enough() -> list[int] | None:
        got = [now - then for now, then in zip(spent(), start, strict=True)]
        return got if min(got) >= 10 else None  # ticks of 10 ms

    got = wait_for(enough, "processor time", deadline_s=60)
    assert got is not None
    seconds = time.monotonic() - begun
    for lane in lanes:
        lane.kill_init()
    for ticks, quota in zip(got, quotas, strict=True):
        # A quota is of each 100 ms; one more may have begun. Without a quota a lane gets half a core and more.
        assert ticks <= 100 * quota * (seconds + 0.2) * 1.2 + 2, (got, seconds)
    assert got[0] > got[1], got


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_small_disk_gets_full(lab: LabNet, mini: Lane) -> None:
    lane = lab.add("small", disk=1 << 20, bashrc="echo from the disk\n")
    fill = "head -c 2000000 /dev/zero > /root/fill"
    done = lab.ssh(lane, fill)
    assert "No space left" in done.stderr
    assert done.stdout == "from the disk\n"
    assert (lane.home / "fill").stat().st_size <= 1 << 20
    with pytest.raises(OSError, match="No space left"):
        (lane.home / "more").write_bytes(b"x" * 8192)
    lane.reboot()
    assert out(lab, lane, "ls /root").splitlines()[1:] == ["fill", "more"], "the disk outlives a reboot"
    assert out(lab, mini, f"{fill}; rm /root/fill; echo fits") == "fits"
    lane.kill_init()


def test_who_forgets_ends_what_was_left_behind(lab: LabNet, mini: Lane) -> None:
    forgetful = lab.add("forgetful", forgets=True)
    left = "setsid sleep 601 >&- 2>&- & echo left"
    with Echo(lab, forgetful):
        assert out(lab, forgetful, left) == "left"
        assert any("sleep 601" in text for text in forgetful.pids().values()), "one session is still open"
    out(lab, mini, left)
    wait_for(lambda: not any("sleep 601" in t for t in forgetful.pids().values()), "it to forget", deadline_s=WAIT_S)
    remembered = [pid for pid, text in mini.pids().items() if "sleep 601" in text]
    assert remembered
    for pid in remembered:
        os.kill(pid, signal.SIGKILL)
    assert out(lab, forgetful, "echo still there") == "still there"
    forgetful.kill_init()


def test_a_clock_that_jumps(lab: LabNet, mini: Lane) -> None:
    lane = lab.add("clock", clock=True)
    program = "import sys, time\nfor line in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    argv = [*lab.ssh_argv(lane), f"python3 -c '{program}'"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as running:
        assert running.stdin is not None
        assert running.stdout is not None

        def now() -> tuple[float, float]:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write("\n")
            wall, mono = running.stdout.readline().split()
            return float(wall), float(mono)

        wall, mono = now()
        assert abs(wall - time.time()) < 60
        lane.clock_jump(3600)
        later, after = now()
        assert 3590 < later - wall < 3660
        assert 0 <= after - mono < 60
        assert abs(int(out(lab, lane, "date +%s")) - later) < 60, "programs started later too"
        lane.clock_jump(-3600)
        assert now()[0] < wall
        running.stdin.close()
    assert abs(int(out(lab, mini, "date +%s")) - time.time()) < 60
    with pytest.raises(LabNetError, match="clock=True"):
        mini.clock_jump(1)
    lane.kill_init()


# What logins do.


def test_noise_and_prefix(lab: LabNet, mini: Lane) -> None:
    noisy = lab.add("bat00", bashrc=NOISY_BASHRC, programs={"wsl": WSL})
    done = lab.ssh(noisy, "wsl -e hostname", text=False)
    assert done.stdout.endswith(b"\n\0bat00\n")
    assert b"Welcome to Ubuntu" in done.stdout
    assert b"w\0s\0l\0" in done.stdout
    assert b"ttyname failed" in done.stderr
    assert lab.ssh(noisy, "wsl hostname").returncode == 2
    assert out(lab, mini, "hostname") == "mini"
    noisy.program("endless", ENDLESS)
    with subprocess.Popen([*lab.ssh_argv(noisy), "endless"], stdout=subprocess.PIPE) as ssh:
        assert ssh.stdout is not None
        assert b"noise without end\nnoise without end\n" in ssh.stdout.read(1 << 18)
        ssh.kill()
    noisy.kill_init()


def test_options_of_sshd(lab: LabNet) -> None:
    import paramiko

    lane = lab.add("strict", sshd={"MaxSessions": 1}, password="right")

    def connect(**how: object) -> paramiko.Transport:
        transport = paramiko.Transport((lane.address, 22))
        transport.connect(username="root", **how)
        return transport

    transport = connect(pkey=paramiko.Ed25519Key.from_private_key_file(str(lab.identity)))
    try:
        transport.open_session(timeout=WAIT_S)
        with pytest.raises(paramiko.ChannelException):
            transport.open_session(timeout=WAIT_S)
    finally:
        transport.close()
    connect(password="right").close()
    with pytest.raises(paramiko.AuthenticationException):
        connect(password="wrong")
    assert "Failed password" in lane.log()
    lane.configure(MaxSessions=2, ForceCommand="echo forced")
    assert out(lab, lane, "hostname") == "forced"
    was = lane.fingerprint
    lane.new_host_key()
    assert lane.fingerprint != was
    done = lab.ssh(lane, "hostname")
    assert done.returncode == 255
    assert "IDENTIFICATION HAS CHANGED" in done.stderr
    lane.kill_init()


def test_lanes_without_our_key(lab: LabNet) -> None:
    lane = lab.add("keyless", keys=False)
    done = lab.ssh(lane, "hostname")
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
    lane.kill_init()


# The proxy.


def test_a_proxy_corrupts_cuts_and_delays(lab: LabNet, mini: Lane) -> None:
    size = 300_000
    send = f"head -c {size} /dev/zero"
    with Proxy((mini.address, 22)) as proxy:

        def through() -> subprocess.CompletedProcess[bytes]:
            where = ("-p", str(proxy.port), "-o", f"HostName={proxy.address}")
            done: subprocess.CompletedProcess[bytes] = lab.ssh(mini, send, options=where, text=False)
            return done

        assert (len(through().stdout), proxy.connections) == (size, 1)
        for kind, words in (("flip", b"authentication code incorrect"), ("eof", b"closed"), ("reset", b"")):
            proxy.add(Fault(kind, after=100_000))
            done = through()
            assert done.returncode == 255, kind
            assert words in done.stderr, (kind, done.stderr)
            assert len(done.stdout) < size
        assert len(through().stdout) == size, "each fault came once"
        proxy.banner_delay_s = 0.3
        with socket.create_connection((proxy.address, proxy.port)) as raw:
            raw.settimeout(0.1)
            with pytest.raises(TimeoutError):
                raw.recv(4)
            raw.settimeout(WAIT_S)
            assert raw.recv(4) == b"SSH-"
            proxy.drop()
            with pytest.raises(ConnectionResetError):
                while raw.recv(4096):
                    pass


# The end.


CRASH = """
import sys, time
from tests.lab_net import LabNet
lab = LabNet()
lane = lab.add("mini")
lane.run("sh", "-c", "sleep 600 >&- 2>&- &")
if "freeze" in sys.argv:
    lane.freeze()
print(lab.net.bridge, lane.pid, lab._keeper.pid, lab.folder, flush=True)
time.sleep(600)
"""


def crashed(*args: str, keeper_too: bool = False) -> tuple[Path, Path, list[int]]:
    """A lab whose process was killed: its bridge, its folder and the processes of its lane."""
    process = subprocess.Popen([sys.executable, "-c", CRASH, *args], stdout=subprocess.PIPE, text=True, cwd=REPO)
    assert process.stdout is not None
    bridge, init, keeper, folder = process.stdout.readline().split()
    space = os.readlink(f"/proc/{init}/ns/pid")
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _space(p) == space]
    place = Path("/sys/class/net") / bridge
    assert len(pids) >= 3
    assert place.exists()
    if keeper_too:
        os.kill(int(keeper), signal.SIGKILL)
    process.kill()
    process.wait()
    process.stdout.close()
    return place, Path(folder), pids


def _space(entry: Path) -> str:
    try:
        return os.readlink(entry / "ns/pid")
    except OSError:
        return ""


def _gone(pids: list[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


def test_everything_ends_with_a_killed_test(lab: LabNet) -> None:
    bridge, folder, pids = crashed()
    wait_for(lambda: _gone(pids) and not bridge.exists() and not folder.exists(), "the end", deadline_s=WAIT_S)
    # Another lab, ours, lives on.
    assert Path("/sys/class/net", lab.net.bridge).exists()


def test_the_next_lab_removes_what_a_dead_one_left(lab: LabNet, mini: Lane) -> None:
    freezer = not lab.about()["no_freezer"]
    bridge, folder, pids = crashed(*(["freeze"] if freezer else []), keeper_too=True)
    assert bridge.exists(), "nobody was left to remove it"
    stale.sweep()
    assert not bridge.exists()
    assert not folder.exists()
    wait_for(lambda: _gone(pids), "the frozen lane to die", deadline_s=WAIT_S)
    assert out(lab, mini, "echo ours lives") == "ours lives"


def test_two_labs_at_once(lab: LabNet, mini: Lane) -> None:
    with LabNet() as other:
        twin = other.add("mini")
        assert twin.address != mini.address
        assert out(other, twin, f"cat {BOOT_ID}") == twin.boot_id
        assert other.folder.exists()
    assert not other.folder.exists()
    assert not Path("/sys/class/net", other.net.bridge).exists()
    assert out(lab, mini, f"cat {BOOT_ID}") == mini.boot_id


def test_a_lane_that_cannot_come_up_says_why(lab: LabNet) -> None:
    with pytest.raises(LabNetError, match="Bad configuration option"):
        lab.add("broken", sshd={"NoSuchOption": 1})
    assert lab.lanes["broken"].pids() == {}
    del lab.lanes["broken"]


def test_groups_of_the_second_kind(tmp_path: Path) -> None:
    """Sleep by cgroup v2 where it is mounted, whatever the lab itself uses."""
    require_freezer()
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    if not mounts:
        pytest.skip("no cgroup2 is mounted")
    (tmp_path / "mounts").write_text(mounts[0] + "\n")
    groups = cgroups.Cgroups(stale.tag(), str(tmp_path / "mounts"))
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        try:
            groups.add("lane", sleeper.pid, None)
            assert groups.pids("lane") == [sleeper.pid]
            groups.freeze("lane")
            groups.freeze("lane", False)
            if groups.cpu is None:
                with pytest.raises(OSError, match="no processor quotas here"):
                    groups.set_quota("lane", 0.5)
        finally:
            groups.remove()
        assert sleeper.wait(WAIT_S) == -signal.SIGKILL
    assert groups.freezer is not None
    assert not groups.freezer.exists()
