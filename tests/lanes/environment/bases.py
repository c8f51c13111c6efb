"""Interpreters to make environments from: the one that runs the tests, one without venv, ensurepip and pip, others."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = os.path.realpath(sys.executable)
_GONE = {"ensurepip", "venv", "site-packages", "dist-packages", "__pycache__", "EXTERNALLY-MANAGED"}


def bare_python(folder: Path) -> str:
    """A Python as a small system has it: no `venv`, no `ensurepip`, no pip, nothing installed.

    The interpreter is a copy in a place of its own, and its library a folder of links to everything else.
    """
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / name
    library.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / name).write_bytes(Path(HERE).read_bytes())
    (folder / "bin" / name).chmod(0o755)
    for entry in Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix})).iterdir():
        if entry.name not in _GONE:
            (library / entry.name).symlink_to(entry)
    for entry in Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent").glob("libpython*.so*"):
        (folder / "lib" / entry.name).symlink_to(entry)
    (library / "site-packages").mkdir()
    return str(folder / "bin" / name)


def other_python(minor: str) -> str:
    """An interpreter of another minor version. Skips where there is none."""
    import shutil

    places = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{minor}.*/bin/python3"))
    found = next((str(p) for p in places), None) or shutil.which(f"python{minor}")
    if found is None or "shims" in found:
        pytest.skip(f"there is no Python {minor} on this machine")
    return found
