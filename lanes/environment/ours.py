"""The pins of this installation: what the kinds of a lane's roles need, in the versions that they have here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from core.errors import BadInput
from core.kind import load_kind
from lanes.admission.environment import NEEDED
from lanes.environment.lock import Lock, Pin
from lanes.environment.target import Target

# `promote` holds results against other frameworks; the others run what runs, and compare with the oracle.
_KINDS = {
    "eval": ("command", "kernel", "score"),
    "train": ("command", "kernel", "train"),
    "sweep": ("command", "kernel"),
    "promote": ("command", "kernel", "score", "parity"),
}
ROLES = tuple(_KINDS)
# Distributions whose module is called otherwise; those of NEEDED are there.
_MODULES = {"pillow": "PIL"}


def kinds_of(roles: Iterable[str]) -> tuple[str, ...]:
    """The kinds that a lane with these roles must be able to run."""
    return tuple(dict.fromkeys(kind for role in roles for kind in _KINDS.get(role, ("command",))))


def wanted(kinds: Iterable[str]) -> tuple[str, ...]:
    """The distributions that these kinds use by themselves, in their canonical names.

    Raises:
        UnknownKind: no kind of that name is registered.
    """
    found = [*NEEDED]  # without these no lane is admitted for anything
    for name in kinds:
        found += load_kind(name).packages
    return tuple(dict.fromkeys(canonicalize_name(n) for n in found))


def modules(names: Iterable[str]) -> list[str]:
    """What to import of these distributions to see that they work."""
    known = {**NEEDED, **_MODULES}
    return [known.get(name, name.replace("-", "_")) for name in names]


def pins(kinds: Sequence[str], target: Target) -> Lock:
    """Everything that `kinds` need, as it is installed here, for `target`.

    Raises:
        BadInput: a package that a kind needs is not installed here.
    """
    found: dict[str, Pin] = {}
    absent: dict[str, str] = {}
    todo: list[tuple[str, frozenset[str], str]] = [(name, frozenset(), "") for name in wanted(kinds)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras, by = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            dist = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if not by:
                raise BadInput(
                    f"{name} is not installed here, so that its version is not known",
                    hint="install it beside lab, or give a lock with --lock",
                ) from None
            absent.setdefault(name, by)
            continue
        found[name] = Pin(name, str(Version(dist.version)))
        for text in dist.requires or ():
            need = Requirement(text)
            environments = [{**target.markers, "extra": extra} for extra in ("", *sorted(extras))]
            if need.marker is None or any(need.marker.evaluate(e) for e in environments):
                todo.append((canonicalize_name(need.name), frozenset(need.extras), name))
    notes = [
        f"{by} asks for {name}, which is not installed here either: left out" for name, by in sorted(absent.items())
    ]
    return Lock(tuple(sorted(found.values(), key=lambda p: p.name)), "this installation of lab", False, tuple(notes))
