"""A run directory that is made ahead: what was written into it early is what the batch would have written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lanes.pool.folder import ENV, Spare


@pytest.mark.parametrize("ahead", [None, b"as it is\n", b"as it was\n"], ids=["nothing", "the same", "another"])
def test_the_environment_is_that_of_the_batch(tmp_path: Path, ahead: bytes | None) -> None:
    spare = Spare(str(tmp_path / ".spare" / "1"))
    spare.make(ahead)
    now = b"as it is\n"
    for n in range(2):
        folder = tmp_path / f"{n}-00000000"
        fds = spare.take(str(folder))
        told = spare.env(fds, now)
        assert (folder / ENV).read_bytes() == now
        assert told == [hashlib.sha256(now).hexdigest(), len(now)]
        for name, fd in fds.items():
            if name != ENV:
                os.close(fd)
        spare.make(ahead)


def test_a_spare_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    spare = Spare(str(tmp_path / ".spare" / "1"))
    spare.make(b"early\n")
    for path in sorted((tmp_path / ".spare").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    fds = spare.take(str(tmp_path / "1-00000000"))
    assert spare.env(fds, b"late\n") == [hashlib.sha256(b"late\n").hexdigest(), 5]
    assert (tmp_path / "1-00000000" / ENV).read_bytes() == b"late\n"
