"""What an environment is made for: one interpreter of a lane, and which wheels it takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms

from core.errors import Exit, LabError
from core.fsio import digest

OLDEST = (3, 11)
NEWEST = (3, 12)  # that our own packages are tried with


class NoPython(LabError):
    """A lane without a Python that an environment could be made from."""

    exit_code = Exit.NO_RESOURCE
    slug = "no-python"


@dataclass(frozen=True)
class Target:
    """One interpreter as it described itself (see lanes.agent.pythons).

    Attributes:
        python: its path on the lane.
        version: such as "3.11.7".
        platform: such as "linux-x86_64", with the C library where that decides what runs.
        markers: the environment in which a lock's markers are evaluated.
        tags: what kinds of wheels it takes, best first.
    """

    python: str
    version: str
    platform: str
    markers: Mapping[str, str] = field(repr=False)
    tags: tuple[Tag, ...] = field(repr=False)

    @property
    def minor(self) -> tuple[int, int]:
        return _minor(self.version)

    def takes(self, tags: frozenset[Tag]) -> bool:
        return not tags.isdisjoint(self.tags)

    def environment(self, pins: Sequence[tuple[str, str]]) -> str:
        """The digest of the environment that holds exactly `pins` (name, version) on this interpreter and platform."""
        parts = {"pins": sorted([n, v] for n, v in pins), "python": self.version, "platform": self.platform}
        return digest(parts)[:32]

    def __str__(self) -> str:
        return f"Python {self.version} on {self.platform}"


def of(facts: Mapping[str, Any]) -> Target:
    """The target that an interpreter describes."""
    libc = "-".join(str(x) for x in facts.get("libc") or () if x)
    if "musl" in str(facts.get("soabi")):
        libc = "musl"
    platform = str(facts["platform"]) + (f" ({libc})" if libc else "")
    return Target(
        str(facts["python"]), str(facts["version"]), platform, dict(facts["markers"]), tuple(_tags(facts, libc))
    )


def choose(found: Sequence[Mapping[str, Any]], asked: str | None, lane: str) -> Target:
    """The interpreter to make the environment from: the one asked for, else the best.

    The best has our own Python minor (what was tried here, and what this installation's wheels fit); then the newest
    that we support; then the newest.

    Raises:
        NoPython: none will do; a sentence with what was found.
    """
    hint = "install Python 3.11 or 3.12 there, or name one as `environment: {base: ...}`"
    fit = [f for f in found if not why_not(f)]
    if not fit:
        if asked is not None and found:
            raise NoPython(f"lane {lane}: {why_not(found[0])}", hint=hint)
        seen = sorted({str(f["version"]) for f in found if "version" in f})
        what = f"only Python {', '.join(seen)}" if seen else "no Python that runs"
        raise NoPython(f"lane {lane} has {what}, and kinds need 3.11 or newer", hint=hint)
    return of(max(fit, key=_goodness))


def why_not(facts: Mapping[str, Any]) -> str:
    """Why this interpreter cannot be the base of an environment; empty: it can."""
    if facts.get("problem"):
        return str(facts["problem"])
    if facts.get("implementation") != "cpython":
        return f"{facts['python']} is {facts.get('implementation')}, and our wheels are for CPython"
    if _minor(str(facts["version"])) < OLDEST:
        return f"{facts['python']} is Python {facts['version']}, and kinds need 3.11 or newer"
    lacks = [name for name in ("zlib", "hashlib") if name in (facts.get("lacks") or ())]
    if lacks:
        return f"{facts['python']} was built without {' and '.join(lacks)}"
    return ""


def _goodness(facts: Mapping[str, Any]) -> tuple[bool, bool, bool, list[int]]:
    minor = _minor(str(facts["version"]))
    numbers = [int(n) for n in re.findall(r"\d+", str(facts["version"]))]
    return minor == sys.version_info[:2], minor <= NEWEST, not facts.get("free_threaded"), numbers


def _minor(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def _tags(facts: Mapping[str, Any], libc: str) -> list[Tag]:
    version = _minor(str(facts["version"]))
    short = f"{version[0]}{version[1]}"
    abis = [f"cp{short}t"] if facts.get("free_threaded") else [f"cp{short}"]
    platforms = _platforms(facts, libc)
    tags = list(cpython_tags(version, abis, platforms))
    return tags + list(compatible_tags(version, f"cp{short}", platforms))


def _platforms(facts: Mapping[str, Any], libc: str) -> list[str]:
    """Platform tags, most specific first."""
    name = str(facts["platform"])
    system, _, rest = name.partition("-")
    machine = str(facts["markers"].get("platform_machine") or rest)
    if system == "linux":
        if facts.get("bits") == 32 and machine == "x86_64":
            machine = "i686"
        plain = [f"linux_{machine}"]
        if libc == "musl":
            return [f"musllinux_1_{n}_{machine}" for n in (2, 1, 0)] + plain
        numbers = re.fullmatch(r"glibc-(\d+)\.(\d+).*", libc)
        if numbers is None or numbers[1] != "2":
            return plain
        return _manylinux(int(numbers[2]), machine) + plain
    if system == "macosx":
        release = [int(n) for n in str(facts.get("macos") or "11.0").split(".")[:2]]
        return list(mac_platforms((release[0], release[1] if len(release) > 1 else 0), machine))
    raise LabError(f"environments cannot be made for the platform {name}", hint="name an interpreter as `python`")


def _manylinux(glibc: int, machine: str) -> list[str]:
    old = {17: "2014", 12: "2010", 5: "1"}
    least = 5 if machine in ("x86_64", "i686") else 17
    out = []
    for n in range(glibc, least - 1, -1):
        out.append(f"manylinux_2_{n}_{machine}")
        if n in old:
            out.append(f"manylinux{old[n]}_{machine}")
    return out
