"""A host as OpenSSH would reach it: its own program is asked (`ssh -G`), so that no rule of it is told twice."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from dataclasses import dataclass, replace

from core import hosts
from core.errors import BadInput
from lanes.ssh.settings import SshSettings
from lanes.transport import LinkRefused

_RESOLVE_S = 15.0
_DEPTH = 8  # jump hosts that have jump hosts that ...
_USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class Hop:
    """One machine to log in to.

    Attributes:
        name: under which its host key is kept: `host`, `[host]:port`, or the HostKeyAlias.
        identities: private key files to be tried, in order.
        identities_only: the ssh agent offers no key beside those.
        proxy_command: a program whose stdin and stdout are the connection; of the first hop only.
        family: "inet", "inet6" or "any".
    """

    host: str
    port: int
    user: str
    name: str
    identities: tuple[str, ...] = ()
    identities_only: bool = False
    proxy_command: str | None = None
    family: str = "any"

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def resolve(settings: SshSettings) -> tuple[Hop, ...]:
    """All machines on the way, the lane itself last.

    Raises:
        LinkRefused: ssh's configuration cannot be used (rung "reachable").
    """
    found = _ask(settings, settings.host, settings.user, settings.port)
    jump = settings.jump if settings.jump is not None else found.get("proxyjump", "none")
    target = _hop(found)
    if settings.identity is not None:
        path = os.path.expanduser(settings.identity)
        target = replace(target, identities=(path,), identities_only=True)
    through = _through(settings, jump, _DEPTH)
    if through or settings.jump is not None:
        target = replace(target, proxy_command=None)
    return (*through, target)


def _through(settings: SshSettings, jump: str, depth: int) -> tuple[Hop, ...]:
    """The hops that `jump` names; before the first of them those that it needs itself."""
    if depth == 0:
        raise _refused("jump-loop", f"the jump hosts of {settings.host} lead in a circle", "correct ProxyJump")
    try:
        words = hosts.hops(jump)
    except BadInput as error:
        raise _refused("jump", error.message, error.hint) from error
    found: list[Hop] = []
    for number, (host, user, port) in enumerate(words):
        about = _ask(settings, host, user, port)
        hop = _hop(about)
        if number == 0:
            before = _through(settings, about.get("proxyjump", "none"), depth - 1)
            found += before
        if found:
            hop = replace(hop, proxy_command=None)
        if settings.identity is not None:
            hop = replace(hop, identities=(*hop.identities, os.path.expanduser(settings.identity)))
        found.append(hop)
    return tuple(found)


def _ask(settings: SshSettings, host: str, user: str | None, port: int | None) -> dict[str, str]:
    """What `ssh -G` says; of settings that may stand there more than once (identityfile) all, one a line."""
    program = shutil.which("ssh")
    if program is None:
        if settings.ssh_config is not None:
            raise _refused("no-ssh", "ssh_config is given, and there is no ssh program here that reads it", "")
        return {"hostname": host, "user": user or getpass.getuser(), "port": str(port or 22)}
    argv = [program, "-G"]
    if settings.ssh_config is not None:
        argv += ["-F", os.path.expanduser(settings.ssh_config)]
    if user is not None:
        argv += ["-l", user]
    if port is not None:
        argv += ["-p", str(port)]
    try:
        done = subprocess.run(
            [*argv, "--", host], stdin=subprocess.DEVNULL, capture_output=True, timeout=_RESOLVE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        hint = "look for a `Match exec` that does not end"
        raise _refused("ssh-config", f"`ssh -G {host}` does not end", hint) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        hint = "correct the configuration of ssh"
        raise _refused("ssh-config", f"`ssh -G {host}` fails: {said[-1] if said else 'it says nothing'}", hint)
    found: dict[str, str] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        found[key] = f"{found[key]}\n{value}" if key in found else value
    return found


def _hop(found: dict[str, str]) -> Hop:
    try:
        host, user = hosts.check_host(found["hostname"]), hosts.check_user(found["user"])
    except BadInput as error:
        raise _refused(
            "ssh-config", f"ssh's configuration leads to a host that is none: {error.message}", ""
        ) from error
    port = int(found["port"])
    alias = found.get("hostkeyalias", "none")
    name = alias if alias != "none" else host if port == 22 else f"[{host}]:{port}"
    home = os.path.expanduser("~")
    tokens = {"%%": "%", "%h": host, "%p": str(port), "%r": user, "%d": home, "%u": getpass.getuser(), "%n": host}
    listed = [x for x in found.get("identityfile", "").split("\n") if x and x != "none"]
    files = [os.path.expanduser(_expand(x, tokens)) for x in listed]
    if "identityfile" not in found:
        files = [os.path.join(home, ".ssh", key) for key in _USUAL_KEYS]
    proxy = found.get("proxycommand", "none")
    return Hop(
        host=host,
        port=port,
        user=user,
        name=name.lower(),
        identities=tuple(f for f in files if os.path.exists(f)),
        identities_only=found.get("identitiesonly") == "yes",
        proxy_command=None if proxy == "none" else _expand(proxy, tokens),
        family=found.get("addressfamily", "any"),
    )


def _expand(text: str, tokens: dict[str, str]) -> str:
    out, at = [], 0
    while at < len(text):
        two = text[at : at + 2]
        out.append(tokens.get(two, text[at]))
        at += 2 if two in tokens else 1
    return "".join(out)


def _refused(cause: str, message: str, hint: str) -> LinkRefused:
    return LinkRefused("reachable", cause, message, hint)
