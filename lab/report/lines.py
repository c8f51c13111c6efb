"""The command that makes a job, as one can paste it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from core.errors import LabError
from core.journal.query import Job
from core.kind import load_kind

_LIVE = re.compile(r"[\"$`\\!\n]")  # what a shell reads within double quotes
_OF_MANY = ("--file", "-f", "--sweep")
_NEEDS = {"cores": "--cores", "gpus": "--gpus", "lane": "--lane", "role": "--role"}
_PLAIN_NEEDS = {"cores": 1, "gpus": 0, "role": "eval"}


def joined(words: Sequence[str]) -> str:
    """Words as a shell reads them, quoted no more than they must be."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if "'" in word and not _LIVE.search(word):
        return f'"{word}"'
    return shlex.quote(word)


def typed(spec: Mapping[str, Any]) -> str:
    """What was typed when the job was submitted, with all that was submitted by it; empty: it was not typed."""
    argv = [str(word) for word in spec.get("argv") or ()]
    return joined(argv) if len(argv) > 1 and argv[0] == "lab" else ""


def own(job: Job, spec: Mapping[str, Any], known: dict[str, dict[str, Any]], *, study: str = "") -> str:
    """One line that makes this very job.

    What was typed, where that was for this job alone. Else it is put together from its kind, parameters, needs and
    inputs; and where it takes files that another job makes, which no line can say, it is run again by its id.

    Args:
        known: the plain values of parameters by kind, kept from call to call.
        study: of which it is a node, or empty.
    """
    said = typed(spec)
    words = [str(word) for word in spec.get("argv") or ()]
    if said and job.sweep is None and not study and not any(w.partition("=")[0] in _OF_MANY for w in words):
        return said
    if (
        job.is_sweep
        or any(i.get("made") for i in spec.get("inputs") or ())
        or (spec.get("needs") or {}).get("admission")
    ):
        return f"lab rerun {job.id}"
    return joined(["lab", "submit", job.kind, *_asked(job, spec, known)])


def _asked(job: Job, spec: Mapping[str, Any], known: dict[str, dict[str, Any]]) -> list[str]:
    params = dict(job.params)
    program: Sequence[str] = params.pop("argv", ()) or () if job.kind == "command" else ()
    if job.kind not in known:
        known[job.kind] = _plain(job.kind)
    plain = known[job.kind]
    out: list[str] = []
    for name, value in params.items():
        if name not in plain or plain[name] != value:
            out += ["--set", f"{name}={_word(value)}"]
    needs, limits = spec.get("needs") or {}, spec.get("limits") or {}
    for name, option in _NEEDS.items():
        if needs.get(name) is not None and needs[name] != _PLAIN_NEEDS.get(name):
            out += [option, str(needs[name])]
    if needs.get("memory_mb"):
        out += ["--memory", f"{needs['memory_mb']}M"]
    for name in needs.get("resources") or ():
        out += ["--resource", str(name)]
    if limits.get("time_s"):
        out += ["--time-limit", f"{limits['time_s']:g}s"]
    inputs = spec.get("inputs") or ()
    declared = _declared(job) if inputs else frozenset()
    for item in inputs:
        if item["name"] in declared:
            continue
        where = f"{item['lane']}:{item['path']}" if item.get("lane") else item["path"]
        out += ["--input", f"{item['name']}={where}" + (f":{item['dest']}" if item.get("dest") else "")]
    for name in spec.get("env") or {}:
        out += ["--env", str(name)]
    for name in spec.get("outputs") or ():
        out += ["--output", str(name)]
    expect = spec.get("expect") or {}
    for name in expect.get("artifacts") or ():
        out += ["--expect-artifact", str(name)]
    if expect.get("last_step") is not None:
        out += ["--expect-step", str(expect["last_step"])]
    return [*out, "--", *map(str, program)] if program else out


def _declared(job: Job) -> frozenset[str]:
    """Names of inputs that follow from the parameters: the kind declares them by itself.

    Where the kind is not there (any more), or does not take these parameters, those that are called as one of them.
    """
    try:
        kind = load_kind(job.kind)
        return frozenset(kind.inputs(kind.Params.model_validate(job.params)))
    except (LabError, ValueError):
        return frozenset(name for name, value in job.params.items() if isinstance(value, str))


def _plain(kind: str) -> dict[str, Any]:
    """The values that parameters have when nobody says anything; empty where the kind is not there (any more)."""
    try:
        fields = load_kind(kind).Params.model_fields
    except LabError:
        return {}
    out = {}
    for name, info in fields.items():
        if not info.is_required():
            value = info.get_default(call_default_factory=True)
            out[name] = json.loads(json.dumps(value, default=str))
    return out


def _word(value: Any) -> str:
    """A value as `--set` reads it: YAML in one line."""
    if isinstance(value, str) and value and yaml.safe_load(value) == value and "\n" not in value:
        return value
    return json.dumps(value, ensure_ascii=False)
