"""Reading cluster.yaml: the lanes, each checked, each error with its file and line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core import hosts
from core.errors import BadInput, NotFound
from core.retention import Retention, age_seconds, quota

Transport = Literal["local", "ssh", "joined"]
ROLES = ("eval", "train", "sweep", "promote")
_TRANSPORTS = ("local", "ssh", "joined")


@dataclass(frozen=True)
class EnvironmentConfig:
    """Where a lane's Python environment comes from, when no interpreter is named.

    Attributes:
        lock: a requirements file; None: the project's own lock, or what this installation of lab consists of.
        index: the index that the lane asks; None: the lane asks nobody, the wheels are sent from here.
        wheels: a folder of wheels to send.
        base: the interpreter on the lane from which the environment is made.
    """

    lock: str | None = None
    index: str | None = None
    wheels: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class AdmissionConfig:
    """How a lane earns its admission.

    Attributes:
        outlive_s: seconds for which every connection stays closed while the background attempt must live.
        smoke: a program (with its arguments) for the foreground step; empty: a small built-in one.
        parity: parameters for the kernel parity probe, in place of those of the probe.
    """

    outlive_s: int = 120
    smoke: tuple[str, ...] = ()
    parity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RayPorts:
    """Fixed ports of a joined lane's Ray node, for its firewall."""

    node_manager_port: int = 36010
    object_manager_port: int = 36011
    runtime_env_agent_port: int = 36012
    dashboard_agent_grpc_port: int = 36013
    dashboard_agent_listen_port: int = 36014
    metrics_export_port: int = 36015
    min_worker_port: int = 36100
    max_worker_port: int = 36199


@dataclass(frozen=True)
class HeadRay:
    """Where joined lanes find the head's Ray: an address that they reach, and a port of our own."""

    address: str | None = None
    port: int = 36001


@dataclass(frozen=True)
class LaneConfig:
    """One lane as declared. None for a capability means: what the probe finds.

    Attributes:
        name: how people call it.
        transport: what reaches it.
        host, user, port: of ssh lanes, resolved as OpenSSH does.
        prefix: a command put before the remote Python, such as `wsl -e`.
        python: interpreter on the lane.
        cores, memory_mb, gpus: what `lab` may use of it.
        resources: exclusive names that it offers (a scorer, a licence).
        roles: what it may be admitted for.
        about: one line for people.
        root: the folder on the lane in which we keep everything; `~` is the lane user's home.
        identity: a private key file on the head; password_env: the variable that holds the password (never stored).
        jump: hosts to go through, as OpenSSH's ProxyJump; None: what the ssh configuration says.
        ssh_config: the OpenSSH configuration to read; None: the user's own.
        keepalive_s: seconds between proofs of life; three of them missed, and the link is down.
    """

    name: str
    transport: Transport = "local"
    host: str | None = None
    user: str | None = None
    port: int | None = None
    prefix: tuple[str, ...] = ()
    python: str | None = None
    cores: int | None = None
    memory_mb: int | None = None
    gpus: int | None = None
    resources: tuple[str, ...] = ()
    roles: tuple[str, ...] = ROLES
    about: str = ""
    root: str = "~/.lab-lane"
    identity: str | None = None
    password_env: str | None = None
    jump: str | None = None
    ssh_config: str | None = None
    keepalive_s: int = 5
    environment: EnvironmentConfig = EnvironmentConfig()
    admission: AdmissionConfig = AdmissionConfig()
    ray: RayPorts = RayPorts()

    @property
    def remote(self) -> bool:
        """Is it reached over ssh?"""
        return self.transport != "local"


@dataclass(frozen=True)
class Cluster:
    """All declared lanes, in the order of the file.

    Attributes:
        notify: a program with its arguments that is told of news (see lanes/notify.py); empty: nobody is.
        ray: where joined lanes find the head's Ray.
        retention: how much the home may keep; `lab gc` obeys it.
    """

    lanes: tuple[LaneConfig, ...]
    path: Path | None = None
    notify: tuple[str, ...] = field(default=())
    ray: HeadRay = HeadRay()
    retention: Retention = field(default_factory=Retention)

    def lane(self, name: str) -> LaneConfig:
        """The lane called `name`. Raises NotFound, naming those there are."""
        for lane in self.lanes:
            if lane.name == name:
                return lane
        where = str(self.path) if self.path else "the embedded default"
        raise NotFound(f"no lane is called {name!r}", hint=f"{where} has: {', '.join(x.name for x in self.lanes)}")


# One scoring at a time: whoever has no cluster.yaml can score, as with the one that `lab init` writes.
DEFAULT = Cluster((LaneConfig("local", about="this machine", resources=("scorer",)),))

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "transport": str,
    "host": str,
    "user": str,
    "port": int,
    "prefix": list,
    "python": str,
    "cores": int,
    "memory_mb": int,
    "gpus": int,
    "resources": list,
    "roles": list,
    "about": str,
    "root": str,
    "identity": str,
    "password_env": str,
    "jump": str,
    "ssh_config": str,
    "keepalive_s": int,
}
_OF_ENVIRONMENT: dict[str, type] = {"lock": str, "index": str, "wheels": str, "base": str}
_OF_ADMISSION: dict[str, type] = {"outlive_s": int, "smoke": list, "parity": dict}
_OF_HEAD_RAY: dict[str, type] = {"address": str, "port": int}
_PORTS: dict[str, type] = dict.fromkeys(RayPorts.__dataclass_fields__, int)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "host": hosts.check_host,
    "user": hosts.check_user,
    "port": hosts.check_port,
    "prefix": lambda words: hosts.check_prefix([str(w) for w in words]),
    "python": lambda text: hosts.check_remote_path(text, what="`python`"),
    "root": lambda text: hosts.check_remote_path(text, what="`root`"),
    "password_env": lambda text: hosts.check_variable(text, what="`password_env`"),
    "jump": hosts.check_jump,
}
# Settings that are mappings themselves: what may be in them, and what they become.
_GROUPS: dict[str, tuple[dict[str, type], Callable[..., Any]]] = {
    "environment": (_OF_ENVIRONMENT, EnvironmentConfig),
    "admission": (_OF_ADMISSION, AdmissionConfig),
    "ray": (_PORTS, RayPorts),
}


def load(path: Path | None) -> Cluster:
    """Read `path`, or give the embedded default (one lane, `local`) when it is None.

    Raises:
        BadInput: with file and line, for broken YAML, an unknown name, a wrong type or an impossible value.
    """
    if path is None:
        return DEFAULT
    import yaml

    try:
        text = path.read_text()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else "?"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(f"{path}:{line}: this is not YAML ({problem})", hint="correct that line") from error
    if root is None:
        raise BadInput(f"{path}:1: the file is empty", hint="`lab init` writes a working one")
    top = _mapping(path, root, "the file", {"lanes", "notify", "ray", "retention"})
    if "lanes" not in top:
        raise BadInput(f"{path}:1: there are no `lanes:`", hint="`lab init` writes a working file")
    lanes = [_lane(path, name, node) for name, node in _mapping(path, top["lanes"], "`lanes`", None).items()]
    if not lanes:
        raise BadInput(f"{path}:{top['lanes'].start_mark.line + 1}: `lanes` is empty", hint="declare at least one")
    notify = _notify(path, top["notify"]) if "notify" in top else ()
    ray = _group(path, "ray", top["ray"], "`ray`", _OF_HEAD_RAY, HeadRay) if "ray" in top else HeadRay()
    kept = _retention(path, top["retention"]) if "retention" in top else Retention()
    return Cluster(tuple(lanes), path, notify, ray, kept)


def as_declared(lane: LaneConfig) -> dict[str, Any]:
    """How the lane is declared, for `as_it_was`: JSON-like, without what is left out and without its groups."""
    usual = LaneConfig(lane.name)
    found = {name: getattr(lane, name) for name in _FIELDS}
    differs = {n: list(v) if isinstance(v, tuple) else v for n, v in found.items() if v != getattr(usual, n)}
    return {"transport": lane.transport, **differs}


def as_it_was(name: str, declared: Mapping[str, Any]) -> LaneConfig | None:
    """The lane as `as_declared` told it once; None: that makes no sense any more."""
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in declared.items() if n in _FIELDS}
    lane = LaneConfig(name, **fields)
    return lane if lane.transport in _TRANSPORTS and (lane.host or not lane.remote) else None


def _notify(path: Path, node: Any) -> tuple[str, ...]:
    words = _value(path, "notify", node, list)
    line = node.start_mark.line + 1
    hint = "write it as a list: [program, argument, ...]"
    if not words:
        raise BadInput(f"{path}:{line}: `notify` is empty", hint=f"{hint}, or leave it out")
    odd = [w for w in words if not isinstance(w, str) or "\0" in w]
    if odd or not words[0].strip():
        raise BadInput(f"{path}:{line}: `notify` holds {(odd or words)[0]!r}, which is not text", hint=hint)
    return tuple(words)


def _retention(path: Path, node: Any) -> Retention:
    """`retention`: bytes and ages as text (200G, 30d), and the same for kinds."""
    fields: dict[str, Any] = {}
    quotas = []
    known = {"bytes", "older_than", "results_older_than", "keep_last", "keep_answers", "kinds"}
    for key, child in _mapping(path, node, "`retention`", known).items():
        where = f"{path}:{child.start_mark.line + 1}"
        if key == "kinds":
            for kind, limits in _mapping(path, child, "`retention.kinds`", None).items():
                for limit, value in _mapping(path, limits, f"kind {kind!r}", None).items():
                    line = value.start_mark.line + 1
                    quotas.append(quota(kind, limit, str(value.value), f"{path}:{line}"))
        elif key == "bytes":
            quotas.append(quota("", key, str(child.value), where))
        elif key == "keep_last":
            fields[key] = _value(path, f"retention.{key}", child, int)
            if fields[key] < 0:
                raise BadInput(f"{where}: `retention.{key}` is {fields[key]}", hint="give a number of jobs")
        elif key == "keep_answers":
            if child.tag != "tag:yaml.org,2002:bool":
                raise BadInput(f"{where}: `retention.{key}` must be true or false, not {child.value!r}")
            fields[key] = child.value.lower() in ("true", "yes", "on")
        else:
            age = age_seconds(str(child.value))
            if age is None:
                raise BadInput(f"{where}: `retention.{key}` is {child.value!r}, no age", hint="write it as 30d or 12h")
            fields[f"{key}_s"] = age
    return Retention(**fields, quotas=tuple(quotas))


def _lane(path: Path, name: str, node: Any) -> LaneConfig:
    import yaml

    fields: dict[str, Any] = {}
    if isinstance(node, yaml.ScalarNode) and not node.value:
        nodes: dict[str, Any] = {}
    else:
        nodes = _mapping(path, node, f"lane {name!r}", set(_FIELDS) | set(_GROUPS))
    _checked(path, node.start_mark.line + 1, name, functools.partial(hosts.check_lane_name, name))
    for key, child in nodes.items():
        if key in _GROUPS:
            known, make = _GROUPS[key]
            fields[key] = _group(path, key, child, f"`{key}` of lane {name!r}", known, make)
            continue
        value = _value(path, key, child, _FIELDS[key])
        line = child.start_mark.line + 1
        if isinstance(value, int) and value < (0 if key == "gpus" else 1):
            raise BadInput(f"{path}:{line}: `{key}` of lane {name!r} is {value}", hint="give a positive number")
        if key == "transport" and value not in _TRANSPORTS:
            raise BadInput(
                f"{path}:{line}: transport {value!r} of lane {name!r} does not exist",
                hint=f"there are: {', '.join(_TRANSPORTS)}",
            )
        if key == "roles":
            unknown = [r for r in value if r not in ROLES]
            if unknown:
                raise BadInput(
                    f"{path}:{line}: role {unknown[0]!r} of lane {name!r} does not exist",
                    hint=f"there are: {', '.join(ROLES)}",
                )
        if key in _CHECKS:
            _checked(path, line, name, functools.partial(_CHECKS[key], value))
        fields[key] = tuple(str(v) for v in value) if isinstance(value, list) else value
    lane = LaneConfig(name=name, **fields)
    if lane.transport != "local" and not lane.host:
        raise BadInput(
            f"{path}:{node.start_mark.line + 1}: lane {name!r} has transport {lane.transport} but no `host`",
            hint="name the machine",
        )
    return lane


def _checked(path: Path, line: int, lane: str, check: Callable[[], Any]) -> None:
    """Refuse, with the place, what must never reach a shell, ssh or a path."""
    try:
        check()
    except BadInput as error:
        raise BadInput(f"{path}:{line}: lane {lane!r}: {error.message}", hint=error.hint) from None


def _group(path: Path, key: str, node: Any, what: str, known: dict[str, type], make: Callable[..., Any]) -> Any:
    fields: dict[str, Any] = {}
    for name, child in _mapping(path, node, what, set(known)).items():
        value = _value(path, f"{key}.{name}", child, known[name])
        if isinstance(value, int) and value < 0:
            line = child.start_mark.line + 1
            raise BadInput(f"{path}:{line}: `{key}.{name}` is {value}", hint="give a positive number")
        if name.endswith("port") and not 0 < value < 65536:
            raise BadInput(f"{path}:{child.start_mark.line + 1}: `{key}.{name}` is {value}, no port")
        fields[name] = tuple(str(v) for v in value) if isinstance(value, list) else value
    return make(**fields)


def _mapping(path: Path, node: Any, what: str, allowed: set[str] | None) -> dict[str, Any]:
    import yaml

    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(f"{path}:{line}: {what} must be a mapping (name: value)", hint="see `lab init` for an example")
    out: dict[str, Any] = {}
    for key, value in node.value:
        word = str(key.value)
        here = key.start_mark.line + 1
        if allowed is not None and word not in allowed:
            import difflib

            near = difflib.get_close_matches(word, sorted(allowed), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(sorted(allowed))}"
            raise BadInput(f"{path}:{here}: {what} has no setting `{word}`", hint=hint)
        if word in out:
            raise BadInput(f"{path}:{here}: `{word}` is there twice", hint="remove one")
        out[word] = value
    return out


def _value(path: Path, key: str, node: Any, want: type | tuple[type, ...]) -> Any:
    import yaml

    value = yaml.SafeLoader("").construct_object(node, deep=True)
    if not isinstance(value, want) or isinstance(value, bool):
        name = {str: "text", int: "a whole number", list: "a list", dict: "a mapping"}[want]  # type: ignore[index]
        raise BadInput(f"{path}:{node.start_mark.line + 1}: `{key}` must be {name}, not {value!r}")
    return value
