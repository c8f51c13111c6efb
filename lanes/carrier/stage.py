"""Sending what an attempt needs and its lane lacks: never twice, in pieces, from where it stopped."""

from __future__ import annotations

import binascii
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from core.digests import Digests
from lanes.carrier.errors import Cancelled, NotSendable
from lanes.carrier.source import Source, Want
from lanes.carrier.weigh import LARGE, human, weigh
from lanes.transport import RemoteError, Transport

CHUNK = 1 << 20
CALL_S = 120.0  # for one call: a chunk over a slow link, or the longest that the store makes us wait
_WRONG = 3  # so often damaged under way, and it is given up
_IDLE = 20  # so many rounds without any progress

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what is being sent


class Stage:
    """One lane's store, as the head fills it. Safe to use from several threads: nobody sends what another is sending.

    Args:
        say: told, in one line each, what somebody may want to read in a log.
        large: bytes above which it is said what is about to be sent.
    """

    def __init__(
        self, transport: Transport, digests: Digests, say: Callable[[str], None], *, large: int = LARGE
    ) -> None:
        self._transport = transport
        self._digests = digests
        self._say = say
        self._large = large
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    def send(self, wants: Iterable[Want], progress: Progress, cancelled: threading.Event) -> dict[str, str]:
        """Have everything on the lane. Returns digest -> path there.

        Raises:
            NotSendable: something is not there any more, cannot be sent, or there is no room.
            Cancelled, LinkDown, LinkRefused.
        """
        wanted = {(w.kind, w.name): w for w in wants}
        paths = self._have(wanted)
        sources = {at: Source(w, self._digests) for at, w in wanted.items() if w.digest not in paths}
        total = sum(s.size for s in sources.values())
        if total > self._large:
            found = weigh(s.want.source for s in sources.values())
            self._say(f"{human(total)} are to be sent: {found}")
        done = 0
        for at, source in sources.items():
            meter = _Meter(progress, done, total, source.want.what)
            meter(0)
            with _Held(self._lock(at), cancelled):
                paths[source.want.digest] = self._send(at, source, list(wanted), meter, cancelled)
            meter(source.size)
            done += source.size
        return paths

    def _have(self, wanted: dict[tuple[str, str], Want]) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind in sorted({k for k, _ in wanted}):
            names = [n for k, n in wanted if k == kind]
            there = self._call("have", kind, names)
            found.update({wanted[(kind, name)].digest: str(path) for name, path in there.items()})
        return found

    def _lock(self, at: tuple[str, str]) -> threading.Lock:
        with self._guard:
            return self._locks[at]

    def _send(
        self,
        at: tuple[str, str],
        source: Source,
        keep: list[tuple[str, str]],
        meter: Callable[[int], None],
        cancelled: threading.Event,
    ) -> str:
        """Send one thing; where another try left something, go on from there."""
        want = source.want
        anew, trimmed, wrong, idle, best = False, False, 0, 0, -1
        while True:
            try:
                state = self._until("begin", cancelled, *at, source.size, want.digest, want.tree, anew)
            except NotSendable as error:
                if error.cause != "disk-full" or trimmed:
                    raise
                trimmed = True
                freed = self._call("trim", source.size + (64 << 20), keep)
                if not freed["freed"]:
                    raise
                self._say(f"{human(freed['freed'])} that no attempt uses were removed from the lane to make room")
                continue
            if state["state"] == "there":
                return str(state["path"])
            offset = int(state["offset"])
            # What an earlier try left there must be the beginning of what we have: a file may have changed since.
            anew = offset > int(state["start"]) and source.sha256(int(state["start"]), offset) != state["sha256"]
            while offset < source.size and not anew:
                if cancelled.is_set():
                    raise Cancelled
                block = source.read(offset, CHUNK)
                state = self._call("put_chunk", *at, offset, block, binascii.crc32(block), bulk=True)
                if state["state"] != "ready":
                    break
                if state.get("wrong"):
                    wrong += 1
                    self._look_at_wrong(source, str(state["wrong"]), wrong)
                offset = int(state["offset"])
                meter(offset)
            if offset >= source.size and not anew:
                state = self._until("finish", cancelled, *at)
                if state["state"] == "there":
                    return str(state["path"])
            idle, best = (0, offset) if offset > best else (idle + 1, best)
            if idle > _IDLE:
                raise NotSendable("setup", f"{want.what} does not arrive: the lane stays at {best:,} bytes")

    def _look_at_wrong(self, source: Source, name: str, times: int) -> None:
        """It did not arrive as it should be: is it our file that is another one now?"""
        why = source.changed(self._digests)
        if why:
            cause = "stale-input" if source.want.kind == "inputs" else "setup"
            raise NotSendable(cause, why)
        if times >= _WRONG:
            raise NotSendable("setup", f"{source.want.what} was damaged under way {times} times ({name})")
        self._say(f"{source.want.what}: {name} was damaged under way; it is sent again")

    def _until(self, method: str, cancelled: threading.Event, *args: Any) -> dict[str, Any]:
        while True:
            state: dict[str, Any] = self._call(method, *args)
            if state["state"] != "working":
                return state
            if cancelled.is_set():
                raise Cancelled

    def _call(self, method: str, *args: Any, bulk: bool = False) -> Any:
        try:
            return self._transport.call(method, *args, timeout_s=CALL_S, bulk=bulk)
        except RemoteError as error:
            full = error.type == "StoreFull" or "No space left" in error.message
            known = error.type in ("StoreFull", "StoreRefused")
            reason = error.message if known else f"the lane's store stumbled: {error}"
            raise NotSendable("disk-full" if full else "setup", reason) from error


class _Meter:
    """Tells how far all is when one thing of it is at an offset."""

    def __init__(self, progress: Progress, before: int, total: int, what: str) -> None:
        self._progress = progress
        self._before = before
        self._total = total
        self._what = what

    def __call__(self, offset: int) -> None:
        self._progress(self._before + offset, self._total, self._what)


class _Held:
    """A lock for which a cancelled attempt does not wait."""

    def __init__(self, lock: threading.Lock, cancelled: threading.Event) -> None:
        self._lock = lock
        self._cancelled = cancelled

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=0.1):
            if self._cancelled.is_set():
                raise Cancelled

    def __exit__(self, *_: object) -> None:
        self._lock.release()
