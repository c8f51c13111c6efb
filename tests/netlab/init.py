"""What runs as process 1 of a lane: it builds the lane's own root, starts sshd, and reaps. Standard library only.

The root is made of what a lane may see, not of everything but what it may not: a file of the head that nobody listed
cannot be read, wherever it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import time
from typing import Any

from tests.netlab import kernel

# Of the machine, read-only: programs and libraries, nothing of anybody's.
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SETTINGS = ("etc/alternatives", "etc/ld.so.conf.d", "etc/ssl", "etc/terminfo")
_OPT = "/opt/lane"
_TURN_S = 0.1
_SSHD_S = 10.0


def run(lane: dict[str, Any], boot: dict[str, str], told: int, tells: int) -> None:
    """Become the lane's process 1; never returns.

    Args:
        lane: its settings (see tests/netlab/lane.py: settings).
        boot: `boot_id` of this boot.
        told, tells: pipes from and to the keeper. It says "g" once we are in our control groups and once our network
            is there; we say "n" when the network is wanted, then "ok" or what went wrong.
    """
    try:
        kernel.die_with_parent()
        _expect(told)
        kernel.unshare(kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWNET)
        os.write(tells, b"n")
        _expect(told)
        socket.sethostname(lane["hostname"])
        _network(lane)
        _root(lane, boot)
        os.environ.clear()
        os.environ.update(PATH=f"{_OPT}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        sshd = _sshd(lane)
        _listening(sshd)
        os.write(tells, b"ok")
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(tells, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(1)
    os.close(tells)
    _reap(lane, sshd)


def _expect(told: int) -> None:
    if os.read(told, 1) != b"g":
        os._exit(1)


def _network(lane: dict[str, Any]) -> None:
    device = "eth0"
    lines = [
        "link set lo up",
        f"link set {device} up",
        f"addr add {lane['address']}/24 dev {device}",
        # The head's hardware address is told, not asked for: a cut loses packets, and no answer is ever missed.
        f"neigh replace {lane['gateway']} lladdr {lane['gateway_mac']} dev {device} nud permanent",
    ]
    with contextlib.suppress(OSError), open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as f:
        f.write("1")
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"the lane's network: {done.stderr.strip()}")


def _root(lane: dict[str, Any], boot: dict[str, str]) -> None:
    folder, root = lane["folder"], f"{lane['folder']}/root"
    kernel.private_mounts()
    kernel.mount("tmpfs", root, "mode=755,size=64m")
    for name in _SYSTEM:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            kernel.bind(f"/{name}", f"{root}/{name}", read_only=True)
    for name in ("home", "mnt", "media", "srv", "opt", "dev", "proc", "sys", "run", "tmp"):
        os.mkdir(f"{root}/{name}")
    for path in lane["hidden"]:
        if os.path.isdir(root + path):
            kernel.mount("tmpfs", root + path, "mode=755,size=1m")
    kernel.mount("tmpfs", f"{root}/tmp", "mode=1777")
    kernel.mount("tmpfs", f"{root}/run", "mode=755,size=64m")
    os.mkdir(f"{root}/run/sshd", 0o755)
    for name in ("etc", "var"):
        kernel.bind(f"{folder}/{name}", f"{root}/{name}")
    kernel.bind(f"{folder}/home", f"{root}/root")
    for name in _SETTINGS:
        if os.path.isdir(f"/{name}"):
            kernel.bind(f"/{name}", f"{root}/{name}", read_only=True)
    if os.path.isdir(f"{root}/etc/ssl/private"):
        kernel.mount("tmpfs", f"{root}/etc/ssl/private", "mode=700,size=1m")
    kernel.bind(f"{folder}/opt", root + _OPT, read_only=True)
    if not lane["python"]:
        _without_python(root)
    for path in lane["sees"]:
        kernel.bind(path, root + path, read_only=True)
    _devices(f"{root}/dev")
    kernel.mount("proc", f"{root}/proc")
    kernel.mount("sysfs", f"{root}/sys")
    kernel.bind(f"{root}/sys", f"{root}/sys", read_only=True)
    if os.path.isdir("/sys/fs/cgroup"):
        kernel.bind("/sys/fs/cgroup", f"{root}/sys/fs/cgroup", read_only=True)
    # Settings of the machine are not the lane's; and of this boot, it has its own name for it.
    kernel.bind(f"{root}/proc/sys", f"{root}/proc/sys", read_only=True)
    with open(f"{root}/run/boot_id", "w") as f:
        f.write(boot["boot_id"] + "\n")
    kernel.bind(f"{root}/run/boot_id", f"{root}/proc/sys/kernel/random/boot_id", read_only=True)
    kernel.change_root(root)


def _devices(dev: str) -> None:
    kernel.mount("tmpfs", dev, "mode=755,size=1m")
    for name in _DEVICES:
        kernel.bind(f"/dev/{name}", f"{dev}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    kernel.mount("devpts", f"{dev}/pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    kernel.mount("tmpfs", f"{dev}/shm", "mode=1777")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    os.symlink("/proc/self/fd", f"{dev}/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{dev}/{name}")


def _without_python(root: str) -> None:
    """Show /usr/bin without any Python in it."""
    for place in ("usr/bin", "usr/local/bin"):
        names = [n for n in os.listdir(f"{root}/{place}") if n.startswith("python")]
        if not names:
            continue
        scratch = f"{root}/run/hide-{place.replace('/', '-')}"
        for part in ("upper", "work"):
            os.makedirs(f"{scratch}/{part}")
        for name in names:  # a device 0:0 in the upper layer says: there is no such file
            os.mknod(f"{scratch}/upper/{name}", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        kernel.overlay(f"{root}/{place}", f"{scratch}/upper", f"{scratch}/work", f"{root}/{place}")


def _sshd(lane: dict[str, Any]) -> int:
    argv = [lane["sshd"], "-D", "-f", "/etc/ssh/sshd_config", "-E", "/var/log/sshd.log"]
    return os.posix_spawn(argv[0], argv, dict(os.environ), setsigmask=[])


def _listening(sshd: int) -> None:
    end = time.monotonic() + _SSHD_S
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.connect(("127.0.0.1", 22))
            return
        if os.waitpid(sshd, os.WNOHANG)[0] or time.monotonic() > end:
            with open("/var/log/sshd.log", errors="replace") as f:
                raise OSError(f"sshd does not listen: {f.read().strip()[-1000:]}")
        time.sleep(0.005)


def _reap(lane: dict[str, Any], sshd: int) -> None:
    """Collect the dead, start a dead sshd again, and, on lanes that forget, end all when the last session closes."""
    had_session = False
    while True:
        signal.sigtimedwait([signal.SIGCHLD], _TURN_S)
        gone = -1
        while gone:
            try:
                gone, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if gone == sshd:
                sshd = 0
        # As a service manager does; a test that wants none says so by this file.
        if not sshd and not os.path.exists("/var/no-sshd"):
            sshd = _sshd(lane)
        if lane["forgets"]:
            has_session = bool(_sessions())
            if had_session and not has_session:
                _end_all_but(sshd)
            had_session = has_session


def _sessions() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as f:
                title = f.read()
                if title.startswith((b"sshd: ", b"sshd-session: ")) and b"[listener]" not in title:
                    found.append(int(name))
    return found


def _end_all_but(sshd: int) -> None:
    """What logind does without lingering, and what WSL does to a machine that nobody is logged in to."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, sshd):
            with contextlib.suppress(OSError):
                os.kill(int(name), signal.SIGKILL)
