"""Evidence of a claim, collected: journal rows, run directories hashed again, tables read, artifacts opened.

No field that says that something is well is believed, and what cannot be read is named, never passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.claims.definition import Definition
from core.claims.evidence import Cited, Code, Earlier, Evidence, FileSeen, Row, Taken
from core.claims.gates_contract import payload_sha256
from core.claims.words import Rung, Waiver
from core.errors import LabError, NotFound
from core.fsio import digest, read_json, safe_join, sha256_file
from core.home import Home
from core.journal import query
from core.journal.query import Attempt, ClaimRow, Job
from core.made import NotThere, Standing, content
from core.spec import key_of
from core.tables import Jobs, live_parts, read_table
from core.tables.live import named
from lab.claims import content as inside
from lab.claims.resolve import nodes, resolve
from lab.claims.siblings import siblings
from lab.evidence import discarded_at, sealed_attempt

# Parameters that switch a check off: `allow_shared_encoder`, `skip_checks`, `force`.
_RELAX = re.compile(r"(allow|override|ignore|relax|waive|skip|force|unsafe)(_|$)")
_WAIVERS = re.compile(r"(^|_)waivers?$")
_ORIGIN = ("job", "attempt", "lane", "key")


def collect(home: Home, conn: sqlite3.Connection, row: ClaimRow, claim: Definition) -> Evidence:
    """Everything that the gates look at, as it is now."""
    found = resolve(conn, claim, row.stated)
    ids = {job.id: role for role, job in found.jobs.items()}
    seen = {job_id: _Seen(home, conn, query.job(conn, job_id)) for job_id in ids}
    now = {job_id: one.digests for job_id, one in seen.items()}
    cited = tuple(seen[job.id].cited(role, now) for role, job in found.jobs.items())
    listed, problem = nodes(conn, claim, list(found.jobs.values()), row.stated)
    waivers = tuple(Waiver(w.gate, w.job, w.by, w.why, w.at, w.seq) for w in query.waivers(conn, row.name))
    code = gate_code()
    return Evidence(
        claim=claim,
        stated=row.stated,
        cited=cited,
        unresolved=found.problems,
        nodes=listed,
        nodes_problem=problem,
        siblings=siblings(home, conn, claim, found.jobs),
        waivers=waivers,
        gate_code=code,
        earlier=earlier(row.highest),
        current=_current(row, cited, waivers, code),
    )


def earlier(record: Mapping[str, Any] | None) -> Earlier | None:
    """A record of the journal as the gates know it; one that cannot be understood is none."""
    if record is None:
        return None
    try:
        rung = Rung(record["rung"]) if record.get("rung") else None
        items = {str(k): str(v) for k, v in dict(record.get("items") or {}).items()}
        return Earlier(int(record["seq"]), rung, bool(record.get("highest")), items)
    except (KeyError, TypeError, ValueError):
        return None


def gate_code() -> str:
    """SHA-256 over the code that judges and collects: another one may give another label."""
    import core.claims

    folders = [Path(core.claims.__path__[0]), Path(__file__).parent]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return digest([[f"{path.parent.parent.name}/{path.name}", sha256_file(path)] for path in files])


def _current(row: ClaimRow, cited: tuple[Cited, ...], waivers: tuple[Waiver, ...], code: str) -> dict[str, str]:
    items = {"gates": code, "claim": row.digest}
    if waivers:
        items["waivers"] = digest([[w.gate, w.job, w.who, w.why] for w in waivers])
    for one in cited:
        for file in one.files:
            if not file.path.startswith("tables/"):  # parts are compacted; their rows stay
                items[f"job {one.job} {file.path}"] = file.now
        for table, rows in one.tables.items():
            items[f"job {one.job} table {table}"] = _rows_digest(rows)
        items[f"job {one.job} state"] = one.state
        for name, document in one.documents.items():
            if name == "contract.json" and isinstance(document, Mapping):
                items["contract"] = _canonical(document.get("payload"))
    return items


def _rows_digest(rows: tuple[Row, ...]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


def _canonical(value: Any) -> str:
    try:
        return payload_sha256(value)
    except (TypeError, ValueError):
        return ""


class _Seen:
    """One job, looked at once however many roles it has."""

    def __init__(self, home: Home, conn: sqlite3.Connection, job: Job) -> None:
        self._home, self._conn, self.job = home, conn, job
        self._problems: list[str] = []
        self._spec = query.spec_of(conn, job.spec)
        self._attempt = sealed_attempt(home, conn, job.id)
        self._run = home.run_dir(job.id, self._attempt.n) if self._attempt is not None else None
        self._sizes: dict[str, int] = {}
        self._files = tuple(self._sealed()) if job.state == "succeeded" else ()
        self.digests: dict[str, list[Any]] = {f.path: [f.now, self._sizes.get(f.path, 0)] for f in self._files if f.now}
        self._tables, parts = self._rows() if job.state == "succeeded" else ({}, ())
        self._files += parts

    def cited(self, role: str, now: Mapping[int, dict[str, list[Any]]]) -> Cited:
        job, spec, run = self.job, self._spec, self._run
        said = read_json(run.spec, {}) if run is not None else {}
        said = said if isinstance(said, dict) else {}
        environment = read_json(run.env, {}) if run is not None else {}
        planned = read_json(run.plan, {}) if run is not None else {}
        held = inside.read(run.artifacts) if run is not None and self._files else inside.Content()
        listed = said.get("inputs")
        inputs = [i for i in listed if isinstance(i, dict)] if isinstance(listed, list) else []
        identities = {f.now for f in self._files if f.now} | {i.content for i in held.images.values()}
        identities |= {w.content for w in held.weights.values()} | {_canonical(d) for d in held.documents.values()}
        splits = {name: held.images[name].content for name in ("train", "reference", "held") if name in held.images}
        if len(splits) == 3:
            identities.add(payload_sha256(splits))
        return Cited(
            role=role,
            job=job.id,
            kind=job.kind,
            name=job.name,
            state=str(job.state),
            key=job.key,
            key_now=key_of(spec, job.params),
            submitted=self._seq("SELECT submit FROM job_state WHERE id = ?") or 0,
            finished=self._finished(),
            params=job.params,
            inputs={str(i.get("name")): str(i.get("sha256") or "") for i in inputs},
            code=tuple(self._code()),
            environment=environment if isinstance(environment, dict) else {},
            device="cuda" if spec["needs"].get("gpus") else "cpu",
            undeclared=tuple(self._undeclared()),
            relaxed=tuple(_relaxed(job.params, spec)),
            planned=planned if isinstance(planned, dict) else {},
            files=self._files,
            taken=tuple(self._taken(inputs, now)),
            tables=self._tables,
            documents=held.documents,
            images=held.images,
            weights=held.weights,
            series=held.series,
            identities=frozenset(identities - {""}),
            waivers=tuple(self._waived()),
            problems=(*self._problems, *held.problems),
        )

    def _sealed(self) -> list[FileSeen]:
        """Every file of the seal, hashed now. A seal that is not the one in the journal says nothing."""
        attempt, run = self._attempt, self._run
        if attempt is None or run is None:
            self._problems.append("no attempt of it was sealed")
            return []
        if attempt.batch is not None:
            self._problems.append("it ran in a batch and keeps no files of its own")
            return []
        if discarded_at(self._conn, self.job.id) or discarded_at(self._conn, self.job.id, attempt.n):
            self._problems.append("its files were discarded by `lab gc`")
        try:
            now = sha256_file(run.manifest)
        except OSError:
            return [FileSeen("manifest.json", attempt.manifest or "", "", "it is missing")]
        if attempt.manifest is None or now != attempt.manifest:
            return [FileSeen("manifest.json", attempt.manifest or "", now, "it is not the one that was committed")]
        manifest = read_json(run.manifest)
        files = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(files, dict):
            self._problems.append("its manifest cannot be read")
            return []
        return [self._file(run.path, str(name), entry) for name, entry in files.items()]

    def _file(self, folder: Path, name: str, entry: Any) -> FileSeen:
        sealed, size = str(entry[0]), int(entry[1])
        self._sizes[name] = size
        try:
            full = folder / name
            if sealed.startswith("link:"):
                return FileSeen(name, sealed, "link:" + os.readlink(full))
            return FileSeen(name, sealed, sha256_file(safe_join(folder, name)))
        except FileNotFoundError:
            return FileSeen(name, sealed, "", f"it is missing ({size:,} bytes were sealed)")
        except (OSError, ValueError) as error:
            return FileSeen(name, sealed, "", f"it cannot be read ({getattr(error, 'strerror', None) or error})")

    def _rows(self) -> tuple[dict[str, tuple[Row, ...]], tuple[FileSeen, ...]]:
        """The job's rows by table, and the bytes that they lie in."""
        files, tables = [], dict[str, tuple[Row, ...]]()
        parts = live_parts(self._conn, None, Jobs.of([self.job.id]))
        for part in parts:
            now, problem = "", ""
            try:
                if part.inline:
                    data = query.payload(self._conn, part.id)
                    now = hashlib.sha256(data).hexdigest() if data is not None else ""
                else:
                    now = sha256_file(safe_join(self._home.tables, part.path))
            except (OSError, ValueError) as error:
                problem = f"{named(part)} cannot be read ({getattr(error, 'strerror', None) or error})"
            files.append(FileSeen(f"tables/{part.table}", part.sha256, now, problem))
        for table in sorted({p.table for p in parts}):
            notes: list[str] = []
            try:
                found = read_table(self._home, self._conn, table, [self.job.id], warnings=notes).to_pylist()
                tables[table] = tuple({k: v for k, v in r.items() if k not in _ORIGIN} for r in found)
            except NotFound:
                pass  # a part of many jobs that has none of this one's
            except (LabError, OSError, ValueError) as error:
                notes.append(f"its table {table} cannot be read ({error})")
            self._problems += notes
        return tables, tuple(files)

    def _code(self) -> list[Code]:
        out = []
        for ref in (self._spec.get("kind_code"), self._spec.get("code")):
            if ref:
                stored = bool(ref.get("store")) and (self._home.code / str(ref["store"])).is_dir()
                commit = str(ref.get("commit") or "")
                out.append(Code(str(ref.get("digest") or ""), stored, commit, bool(ref.get("dirty"))))
        return out

    def _undeclared(self) -> list[str]:
        names = list(self._attempt.undeclared) if isinstance(self._attempt, Attempt) else []
        return names or (["(the journal does not say what)"] if self.job.undeclared else [])

    def _finished(self) -> int | None:
        ended = self._seq("SELECT max(seq) FROM event WHERE job = ? AND kind = 'job-ended'")
        if ended is None and self.job.state.terminal:
            return self._seq("SELECT news FROM job_state WHERE id = ?")
        return ended

    def _seq(self, sql: str) -> int | None:
        row = self._conn.execute(sql, (self.job.id,)).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else None

    def _taken(self, inputs: list[dict[str, Any]], now: Mapping[int, dict[str, list[Any]]]) -> list[Taken]:
        """Inputs that other jobs made: as the attempt wrote them down, and as they are now."""
        out = []
        for item in inputs:
            made = item.get("made")
            if not isinstance(made, dict) or not isinstance(made.get("job"), int):
                continue
            maker, file = int(made["job"]), str(made.get("file") or "")
            files = now.get(maker)
            if files is None:
                files = _Seen(self._home, self._conn, query.job(self._conn, maker)).digests
            try:
                digest_now = content(Standing(maker, 0, Path(), files), file).sha256
            except NotThere:
                digest_now = ""
            out.append(Taken(str(item.get("name")), maker, file, str(item.get("sha256") or ""), digest_now))
        return out

    def _waived(self) -> list[Waiver]:
        """Waivers that the run itself wrote, as rows of a table of waivers."""
        out = []
        for table, rows in self._tables.items():
            if _WAIVERS.search(table):
                for row in rows:
                    why = str(row.get("reason") or row.get("why") or "")
                    out.append(Waiver(str(row.get("gate") or row.get("waiver") or "?"), self.job.id, "the run", why))
        return out


def _relaxed(params: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    out = [f"{name}={_word(value)}" for name, value in params.items() if _RELAX.match(name) and _switched(value)]
    if spec.get("allow_undeclared"):
        out.append(f"allow_undeclared={','.join(map(str, spec['allow_undeclared']))}")
    return out


def _switched(value: Any) -> bool:
    return value is True or (isinstance(value, list | tuple | str | dict) and bool(value))


def _word(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
