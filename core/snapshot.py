"""Snapshots of code: what a job runs from, so that editing during a run changes nothing.

A snapshot is a folder `code/STORE/` of the home, named by the digest of everything in it, made under another name and
renamed into place: it is there whole or not at all, and the same code is stored once. There are two sorts: the user's
code root (tracked and unignored files), and our own packages together with the one that holds the kind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from core.digests import Digests
from core.errors import BadInput, DiskFull
from core.fsio import digest, fsync_dir, no_space
from core.git import Git, GitError, git_of
from core.home import Home
from core.spec import CodeRef

MAX_BYTES = 200 << 20
MAX_FILES = 20_000
# Never part of anybody's code, whether git is asked or not.
JUNK_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", "__pycache__", ".venv", "venv", ".tox", ".nox", "node_modules", ".lab"),
        *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".ipynb_checkpoints", ".eggs"),
    }
)
JUNK_FILES = (".pyc", ".pyo", ".swp", "~")
_SYNC_EACH = 200  # with more files, one sync of everything is faster than one for each


@dataclass(frozen=True)
class Entry:
    """One file of a listing: where it goes, what it holds, and whether it may be executed."""

    name: str
    source: Path
    sha256: str  # or `link:TARGET`
    size: int
    executable: bool = False

    @property
    def row(self) -> list[object]:
        return [self.name, self.sha256, self.executable]


@dataclass(frozen=True)
class Listing:
    """Everything that a snapshot holds, in sorted order, and what was left out of it with the reason."""

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()
    git: Git | None = None

    @property
    def store(self) -> str:
        return digest([e.row for e in self.entries])

    @property
    def size(self) -> int:
        return sum(e.size for e in self.entries)


@dataclass
class _Found:
    files: dict[str, tuple[Path, os.stat_result]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """Code as it lies there now: what the journal will say of it, and what is to be stored."""

    ref: CodeRef
    listing: Listing

    def store(self, home: Home) -> bool:
        """Put it into the home's store. False when a file changed since it was listed: look again.

        Raises:
            DiskFull: nothing was stored.
        """
        return _store(home, self.listing)


def look_at_root(root: Path, digests: Digests, *, home: Home | None = None, subdir: str = "") -> Snapshot:
    """The snapshot that the code root `root` would make now. Writes nothing.

    Args:
        home: left out where it lies inside the root, and so is the cluster.yaml in use.
        subdir: where in it the submit was made.

    Raises:
        BadInput: the root is not a folder, cannot be read, or holds more than belongs into a snapshot.
    """
    listing = list_root(root, digests, home=home)
    git = listing.git
    ref = CodeRef(
        digest=listing.store,
        store=listing.store,
        root=str(root),
        subdir=subdir,
        commit=git.commit if git else None,
        dirty=git.dirty if git else False,
    )
    return Snapshot(ref, listing)


def list_root(root: Path, digests: Digests, *, home: Home | None = None) -> Listing:
    """What a snapshot of `root` would hold: what git tracks or does not ignore, else all but obvious junk."""
    if not root.is_dir():
        raise BadInput(f"the code root {root} is not a folder", hint="name an existing folder with --code")
    # What the runner itself keeps is nobody's code, even where git was not told to ignore it.
    own = _below(root, home.path) if home is not None else ""
    found = _Found()
    try:
        git = git_of(root, without=own)
        if git is not None and not git.tracked and not git.untracked and not (root / ".git").exists():
            git = None  # a folder that the repository around it ignores, named all the same
        _collect(root, "", git, found, own)
    except GitError as error:
        raise BadInput(
            f"git cannot list the code root {root}: {error}", hint="mend that, or name another root with --code"
        ) from error
    if home is not None and home.cluster_file is not None:
        # Which lanes there are is no part of what a job computes: declaring one must not make every result stale.
        found.files.pop(_below(root, home.cluster_file), None)
    _refuse_large(root, found)
    return Listing(tuple(_entries(found, digests)), tuple(found.left_out), git)


def git_ignores(root: Path, listing: Listing, subdir: str) -> bool:
    """Does `subdir` of the repository hold files, none of which git lists? It is a scratch folder, then."""
    if listing.git is None or not subdir:
        return False
    listed = any(e.name.startswith(f"{subdir}/") for e in listing.entries)
    return not listed and any(not _is_junk(n) for n in _walk(root / subdir, ""))


def store_path(home: Home, store: str) -> Path:
    return home.code / store


def walk_package(folder: Path, prefix: str, digests: Digests) -> list[Entry]:
    """All files of a Python package but its caches, named `prefix/...`."""
    found = _Found()
    _collect(folder, "", None, found)
    _refuse_large(folder, found)
    return [Entry(f"{prefix}/{e.name}", e.source, e.sha256, e.size, e.executable) for e in _entries(found, digests)]


def _collect(root: Path, prefix: str, git: Git | None, found: _Found, own: str = "") -> None:
    """Gather the files below `root`, with lstat, each under `prefix`; a listed folder is a repository of its own."""
    real_root = os.path.realpath(root)
    names = _walk(root, own) if git is None else (*git.tracked, *(n for n in git.untracked if not _is_junk(n)))
    for name in names:
        full = root / name
        try:
            info = full.lstat()
        except OSError:
            continue  # tracked, but deleted in the working folder
        if stat.S_ISDIR(info.st_mode):
            if name.rstrip("/") != own:
                _collect(
                    full, f"{prefix}{name.rstrip('/')}/", git_of(full) if (full / ".git").exists() else None, found
                )
        elif stat.S_ISLNK(info.st_mode):
            target = os.path.realpath(full)
            if target != real_root and not target.startswith(real_root + os.sep):
                found.left_out.append(f"{prefix}{name} is a link that leads outside, to {target}")
            else:
                found.files[prefix + name] = (full, info)
        elif stat.S_ISREG(info.st_mode):
            found.files[prefix + name] = (full, info)
        else:
            found.left_out.append(f"{prefix}{name} is neither a file nor a link")
        if len(found.files) > 5 * MAX_FILES:
            return  # far beyond the limit already: no need to see all of it


def _walk(root: Path, own: str) -> Iterable[str]:
    for folder, names, files in os.walk(root):
        rel = os.path.relpath(folder, root)
        base = "" if rel == "." else f"{rel}/"
        links = [n for n in names if os.path.islink(os.path.join(folder, n))]
        names[:] = sorted(n for n in names if n not in links and not _is_junk(f"{n}/") and base + n != own)
        yield from (base + n for n in sorted(files + links) if not _is_junk(n))


def _is_junk(name: str) -> bool:
    """Is this what tools leave behind? Asked of what git does not track."""
    *folders, last = name.split("/")
    return last.endswith(JUNK_FILES) or any(f in JUNK_FOLDERS or f.endswith(".egg-info") for f in folders)


def _below(root: Path, path: Path) -> str:
    """`path` relative to `root`, or "" when it does not lie below it."""
    rel = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    return "" if rel == "." or rel == ".." or rel.startswith("../") else rel


def _entries(found: _Found, digests: Digests) -> Iterable[Entry]:
    for name in sorted(found.files):
        full, info = found.files[name]
        if stat.S_ISLNK(info.st_mode):
            # An absolute link into the root would lead back to the files that may be edited.
            target = os.readlink(full)
            if os.path.isabs(target):
                target = os.path.relpath(os.path.realpath(full), os.path.realpath(full.parent))
            yield Entry(name, full, f"link:{target}", 0)
            continue
        try:
            content = digests.file(full)
        except OSError as error:
            raise BadInput(
                f"{full}, part of the code, cannot be read: {error.strerror}",
                hint="let git ignore it, or make it readable",
            ) from error
        yield Entry(name, full, content.sha256, content.size, bool(info.st_mode & 0o100))


def _refuse_large(root: Path, found: _Found) -> None:
    count = len(found.files)
    total = sum(info.st_size for _, info in found.files.values())
    if count <= MAX_FILES and total <= MAX_BYTES:
        return
    sizes: dict[str, list[int]] = {}
    for name, (_, info) in found.files.items():
        top = name.split("/", 1)[0] + "/" if "/" in name else "files beside them"
        entry = sizes.setdefault(top, [0, 0])
        entry[0] += info.st_size
        entry[1] += 1
    by_size = total > MAX_BYTES
    largest = sorted(sizes.items(), key=lambda kv: kv[1][0 if by_size else 1], reverse=True)[:5]
    named = ", ".join(f"{name} {size / (1 << 20):,.0f} MB in {n:,} files" for name, (size, n) in largest)
    limits = f"{MAX_BYTES >> 20} MB or {MAX_FILES:,} files"
    raise BadInput(
        f"the code root {root} holds {total / (1 << 20):,.0f} MB in {count:,} files, more than the {limits} of a "
        f"snapshot; the largest folders are {named}",
        hint="name those in .gitignore, declare data with --input, or name a smaller root with --code FOLDER "
        "(--code none for no code)",
    )


def _store(home: Home, listing: Listing) -> bool:
    """Write `listing` under its digest. False when a file was no longer what was listed."""
    final = store_path(home, listing.store)
    # Looks young from now on: retention leaves it alone until the job that is to name it is in the journal.
    with contextlib.suppress(OSError):
        os.utime(final)
    if _is_whole(final, listing):
        return True
    home.code.mkdir(parents=True, exist_ok=True)
    tmp = home.code / f".{listing.store[:12]}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        tmp.mkdir()
        if not _fill(tmp, listing):
            return False
        try:
            tmp.rename(final)
        except OSError:
            if not _is_whole(final, listing):  # else another process was first; theirs is as good
                if not final.exists():
                    raise
                # Somebody touched it: it is kept aside, for people.
                final.rename(home.code / f".damaged.{final.name[:12]}.{os.urandom(4).hex()}")
                tmp.rename(final)
        fsync_dir(home.code)
        return True
    except OSError as error:
        if no_space(error):
            raise DiskFull(
                f"the disk of {home.path} is full: the code could not be stored", hint="free some space"
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(tmp)


def _fill(tmp: Path, listing: Listing) -> bool:
    folders = {tmp}
    each = len(listing.entries) <= _SYNC_EACH
    for entry in listing.entries:
        target = tmp / entry.name
        if target.parent not in folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.add(target.parent)
        if entry.sha256.startswith("link:"):
            os.symlink(entry.sha256[5:], target)
            continue
        h = hashlib.sha256()
        try:
            with entry.source.open("rb", buffering=0) as source, target.open("xb", buffering=0) as out:
                while block := source.read(1 << 20):
                    h.update(block)
                    view = memoryview(block)
                    while view:
                        view = view[out.write(view) :]
                if each:
                    os.fsync(out.fileno())
        except FileNotFoundError:
            return False
        if h.hexdigest() != entry.sha256:
            return False
        target.chmod(0o755 if entry.executable else 0o644)
    if each:
        for folder in folders:
            fsync_dir(folder)
    else:
        os.sync()
    return True


def _is_whole(folder: Path, listing: Listing) -> bool:
    """Is everything there, by name and size? What it costs to catch a half-removed store at each submit."""
    base = str(folder)
    try:
        for entry in listing.entries:
            info = os.lstat(f"{base}/{entry.name}")  # noqa: PTH116 - thousands of times
            if entry.sha256.startswith("link:"):
                if not stat.S_ISLNK(info.st_mode):
                    return False
            elif info.st_size != entry.size or not stat.S_ISREG(info.st_mode):
                return False
    except OSError:
        return False
    return bool(listing.entries) or folder.is_dir()
