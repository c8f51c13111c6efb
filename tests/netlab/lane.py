"""One lane of the test lab: what it is, and the means to hurt it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.netlab import setup

Ask = Callable[..., dict[str, Any]]
_WAIT_S = 20.0


class LabNetError(Exception):
    """The test lab itself could not do what was asked."""


@dataclass(frozen=True)
class Options:
    """How a lane is made.

    Attributes:
        quota: cores that it gets (0.25 is a quarter of one); None: all.
        python: see tests/netlab/pythons.py: "base" (default: an interpreter and nothing else), "venv", "system", a
            path, or None (no Python at all).
        sees: paths of the head that are shown to it read-only, at the same place.
        disk: bytes of a disk of its own for its home folder (a tmpfs that outlives reboots); None: a plain folder.
        bashrc: text of ~/.bashrc; NOISY_BASHRC of tests.lab_net is a bad one.
        sshd: options of sshd_config, such as {"MaxSessions": 1, "ForceCommand": "/opt/lane/bin/x"}.
        password: of root, and then passwords are accepted.
        keys: accept the lab's key.
        programs: name -> text of scripts in /opt/lane/bin, which comes first on PATH.
        forgets: end every process when the last ssh session closes, as WSL does and logind without lingering.
        clock: its wall clock can be moved (`clock_jump`).
    """

    quota: float | None = None
    python: str | None = "base"
    sees: tuple[Path, ...] = ()
    disk: int | None = None
    bashrc: str = ""
    sshd: dict[str, Any] = field(default_factory=dict)
    password: str | None = None
    keys: bool = True
    programs: dict[str, str] = field(default_factory=dict)
    forgets: bool = False
    clock: bool = False


class Lane:
    """A machine of its own, as far as ssh can tell. Made by `LabNet.add`.

    Attributes:
        name, address, port, hostname: where it is.
        python: path of its interpreter there, or None.
        boot_id: of the present boot.
        pid: its process 1, as this machine counts; 0 when it is down.
        folder: what is its disk, here: `home` (its /root), `etc`, `var`.
    """

    port = 22

    def __init__(self, name: str, number: int, net: setup.Net, folder: Path, options: Options, ask: Ask) -> None:
        self.name = self.hostname = name
        self.options = options
        self.folder = folder
        self.address = net.address(number)
        self.boot_id = ""
        self.pid = 0
        self._ask = ask
        self._ports = (f"{net.prefix}l{number}b{n}" for n in range(1, 1000))
        settings = setup.make(name, number, net, folder, options)
        self.python: str | None = settings["python"]
        self._ask("add", lane=settings)

    # Its life.

    def boot(self) -> None:
        """Start it, with a new boot id and the disk that it had. Returns when its sshd listens."""
        self.boot_id = str(uuid.uuid4())
        self.pid = self._ask("boot", name=self.name, boot_id=self.boot_id, port=next(self._ports))["pid"]

    def kill_init(self) -> None:
        """A power cut: everything in it dies, and nobody on the network hears of it. It stays down until `boot`."""
        self._ask("halt", name=self.name)
        self.pid = 0

    def reboot(self) -> None:
        """A power cut, and the machine comes up again: new boot id, same disk, empty /tmp."""
        self.kill_init()
        self.boot()

    def freeze(self) -> None:
        """Asleep, as a laptop with its lid closed: nothing runs and nothing answers."""
        self.cut()
        self._ask("freeze", name=self.name, asleep=True)

    def thaw(self) -> None:
        self._ask("freeze", name=self.name, asleep=False)
        self.mend()

    def set_quota(self, cores: float | None) -> None:
        self._ask("quota", name=self.name, cores=cores)

    # Its link.

    def cut(self, way: str = "both") -> None:
        """Lose every packet. No socket notices: connections stay established, half-open until mended.

        Args:
            way: "both"; or between the head and this lane only, "to" the lane, or "from" it.
        """
        self._ask("link", name=self.name, way=way, up=False)

    def mend(self) -> None:
        self._ask("link", name=self.name, way="both", up=True)

    def reset(self) -> int:
        """Reset every ssh connection to it (the head's sockets get a RST). Returns how many there were."""
        chosen = ["state", "established", "sport", "=", f":{self.port}"]
        before = self._enter(["net"], "ss", "-Htn", *chosen).stdout.splitlines()
        self._enter(["net"], "ss", "-KHtn", *chosen)
        if before and self._enter(["net"], "ss", "-Htn", *chosen).stdout.splitlines() == before:
            raise LabNetError("this kernel resets no connections (ss -K; CONFIG_INET_DIAG_DESTROY)")
        return len(before)

    def stall(self) -> None:
        """Stop every sshd process: connections stay open and are acknowledged, nothing comes, no new banner either."""
        for pid in self._sshd_pids():
            os.kill(pid, signal.SIGSTOP)

    def unstall(self) -> None:
        for pid in self._sshd_pids():
            os.kill(pid, signal.SIGCONT)

    def end_sessions(self) -> int:
        """Kill the sshd process of every session (the connection ends properly). Returns how many."""
        found = self.sessions()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return len(found)

    def refuse(self, refused: bool = True) -> None:
        """Connections are refused: no sshd listens. Those that are open stay."""
        marker = self.folder / "var" / "no-sshd"
        if refused:
            marker.touch()
            self._kill_listener()
        else:
            marker.unlink(missing_ok=True)
        self._wait(lambda: self.listens() is not refused, f"sshd of {self.name} to change")

    # Its looks.

    def configure(self, **sshd: Any) -> None:
        """Change options of sshd for the sessions to come."""
        self.options.sshd.update(sshd)
        setup.write_sshd_config(self.folder, self.options)
        self._restart_sshd()

    def new_host_key(self) -> None:
        """Give it another host key, as a machine that was set up anew, or as somebody in the middle."""
        setup.make_host_key(self.folder)
        self._restart_sshd()

    def program(self, name: str, text: str) -> None:
        """Put a script on its PATH (in /opt/lane/bin)."""
        setup.write_program(self.folder, name, text)

    def clock_jump(self, seconds: float) -> None:
        """Move the wall clock of all its programs, the running ones too (made with `clock=True`)."""
        if not self.options.clock:
            raise LabNetError(f"lane {self.name} was made without clock=True")
        setup.set_clock(self.folder, seconds)

    # Looking at it from outside.

    @property
    def home(self) -> Path:
        """Its /root, as a folder here."""
        return Path(f"/proc/{self.pid}/root/root") if self.options.disk else self.folder / "home"

    @property
    def fingerprint(self) -> str:
        """Of its host key, as ssh shows it: SHA256:..."""
        return setup.fingerprint(self.folder)

    def log(self) -> str:
        """What its sshd said."""
        return (self.folder / "var/log/sshd.log").read_text(errors="replace")

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in it without ssh."""
        return self._enter(["net", "mount", "pid", "uts", "ipc"], *argv, check=check)

    def pids(self) -> dict[int, str]:
        """Its living processes, by the numbers of this machine, with their command lines."""
        if not self.pid:
            return {}
        mine, found = os.readlink(f"/proc/{self.pid}/ns/pid"), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if os.readlink(entry / "ns/pid") == mine:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
        return found

    def sessions(self) -> list[int]:
        """Its sshd processes that serve a connection."""
        return [p for p, text in self.pids().items() if _SSHD.match(text) and "[listener]" not in text]

    def listens(self) -> bool:
        done = self._enter(["net"], "ss", "-Hltn", "sport", "=", f":{self.port}")
        return bool(done.stdout.strip())

    def _sshd_pids(self) -> list[int]:
        return [p for p, text in self.pids().items() if _SSHD.match(text)]

    def _kill_listener(self) -> list[int]:
        found = [p for p, text in self.pids().items() if _SSHD.match(text) and "[listener]" in text]
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return found

    def _restart_sshd(self) -> None:
        old = self._kill_listener()
        self._wait(lambda: not set(old) & set(self.pids()) and self.listens(), f"sshd of {self.name} to come back")

    def _enter(self, kinds: list[str], *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        spaces = [f"--{kind}=/proc/{self.pid}/ns/{short}" for kind in kinds for short in [_SHORT[kind]]]
        into = [f"--root=/proc/{self.pid}/root", "--wd=/"] if "mount" in kinds else []
        done = subprocess.run(["nsenter", *spaces, *into, "--", *argv], capture_output=True, text=True)
        if check and done.returncode != 0:
            raise LabNetError(f"lane {self.name}: {' '.join(argv)} ended with {done.returncode}: {done.stderr}")
        return done

    @staticmethod
    def _wait(condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise LabNetError(f"waited {_WAIT_S:g} s in vain: {what}")
            time.sleep(0.01)


_SSHD = re.compile(r"sshd(-session)?: |\S*/sshd ")
_SHORT = {"net": "net", "mount": "mnt", "pid": "pid", "uts": "uts", "ipc": "ipc"}
