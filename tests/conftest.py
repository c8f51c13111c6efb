"""Fixtures. One Ray session is shared by all tests that only need a running controller; killers start their own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from tests.support import end_all, lab


def pytest_configure() -> None:
    # Tests never start, find or disturb the home of the person who runs them.
    os.environ.pop("LAB_HOME", None)
    os.environ["LAB_TESTING"] = "1"
    # A shell starts what runs behind it with Ctrl-C ignored, and every program that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def lab_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A fresh home that $LAB_HOME names; everything of it is ended afterwards."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("LAB_HOME", str(home.path))
    yield home
    end_all(home)
    shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Home]:
    """One running controller for all tests that do not harm it. Tests look at their own job ids only."""
    folder = Path(tempfile.mkdtemp(prefix="lab-tests-"))
    home = Home(folder / "home")
    try:
        lab(home, "up")
        yield home
    finally:
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
