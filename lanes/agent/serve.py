"""The far end of an ssh lane: answers the head over stdin and stdout, and goes when it is not needed any more.

It holds nothing that matters: attempts are children of nobody and live on, files are written by rename. So it may end
at any moment, and does: at end of file, when the head has been silent, when a newer connection takes its place.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NoReturn, Optional

from lanes.agent import frames, owner, procs
from lanes.agent.agent import Agent
from lanes.agent.safe import clean

# What answers calls, beside the agent: module, class, and what it is made with ("base": the lane's root, "root": the
# agent's own folder in it). The agent is asked first, then these in order. A module that is not there (an older head
# ships less) is passed over.
PARTS = (
    ("lanes.agent.store", "Store", ("base",)),
    ("lanes.agent.probe", "Probes", ("root",)),
    ("lanes.agent.envs", "Environments", ("base", "root")),
    ("lanes.agent.crews", "Crews", ("root", "base")),
    ("lanes.agent.raynode", "RayNode", ("root",)),
    ("lanes.agent.leftovers", "Leftovers", ("base",)),
)

# These change attempts, and are done one after the other in the order in which they came. All others run side by side.
ORDERED = frozenset(("start", "signal", "reap", "adopt"))
AT_ONCE = 64  # calls under way; more are refused, so that a head gone wrong does not take the machine's memory

LOG = "serve.log"
LOG_LIMIT = 1 << 20
FLUSH_S = 1.0  # for the last word to get out
SOCKET_ROOM = 100  # a socket's path may have 107 bytes at most


def main(settings: Dict[str, Any], root: str, out: int) -> NoReturn:
    """Serve until there is no need.

    Args:
        settings: of the head: home, head, lane, take, beat_s, silence_s.
        root: the lane's folder.
        out: where frames go; stdout itself must not be used any more.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    try:
        claim = owner.claim(
            Path(root),
            home=settings["home"],
            head=settings["head"],
            lane=settings["lane"],
            take=bool(settings.get("take")),
        )
        serving = Serve(claim, out, beat_s=float(settings["beat_s"]), silence_s=float(settings["silence_s"]))
    except owner.Refused as why:
        _last_word(out, {"refused": list(why.args)})
    except Exception as error:
        from core.fsio import no_space

        cause = "disk-full" if no_space(error) else "serve"
        _last_word(out, {"refused": ["agent", cause, f"{type(error).__name__}: {error}", ""]})
    else:
        serving.run()
    os._exit(3)


class Serve:
    """One connection of the head."""

    def __init__(self, claim: owner.Claim, out: int, *, beat_s: float, silence_s: float) -> None:
        self._claim = claim
        self._out = out
        self._beat_s = beat_s
        self._silence_s = silence_s
        self._outbox = frames.Outbox()
        self._orders: "queue.SimpleQueue[Dict[str, Any]]" = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._gone = threading.Lock()
        os.chdir("/")
        _quiet(claim.agent_root)
        agent = Agent(claim.agent_root, home_hash=claim.home, socket_path=_socket_path(claim.agent_root))
        self._targets: List[Any] = [agent, *_parts({"base": claim.root, "root": claim.agent_root}), _Lease(claim)]

    def run(self) -> NoReturn:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._evicted).start())
        me = {
            "epoch": self._claim.epoch,
            "pid": os.getpid(),
            "root": str(self._claim.root),
            "python": ".".join(map(str, sys.version_info[:3])),
            "executable": sys.executable,
            "boot_id": procs.boot_id(),
        }
        self._outbox.put({"serving": me})
        for work in (self._send, self._beat, self._obey):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        try:
            self._listen()
        except frames.Broken as error:
            self._leave({"gone": "broken", "message": str(error)})
        except OSError as error:
            self._leave({"gone": "broken", "message": f"reading failed: {error}"})
        os._exit(0)

    def _listen(self) -> None:
        """Take requests, until end of file or silence."""
        parser = frames.Parser()
        while True:
            ready, _, _ = select.select([0], [], [], self._silence_s)
            if not ready:
                self._leave({"gone": "silence", "message": f"the head was silent for {self._silence_s:g} s"})
            data = os.read(0, 1 << 18)
            if not data:
                return
            for message in parser.feed(data):
                if "call" in message:
                    self._take(message)

    def _take(self, request: Dict[str, Any]) -> None:
        if request["call"] in ORDERED:
            self._orders.put(request)
        elif self._room.acquire(blocking=False):
            threading.Thread(target=self._aside, args=(request,), daemon=True).start()
        else:
            error = {"type": "Busy", "message": f"{AT_ONCE} calls are under way on this lane"}
            self._outbox.put({"id": request["id"], "error": error})

    def _aside(self, request: Dict[str, Any]) -> None:
        try:
            self._answer(request)
        finally:
            self._room.release()

    def _obey(self) -> None:
        while True:
            self._answer(self._orders.get())

    def _answer(self, request: Dict[str, Any]) -> None:
        why = self._claim.lost()
        if why:
            self._leave({"gone": "evicted", "message": why})
        try:
            value = self._method(request["call"])(*request.get("args") or (), **request.get("named") or {})
            # A large answer does not go before a small one, whatever was asked.
            self._outbox.put({"id": request["id"], "ok": value}, bulk=True if request.get("bulk") else None)
        except BaseException as error:
            text = clean(str(error))[:4000]
            self._outbox.put({"id": request["id"], "error": {"type": type(error).__name__, "message": text}})

    def _method(self, name: Any) -> Callable[..., Any]:
        if isinstance(name, str) and not name.startswith("_"):
            for target in self._targets:
                method = getattr(target, name, None)
                if callable(method):
                    return method  # type: ignore[no-any-return]
        raise AttributeError(f"the agent has no method {name!r}")

    def _send(self) -> None:
        try:
            while True:
                data = self._outbox.get(3600.0)
                if data is not None:
                    _write(self._out, data)
        except OSError:
            os._exit(0)  # the head is gone

    def _beat(self) -> None:
        """Tell the head that we live; see to it that we still are the ones to serve."""
        while True:
            time.sleep(self._beat_s)
            self._outbox.beat()
            if self._claim.lost():
                self._evicted()

    def _evicted(self) -> None:
        self._leave({"gone": "evicted", "message": self._claim.lost() or "the process that serves this lane was ended"})

    def _leave(self, word: Dict[str, Any]) -> NoReturn:
        """Say why, if that gets out, and end this process."""
        with self._gone:
            self._outbox.put(word)
            until = time.monotonic() + FLUSH_S
            while not self._outbox.empty() and time.monotonic() < until:
                time.sleep(0.01)
            os._exit(0)


class _Lease:
    """What the head may do about the lane's ownership itself."""

    def __init__(self, claim: owner.Claim) -> None:
        self._claim = claim

    def release(self) -> Dict[str, Any]:
        """Give the lane up: from now on another head may have it."""
        return {"ok": owner.release(self._claim)}


def _parts(places: Dict[str, Path]) -> List[Any]:
    found = []
    for module, kind, wanted in PARTS:
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            continue
        found.append(getattr(loaded, kind)(*(places[name] for name in wanted)))
    return found


def _quiet(folder: Path) -> None:
    """Give what anybody prints a file: stdout carries frames, and nobody reads stderr."""
    log = folder / LOG
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > LOG_LIMIT:
                flags |= os.O_TRUNC
        fd = os.open(log, flags, 0o600)
    except OSError:
        fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _socket_path(folder: Path) -> Optional[str]:
    """Where runners wake a waiting poll; in a short folder of our own when the lane's path is too long for a socket."""
    path = str(folder / "agent.sock")
    if len(os.fsencode(path)) <= SOCKET_ROOM:
        return path
    from hashlib import sha256

    short = f"/tmp/lab-{os.getuid()}-{sha256(os.fsencode(path)).hexdigest()[:12]}"
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            os.mkdir(short, 0o700)
        info = os.lstat(short)
        # Somebody else may have made it first: then poll looks every 0.1 s instead.
        if info.st_uid == os.getuid() and info.st_mode & 0o170077 == 0o040000:
            return f"{short}/agent.sock"
    return None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _last_word(out: int, word: Dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        for piece in frames.frames(word, 0):
            _write(out, piece)
