"""What a claim says: read from a plain mapping (YAML, JSON, the journal), checked whole before it is believed.

A claim names jobs by role. Numbers are never typed: `{eval.fid}` in the statement is replaced by the row's value, with
the label beside it (see core.claims.numbers).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from core.claims.words import Rung
from core.errors import BadInput

SCHEMA = "lab.claim/1"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_SHA = re.compile(r"[0-9a-f]{64}")
# Roles with a meaning of their own; others may be cited too, and are held to what holds for every job.
SINGLE = ("data", "extractor", "train", "sample", "eval", "nn", "contract", "audit", "control", "summary")
SEEDS, SWEEP = "seeds", "sweep"
EVALS = ("eval", "control", SWEEP)


class Rule(StrEnum):
    """How the cited jobs were chosen among those that could have been."""

    ONLY = "only"  # there is one
    ALL = "all"  # all that the rule names are cited
    BEST = "best"  # the best of those that the rule names, by a number


@dataclass(frozen=True)
class Selection:
    """The rule by which the cited jobs were chosen.

    Attributes:
        over: parameter -> values that were considered, e.g. {"seed": (1, 2, 3)}.
        by: of rule best: the metric; lower: less of it is better.
    """

    rule: Rule = Rule.ONLY
    over: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    by: str = ""
    lower: bool = True


@dataclass(frozen=True)
class Comparison:
    """`a` is better than `b`, both references to numbers."""

    a: str
    b: str
    lower: bool = True


@dataclass(frozen=True)
class Note:
    """A sentence with a number of its own, and what that number is of: `eval.var / train.var`."""

    text: str
    of: str = ""


@dataclass(frozen=True)
class OpenItem:
    """A gate that was put off, or a decision that nobody took. `caps`: what the claim may be called meanwhile."""

    name: str
    why: str
    caps: Rung = Rung.EXPERIMENTAL


@dataclass(frozen=True)
class Scope:
    """What a claim covers, as people decided it."""

    current: str = ""
    deferred: tuple[OpenItem, ...] = ()
    open: tuple[OpenItem, ...] = ()
    closed: tuple[str, ...] = ()
    policy: str = ""


@dataclass(frozen=True)
class Margins:
    """How much is enough.

    Attributes:
        control: by what part the evaluation is better than the untrained control's (0.1: a tenth).
        memorisation: by how much samples may be nearer to the train split than held-out real images, in cosine.
    """

    control: float = 0.1
    memorisation: float = 0.02


@dataclass(frozen=True)
class Definition:
    """A claim as it was stated.

    Attributes:
        cites: role -> job id or the name of a job; of lists `sweep.0`, `seeds.1.train`.
        package: the study whose nodes must all have ended, or empty.
        nodes: the same as a list of jobs.
        knobs: parameters that the claim says have an effect.
        metric: by which the control is compared, less is better.
        contract, config: SHA-256 that the claim stands under, or empty.
    """

    name: str
    statement: str
    wants: Rung
    cites: Mapping[str, int | str]
    package: str = ""
    nodes: tuple[int | str, ...] = ()
    selection: Selection = Selection()
    knobs: tuple[str, ...] = ()
    metric: str = "fid"
    margins: Margins = Margins()
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[Note, ...] = ()
    scope: Scope = Scope()
    contract: str = ""
    config: str = ""

    def roles(self, of: str) -> list[str]:
        """Roles that are `of`, or of its list, in order: `eval`; `sweep.0`, `sweep.1`; `seeds.0.eval`."""
        return [r for r in self.cites if r == of or r.startswith(f"{of}.")]


def read(given: Any, where: str = "the claim") -> Definition:
    """The claim that a mapping states.

    Raises:
        BadInput: one sentence: what is wrong, where in `where`, and what to write.
    """
    names = {"schema", "name", "statement", "wants", "cites", "package", "nodes", "selection", "knobs", "metric"}
    names |= {"margins", "comparisons", "notes", "scope", "contract", "config"}
    top = _mapping(given, where, names)
    if top.get("schema", SCHEMA) != SCHEMA:
        raise BadInput(f"{where}: the schema is {top['schema']!r}", hint=f"write `schema: {SCHEMA}`")
    for needed in ("name", "statement", "wants", "cites"):
        if not top.get(needed):
            raise BadInput(f"{where}: a claim needs `{needed}`", hint="see `lab claim new --template`")
    name = _text(top["name"], f"{where}: name")
    if not NAME.fullmatch(name):
        raise BadInput(f"{where}: {name!r} cannot be the name of a claim", hint="use a-z, 0-9 and - _ .")
    package = _text(top.get("package", ""), f"{where}: package")
    nodes = tuple(_job(n, f"{where}: nodes") for n in _sequence(top.get("nodes", ()), f"{where}: nodes"))
    if package and nodes:
        raise BadInput(f"{where}: both package and nodes were given", hint="keep one: they say the same")
    return Definition(
        name=name,
        statement=" ".join(_text(top["statement"], f"{where}: statement").split()),
        wants=_rung(top["wants"], f"{where}: wants"),
        cites=_cites(top["cites"], f"{where}: cites"),
        package=package,
        nodes=nodes,
        selection=_selection(top.get("selection", {}), f"{where}: selection"),
        knobs=tuple(_text(k, f"{where}: knobs") for k in _sequence(top.get("knobs", ()), f"{where}: knobs")),
        metric=_text(top.get("metric", "fid"), f"{where}: metric"),
        margins=_margins(top.get("margins", {}), f"{where}: margins"),
        comparisons=tuple(_comparison(c, f"{where}: comparisons") for c in _list(top, "comparisons", where)),
        notes=tuple(_note(n, f"{where}: notes") for n in _list(top, "notes", where)),
        scope=_scope(top.get("scope", {}), f"{where}: scope"),
        contract=_sha(top.get("contract", ""), f"{where}: contract"),
        config=_sha(top.get("config", ""), f"{where}: config"),
    )


def _cites(given: Any, where: str) -> dict[str, int | str]:
    out: dict[str, int | str] = {}
    for role, what in _mapping(given, where, None).items():
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise BadInput(f"{where}: {role!r} cannot be a role", hint=f"roles are: {', '.join(SINGLE)}, seeds, sweep")
        if role == SEEDS:
            for n, each in enumerate(_sequence(what, f"{where}: {role}")):
                for own, job in _mapping(
                    each, f"{where}: {role}", {"train", "sample", "eval", "nn", "control"}
                ).items():
                    out[f"{role}.{n}.{own}"] = _job(job, f"{where}: {role}")
        elif isinstance(what, Sequence) and not isinstance(what, str):
            out.update({f"{role}.{n}": _job(job, f"{where}: {role}") for n, job in enumerate(what)})
        else:
            out[role] = _job(what, f"{where}: {role}")
    if not out:
        raise BadInput(f"{where}: no job is cited", hint="write `eval: 7`")
    return out


def _selection(given: Any, where: str) -> Selection:
    top = _mapping(given, where, {"rule", "over", "by", "lower"})
    word = top.get("rule", "only")
    if word not in set(Rule):
        raise BadInput(f"{where}: there is no rule {word!r}", hint=f"rules are: {', '.join(Rule)}")
    rule = Rule(word)
    over = {
        str(name): tuple(_sequence(values, f"{where}: over"))
        for name, values in _mapping(top.get("over", {}), f"{where}: over", None).items()
    }
    by = _text(top.get("by", ""), f"{where}: by")
    if (rule is Rule.BEST) != bool(by):
        raise BadInput(f"{where}: `by` says by what the best is found", hint="write `rule: best` and `by: fid`")
    if rule is not Rule.ONLY and not over:
        raise BadInput(f"{where}: rule {rule} needs what is chosen from", hint="write `over: {seed: [1, 2, 3]}`")
    return Selection(rule, over, by, _flag(top.get("lower", True), f"{where}: lower"))


def _margins(given: Any, where: str) -> Margins:
    top = _mapping(given, where, {"control", "memorisation"})
    control = _number(top.get("control", Margins.control), f"{where}: control")
    memorisation = _number(top.get("memorisation", Margins.memorisation), f"{where}: memorisation")
    if not 0 < control < 1:
        raise BadInput(f"{where}: control is {control:g}", hint="give a part between 0 and 1, such as 0.1")
    if not 0 <= memorisation <= 0.1:
        raise BadInput(f"{where}: memorisation is {memorisation:g}", hint="give a cosine from 0 to 0.1")
    return Margins(control, memorisation)


def _comparison(given: Any, where: str) -> Comparison:
    top = _mapping(given, where, {"a", "b", "lower"})
    if not top.get("a") or not top.get("b"):
        raise BadInput(f"{where}: a comparison needs a and b", hint="write {a: eval.fid, b: control.fid}")
    a, b = (_text(top[side], f"{where}: {side}") for side in ("a", "b"))
    return Comparison(a, b, _flag(top.get("lower", True), f"{where}: lower"))


def _note(given: Any, where: str) -> Note:
    if isinstance(given, str):
        return Note(" ".join(given.split()))
    top = _mapping(given, where, {"text", "of"})
    if not top.get("text"):
        raise BadInput(f"{where}: a note needs its text", hint="write {text: ..., of: eval.fid / control.fid}")
    return Note(" ".join(_text(top["text"], where).split()), _text(top.get("of", ""), where))


def _scope(given: Any, where: str) -> Scope:
    top = _mapping(given, where, {"current", "deferred", "open", "closed", "policy"})
    return Scope(
        current=_text(top.get("current", ""), f"{where}: current"),
        deferred=tuple(_open(o, f"{where}: deferred") for o in _list(top, "deferred", where)),
        open=tuple(_open(o, f"{where}: open") for o in _list(top, "open", where)),
        closed=tuple(_text(c, f"{where}: closed") for c in _list(top, "closed", where)),
        policy=_text(top.get("policy", ""), f"{where}: policy"),
    )


def _open(given: Any, where: str) -> OpenItem:
    if isinstance(given, str):
        return OpenItem(given, "")
    top = _mapping(given, where, {"name", "why", "caps"})
    if not top.get("name"):
        raise BadInput(f"{where}: an item needs a name", hint="write {name: ..., why: ...}")
    caps = _rung(top.get("caps", Rung.EXPERIMENTAL), f"{where}: caps")
    if caps is Rung.PAPER_FAITHFUL:
        raise BadInput(f"{where}: what is open cannot cap at {caps}", hint="give a lower rung, or leave `caps` out")
    return OpenItem(_text(top["name"], where), _text(top.get("why", ""), where), caps)


# Plain values.


def _mapping(given: Any, where: str, names: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise BadInput(f"{where} must be a mapping (name: value), not {given!r}", hint="see `lab claim new --template`")
    for name in given:
        if names is not None and name not in names:
            import difflib

            near = difflib.get_close_matches(str(name), sorted(names), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(sorted(names))}"
            raise BadInput(f"{where} has no setting `{name}`", hint=hint)
    return given


def _sequence(given: Any, where: str) -> Sequence[Any]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BadInput(f"{where} must be a list, not {given!r}", hint="write [1, 2]")
    return given


def _list(top: Mapping[str, Any], name: str, where: str) -> Sequence[Any]:
    return _sequence(top.get(name) or (), f"{where}: {name}")


def _job(given: Any, where: str) -> int | str:
    if isinstance(given, bool) or not isinstance(given, int | str) or not given:
        raise BadInput(f"{where}: {given!r} is no job", hint="give an id such as 17, or a job's name")
    if isinstance(given, int) and given < 1:
        raise BadInput(f"{where}: {given} is no job id", hint="ids begin with 1")
    return int(given) if isinstance(given, str) and given.isdigit() else given


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str | Rung):
        raise BadInput(f"{where} must be text, not {given!r}", hint="put it in quotes")
    return str(given).strip()


def _number(given: Any, where: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise BadInput(f"{where} must be a number, not {given!r}")
    return float(given)


def _flag(given: Any, where: str) -> bool:
    if not isinstance(given, bool):
        raise BadInput(f"{where} must be true or false, not {given!r}")
    return given


def _sha(given: Any, where: str) -> str:
    text = _text(given, where)
    if text and not _SHA.fullmatch(text):
        raise BadInput(f"{where}: {text!r} is no SHA-256", hint="give 64 hexadecimal digits, or leave it out")
    return text


def _rung(given: Any, where: str) -> Rung:
    if given not in set(Rung):
        raise BadInput(f"{where}: there is no label {given!r}", hint=f"labels are: {', '.join(Rung)}")
    return Rung(given)
