"""Machines to log in to: a real sshd on a port of its own, and servers that behave badly on purpose."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paramiko.ssh_exception import SSHException

from lanes.agent import boot, procs
from lanes.ssh import bootstrap, hostkeys
from lanes.ssh.hostkeys import HostKey
from lanes.ssh.settings import Pace, SshSettings
from lanes.ssh.transport import SshTransport
from tests.support import wait_for

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
NO_SSHD = "" if os.path.exists(SSHD) and shutil.which("ssh-keygen") else "there is no sshd here (openssh-server)"
QUICK = Pace(first_s=0.02, base_s=0.05, most_s=0.2, refused_s=600.0, settled_s=0.0)


def keygen(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Sshd:
    """An sshd as this user, with a home folder of its own for logins (by a forced environment: HOME).

    Every session runs `login`, a script that a test may replace; as it is, it does what sshd does with a command.
    """

    def __init__(self, folder: Path, *extra: str, shell: str = "/bin/sh") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.home = folder / "home"
        self.home.mkdir()
        self.port = free_port()
        self.shell = shell
        self.user_key = keygen(folder / "user")
        self.host_key = keygen(folder / "host")
        (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
        self.login = folder / "login"
        self.set_login("")
        self.extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def set_login(self, before: str, *, command: str | None = None) -> None:
        """Have each session run `before` (shell text, as a noisy start-up file) and then its command."""
        run = command if command is not None else f'exec {self.shell} -c "$SSH_ORIGINAL_COMMAND"'
        text = f"#!/bin/sh\nexport HOME={self.home}\ncd\n{before}\n{run}\n"
        new = self.login.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o700)
        new.rename(self.login)

    def start(self) -> None:
        config = self.folder / "sshd_config"
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"PidFile {self.folder / 'pid'}",
            f"ForceCommand {self.login}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "LogLevel VERBOSE",
        ]
        # Of several lines for one setting sshd takes the first.
        config.write_text("".join(f"{line}\n" for line in (*self.extra, *lines)))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._log = open(self.folder / "sshd.log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)], stderr=self._log, start_new_session=True
        )
        wait_for(self._listens, "sshd to listen", deadline_s=20)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """The server and every session of it."""
        if self._process is None:
            return
        for proc in [p for p in map(procs.identify, procs.descendants(self._process.pid)) if p is not None]:
            procs.kill(proc, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None
        self._log.close()

    def new_host_key(self) -> None:
        self.stop()
        for name in ("host", "host.pub"):
            (self.folder / name).unlink()
        keygen(self.folder / "host")
        self.start()

    def key(self, port: int | None = None) -> HostKey:
        return public_key(self.folder / "host.pub", f"[127.0.0.1]:{port or self.port}")

    def trust(self, known_hosts: Path, port: int | None = None) -> None:
        hostkeys.store(known_hosts, self.key(port), replace=True)

    def settings(self, folder: Path, **changes: Any) -> SshSettings:
        """A lane on this server, as the home `folder` would have it; the host key is trusted."""
        empty = folder / "ssh_config"
        folder.mkdir(parents=True, exist_ok=True)
        if not empty.exists():
            empty.write_text("")
        port = changes.get("port", self.port)
        if changes.pop("trusted", True):
            self.trust(folder / "known_hosts", port)
        return SshSettings(
            **{
                "lane": "mini",
                "host": "127.0.0.1",
                "port": port,
                "user": getpass.getuser(),
                "head": "me@here:/home/me/.lab",
                "home_hash": "0123456789ab",
                "known_hosts": folder / "known_hosts",
                "identity": str(self.user_key),
                "python": sys.executable,
                "root": str(folder / "lane"),
                "ssh_config": str(empty),
                "keepalive_s": 0.5,
                "beat_s": 0.2,
                "silence_s": 10.0,
                "connect_s": 30.0,
                "patience_s": 30.0,
                "pace": QUICK,
                **changes,
            }
        )


def public_key(path: Path, name: str) -> HostKey:
    import base64

    kind, blob = path.read_text().split()[:2]
    return HostKey(name, kind, base64.b64decode(blob))


class Server:
    """A TCP server whose connections are handled by `handle(socket)`, a thread each."""

    def __init__(self, handle: Callable[[socket.socket], None], room: int | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        if room is not None:  # what may wait in the system's buffers: taken over by each connection
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        self.port = int(self._listener.getsockname()[1])
        self._handle = handle
        self._open: list[socket.socket] = []
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._open.append(sock)
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError, SSHException):
            self._handle(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Proxy(Server):
    """Forwards to `port`, as long as it is let; `change(data)` may alter what comes from the server."""

    def __init__(self, port: int, room: int | None = None) -> None:
        self.target = port
        self.room = room
        self.flowing = threading.Event()
        self.flowing.set()
        self.change: Callable[[bytes], bytes | None] = lambda data: data
        super().__init__(self._both, room)

    def cut(self) -> None:
        """Close all connections (both ends see it)."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _both(self, sock: socket.socket) -> None:
        other = socket.socket()
        if self.room is not None:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.room)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.room)
        other.connect(("127.0.0.1", self.target))
        self._open.append(other)
        there = threading.Thread(target=self._pump, args=(sock, other, lambda d: d), daemon=True)
        there.start()
        self._pump(other, sock, lambda d: self.change(d))
        there.join()
        sock.close()
        other.close()

    def _pump(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(1 << 16)
                self.flowing.wait()
                changed = change(data)
                if not data or changed is None:
                    break
                sink.sendall(changed)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def shipped_store(text: str) -> contextlib.AbstractContextManager[None]:
    """Send this text as lanes/agent/store.py: what answers calls beside the agent. `obey` is done in order."""
    ordered = 'ORDERED = frozenset(("start", '
    return shipped(
        {
            "lanes/agent/store.py": lambda _: textwrap.dedent(text),
            "lanes/agent/serve.py": lambda old: old.replace(ordered, ordered + '"obey", '),
        }
    )


@contextlib.contextmanager
def shipped(changes: dict[str, Callable[[str], str]]) -> Iterator[None]:
    """Send other code than there is: for each file, its new text made of the old."""
    _sha, files, blob = bootstrap.code()
    blobs, at = {}, 0
    for name, size in files:
        blobs[name] = blob[at : at + size]
        at += size
    for name, change in changes.items():
        blobs[name] = change(blobs.get(name, b"").decode()).encode()
    listed = [(n, len(blobs[n])) for n in sorted(blobs)]
    changed = (boot.digest(blobs), listed, b"".join(blobs[n] for n, _ in listed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "code", lambda: changed)
        yield


class Lanes:
    """Makes transports, and closes them at the end of the test."""

    def __init__(self) -> None:
        self.made: list[SshTransport] = []

    def __call__(self, settings: SshSettings) -> SshTransport:
        self.made.append(SshTransport(settings))
        return self.made[-1]

    def close(self) -> None:
        for transport in self.made:
            transport.close()
