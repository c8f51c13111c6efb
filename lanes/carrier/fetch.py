"""From a sealed run directory on a lane to the same one on the head, every byte compared with the seal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from core.failpoint import failpoint
from core.fsio import fsync_dir, no_space, read_json, sha256_file, walk_files, write_atomic
from core.rundir import SEALED_FILES, SEALED_FOLDERS, verify_manifest
from lanes.agent.trees import remove_tree
from lanes.carrier.copy import Copy
from lanes.carrier.errors import BadHarvest
from lanes.carrier.mirror import MANIFEST_LIMIT, check_name
from lanes.carrier.pull import Pull, Wrong
from lanes.harvest import NoRoom

_SMALL = 64 << 10  # files up to this are read many at once
_AT_ONCE = 512 << 10  # bytes of small files in one answer
_GROWING = ("log.txt", "metrics.jsonl")
# What a lane may not have changed of the spec: the rest is where things lie there.
_ORDERED = ("kind", "entry", "params", "key", "limits", "env", "outputs", "expect", "grant", "kind_digest")


class Fetch:
    """One attempt's harvest.

    Args:
        there: gives its run directory on the lane.
        expect: what the seal must name beside job and attempt: "nonce" and "key".
        count: told of bytes as they are here: (done, in all).
    """

    def __init__(
        self,
        copy: Copy,
        there: Callable[[], str],
        pull: Pull,
        expect: dict[str, Any],
        count: Callable[[int, int], None],
    ) -> None:
        self._copy = copy
        self._run = copy.run
        self._there = there
        self._pull = pull
        self._expect = expect
        self._count = count
        self._done = 0
        self._total = 0

    def run(self) -> None:
        """Return when everything sealed is here, verified and durable, the manifest last.

        Raises:
            BadHarvest: there is no seal, it is of something else, or its bytes are not what it names.
            NoRoom: our disk is full. LinkDown, LinkRefused.
        """
        try:
            self._fetch()
        except OSError as error:
            if no_space(error):
                raise NoRoom(f"the head's disk is full: {error}") from error
            raise

    def _fetch(self) -> None:
        if self._is_here():
            return
        blob = self._pull.all(f"{self._there()}/manifest.json", MANIFEST_LIMIT)
        manifest = self._manifest(blob)
        files: dict[str, list[Any]] = manifest["files"]
        self._run.path.mkdir(parents=True, exist_ok=True)
        if self._run.manifest.exists():
            self._run.manifest.unlink()  # it did not verify
        self._total = sum(int(size) for _, size in files.values())
        self._refuse_other_spec(files)
        missing = []
        for name, (want, size) in files.items():
            if str(want).startswith("link:"):
                self._link(name, str(want)[len("link:") :])
            elif not self._is_right(name, str(want), int(size)):
                missing.append(name)
            else:
                self._progress(int(size))
        small = [n for n in missing if int(files[n][1]) <= _SMALL and not self._begun(n, files)]
        late = [n for n in missing if n not in set(small)]
        late += self._small(small, files)
        for name in late:
            self._large(name, str(files[name][0]), int(files[name][1]))
        self._remove_others(files)
        for name in manifest.get("executable") or ():
            _make_executable(self._run.path / name)
        self._sync(files)
        failpoint("carrier.before_manifest")
        write_atomic(self._run.manifest, blob)
        self._copy.forget_partial()

    # Is it what it should be?

    def _is_here(self) -> bool:
        """Was it fetched before?"""
        manifest = read_json(self._run.manifest)
        if not isinstance(manifest, dict) or self._foreign(manifest):
            return False
        try:
            return verify_manifest(self._run, manifest) == []
        except (KeyError, TypeError, ValueError, AttributeError):
            return False

    def _manifest(self, blob: bytes) -> dict[str, Any]:
        at = f"attempt {self._copy.key}"
        try:
            manifest = json.loads(blob)
            files = manifest["files"]
            folders: set[str] = set()
            for name, (want, size) in files.items():
                _check(name, want, size)
                folders.update(str(p) for p in Path(name).parents)
            below = folders & files.keys()
            if below:
                raise ValueError(f"{min(below)!r} is both a file and a folder")
            for name in manifest.get("executable") or ():
                if not name.startswith("artifacts/") or files[name][0].startswith("link:"):
                    raise ValueError(f"{name!r} cannot be executable")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadHarvest(f"the manifest of {at} on the lane cannot be understood: {error}") from error
        wrong = self._foreign(manifest)
        if wrong:
            raise BadHarvest(wrong)
        if "spec.json" not in files:
            raise BadHarvest(f"the manifest of {at} on the lane seals nothing: spec.json is not in it")
        return dict(manifest)

    def _foreign(self, manifest: dict[str, Any]) -> str:
        want = {"job": self._copy.job, "attempt": self._copy.n, **self._expect}
        for name, value in want.items():
            if value is not None and manifest.get(name) != value:
                return f"the seal on the lane is of {name} {manifest.get(name)}, not {value}"
        return ""

    def _refuse_other_spec(self, files: dict[str, list[Any]]) -> None:
        """What was asked for is the head's to say: an attempt that ran by another spec is none of ours."""
        ours = read_json(self._run.spec)
        if not isinstance(ours, dict) or self._is_right("spec.json", *files["spec.json"]):
            return
        theirs = json.loads(self._pull.all(f"{self._there()}/spec.json", MANIFEST_LIMIT))
        for name in _ORDERED:
            if ours.get(name) != theirs.get(name):
                raise BadHarvest(f"attempt {self._copy.key} ran by another spec on the lane: its {name} differs")

    def _is_right(self, name: str, want: str, size: int) -> bool:
        path = self._run.path / name
        try:
            info = path.lstat()
            if path.is_symlink() or not path.is_file() or info.st_size != size or self._through_link(name):
                return False
            return sha256_file(path) == want
        except OSError:
            return False

    def _through_link(self, name: str) -> bool:
        return any((self._run.path / p).is_symlink() for p in Path(name).parents)

    # Bringing it.

    def _begun(self, name: str, files: dict[str, list[Any]]) -> bool:
        """Is some of it here already?"""
        return name in _GROWING or (self._copy.partial / str(files[name][0])).exists()

    def _small(self, names: list[str], files: dict[str, list[Any]]) -> list[str]:
        """Files that fit into one answer together. Returns the names of those that did not arrive right."""
        wrong = []
        for group in _groups(names, files):
            for name, blob in self._pull.many(self._copy.job, self._copy.n, group):
                want, size = str(files[name][0]), int(files[name][1])
                if blob is None or len(blob) != size:
                    wrong.append(name)
                    continue
                waiting = self._copy.partial / want
                waiting.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(waiting, blob)
                if sha256_file(waiting) != want:
                    waiting.unlink()
                    wrong.append(name)
                    continue
                self._place(waiting, name)
                self._progress(size)
        return wrong

    def _large(self, name: str, want: str, size: int) -> None:
        path = self._run.path / name
        staged = self._staged(name)
        if staged is not None and sha256_file(staged) == want:
            self._place(staged, name)
            self._progress(size)
            return
        # Logs and rows go on where the mirror is; what does not fit is brought as a whole.
        grown = name in _GROWING and path.is_file() and not path.is_symlink() and path.stat().st_size <= size
        waiting = path if grown else self._copy.partial / want
        before = self._done
        for last in (False, True):
            try:
                self._done = before
                self._pull.file(f"{self._there()}/{name}", waiting, size=size, sha256=want, count=self._progress)
                break
            except Wrong:
                if last:
                    message = f"{name} of attempt {self._copy.key} is not on the lane as it was sealed"
                    raise BadHarvest(message) from None
                waiting = self._copy.partial / want
            except NoRoom:
                if waiting != path:
                    waiting.unlink(missing_ok=True)
                raise
        if waiting != path:
            self._place(waiting, name)

    def _staged(self, name: str) -> Path | None:
        """A file of a checkpoint that the mirror had begun to bring."""
        parts = name.split("/")
        if parts[0] == "checkpoints" and len(parts) > 2:
            path = self._copy.partial.joinpath(f"checkpoint-{parts[1]}", *parts[2:])
            if path.is_file():
                return path
        return None

    def _link(self, name: str, target: str) -> None:
        path = self._run.path / name
        if path.is_symlink() and os.readlink(path) == target and not self._through_link(name):
            return
        self._clear(name)
        path.symlink_to(target)

    def _place(self, waiting: Path, name: str) -> None:
        self._clear(name)
        waiting.replace(self._run.path / name)

    def _clear(self, name: str) -> None:
        """Make room for `name`: its folders are folders, and nothing else has its place."""
        for folder in reversed(Path(name).parents):
            path = self._run.path / folder
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                path.unlink()
            path.mkdir(exist_ok=True)
        path = self._run.path / name
        if path.is_symlink() or path.is_dir():
            remove_tree(path)

    def _remove_others(self, files: dict[str, list[Any]]) -> None:
        """What the seal does not name (an older checkpoint of which the program has let go) would spoil it."""
        for folder in SEALED_FOLDERS:
            root = self._run.path / folder
            if root.is_dir() and not root.is_symlink():
                for rel in list(walk_files(root)):
                    if f"{folder}/{rel.as_posix()}" not in files:
                        remove_tree(root / rel)
            root.mkdir(exist_ok=True)
        for name in SEALED_FILES:
            if name not in files:
                (self._run.path / name).unlink(missing_ok=True)

    def _sync(self, files: dict[str, list[Any]]) -> None:
        folders = {self._run.path}
        for name, (want, _) in files.items():
            path = self._run.path / name
            folders.update(self._run.path / p for p in Path(name).parents)
            if not str(want).startswith("link:"):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        for folder in folders:
            fsync_dir(folder)

    def _progress(self, size: int) -> None:
        self._done += size
        self._count(self._done, self._total)


def _make_executable(path: Path) -> None:
    """For everybody who may read it."""
    mode = path.stat().st_mode & 0o777
    path.chmod(mode | (mode & 0o444) >> 2)


def _groups(names: list[str], files: dict[str, list[Any]]) -> Iterable[list[str]]:
    group: list[str] = []
    size = 0
    for name in names:
        mine = int(files[name][1])
        if group and size + mine > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(name)
        size += mine
    if group:
        yield group


def _check(name: Any, want: Any, size: Any) -> None:
    """One row of a manifest.

    Raises:
        ValueError: with a sentence.
    """
    check_name(name)
    top = str(name).split("/", 1)
    if name not in SEALED_FILES and not (len(top) == 2 and top[0] in SEALED_FOLDERS):
        raise ValueError(f"{str(name)[:200]!r} is not a place of sealed files")
    if isinstance(want, str) and want.startswith("link:"):
        if top[0] == "results" or len(top) == 1:
            raise ValueError(f"{name!r} is a link where a file belongs")
        if "\0" in want or len(want) == len("link:"):
            raise ValueError(f"{name!r} is no link")
    elif not isinstance(want, str) or not re.fullmatch(r"[0-9a-f]{64}", want):
        raise ValueError(f"{name!r} has no digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{name!r} has no size")
