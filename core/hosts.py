"""What people may write where a machine is named. Checked before any of it reaches a shell, ssh, or a path.

Standard library only. Each check returns the value, or raises BadInput with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.errors import BadInput

_LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def check_host(host: str, *, what: str = "host") -> str:
    """A name, an address, or an alias of the ssh configuration; nothing that a shell or ssh could take for more."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _HOST.fullmatch(bare) or (":" in bare and _IPV6.fullmatch(bare)):
        return bare
    hint = "give a name or an address: letters, digits, dots, dashes"
    if "@" in host or (host.count(":") == 1 and host.rpartition(":")[2].isdigit()):
        hint = "give the user and the port as settings of their own: `user:`, `port:`"
    raise BadInput(f"the {what} {_shown(host)} is no name of a machine", hint=hint)


def check_user(user: str) -> str:
    if _USER.fullmatch(user):
        return user
    raise BadInput(
        f"the user {_shown(user)} is no name of an account", hint="give letters, digits, dots, dashes; no spaces"
    )


def check_port(port: int) -> int:
    if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
        return port
    raise BadInput(f"the port {_shown(port)} does not exist", hint="give a number from 1 to 65535")


def check_lane_name(name: str) -> str:
    """It becomes a folder's name and part of commands that people type."""
    if _LANE.fullmatch(name):
        return name
    raise BadInput(
        f"{_shown(name)} cannot be a lane's name",
        hint="give letters, digits, dots, dashes and underscores, a letter or digit first, at most 64 of them",
    )


def check_prefix(words: Sequence[str]) -> tuple[str, ...]:
    """A command and its arguments. They are quoted when used; what no quoting can save is refused."""
    for word in words:
        if not isinstance(word, str) or not word or _unprintable(word):
            raise BadInput(f"the prefix has the word {_shown(word)}", hint="give plain words, one item each")
    if words and words[0].startswith("-"):
        raise BadInput(f"the prefix begins with {_shown(words[0])}, which is no command", hint="name the command first")
    return tuple(words)


def check_remote_path(path: str, *, what: str) -> str:
    """A path on a lane: absolute, below the home (`~/`, or relative to it)."""
    if not path or _unprintable(path) or path.startswith("-") or len(path) > 1024:
        raise BadInput(f"{what} is {_shown(path)}, which is no path", hint="give an absolute path, or one below ~/")
    if ".." in path.split("/"):
        raise BadInput(f"{what} is {_shown(path)}", hint="give the path without `..`")
    return path


def check_variable(name: str, *, what: str) -> str:
    """The name of an environment variable. (A secret itself, given by mistake, must not be shown.)"""
    if _VARIABLE.fullmatch(name):
        return name
    raise BadInput(
        f"{what} must be the name of an environment variable, and is not one",
        hint="write the name there and put the secret into the variable; a secret does not belong into that file",
    )


def check_jump(jump: str) -> str:
    """As ProxyJump of ssh: [user@]host[:port], several separated by commas, or `none`."""
    hops(jump)
    return jump


def hops(jump: str) -> list[tuple[str, str | None, int | None]]:
    """(host, user, port) of each hop, nearest first; empty for `none`."""
    if jump.strip().lower() in ("", "none"):
        return []
    found = []
    for word in jump.split(","):
        word = word.strip().removeprefix("ssh://")
        user, at, rest = word.rpartition("@")
        host, port = rest, None
        named = re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d{1,5})", rest)
        if named:
            host, port = named[1], check_port(int(named[2]))
        found.append((check_host(host, what="jump host"), check_user(user) if at else None, port))
    return found


def _unprintable(text: str) -> bool:
    return any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
