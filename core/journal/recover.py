"""The way back from a damaged journal: `lab doctor --recover`.

Nothing is deleted: the damaged files are kept. The new journal is the longest sequence of events that can still be
read, from the damaged file or from a backup; jobs that only their run directories remember are put back from there;
and what was acknowledged but cannot be found is said in plain words.

It may be killed at any moment: the journal's name always leads to a journal, and what was set aside is read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.errors import HomeInUse, NotFound
from core.failpoint import failpoint
from core.fsio import fsync_dir, read_json
from core.home import Home
from core.journal import schema, witness
from core.journal.apply import apply, replay
from core.journal.locks import ALONE, lock, nobody_new
from core.journal.opening import private_file
from core.journal.store import as_json
from core.journal.trouble import EVIDENCE
from core.states import EventKind

_EVENT_COLUMNS = "seq, at, kind, job, attempt, lane, data"
_QUIET_S = 10.0  # how long to wait for the end of what is being written
Rows = list[tuple[Any, ...]]


@dataclass
class Recovery:
    """What was done, as sentences for people."""

    kept: Path
    lines: list[str] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True)
class _Found:
    """Events 1, 2, 3, ... that can be read, where, and the highest job id that is known to be taken there."""

    rows: Rows
    source: str
    id_floor: int
    cells: Rows = field(default_factory=list)  # of the sweeps among them
    payload: Rows = field(default_factory=list)  # result rows that were not in files yet


def recover(home: Home) -> Recovery:
    """Rebuild the journal of `home`. Safe to run on a healthy one (it then changes nothing but its file).

    Raises:
        HomeInUse: a controller is running, or something is being written and does not end.
        NotFound: there is neither a journal, nor a backup, nor a run directory.
    """
    if not home.path.is_dir():
        raise NotFound(f"there is no lab home at {home.path}", hint="name the right one with --home or $LAB_HOME")
    with _alone(home):
        return _recover(home)


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """No controller, no commit and no first journal begins until this is over."""
    with contextlib.ExitStack() as locks:
        if not locks.enter_context(lock(home.controller_lock, ALONE, 1.0)):
            raise HomeInUse(f"the controller of {home.path} is running", hint="`lab down` first")
        for path in (home.create_lock, home.journal_lock):
            if not locks.enter_context(lock(path, ALONE, _QUIET_S)):
                raise HomeInUse(f"another command is writing to the journal of {home.path}", hint="let it end first")
        yield


def _recover(home: Home) -> Recovery:
    seen = _witness(home)
    best = _longest(home)
    known = {row[3] for row in best.rows if row[2] in (EventKind.SUBMITTED, EventKind.SWEPT)}
    orphans = _orphans(home, known | {row[0] for row in best.cells})
    if not best.rows and not orphans:
        raise NotFound(f"nothing of a journal is left in {home.path}", hint="restore the folder from your own backup")
    report = Recovery(home.path / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    tmp = home.path / ".recover.db"
    _put_in_place(home, tmp, _build(tmp, best, orphans, seen), report.kept)

    last = best.rows[-1][0] if best.rows else 0
    report.lines.append(f"{len(best.rows)} events were read from {best.source}")
    if orphans:
        report.lines.append(f"{len(orphans)} jobs were put back from their run directories: {_ids(orphans)}")
    if seen is not None and seen.seq > last:
        report.lost = seen.seq - last
        report.lines.append(
            f"{report.lost} acknowledged events after number {last} could not be found; jobs submitted in them and "
            "never started are lost: compare your notes with `lab status --all` "
            f"(ids up to {seen.last_job} were given out)"
        )
    report.lines.append(f"the damaged files are kept in {report.kept}")
    return report


def _put_in_place(home: Home, tmp: Path, seen: witness.Seen, kept: Path) -> None:
    """Swap the journals. The order matters: at no moment may the old log meet the new journal.

    Who reads the old journal goes on doing so, and finds out by itself (`Journal.data_version`, or the next write).
    """
    kept.mkdir(mode=0o700)
    with contextlib.ExitStack() as frozen:
        if home.journal.exists():
            if not frozen.enter_context(nobody_new(home.journal, _QUIET_S)):
                raise HomeInUse(f"another command is closing the journal of {home.path}", hint="let it end first")
            os.link(home.journal, kept / home.journal.name)
        if home.witness.exists():
            shutil.copy2(home.witness, kept / home.witness.name)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{home.journal}{suffix}", kept / f"{home.journal.name}{suffix}")
        fsync_dir(kept)
        failpoint("recover.set_aside")
        os.replace(tmp, home.journal)
        fsync_dir(home.path)
        failpoint("recover.replaced")
        witness.reset(home.witness, seen)
    for name in EVIDENCE:
        with contextlib.suppress(FileNotFoundError):
            os.replace(home.path / name, kept / name)


def _longest(home: Home) -> _Found:
    """The longest run of events 1, 2, 3, ... that can be read anywhere.

    What an earlier recovery set aside is looked at too: that one may have been killed before it was done.
    """
    backups = sorted(home.backups.glob("journal-*.db"), reverse=True)
    set_aside = sorted(home.path.glob(f"damaged*/{home.journal.name}"), reverse=True)
    best, floor = _Found([], "nothing", 0), 0
    for path in (home.journal, *backups, *set_aside):
        if path.exists():
            found = _read(path, home.path / ".reading.db")
            floor = max(floor, found.id_floor)
            if len(found.rows) > len(best.rows):
                best = found
    return replace(best, id_floor=floor)


def _read(path: Path, copy: Path) -> _Found:
    """Events from the first on, up to the first that is missing, unreadable or nonsense. Works on a copy."""
    rows: Rows = []
    cells: Rows = []
    payload: Rows = []
    floor = 0
    try:
        # The log first: a reader that closes now may move it into the file, which then has what the copy has, and not
        # the other way round.
        for suffix in ("-wal", ""):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        _admit_length(copy)
        with contextlib.closing(sqlite3.connect(copy)) as conn:
            with contextlib.suppress(sqlite3.Error, ValueError):
                for row in conn.execute(f"SELECT {_EVENT_COLUMNS} FROM event ORDER BY seq"):
                    data = json.loads(row[6])
                    EventKind(row[2])
                    if row[0] != len(rows) + 1:
                        break
                    if row[2] == EventKind.SWEPT:
                        own = conn.execute(_CELLS, (row[3], row[3], data["cells"])).fetchall()
                        if len(own) != data["cells"]:
                            break  # a sweep without its cells is not what was submitted
                        cells += own
                    rows.append(tuple(row))
            # What of these cannot be read is named when its part is asked for.
            with contextlib.suppress(sqlite3.Error):
                payload = [(i,) for (i,) in conn.execute("SELECT id FROM payload ORDER BY id")]
            payload = [p for (i,) in payload if (p := _payload(conn, i)) is not None and i < (len(rows) + 1) * 256]
            with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
                floor = int(conn.execute("SELECT value FROM meta WHERE key = 'id_floor'").fetchone()[0])
    except sqlite3.Error:
        pass
    finally:
        _remove(copy)
    return _Found(rows, str(path), floor, cells, payload)


_CELLS = "SELECT id, sweep, key, name, params, spec FROM cell WHERE id > ? AND id <= ? + ? ORDER BY id"


def _payload(conn: sqlite3.Connection, part_id: int) -> tuple[int, bytes] | None:
    with contextlib.suppress(sqlite3.Error):
        row = conn.execute("SELECT id, data FROM payload WHERE id = ?", (part_id,)).fetchone()
        return (row[0], row[1]) if row else None
    return None


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def _admit_length(copy: Path) -> None:
    """A file shorter than its header says is refused whole. Let the header say how long it is: the rest can be read."""
    with copy.open("r+b") as f:
        header = f.read(100)
        size = f.seek(0, os.SEEK_END)
        page = int.from_bytes(header[16:18], "big") if len(header) == 100 else 0
        page = 65536 if page == 1 else page
        if page and size < page * int.from_bytes(header[28:32], "big"):
            f.seek(28)
            f.write((size // page).to_bytes(4, "big"))


def _orphans(home: Home, known: set[Any]) -> dict[int, dict[str, Any]]:
    """Jobs that have a run directory and no row: their frozen specs, by id."""
    out: dict[int, dict[str, Any]] = {}
    for path in home.attempts.glob("*/1/spec.json"):
        spec = read_json(path)
        if isinstance(spec, dict) and isinstance(spec.get("job"), int) and spec["job"] not in known:
            out[spec["job"]] = spec
    return dict(sorted(out.items()))


def _build(tmp: Path, best: _Found, orphans: dict[int, dict[str, Any]], seen: witness.Seen | None) -> witness.Seen:
    """Make the new journal at `tmp`. Returns what its witness has to say."""
    _remove(tmp)
    private_file(tmp)
    rows, generation = best.rows, secrets.token_hex(8)
    with contextlib.closing(sqlite3.connect(tmp, isolation_level=None)) as conn:
        conn.row_factory = sqlite3.Row
        conn.execute("BEGIN")
        schema.create(conn, generation)
        conn.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", rows)
        conn.executemany("INSERT INTO cell VALUES(?,?,?,?,?,?)", best.cells)
        conn.executemany("INSERT INTO payload VALUES(?,?)", best.payload)
        replay(conn)
        seq = len(rows)
        for job, spec in orphans.items():
            for kind, data in _resubmit(spec):
                seq += 1
                about = None if kind is EventKind.SPEC else job
                conn.execute(
                    "INSERT INTO event VALUES(?,?,?,?,NULL,NULL,?)",
                    (seq, time.time(), str(kind), about, as_json(data)),
                )
                apply(conn, [(seq, kind, about)])
        # Ids that were given out are never given out again, whatever became of their jobs.
        taken = [r[3] for r in rows if r[2] in (EventKind.SUBMITTED, EventKind.SWEPT)] + [r[0] for r in best.cells]
        floor = max(best.id_floor, seen.last_job if seen else 0, *orphans, *taken)
        conn.execute("INSERT OR REPLACE INTO meta VALUES('id_floor', ?)", (str(floor),))
        conn.execute("COMMIT")
        conn.execute("PRAGMA journal_mode = WAL")  # else all who open it first would want to change that
    return witness.Seen(generation, seq, floor)


def _resubmit(frozen: dict[str, Any]) -> list[tuple[EventKind, dict[str, Any]]]:
    """The submit that a frozen spec came from. It is held: a person decides whether it runs again."""
    from core.fsio import digest

    code = frozen.get("code") or {}
    spec = {
        "kind": frozen["kind"],
        "entry": frozen["entry"],
        "version": 1,
        "inputs": [_as_submitted(item) for item in (*frozen["inputs"], *frozen.get("absent", ()))],
        "code": {
            "digest": code["digest"],
            "store": Path(code["path"]).name,
            "root": code.get("root", ""),
            "subdir": code.get("subdir", ""),
            "commit": code.get("commit"),
            "dirty": code.get("dirty", False),
        }
        if code.get("path")
        else None,
        "kind_code": {
            "digest": frozen.get("kind_digest", ""),
            "store": Path(frozen["kind_path"]).name,
            "root": "",
            "subdir": "",
            "commit": None,
            "dirty": False,
        },
        "packages": frozen.get("packages", {}),
        "python": frozen["python"],
        "needs": {
            "cores": frozen["grant"].get("cores", 1),
            "memory_mb": frozen["grant"].get("memory_mb"),
            "gpus": len(frozen["grant"].get("gpus") or ()),
            "disk_mb": 0,
            "resources": frozen["grant"].get("resources") or [],
            "lane": None,
            "role": "eval",
        },
        "limits": frozen["limits"],
        "env": frozen["env"],
        "path": (frozen.get("base_env") or {}).get("PATH", ""),
        "outputs": frozen["outputs"],
        "expect": frozen["expect"],
        "retries": {},
        "allow_undeclared": frozen.get("allow_undeclared", []),
        "on_unreachable": "wait",
        "argv": [],
    }
    name = digest(spec)
    submitted = {
        "spec": name,
        "kind": frozen["kind"],
        "name": frozen.get("name") or frozen["kind"],
        "params": frozen["params"],
        "key": frozen["key"],
        "priority": 0,
        "idem": None,
        "tags": [],
        "note": "put back by recovery",
        "held": True,
        "after": [],
    }
    return [(EventKind.SPEC, {"digest": name, "data": json.dumps(spec)}), (EventKind.SUBMITTED, submitted)]


def _as_submitted(item: dict[str, Any]) -> dict[str, Any]:
    """An input as the spec had it before the attempt: of one that another job makes, not which bytes that were."""
    made = item.get("made")
    if not made:
        return item
    of = {name: value for name, value in made.items() if name not in ("job", "attempt", "state", "why")}
    return {**item, "path": "", "sha256": "", "size": 0, "tree": not of["file"], "made": of}


def _witness(home: Home) -> witness.Seen | None:
    with contextlib.suppress(ValueError):
        return witness.read(home.witness)
    return None


def _ids(jobs: dict[int, Any]) -> str:
    ids = [str(j) for j in jobs]
    return ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
