"""An authenticated connection to the lane, through its jump hosts, each with its host key checked. All of it bounded.

What cannot be reached is LinkDown (it may come back by itself); what a person has to settle is LinkRefused.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import paramiko
from paramiko.ssh_exception import IncompatiblePeer, SSHException

from lanes.ssh import hostkeys
from lanes.ssh.hostkeys import HostKey, Seen
from lanes.ssh.login import log_in, why
from lanes.ssh.resolve import Hop, resolve
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkDown, LinkRefused, Unreachable

_LOG = "lab.ssh"
# What paramiko would print of a lost connection is said better by our own errors.
logging.getLogger(_LOG).addHandler(logging.NullHandler())
logging.getLogger(_LOG).propagate = False

_NOTSENT_BYTES = 128 << 10


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """Keeps what the server says when it hangs up: too many wrong keys is another thing than a lost link."""

    parting = ""

    def _parse_disconnect(self, m: Any) -> None:
        m.get_int()
        self.parting = str(m.get_text())[:200]


@dataclass
class Connection:
    """The transports of all hops, the lane's own last."""

    hops: tuple[Hop, ...]
    transports: list[Any] = field(default_factory=list)
    socket: socket.socket | None = None
    proxy: subprocess.Popen[bytes] | None = None

    @property
    def transport(self) -> Any:
        return self.transports[-1]

    def close(self) -> None:
        """Close at once, whatever state it is in; waits for nobody."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
        for transport in reversed(self.transports):
            with contextlib.suppress(Exception):
                transport.packetizer.close()
                transport.close()
        if self.proxy is not None:
            self.proxy.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.proxy.wait(1.0)


def connect(settings: SshSettings, deadline: float, began: Callable[[Connection], None]) -> Connection:
    """Log in to the lane.

    Args:
        deadline: on the monotonic clock; at the latest then the connection is closed and LinkDown raised.
        began: is given the connection before it is made, so that it can be closed from outside meanwhile.

    Raises:
        LinkDown, LinkRefused.
    """
    hops = resolve(settings)
    made = Connection(hops)
    began(made)
    with _Bounded(made, deadline):
        for hop in hops:
            _shake_hands(made, hop, settings, deadline)
            hostkeys.check(settings.known_hosts, _key_of(made, hop), settings.lane)
            log_in(made.transport, hop, settings, last=hop is hops[-1], deadline=deadline)
    return made


def scan(settings: SshSettings) -> list[Seen]:
    """The host keys of all machines on the way, as far as one gets: the first that is not trusted is the last.

    The way is complete when the last one's name is that of `resolve(settings)[-1]`.

    Raises:
        LinkDown, LinkRefused.
    """
    deadline = time.monotonic() + settings.connect_s
    hops = resolve(settings)
    made = Connection(hops)
    found: list[Seen] = []
    try:
        with _Bounded(made, deadline):
            for hop in hops:
                _shake_hands(made, hop, settings, deadline)
                found.append(hostkeys.look(settings.known_hosts, _key_of(made, hop)))
                if found[-1].standing != "same" or hop is hops[-1]:
                    break
                log_in(made.transport, hop, settings, last=False, deadline=deadline)
    finally:
        made.close()
    return found


class _Bounded:
    """Close the connection at the deadline or on an error, and say then what it was waiting for."""

    def __init__(self, made: Connection, deadline: float) -> None:
        self._made = made
        self._late = False
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self._late = True
        self._made.close()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._timer.cancel()
        if error is None:
            if self._late:
                raise LinkDown("the connection was not made in time")
            return
        self._made.close()
        if self._late and not isinstance(error, LinkRefused):
            step = self._made.hops[len(self._made.transports) - 1 if self._made.transports else 0]
            raise LinkDown(f"{step.address} did not finish the login in time") from error


def _shake_hands(made: Connection, hop: Hop, settings: SshSettings, deadline: float) -> None:
    """Reach the machine and agree on keys; who it is has not been checked then."""
    if made.transports:
        sock = _through(made, hop, deadline)
    elif hop.proxy_command is not None:
        sock = _proxy(made, hop)
    else:
        sock = _reach(made, hop, deadline)
    have = hostkeys.known(settings.known_hosts, hop.name)
    try:
        transport = _Transport(sock)
        transport.set_log_channel(_LOG)
        left = max(0.5, deadline - time.monotonic())
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = left
        transport.channel_timeout = left
        made.transports.append(transport)
        _prefer_known(transport, have)
        transport.start_client(timeout=left)
    except IncompatiblePeer as error:
        raise LinkRefused(
            "reachable",
            "no-common-algorithm",
            f"{hop.address} and we have no algorithm in common ({error})",
            "install a newer ssh server there",
        ) from error
    except (SSHException, EOFError, OSError) as error:
        raise LinkDown(f"{hop.address} was reached, but does not speak ssh as it should ({why(error)})") from error


def _reach(made: Connection, hop: Hop, deadline: float) -> socket.socket:
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(hop.family, socket.AF_UNSPEC)
    try:
        places = socket.getaddrinfo(hop.host, hop.port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Unreachable(f"the name {hop.host} does not resolve ({why(error)})") from error
    problem: OSError = OSError("no address")
    for number, (kind, how, protocol, _name, address) in enumerate(places):
        left = deadline - time.monotonic()
        try:
            sock = socket.socket(kind, how, protocol)
        except OSError as error:
            problem = error
            continue
        made.socket = sock
        try:
            sock.settimeout(max(0.1, left / (len(places) - number)))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A command must not queue behind megabytes of an upload in the kernel's buffer.
            with contextlib.suppress(OSError, AttributeError):  # not every system has it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_BYTES)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    definite = problem.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
    raise (Unreachable if definite else LinkDown)(f"{hop.address} cannot be reached ({why(problem)})") from problem


def _proxy(made: Connection, hop: Hop) -> socket.socket:
    """The connection that a ProxyCommand makes, as a socket."""
    ours, theirs = socket.socketpair()
    made.socket = ours
    with theirs:
        made.proxy = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {hop.proxy_command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
        )
    return ours


def _through(made: Connection, hop: Hop, deadline: float) -> Any:
    before = made.hops[len(made.transports) - 1]
    try:
        return made.transport.open_channel(
            "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=max(0.5, deadline - time.monotonic())
        )
    except paramiko.ChannelException as error:
        if error.code == 1:  # administratively prohibited
            raise LinkRefused(
                "reachable",
                "no-forwarding",
                f"the jump host {before.address} does not let us through to {hop.host}:{hop.port}",
                "allow TcpForwarding there for this account",
            ) from error
        raise Unreachable(f"{hop.address} cannot be reached from {before.address} ({error.text})") from error
    except (SSHException, EOFError, OSError) as error:
        raise LinkDown(f"{before.address} went away ({why(error)})") from error


def _prefer_known(transport: Any, have: tuple[HostKey, ...]) -> None:
    """Ask for a key of a kind that we know, as OpenSSH does: else a server with several would seem to have changed."""
    kinds: list[str] = []
    for key in have:
        kinds += ["rsa-sha2-512", "rsa-sha2-256"] if key.kind == "ssh-rsa" else [key.kind]
    options = transport.get_security_options()
    usual = list(options.key_types)
    options.key_types = [k for k in kinds if k in usual] + [k for k in usual if k not in kinds]


def _key_of(made: Connection, hop: Hop) -> HostKey:
    key = made.transport.get_remote_server_key()
    return HostKey(hop.name, key.get_name(), key.asbytes())
