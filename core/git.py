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
    """The answer for one folder.

    Attributes:
        tracked: names relative to the folder that was asked about (a submodule's name is a folder's).
        untracked: there, and not ignored; a nested repository ends with `/`.
        commit: None before the first commit.
        dirty: something differs from that commit, untracked files included.
    """

    tracked: tuple[str, ...]
    untracked: tuple[str, ...]
    commit: str | None
    dirty: bool


def top_of(folder: Path) -> Path | None:
    """The nearest folder at or above `folder` that holds a repository, without starting git."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    return None


def git_of(folder: Path, *, without: str = "") -> Git | None:
    """What git says of `folder`, apart from `without` below it; None where there is no repository, or no git.

    Raises:
        GitError: git refuses (the repository of another user, a damaged index).
    """
    if top_of(folder.resolve()) is None:
        return None
    # GIT_DIR and its kin, set inside hooks, would have git speak of another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    base = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-C", str(folder)]
    paths = [".", f":(exclude,literal){without}"] if without else ["."]
    try:
        # Both at once: together they are most of what a warm submit costs.
        listing = _start(
            [*base, "ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard", "--", *paths], env
        )
        status = _start(
            [*base, "status", "-z", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", *paths], env
        )
    except FileNotFoundError:
        return None
    answers = [_finish(listing), _finish(status)]
    for code, _, error in answers:
        if code != 0:
            raise GitError(error.strip().splitlines()[0] if error.strip() else f"git exits {code}")
    names, lines = (text.split("\0") for _, text, _ in answers)
    commit = next((line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), "")
    dirty = any(line and not line.startswith("#") for line in lines)
    return Git(
        # Each name has a tag and a space before it; of a merge conflict there are three with one name.
        tracked=tuple(dict.fromkeys(n[2:] for n in names if n and n[0] != "?")),
        untracked=tuple(n[2:] for n in names if n[:1] == "?"),
        commit=None if commit in ("", "(initial)") else commit,
        dirty=dirty,
    )


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate()
    return process.returncode, os.fsdecode(out), os.fsdecode(err)
