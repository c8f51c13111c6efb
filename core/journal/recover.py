"""The way back from a damaged journal: `lab doctor --recover`.

Nothing is deleted: the damaged files are kept. The new journal is the longest sequence of events that can still be
read, from the damaged file or from a backup; jobs that only their run directories remember are put back from there;
and what was acknowledged but cannot be found is said in plain words.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import HomeInUse, NotFound
from core.fsio import fsync_dir, read_json
from core.home import Home
from core.journal import schema, witness
from core.journal.apply import apply, replay
from core.states import EventKind

_EVENT_COLUMNS = "seq, at, kind, job, attempt, lane, data"
Rows = list[tuple[Any, ...]]


@dataclass
class Recovery:
    """What was done, as sentences for people."""

    kept: Path
    lines: list[str] = field(default_factory=list)
    lost: int = 0


def recover(home: Home) -> Recovery:
    """Rebuild the journal of `home`. Safe to run on a healthy one (it then changes nothing but its file).

    Raises:
        HomeInUse: a controller is running.
        NotFound: there is neither a journal, nor a backup, nor a run directory.
    """
    _refuse_running(home)
    candidates = _candidates(home)
    best, source = max(candidates, key=lambda c: len(c[0]), default=([], "nothing"))
    orphans = _orphans(home, {row[3] for row in best if row[2] == EventKind.SUBMITTED})
    if not best and not orphans:
        raise NotFound(f"nothing of a journal is left in {home.path}", hint="restore the folder from your own backup")
    seen = _witness(home)
    report = Recovery(home.path / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")
    tmp = home.path / f".recover.{os.getpid()}.db"
    _build(tmp, best, orphans, seen)
    _set_aside(home, report.kept)
    os.replace(tmp, home.journal)
    fsync_dir(home.path)
    with contextlib.closing(sqlite3.connect(home.journal)) as conn:
        generation = conn.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0]
        seq = conn.execute("SELECT max(seq) FROM event").fetchone()[0]
        last_job = conn.execute("SELECT coalesce(max(id), 0) FROM job").fetchone()[0]
    witness.reset(home.witness, witness.Seen(generation, seq, last_job))

    last = best[-1][0] if best else 0
    report.lines.append(f"{len(best)} events were read from {source}")
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


def _refuse_running(home: Home) -> None:
    import fcntl

    if not home.controller_lock.exists():
        return
    with home.controller_lock.open() as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUse(f"the controller of {home.path} is running", hint="`lab down` first") from None


def _candidates(home: Home) -> list[tuple[Rows, str]]:
    """Every readable run of events 1, 2, 3, ... with where it is from."""
    paths = [home.journal, *sorted(home.backups.glob("journal-*.db"), reverse=True)]
    kept = home.path / "damaged" / home.journal.name
    if kept.exists():
        paths.append(kept)
    out = []
    for path in paths:
        if path.exists():
            rows = _readable_events(path)
            if rows:
                out.append((rows, str(path)))
    return out


def _readable_events(path: Path) -> Rows:
    """Events from the first on, up to the first that is missing, unreadable or nonsense. Works on a copy."""
    rows: Rows = []
    copy = path.with_name(f".reading.{os.getpid()}.db")
    try:
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        _admit_length(copy)
        with contextlib.closing(sqlite3.connect(copy)) as conn, contextlib.suppress(sqlite3.Error, ValueError):
            for row in conn.execute(f"SELECT {_EVENT_COLUMNS} FROM event ORDER BY seq"):
                json.loads(row[6])
                EventKind(row[2])
                if row[0] != len(rows) + 1:
                    break
                rows.append(tuple(row))
    except sqlite3.Error:
        pass
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
    return rows


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


def _build(tmp: Path, rows: Rows, orphans: dict[int, dict[str, Any]], seen: witness.Seen | None) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{tmp}{suffix}").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(tmp, isolation_level=None)) as conn:
        conn.row_factory = sqlite3.Row
        conn.execute("BEGIN")
        schema.create(conn, secrets.token_hex(8))
        conn.executemany("INSERT INTO event VALUES(?,?,?,?,?,?,?)", rows)
        replay(conn)
        seq = len(rows)
        for job, spec in orphans.items():
            for kind, data in _resubmit(spec):
                seq += 1
                about = None if kind is EventKind.SPEC else job
                conn.execute(
                    "INSERT INTO event VALUES(?,?,?,?,NULL,NULL,?)",
                    (seq, time.time(), str(kind), about, json.dumps(data)),
                )
                apply(conn, [(seq, kind, about)])
        # Ids that were given out are never given out again, whatever became of their jobs.
        floor = max([seen.last_job if seen else 0, *orphans, *(r[3] for r in rows if r[2] == EventKind.SUBMITTED)])
        conn.execute("INSERT OR REPLACE INTO meta VALUES('id_floor', ?)", (str(floor),))
        conn.execute("COMMIT")


def _resubmit(frozen: dict[str, Any]) -> list[tuple[EventKind, dict[str, Any]]]:
    """The submit that a frozen spec came from. It is held: a person decides whether it runs again."""
    from core.fsio import digest

    code = frozen.get("code") or {}
    spec = {
        "kind": frozen["kind"],
        "entry": frozen["entry"],
        "version": 1,
        "inputs": frozen["inputs"],
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


def _set_aside(home: Home, folder: Path) -> None:
    folder.mkdir()
    paths = [Path(f"{home.journal}{suffix}") for suffix in ("", "-wal", "-shm")] + [home.witness, home.path / "damaged"]
    for path in paths:
        if path.exists():
            os.replace(path, folder / path.name)


def _witness(home: Home) -> witness.Seen | None:
    with contextlib.suppress(ValueError):
        return witness.read(home.witness)
    return None


def _ids(jobs: dict[int, Any]) -> str:
    ids = [str(j) for j in jobs]
    return ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
