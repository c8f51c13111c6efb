"""What a job is: the frozen spec that a submit writes, and the key that says when two jobs are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.fsio import canonical, digest
from core.states import Cause

_NO_PARAMETERS = b'"parameters":{}}'


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Needs(_Frozen):
    """What an attempt occupies on its lane while it runs.

    Attributes:
        cores: CPU cores, also the number of threads that numerical libraries are told to use.
        memory_mb: resident memory in MiB; above it the attempt is killed. None: not limited, not counted.
        gpus: whole GPUs; the attempt sees exactly these.
        disk_mb: free disk in MiB that the lane must have at the start.
        resources: exclusive names; on one lane two attempts never hold the same one at once.
        lane: only this lane will do.
        role: what the lane must be admitted for.
        admission: it is a step of the ladder of `lane`, which need not be admitted yet.
    """

    cores: int = Field(1, ge=1, le=4096)
    memory_mb: int | None = Field(None, ge=16)
    gpus: int = Field(0, ge=0, le=64)
    disk_mb: int = Field(0, ge=0)
    resources: tuple[str, ...] = ()
    lane: str | None = None
    role: Literal["eval", "train", "sweep", "promote"] = "eval"
    admission: bool = False

    @property
    def device(self) -> str:
        """The requested device class: part of the key (what was realised is in the attempt)."""
        return "cuda" if self.gpus else "cpu"


class Limits(_Frozen):
    """How long, and how patiently ended.

    Attributes:
        time_s: seconds from the start of the child; None: unlimited.
        grace_s: seconds between the warn signal (SIGTERM) and SIGKILL for everything.
        setup_s: seconds that the working folder may take, apart from `time_s`.
    """

    time_s: float | None = Field(None, gt=0)
    grace_s: float = Field(10.0, ge=0)
    setup_s: float = Field(600.0, gt=0)


class Made(_Frozen):
    """Where an input comes from that another job makes.

    Attributes:
        key: of that job.
        file: below its artifacts/; empty: all of it.
        optional: where that job did not succeed, the input is absent.
        label: what that job was called at the submit, for people; not in any key.
    """

    key: str
    file: str = ""
    optional: bool = False
    label: str = ""


class InputFile(_Frozen):
    """One declared input, by content. `lane`: it lies there, at `path` on that lane, and was hashed there.

    One that another job makes (`made`) has neither path nor digest until an attempt starts: see lanes.freeze.
    """

    name: str
    path: str  # absolute, on the head (or on `lane`)
    dest: str | None = None  # below work/, or None: only below inputs/
    sha256: str
    size: int
    tree: bool = False  # a folder: sha256 is over its sorted listing of names and digests
    lane: str | None = None
    made: Made | None = None


class CodeRef(_Frozen):
    """A snapshot of code in the home's store."""

    digest: str  # of what counts for the key
    store: str  # name of the folder under code/
    root: str = ""  # where it was taken from, for people
    subdir: str = ""  # where in it the submit was made
    commit: str | None = None
    dirty: bool = False


class Expectation(_Frozen):
    rows: dict[str, int] = {}
    last_step: int | None = None
    artifacts: tuple[str, ...] = ()


class JobSpec(_Frozen):
    """Everything of a submit but the parameters, which differ from cell to cell of a sweep.

    `retries` holds the user's bounds by cause; causes that it does not name have DEFAULT_RETRIES.
    """

    kind: str
    entry: str  # module:Class
    version: int = 1
    inputs: tuple[InputFile, ...] = ()
    code: CodeRef | None = None  # the user's code (kinds with user_code)
    kind_code: CodeRef  # our packages and the kind's own
    packages: dict[str, str] = {}
    python: str
    needs: Needs = Needs()
    limits: Limits = Limits()
    env: dict[str, str] = {}
    path: str = ""  # the submitter's PATH: `python` means the one that they meant; not in the key
    outputs: tuple[str, ...] = ()
    expect: Expectation = Expectation()
    retries: dict[Cause, int] = {}
    allow_undeclared: tuple[str, ...] = ()
    on_unreachable: str = "wait"
    argv: tuple[str, ...] = ()  # the submit's own command line, for people

    @field_validator("on_unreachable")
    @classmethod
    def _wait_or_requeue(cls, value: str) -> str:
        if value != "wait" and not value.startswith("requeue-after:"):
            raise ValueError("must be `wait` or `requeue-after:DURATION`")
        return value


def key_parts(spec: JobSpec | dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What makes a job itself and no other, part by part (so that `lab explain` can name the one that differs)."""
    s = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
    return {
        "kind": f"{s['kind']} v{s['version']}",
        "parameters": params,
        "inputs": {i["name"]: _identity(i) for i in s["inputs"]},
        "code": [s["code"]["digest"], s["code"]["subdir"]] if s["code"] else None,
        "kind code": s["kind_code"]["digest"],
        "packages": s["packages"],
        "device": "cuda" if s["needs"]["gpus"] else "cpu",
        "environment": s["env"],
        "outputs": sorted(s["outputs"]),
    }


def _identity(item: dict[str, Any]) -> list[Any]:
    """What an input is: its bytes; or, where a job of known key makes it, that job and the file."""
    made = item.get("made")
    if not made:
        return [item["sha256"], item["dest"]]
    return [made["key"], item["dest"], made["file"], "any" if made["optional"] else "ok"]


def key_of(spec: JobSpec | dict[str, Any], params: dict[str, Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of `key_parts`."""
    return digest(key_parts(spec, params))


class Keys:
    """`key_of` for many jobs that differ in their parameters alone: what they share is hashed once."""

    def __init__(self, spec: JobSpec | dict[str, Any]) -> None:
        # Names are sorted, and "parameters" comes last.
        whole = canonical(key_parts(spec, {}))
        assert whole.endswith(_NO_PARAMETERS)
        self._start = hashlib.sha256(whole[: -len(b"{}}")])

    def of(self, params: bytes) -> str:
        """The key of the job whose parameters have this canonical JSON."""
        found = self._start.copy()
        found.update(params)
        found.update(b"}")
        return found.hexdigest()


def sweep_key(keys: Iterable[str]) -> str:
    """What makes a sweep itself and no other: which jobs it is made of, in whatever order."""
    found = hashlib.sha256(b"sweep")
    for key in sorted(keys):
        found.update(bytes.fromhex(key))
    return found.hexdigest()


def differing_parts(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Sentences such as "parameter alpha: 20 here, 10 there", one per difference between two `key_parts`."""
    out: list[str] = []
    for part, value in mine.items():
        theirs = other.get(part)
        if value == theirs:
            continue
        if isinstance(value, dict) and isinstance(theirs, dict):
            word = {"parameters": "parameter", "inputs": "input", "packages": "package", "environment": "variable"}[
                part
            ]
            for name in sorted(value.keys() | theirs.keys()):
                if value.get(name) != theirs.get(name):
                    out.append(f"{word} {name}: {_short(value.get(name))} here, {_short(theirs.get(name))} there")
        else:
            out.append(f"{part}: {_short(value)} here, {_short(theirs)} there")
    return out


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list) and value and isinstance(value[0], str) and len(value[0]) == 64:
        return value[0][:12]
    text = str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:12]
    return text if len(text) <= 60 else text[:57] + "..."
