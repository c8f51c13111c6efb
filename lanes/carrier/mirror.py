"""The continuous mirror: logs, step rows, small files and completed checkpoints of what runs on a lane, to the head.

A frame of the agent only says that there may be news. One thread asks for all of it in one call; another one brings
checkpoints, which may take long. Neither is ever waited for.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from core.fsio import fsync_dir, no_space, sha256_file, write_atomic
from core.home import Home
from core.rundir import KEEP_LEAST
from lanes.agent import news
from lanes.agent.trees import remove_tree
from lanes.carrier.copy import Copy
from lanes.carrier.errors import BadHarvest, Cancelled
from lanes.carrier.pull import Pull, Wrong
from lanes.harvest import NoRoom
from lanes.transport import LinkDown, LinkRefused, RemoteError, Transport

_PACE_S = 0.2  # between two questions
_PATIENCE_S = 30.0  # after our disk was full, or after trouble
_CALL_S = 60.0
MANIFEST_LIMIT = 64 << 20
_STEP = re.compile(r"\d{1,18}")


class Mirror:
    """All copies of one lane's attempts.

    Args:
        root: gives the agent's folder on the lane.
    """

    def __init__(
        self, home: Home, transport: Transport, pull: Pull, root: Callable[[], str], say: Callable[[str], None]
    ) -> None:
        self._home = home
        self._transport = transport
        self._pull = pull
        self._root = root
        self._say = say
        self._guard = threading.Lock()
        # Every copy that anybody still uses: two of one attempt would append the same line side by side.
        self._used: WeakValueDictionary[tuple[int, int], Copy] = WeakValueDictionary()
        self._copies: dict[tuple[int, int], Copy] = {}  # those that we remember
        self._live: set[tuple[int, int]] = set()
        self._over: set[tuple[int, int]] = set()  # not to be mirrored any more, though the agent may name them still
        self._news = threading.Event()
        self._checkpoints = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._said: set[str] = set()

    def saw(self, reports: list[dict[str, Any]]) -> None:
        """The agent's reports, all of them: there may be news of these attempts. Returns at once.

        What it does not name any more is forgotten here too: it forgot it before, and will not name it again.
        """
        at = {(int(r["job"]), int(r["attempt"])) for r in reports}
        with self._guard:
            self._over &= at
            self._live = at - self._over
            self._copies = {one: copy for one, copy in self._copies.items() if one in self._live}
            if not self._live or self._closing.is_set():
                return
            if not self._threads:
                for name, work in (("news", self._follow), ("checkpoints", self._bring)):
                    self._threads.append(threading.Thread(target=work, name=f"mirror-{name}", daemon=True))
                    self._threads[-1].start()
        self._news.set()

    def copy(self, job: int, n: int) -> Copy:
        with self._guard:
            copy = self._used.get((job, n)) or Copy(self._home, job, n)
            self._used[(job, n)] = self._copies[(job, n)] = copy
            return copy

    def over(self, job: int, n: int) -> None:
        """Do not mirror it any more."""
        with self._guard:
            self._over.add((job, n))
            self._live.discard((job, n))
            self._copies.pop((job, n), None)

    def close(self) -> None:
        self._closing.set()
        self._news.set()
        self._checkpoints.set()
        for thread in self._threads:
            thread.join(timeout=5.0)

    # One round each, for the threads (and for tests).

    def round(self) -> bool:
        """Ask for news of all live attempts and put it in place. Returns whether there is more to ask for.

        Raises:
            LinkDown, LinkRefused, RemoteError, NoRoom.
        """
        with self._guard:
            live = sorted(self._live)
        return self._ask([self.copy(*at) for at in live])

    def catch_up(self, job: int, n: int) -> None:
        """Bring all that an attempt has left so far: log, rows, small files, its newest good checkpoint.

        Raises:
            LinkDown, LinkRefused, RemoteError, NoRoom.
        """
        copy = self.copy(job, n)
        while self._ask([copy]):
            pass
        while self._bring_newest(copy):
            pass

    def _ask(self, of: list[Copy]) -> bool:
        copies = {c.key: c for c in of}
        wanted = {key: w for key, c in copies.items() if (w := c.wanted()) is not None}
        if not wanted:
            return False
        answer = self._transport.call("news", wanted, timeout_s=_CALL_S)
        for key, name, row, blob in news.split(answer):
            if key in wanted:
                said = copies[key].take(name, row, blob)
                if said:
                    self._say(said)
        for key, said in answer["attempts"].items():
            if key in wanted:
                copies[key].checkpoints = said["checkpoints"]
                if copies[key].next_checkpoint() is not None:
                    self._checkpoints.set()
        return bool(answer["more"])

    def checkpoints_round(self) -> bool:
        """Bring the newest completed checkpoint that is not here. Returns whether one was brought."""
        with self._guard:
            copies = [c for at, c in self._copies.items() if at in self._live]
        brought = False
        for copy in copies:
            brought |= self._bring_newest(copy)
        return brought

    # The threads.

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            more = True
            while more and not self._closing.is_set():
                more = self._guarded(self.round)
                self._closing.wait(_PACE_S)

    def _bring(self) -> None:
        while not self._closing.is_set():
            self._checkpoints.wait()
            self._checkpoints.clear()
            while not self._closing.is_set() and self._guarded(self.checkpoints_round):
                pass

    def _guarded(self, work: Callable[[], bool]) -> bool:
        """What goes wrong is tried again with the next frame: the seal's fetch is what counts."""
        try:
            found = work()
            self._said.clear()
            return found
        except (LinkDown, LinkRefused, Cancelled):
            return False
        except (NoRoom, RemoteError, OSError, BadHarvest, Wrong) as error:
            word = "the head's disk is full" if isinstance(error, NoRoom) else f"{type(error).__name__}: {error}"
            if word not in self._said:
                self._said.add(word)
                self._say(f"the mirror waits: {word}")
            self._closing.wait(_PATIENCE_S)
            return False
        except Exception as error:  # a bug of ours must not end the mirror of all attempts
            self._say(f"the mirror stumbled: {type(error).__name__}: {error}")
            self._closing.wait(_PATIENCE_S)
            return False

    # Checkpoints.

    def _bring_newest(self, copy: Copy) -> bool:
        """The newest first: on a slow link those between are passed over, as long as newer ones come."""
        found = copy.next_checkpoint()
        if found is None or copy.wanted() is None:
            return False
        with copy.files:
            try:
                brought = self._bring_one(copy, *found)
            except (BadHarvest, Wrong):
                # It is none, or the program removed it while it was read.
                copy.refused.add(found)
                return True
        self._drop_old(copy)
        return brought

    def _bring_one(self, copy: Copy, step: int, signature: str) -> bool:
        place = f"{self._root()}/attempts/{copy.job}/{copy.n}/checkpoints/{step}"
        blob = self._pull.all(f"{place}/manifest.json", MANIFEST_LIMIT)
        manifest = checkpoint_manifest(blob, str(copy.spec().get("key")))
        final = copy.run.checkpoints / str(step)
        if _same(final / "manifest.json", blob):
            copy.mirrored[step] = signature  # it was brought whole, by rename
            return False
        tmp = copy.partial / f"checkpoint-{step}"

        def stop() -> bool:
            return copy.fetching or self._closing.is_set()

        for name, (sha256, size) in manifest["files"].items():
            target = tmp / name
            if target.is_file() and target.stat().st_size == size and sha256_file(target) == sha256:
                continue
            waiting = copy.partial / sha256
            try:
                self._pull.file(f"{place}/{name}", waiting, size=size, sha256=sha256, stop=stop)
            except BadHarvest:
                waiting.unlink(missing_ok=True)
                raise
            target.parent.mkdir(parents=True, exist_ok=True)
            waiting.replace(target)
        with _room():
            write_atomic(tmp / "manifest.json", blob)
            for folder in {tmp, *((tmp / name).parent for name in manifest["files"])}:
                fsync_dir(folder)
        with copy.lock:
            if copy.fetching:
                return False
            final.parent.mkdir(parents=True, exist_ok=True)
            old = copy.partial / f"old-{step}"
            remove_tree(old)
            if final.exists():
                final.replace(old)
            tmp.replace(final)
            fsync_dir(final.parent)
            shutil.rmtree(old, ignore_errors=True)
        copy.mirrored[step] = signature
        return True

    def _drop_old(self, copy: Copy) -> None:
        """What the lane dropped goes here too, when so many newer ones are here as nobody should have fewer of."""
        there = {int(s) for s, _ in copy.checkpoints}
        with contextlib.suppress(OSError), copy.lock:
            if copy.fetching:
                return
            here = sorted(int(p.name) for p in copy.run.checkpoints.iterdir() if _STEP.fullmatch(p.name))
            for step in here[:-KEEP_LEAST]:
                if step not in there:
                    remove_tree(copy.run.checkpoints / str(step))
            for left in copy.partial.glob("checkpoint-*"):
                if int(left.name.partition("-")[2]) not in there:
                    remove_tree(left)


def checkpoint_manifest(blob: bytes, key: str) -> dict[str, Any]:
    """A checkpoint's manifest, checked.

    Raises:
        BadHarvest: it is none, of another job, or names what does not lie in its folder.
    """
    try:
        manifest = json.loads(blob)
        files = manifest["files"]
        for name, (sha256, size) in files.items():
            check_name(name)
            if not re.fullmatch(r"[0-9a-f]{64}", str(sha256)) or int(size) < 0:
                raise ValueError(f"{name!r} has no digest or no size")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadHarvest(f"the manifest of a checkpoint cannot be understood: {error}") from error
    if manifest.get("key") != key:
        raise BadHarvest("a checkpoint on the lane belongs to another job")
    return dict(manifest)


def check_name(name: str) -> None:
    """Refuse a relative path that leads out of its folder, or that our own files have.

    Raises:
        ValueError: with a sentence.
    """
    parts = str(name).split("/")
    if not name or any(p in ("", ".", "..") for p in parts) or "\0" in name or parts[0] == "manifest.json":
        raise ValueError(f"{str(name)[:200]!r} cannot be the name of a file here")


def _same(path: Path, blob: bytes) -> bool:
    try:
        return path.read_bytes() == blob
    except OSError:
        return False


@contextlib.contextmanager
def _room() -> Any:
    try:
        yield
    except OSError as error:
        if no_space(error):
            raise NoRoom(f"the head's disk is full: {error}") from error
        raise
