"""What git says of a folder: the files that belong to it, the commit, and whether something was changed since."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


class GitError(Exception):
    """Git is there, and the folder is a repository, but git cannot list it. The text is git's own."""


@dataclass(frozen=True)
class Git:
    """Attributes:
    files: tracked and unignored, relative to the folder that was asked about; a nested repository ends with `/`.
    commit: None before the first commit.
    dirty: something differs from that commit, untracked files included.
    """

    files: tuple[str, ...]
    commit: str | None
    dirty: bool


def top_of(folder: Path) -> Path | None:
    """The nearest folder at or above `folder` that holds a repository, without starting git."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    return None


def git_of(folder: Path) -> Git | None:
    """What git says of `folder`; None where there is no repository, or no git.

    Raises:
        GitError: git refuses (the repository of another user, a damaged index).
    """
    if top_of(folder.resolve()) is None:
        return None
    # GIT_DIR and its kin, set inside hooks, would have git speak of another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    base = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-C", str(folder)]
    try:
        # Both at once: together they are most of what a warm submit costs.
        listing = _start([*base, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"], env)
        status = _start(
            [*base, "status", "-z", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", "."], env
        )
    except FileNotFoundError:
        return None
    names = _finish(listing)
    lines = _finish(status).split("\0")
    commit = next((line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), "")
    files = tuple(name for name in names.split("\0") if name)
    dirty = any(line and not line.startswith("#") for line in lines)
    return Git(files, None if commit in ("", "(initial)") else commit, dirty)


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[bytes]) -> str:
    out, err = process.communicate()
    if process.returncode != 0:
        raise GitError(os.fsdecode(err).strip().splitlines()[0] if err.strip() else f"git exits {process.returncode}")
    return os.fsdecode(out)
