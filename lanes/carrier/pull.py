"""Reading a file of the lane to the head: several blocks under way, from where it stopped, hashed as it comes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.fsio import no_space
from lanes.carrier.errors import BadHarvest, Cancelled
from lanes.harvest import NoRoom
from lanes.transport import RemoteError, Transport

BLOCK = 512 << 10
_AHEAD = 4  # blocks under way: on a link with a long way the line is kept full
_CALL_S = 120.0
_MISSING = ("FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "PermissionError")


class Wrong(Exception):
    """The bytes that came are not those that were wanted; the local file is removed."""


class Pull:
    """Reads files of one lane. Safe to use from several threads."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._readers = ThreadPoolExecutor(_AHEAD, thread_name_prefix="pull")

    def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)

    def file(
        self,
        remote: str,
        local: Path,
        *,
        size: int,
        sha256: str,
        stop: Callable[[], bool] = lambda: False,
        count: Callable[[int], None] = lambda n: None,
    ) -> None:
        """Make `local` the file `remote` of the lane, continuing with what is there of it, and synced.

        Raises:
            Wrong: what came, or what was there, has another digest.
            BadHarvest: there is no such file on the lane, or it is shorter than `size`.
            NoRoom: our disk is full. Cancelled: `stop` said so. LinkDown, LinkRefused.
        """
        with _writing():
            local.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(local, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            found = hashlib.sha256()
            offset = 0
            while offset < size and (block := os.pread(fd, min(1 << 20, size - offset), offset)):
                found.update(block)
                offset += len(block)
            count(offset)
            if os.fstat(fd).st_size > offset:
                os.ftruncate(fd, offset)
            for block in self._blocks(remote, offset, size, stop):
                with _writing(fd, offset):
                    _write_all(fd, block, offset)
                found.update(block)
                offset += len(block)
                count(len(block))
            if found.hexdigest() == sha256:
                with _writing():
                    os.fsync(fd)
                return
        finally:
            os.close(fd)
        os.unlink(local)
        raise Wrong(remote)

    def all(self, remote: str, limit: int) -> bytes:
        """The whole of a file.

        Raises:
            BadHarvest: there is none, or it is larger than `limit`.
        """
        out = bytearray()
        while True:
            block = self._read(remote, len(out), BLOCK)
            out += block
            # A read may come back short in the middle; only an empty one is the end.
            if len(block) < BLOCK and (not block or not self._read(remote, len(out), 1)):
                return bytes(out)
            if len(out) > limit:
                raise BadHarvest(f"{remote} on the lane is larger than {limit:,} bytes")

    def many(self, job: int, n: int, names: list[str]) -> Iterator[tuple[str, bytes | None]]:
        """Small files of one run directory, with their names; None for one that is not there."""
        while names:
            answer = self._transport.call("read_many", job, n, names, timeout_s=_CALL_S, bulk=True)
            at = 0
            if not answer["sizes"]:
                raise BadHarvest(f"{names[0]} of attempt {job}.{n} is larger than it was said to be")
            for name, size in zip(names, answer["sizes"], strict=False):
                yield name, None if size < 0 else bytes(answer["data"][at : at + size])
                at += max(0, size)
            names = names[len(answer["sizes"]) :]

    def _blocks(self, remote: str, offset: int, size: int, stop: Callable[[], bool]) -> Iterator[bytes]:
        while offset < size:
            # One that came short has the others behind it read again, from where it ended.
            begun = offset
            for block, wanted in self._in_order(remote, offset, size, stop):
                if block:
                    yield block
                offset += len(block)
                if len(block) < wanted:
                    break
            if offset == begun:
                raise BadHarvest(f"{remote} on the lane ends at {offset:,} bytes, {size:,} were sealed")

    def _in_order(self, remote: str, offset: int, size: int, stop: Callable[[], bool]) -> Iterator[tuple[bytes, int]]:
        if size - offset <= BLOCK:
            yield self._read(remote, offset, size - offset), size - offset
            return
        under_way: deque[tuple[Future[bytes], int]] = deque()
        try:
            while offset < size or under_way:
                while offset < size and len(under_way) < _AHEAD:
                    wanted = min(BLOCK, size - offset)
                    under_way.append((self._readers.submit(self._read, remote, offset, wanted), wanted))
                    offset += wanted
                if stop():
                    raise Cancelled
                future, wanted = under_way.popleft()
                yield future.result(), wanted
        finally:
            for future, _ in under_way:
                future.cancel()

    def _read(self, remote: str, offset: int, size: int) -> bytes:
        try:
            data: Any = self._transport.call("read", remote, offset, size, timeout_s=_CALL_S)
        except RemoteError as error:
            if error.type in _MISSING:
                raise BadHarvest(f"{remote} is not on the lane, or cannot be read there ({error.message})") from error
            raise
        if not isinstance(data, bytes | bytearray | memoryview) or len(data) > size:
            raise BadHarvest(f"the lane gave something else than bytes of {remote}")
        return bytes(data)


@contextlib.contextmanager
def _writing(fd: int | None = None, size: int = 0) -> Iterator[None]:
    """Our own disk being full is no fault of the lane's. What was not written whole is cut off again."""
    try:
        yield
    except OSError as error:
        if fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
        if no_space(error):
            raise NoRoom(f"the head's disk is full: {error}") from error
        raise


def _write_all(fd: int, block: bytes, offset: int) -> None:
    view = memoryview(block)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
