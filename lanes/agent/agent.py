"""The lane agent: starts attempts, tells what became of them, and is sure before it says that one is gone.

It keeps nothing in memory that matters. `active/` holds one file per live attempt; everything else is read from the
run directories, so an agent that was killed is replaced by a new one that knows as much.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from core.fsio import no_space, safe_join, walk_files, write_atomic, write_json
from core.rundir import SEALED_FILES, SEALED_FOLDERS, RunDir
from lanes.agent import FAILPOINTS, failpoint, news, probe, procs, spawn
from lanes.agent.attempt import RESCAN_S, START_GRACE_S, Attempt, Report
from lanes.agent.ear import Ear
from lanes.agent.reserve import Reserve
from lanes.agent.runner import BOOTSTRAP
from lanes.agent.safe import read_dict
from lanes.agent.supervisor import NOTIFY
from lanes.agent.trees import remove_tree
from lanes.agent.usage import Usage

READ_LIMIT = 8 << 20
METRICS_EVERY_S = 0.5  # new step rows alone end a waiting poll no more often than this
RESERVE = "reserve"  # in the agent's root: a little disk, given up so that a request to stop fits on a full one
RESERVE_BYTES = 16 << 10
_NAME = re.compile(r"^\d+\.\d+$")
_CODE_ROOT = Path(__file__).resolve().parents[2]
_STRENGTH = {"stop": 1, "kill": 2, "revoke": 3}


class Agent:
    """All attempts of one lane.

    Args:
        root: the agent's own folder on this lane.
        home_hash: tells the attempts of one home from another's.
        socket_path: a short path at which runners wake a waiting `poll`; without it, poll looks every 0.1 s.
    """

    def __init__(
        self,
        root: Path,
        *,
        home_hash: str,
        socket_path: Union[str, Path, None] = None,
        start_grace_s: float = START_GRACE_S,
    ) -> None:
        self.root = Path(root)
        self.home_hash = home_hash
        self._active = self.root / "active"
        self._active.mkdir(parents=True, exist_ok=True)
        self._boot = procs.boot_id()
        self._usage = Usage(gpus=bool(probe.gpus()))
        self._start_grace_s = start_grace_s
        self._guard = threading.RLock()
        self._runs: Dict[str, Attempt] = {}
        self._launched: List["subprocess.Popen[bytes]"] = []
        self._metrics_due = 0.0
        self._reserve = Reserve(self.root / RESERVE, RESERVE_BYTES)
        self._reserve.hold()
        self._ear = Ear(socket_path, self.root / NOTIFY)
        for file in sorted(self._active.iterdir()):
            path = self._active_path(file.name)
            # What is cut short (the machine died) is passed over: the head has us adopt what it knows of.
            if _NAME.match(file.name) and path is not None and os.path.isabs(path):
                self._know(file.name, Path(path))

    def close(self) -> None:
        """Let go of the socket. Attempts go on."""
        self._ear.close()

    def hello(self) -> Dict[str, Any]:
        return probe.hello(self.root)

    def start(self, spec: Dict[str, Any], run_dir: str) -> Dict[str, Any]:
        """Launch the attempt's supervisor, unless the attempt was begun before. Repeatable.

        Returns:
            {"ok": True, "pid": ...}, or {"ok": False, "cause": ..., "reason": a sentence}.
        """
        name = f"{spec['job']}.{spec['attempt']}"
        run = RunDir(Path(run_dir))
        with self._guard:
            try:
                known = read_dict(run.spec)
                if known and known.get("nonce") != spec.get("nonce"):
                    return {"ok": False, "cause": "setup", "reason": f"{run_dir} belongs to another attempt"}
                run.path.mkdir(parents=True, exist_ok=True)
                if not known:
                    write_json(run.spec, spec, sync=False)
                if self._active_path(name) is None:
                    write_atomic(self._active / name, os.fsencode(run.path), sync=False)
            except OSError as error:
                cause = "disk-full" if no_space(error) else "setup"
                return {"ok": False, "cause": cause, "reason": f"{run_dir} cannot be made: {error}"}
            entry = self._know(name, run.path)
            # A held lock without a beginning may be a dying supervisor's: one more is harmless, the lock decides.
            if run.started.exists() or run.manifest.exists():
                return {"ok": True, "pid": int(read_dict(run.started).get("pid") or 0)}
            entry.since = time.monotonic()
            failpoint("agent.before_launch")
            try:
                launched = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", BOOTSTRAP, str(_CODE_ROOT), str(run.path), str(self.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=self._runner_env(spec),
                    start_new_session=True,
                    close_fds=True,
                )
            except OSError as error:
                return {"ok": False, "cause": "setup", "reason": f"no supervisor can be started: {error}"}
            failpoint("agent.after_launch")
            self._launched = [p for p in self._launched if p.poll() is None] + [launched]
            return {"ok": True, "pid": launched.pid}

    def adopt(self, attempts: List[Tuple[int, int, str]]) -> Dict[str, Any]:
        """Know these attempts (job, attempt, run directory), whether or not this lane remembers them."""
        with self._guard:
            for job, attempt, run_dir in attempts:
                name = f"{job}.{attempt}"
                if self._active_path(name) is None:
                    with contextlib.suppress(OSError):
                        write_atomic(self._active / name, os.fsencode(run_dir), sync=False)
                self._know(name, Path(run_dir))
        return {"ok": True}

    def poll(self, cursor: Optional[Dict[str, Any]] = None, wait_s: float = 0.0) -> Dict[str, Any]:
        """What became of every known attempt; at once when something is new, else after `wait_s`.

        Returns:
            {"cursor": pass this next time, "reports": [...], "boot_id": ..., "usage": how busy the machine is}
        """
        deadline = time.monotonic() + wait_s
        cursor = dict(cursor or {})
        self._reserve.hold()
        while True:
            with self._guard:
                self._launched = [p for p in self._launched if p.poll() is None]
                runs = sorted(self._runs.items())
                for entry in self._runs.values():
                    if entry.wanted is not None and self._write_request(entry):
                        self._call(entry)
            new: Dict[str, Any] = {}
            reports: List[Report] = []
            for name, entry in runs:
                seen = cursor.get(name) or {}
                report, offset = entry.report(int(seen.get("metrics") or 0), self._boot)
                reports.append(report)
                new[name] = {"metrics": offset, "said": _said(report)}
            changed = {n: c["said"] for n, c in new.items()} != {n: (c or {}).get("said") for n, c in cursor.items()}
            now = time.monotonic()
            rows = any(r["metrics"] for r in reports)
            if changed or now >= deadline or (rows and now >= self._metrics_due):
                if rows:
                    self._metrics_due = now + METRICS_EVERY_S
                return {"cursor": new, "reports": reports, "boot_id": self._boot, "usage": self._usage.now()}
            pauses = [deadline - now, RESCAN_S, *(e.look_again_s for _, e in runs)]
            self._ear.wait(min([*pauses, self._metrics_due - now] if rows else pauses))

    def signal(
        self, job: int, attempt: int, action: str, cause: str = "cancelled", grace_s: float = 0.0
    ) -> Dict[str, Any]:
        """Ask the attempt's supervisor to stop it (with grace), kill it, or revoke it. Repeatable; never weaker.

        Returns:
            {"ok": True, "known": True}; {"ok": False, "known": False}; or, with "retry" and a "reason", that the
            request does not fit on the disk: we try again at every poll, and you should, for we may not live.
        """
        entry = self._runs.get(f"{job}.{attempt}")
        if entry is None:
            return {"ok": False, "known": False}
        with self._guard:
            now = entry.wanted or read_dict(entry.run.stop)
            if _STRENGTH[action] >= _STRENGTH.get(str(now.get("action")), 0):
                # The first cause stays: a kill that follows a time limit is still a time limit.
                cause = str(now.get("cause") or cause)
                entry.wanted = {"action": action, "cause": cause, "grace_s": grace_s}
                if action == "revoke" and entry.revoked_at is None:
                    entry.revoked_at = time.monotonic()
            if entry.wanted is not None and not self._write_request(entry):
                reason = "the request cannot be written into the run directory; is its disk full?"
                return {"ok": False, "known": True, "retry": True, "reason": reason}
        self._call(entry)
        self._ear.nudge()
        return {"ok": True, "known": True}

    def read(self, path: str, offset: int = 0, size: int = READ_LIMIT) -> bytes:
        """Bytes of one file inside a known run directory.

        Raises:
            PermissionError: the path, links resolved, is in none of them.
        """
        real = os.path.realpath(path)
        homes = [os.path.realpath(e.run.path) for e in list(self._runs.values())] + [os.path.realpath(self.root)]
        if not any(real.startswith(home + os.sep) for home in homes):
            raise PermissionError(f"{path} is in no run directory of this lane")
        with open(real, "rb") as f:
            f.seek(offset)
            return f.read(min(size, READ_LIMIT))

    def files(self, run_dir: str) -> List[Dict[str, Any]]:
        """What of a run directory the head may want: sealed files and folders, and the seal."""
        run = RunDir(Path(run_dir))
        names = [Path(n) for n in (*SEALED_FILES, "manifest.json", "started.json")]
        for folder in SEALED_FOLDERS:
            if (run.path / folder).is_dir():
                names += [Path(folder) / rel for rel in walk_files(run.path / folder)]
        found = []
        for rel in names:
            with contextlib.suppress(OSError):
                info = os.lstat(run.path / rel)
                link = os.readlink(run.path / rel) if os.path.islink(run.path / rel) else None
                found.append({"name": rel.as_posix(), "size": info.st_size, "mtime_ns": info.st_mtime_ns, "link": link})
        return found

    def where(self) -> Dict[str, Any]:
        """What the head must know to write a spec for this lane: our folder, our socket, our interpreter, its PATH."""
        return {
            "root": str(self.root),
            "wake": self._ear.address,
            "path": os.environ.get("PATH") or spawn.DEFAULT_PATH,
            "executable": sys.executable,
        }

    def news(self, wanted: Dict[str, Dict[str, Any]], limit: int = news.LIMIT) -> Dict[str, Any]:
        """What is new in the run directories of attempts below our folder. See `news.news`."""
        return news.news(self.root, wanted, min(limit, READ_LIMIT))

    def read_many(self, job: int, attempt: int, names: List[str], limit: int = 1 << 20) -> Dict[str, Any]:
        """Small files of one run directory below our folder. See `news.read_many`."""
        return news.read_many(self._run_path(job, attempt), names, min(limit, READ_LIMIT))

    def kept_checkpoints(self, job: int) -> List[Dict[str, Any]]:
        """The completed checkpoints of a job's attempts on this lane. See `news.kept_checkpoints`."""
        return news.kept_checkpoints(self.root, job)

    def put(self, name: str, data: bytes) -> str:
        """Keep `data` in this lane's own folder. Returns the path."""
        path = safe_join(self.root / "files", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
        return str(path)

    def reap(self, job: int, attempt: int) -> Dict[str, Any]:
        """Forget an attempt of which nothing lives. The run directory stays."""
        name = f"{job}.{attempt}"
        with self._guard:
            entry = self._runs.get(name)
            if entry is None:
                return {"ok": True}
            report, _ = entry.report(None, self._boot)
            if not report["clear"]:
                return {"ok": False, "reason": f"attempt {name} is not clear yet"}
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._active / name)
            del self._runs[name]
        return {"ok": True}

    def remove(self, job: int, attempt: int, keep: Sequence[str] = ()) -> Dict[str, Any]:
        """Forget an attempt of which nothing lives, and remove its run directory but for the names in `keep`.

        Returns:
            {"ok": True}, or {"ok": False, "reason"}: it is not clear yet.
        """
        path = self._run_path(job, attempt)
        answer = self.reap(job, attempt)
        if not answer["ok"] or not path.is_dir():
            return answer
        if Attempt(f"{int(job)}.{int(attempt)}", RunDir(path), self._start_grace_s).held():
            return {"ok": False, "reason": f"somebody still supervises attempt {job}.{attempt}"}
        gone = self.root / "gone"
        gone.mkdir(exist_ok=True)
        for name in os.listdir(path):
            if name not in keep:
                with contextlib.suppress(OSError):
                    os.replace(path / name, gone / f"{job}.{attempt}.{name[:64]}.{os.urandom(4).hex()}")
        with contextlib.suppress(OSError):  # unless something is kept
            os.rmdir(path)
            os.rmdir(path.parent)
        # A large one takes its time: nobody has to wait for it.
        threading.Thread(target=_remove_all, args=(gone,), name="remove", daemon=True).start()
        return {"ok": True}

    def tidy(self, jobs: List[int]) -> Dict[str, Any]:
        """Remove what is left of attempts that are not active here and whose job is none of `jobs` (the open ones)."""
        removed = []
        for job in _numbers(self.root / "attempts"):
            for attempt in _numbers(self.root / "attempts" / str(job)) if job not in jobs else []:
                if f"{job}.{attempt}" not in self._runs:
                    with contextlib.suppress(OSError):
                        if self.remove(job, attempt)["ok"]:
                            removed.append([job, attempt])
        return {"removed": removed}

    def _run_path(self, job: int, attempt: int) -> Path:
        return self.root / "attempts" / str(int(job)) / str(int(attempt))

    def _know(self, name: str, path: Path) -> "Attempt":
        entry = self._runs.get(name)
        if entry is None or entry.run.path != path:
            entry = self._runs[name] = Attempt(name, RunDir(path), self._start_grace_s)
        return entry

    def _active_path(self, name: str) -> Optional[str]:
        try:
            return os.fsdecode((self._active / name).read_bytes()).strip() or None
        except OSError:
            return None

    def _write_request(self, entry: Attempt) -> bool:
        """Put what is wanted of the supervisor where it looks; on a full disk at the price of our reserve."""
        for _ in range(2):
            try:
                entry.run.path.mkdir(parents=True, exist_ok=True)
                write_json(entry.run.stop, entry.wanted, sync=False)
            except OSError as error:
                if not no_space(error) or not self._reserve.give():
                    return False
            else:
                entry.wanted = None
                return True
        return False

    def _call(self, entry: Attempt) -> None:
        """Have the supervisor look at its requests now, not at its next turn."""
        with contextlib.suppress(OSError, ValueError):
            runner = entry.runner(self._boot)
            if runner is not None and entry.held():
                procs.kill(runner, signal.SIGUSR1)

    def _runner_env(self, spec: Dict[str, Any]) -> Dict[str, str]:
        env = {name: os.environ[name] for name in spawn.INHERITED if name in os.environ and name != FAILPOINTS}
        if FAILPOINTS in os.environ:
            env[FAILPOINTS] = os.environ[FAILPOINTS]
        env.setdefault("PATH", spawn.DEFAULT_PATH)
        env[procs.MARKER] = str(spec["marker"])
        return env


def _numbers(folder: Path) -> List[int]:
    """Names in a folder that are numbers as we write them. Whatever else lies there is not ours."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if re.fullmatch("0|[1-9][0-9]{0,17}", name))
    except OSError:
        return []


def _remove_all(folder: Path) -> None:
    for name in os.listdir(folder):
        remove_tree(folder / name)


def _said(report: Report) -> str:
    """What must be different for a waiting poll to return: beats, memory and log growth alone are no news."""
    names = ("phase", "pid", "child", "sealed", "clear", "progress", "reason")
    return json.dumps([report[n] for n in names], sort_keys=True)
