"""The process that owns the lanes of one lab, so that they end when the test process does. Standard library only.

It takes one request a line on standard input and gives one answer a line on standard output. When the test process is
gone, however it ended, it takes everything down: lanes, bridge, control groups, folder. If it is itself killed, the
kernel kills the lanes (each is told to die with its parent), and the next lab on this machine removes the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from tests.netlab import init, kernel
from tests.netlab.cgroups import Cgroups

_BOOT_S = 30.0
_NOBODY = "02:6c:61:62:ff:ff"


class Keeper:
    """Boots lanes and halts them.

    Args:
        lab: {"owner": pid of the test process, "bridge": name, "tag": of the control groups, "folder": to remove at
            the end or None}
    """

    def __init__(self, lab: dict[str, Any]) -> None:
        self.lab = lab
        self.groups = Cgroups(lab["tag"])
        self.lanes: dict[str, dict[str, Any]] = {}
        self.inits: dict[str, int] = {}
        self.ports: dict[str, str] = {}
        self._pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._outer = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # Disks of lanes are mounted here and outlive their boots; they end with us.
        kernel.unshare(kernel.NEWNS)
        kernel.private_mounts()

    def add(self, lane: dict[str, Any]) -> dict[str, Any]:
        self.lanes[lane["name"]] = lane
        if lane["disk"]:
            kernel.mount("tmpfs", f"{lane['folder']}/home", f"mode=700,size={lane['disk']}")
            shutil.copytree(f"{lane['folder']}/skel", f"{lane['folder']}/home", dirs_exist_ok=True)
        return {}

    def boot(self, name: str, boot_id: str, port: str) -> dict[str, Any]:
        """Start the lane's process 1 and connect its network by the device `port`. Returns its pid, as seen here."""
        lane = self.lanes[name]
        self.halt(name)
        told, tell = os.pipe()
        heard, tells = os.pipe()
        sys.stdout.flush()
        kernel.unshare(kernel.NEWPID)
        pid = os.fork()
        if pid == 0:
            os.close(tell)
            os.close(heard)
            self._detach(f"{lane['folder']}/console.log", {told, tells})
            init.run(lane, {"boot_id": boot_id}, told, tells)
            os._exit(1)
        kernel.setns(self._pid_ns, kernel.NEWPID)
        self.inits[name] = pid
        os.close(told)
        os.close(tells)
        try:
            self.groups.add(name, pid, lane["quota"])
            os.write(tell, b"g")
            self._expect(heard, b"n", name)
            self.ports[name] = port
            ip(
                f"link add {port} type veth peer name eth0 netns {pid} address {lane['mac']}",
                f"link set {port} master {self.lab['bridge']} up",
                f"neigh replace {lane['address']} lladdr {lane['mac']} dev {self.lab['bridge']} nud permanent",
            )
            os.write(tell, b"g")
            self._expect(heard, b"ok", name)
        except BaseException:
            self.halt(name)
            raise
        finally:
            os.close(tell)
            os.close(heard)
        return {"pid": pid}

    def halt(self, name: str) -> dict[str, Any]:
        """End the lane as a power cut does: its cable goes first, so that nobody hears of it."""
        if name in self.ports:
            with contextlib.suppress(OSError):
                ip(f"link del {self.ports.pop(name)}")
        pid = self.inits.pop(name, 0)
        if pid:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                self.groups.freeze(name, False)
            os.waitpid(pid, 0)
        return {}

    def quota(self, name: str, cores: float | None) -> dict[str, Any]:
        self.lanes[name]["quota"] = cores
        self.groups.set_quota(name, cores)
        return {}

    def link(self, name: str, way: str, up: bool) -> dict[str, Any]:
        """Lose the packets of one way ("to" the lane, "from" it) or of both, or no longer."""
        lane, bridge = self.lanes[name], self.lab["bridge"]
        if way == "both":
            ip(f"link set {self.ports[name]} {'up' if up else 'down'}")
        if way == "to" or up:  # to a hardware address that nobody has
            ip(f"neigh replace {lane['address']} lladdr {lane['mac'] if up else _NOBODY} dev {bridge} nud permanent")
        if way == "from" or up:
            mac = lane["gateway_mac"] if up else _NOBODY
            with self._inside(name):
                ip(f"neigh replace {lane['gateway']} lladdr {mac} dev eth0 nud permanent")
        return {}

    def freeze(self, name: str, asleep: bool) -> dict[str, Any]:
        self.groups.freeze(name, asleep)
        return {}

    def about(self) -> dict[str, Any]:
        return {"no_cpu": self.groups.no_cpu, "no_freezer": self.groups.no_freezer}

    def serve(self) -> None:
        """Answer until the test process closes our input or is gone; then take everything down."""
        try:
            owner = os.pidfd_open(self.lab["owner"])
            waiting = select.poll()
            for fd in (0, owner):
                waiting.register(fd, select.POLLIN)
            pending = b""
            while True:
                ready = dict(waiting.poll())
                if 0 not in ready:
                    return
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._answer(json.loads(line))
        except (ProcessLookupError, BrokenPipeError):
            return
        finally:
            self.end()

    def end(self) -> None:
        for name in list(self.inits):
            with contextlib.suppress(OSError):
                self.halt(name)
        with contextlib.suppress(OSError):
            ip(f"link del {self.lab['bridge']}")
        self.groups.remove()
        if self.lab["folder"]:
            # Our own mounts (disks of lanes) would stand in the way.
            kernel.setns(self._outer, kernel.NEWNS)
            shutil.rmtree(self.lab["folder"], ignore_errors=True)

    @contextlib.contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        """In the network of a lane."""
        ours = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        theirs = os.open(f"/proc/{self.inits[name]}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(theirs, kernel.NEWNET)
            yield
        finally:
            kernel.setns(ours, kernel.NEWNET)
            os.close(theirs)
            os.close(ours)

    def _answer(self, request: dict[str, Any]) -> None:
        try:
            answer = getattr(self, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": str(error), "trace": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def _expect(self, heard: int, word: bytes, name: str) -> None:
        if not select.select([heard], [], [], _BOOT_S)[0]:
            raise OSError(f"lane {name} does not come up in {_BOOT_S:g} s")
        said = os.read(heard, 4096)
        if said != word:
            raise OSError(f"lane {name} does not come up: {said.decode(errors='replace') or 'its init died'}")

    def _detach(self, log: str, keep: set[int]) -> None:
        """Let go of what is the keeper's: the lane must hold neither our pipes nor each other's."""
        os.setsid()
        console = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for old, new in ((nothing, 0), (console, 1), (console, 2)):
            os.dup2(old, new)
        low = 3
        for fd in sorted(keep):
            os.closerange(low, fd)
            os.set_inheritable(fd, False)
            low = fd + 1
        os.closerange(low, 4096)


def ip(*lines: str) -> None:
    """Run commands of ip(8) in one go. Raises OSError with what it says."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"ip {'; '.join(lines)}: {done.stderr.strip()}")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows is for `serve`
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    Keeper(json.loads(line)).serve()


if __name__ == "__main__":
    main()
