"""A fixture: one sshd for all tests that leave it as it is. Taken over by each conftest.py whose tests log in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lanes.ssh.servers import NO_SSHD, Sshd


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    if NO_SSHD:
        pytest.skip(NO_SSHD)
    folder = Path(tempfile.mkdtemp(prefix="lab-sshd-"))
    server = Sshd(folder / "sshd")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
