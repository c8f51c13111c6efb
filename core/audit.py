"""Where the kernel cannot be asked: a hook in every Python process writes down what it opens.

Its text is put into a folder of the run's as `sitecustomize.py`, which Python imports at start-up. Programs that are
not Python, libraries that open files themselves, and Pythons started with -I, -E or -S stay unseen; the outcome then
says `traced: audit`.

Standard library only, Python 3.9: the lane agent carries this module.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from core.declared import Declared

FILE = "LAB_OPENS"  # the environment names the file to which the hook appends

_HOOK = '''\
"""Put here by the job runner: notes which files this program opens (appended to $LAB_OPENS)."""


def _install():
    import os
    import sys

    target = os.environ.get("LAB_OPENS")
    if not target:
        return
    fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    seen = set()
    wronly, rdwr, creat, trunc = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC
    exists, write, fsdecode, getcwd = os.path.lexists, os.write, os.fsdecode, os.getcwd

    def note(letter, path):
        if path.startswith("/") is False:
            path = getcwd() + "/" + path
        if (letter, path) not in seen:
            seen.add((letter, path))
            write(fd, (letter + path.replace("\\n", "?") + "\\n").encode("utf-8", "surrogateescape"))

    def hook(event, args):
        if event == "open":
            path, mode, flags = args
            if not isinstance(path, (str, bytes)):
                return
            path, flags = fsdecode(path), flags or 0
            writes = flags & (wronly | rdwr)
            if (flags & creat and not exists(path)) or (flags & trunc and writes):
                note("w", path)
            elif not flags & wronly:
                note("r", path)
        elif event == "import" and len(args) > 1 and isinstance(args[1], str):
            note("r", args[1])
        elif event in ("os.rename", "os.link") and isinstance(args[0], str) and isinstance(args[1], str):
            if exists(args[0]):
                note("m", args[0] + "\\t" + os.path.abspath(args[1]))

    for place in {sys.prefix, sys.base_prefix}:
        note("p", place)
    note("x", sys.executable)
    sys.addaudithook(hook)


def _chain():
    """Import the sitecustomize that this one hides, if there is one."""
    import importlib.machinery
    import importlib.util
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [p for p in sys.path if os.path.abspath(p or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


try:
    _install()
except Exception:
    pass
_chain()
'''


def install(folder: Path) -> Path:
    """Write the hook into `folder`, which is to be first on PYTHONPATH. Returns the file that it will fill."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    return folder / "opens.txt"


def replay(file: Path, declared: Declared) -> int:
    """Tell `declared` what the hooks wrote down. Returns how many lines that were."""
    lines = 0
    with contextlib.suppress(OSError), open(file, encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            lines += 1
            letter, path = line[0], line[1:].rstrip("\n")
            if letter == "p":
                declared.prefix(path)
            elif letter == "x":
                declared.ran(path)
            elif letter == "w":
                declared.made(path)
            elif letter == "m" and "\t" in path:
                old, new = path.split("\t", 1)
                declared.renamed(old, new, folder=os.path.isdir(new))
            elif letter == "r":
                declared.read(os.path.abspath(path))
    return lines
