"""Provisioning a lane: choose an interpreter there, read the lock for it, send what is missing, have it made."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.cluster import LaneConfig
from core.errors import BadInput, Exit, LabError
from core.fsio import read_json, write_json
from core.home import Home
from core.states import Rung
from lanes.carrier.errors import NotSendable
from lanes.environment import lock as locks
from lanes.environment import ours, target
from lanes.environment.lock import Lock
from lanes.environment.target import Target
from lanes.environment.wheels import Wheel, Wheelhouse
from lanes.environment.which import evidence, remember

KIND = "inputs"  # a wheel is kept in the lane's store as any file that was sent
_LOOK_S = 0.5
_TRIES = 3
_BASES_S = 180.0


class CannotProvision(LabError):
    """A lane's environment cannot be made."""

    exit_code = Exit.JOB_FAILED
    slug = "provision"


class Access(Protocol):
    """What is used of the controller's access to a lane (lanes.asks.LaneAccess)."""

    name: str
    home: Home
    config: LaneConfig

    def call(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any: ...

    def carrier(self, method: str, *args: Any, **named: Any) -> Any: ...

    def say(self, what: str, body: Any) -> None: ...


@dataclass(frozen=True)
class Order:
    """What is to be made, and of what.

    Attributes:
        wheels: all that the lane needs; pip: the one that installs them.
        index: the lane gets the packages there by itself; only pip is sent.
    """

    target: Target
    lock: Lock
    digest: str
    wheels: tuple[Wheel, ...]
    pip: Wheel | None
    index: str | None
    imports: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sent(self) -> list[Wheel]:
        return [*self.wheels, *([self.pip] if self.pip is not None else [])]

    def json(self, paths: Mapping[str, str]) -> dict[str, Any]:
        """As `lanes.agent.envs.Environments.env_make` takes it. `paths`: SHA-256 -> where the wheel is on the lane."""
        return {
            "digest": self.digest,
            "base": self.target.python,
            "lock": [[name, version] for name, version in self.lock.pairs],
            "wheels": [[w.file, paths[w.sha256]] for w in self.sent],
            "pip": self.pip.file if self.pip is not None else None,
            "index": self.index,
            "requirements": self.lock.requirements(),
            "imports": list(self.imports),
            "whole": self.lock.whole,
        }


def told(home: Home, lane: str) -> dict[str, Any]:
    """How far the provisioning of a lane is: {"step", "done", "of"}; empty when nothing was said."""
    found = read_json(_progress_file(home, lane))
    return found if isinstance(found, dict) else {}


def tell(home: Home, lane: str, step: str, done: int, of: int) -> None:
    """Say how far it is, for whoever waits: of no importance once it is over."""
    with contextlib.suppress(OSError):
        _progress_file(home, lane).parent.mkdir(parents=True, exist_ok=True)
        write_json(_progress_file(home, lane), {"step": step, "done": done, "of": of}, sync=False)


def _progress_file(home: Home, lane: str) -> Path:
    return home.lane_root(lane) / "provision.json"


def provision(access: Access, data: Mapping[str, Any]) -> dict[str, Any]:
    """Make a lane's environment from a lock.

    Args:
        data: "lock" and "wheels": paths in place of those of cluster.yaml, or None; "folder": the project's folder;
            "kinds": more kinds than the lane's roles imply; "plan": only say what would be done; "again": make it
            anew even if it is there.

    Returns:
        {"ok", "message", "hint", "data"}; data: python, version, digest, source, packages, wheels (count, bytes),
        to_send (count, bytes), made (False: it was there), notes, largest.

    Raises:
        LabError, LinkDown, LinkRefused, RemoteError: as the asks of the controller expect.
    """
    try:
        answer = _provision(access, data)
        tell(access.home, access.name, "", 0, 0)
        return answer
    except LabError as error:
        if not data.get("plan"):
            _say_rung(access, False, error.message, error.hint, {"cause": error.slug})
        return {"ok": False, "message": error.message, "hint": error.hint, "data": {"cause": error.slug}}


def _provision(access: Access, data: Mapping[str, Any]) -> dict[str, Any]:
    config = access.config

    def progress(step: str, done: int, of: int) -> None:
        tell(access.home, access.name, step, done, of)

    progress("looking at its interpreters", 0, 1)
    where = target.choose(
        access.call("env_bases", config.environment.base, timeout_s=_BASES_S), config.environment.base, access.name
    )
    lock, notes = read_lock(access, data, where)
    digest = where.environment(lock.pairs)
    have = access.call("env_have", digest)
    about: dict[str, Any] = {
        "lane": access.name,
        "target": str(where),
        "base": where.python,
        "digest": digest,
        "source": lock.source,
        "packages": len(lock.pins),
        "notes": [*notes, *lock.notes],
    }
    if have is not None:
        said = {**about, "made": False, "there": True, "python": have["python"], "version": have["version"]}
        said.update(_counts([], []))
        if not data.get("plan"):
            _keep(access, have, lock.source)
        message = f"the environment of lane {access.name} is there already: {have['python']} (Python {have['version']})"
        return {"ok": True, "message": message, "hint": "", "data": said}
    order = make_order(access, data, where, lock, digest, progress)
    there = set(access.call("have", KIND, [w.sha256 for w in order.sent]))
    to_send = [w for w in order.sent if w.sha256 not in there]
    about.update(_counts(order.sent, to_send))
    about["notes"] += order.notes
    about["index"] = _without_secrets(order.index)
    if data.get("plan"):
        message = f"lane {access.name} would get {len(lock.pins)} packages for {where}"
        return {"ok": True, "message": message, "hint": "", "data": {**about, "made": False, "there": False}}
    # All of them: what is there already is not sent, and its path is told.
    status = _make(access, order.json(send(access, order.sent, progress)), progress)
    if status["state"] != "good":
        message = f"lane {access.name}: {status.get('message')}"
        about["cause"] = status.get("cause")
        hint = str(status.get("hint") or "")
        _say_rung(access, False, str(status.get("message")), hint, {"digest": digest, "cause": status.get("cause")})
        return {"ok": False, "message": message, "hint": hint, "data": about}
    _keep(access, status, lock.source)
    unmet = [f"{line} (so it is here too)" for line in status.get("unmet") or ()]
    about["notes"] += unmet
    message = f"lane {access.name} has its environment: {status['python']} (Python {status['version']})"
    said = {**about, "made": True, "there": False, "python": status["python"], "version": status["version"]}
    return {"ok": True, "message": message, "hint": "", "data": {**said, "by": status.get("by")}}


def read_lock(access: Access, data: Mapping[str, Any], where: Target) -> tuple[Lock, list[str]]:
    """The lock that counts: the one given, that of cluster.yaml, the project's, or this installation's versions."""
    config, home = access.config, access.home
    beside = home.cluster_file.parent if home.cluster_file is not None else None
    kinds = [*ours.kinds_of(config.roles), *(data.get("kinds") or ())]
    notes: list[str] = []
    path: Path | None = None
    if data.get("lock"):
        path = Path(str(data["lock"]))
    elif config.environment.lock:
        path = _beside(beside, config.environment.lock)
    else:
        folder = Path(str(data["folder"])) if data.get("folder") else beside
        path, passed = locks.find(folder)
        notes += passed
    if path is None:
        return ours.pins(kinds, where), notes
    lock = locks.read(path, where)
    names = {p.name for p in lock.pins}
    lacks = [n for n in ours.wanted(kinds) if n not in names]
    if lacks:
        notes.append(f"the lock has no {', '.join(lacks)}: kinds that need it will not run on {access.name}")
    return lock, notes


def make_order(
    access: Access,
    data: Mapping[str, Any],
    where: Target,
    lock: Lock,
    digest: str,
    progress: Callable[[str, int, int], None],
) -> Order:
    """Find the wheels for an environment (none but pip's where the lane has an index)."""
    environment = access.config.environment
    beside = access.home.cluster_file.parent if access.home.cluster_file is not None else None
    given = data.get("wheels") or environment.wheels
    folder = _beside(beside, str(given)) if given else None
    house = Wheelhouse(access.home.path / "wheels", folder=folder)
    index = environment.index if not data.get("wheels") else None
    if index is not None:
        _refuse_odd_index(index)
        # What was built here alone is known to no index: `+cpu` and the like.
        plain = tuple(locks.Pin(p.name, p.version.partition("+")[0], p.hashes) for p in lock.pins)
        lock = Lock(plain, lock.source, lock.whole, lock.notes)
        wheels: list[Wheel] = []
    else:
        wheels = house.collect(lock, where, progress)
    known = set(ours.wanted(ours.kinds_of(ours.ROLES)))
    imports = tuple(ours.modules(p.name for p in lock.pins if p.name in known))
    cpu = [p for p in lock.pins if p.name == "torch" and p.version.endswith("+cpu")]
    notes = []
    if cpu and access.config.gpus:
        notes.append(
            f"torch {cpu[0].version} uses no GPU, and lane {access.name} declares some: give a lock with --lock"
        )
    return Order(where, lock, digest, tuple(wheels), house.pip(), index, imports, tuple(notes))


def send(access: Access, wheels: Sequence[Wheel], progress: Callable[[str, int, int], None]) -> dict[str, str]:
    """Have wheels in the lane's store, each from where an earlier try ended. Returns SHA-256 -> path there."""
    total, done = sum(w.size for w in wheels), 0
    paths: dict[str, str] = {}
    for wheel in wheels:
        progress(f"sending {wheel.name}", done, total)
        try:
            paths[wheel.sha256] = str(access.carrier("send_file", str(wheel.path)))
        except NotSendable as error:
            hint = "free some space there" if error.cause == "disk-full" else "provision the lane again"
            raise CannotProvision(f"the wheel {wheel.file} cannot be sent: {error.reason}", hint=hint) from error
        done += wheel.size
        progress(f"sent {wheel.name}", done, total)
    return paths


def _make(access: Access, order: dict[str, Any], progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    status: dict[str, Any] = access.call("env_make", order, timeout_s=120.0)
    asked = 1
    while status["state"] in ("making", "unknown"):
        if status["state"] == "unknown":  # the agent was replaced meanwhile: once more
            asked += 1
            if asked > _TRIES:
                return {"state": "failed", "message": f"the agent that made it died {_TRIES} times", "hint": ""}
            status = access.call("env_make", order, timeout_s=120.0)
            continue
        progress(str(status["step"]), int(status["done"]), int(status["of"]))
        time.sleep(_LOOK_S)
        status = access.call("env_status", order["digest"])
    return status


def _keep(access: Access, status: Mapping[str, Any], source: str) -> None:
    """From now on attempts on this lane run in that environment."""
    found = evidence(access.config, status, source)
    remember(access.home, access.name, found)
    _say_rung(access, True, f"made from {source}: {found['python']} (Python {found['version']})", "", found)


def _say_rung(access: Access, ok: bool, message: str, hint: str, found: Mapping[str, Any]) -> None:
    body = {"role": "", "rung": str(Rung.ENVIRONMENT), "ok": ok, "message": message, "hint": hint}
    access.say("rung", {**body, "evidence": dict(found)})


def _counts(every: Sequence[Wheel], to_send: Sequence[Wheel]) -> dict[str, Any]:
    largest = sorted(to_send, key=lambda w: w.size, reverse=True)[:5]
    return {
        "wheels": {"count": len(every), "bytes": sum(w.size for w in every)},
        "to_send": {"count": len(to_send), "bytes": sum(w.size for w in to_send)},
        "largest": [{"name": w.name, "version": w.version, "bytes": w.size, "origin": w.origin} for w in largest],
    }


def _beside(folder: Path | None, path: str) -> Path:
    """A path of cluster.yaml: relative to that file."""
    given = Path(path).expanduser()
    return given if given.is_absolute() or folder is None else folder / given


def _refuse_odd_index(index: str) -> None:
    if not re.match(r"(https?|file)://\S+$", index):
        raise BadInput(f"the index {index!r} is no URL", hint="write it as https://HOST/simple")
    if re.match(r"https?://[^/]*@", index):
        raise BadInput(
            "the index in cluster.yaml holds a password",
            hint="put it into the lane's own ~/.netrc, and leave it out here",
        )


def _without_secrets(index: str | None) -> str | None:
    return re.sub(r"//[^/@]*@", "//", index) if index else None
