"""Fixtures: one sshd for all tests that leave it as it is, one of its own for those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lanes.ssh.servers import NO_SSHD, Lanes, Server, Sshd
from tests.lanes.sshd import sshd as sshd


@pytest.fixture
def make_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    if NO_SSHD:
        pytest.skip(NO_SSHD)
    made: list[Sshd] = []

    def make(*extra: str, **named: str) -> Sshd:
        made.append(Sshd(tmp_path / f"sshd{len(made)}", *extra, **named))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def lane() -> Iterator[Lanes]:
    lanes = Lanes()
    yield lanes
    lanes.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Server], Server]]:
    """Closes the servers that it is given."""
    made: list[Server] = []

    def keep(server: Server) -> Server:
        made.append(server)
        return server

    yield keep
    for server in made:
        server.close()
