"""Locks as people have them: exact versions or a sentence with file and line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from core.errors import BadInput
from lanes.agent import pythons
from lanes.environment import lock as locks
from lanes.environment import ours, target
from lanes.environment.target import NoPython, Target
from tests.lanes.environment.bases import HERE


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    return pythons.ask(HERE)


@pytest.fixture(scope="module")
def here(facts: dict[str, object]) -> Target:
    return target.of(facts)


def write(folder: Path, text: str, name: str = "requirements.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def pairs(path: Path, where: Target) -> dict[str, str]:
    return dict(locks.read(path, where).pairs)


def test_requirements_with_hashes_markers_comments_and_includes(tmp_path: Path, here: Target) -> None:
    (tmp_path / "more.txt").write_text("six==1.17.0\n")
    path = write(
        tmp_path,
        """
# made by hand
--index-url https://example.org/simple
-r more.txt
NumPy==2.0.1 \\
    --hash=sha256:AA11 \\
    --hash=sha256:bb22   # two wheels
pywin32==306 ; sys_platform == "win32"
scikit_image == 0.24.0 ; python_version >= "3.8"
""",
    )
    lock = locks.read(path, here)
    assert lock.pairs == [("numpy", "2.0.1"), ("scikit-image", "0.24.0"), ("six", "1.17.0")]
    assert lock.pins[0].hashes == {"aa11", "bb22"}
    # Not every pin has hashes, so none is asked for.
    assert lock.requirements() == "numpy==2.0.1\nscikit-image==0.24.0\nsix==1.17.0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("numpy>=2\n", ":1: 'numpy>=2' does not say one exact version"),
        ("six==1.0\nnumpy\n", ":2: 'numpy' does not say one exact version"),
        ("numpy==2.*\n", "does not say one exact version"),
        ("-e .\n", ":1: -e names no version"),
        ("numpy @ https://example.org/x.whl\n", "does not say one exact version"),
        ("!!\n", "is no requirement"),
        ("-r requirements.txt\n", "includes itself"),
        ("numpy==1.0\nnumpy==2.0\n", "has numpy as 1.0 and as 2.0"),
        ("# nothing\n", "locks nothing"),
    ],
)
def test_what_is_not_exact_is_refused(tmp_path: Path, here: Target, text: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        locks.read(write(tmp_path, text), here)
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_missing_or_binary_lock(tmp_path: Path, here: Target) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        locks.read(tmp_path / "none.txt", here)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="no text file"):
        locks.read(tmp_path / "binary.txt", here)


def test_pylock(tmp_path: Path, here: Target) -> None:
    text = """
lock-version = "1.0"
created-by = "hand"
[[packages]]
name = "numpy"
version = "2.0.1"
wheels = [{name = "numpy-2.0.1-cp311-cp311-linux_x86_64.whl", url = "x", hashes = {sha256 = "AA"}}]
[[packages]]
name = "pywin32"
version = "306"
marker = "sys_platform == 'win32'"
[[packages]]
name = "extra-only"
version = "1"
marker = "'test' in extras"
"""
    lock = locks.read(write(tmp_path, text, "pylock.toml"), here)
    assert lock.pairs == [("numpy", "2.0.1")]
    assert lock.requirements() == "numpy==2.0.1 --hash=sha256:aa\n"
    with pytest.raises(BadInput, match="has no version"):
        locks.read(write(tmp_path, '[[packages]]\nname = "x"\ndirectory = {path = "."}\n', "pylock.toml"), here)
    with pytest.raises(BadInput, match="this is no TOML"):
        locks.read(write(tmp_path, "[[", "pylock.toml"), here)
    with pytest.raises(BadInput, match="lists no packages"):
        locks.read(write(tmp_path, "a = 1\n", "pylock.toml"), here)


def test_uv_lock_is_walked_from_the_project(tmp_path: Path, here: Target) -> None:
    text = """
version = 1
[[package]]
name = "mine"
version = "0.1"
source = { editable = "." }
dependencies = [
    { name = "numpy", version = "2.0.1", marker = "python_version >= '3.11'" },
    { name = "numpy", version = "1.26.4", marker = "python_version < '3.11'" },
    { name = "httpx", extra = ["http2"] },
    { name = "colorama", marker = "sys_platform == 'win32'" },
]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "numpy"
version = "2.0.1"
source = { registry = "https://example.org/simple" }
wheels = [{ url = "x", hash = "sha256:aa" }]
[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://example.org/simple" }
[[package]]
name = "httpx"
version = "0.27.0"
source = { registry = "https://example.org/simple" }
dependencies = [{ name = "idna" }]
[package.optional-dependencies]
http2 = [{ name = "h2" }]
[[package]]
name = "idna"
version = "3.7"
source = { registry = "https://example.org/simple" }
[[package]]
name = "h2"
version = "4.1.0"
source = { registry = "https://example.org/simple" }
[[package]]
name = "pytest"
version = "8.0"
source = { registry = "https://example.org/simple" }
[[package]]
name = "colorama"
version = "0.4.6"
source = { registry = "https://example.org/simple" }
"""
    found = pairs(write(tmp_path, text, "uv.lock"), here)
    assert found == {"numpy": "2.0.1", "httpx": "0.27.0", "idna": "3.7", "h2": "4.1.0"}
    with pytest.raises(BadInput, match="has no project"):
        locks.read(write(tmp_path, '[[package]]\nname = "x"\nversion = "1"\n', "uv.lock"), here)
    gone = text.replace('name = "idna"\nversion', 'name = "other"\nversion')
    with pytest.raises(BadInput, match="httpx needs idna, which is not in it"):
        locks.read(write(tmp_path, gone, "uv.lock"), here)


def test_which_file_is_the_projects_lock(tmp_path: Path) -> None:
    assert locks.find(tmp_path) == (None, ())
    assert locks.find(None) == (None, ())
    loose = write(tmp_path, "numpy\n")
    path, notes = locks.find(tmp_path)
    assert path is None
    assert "is no lock (1: 'numpy' does not say one exact version): not used" in notes[0]
    loose.write_text("numpy==2.0\n")
    assert locks.find(tmp_path) == (loose, ())
    better = write(tmp_path, "", "requirements.lock")
    assert locks.find(tmp_path) == (better, ())


def test_this_installation_is_a_lock_for_the_kinds_of_the_roles(here: Target) -> None:
    assert ours.kinds_of(("eval",)) == ("command", "kernel", "score")
    assert "parity" in ours.kinds_of(("eval", "promote"))
    assert "train" in ours.kinds_of(("train",))
    trains = {p.name for p in ours.pins(ours.kinds_of(("train",)), here).pins}
    assert {"torch", "av", "pillow", "scipy", "scikit-image", "matplotlib"} <= trains
    for name in ours.modules(ours.wanted(ours.kinds_of(ours.ROLES))):  # what is imported there to see that it works
        assert importlib.util.find_spec(name) is not None, name
    lock = ours.pins(ours.kinds_of(("eval",)), here)
    names = {p.name for p in lock.pins}
    # What they use, and what that uses in turn; nothing of the rest.
    assert {"numpy", "numba", "llvmlite", "torch", "pyarrow", "pydantic", "pydantic-core"} <= names
    assert not {"tensorflow", "ray", "textual", "pytest", "lab"} & names
    assert not lock.whole
    windows = target.of({**pythons.ask(HERE), "markers": {**here.markers, "sys_platform": "win32"}})
    assert len(ours.pins(("command",), windows).pins) >= len(ours.pins(("command",), here).pins)


def test_the_digest_is_of_lock_version_and_platform(facts: dict[str, object], here: Target) -> None:
    pins = [("a", "1"), ("b", "2")]
    same = here.environment(list(reversed(pins)))
    assert here.environment(pins) == same
    assert here.environment([("a", "1"), ("b", "3")]) != same
    assert target.of({**facts, "version": "3.12.9"}).environment(pins) != same
    assert target.of({**facts, "libc": ["glibc", "2.17"]}).environment(pins) != same


def test_which_wheels_an_interpreter_takes(facts: dict[str, object]) -> None:
    from packaging.tags import parse_tag

    linux = {**facts, "platform": "linux-x86_64", "soabi": "", "free_threaded": False, "bits": 64, "version": "3.11.7"}
    linux["markers"] = {**facts["markers"], "platform_machine": "x86_64"}  # type: ignore[dict-item]
    old = target.of({**linux, "libc": ["glibc", "2.17"]})
    new = target.of({**linux, "libc": ["glibc", "2.36"]})
    for tag, takes_old, takes_new in (
        ("cp311-cp311-manylinux_2_28_x86_64", False, True),
        ("cp311-cp311-manylinux2014_x86_64", True, True),
        ("cp39-abi3-manylinux2014_x86_64", True, True),
        ("cp312-cp312-manylinux2014_x86_64", False, False),
        ("cp311-cp311-manylinux2014_aarch64", False, False),
        ("cp311-cp311-musllinux_1_2_x86_64", False, False),
        ("cp311-cp311-win_amd64", False, False),
        ("py3-none-any", True, True),
        ("py2-none-any", False, False),
    ):
        assert old.takes(parse_tag(tag)) is takes_old, tag
        assert new.takes(parse_tag(tag)) is takes_new, tag
    musl = target.of({**linux, "libc": ["", ""], "soabi": "cpython-311-x86_64-linux-musl"})
    assert musl.takes(parse_tag("cp311-cp311-musllinux_1_2_x86_64"))
    assert not musl.takes(parse_tag("cp311-cp311-manylinux2014_x86_64"))
    mac = {**linux, "platform": "macosx-11.0-arm64", "macos": "14.5", "libc": ["", ""]}
    mac["markers"] = {**facts["markers"], "platform_machine": "arm64"}  # type: ignore[dict-item]
    assert target.of(mac).takes(parse_tag("cp311-cp311-macosx_11_0_arm64"))
    assert not target.of(mac).takes(parse_tag("cp311-cp311-macosx_11_0_x86_64"))


def test_the_best_interpreter(facts: dict[str, object]) -> None:
    import sys

    def one(version: str, **more: object) -> dict[str, object]:
        return {**facts, "python": f"/py/{version}", "version": version, "lacks": [], "free_threaded": False, **more}

    ours_ = "{}.{}.0".format(*sys.version_info[:2])
    all_ = [one("3.9.2"), one("3.14.0"), one(ours_), {"python": "/broken", "problem": "it is broken"}]
    assert target.choose(all_, None, "far").version == ours_
    assert target.choose([one("3.9.2"), one("3.14.0")], None, "far").version == "3.14.0"
    assert target.choose([one("3.14.0"), one("3.14.0", free_threaded=True)], None, "far").version == "3.14.0"
    with pytest.raises(NoPython, match=r"lane far has only Python 3\.9\.2, and kinds need 3\.11"):
        target.choose([one("3.9.2")], None, "far")
    with pytest.raises(NoPython, match="it is broken"):
        target.choose([{"python": "/broken", "problem": "it is broken"}], "/broken", "far")
    with pytest.raises(NoPython, match="no Python that runs"):
        target.choose([], None, "far")
    with pytest.raises(NoPython, match="was built without zlib"):
        target.choose([one("3.11.1", lacks=["zlib"])], "/py", "far")
    with pytest.raises(NoPython, match="is pypy"):
        target.choose([one("3.11.1", implementation="pypy")], "/py", "far")
