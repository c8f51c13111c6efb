"""Reading cluster.yaml: the lanes, each checked, each error with its file and line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import BadInput, NotFound

Transport = Literal["local", "ssh", "joined"]
ROLES = ("eval", "train", "sweep", "promote")
_TRANSPORTS = ("local", "ssh", "joined")


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


@dataclass(frozen=True)
class Cluster:
    """All declared lanes, in the order of the file.

    Attributes:
        notify: a program with its arguments that is told of news (see lanes/notify.py); empty: nobody is.
    """

    lanes: tuple[LaneConfig, ...]
    path: Path | None = None
    notify: tuple[str, ...] = field(default=())

    def lane(self, name: str) -> LaneConfig:
        """The lane called `name`. Raises NotFound, naming those there are."""
        for lane in self.lanes:
            if lane.name == name:
                return lane
        where = str(self.path) if self.path else "the embedded default"
        raise NotFound(f"no lane is called {name!r}", hint=f"{where} has: {', '.join(x.name for x in self.lanes)}")


DEFAULT = Cluster((LaneConfig("local", about="this machine"),))

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
    top = _mapping(path, root, "the file", {"lanes", "notify"})
    if "lanes" not in top:
        raise BadInput(f"{path}:1: there are no `lanes:`", hint="`lab init` writes a working file")
    lanes = [_lane(path, name, node) for name, node in _mapping(path, top["lanes"], "`lanes`", None).items()]
    if not lanes:
        raise BadInput(f"{path}:{top['lanes'].start_mark.line + 1}: `lanes` is empty", hint="declare at least one")
    return Cluster(tuple(lanes), path, _notify(path, top["notify"]) if "notify" in top else ())


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


def _lane(path: Path, name: str, node: Any) -> LaneConfig:
    import yaml

    fields: dict[str, Any] = {}
    if isinstance(node, yaml.ScalarNode) and not node.value:
        nodes: dict[str, Any] = {}
    else:
        nodes = _mapping(path, node, f"lane {name!r}", set(_FIELDS))
    for key, child in nodes.items():
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
        fields[key] = tuple(str(v) for v in value) if isinstance(value, list) else value
    lane = LaneConfig(name=name, **fields)
    if lane.transport != "local" and not lane.host:
        raise BadInput(
            f"{path}:{node.start_mark.line + 1}: lane {name!r} has transport {lane.transport} but no `host`",
            hint="name the machine",
        )
    return lane


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
        name = {str: "text", int: "a whole number", list: "a list"}[want]  # type: ignore[index]
        raise BadInput(f"{path}:{node.start_mark.line + 1}: `{key}` must be {name}, not {value!r}")
    return value
