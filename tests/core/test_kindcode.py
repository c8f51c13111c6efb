"""What a kind runs from: which files make it another job, and which only another folder."""

from __future__ import annotations

import importlib
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from core.digests import Digests
from core.errors import BadInput, ForeignPackage
from core.kind import Kind
from core.kindcode import look_at_kind
from core.snapshot import Snapshot


def kind(folder: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[str, ...]) -> Kind:
    """A kind in a package of its own, `outsidekind`, beside another package, `outsidehelp`."""
    for name in ("outsidekind", "outsidehelp"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("from core.kind import Kind\nclass K(Kind):\n    name = 'k'\n")
        (folder / name / "part.py").write_text("")
        sys.modules.pop(name, None)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    made = importlib.import_module("outsidekind").K()
    made.code = code
    assert isinstance(made, Kind)
    return made


def look(made: Kind) -> Snapshot:
    with Digests(None) as digests:
        return look_at_kind(made, digests, entry="outsidekind:K")


def test_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {e.name for e in look(kind(tmp_path, monkeypatch, ("core", "outsidehelp"))).listing.entries}
    assert {"core/kind.py", "lanes/agent/runner.py", "jobs/__init__.py", "kernels/__init__.py"} <= names
    assert {"outsidekind/part.py", "outsidehelp/part.py"} <= names
    assert not [n for n in names if "__pycache__" in n or n.startswith(("lab/", "tests/"))]


@pytest.mark.parametrize(
    ("code", "file", "counts"),
    [
        (("core",), "outsidekind/part.py", True),  # its own package always
        (("core",), "outsidehelp/part.py", None),
        (("outsidehelp",), "outsidehelp/part.py", True),
        (("outsidehelp.part",), "outsidehelp/part.py", True),
        (("outsidehelp.part",), "outsidehelp/__init__.py", False),
    ],
)
def test_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: tuple[str, ...], file: str, counts: bool | None
) -> None:
    made = kind(tmp_path, monkeypatch, code)
    before = look(made)
    (tmp_path / file).write_text((tmp_path / file).read_text() + "# a line\n")
    after = look(made)
    assert (before.ref.digest != after.ref.digest) is bool(counts)
    assert (before.ref.store != after.ref.store) is (counts is not None)


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="names the package 'nowhere', which is not installed"):
        look(kind(tmp_path, monkeypatch, ("nowhere",)))


def test_a_foreign_package_of_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kind(tmp_path, monkeypatch, ("core",))
    foreign = types.ModuleType("kernels")
    foreign.__spec__ = ModuleSpec("kernels", None, is_package=True)
    foreign.__spec__.submodule_search_locations = [str(tmp_path / "kernels")]
    monkeypatch.setitem(sys.modules, "kernels", foreign)
    with pytest.raises(ForeignPackage, match="another package is called 'kernels' here"):
        look(made)
