"""Declared against probed: what cluster.yaml says of a machine, and what it shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.cluster import LaneConfig
from lanes.admission.words import RungResult

_USED = 0.5  # of a GPU's memory, where nobody is seen to use it (WSL hides programs): somebody does
_HOT = 95.0
_SKEW_S = 60.0
_LEAST_MEMORY_MB = 256
LEAST_DISK = 256 << 20
LOW_DISK = 2 << 30
_LEAST_FILES = 2000


@dataclass(frozen=True)
class Compared:
    """One capability, side by side. `declared` None: cluster.yaml leaves it to the probe.

    Attributes:
        message: the sentence where it does not hold; hint: the remedy.
    """

    name: str
    declared: Any
    probed: Any
    ok: bool = True
    message: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        body = {"name": self.name, "declared": self.declared, "probed": self.probed, "ok": self.ok}
        return body if self.ok else {**body, "message": self.message, "hint": self.hint}


def compare(config: LaneConfig, found: dict[str, Any]) -> list[Compared]:
    """Every capability that can be declared. `found`: as `Probes.machine_now` tells it."""
    return [_cores(config, found), _memory(config, found), _gpus(config, found), *_resources(config)]


def _cores(config: LaneConfig, found: dict[str, Any]) -> Compared:
    probed = int(found.get("cores") or 0)
    if config.cores is not None and config.cores > probed:
        return Compared(
            *("cores", config.cores, probed, False),
            f"cluster.yaml declares {_n(config.cores, 'core')} for {config.name}, which has {probed}",
            f"set `cores: {probed}` there, or leave it out",
        )
    return Compared("cores", config.cores, probed)


def _memory(config: LaneConfig, found: dict[str, Any]) -> Compared:
    probed = int(found.get("memory_mb") or 0)
    if config.memory_mb is not None and config.memory_mb > probed:
        return Compared(
            *("memory_mb", config.memory_mb, probed, False),
            f"cluster.yaml declares {config.memory_mb:,} MiB of memory for {config.name}, which has {probed:,}",
            f"set `memory_mb: {probed}` there, or leave it out",
        )
    free = found.get("memory_free_mb")
    if free is not None and free < _LEAST_MEMORY_MB:
        return Compared(
            *("memory_mb", config.memory_mb, probed, False),
            f"{config.name} has {free:,} MiB of its {probed:,} MiB of memory free",
            "end what fills it",
        )
    return Compared("memory_mb", config.memory_mb, probed)


def _gpus(config: LaneConfig, found: dict[str, Any]) -> Compared:
    cards: Sequence[dict[str, Any]] = found.get("gpus") or ()
    declared = config.gpus
    if declared is not None and declared > len(cards):
        shows = f"shows {len(cards)}" if cards else "shows none"
        return Compared(
            *("gpus", declared, len(cards), False),
            f"cluster.yaml declares {_n(declared, 'GPU')} for {config.name}, and the machine {shows}",
            "run `nvidia-smi` there (is the driver loaded, in a container or WSL too?), or set `gpus: "
            f"{len(cards)}` in cluster.yaml",
        )
    for card in cards[: declared if declared is not None else len(cards)]:
        user = _user(card)
        if user:
            return Compared(
                *("gpus", declared, len(cards), False),
                f"GPU {card.get('index')} of {config.name} ({card.get('name')}) is not free: {user}",
                "end that, wait for it, or declare fewer with `gpus:`",
            )
    return Compared("gpus", declared, len(cards))


def _user(card: dict[str, Any]) -> str:
    """Who computes on a GPU beside us; empty: nobody that can be seen."""
    others = [p for p in card.get("programs") or () if not p.get("ours")]
    if others:
        p = others[0]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        takes = f", {p['memory_mb']:,} MiB" if p.get("memory_mb") else ""
        return f"{p.get('name') or 'a program'} (process {p.get('pid')}{takes}){more} computes on it"
    total, used = card.get("memory_mb") or 0, card.get("memory_used_mb") or 0
    if not card.get("programs") and total and used > _USED * total:
        return f"{used:,} of its {total:,} MiB are in use, by a program that cannot be seen"
    return ""


def _resources(config: LaneConfig) -> list[Compared]:
    return [Compared("resources", list(config.resources), None)] if config.resources else []


def device(config: LaneConfig, found: dict[str, Any], *, wall: float | None = None) -> RungResult:
    """The rung: everything declared is there, and the GPUs are free. Heat, power and the clock are told, not judged.

    Args:
        wall: the head's clock when `found` was told, for the skew that people are shown.
    """
    compared = compare(config, found)
    remarks = notes(found, wall)
    evidence = {
        "compared": [c.as_dict() for c in compared],
        "notes": remarks,
        **{k: found[k] for k in ("gpus", "load", "power", "heat", "tools", "memory_free_mb") if found.get(k)},
    }
    bad = [c for c in compared if not c.ok]
    if bad:
        more = [c.message for c in bad[1:]]
        return RungResult(False, "; ".join([bad[0].message, *more]), "; ".join(c.hint for c in bad), evidence)
    cards = found.get("gpus") or ()
    kinds = ", ".join(dict.fromkeys(str(c.get("name")) for c in cards))
    has = [_n(int(found.get("cores") or 0), "core"), f"{int(found.get('memory_mb') or 0):,} MiB of memory"]
    has.append(f"{_n(len(cards), 'GPU')} ({kinds}), free" if cards else "no GPU")
    return RungResult(True, ", ".join(has) + "".join(f"; {n}" for n in remarks), evidence=evidence)


def notes(found: dict[str, Any], wall: float | None = None) -> list[str]:
    """What makes a machine slower or shorter-lived than it looks."""
    out = []
    for card in found.get("gpus") or ():
        if card.get("slowed"):
            out.append(f"GPU {card.get('index')} is slowed down by {', '.join(card['slowed'])}")
    power = found.get("power") or {}
    if power.get("battery") and power.get("mains") is False:
        charge = f" ({power['percent']}% left)" if "percent" in power else ""
        out.append(f"it runs on its battery{charge}")
    elif power.get("battery"):
        out.append("it has a battery: a laptop, which may sleep")
    hot = [z for z in found.get("heat") or () if z.get("celsius", 0) >= _HOT]
    if hot:
        out.append(f"{hot[0]['zone']} is at {hot[0]['celsius']:g} degrees")
    if wall is not None and found.get("clock") is not None:
        skew = float(found["clock"]) - wall
        if abs(skew) >= _SKEW_S:
            out.append(f"its clock is {abs(skew):,.0f} s {'ahead' if skew > 0 else 'behind'} (nothing rests on it)")
    return out


def disk(config: LaneConfig, found: dict[str, Any]) -> RungResult:
    """The rung: there is room below the lane's root, and it can really be written to. `found`: `Probes.disk_now`."""
    free, path = int(found.get("free") or 0), str(found.get("path") or config.root)
    write = found.get("write") or {}
    evidence = dict(found)
    hint = f"free some space there, or name another place with `root:` of {config.name} in cluster.yaml"
    if write.get("full") or free < LEAST_DISK:
        return RungResult(False, f"the disk of {config.name} is full: {_mib(free)} free at {path}", hint, evidence)
    if int(found.get("files_free", _LEAST_FILES)) < _LEAST_FILES:
        text = f"only {found['files_free']:,} more files can be made at {path} on {config.name}"
        return RungResult(False, text, f"remove files there, or {hint.partition(', or ')[2]}", evidence)
    if not write.get("ok"):
        text = f"{path} on {config.name} cannot be written to: {write.get('error') or 'no reason given'}"
        return RungResult(False, text, f"mend it, or {hint.partition(', or ')[2]}", evidence)
    low = "; that is little" if free < LOW_DISK else ""
    return RungResult(True, f"{_mib(free)} free at {path}{low}", evidence=evidence)


def _n(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _mib(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GiB" if count >= 1 << 30 else f"{count >> 20:,} MiB"
