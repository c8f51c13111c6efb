"""What lies in the folders of a lane's crews: batches that wait, run, or have ended, and who has them.

Nothing here starts or ends a process; see lanes.agent.crews, and lanes.pool.post for the files. Standard library only,
Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set

from lanes.agent import procs, spawn
from lanes.agent.safe import open_plain, read_dict
from lanes.pool import post
from lanes.pool import words as w

INLINE = 1 << 20  # files of this size travel with the answer, larger ones are asked for
_TMP_ROOM = 60  # sockets below TMPDIR (107 bytes at most) need what is left for names of their own


class Books:
    """The folders of all crews of one lane.

    Args:
        root: the agent's own folder on this lane.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.crews = self.root / "crews"
        self.ends = self.root / post.ENDS
        self.batches = self.root / post.BATCHES
        self.bells = self.root / post.BELLS
        for folder in (self.crews, self.ends, self.batches, self.bells):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._since: Dict[str, float] = {}  # worker's folder, or order, -> when we first met it

    def _ended(self) -> List[Dict[str, Any]]:
        found = []
        for nonce in sorted(os.listdir(self.ends)):
            if post.NONCE.fullmatch(nonce):
                end = read_dict(self.ends / nonce)
                if end:
                    found.append(end)
        return found

    def _files(self, end: Dict[str, Any], parts: List[bytes]) -> List[List[Any]]:
        folder = self._dir_of(end)
        found: List[List[Any]] = []
        if folder is None:
            return found
        for name in sorted(os.listdir(folder)):
            if name.startswith("."):
                continue
            with contextlib.suppress(OSError), open_plain(folder / name) as f:
                size = os.fstat(f.fileno()).st_size
                blob = f.read(INLINE) if size <= INLINE else b""
                inline = size <= INLINE
                found.append([name, len(blob) if inline else size, inline])
                if inline:
                    parts.append(blob)
        return found

    def _dir_of(self, end: Dict[str, Any]) -> Optional[Path]:
        name = str(end.get("dir") or "")
        folder = self.batches / name
        return folder if post.DIR.fullmatch(name) and folder.is_dir() and not folder.is_symlink() else None

    def _forget(self, nonce: str) -> None:
        place = self.ends / self._checked(nonce)
        folder = self._dir_of(read_dict(place))
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)

    def _take_back(self, nonce: str) -> bool:
        """A batch that nobody has begun is ended as such. False when there is none."""
        for folder in self._folders():
            for name, waits, _ahead in post.waiting(folder):
                if waits == nonce and self._end_waiting(folder, name, nonce, {"how": "back"}):
                    return True
        return False

    def _end_waiting(self, folder: Path, name: str, nonce: str, end: Dict[str, Any]) -> bool:
        taken = folder / f".taken-{nonce}"
        if not post.claim(folder, name, taken):
            return False
        try:
            post.publish(self.ends, nonce, {**end, "crew": folder.name})
        except OSError:
            os.rename(taken, folder / post.ORDERS / name)  # no room to say so: it goes on waiting
            return False
        self._since.pop(name, None)
        with contextlib.suppress(OSError):
            os.unlink(taken)
        return True

    def _worker_of(self, nonce: str) -> Optional[Path]:
        for folder in self._folders():
            for worker in self._workers(folder):
                order = post.read_order(worker / post.ORDER)
                if order is not None and order.get("nonce") == nonce:
                    return worker
        return None

    def _known(self) -> Set[str]:
        """Every batch that is here: waits, is with a worker, or has ended. In this order, in which a batch goes."""
        found: Set[str] = set()
        for folder in self._folders():
            found.update(nonce for _, nonce, _ in post.waiting(folder))
            for worker in self._workers(folder):
                order = post.read_order(worker / post.ORDER)
                if order is not None:
                    found.add(str(order.get("nonce")))
        found.update(n for n in os.listdir(self.ends) if post.NONCE.fullmatch(n))
        return found

    # Folders.

    def _crew(self, crew: str) -> Path:
        if not post.CREW.fullmatch(crew):
            raise ValueError(f"{crew[:40]!r} names no crew")
        return self.crews / crew

    def _checked(self, nonce: str) -> str:
        if not post.NONCE.fullmatch(nonce):
            raise ValueError(f"{nonce[:40]!r} names no batch")
        return nonce

    def _folders(self) -> Iterator[Path]:
        for name in sorted(os.listdir(self.crews)):
            if post.CREW.fullmatch(name):
                yield self.crews / name

    def _workers(self, folder: Path) -> List[Path]:
        try:
            return [folder / name for name in sorted(os.listdir(folder)) if name.startswith(folder.name + "-")]
        except OSError:
            return []


def environment(setup: Dict[str, Any], marker: str, tmp: str) -> Dict[str, str]:
    """The whole environment of a worker, as lanes.agent.spawn makes it for an attempt."""
    cores = str(max(1, int(setup.get("cores") or 1)))
    env = {name: os.environ[name] for name in spawn.INHERITED if name in os.environ}
    env.setdefault("PATH", spawn.DEFAULT_PATH)
    env.setdefault("LANG", "C.UTF-8")
    env["PYTHONUNBUFFERED"] = "1"
    env.update(dict.fromkeys(spawn.THREADS, cores))
    # Threads that spin while they wait for one another starve the neighbours they wait for.
    env.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", KMP_BLOCKTIME="0")
    env.update({str(k): str(v) for k, v in (setup.get("env") or {}).items()})
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["CUDA_VISIBLE_DEVICES"] = ",".join(str(g) for g in setup.get("gpus") or ())
    env["TMPDIR"] = tmp
    env["LAB_CORES"] = cores
    env[procs.MARKER] = marker
    env["PYTHONPATH"] = str(setup["kind_path"])
    env["PYTHONSAFEPATH"] = "1"
    return env


def keeper_env() -> Dict[str, str]:
    """Without the marker: the keeper ends whatever has it."""
    env = {name: os.environ[name] for name in spawn.INHERITED if name in os.environ}
    env.setdefault("PATH", spawn.DEFAULT_PATH)
    return env


def short_tmp(worker: Path) -> str:
    place = str(worker / post.WORK)
    if len(os.fsencode(place)) <= _TMP_ROOM:
        return place
    link = f"/tmp/lab-{os.getuid()}-{os.urandom(8).hex()}.tmp"
    with contextlib.suppress(OSError):
        os.symlink(place, link)
        return link
    return place


def is_ready(worker: Path) -> bool:
    return _word(worker, w.READY) != 0


def pid_of(worker: Path) -> int:
    return _word(worker, w.PID)


def _word(worker: Path, which: int) -> int:
    try:
        with open(worker / post.WORDS, "rb") as f:
            f.seek(8 * which)
            return int.from_bytes(f.read(8), sys.byteorder)
    except OSError:
        return 0
