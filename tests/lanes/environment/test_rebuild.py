"""A wheel made of what is installed: installing it gives the same files, and what was changed is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from core.errors import BadInput
from core.fsio import sha256_file
from lanes.environment import rebuild as rebuilding
from lanes.environment.lock import Lock, Pin
from lanes.environment.rebuild import CannotRebuild, Installed, installed, rebuild
from lanes.environment.target import Target
from lanes.environment.wheels import NoWheel, Wheelhouse


def venv(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def install(python: Path, *wheels: Path) -> None:
    house = Wheelhouse(python.parent.parent.parent / "keep")
    pip = house.pip().path
    run = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('pip', run_name='__main__')"
    argv = [str(python), "-I", "-c", run, str(pip), "install", "--no-index", "--no-deps", *map(str, wheels)]
    subprocess.run(argv, check=True, capture_output=True)


def text(blob: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def at(site: Path, name: str) -> importlib.metadata.Distribution:
    return next(iter(importlib.metadata.Distribution.discover(name=name, path=[str(site)])))


@pytest.fixture
def odd_wheel(tmp_path: Path) -> Path:
    """A wheel with everything that a wheel may have: entry point, scripts, data, headers, a file that may be run."""
    path = tmp_path / "odd_one-1.2+here-2-py3-none-any.whl"
    files = {
        "odd_one/__init__.py": b"WORD = 'odd'\ndef main(): print(WORD)\n",
        "odd_one/tool": b"#!/bin/sh\necho tool\n",
        "odd_one-1.2+here.data/scripts/odd-script": b"#!python\nimport odd_one; print(odd_one.WORD + ' script')\n",
        "odd_one-1.2+here.data/scripts/odd-shell": b"#!/bin/sh\necho shell\n",
        "odd_one-1.2+here.data/data/share/odd/data.txt": b"data\n",
        "odd_one-1.2+here.data/headers/odd.h": b"/* odd */\n",
        "odd_one-1.2+here.dist-info/METADATA": b"Metadata-Version: 2.1\nName: odd-one\nVersion: 1.2+here\n",
        "odd_one-1.2+here.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\nBuild: 2\n",
        "odd_one-1.2+here.dist-info/entry_points.txt": b"[console_scripts]\nodd-entry = odd_one:main\n",
    }
    with zipfile.ZipFile(path, "w") as z:
        for name, blob in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name.endswith(("tool", "odd-shell", "odd-script")) else 0o100644) << 16
            z.writestr(entry, blob)
        rows = "".join(f"{n},sha256={text(blob)},{len(blob)}\n" for n, blob in files.items())
        z.writestr("odd_one-1.2+here.dist-info/RECORD", rows)
    return path


@pytest.fixture
def odd(tmp_path: Path, odd_wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The same as installed by pip, found as this process would find its own."""
    python = venv(tmp_path / "one")
    install(python, odd_wheel)
    site = next((tmp_path / "one" / "lib").glob("python*/site-packages"))
    ours = importlib.metadata.distribution

    def find(name: str) -> importlib.metadata.Distribution:
        return at(site, name) if name == "odd-one" else ours(name)

    monkeypatch.setattr(rebuilding.importlib.metadata, "distribution", find)
    return installed("odd-one")


def outputs(python: Path) -> list[str]:
    folder = python.parent
    said = []
    for argv in (["odd-entry"], ["odd-script"], ["odd-shell"]):
        said.append(subprocess.run([str(folder / argv[0])], capture_output=True, text=True, check=True).stdout.strip())
    return said


def test_installed_rebuilt_installed_again(tmp_path: Path, odd: Installed) -> None:
    assert odd.file == "odd_one-1.2+here-2-py3-none-any.whl"
    assert parse_wheel_filename(odd.file)[2] == (2, "")
    path = tmp_path / odd.file
    rebuild(odd, path)
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        names = set(z.namelist())
        record = {row[0]: row for row in csv.reader(io.StringIO(z.read("odd_one-1.2+here.dist-info/RECORD").decode()))}
        assert z.read("odd_one-1.2+here.data/scripts/odd-script").startswith(b"#!python\n")
    assert set(record) == names
    assert "odd_one-1.2+here.data/scripts/odd-entry" not in names  # the installer makes it
    assert not [n for n in names if n.endswith((".pyc", "INSTALLER", "REQUESTED", "direct_url.json"))]
    python = venv(tmp_path / "two")
    install(python, path)
    assert outputs(python) == outputs(tmp_path / "one" / "bin" / "python") == ["odd", "odd script", "shell"]
    two = tmp_path / "two"
    assert (two / "share" / "odd" / "data.txt").read_text() == "data\n"
    assert list(two.glob("include/site/python*/odd*one/odd.h"))
    tool = next(two.glob("lib/python*/site-packages/odd_one/tool"))
    assert tool.stat().st_mode & 0o111


def test_the_same_bytes_each_time(tmp_path: Path, odd: Installed) -> None:
    rebuild(odd, tmp_path / "a.whl")
    rebuild(installed("odd-one"), tmp_path / "b.whl")
    assert sha256_file(tmp_path / "a.whl") == sha256_file(tmp_path / "b.whl")


def test_what_was_changed_or_is_gone_is_refused(tmp_path: Path, odd: Installed) -> None:
    site = Path(str(odd.dist.locate_file("")))
    source = site / "odd_one" / "__init__.py"
    before = source.read_bytes()
    source.write_bytes(before + b"# mended by hand\n")
    with pytest.raises(CannotRebuild, match="odd-one was changed here since it was installed"):
        rebuild(odd, tmp_path / "x.whl")
    source.unlink()
    with pytest.raises(CannotRebuild, match="odd-one is not whole here"):
        rebuild(odd, tmp_path / "x.whl")
    source.write_bytes(before)
    rebuild(odd, tmp_path / "x.whl")


def test_what_was_not_installed_from_a_wheel(tmp_path: Path, odd: Installed) -> None:
    info = Path(str(odd.dist.locate_file(""))) / "odd_one-1.2+here.dist-info"
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///x"}')
    with pytest.raises(CannotRebuild, match="editable"):
        installed("odd-one")
    (info / "direct_url.json").unlink()
    (info / "RECORD").unlink()
    with pytest.raises(CannotRebuild, match="not installed from a wheel"):
        installed("odd-one")


def test_the_wheelhouse_makes_each_once_and_says_what_is_missing(tmp_path: Path, here_target: Target) -> None:
    house = Wheelhouse(tmp_path / "keep", download=False)
    version = importlib.metadata.version("typing-extensions")
    lock = Lock((Pin("typing-extensions", version),), "a test")
    first = house.collect(lock, here_target)[0]
    stamp = first.path.stat().st_mtime_ns
    again = Wheelhouse(tmp_path / "keep", download=False).collect(lock, here_target)[0]
    assert (again.sha256, again.path.stat().st_mtime_ns) == (first.sha256, stamp)
    with pytest.raises(NoWheel, match=rf"no wheel of typing-extensions 0\.1 .*{version} is installed here"):
        house.collect(Lock((Pin("typing-extensions", "0.1"),), "a test"), here_target)
    with pytest.raises(NoWheel, match=r"no wheel of no-such-thing 1 .*not installed here.*\(and 1 more\)"):
        house.collect(Lock((Pin("no-such-thing", "1"), Pin("nor-this", "1")), "a test"), here_target)
    # Hashes of a lock are those of released wheels: what is made here is none.
    with pytest.raises(NoWheel, match="names the hashes"):
        house.collect(Lock((Pin("typing-extensions", version, frozenset({"aa"})),), "a test"), here_target)


def test_a_folder_of_wheels_is_looked_at_before_it_is_believed(tmp_path: Path, here_target: Target) -> None:
    folder = tmp_path / "wheels"
    with pytest.raises(BadInput, match="cannot be read"):
        Wheelhouse(tmp_path / "keep", folder=folder)
    folder.mkdir()
    with pytest.raises(BadInput, match="there are no wheels"):
        Wheelhouse(tmp_path / "keep", folder=folder)
    (folder / "nonsense.whl").write_bytes(b"")
    with pytest.raises(BadInput, match="not named as a wheel"):
        Wheelhouse(tmp_path / "keep", folder=folder)
    (folder / "nonsense.whl").unlink()
    here = installed("typing-extensions")
    rebuild(here, folder / here.file)
    pin = Pin("typing-extensions", here.dist.version, frozenset({"00" * 32}))
    house = Wheelhouse(tmp_path / "keep", folder=folder, download=False)
    with pytest.raises(BadInput, match="is not the wheel that the lock names"):
        house.collect(Lock((pin,), "a test"), here_target)
    good = Pin(pin.name, pin.version, frozenset({sha256_file(folder / here.file)}))
    assert house.collect(Lock((good,), "a test"), here_target)[0].origin == "folder"
    (folder / here.file).rename(folder / "six-1.0-py3-none-any.whl")
    house = Wheelhouse(tmp_path / "keep", folder=folder, download=False)
    with pytest.raises(BadInput, match="holds typing-extensions, not six"):
        house.collect(Lock((Pin("six", "1.0"),), "a test"), here_target)
