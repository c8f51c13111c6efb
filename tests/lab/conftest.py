"""Fixtures for everything that submits without a controller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.home import Home
from lab.submission import Request, Submitted, submit
from tests.lab.toys import register

Submit = Callable[..., Submitted]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kinds of toys.py, and the file that holds them."""
    return register(tmp_path, monkeypatch)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder in which the user is: a small code root."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def ask(home: Home, here: Path, toy: Path) -> Submit:
    """Submit one job of kind toy: keywords are parameters, `request` the rest."""

    def one(kind: str = "toy", request: dict[str, Any] | None = None, **params: Any) -> Submitted:
        return submit(home, [Request(kind, params, **(request or {}))], cwd=here)[0]

    return one
