"""From a login to a running far end: one constant command, everything else through stdin.

The command is the same for every lane and every shell; what could be misread by one is not in it. The far end answers
with a mark that no login prints by chance; all that comes before it is noise.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

from lanes.agent import SHIPPED, boot, frames
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkDown, LinkRefused

_CODE_ROOT = Path(__file__).resolve().parents[2]
# Read one line, byte by byte (nothing may be taken from what follows it), and run it. Without spaces, quotes of one
# kind only, and nothing that sh, csh, fish, cmd or PowerShell would expand between double quotes. The first entry of
# the path is the login's folder: no module of ours may come from there.
_RUN = (
    "import sys;sys.path.pop(0);import os,binascii;"
    "exec(binascii.a2b_base64(b''.join(iter(lambda:os.read(0,1).strip(),b''))))"
)
_FLAGS = "-EsS -c"  # as -I -S, in words that old Pythons know too: they are to tell their version, not to fail
_QUOTED = 300
_LAST_WORDS_S = 2.0


def command(settings: SshSettings) -> str:
    """What sshd is asked to run."""
    words = [shlex.quote(word) for word in settings.prefix]
    return " ".join([*words, _path(settings.python), _FLAGS, f'"{_RUN}"'])


def _path(path: str) -> str:
    """Quoted, but a `~` at the beginning stays for the shell to read."""
    if path.startswith("~"):
        user, slash, rest = path.partition("/")
        if user == "~" or user[1:].replace("_", "").replace("-", "").isalnum():
            return user + slash + (shlex.quote(rest) if rest else "")
    return shlex.quote(path)


@functools.cache
def code() -> tuple[str, list[tuple[str, int]], bytes]:
    """What a lane needs: (its digest, the files' names and sizes, their bytes one after the other)."""
    names: list[str] = []
    for entry in SHIPPED:
        place = _CODE_ROOT / entry
        found = [place] if place.is_file() else sorted(p for p in place.rglob("*.py"))
        names += [p.relative_to(_CODE_ROOT).as_posix() for p in found]
    blobs = {name: (_CODE_ROOT / name).read_bytes() for name in sorted(names)}
    return boot.digest(blobs), [(n, len(b)) for n, b in blobs.items()], b"".join(blobs.values())


def start(channel: Any, settings: SshSettings, deadline: float) -> tuple[frames.Parser, dict[str, Any]]:
    """Have the far end running at the other side of `channel` (an ssh session on which nothing was started).

    Returns:
        what makes messages of the rest of the stream, and what the far end says of itself:
        {"epoch", "pid", "root", "python", "executable", "boot_id", "noise": bytes skipped, "sent": bytes of code sent}

    Raises:
        LinkDown, LinkRefused.
    """
    return _Start(channel, settings, deadline).run()


class _Start:
    def __init__(self, channel: Any, settings: SshSettings, deadline: float) -> None:
        self._channel = channel
        self._settings = settings
        self._deadline = deadline
        self._parser = frames.Parser()
        self._messages: list[dict[str, Any]] = []
        self._noise = bytearray()  # what came before the mark, its middle left out
        self._skipped = 0
        self._errors = bytearray()  # the end of what came on stderr

    def run(self) -> tuple[frames.Parser, dict[str, Any]]:
        mark = os.urandom(16).hex()
        sha, listed, blob = code()
        self._channel.exec_command(command(self._settings))
        self._send(self._line(mark, sha))
        self._skip_noise(mark.encode())
        sent = 0
        message = self._message()
        if "need" in message:
            self._send(frames.frame(json.dumps({"files": listed}).encode(), blob))
            sent = len(blob)
            message = self._message()
        if "refused" in message:
            raise self._refused(*[str(x) for x in message["refused"]])
        if "serving" not in message:
            raise LinkDown(f"the far end began with {str(message)[:80]!r}")
        return self._parser, {**message["serving"], "noise": self._skipped, "sent": sent}

    def _line(self, mark: str, sha: str) -> bytes:
        about = self._settings
        told = {
            "mark": mark,  # an echo of what we send does not hold it as it stands: the line is base64
            "sha": sha,
            "root": about.root,
            "home": about.home_hash,
            "head": about.head,
            "lane": about.lane,
            "beat_s": about.beat_s,
            "silence_s": about.far_silence_s,
        }
        text = Path(boot.__file__).read_text(encoding="utf-8")
        text = text.replace('BOOT = "{}"', f"BOOT = {json.dumps(told)!a}", 1)
        return base64.b64encode(text.encode()) + b"\n"

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        self._channel.settimeout(max(0.1, self._deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError, OSError):  # whoever does not read will be heard, or waited for in vain
            while view:
                view = view[self._channel.send(bytes(view[: 1 << 15])) :]

    def _skip_noise(self, mark: bytes) -> None:
        """Pass over what the login prints, wherever in it the mark stands."""
        overlap = len(mark) - 1
        while True:
            data = self._receive()
            if not data:
                raise self._ended()
            at = (bytes(self._noise[-overlap:]) + data).find(mark)
            if at >= 0:
                before = at - min(overlap, len(self._noise))
                self._skipped += before
                self._messages += self._feed(data[before + len(mark) :])
                return
            self._skipped += len(data)
            self._noise += data
            if len(self._noise) > 4 * _QUOTED:
                del self._noise[_QUOTED : len(self._noise) - _QUOTED]
            if self._skipped > self._settings.noise_limit:
                raise LinkRefused(
                    "agent",
                    "noise",
                    f"the login on {self._settings.host} prints without end ({self._skipped >> 20} MiB so far: "
                    f"{self._quote(bytes(self._noise[:_QUOTED]))})",
                    "have its start-up files print nothing unless the shell is interactive: in ~/.bashrc, first of "
                    "all, `case $- in *i*) ;; *) return ;; esac`",
                )

    def _message(self) -> dict[str, Any]:
        while not self._messages:
            data = self._receive()
            if not data:
                raise LinkDown(f"the far end went away while it was starting{self._said()}")
            self._messages += self._feed(data)
        return self._messages.pop(0)

    def _feed(self, data: bytes) -> list[dict[str, Any]]:
        try:
            return self._parser.feed(data)
        except frames.Broken as error:
            raise LinkDown(f"what the far end says arrives damaged: {error}") from error

    def _receive(self) -> bytes:
        """Some bytes of stdout; none at the end of it."""
        while True:
            self._listen_to_errors()
            if time.monotonic() > self._deadline:
                raise LinkDown(f"{self._settings.host}: the far end did not start in time{self._said()}")
            self._channel.settimeout(0.25)
            try:
                return bytes(self._channel.recv(1 << 16))
            except TimeoutError:
                continue

    def _listen_to_errors(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(1 << 16)
            if not data:
                return
            self._errors += data
            del self._errors[:-4096]

    def _ended(self) -> Exception:
        """The login ended without a Python of ours: what was it?"""
        until = min(self._deadline, time.monotonic() + _LAST_WORDS_S)
        while not self._channel.exit_status_ready() and not self._channel.closed and time.monotonic() < until:
            time.sleep(0.01)
        self._listen_to_errors()
        code = self._channel.recv_exit_status() if self._channel.exit_status_ready() else None
        said = bytes(self._errors) or bytes(self._noise)
        words = said.decode("utf-8", "replace").lower()
        where, quoted = self._settings.host, self._quote(said)
        if code == -1 or (code is None and not said):
            return LinkDown(f"{where} closed the session before the far end had started{self._said()}")
        if "not currently available" in words or "currently not available" in words or "nologin" in words:
            return LinkRefused(
                "agent", "no-login", f"the account on {where} does not allow commands: {quoted}", "use another account"
            )
        if any(w in words for w in ("must be run from a terminal", "not a tty", "a terminal is required", "no tty")):
            return LinkRefused(
                "agent",
                "wants-tty",
                f"the login on {where} wants a terminal: {quoted}",
                "have it run commands without one (for sudo: NOPASSWD and no requiretty)",
            )
        # csh ends with 1, cmd with 1, wsl with 1 or 255: their words tell.
        missing = ("command not found", ": not found", "unknown command", "is not recognized", "execvpe")
        if code in (126, 127, 9009) or any(w in words for w in missing):
            return LinkRefused(
                "python",
                "no-python",
                f"{self._settings.python!r} cannot be run on {where}: {quoted}",
                "set `python:` of the lane to the path of a Python from 3.9 on",
            )
        return LinkRefused(
            "agent",
            "no-agent",
            f"the login on {where} ended with exit {code} and ran no Python of ours"
            + (f": {quoted}" if said else ", without a word"),
            "see what `ssh HOST python3 --version` prints: a forced command or a start-up file is in the way",
        )

    def _refused(self, rung: str, cause: str, message: str, hint: str) -> LinkRefused:
        where = self._settings.host
        if cause == "old-python":
            message = f"the Python on {where} is {message} ({hint}), and 3.9 is the oldest that will do"
            hint = "set `python:` of the lane to the path of a newer one"
        elif cause in ("not-posix", "incomplete-python"):
            message, hint = f"the Python on {where} will not do: {message} ({hint})", "set `python:` to another one"
        elif cause == "disk-full":
            message, hint = f"the disk of {self._settings.root} on {where} is full ({message})", "free some of it"
        elif cause == "root":
            message, hint = f"the lane's folder on {where}: {message}", "set `root:` of the lane to another folder"
        return LinkRefused(rung, cause, message, hint)

    def _said(self) -> str:
        said = bytes(self._errors) or bytes(self._noise)
        return f"; it said {self._quote(said)}" if said.strip() else ""

    def _quote(self, said: bytes) -> str:
        """The end of what was said, on one line, without anything that a terminal would obey."""
        text = " ".join(said.decode("utf-8", "replace").split())
        text = "".join(c if c.isprintable() else "?" for c in text)
        return repr(text if len(text) <= _QUOTED else "..." + text[-_QUOTED:])
