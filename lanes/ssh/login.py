"""Logging in: keys that were named, keys of the ssh agent, the usual files, a password, in that order.

What was tried is told when nothing of it was accepted; a secret never is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import paramiko
from paramiko.ssh_exception import (
    AuthenticationException,
    BadAuthenticationType,
    PasswordRequiredException,
    SSHException,
)

from lanes.ssh.resolve import Hop
from lanes.ssh.settings import SshSettings, password_of
from lanes.transport import LinkDown, LinkRefused

_MOST_AGENT_KEYS = 4  # servers hang up after six tries


def log_in(transport: Any, hop: Hop, settings: SshSettings, *, last: bool, deadline: float) -> None:
    """Authenticate over `transport`, whose other end has been checked to be `hop`.

    Args:
        last: it is the lane itself, to which alone the lane's password is told.

    Raises:
        LinkDown: it went away meanwhile. LinkRefused: nothing of what we have was accepted.
    """
    tried = _Tried()
    try:
        if _offer(transport, hop, settings, tried, last=last):
            return
    except (SSHException, EOFError, OSError) as error:
        if not transport.parting or time.monotonic() > deadline:
            offered = f" after {', '.join(tried.words)}" if tried.words else ""
            raise LinkDown(f"{hop.address} went away during the login{offered}") from error
        tried.words.append(f"then it hung up: {transport.parting!r}")
    takes = f"; it takes {', '.join(tried.takes)}" if tried.takes else ""
    words = ", ".join(tried.words) or "there was nothing to try"
    raise LinkRefused(
        "authenticated",
        "auth-refused",
        f"{hop.address} refuses the login ({words}{takes})",
        tried.hint(hop, settings, last=last),
    )


@dataclass
class _Tried:
    """What was offered, for people. Never a secret."""

    words: list[str] = field(default_factory=list)
    takes: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    wants_password: bool = False

    def hint(self, hop: Hop, settings: SshSettings, *, last: bool) -> str:
        if self.locked:
            return f"load {self.locked[0]} into your ssh agent (ssh-add {self.locked[0]})"
        if self.takes == ["publickey"] or not last:
            copy = f"ssh-copy-id -p {hop.port} {hop.user}@{hop.host}"
            return f"put your public key into ~/.ssh/authorized_keys there ({copy})"
        if settings.password_env is not None and not os.environ.get(settings.password_env):
            return f"put the password into the environment variable {settings.password_env} where `lab up` runs"
        return "name a key (`identity:`) or the variable that holds the password (`password_env:`) in cluster.yaml"


def _offer(transport: Any, hop: Hop, settings: SshSettings, tried: _Tried, *, last: bool) -> bool:
    """Offer what we have, in OpenSSH's order. True when we are in."""
    try:
        transport.auth_none(hop.user)
        return True
    except BadAuthenticationType as error:
        tried.takes = [str(t) for t in error.allowed_types]
    except AuthenticationException:
        _still_there(transport)
    if not tried.takes or "publickey" in tried.takes:
        with contextlib.closing(_keys(hop, settings, tried)) as keys:
            for name, key in keys:
                try:
                    more = transport.auth_publickey(hop.user, key)
                except AuthenticationException:
                    tried.words.append(name)
                    _still_there(transport)
                    continue
                if not more:
                    return True
                tried.words.append(f"{name} (accepted, but more is asked for)")
                tried.takes = [str(t) for t in more]
                break
    if not last:
        return False  # the lane's password is no jump host's business
    if not tried.takes or {"password", "keyboard-interactive"} & set(tried.takes):
        return _offer_password(transport, hop, settings, tried)
    return False


def _offer_password(transport: Any, hop: Hop, settings: SshSettings, tried: _Tried) -> bool:
    source, password = settings.password_env, password_of(settings)
    if password is None:
        if source is not None:
            tried.words.append(f"no password ({source} is not set or empty)")
        return False
    try:
        if "password" in tried.takes or not tried.takes:
            more = transport.auth_password(hop.user, password, fallback=False)
        else:
            more = transport.auth_interactive(hop.user, lambda _title, _words, asked: [password for _ in asked])
    except AuthenticationException:
        tried.words.append(f"the password of {source}")
        _still_there(transport)
        return False
    if more:
        tried.words.append(f"the password of {source} (accepted, but more is asked for)")
        tried.takes = [str(t) for t in more]
    return not more


def _still_there(transport: Any) -> None:
    """Whether it was the login that was refused: the library says the same of a link that was lost meanwhile."""
    if not transport.is_active():
        raise EOFError("it hung up")


def _keys(hop: Hop, settings: SshSettings, tried: _Tried) -> Generator[tuple[str, Any], None, None]:
    """(name for people, key): an identity that was named, the ssh agent's, the usual files."""
    for path in hop.identities if hop.identities_only else ():
        yield from _key_file(path, tried)
    if os.environ.get("SSH_AUTH_SOCK"):
        agent = None
        try:
            agent = paramiko.Agent()
            for key in _fitting(list(agent.get_keys()), hop):
                yield f"key {key.fingerprint} of the ssh agent", key
        except (SSHException, OSError) as error:
            tried.words.append(f"not the ssh agent ({why(error)})")
        finally:
            if agent is not None:
                agent.close()
    for path in () if hop.identities_only else hop.identities:
        yield from _key_file(path, tried)
    if settings.identity is not None and not hop.identities:
        tried.words.append(f"no key ({settings.identity} is not there)")


def _key_file(path: str, tried: _Tried) -> Iterator[tuple[str, Any]]:
    try:
        yield f"key {path}", paramiko.PKey.from_path(path)
    except (PasswordRequiredException, TypeError):
        # The library says TypeError of a key that needs a passphrase.
        tried.locked.append(path)
        tried.words.append(f"not {path}, which has a passphrase")
    except (SSHException, ValueError, OSError, paramiko.pkey.UnknownKeyType) as error:
        tried.words.append(f"not {path}, which cannot be read ({type(error).__name__})")


def _fitting(keys: list[Any], hop: Hop) -> list[Any]:
    """Of a hop with identities of its own only those (the public half lies beside the file)."""
    if not hop.identities_only:
        return keys[:_MOST_AGENT_KEYS]
    wanted = set()
    for path in hop.identities:
        with contextlib.suppress(OSError, IndexError, UnicodeError), open(f"{path}.pub") as f:
            wanted.add(f.read().split()[1])
    return [k for k in keys if k.get_base64() in wanted]


def why(error: BaseException) -> str:
    """The reason in the system's words, without its numbers."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, EOFError):
        return str(error) or "it hung up"
    text = getattr(error, "strerror", None) or str(error)
    return str(text).strip() or type(error).__name__
