"""Our own Ray session: started by the controller, watched by pid, and ended by pid.

Never `ray stop`: it matches every Ray on the machine. When Ray's control service dies, an attached driver is ended
about a minute later and no `except` sees it; so its processes are watched and a dead one ends the controller at once,
which starts afresh. A killed raylet leaves agents of 180 MB behind; everything of ours carries a marker in its
environment, and what the last session left is found by it and killed before the next begins.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.cluster import HeadRay
from core.errors import Unavailable
from core.fsio import no_space, read_json, write_atomic, write_json
from core.home import Home

MARKER = "RAY_LAB_HOME"
TOKEN = "ray.token"
HERE = {"node:__internal_head__": 1e-4}  # an actor that asks for this is never placed on a lane that joined
_CRITICAL = ("gcs_server", "raylet")
_PORT = "RAY_GCS_SERVER_PORT"
# Ray's autoscaler, its log monitor and its dashboard: nothing here asks them, and they are a third of a start.
_UNASKED = ("start_monitor", "start_log_monitor", "start_api_server")


@dataclass(frozen=True)
class Watched:
    """A process of the session, told from a later one with the same pid by its start time."""

    name: str
    pid: int
    started: str


class RaySession:
    """A running Ray head of ours."""

    def __init__(
        self, home: Home, temp: Path, watched: tuple[Watched, ...], listens: tuple[str, int] | None = None
    ) -> None:
        self.home = home
        self.temp = temp
        self.watched = watched
        self.id = secrets.token_hex(8)  # a lane that joined another session of ours must not stay
        self.listens = listens  # address and port at which lanes join; None: nobody is to join
        self._recorded: list[tuple[int, str]] = []

    @property
    def token(self) -> str:
        return (self.home.path / TOKEN).read_text()

    @staticmethod
    def start(home: Home, head: HeadRay | None = None) -> RaySession:
        """Kill what an earlier session left, then start Ray.

        Args:
            head: where lanes are to find it; None: no lane joins, and it listens wherever it likes.

        Raises:
            Unavailable: Ray does not start; the message carries its reason.
        """
        kill_leftovers(home)
        temp = home.runtime / "ray"
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(mode=0o700)
        token = home.path / TOKEN
        if not token.exists() or token.stat().st_size < 32:
            write_atomic(token, secrets.token_hex(32), mode=0o600)
        os.environ.update(
            {
                MARKER: home.hash,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(token),
                # What Ray starts must not be nicer, or likelier to be killed, than what a person starts.
                "RAY_worker_niceness": "0",
                "RAY_worker_oom_score_adjustment": "0",
                "RAY_enable_worker_prestart": "0",
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_DEDUP_LOGS": "0",
                # An attempt's memory is our own business (grants, limits), not a reason to kill the lane actor.
                "RAY_memory_monitor_refresh_ms": "0",
            }
        )
        more: dict[str, Any] = {}
        listens: tuple[str, int] | None = None
        os.environ.pop(_PORT, None)
        if head is not None:
            listens = head.address or _own_address(), head.port
            os.environ[_PORT] = str(head.port)
            more["_node_ip_address"] = listens[0]
        import ray

        try:
            with _bare():
                ray.init(
                    **more,
                    num_cpus=1,
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=80 << 20,
                    _temp_dir=str(temp),
                    namespace="lab",
                    log_to_driver=False,
                    logging_level="error",
                    configure_logging=False,
                )
        except Exception as error:
            hint = "see `lab doctor`"
            if listens is not None:
                hint = f"lanes are to join it at {listens[0]}:{listens[1]}: `ray:` at the top of cluster.yaml; {hint}"
            raise Unavailable(f"Ray does not start: {type(error).__name__}: {error}", hint=hint) from error
        finally:
            os.environ.pop(_PORT, None)  # no Ray that is started from here is to take it
        return RaySession(home, temp, tuple(_session_processes(temp)), listens)

    def record(self) -> None:
        """Write down every process below us, for the one that comes after us. Costs nothing while nothing changes.

        The marker alone would not do: processes that set their own title write over their environment.
        """
        now = sorted((pid, start_time(pid)) for pid in _below(os.getpid()))
        if now != self._recorded:
            try:
                write_json(_record_file(self.home), now, sync=False)
            except OSError as error:
                if not no_space(error):
                    raise
                return  # the next time; most are found by their marker
            self._recorded = now

    def dead(self) -> str | None:
        """The name of a process without which the session is lost, if one has died."""
        for process in self.watched:
            if process.name in _CRITICAL and start_time(process.pid) != process.started:
                return process.name
        return None

    def stop(self) -> None:
        import ray

        self.record()
        with contextlib.suppress(Exception):
            ray.shutdown()
        kill_leftovers(self.home)
        shutil.rmtree(self.temp, ignore_errors=True)


def kill_leftovers(home: Home, *, patience_s: float = 10.0) -> list[int]:
    """Kill every process that an earlier Ray session of this home left. Returns their pids.

    Raises:
        Unavailable: one of them does not die.
    """
    killed: list[int] = []
    deadline = time.monotonic() + patience_s
    while found := sorted({*marked_processes(home), *_recorded_processes(home)}):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += [p for p in found if p not in killed]
        if time.monotonic() > deadline:
            raise Unavailable(f"processes {found} of an earlier Ray session do not die", hint="end them, then `lab up`")
        time.sleep(0.02)
    return killed


def marked_processes(home: Home) -> list[int]:
    """Living processes (not zombies, not this one) that were started with this home's marker."""
    want = f"{MARKER}={home.hash}".encode()
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if want in (entry / "environ").read_bytes().split(b"\0") and start_time(int(entry.name)):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    """What starts within is without what nobody asks. `ray.init` has no option for it, and what `ray start` has for it
    starts a head that outlives us. A Ray that names them otherwise starts them all, and works as well."""
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in _UNASKED if hasattr(Node, name)}
    for name in kept:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def _record_file(home: Home) -> Path:
    return home.path / "ray.json"


def _recorded_processes(home: Home) -> list[int]:
    return [pid for pid, started in read_json(_record_file(home), []) if started and start_time(pid) == started]


def _below(root: int) -> list[int]:
    """All living descendants of `root` that are Ray's.

    A guardian that we started is below us too, and so is, for an instant, an attempt's supervisor: neither may ever
    be taken for a leftover of Ray's.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                argv = (entry / "cmdline").read_bytes()
                if b"lanes.guardian" in argv or b"lanes.agent" in argv:
                    continue
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    out, todo = [], [root]
    while todo:
        found = children.get(todo.pop(), [])
        out += found
        todo += found
    return out


def start_time(pid: int) -> str:
    """The kernel's start time of `pid` in ticks, or "" when it does not live (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _session_processes(temp: Path) -> list[Watched]:
    """Ray's own processes, found by the session folder in their command line (not by Ray's private names)."""
    out: list[Watched] = []
    want = os.fsencode(temp)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            if any(want in a for a in argv[1:]):
                out.append(Watched(Path(os.fsdecode(argv[0])).name, int(entry.name), start_time(int(entry.name))))
    return out


def actor_options(name: str, concurrency: int = 8) -> dict[str, Any]:
    return {"name": name, "num_cpus": 0, "resources": HERE, "max_restarts": 0, "max_concurrency": concurrency}


def _own_address() -> str:
    """Our address on the way out. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # an address that is nobody's
            return str(s.getsockname()[0])
        except OSError:
            return "127.0.0.1"
