"""`lab floor`: the best submission that may be called so, and a verdict on every other one.

The floor is a view over committed results: nobody types it. It is found by going through the submissions in the order
in which they were first scored. The first one that may promote is the floor; a later one takes its place where it is
better by more than the noise. What may only rank (a proxy, a lane without the role `promote` when it ran, a job that
read undeclared files, another contract) never does.

Of a submission that was scored several times the mean counts. The noise of a contract is the largest spread, most
minus least, of any one submission that was scored there twice or more, and to it comes what the rounding of both
reports may hide. Where none was scored twice the noise is unknown, and then nothing is promoted over a floor.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.cluster import Cluster, LaneConfig, as_it_was, load
from core.errors import BadInput, NotFound
from core.home import Home
from core.journal import query
from core.spec import Needs
from core.tables import read_table
from jobs.score.formula import NoScore, Score
from jobs.score.proxy import Authority

VIEWS = ("archive", "faithful")
_TABLE, _ROLE = "score", "promote"
_FLOAT = 1e-12  # relative: the same formula, the same numbers
_DECLARED = """SELECT data ->> '$.info.declared' FROM event WHERE kind = 'lane' AND lane = ? AND seq < ?
    AND data -> '$.info.declared' IS NOT NULL ORDER BY seq DESC LIMIT 1"""
_ADMITTED = """SELECT data ->> '$.ok' FROM event WHERE kind = 'admitted' AND lane = ? AND data ->> '$.role' = ?
    AND seq < ? ORDER BY seq DESC LIMIT 1"""


class Verdict(StrEnum):
    """What becomes of a submission."""

    PROMOTE = "promote"  # it beat the floor of its time by more than the noise
    CLOSE_MISS = "close miss"  # equal within the noise, or ahead by a word that does not count enough
    REJECT = "reject"  # worse
    CUT = "cut"  # behind by a value that only ranks: the scorer is not spent on it
    UNRANKED = "unranked"  # nothing to compare it with


@dataclass(frozen=True)
class Standing:
    """A value that is judged.

    Attributes:
        value: lower is better.
        resolution: by so much it may be off because the report rounds.
        bars: why it may not promote; empty: it may.
    """

    value: float
    resolution: float = 0.0
    bars: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A verdict, the rule that decided, and by how much it is better than the floor (None: not compared)."""

    verdict: Verdict
    rule: str
    gain: float | None = None


def judge(candidate: Standing, floor: Standing | None, noise: float | None) -> Judged:
    """The verdict on one candidate.

    Args:
        floor: the floor's value under the candidate's own contract; None: there is none.
        noise: of repeated scorings under that contract; None: unknown.
    """
    may = not candidate.bars
    why = "; ".join(candidate.bars)
    if floor is None:
        if may:
            return Judged(Verdict.PROMOTE, "the first that may promote: there was no floor")
        return Judged(Verdict.UNRANKED, f"the floor has no value under its contract, and it only ranks: {why}")
    gain = floor.value - candidate.value
    hidden = candidate.resolution + floor.resolution
    margin = hidden + (noise or 0.0)
    if abs(gain) <= margin:
        known = f"{margin:.2g}" if noise is not None else f"{hidden:.2g} (rounding alone)"
        return Judged(Verdict.CLOSE_MISS, f"equal to the floor within {known}", gain)
    if gain < 0 and not may:
        return Judged(Verdict.CUT, f"behind by {-gain:.4g}, and it only ranks: {why}", gain)
    if gain < 0:
        unsure = "" if noise is not None else " (the noise is unknown)"
        return Judged(Verdict.REJECT, f"worse than the floor by {-gain:.4g}{unsure}", gain)
    if not may:
        return Judged(Verdict.CLOSE_MISS, f"ahead by {gain:.4g}, and it only ranks: {why}", gain)
    if noise is None:
        said = f"ahead by {gain:.4g}, and the noise is unknown: no submission was scored twice (`lab rerun` does)"
        return Judged(Verdict.CLOSE_MISS, said, gain)
    return Judged(Verdict.PROMOTE, f"beats the floor of its time by {gain:.4g}, more than {margin:.2g}", gain)


@dataclass(frozen=True)
class Scoring:
    """One row of the table `score`, recomputed, with what the journal says of its making.

    Attributes:
        evaluator: (package, version) of what its process imports, Python among them; empty: nobody asked.
    """

    job: int
    name: str
    lane: str
    bundle: str
    contract: str
    value: float
    resolution: float
    bytes: int
    authority: Authority
    bars: tuple[str, ...] = ()
    evaluator: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One submission under one contract: all of its scorings that count alike.

    Attributes:
        jobs: that scored it, oldest first.
        spread: most minus least of its scorings; None: there is one.
        is_floor: it is the floor now.
    """

    bundle: str
    contract: str
    name: str
    jobs: tuple[int, ...]
    lanes: tuple[str, ...]
    standing: Standing
    spread: float | None
    bytes: int
    authority: Authority
    judged: Judged | None = None
    is_floor: bool = False


@dataclass(frozen=True)
class Noise:
    """How far repeated scorings are apart. `value` None: no submission was scored twice; `repeated`: how many were."""

    value: float | None
    repeated: int


@dataclass(frozen=True)
class Rival:
    """Somebody else's score, as a file says it."""

    name: str
    score: float

    @property
    def rounding(self) -> float:
        """Half a unit of the last decimal that is written, of two at least: boards show that many."""
        decimals = len(f"{self.score!r}".partition(".")[2]) if "e" not in f"{self.score!r}" else 16
        return 0.5 * 10.0 ** -max(2, decimals)


@dataclass(frozen=True)
class Floor:
    """The whole answer.

    Attributes:
        contract: under which the floor is; "": nothing may promote.
        floor: the submission that is the floor; None: there is none.
        candidates: every submission with its verdict, the best first within each contract.
        contracts: all under which something may promote.
        scorings: what it was made of, oldest first.
    """

    view: str
    contract: str
    floor: Candidate | None
    noise: Noise
    candidates: tuple[Candidate, ...]
    contracts: tuple[str, ...]
    scorings: tuple[Scoring, ...] = ()


def find_floor(scorings: Iterable[Scoring], *, view: str = VIEWS[0], contract: str = "") -> Floor:
    """Go through the scorings and judge them. Pure: equal scorings give an equal answer.

    Args:
        contract: how the wanted one begins; "": that of the newest scoring that may promote.

    Raises:
        BadInput: no contract begins so, or several do.
    """
    rows = sorted(scorings, key=lambda s: s.job)
    contracts = tuple(dict.fromkeys(s.contract for s in rows if not s.bars))
    main = _main_contract(contracts, contract)
    noises = {c: noise_of(s for s in rows if s.contract == c) for c in {s.contract for s in rows}}
    found = _candidates([s if s.contract == main else _elsewhere(s) for s in rows])
    noise = noises.get(main, Noise(None, 0))
    floor: Candidate | None = None
    judged: list[Candidate] = []
    for one in (c for c in found if not c.standing.bars):
        told = judge(one.standing, floor.standing if floor is not None else None, noise.value)
        judged.append(replace(one, judged=told))
        if told.verdict is Verdict.PROMOTE:
            floor = judged[-1]
    for one in (c for c in found if c.standing.bars):
        told = judge(one.standing, _reference(floor, one, found), noises[one.contract].value)
        judged.append(replace(one, judged=told))
    final = [replace(c, is_floor=c is floor) for c in judged]
    final.sort(key=lambda c: (c.contract != main, c.contract, c.standing.value))
    best = next((c for c in final if c.is_floor), None)
    return Floor(view, main, best, noise, tuple(final), contracts, tuple(rows))


def noise_of(scorings: Iterable[Scoring]) -> Noise:
    """The largest spread of any submission that was scored twice or more, under one contract."""
    values: dict[str, list[float]] = {}
    for s in scorings:
        values.setdefault(s.bundle, []).append(s.value)
    spreads = [max(v) - min(v) for v in values.values() if len(v) > 1]
    return Noise(max(spreads, default=None), len(spreads))


def read_scorings(home: Home, conn: sqlite3.Connection, view: str, warnings: list[str]) -> list[Scoring]:
    """The committed scorings. A row that contradicts itself is left out, and `warnings` says so.

    Raises:
        BadInput: no such view, or cluster.yaml is broken.
    """
    if view not in VIEWS:
        raise BadInput(f"there is no view {view!r}", hint=f"there are: {', '.join(VIEWS)}")
    cluster = load(home.cluster_file)
    jobs = [j.id for j in query.jobs(conn, kind="score")]
    try:
        table = read_table(home, conn, _TABLE, jobs, warnings=warnings) if jobs else None
    except NotFound:
        table = None  # none of them succeeded, or nothing of it can be read: then `warnings` says so
    if table is None:
        return []
    out = []
    for row in table.to_pylist():
        try:
            out += _scoring(conn, cluster, row, view)
        except (NoScore, BadInput, KeyError, TypeError) as error:
            warnings.append(f"the scoring of job {row.get('job')} is left out: {_said(error)}")
    return out


def bars_of(conn: sqlite3.Connection, cluster: Cluster, job_id: int, attempt: int, lane: str) -> tuple[str, ...]:
    """Why what this attempt found may not promote, from what the journal says of it.

    The role is asked of the time when the attempt was placed. A job that needs the role was placed by it; a remote lane
    had earned it or not, as the journal says; a lane of this machine's has those that were declared then.
    """
    job = query.job(conn, job_id)
    bars = ["it read files that were not declared"] if job.undeclared else []
    needs = Needs.model_validate(query.spec_of(conn, job.spec)["needs"])
    if needs.role == _ROLE and not needs.admission:
        return tuple(bars)
    found = conn.execute("SELECT placed FROM attempt_state WHERE id = ?", (job_id * 4096 + attempt,)).fetchone()
    config = _as_declared(conn, cluster, lane, found[0] if found is not None else 0)
    if config is not None and not config.remote:
        has = _ROLE in config.roles
    else:
        said = conn.execute(_ADMITTED, (lane, _ROLE, found[0])).fetchone() if found is not None else None
        has = said is not None and bool(said[0])
    return (*bars, *(() if has else (f"lane {lane} had not the role {_ROLE}",)))


def _as_declared(conn: sqlite3.Connection, cluster: Cluster, lane: str, before: int) -> LaneConfig | None:
    """The lane as cluster.yaml had it at a time of the journal; as it has it now where the journal does not say."""
    said = conn.execute(_DECLARED, (lane, before)).fetchone()
    was = as_it_was(lane, json.loads(said[0])) if said is not None else None
    return was or next((c for c in cluster.lanes if c.name == lane), None)


def evaluators_apart(floor: Floor) -> str:
    """Which packages of the evaluators under the floor's contract differ, in a phrase; "" where none do."""
    seen: dict[str, dict[str, list[int]]] = {}
    for scoring in floor.scorings:
        if scoring.contract == floor.contract and not scoring.bars and scoring.evaluator:
            for name, version in scoring.evaluator:
                seen.setdefault(name, {}).setdefault(version, []).append(scoring.job)
    apart = {name: versions for name, versions in seen.items() if len(versions) > 1}
    return "; ".join(
        f"{name} " + ", ".join(f"{version} (job {_few(jobs)})" for version, jobs in sorted(versions.items()))
        for name, versions in sorted(apart.items())
    )


def read_rivals(path: Path) -> list[Rival]:
    """Rivals from a YAML file: a list of `{name: ..., score: ...}`, or that under `rivals:`. The best first.

    Raises:
        BadInput: it cannot be read, or an entry is none; with the file and which entry.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadInput(
            f"the rivals {path} cannot be read: {said}", hint="write YAML: - {name: NAME, score: 1.9}"
        ) from None
    listed = found.get("rivals") if isinstance(found, Mapping) and set(found) == {"rivals"} else found
    if not isinstance(listed, list):
        raise BadInput(f"{path} is no list of rivals", hint="write YAML: - {name: NAME, score: 1.9}")
    out: dict[str, Rival] = {}
    for n, entry in enumerate(listed, 1):
        if not isinstance(entry, Mapping) or set(entry) != {"name", "score"}:
            raise BadInput(f"{path}: rival {n} must have a name and a score, and nothing else", hint="correct it")
        name, score = str(entry["name"]), entry["score"]
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score) or score < 0:
            raise BadInput(f"{path}: the score of rival {n} ({name}) is {score!r}", hint="give a number of at least 0")
        if name in out:
            raise BadInput(f"{path}: the rival {name!r} is there twice", hint="keep one")
        out[name] = Rival(name, float(score))
    return sorted(out.values(), key=lambda r: (r.score, r.name))


def _scoring(conn: sqlite3.Connection, cluster: Cluster, row: Mapping[str, Any], view: str) -> list[Scoring]:
    size = row["archive_bytes"] if view == "archive" else row["faithful_bytes"]
    if size is None:
        return []  # frames made elsewhere have no such view
    value = Score(row["pose"], row["seg"], size, row["original_bytes"]).value
    written = row["score"] if view == "archive" else row["faithful_score"]
    if not abs(value - written) <= _FLOAT * max(1.0, value):
        raise BadInput(f"it says {written!r}, and its parts give {value!r}")
    authority = Authority.of(row["authority"])
    bars = bars_of(conn, cluster, row["job"], row["attempt"], row["lane"])
    if not authority.promotes:
        bars = (f"a {authority.word} value" + (f" ({row['why']})" if row["why"] else ""), *bars)
    elif bars:
        authority = Authority.SIDE
    job = query.job(conn, row["job"])
    name = job.name or str(job.params.get("archive") or "")
    return [
        Scoring(
            job=row["job"],
            name=name,
            lane=row["lane"],
            bundle=row["bundle_sha256"],
            contract=row["contract_sha256"],
            value=value,
            resolution=row["resolution"],
            bytes=size,
            authority=authority,
            bars=bars,
            evaluator=_evaluator(row),
        )
    ]


def _evaluator(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    python, packages = row.get("evaluator_python"), row.get("evaluator_packages")
    if python is None or packages is None:
        return ()
    return (("Python", str(python)), *((str(n), str(v)) for n, v in json.loads(packages).items()))


def _few(jobs: Sequence[int]) -> str:
    return f"{jobs[0]}" + (f" and {len(jobs) - 1} more" if len(jobs) > 1 else "")


def _elsewhere(scoring: Scoring) -> Scoring:
    """A scoring under another contract than the floor's ranks among its like."""
    if scoring.bars:
        return scoring
    return replace(scoring, bars=(f"another contract ({scoring.contract[:12]})",))


def _candidates(rows: Sequence[Scoring]) -> list[Candidate]:
    """Scorings of one submission put together: those that may promote, and apart from them those that rank."""
    groups: dict[tuple[str, str, bool], list[Scoring]] = {}
    for s in rows:
        groups.setdefault((s.bundle, s.contract, bool(s.bars)), []).append(s)
    out = []
    for (bundle, contract, _), some in groups.items():
        values = [s.value for s in some]
        bars = tuple(dict.fromkeys(bar for s in some for bar in s.bars))
        out.append(
            Candidate(
                bundle=bundle,
                contract=contract,
                name=some[-1].name,
                jobs=tuple(s.job for s in some),
                lanes=tuple(dict.fromkeys(s.lane for s in some)),
                standing=Standing(math.fsum(values) / len(values), max(s.resolution for s in some), bars),
                spread=max(values) - min(values) if len(values) > 1 else None,
                bytes=some[-1].bytes,
                authority=min(s.authority for s in some),
            )
        )
    return out


def _reference(floor: Candidate | None, one: Candidate, found: Sequence[Candidate]) -> Standing | None:
    """What the floor's own submission has under the contract of `one`."""
    if floor is None:
        return None
    same = [c for c in found if c.bundle == floor.bundle and c.contract == one.contract]
    if not same:
        return None
    return next((c for c in same if not c.standing.bars), same[0]).standing


def _main_contract(contracts: Sequence[str], asked: str) -> str:
    if not asked:
        return contracts[-1] if contracts else ""
    fits = [c for c in contracts if c.startswith(asked)]
    if len(fits) != 1:
        there = ", ".join(c[:12] for c in contracts) or "none"
        what = "several contracts begin" if fits else "no contract under which something may promote begins"
        raise BadInput(f"{what} with {asked!r}", hint=f"there are: {there}")
    return fits[0]


def _said(error: Exception) -> str:
    return f"it has no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
