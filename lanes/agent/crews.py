"""Warm workers of this lane, as the head asks for them: batches are taken, ends are told until the head has them.

Nothing is kept in memory that matters: crews, orders and ends are files (see lanes.pool.post), workers and their
keepers outlive this process and the link, and an agent that was killed is replaced by one that knows as much. Every
method may be repeated. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from core.fsio import no_space, write_json
from lanes.agent import failpoint, keeper, procs
from lanes.agent.crewbooks import Books, environment, is_ready, keeper_env, pid_of, short_tmp
from lanes.agent.safe import open_plain, read_dict
from lanes.pool import post
from lanes.pool import words as w
from lanes.pool.words import Words

LOOK_S = 0.25
START_S = 20.0  # a keeper that has not taken its lock by then never will
FRAME = 4 << 20
REFUSED_S = 5.0  # for so long no worker is made for a kind that could not be loaded
START_DEATHS = 3  # so many workers of a crew may die in a row before their kind was loaded
AHEAD_S = 2.0  # a batch that was sent ahead waits no longer than this
KEPT_S = 86400.0  # for so long a crew without work is remembered
_REMEMBERED = 4096
_CODE_ROOT = Path(__file__).resolve().parents[2]


class Crews(Books):
    """All crews of one lane.

    Args:
        root: the agent's own folder on this lane; `base`: the folder that all heads share (not used yet).
    """

    def __init__(self, root: Path, base: Optional[Path] = None) -> None:
        super().__init__(root)
        self.base = base
        self._boot = procs.boot_id()
        self._guard = threading.RLock()
        self._bell = post.Bell(self.bells, post.AGENT_BELL)
        self._launched: List["subprocess.Popen[bytes]"] = []

    # What the head asks.

    def crew_begin(self, crew: str, setup: Dict[str, Any]) -> Dict[str, Any]:
        """Make a crew known. Its workers are started when there are batches for them.

        Args:
            setup: kind_path, entry, python, env, cores, gpus, memory_mb, setup_s, idle_s, protocol, marker, and `ray`
                when its workers are started by Ray and not by us.
        """
        folder = self._crew(crew)
        try:
            (folder / post.ORDERS).mkdir(parents=True, exist_ok=True, mode=0o700)
            setup = {**setup, "python": setup.get("python") or sys.executable}
            if read_dict(folder / post.SETUP) != setup:
                write_json(folder / post.SETUP, setup, sync=False)
            # The store asks here which snapshots are still in use.
            used = self.batches / f".crew-{crew}"
            used.mkdir(exist_ok=True)
            write_json(used / "spec.json", {"kind_path": setup["kind_path"]}, sync=False)
        except OSError as error:
            return _refused(error, "the crew's folder cannot be made")
        return {"ok": True, "root": str(self.root)}

    def crew_send(self, crew: str, number: int, nonce: str, ahead: bool, order: bytes) -> Dict[str, Any]:
        """Take a batch, unless it was taken before.

        Args:
            number: orders the batches that wait.
            order: as lanes.pool.post has it.
        """
        folder = self._crew(crew)
        if not post.NONCE.fullmatch(nonce):
            raise ValueError(f"{nonce[:40]!r} names no batch")
        with self._guard:
            if not (folder / post.SETUP).exists():
                return {"ok": False, "cause": "unknown-crew", "reason": f"the crew {crew} is not known here"}
            if nonce not in self._known():
                tmp = folder / f".{nonce}.{os.urandom(4).hex()}"
                try:
                    with open(tmp, "wb") as f:
                        f.write(order)
                    os.rename(tmp, folder / post.ORDERS / post.order_name(number, nonce, ahead))
                except OSError as error:
                    with contextlib.suppress(OSError):
                        os.unlink(tmp)
                    return _refused(error, "the batch cannot be written down")
                failpoint("crews.after_order")
            self._tend_crew(folder)
        for worker in self._workers(folder):
            post.ring(self.bells, worker.name)
        return {"ok": True}

    def crew_poll(self, acked: List[str], wait_s: float = 0.0) -> Dict[str, Any]:
        """How batches ended; at once when there is an end that is not acknowledged, else after `wait_s`.

        Args:
            acked: ends that the head has: they are forgotten, with their run directories.

        Returns:
            {"boot_id", "ends": [{...as published, "files": [[name, size, inline]]}], "data": the inline files one
            after the other, "known": every nonce that is here in any way, "wants": folders of workers that Ray is to
            start, "workers": how many there are, "refused": {crew: why its kind cannot be loaded}}
        """
        for nonce in acked:
            self._forget(nonce)
        deadline = time.monotonic() + wait_s
        while True:
            with self._guard:
                self._tend()
                ends = self._ended()
            now = time.monotonic()
            if ends or now >= deadline or self._wanted():
                break
            self._bell.wait(min(LOOK_S, deadline - now))
        told: List[Dict[str, Any]] = []
        parts: List[bytes] = []
        size = 0
        for end in ends:
            if told and size >= FRAME:
                break
            found = self._files(end, parts)
            size += sum(row[1] for row in found if row[2])
            told.append({**end, "files": found})
        refused = {}
        for folder in self._folders():
            state = read_dict(folder / post.STATE)
            if state.get("refused"):
                refused[folder.name] = str(state["refused"])
        return {
            "boot_id": self._boot,
            "ends": told,
            "data": b"".join(parts),
            "known": sorted(self._known()),
            "wants": self._wanted(),
            "workers": sum(len(self._workers(f)) for f in self._folders()),
            "refused": refused,
        }

    def crew_read(self, nonce: str, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file in the run directory of a batch that has ended."""
        end = read_dict(self.ends / self._checked(nonce))
        folder = self._dir_of(end)
        if folder is None or name not in os.listdir(folder):
            raise FileNotFoundError(f"batch {nonce} has no file {name!r} here")
        with open_plain(folder / name) as f:
            f.seek(offset)
            return f.read(min(size, FRAME))

    def crew_stop_cells(self, stops: Dict[str, Dict[str, str]]) -> Dict[str, Any]:
        """Have cells stopped: {nonce: {job: cause}}. A batch that nobody has begun is given back whole."""
        with self._guard:
            for nonce, jobs in stops.items():
                if self._take_back(nonce):
                    continue
                worker = self._worker_of(nonce)
                if worker is None:
                    continue
                said = read_dict(worker / post.STOP)
                said = {nonce: {**(said.get(nonce) or {}), **jobs}}
                with contextlib.suppress(OSError):
                    write_json(worker / post.STOP, said, sync=False)
                    page = Words(worker / post.WORDS)
                    page.view[w.STOP] = page.view[w.STOP] + 1
                    page.close()
        return {"ok": True}

    def crew_drop(self, nonces: List[str]) -> Dict[str, Any]:
        """Batches that the head does not want (any more): what waits is removed, what runs is killed."""
        with self._guard:
            for nonce in nonces:
                self._take_back(nonce)
                worker = self._worker_of(nonce)
                if worker is not None:
                    with contextlib.suppress(OSError):
                        (worker / post.KILL).write_bytes(b"")
                self._forget(nonce)
        return {"ok": True}

    def crew_kill(self, worker: str) -> Dict[str, Any]:
        """End one worker, by its folder."""
        for folder in self._folders():
            for one in self._workers(folder):
                if str(one) == worker:
                    with contextlib.suppress(OSError):
                        (one / post.KILL).write_bytes(b"")
        return {"ok": True}

    def crew_end(self, crew: Optional[str] = None) -> Dict[str, Any]:
        """End the workers (of one crew). What they had comes back as it was left. Call it until none is left."""
        with self._guard:
            left = 0
            for folder in self._folders():
                if crew is None or folder.name == crew:
                    for worker in self._workers(folder):
                        left += 1
                        with contextlib.suppress(OSError):
                            (worker / post.KILL).write_bytes(b"")
            self._tend()
        return {"ok": True, "left": left}

    # Workers.

    def _tend(self) -> None:
        self._launched = [p for p in self._launched if p.poll() is None]
        if len(self._since) > _REMEMBERED:
            self._since.clear()
        for folder in list(self._folders()):
            self._tend_crew(folder)
            self._retire(folder)

    def _retire(self, folder: Path) -> None:
        """A crew that has had nothing to do for long is forgotten; its snapshot may then go as well."""
        with contextlib.suppress(OSError):
            place = folder / post.SETUP
            age = time.time() - os.stat(place).st_mtime
            if age < KEPT_S or self._workers(folder) or post.waiting(folder):
                return
            if time.time() - os.stat(folder / post.ORDERS).st_mtime < KEPT_S:
                return
            shutil.rmtree(self.batches / f".crew-{folder.name}", ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)

    def _tend_crew(self, folder: Path) -> None:
        """Bury the dead, give back what waited too long, and start the workers that are missing."""
        now = time.monotonic()
        state = read_dict(folder / post.STATE)
        before = dict(state)
        idle = warming = busy = 0
        for worker in self._workers(folder):
            gone = self._look_at(worker)
            if gone is not None:
                self._count(folder, state, gone)
                self._remove(worker)
                continue
            ready = is_ready(worker)
            has = (worker / post.ORDER).exists()
            warming, busy, idle = warming + (not ready), busy + has, idle + (ready and not has)
            if ready:
                state.update(deaths=0, refused="")
        if state.get("refused") and time.time() - float(state.get("refused_at") or 0) > REFUSED_S:
            state["refused"] = ""
        rest = []
        for name, nonce, ahead in post.waiting(folder):
            since = self._since.setdefault(name, now)
            if state.get("refused") and not (ahead and busy):
                self._end_waiting(folder, name, nonce, {"how": "refused", "message": state["refused"]})
            elif ahead and (now - since > AHEAD_S or not (busy or idle or warming)):
                self._end_waiting(folder, name, nonce, {"how": "back"})
            else:
                rest.append(ahead)
        if state != before:
            with contextlib.suppress(OSError):
                write_json(folder / post.STATE, state, sync=False)
        for _ in range(sum(not ahead for ahead in rest) - idle - warming):
            self._start(folder)

    def _look_at(self, worker: Path) -> Optional[Dict[str, Any]]:
        """None while it is kept; else how it ended."""
        gone = read_dict(worker / post.GONE)
        if gone:
            return gone
        setup = read_dict(worker / post.SETUP)
        if not setup:
            return {"ready": False, "code": None}  # it was never made
        lock = keeper.take_lock(worker)
        if lock is None:
            return None
        try:
            reboot = setup.get("boot_id") != self._boot
            since = self._since.setdefault(str(worker), time.monotonic())
            if not reboot and time.monotonic() - since < START_S and not pid_of(worker):
                return None  # its keeper is about to begin
            keeper.bury(worker, reboot=reboot)
        except FileNotFoundError:
            return None  # the agent before us did it, and is not quite gone
        finally:
            os.close(lock)
        return read_dict(worker / post.GONE)

    def _remove(self, worker: Path) -> None:
        """Nothing of a worker that is gone stays."""
        shutil.rmtree(worker, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self.bells / worker.name)
        for spare in (self.batches / ".spare").glob(f"{worker.name}-*"):
            shutil.rmtree(spare, ignore_errors=True)
        self._since.pop(str(worker), None)

    def _count(self, folder: Path, state: Dict[str, Any], gone: Dict[str, Any]) -> None:
        """What the end of a worker says about its crew."""
        if gone.get("ready") or gone.get("reboot"):
            return
        if gone.get("refused"):
            state.update(refused=str(gone["refused"]), refused_at=time.time())
            return
        state["deaths"] = int(state.get("deaths") or 0) + 1
        first = next((row for row in post.waiting(folder) if not row[2]), None)
        if first is not None and (gone.get("late") or state["deaths"] >= START_DEATHS):
            end = {"how": "never", "late": bool(gone.get("late")), "deaths": state["deaths"]}
            self._end_waiting(folder, first[0], first[1], end)

    def _start(self, folder: Path) -> None:
        setup = read_dict(folder / post.SETUP)
        name = f"{folder.name}-{os.urandom(4).hex()}"
        worker = folder / name
        try:
            (worker / post.WORK).mkdir(parents=True, mode=0o700)
            Words(worker / post.WORDS, create=True).close()
            tmp = short_tmp(worker)
            marker = f"{setup['marker']}:{name}"
            told = {
                **setup,
                "folder": str(worker),
                "crew": str(folder),
                "ends": str(self.ends),
                "bells": str(self.bells),
                "bell": name,
                "spare": str(self.batches / ".spare" / name),
                "boot_id": self._boot,
                "marker": marker,
                "tmp": tmp,
                "env": environment(setup, marker, tmp),
            }
            write_json(worker / post.SETUP, told, sync=False)
            failpoint("crews.before_launch")
            self._launched.append(keeper.launch(worker, _CODE_ROOT, keeper_env()))
            self._since[str(worker)] = time.monotonic()
        except OSError as error:
            shutil.rmtree(worker, ignore_errors=True)
            first = next((row for row in post.waiting(folder) if not row[2]), None)
            if first is not None:
                end = {"how": "not-started", "message": f"no worker could be started: {error}", "full": no_space(error)}
                self._end_waiting(folder, first[0], first[1], end)

    def _wanted(self) -> List[str]:
        """Folders of workers that Ray is to start."""
        found = []
        for folder in self._folders():
            if read_dict(folder / post.SETUP).get("ray"):
                found += [str(x) for x in self._workers(folder) if not pid_of(x) and not (x / post.GONE).exists()]
        return found


def _refused(error: OSError, what: str) -> Dict[str, Any]:
    cause = "disk-full" if no_space(error) else "setup"
    return {"ok": False, "cause": cause, "reason": f"{what}: {error}"}
