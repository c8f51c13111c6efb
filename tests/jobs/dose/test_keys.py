"""What the key of each dose kind covers: every module that makes its numbers, and no other's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from core.kind import Kind
from jobs.dose_kinds.compare import DoseCompare
from jobs.dose_kinds.data import DoseData
from jobs.dose_kinds.lsqml import DoseLsqml
from jobs.dose_kinds.summary import DoseSummary
from jobs.dose_kinds.train import DoseTrain
from jobs.dose_kinds.views import DoseViews

ROOT = Path(__file__).resolve().parents[3]
KINDS = [DoseData(), DoseViews(), DoseTrain(), DoseLsqml(), DoseCompare(), DoseSummary()]


def file_of(module: str) -> Path | None:
    """Of a module or of a package's own code."""
    for name in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"):
        if (ROOT / name).is_file():
            return ROOT / name
    return None


def imported(node: ast.AST, by: Path) -> list[str]:
    """Modules of the project that a statement names: imports, backends by the beginning of a name, programs."""
    found: list[Path] = []
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("jobs", "kernels")):
        whole = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        return [name for name in whole if file_of(name) is not None]
    if isinstance(node, ast.Call):
        words = [str(n.value) for n in ast.walk(node) if isinstance(n, ast.Constant)]
        called = ast.unparse(node.func).rpartition(".")[2]
        if called == "import_module":
            found = [
                p for w in words if w.startswith(("jobs.", "kernels.")) for p in ROOT.glob(f"{w.replace('.', '/')}*")
            ]
        elif called == "with_name":
            found = [by.with_name(w) for w in words if by.with_name(w).is_file()]
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in found if p.suffix == ".py"]


def modules_of(first: str) -> set[str]:
    """The project's modules that are reached from this one on, however deep; packages that are a docstring are not."""
    found, left = set[str](), [first]
    while left:
        name = left.pop()
        path = file_of(name)
        if name in found or path is None:
            continue
        body = ast.parse(path.read_text())
        if len(body.body) > 1 or path.name != "__init__.py":
            found.add(name)
        for node in ast.walk(body):
            left += imported(node, path)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_module_that_makes_the_numbers_is_part_of_the_key(kind: Kind) -> None:
    needed = modules_of(type(kind).__module__)
    assert len(needed) > 4
    assert [n for n in sorted(needed) if not any(n == c or n.startswith(f"{c}.") for c in kind.code)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_module_of_another_is_part_of_the_key(kind: Kind) -> None:
    needed = modules_of(type(kind).__module__)
    parts = {c for c in kind.code if c != "core"}
    assert [c for c in sorted(parts) if not any(n == c or n.startswith(f"{c}.") for n in needed)] == []
    assert all(file_of(c) is not None for c in parts)
    if kind.name != "dose-summary":
        assert "jobs.dose.page" not in needed
        assert not any("jobs.dose.page".startswith(c) for c in parts)


def test_modules_are_found_that_no_import_names() -> None:
    assert {"jobs.dose.shim_tensorflow", "jobs.dose.shim_torch"} <= modules_of("jobs.dose.network")
    assert "jobs.dose.ptychi_process" in modules_of("jobs.dose.ptychi_engine")
    assert "jobs.dose.page" in modules_of("jobs.dose_kinds.summary")
    assert "kernels.translation.shapes" in modules_of("jobs.dose.stitching")
