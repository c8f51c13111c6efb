"""The command line as a user has it: a process of its own, in a home of its own, with kinds of an outside package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lab
from core.home import Home
from core.journal import Journal
from tests.forked import run_lab
from tests.lab.toys import SOURCE

ROOT = Path(lab.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one document on stdout."""
        return dict(json.loads(self.out))

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Runs `lab` in a folder, with a home, and with an environment."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.cwd = folder / "here"
        self.cwd.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("LAB_", "FORCE_COLOR", "CLICOLOR"))}
        self.env |= {"LAB_HOME": str(self.home.path), "PYTHONPATH": f"{register(folder)}:{ROOT}", "LAB_NO_START": "1"}
        self.env.pop("COLUMNS", None)

    def __call__(self, *args: str, **env: str) -> Done:
        done = run_lab(args, cwd=self.cwd, env={**self.env, **env}, timeout=60)
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, **env: str) -> Done:
        done = self(*args, **env)
        assert done.code == 0, f"lab {' '.join(args)} ended with {done.code}: {done.err}{done.out}"
        return done

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "lab", *args]

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args),
            cwd=self.cwd,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def jobs(self) -> int:
        """How many jobs the journal has; 0 when there is none."""
        if not self.home.journal.exists():
            return 0
        with Journal.open(self.home) as journal:
            return int(journal.conn.execute("SELECT count(*) FROM job").fetchone()[0])

    def events(self) -> int:
        if not self.home.journal.exists():
            return 0
        with Journal.open(self.home) as journal:
            return journal.last_seq()


def register(folder: Path) -> Path:
    """An installed package with kinds, as pip would leave it: a module and its metadata."""
    site = folder / "site"
    meta = site / "toykinds-1.0.dist-info"
    meta.mkdir(parents=True)
    (site / "toymodule.py").write_text(SOURCE)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toykinds\nVersion: 1.0\n")
    names = {"toy": "Toy", "needy": "Needy", "program": "Program", "broken": "Missing", "quick": "Quick"}
    names |= {"dag": "Dag", "doses": "Doses"}
    entries = "\n".join(f"{name} = toymodule:{cls}" for name, cls in names.items())
    (meta / "entry_points.txt").write_text(f"[lab.kinds]\n{entries}\n")
    return site


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty folder, with a home that does not exist yet."""
    return Shell(tmp_path)
