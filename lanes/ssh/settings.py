"""Everything that the ssh transport is told. No secret is ever in here: only the name of what holds one."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from core import hosts
from core.cluster import LaneConfig
from core.home import Home


@dataclass(frozen=True)
class Pace:
    """How connecting is tried again. Pauses are shortened by a random part: many lanes do not knock at once then.

    Attributes:
        first_s: after a connection that had held.
        base_s, most_s: doubled from the one up to the other while tries fail.
        refused_s: while a person has something to do.
        settled_s: a connection that held this long starts the count anew.
    """

    first_s: float = 0.2
    base_s: float = 1.0
    most_s: float = 60.0
    refused_s: float = 300.0
    settled_s: float = 10.0


@dataclass(frozen=True)
class SshSettings:
    """One lane as the transport sees it.

    Attributes:
        lane, head, home_hash: the lane's name; who we are, for people ("user@host:/home"); which home.
        host, user, port: as people wrote them; resolved as OpenSSH does.
        prefix: a command before the remote Python ("wsl", "-e").
        python: the interpreter on the lane: a name, or a path, also below ~/.
        root: our folder on the lane.
        known_hosts: our own file of host keys.
        identity: a key file that is tried first; None: those of ssh's configuration, and the ssh agent's.
        password_env: the name of the variable that holds the password, if one is needed.
        jump: hosts to go through, as ProxyJump; None: as ssh's configuration says; "none": no one.
        ssh_config: the configuration file of ssh; None: the user's own.
        keepalive_s: a sign of life this often, from our end; beat_s: from the lane's end.
        silence_s: nothing heard for this long: the connection is dead.
        connect_s: limit for a whole connect, from the name to the first frame.
        patience_s: how long a call waits for a connection that is being made.
        noise_limit: bytes that a login may print before the far end answers.
    """

    lane: str
    host: str
    head: str
    home_hash: str
    known_hosts: Path
    user: str | None = None
    port: int | None = None
    prefix: tuple[str, ...] = ()
    python: str = "python3"
    root: str = "~/.lab-lane"
    identity: str | None = None
    password_env: str | None = None
    jump: str | None = None
    ssh_config: str | None = None
    keepalive_s: float = 5.0
    beat_s: float = 2.0
    silence_s: float = 15.0
    connect_s: float = 30.0
    patience_s: float = 10.0
    noise_limit: int = 4 << 20
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        """Raises BadInput for what must not reach a shell, ssh or a path."""
        hosts.check_lane_name(self.lane)
        hosts.check_host(self.host)
        if self.user is not None:
            hosts.check_user(self.user)
        if self.port is not None:
            hosts.check_port(self.port)
        hosts.check_prefix(self.prefix)
        hosts.check_remote_path(self.python, what="`python`")
        hosts.check_remote_path(self.root, what="`root`")
        if self.password_env is not None:
            hosts.check_variable(self.password_env, what="`password_env`")
        if self.jump is not None:
            hosts.check_jump(self.jump)

    @property
    def far_silence_s(self) -> float:
        """The lane's end waits longer for us than we for it: a busy head must not lose its lanes."""
        return max(4 * self.silence_s, 3 * self.keepalive_s)


def of(home: Home, config: LaneConfig) -> SshSettings:
    """The settings of a declared lane of this home.

    Raises:
        BadInput: something in cluster.yaml that must not reach a shell, ssh or a path.
    """
    beat = float(config.keepalive_s)
    return SshSettings(
        lane=config.name,
        host=config.host or "",
        head=f"{getpass.getuser()}@{socket.gethostname()}:{home.path}",
        home_hash=home.hash,
        known_hosts=home.known_hosts,
        user=config.user,
        port=config.port,
        prefix=config.prefix,
        python=config.python or "python3",
        root=config.root,
        identity=config.identity,
        password_env=config.password_env,
        jump=config.jump,
        ssh_config=config.ssh_config,
        # How soon a silent link is given up, and how often it is tried again, follow from the one number people set.
        keepalive_s=beat,
        beat_s=min(2.0, beat),
        silence_s=3.0 * beat,
        connect_s=max(12.0, 6.0 * beat),
        pace=Pace(most_s=12.0 * beat),
    )


def password_of(settings: SshSettings) -> str | None:
    """The password, read anew each time and kept nowhere; None: there is none."""
    return (os.environ.get(settings.password_env) or None) if settings.password_env is not None else None
