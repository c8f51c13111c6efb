"""A package that nobody has submitted yet, and a look at the claim on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal
from lab.claims import Evaluated, evaluate
from tests.lab.claims.package import Package

Look = Callable[..., Evaluated]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    (tmp_path / "here").mkdir()
    return Package(Home(tmp_path / "home"), tmp_path / "here", monkeypatch)


@pytest.fixture
def look(made: Package) -> Look:
    """The claim with the label that it has now."""

    def one(name: str = "digits") -> Evaluated:
        with Journal.open(made.home) as journal:
            return evaluate(made.home, journal.conn, name)

    return one
