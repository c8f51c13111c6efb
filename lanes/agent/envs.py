"""The Python environments of a lane: `env/<digest>/`, each made once and whole, or not there at all.

An environment is filled in a `.partial` folder under a lock, checked, and renamed when it is good. What a killed maker
left behind is removed by the next one. Making takes minutes, so it is begun with one call and watched with another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional

from core.fsio import fsync_dir, no_space
from lanes.agent import envtrim, pythons
from lanes.agent.envmake import MARKER, CannotMake, make
from lanes.agent.safe import read_dict

_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_LOCK_PAUSE_S = 0.5


class Environments:
    """What the head asks of a lane's environments.

    Args:
        base: the lane's root folder.
        root: the agent's own folder in it.
    """

    def __init__(self, base: Path, root: Optional[Path] = None) -> None:
        self._folder = Path(base) / "env"
        self._root = root
        self._guard = threading.Lock()
        self._states: Dict[str, Dict[str, Any]] = {}
        self._closing = threading.Event()

    def close(self) -> None:
        """Stop waiting for others. What is being made is given up with this process."""
        self._closing.set()

    def env_bases(self, asked: Optional[str] = None) -> List[Dict[str, Any]]:
        """The interpreters from which an environment could be made (see `pythons.find`)."""
        return pythons.find(asked)

    def env_wanted(self, named: List[str]) -> Dict[str, Any]:
        """The head starts attempts with these interpreters: while it says so, their environments stay.

        Returns:
            {"ok": False} when that could not be written down (the disk is full).
        """
        try:
            if self._root is not None:
                envtrim.tell(self._root, [str(n) for n in named])
        except OSError:
            return {"ok": False}
        return {"ok": self._root is not None}

    def env_look(self, python: str, names: List[str]) -> Dict[str, Any]:
        """What is installed beside an interpreter.

        Returns:
            {"ok": True, "version", "packages": {name: version or None}}, or {"ok": False, "message"}.
        """
        try:
            return {"ok": True, **pythons.look(os.path.expanduser(python), names)}
        except pythons.BadPython as error:
            return {"ok": False, "message": str(error)}

    def env_have(self, digest: str) -> Optional[Dict[str, Any]]:
        """The finished environment of this digest (what `make` said of it), if it is there and still runs."""
        place = self._place(digest)
        found = read_dict(place / MARKER)
        if found.get("digest") != digest:
            return None
        envtrim.touch(place)
        try:
            pythons.ask(str(place / "bin" / "python"))
        except pythons.BadPython:
            return None  # what it was made from is gone: it is made anew
        return {**found, "python": str(place / "bin" / "python")}

    def env_make(self, order: Dict[str, Any]) -> Dict[str, Any]:
        """Begin to make an environment (see `envmake.make` for the order), or say how far it is. Repeatable.

        Returns:
            As `env_status`.
        """
        digest = str(order["digest"])
        have = self.env_have(digest)
        with self._guard:
            now = self._states.get(digest)
            if now is not None and now["state"] == "making":
                return dict(now)
            if have is not None:
                self._states[digest] = _good(have)
                return dict(self._states[digest])
            self._states[digest] = {"state": "making", "step": "beginning", "done": 0, "of": 1}
            threading.Thread(target=self._make, args=(digest, order), name="env-" + digest[:8], daemon=True).start()
            return dict(self._states[digest])

    def env_status(self, digest: str) -> Dict[str, Any]:
        """How far an environment is.

        Returns:
            {"state": "making", "step", "done", "of"}; {"state": "good", "python", "version", "by", ...};
            {"state": "failed", "message", "hint", "cause"}; or {"state": "unknown"}: nobody makes it.
        """
        with self._guard:
            now = self._states.get(digest)
            if now is not None:
                return dict(now)
        have = self.env_have(digest)
        return _good(have) if have is not None else {"state": "unknown"}

    def _make(self, digest: str, order: Dict[str, Any]) -> None:
        def say(step: str, done: int, of: int) -> None:
            self._set(digest, {"state": "making", "step": step, "done": done, "of": of})

        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked(digest, say):
                have = self.env_have(digest)
                self._set(digest, _good(have if have is not None else self._make_new(digest, order, say)))
        except CannotMake as error:
            self._fail(digest, error.message, error.hint, error.cause)
        except OSError as error:
            full = no_space(error)
            message = "the lane's disk is full" if full else "the environment cannot be made: %s" % error
            self._fail(digest, message, "free some space there" if full else "", "disk-full" if full else "environment")
        except Exception as error:
            self._fail(
                digest, "the environment cannot be made: %s: %s" % (type(error).__name__, error), "", "environment"
            )

    def _make_new(self, digest: str, order: Dict[str, Any], say: Any) -> Dict[str, Any]:
        final = self._place(digest)
        # Whoever holds the lock is alone: what lies here was left by one that was killed.
        for left in self._folder.glob(final.name + ".*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        if os.path.lexists(final):
            shutil.rmtree(final)
        # Nobody else ever had this name: a pip that outlived its maker writes into nothing.
        partial = self._folder / ("%s.%s.partial" % (final.name, os.urandom(4).hex()))
        place, wheels = partial / "env", partial / "wheels"
        try:
            place.mkdir(parents=True)
            wheels.mkdir()
            found = make(order, place, final, wheels, say)
            os.replace(place, final)
            fsync_dir(self._folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        have = self.env_have(digest)
        if have is None:
            shutil.rmtree(final, ignore_errors=True)
            raise CannotMake("the finished environment does not run from %s" % final, "", "python")
        return {**found, **have}

    @contextlib.contextmanager
    def _locked(self, digest: str, say: Any) -> Any:
        """Alone with this environment, on this machine."""
        fd = os.open(self._folder / (self._place(digest).name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    say("waiting for another that makes it", 0, 1)
                    if self._closing.wait(_LOCK_PAUSE_S):
                        raise CannotMake("the agent was told to stop") from None
            yield
        finally:
            os.close(fd)

    def _fail(self, digest: str, message: str, hint: str, cause: str) -> None:
        self._set(digest, {"state": "failed", "message": message, "hint": hint, "cause": cause})

    def _set(self, digest: str, state: Dict[str, Any]) -> None:
        with self._guard:
            self._states[digest] = state

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError("%r is no digest of an environment" % digest)
        # Short: the first line of a script holds the whole path, and the kernel reads 127 bytes of it.
        return self._folder / digest[:20]


def _good(found: Dict[str, Any]) -> Dict[str, Any]:
    return {"state": "good", **found}
