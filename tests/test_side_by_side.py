"""The parts into which `make test` cuts the tests: none is forgotten, none runs twice, and a failure is not lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import side_by_side


def test_each_file_is_of_one_part() -> None:
    found = side_by_side.parts()
    files = [name for part in found.values() for name in part]
    there = {p.relative_to(side_by_side.ROOT).as_posix() for p in Path(__file__).parent.rglob("test_*.py")}
    assert set(files) == there
    assert len(files) == len(there)
    assert set(found) == set(side_by_side.PARTS), "a part without files is a name that went away"
    for patterns in side_by_side.PARTS.values():
        for pattern in patterns:
            assert any(side_by_side._is(name, pattern) for name in files), pattern


def test_a_failure_is_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for name, body in (("good", "pass"), ("bad", "assert not 'broken'"), ("none", "")):
        files[name] = tmp_path / f"test_{name}.py"
        files[name].write_text(f"def test_it():\n    {body}\n" if body else "")
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    monkeypatch.setattr(side_by_side, "parts", lambda: {n: [str(f)] for n, f in files.items()})
    monkeypatch.setattr("sys.argv", ["side_by_side", "--at-once", "2"])
    assert side_by_side.main() == 1
    said = capsys.readouterr().out
    assert "== good: passed in" in said
    assert "== none: passed in" in said
    assert "== bad: FAILED in" in said
    assert "assert not 'broken'" in said
    assert said.endswith("failed: bad\n")
