"""Before a submit that may send much to a remote lane: how much, from where, and is that meant?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from core.snapshot import Snapshot
from core.spec import InputFile, Needs
from lab.output import human
from lab.planning import Prepared, PreparedSweep, Preparer
from lab.session import Session

LARGE = 256 << 20
SHOWN = 5


def agree(here: Session, preparer: Preparer, made: Sequence[Prepared | PreparedSweep], *, yes: bool) -> None:
    """Say what may be sent, and on a terminal ask. Programs, pipes and `--yes` go on.

    Raises:
        typer.Abort: it is not meant.
    """
    said = upload(preparer, made)
    if not said:
        return
    here.out.remark(said)
    if yes or not here.out.people or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not typer.confirm("Submit?", default=True, err=True):
        here.out.remark("nothing was submitted")
        raise typer.Abort


def upload(preparer: Preparer, made: Sequence[Prepared | PreparedSweep]) -> str:
    """What these jobs may send to remote lanes, in one sentence; empty where it is little, or stays here.

    What a lane has already is not sent again; that is not known here, so it counts.
    """
    inputs: dict[str, InputFile] = {}
    code: dict[str, Snapshot] = {}
    for job in made:
        if not _goes_far(preparer, job.spec.needs):
            continue
        specs = job.cells.specs.values() if isinstance(job, PreparedSweep) else ()
        for item in (*job.spec.inputs, *(InputFile(**i) for s in specs for i in s["inputs"])):
            if item.lane is None and item.made is None:
                inputs.setdefault(item.sha256, item)
        code.update({s.ref.store: s for s in job.snapshots})
    total = sum(i.size for i in inputs.values()) + sum(s.listing.size for s in code.values())
    if total <= LARGE:
        return ""
    rows = [*_of_code(code.values()), *_of_inputs(inputs.values())]
    rows.sort(key=lambda row: -row[1])
    folders = ", ".join(f"{folder} ({human.size(size)})" for folder, size in rows[:SHOWN])
    ours = sum(s.listing.size for s in code.values())
    return f"up to {human.size(total)} may be sent to a lane ({human.size(ours)} of it code), most of it from {folders}"


def _goes_far(preparer: Preparer, needs: Needs) -> bool:
    """Could it run on a remote lane?"""
    from lanes.placement import can_ever

    for name, book in preparer.books.items():
        if not book.config.remote or needs.lane not in (None, name):
            continue
        if needs.lane == name or not book.hello or can_ever(needs, book.view()) is None:
            return True
    return False


def _of_inputs(inputs: Iterable[InputFile]) -> list[tuple[str, int]]:
    from lanes.carrier.weigh import largest

    return largest([i.path for i in inputs], SHOWN)


def _of_code(snapshots: Iterable[Snapshot]) -> list[tuple[str, int]]:
    sizes: dict[str, int] = {}
    for snapshot in snapshots:
        for entry in snapshot.listing.entries:
            top, below, _ = entry.name.partition("/")
            folder = str(Path(snapshot.ref.root) / top) if below else snapshot.ref.root
            sizes[folder] = sizes.get(folder, 0) + entry.size
    return list(sizes.items())
