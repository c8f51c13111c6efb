"""The snapshot of our own packages and of the package that holds a kind: what an attempt imports.

Two digests come of it. The one that counts for the key covers the packages that the kind names (`Kind.code`) and its
own; the one that names the folder covers everything in it, so that a changed `lanes` makes a new folder and no new job.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import core
from core.digests import Digests
from core.errors import BadInput, ForeignPackage
from core.fsio import digest
from core.kind import Kind
from core.snapshot import Entry, Listing, Snapshot, walk_package
from core.spec import CodeRef

# What a child process needs to be told apart from the kind's own: context, run directory, agent.
OURS = ("core", "kernels", "jobs", "lanes")


def look_at_kind(kind: Kind, digests: Digests, *, entry: str = "") -> Snapshot:
    """The snapshot of what `kind` runs from, as it is now. Writes nothing.

    Args:
        entry: `module:Class` as it is registered, which may lie in another package than the class.

    Raises:
        ForeignPackage: another package has the name of one of ours.
        BadInput: a package that the kind names is not there, or is too large.
    """
    modules = (type(kind).__module__, entry.partition(":")[0])
    tops = {m.split(".", 1)[0] for m in modules} - {"", "__main__"}
    wanted = {*OURS, *(name.split(".", 1)[0] for name in kind.code), *tops}
    entries: list[Entry] = []
    for name in sorted(wanted):
        entries += _package(name, kind.name, digests)
    listing = Listing(tuple(sorted(entries, key=lambda e: e.name)))
    counted = {name.replace(".", "/") for name in kind.code}
    counted |= tops - set(OURS)
    rows = [e.row for e in listing.entries if _counts(e.name, counted)]
    return Snapshot(CodeRef(digest=digest(rows), store=listing.store, root=str(_OUR_FOLDER)), listing)


_OUR_FOLDER = Path(str(core.__file__)).parent.parent


def _package(name: str, kind: str, digests: Digests) -> list[Entry]:
    if name in OURS:
        _refuse_foreign(name)
        return walk_package(_OUR_FOLDER / name, name, digests)
    found = sys.modules.get(name)
    spec = found.__spec__ if found is not None else importlib.util.find_spec(name)
    if spec is None:
        raise BadInput(
            f"the kind {kind!r} names the package {name!r}, which is not installed",
            hint="install it, or correct `code` of the kind",
        )
    if spec.submodule_search_locations is None:
        file = Path(str(spec.origin))
        content = digests.file(file)
        return [Entry(file.name, file, content.sha256, content.size)]
    entries: list[Entry] = []
    for folder in spec.submodule_search_locations:
        if Path(folder).is_dir():
            entries += walk_package(Path(folder), name, digests)
    return entries


def _refuse_foreign(name: str) -> None:
    found = sys.modules.get(name)
    spec = found.__spec__ if found is not None else importlib.util.find_spec(name)
    places = [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
    ours = (_OUR_FOLDER / name).resolve()
    if places and ours not in places:
        raise ForeignPackage(
            f"another package is called {name!r} here ({places[0]}), where lab's own is meant ({ours})",
            hint="give lab an environment of its own, or uninstall the other",
        )


def _counts(entry: str, counted: set[str]) -> bool:
    """Does a file count for the key? `kernels` counts all of it; `kernels/translation` that module or package."""
    return any(entry.startswith(f"{c}/") or entry == f"{c}.py" for c in counted)
