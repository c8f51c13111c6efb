"""Fixtures: one head and one lane for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lanes.carrier.support import World
from tests.lanes.sshd import sshd as sshd


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()
