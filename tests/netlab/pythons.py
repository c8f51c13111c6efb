"""Which interpreters lanes can be given, and what of the head's disk each needs to be able to start there."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# What an editable install of ours points to. The rest of the working copy is not a lane's business.
_ROOMS = ("core", "jobs", "kernels", "lab", "lanes")

_ASK = "import sys; print(sys.executable, sys.base_prefix, sys.prefix, '%d.%d' % sys.version_info[:2], sep='\\n')"


def interpreter(which: str | None) -> tuple[str | None, list[str]]:
    """The interpreter of a lane, and the folders that it needs.

    Args:
        which: "base" (the one under the test's own environment: no packages of ours), "venv" (the test's own, with
            every package and ours), "system" (/usr/bin/python3), a path, or None for no Python at all.
    """
    if which is None:
        return None, []
    if which == "system":
        return "/usr/bin/python3", []
    if which == "venv":
        rooms = [str(REPO / room) for room in _ROOMS]
        return sys.executable, [*_outside([sys.base_prefix, sys.prefix]), *rooms]
    if which == "base":
        exe = os.path.realpath(sys.executable)
        return exe, _outside([sys.base_prefix])
    exe, base, prefix, _ = _about(which)
    return exe, _outside([base, prefix])


@functools.cache
def other_minor() -> str | None:
    """Some interpreter of this machine from 3.9 on whose minor version is not ours; None when there is none."""
    places = [*os.environ.get("PATH", "").split(":"), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    seen: dict[int, str] = {}
    for place in places:
        for file in Path(place).glob("python3.*") if place and "shims" not in place else []:
            found = re.fullmatch(r"python3\.(\d+)", file.name)
            if found and os.access(file, os.X_OK):
                seen.setdefault(int(found[1]), str(file))
    # Older first: what a lane has is more often older than the head.
    wanted = [m for m in sorted(seen) if m >= 9 and m != sys.version_info.minor]
    return next((seen[m] for m in wanted if _works(seen[m])), None)


def _outside(folders: list[str]) -> list[str]:
    """Those that are not in a lane anyway, under each of their names, outermost first."""
    names = {name for f in folders for name in (f, os.path.realpath(f))}
    return sorted(n for n in names if n != "/usr" and not n.startswith("/usr/"))


@functools.cache
def _about(exe: str) -> tuple[str, ...]:
    done = subprocess.run([exe, "-I", "-c", _ASK], capture_output=True, text=True, check=True)
    return tuple(done.stdout.splitlines())


def _works(exe: str) -> bool:
    try:
        return bool(_about(exe))
    except (OSError, subprocess.SubprocessError):
        return False
