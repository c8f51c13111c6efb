"""The Python interpreters of a lane: which there are, and what each says of itself.

Each is run (`-I -S`: nobody's packages, nobody's start-up files) and asked; a name or a version in a path is not
believed. What it answers is enough for the head to choose wheels for it and to evaluate the markers of a lock.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional

ASK_S = 30.0
OLDEST = (3, 11)  # what kinds run on
_MOST = 24
_MARK = "lab-facts:"
_NAMES = re.compile(r"python3(\.\d+)?t?")

# Where interpreters lie that are not on the PATH of a login that runs one command.
_PLACES = (
    "/usr/local/bin/python3*",
    "/usr/bin/python3*",
    "/opt/homebrew/bin/python3*",
    "/opt/python*/bin/python3*",
    "~/.pyenv/versions/*/bin/python3",
    "~/.local/bin/python3*",
    "~/.local/share/uv/python/*/bin/python3",
    "~/miniforge3/bin/python3",
    "~/miniconda3/bin/python3",
)

# Runs on any Python 3 (what is too old is told apart by its version), on stdin and stdout that may be noisy.
_FACTS = r"""
import json, os, platform, sys, sysconfig
lacks = []
for name in ("zlib", "ctypes", "hashlib", "ssl", "venv", "ensurepip"):
    try:
        __import__(name)
    except Exception:
        lacks.append(name)
v = sys.version_info
full = "%d.%d.%d" % v[:3]
if v[3] != "final":
    full += {"alpha": "a", "beta": "b", "candidate": "rc"}[v[3]] + str(v[4])
impl = getattr(sys, "implementation", None)
print("lab-facts:" + json.dumps({
    "python": sys.executable,
    "version": full,
    "implementation": impl.name if impl else "cpython",
    "platform": sysconfig.get_platform(),
    "libc": list(platform.libc_ver()),
    "macos": platform.mac_ver()[0],
    "soabi": sysconfig.get_config_var("SOABI") or "",
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "bits": 64 if sys.maxsize > 2 ** 32 else 32,
    "lacks": lacks,
    "markers": {
        "implementation_name": impl.name if impl else "cpython",
        "implementation_version": full,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    },
}))
"""

# What is installed beside an interpreter: {name: version or null}.
_LOOK = r"""
import json, sys
import importlib.metadata as m
found = {}
for name in json.loads(sys.argv[1]):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        found[name] = None
print("lab-facts:" + json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "packages": found}))
"""


class BadPython(Exception):
    """An interpreter that cannot be used; the message is one sentence."""


def ask(python: str) -> Dict[str, Any]:
    """What the interpreter at `python` (a path, or a name on PATH) says of itself.

    Raises:
        BadPython: it is not there, cannot be run, or does not answer.
    """
    return _said(python, ["-I", "-S", "-c", _FACTS])


def look(python: str, names: List[str]) -> Dict[str, Any]:
    """{"version", "packages": {name: installed version or None}} of an interpreter with its packages.

    Raises:
        BadPython: as `ask`.
    """
    return _said(python, ["-I", "-c", _LOOK, json.dumps(list(names))])


def find(asked: Optional[str] = None) -> List[Dict[str, Any]]:
    """All interpreters of this machine, or only the one that was asked for, as `ask` describes them.

    What cannot be used comes as {"python": path, "problem": sentence}; the same interpreter under several names comes
    once.
    """
    names = [os.path.expanduser(asked)] if asked else candidates()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(_try, names))
    found: Dict[str, Dict[str, Any]] = {}
    for name, answer in zip(names, answers):
        found.setdefault(os.path.realpath(str(answer.get("python") or name)), answer)
    return list(found.values())


def candidates() -> List[str]:
    """Paths at which a Python 3 may lie, the one that runs us first; of somebody's own venv, what it stands on."""
    ours = str(getattr(sys, "_base_executable", "") or sys.executable)
    out: List[str] = [ours] if ours else []
    for folder in (os.environ.get("PATH") or os.defpath).split(os.pathsep):
        if os.path.isabs(folder):
            out += _pythons(os.path.join(folder, "python3*"))
    for place in _PLACES:
        out += _pythons(os.path.expanduser(place))
    seen: Dict[str, str] = {}
    for path in out:
        if os.path.exists(os.path.join(os.path.dirname(os.path.dirname(path)), "pyvenv.cfg")):
            continue
        seen.setdefault(os.path.realpath(path), path)
    return list(seen.values())[:_MOST]


def _pythons(pattern: str) -> List[str]:
    # The newest first: 3.9 sorts after 3.11 as text, so by number.
    found = [p for p in glob.glob(pattern) if _NAMES.fullmatch(os.path.basename(p)) and os.access(p, os.X_OK)]
    return sorted(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p)], reverse=True)


def _try(python: str) -> Dict[str, Any]:
    try:
        return ask(python)
    except BadPython as error:
        return {"python": python, "problem": str(error)}


def _said(python: str, args: List[str]) -> Dict[str, Any]:
    path = python if os.sep in python else shutil.which(python) or python
    if os.sep not in path:
        raise BadPython("there is no %s on the PATH of this lane" % python)
    if not os.path.exists(path):
        what = "is a link to nothing" if os.path.islink(path) else "is not there"
        raise BadPython("the interpreter %s %s" % (path, what))
    try:
        done = subprocess.run(
            [path, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=ASK_S,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise BadPython("the interpreter %s does not answer within %d s" % (path, ASK_S)) from None
    except OSError as error:
        raise BadPython("the interpreter %s cannot be run: %s" % (path, error.strerror)) from error
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith(_MARK):
            try:
                found: Dict[str, Any] = json.loads(line[len(_MARK) :])
                return found
            except ValueError:
                break
    why = last_line(done.stderr) or "exit %d" % done.returncode
    raise BadPython("the interpreter %s is broken: %s" % (path, why))


def last_line(blob: bytes) -> str:
    """The last line of what a program complained, shortened."""
    lines = [line.strip() for line in blob.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
