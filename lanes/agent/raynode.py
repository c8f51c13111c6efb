"""The lane's node in the head's Ray: started, watched, and ended by pid. Only of `joined` lanes.

Never `ray stop`: it matches every Ray on the machine. Everything of ours carries a marker in its environment, and what
writes over its own environment is in a list on disk; a node is told from an earlier one by the head's session. Standard
library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional

from core.fsio import write_atomic, write_json
from lanes.agent import procs, spawn
from lanes.agent.safe import read_dict

START_S = 120.0
REACH_S = 5.0
_VERSIONS = """
import json, platform, sys
from importlib import metadata
def of(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": platform.python_version(), "ray": of("ray"), "executable": sys.executable}))
"""


class RayNode:
    """This lane as a node of the head's Ray.

    Args:
        root: the agent's own folder on this lane.
    """

    def __init__(self, root: Path) -> None:
        self._folder = Path(root) / "ray"
        self._record = self._folder / "node.json"
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:10]
        # Short: sockets are made below it. Ray opens its own folder to everybody, so it lies in one that is closed.
        self._closed = Path(f"/tmp/lab-{os.getuid()}-{name}-ray")
        self._temp = self._closed / "r"
        self._marker = f"lab:{name}:ray"
        self._guard = threading.Lock()
        self._starting: Optional[threading.Thread] = None

    def node_versions(self, python: Optional[str]) -> Dict[str, Any]:
        """{"python", "ray" (None: it is not there), "executable"} of an interpreter, or {"error": a sentence}."""
        argv = [python or sys.executable, "-I", "-c", _VERSIONS]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, check=False
            )
            found: Dict[str, Any] = json.loads(done.stdout)
            return found
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            return {"error": f"the interpreter {argv[0]} does not answer: {error}"}

    def node_reach(self, host: str, port: int) -> Dict[str, Any]:
        """Can this machine reach the head's Ray? {"ok", "error"}."""
        try:
            socket.create_connection((host, port), timeout=REACH_S).close()
        except OSError as error:
            return {"ok": False, "error": error.strerror or str(error)}
        return {"ok": True, "error": ""}

    def node_address(self, host: str, port: int) -> str:
        """Our own address on the way to `host`. Nothing is sent."""
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as s:
            s.connect((host, port))
            return str(s.getsockname()[0])

    def node_begin(self, order: Dict[str, Any]) -> Dict[str, Any]:
        """Start the node, after ending any that was there. Repeat `node_status` until it is up.

        Args:
            order: session (whose node it is to be), python, arguments (of `ray start`, but for its folder), token.
        """
        with self._guard:
            if self._starting is not None and self._starting.is_alive():
                return {"ok": True}
            self._say("starting", order["session"])
            self._starting = threading.Thread(target=self._start, args=(order,), name="ray-start", daemon=True)
            self._starting.start()
        return {"ok": True}

    def node_status(self) -> Dict[str, Any]:
        """{"state": "none" | "starting" | "up" | "failed" | "dead", "session", "error", "temp"}"""
        found = read_dict(self._record)
        state = str(found.get("state") or "none")
        busy = self._starting is not None and self._starting.is_alive()
        if state == "starting" and not busy:
            state = "dead"  # whoever started it is gone
        if state == "up" and not self._lives(found):
            state = "dead"
        error = str(found.get("error") or "")
        return {"state": state, "session": found.get("session"), "error": error, "temp": str(self._temp)}

    def node_end(self) -> Dict[str, Any]:
        """End the node, whoever's it is. {"ok", "left": pids that do not die}"""
        left = self._kill()
        self._say("none", None)
        shutil.rmtree(self._closed, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / "token")
        return {"ok": not left, "left": [p.pid for p in left]}

    def _start(self, order: Dict[str, Any]) -> None:
        try:
            left = self._kill()
            if left:
                raise OSError(f"processes {[p.pid for p in left]} of an earlier node do not die")
            shutil.rmtree(self._closed, ignore_errors=True)
            self._make_temp()
            token = self._folder / "token"
            write_atomic(token, str(order["token"]), mode=0o600, sync=False)
            argv = [order.get("python") or sys.executable, "-P", "-m", "ray.scripts.scripts", "start"]
            argv += [*map(str, order["arguments"]), f"--temp-dir={self._temp}"]
            # A file and no pipe: what it starts may hold on to that for ever.
            with open(self._folder / "start.log", "w+b") as log:
                code = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=str(self._temp),
                    env=self._environment(token),
                    start_new_session=True,
                    timeout=START_S,
                    check=False,
                ).returncode
                log.seek(0)
                text = log.read().decode("utf-8", "replace").strip().splitlines()
            if code:
                raise OSError("; ".join(text[-3:]) or f"`ray start` ended with {code}")
            running = procs.marked(self._marker)
            below = [p for one in running for p in map(procs.identify, procs.descendants(one.pid)) if p is not None]
            self._say("up", order["session"], procs=sorted({*running, *below}), raylet=self._raylets(running))
        except (OSError, subprocess.SubprocessError) as error:
            self._kill()
            self._say("failed", order["session"], error=str(error))

    def _environment(self, token: Path) -> Dict[str, str]:
        env = {name: os.environ[name] for name in spawn.INHERITED if name in os.environ}
        env.setdefault("PATH", spawn.DEFAULT_PATH)
        env.update(
            {
                procs.MARKER: self._marker,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(token),
                "RAY_worker_niceness": "0",
                "RAY_worker_oom_score_adjustment": "0",
                "RAY_enable_worker_prestart": "0",
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_memory_monitor_refresh_ms": "0",
                "PYTHONSAFEPATH": "1",
            }
        )
        return env

    def _make_temp(self) -> None:
        """Ray's folder in one that is 0700 and ours, or nothing is started in it."""
        os.mkdir(self._closed, 0o700)
        info = os.lstat(self._closed)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
            raise OSError(f"{self._closed} is not a folder of ours alone")
        os.mkdir(self._temp)

    def _raylets(self, running: List[procs.Proc]) -> List[procs.Proc]:
        found = []
        for proc in running:
            with contextlib.suppress(OSError), open(f"{procs.PROC}/{proc.pid}/cmdline", "rb") as f:
                if os.path.basename(f.read().split(b"\0")[0]) == b"raylet":
                    found.append(proc)
        return found

    def _lives(self, found: Dict[str, Any]) -> bool:
        if found.get("boot_id") != procs.boot_id():
            return False
        raylets = [procs.Proc(*row) for row in found.get("raylet") or ()]
        return bool(raylets) and all(procs.alive(p) for p in raylets)

    def _kill(self) -> List[procs.Proc]:
        """Everything of the node, by marker, by the list, and what those started. What still lives after a while."""
        found = read_dict(self._record)
        listed: List[procs.Proc] = []
        if found.get("boot_id") == procs.boot_id():
            listed = [procs.Proc(*row) for row in found.get("procs") or ()]
        return procs.kill_strays(self._marker, listed)

    def _say(self, state: str, session: Optional[str], **more: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        said = {"state": state, "session": session, "boot_id": procs.boot_id(), **more}
        with contextlib.suppress(OSError):
            write_json(self._record, said, sync=False)
