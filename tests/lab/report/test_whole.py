"""The report of a home in which jobs really ran."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from core.home import Home
from lab.report.build import NOTEBOOK, problems
from lab.report.check import rows_of
from tests.support import lab


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_of_a_home_that_others_use(shared_home: Home, tmp_path: Path) -> None:
    """Whatever else is in it: the report is sound, and these jobs are told."""
    code = tmp_path / "code"
    code.mkdir()
    program = "open('w.txt', 'w').write('x')"
    typed = ["submit", "command", "--output", "w.txt", "--wait", "-q", "--", sys.executable, "-c", program]
    job = int(lab(shared_home, *typed, cwd=code).stdout.split()[0])
    grid = ["--grid", "seed=1..3", "--set", "batch=1", "--set", "height=16", "--set", "width=16"]
    sweep = int(lab(shared_home, "submit", "kernel", *grid, "--set", "backend=numba", "--wait", "-q").stdout.split()[0])
    told = json.loads(lab(shared_home, "report", "-o", str(tmp_path / "out"), "--json").stdout)
    files = files_of(tmp_path / "out")
    assert told["files"] == len(files)
    assert problems(files) == []
    assert f"attempts/{job}/1\tartifacts/w.txt\t{job}\t1\tlocal" in files["evidence/files.tsv"].decode()
    page = files[f"studies/sweep-{sweep}.html"].decode()
    rows = rows_of(files)
    kernel = [values for name, values in rows.items() if name.startswith("kernel-") and values.get("job", "").isdigit()]
    assert {sweep + 1, sweep + 2, sweep + 3} <= {int(values["job"]) for values in kernel}
    assert "Table" in page
    assert f"sweep {sweep}" in files[NOTEBOOK].decode()


@pytest.mark.long
def test_from_parity_to_a_check(lab_home: Home, tmp_path: Path) -> None:
    small = {"sizes": "[1]", "backends": "[numba]", "channels": "[1]", "train": "4", "predict": "4"}
    sets = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    lab(lab_home, "submit", "parity", *sets, "--wait", "-q")
    lab(lab_home, "submit", "command", "--wait", "-q", "--", sys.executable, "-c", "raise SystemExit(7)", check=False)
    lab(lab_home, "down")
    out = str(tmp_path / "out")
    lab(lab_home, "report", "-o", out)
    assert "every byte is what would be written now" in lab(lab_home, "report", "-o", out, "--check").stdout
    files = files_of(tmp_path / "out")
    assert "parity.png" in files["studies/job-1.html"].decode()
    assert "exit 7" in files["blockers.html"].decode()
    lab(lab_home, "submit", "command", "--hold", "-q", "--", "true", env={"LAB_NO_START": "1"})
    done = lab(lab_home, "report", "-o", out, "--check", check=False)
    assert done.returncode == 1
    assert "index.html: line" in done.stdout
