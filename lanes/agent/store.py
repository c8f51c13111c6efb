"""The lane's store: snapshots of code, inputs and checkpoints, each named by its content, sent once and kept read-only.

    store/code/NAME/  store/inputs/NAME  store/checkpoints/NAME/    NAME is a digest
    store/notes/KIND-NAME.json   what it consists of       store/used/KIND-NAME   when it was last asked for
    store/partial/KIND-NAME/     on its way                store/gone/            being removed

What takes long is begun by one call and asked for by repeating it: {"state": "working"} says that it is under way.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

from core.fsio import read_json, walk_files, write_json
from lanes.agent import envtrim, packing
from lanes.agent.hashing import Hashing, sha256_of
from lanes.agent.packing import KINDS, NAME, Entry
from lanes.agent.safe import read_dict
from lanes.agent.trees import fits, remove_tree, size_of
from lanes.agent.upload import StoreFull, StoreRefused, Upload

WAIT_S = 1.5  # how long a call waits for what takes long, before it answers that it is under way
IDLE_S = 600.0  # an upload that was not heard of for so long may make room for another
FRESH_S = 600.0  # what was asked for so recently may be about to be used
ROOM = 64 << 20  # is left free on the disk: programs and seals need it
Answer = Dict[str, Any]


class Store:
    """The store below the lane's folder. Several processes may use it at once.

    Args:
        base: the lane's root folder.
    """

    def __init__(self, base: Path) -> None:
        self.base = Path(base)
        self.root = self.base / "store"
        self._guard = threading.Lock()
        self._uploads: Dict[Tuple[str, str], Upload] = {}
        self._jobs: Dict[str, "_Job"] = {}

    # What the head asks before and after it sends.

    def have(self, kind: str, names: List[str]) -> Dict[str, str]:
        """Those of `names` that are here and whole (by name and size), with their paths."""
        found = {}
        for name in names:
            path = self._final(kind, name)
            if self._whole(kind, name, path):
                self._stamp(kind, name)
                found[name] = str(path)
        return found

    def begin(self, kind: str, name: str, size: int, sha256: str, tree: bool, anew: bool = False) -> Answer:
        """Begin to receive, or go on.

        Args:
            size: bytes of the stream: of the file, or of the plan and all files of a folder.
            anew: what is there of the current piece is not as sent.

        Returns:
            {"state": "there", "path"}, {"state": "working"} (ask again), or {"state": "ready", "offset", "start",
            "sha256"}: send from `offset`; `sha256` is of the bytes from `start` to there.

        Raises:
            StoreFull, StoreRefused: with a sentence.
        """
        final = self._final(kind, name)
        if self._whole(kind, name, final):
            self._stamp(kind, name)
            return {"state": "there", "path": str(final)}
        if (name if tree else name[:64]) != sha256 or (not tree and kind != "inputs"):
            raise StoreRefused(f"{name[:12]} of {kind} is announced with the digest of something else")
        upload = self._upload(kind, name, size, sha256, tree)
        if not upload.ready and self._job(f"look {kind} {name}", lambda: _look(upload)) is None:
            return {"state": "working"}
        if self._whole(kind, name, final):  # another process finished it before we looked
            with self._guard:
                self._uploads.pop((kind, name), None)
            upload.remove()
            self._stamp(kind, name)
            return {"state": "there", "path": str(final)}
        state = upload.anew() if anew else upload.state()
        missing = size - int(state["offset"])
        free = shutil.disk_usage(self.root).free
        if missing + ROOM > free:
            raise StoreFull(
                f"{missing / 1e6:,.0f} MB are to come and the disk of {self.root} has {free / 1e6:,.0f} MB free "
                f"({ROOM / 1e6:,.0f} MB are left alone); free some, or name another `root` for this lane"
            )
        return state

    def put_chunk(self, kind: str, name: str, offset: int, data: bytes, crc: int) -> Answer:
        """Take bytes of the stream at `offset`; `crc` is their crc32.

        Returns:
            the state as `begin` has it; what it says of the offset counts. {"state": "look"}: begin again.
        """
        with self._guard:
            upload = self._uploads.get((kind, name))
        if upload is None:
            return {"state": "look"}
        return upload.put(offset, data, crc)

    def finish(self, kind: str, name: str) -> Answer:
        """Everything was sent: keep it. Repeat while {"state": "working"}.

        Returns:
            {"state": "there", "path"}, or {"state": "look"}: it is not known here, begin again.
        """
        final = self._final(kind, name)
        job = self._job(f"finish {kind} {name}", lambda: self._keep(kind, name, final))
        if job is None:
            return {"state": "working"}
        if not self._whole(kind, name, final):
            return {"state": "look"}
        self._stamp(kind, name)
        return {"state": "there", "path": str(final)}

    def verify(self, kind: str, name: str) -> Answer:
        """Hash what is kept under `name` anew. {"state": "done", "equal": bool, "why": ...}, or "working"."""
        final = self._final(kind, name)
        job = self._job(f"verify {kind} {name}", lambda: self._differs(kind, name, final))
        return {"state": "working"} if job is None else {"state": "done", "equal": not job.value, "why": job.value}

    # Room.

    def disk(self) -> Answer:
        """How much room there is, and what the store holds."""
        self.root.mkdir(parents=True, exist_ok=True)
        usage = shutil.disk_usage(self.root)
        kept: Dict[str, List[int]] = {kind: [0, 0] for kind in KINDS}
        for kind, _name, note, _used in self._kept():
            kept[kind][0] += 1
            kept[kind][1] += _size(note)
        return {"path": str(self.root), "free": usage.free, "total": usage.total, "kept": kept}

    def drop(self, kind: str, name: str) -> Answer:
        """Remove one thing, unless a live attempt uses it: {"ok": False, "reason"}."""
        final = self._final(kind, name)
        if _is_used(str(final), self._used_paths()):
            return {"ok": False, "reason": f"an attempt on this lane still uses {final}"}
        self._remove(kind, name)
        with self._guard:
            upload = self._uploads.pop((kind, name), None)
        if upload is not None:
            upload.remove()
        return {"ok": True}

    def trim(self, size: int, keep: Optional[List[Tuple[str, str]]] = None) -> Answer:
        """Free at least `size` bytes: what was used longest ago first, never what a live attempt uses or was just sent.

        Environments that nobody needs go last: to make one again takes longest.

        Args:
            keep: (kind, name) that an attempt which is about to start will use.

        Returns:
            {"freed": bytes, "dropped": [[kind, name], ...]}
        """
        used = self._used_paths()
        wanted = {(k, n) for k, n in keep or []}
        freed, dropped = 0, []
        with self._guard:
            idle = time.monotonic() - IDLE_S
            self._uploads = {at: u for at, u in self._uploads.items() if u.touched > idle}
            live = {f"{k}-{n}" for k, n in self._uploads}
        for place in self._listed(self.root / "partial"):
            if freed < size and place.is_dir() and place.name not in live:
                freed += sum(size_of(place / rel) for rel in walk_files(place))
                remove_tree(place)
        fresh = time.time() - FRESH_S
        for kind, name, note, last in sorted(self._kept(), key=lambda row: row[3]):
            if freed >= size:
                break
            if last < fresh and (kind, name) not in wanted and not _is_used(str(self._final(kind, name)), used):
                self._remove(kind, name)
                freed += _size(note)
                dropped.append([kind, name])
        if freed < size:
            more, environments = envtrim.make_room(self.base, size - freed, used)
            freed, dropped = freed + more, dropped + environments
        return {"freed": freed, "dropped": dropped}

    # Data that lies on this lane already.

    def hash_lane_path(self, path: str) -> Answer:
        """Hash a file or folder of this lane. Repeat while {"state": "working", "done": bytes so far}.

        Returns:
            {"state": "done", "path", "sha256", "size", "tree", "signature": changes when the data may have}

        Raises:
            ValueError: not an absolute path, or something else than files and folders.
            OSError: it is not there, or cannot be read.
        """
        full = os.path.expanduser(path)
        if not os.path.isabs(full) or "\0" in full:
            raise ValueError(f"{path!r} is not an absolute path on the lane")
        key = f"hash {os.path.realpath(full)}"
        hashing = Hashing(self.base / "digests")
        job = self._job(key, lambda: hashing.of(Path(os.path.realpath(full))), hashing)
        if job is None:
            at = self._jobs.get(key)
            return {"state": "working", "done": getattr(at.about, "done", 0) if at is not None else 0}
        return {"state": "done", "path": full, **job.value}

    # Inside.

    def _final(self, kind: str, name: str) -> Path:
        if kind not in KINDS or not isinstance(name, str) or not NAME.fullmatch(name):
            raise StoreRefused(f"{str(name)[:80]!r} of {str(kind)[:80]!r} cannot be a name in the store")
        return self.root / kind / name

    def _note(self, kind: str, name: str) -> Path:
        return self.root / "notes" / f"{kind}-{name}.json"

    def _upload(self, kind: str, name: str, size: int, sha256: str, tree: bool) -> Upload:
        with self._guard:
            found = self._uploads.get((kind, name))
            if found is None or (found.size, found.tree) != (size, tree):
                place = self.root / "partial" / f"{kind}-{name}"
                place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                found = self._uploads[(kind, name)] = Upload(place, kind, name, size, sha256, tree)
            return found

    def _keep(self, kind: str, name: str, final: Path) -> None:
        with self._guard:
            upload = self._uploads.get((kind, name))
        if upload is None:
            return  # another process may know more: the head begins again, and finds out

        def before(entries: List[Entry]) -> None:
            if os.path.lexists(final):
                self._remove(kind, name)  # not whole: somebody touched it, or the machine died before it was on disk
            note = self._note(kind, name)
            note.parent.mkdir(parents=True, exist_ok=True)
            # The note first: a thing without one is not believed to be whole, and would be sent again.
            write_json(note, packing.note(kind, entries))

        upload.finish(final, lambda: self._whole(kind, name, final), before)
        if self._whole(kind, name, final):
            with self._guard:
                self._uploads.pop((kind, name), None)

    def _whole(self, kind: str, name: str, path: Path) -> bool:
        if not os.path.lexists(path):
            return False
        entries = _entries(read_dict(self._note(kind, name)))
        return entries is not None and fits(path, entries)

    def _differs(self, kind: str, name: str, path: Path) -> str:
        """Why what is kept is not what its name says; empty when it is."""
        entries = _entries(read_dict(self._note(kind, name)))
        if entries is None or not self._whole(kind, name, path):
            return f"{path} is not there, or not whole"
        for entry in entries:
            full = path / entry.name if entry.name else path
            found = "link:" + os.readlink(full) if entry.link else sha256_of(full)
            if found != entry.sha256:
                return f"{full} is not what was sent"
        alone = len(entries) == 1 and not entries[0].name
        is_of = entries[0].sha256 if alone else packing.tree_digest(kind, entries)
        return "" if is_of == name[:64] else f"{path} is not what its name says"

    def _stamp(self, kind: str, name: str) -> None:
        place = self.root / "used" / f"{kind}-{name}"
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()

    def _remove(self, kind: str, name: str) -> None:
        """By one rename, so that it is there whole or not at all."""
        gone = self.root / "gone"
        gone.mkdir(parents=True, exist_ok=True)
        final = self._final(kind, name)
        target = gone / f"{name[:12]}.{os.urandom(4).hex()}"
        with contextlib.suppress(FileNotFoundError):
            if final.is_dir():
                os.chmod(final, 0o755)
            os.replace(final, target)
        for path in (self._note(kind, name), self.root / "used" / f"{kind}-{name}"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        for left in self._listed(gone):
            remove_tree(left)

    def _listed(self, folder: Path) -> List[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError:
            return []

    def _kept(self) -> Iterable[Tuple[str, str, Dict[str, Any], float]]:
        """(kind, name, note, last use) of everything."""
        for path in self._listed(self.root / "notes"):
            kind, _, name = path.name[: -len(".json")].partition("-")
            if kind in KINDS and NAME.fullmatch(name):
                last = 0.0
                with contextlib.suppress(OSError):
                    last = os.stat(self.root / "used" / f"{kind}-{name}").st_mtime
                yield kind, name, read_dict(path), last

    def _used_paths(self) -> Set[str]:
        """Every path that the spec of a live attempt, or of a batch that is not sealed, names."""
        places = []
        for file in self.base.glob("heads/*/*/active/*"):
            with contextlib.suppress(OSError):
                places.append(Path(os.fsdecode(file.read_bytes()).strip()))
        for spec in self.base.glob("heads/*/*/batches/*/spec.json"):
            if not (spec.parent / "manifest.json").exists():
                places.append(spec.parent)
        return {text for place in places for text in _texts(read_json(place / "spec.json", {}))}

    def _job(self, key: str, work: Callable[[], Any], about: Any = None) -> "Optional[_Job]":
        """Have `work` done in a thread. None while it is not done; what it raised is raised here."""
        with self._guard:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(work, about)
        if not job.done.wait(WAIT_S):
            return None
        with self._guard:
            self._jobs.pop(key, None)
        if job.error is not None:
            raise job.error
        return job


class _Job:
    """Something under way in a thread of its own."""

    def __init__(self, work: Callable[[], Any], about: Any) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.error: Optional[BaseException] = None
        self.about = about
        self._work = work
        threading.Thread(target=self._run, name="store", daemon=True).start()

    def _run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:
            self.error = error
        self.done.set()


def _look(upload: Upload) -> None:
    try:
        upload.look()
    except StoreRefused:  # what an earlier transfer left was no beginning; it is removed now
        upload.look()


def _entries(note: Dict[str, Any]) -> Optional[List[Entry]]:
    try:
        return [Entry(str(n), str(h), int(s), bool(x)) for n, h, s, x in note["entries"]]
    except (KeyError, TypeError, ValueError):
        return None


def _size(note: Dict[str, Any]) -> int:
    return sum(e.size for e in _entries(note) or [])


def _is_used(path: str, used: Set[str]) -> bool:
    return any(u == path or u.startswith(path + "/") for u in used)


def _texts(value: Any) -> Iterable[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
