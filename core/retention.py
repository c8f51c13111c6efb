"""How much a home may keep: what people said of it in cluster.yaml or as options, each word checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from core.errors import BadInput

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B)?", re.IGNORECASE)
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_AGES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LIMITS = ("bytes", "jobs", "age")


@dataclass(frozen=True)
class Quota:
    """One limit.

    Attributes:
        kind: of job; empty: of the whole home.
        limit: one of `LIMITS`.
        most: bytes, jobs that keep their run directory, or the age in seconds of the oldest of them.
        where: file and line, or the option, that says so.
    """

    kind: str
    limit: str
    most: float
    where: str = ""


@dataclass(frozen=True)
class Retention:
    """Everything that was said; None: nothing was, and the command's own value stands.

    Attributes:
        older_than_s: age of attempts that did not succeed, and of batches.
        results_older_than_s: age of results of succeeded jobs.
        keep_last: so many of the newest finished jobs are left alone.
        keep_answers: jobs stay that answer the cache.
    """

    older_than_s: float | None = None
    results_older_than_s: float | None = None
    keep_last: int | None = None
    keep_answers: bool | None = None
    quotas: tuple[Quota, ...] = ()

    def with_quotas(self, more: tuple[Quota, ...]) -> Retention:
        """`more` take the place of those that limit the same."""
        said = {(q.kind, q.limit): q for q in (*self.quotas, *more)}
        return replace(self, quotas=tuple(said.values()))


def size_bytes(text: str) -> int | None:
    """Bytes: `200G`, `1.5GiB`, `4096`; powers of 1024. None: it is no size."""
    found = _SIZE.fullmatch(text.strip())
    return round(float(found[1]) * _SIZES[found[2].lower()]) if found else None


def age_seconds(text: str) -> float | None:
    """Seconds: `90d`, `12h`, `2w`. None: it is no age."""
    found = _AGE.fullmatch(text.strip())
    return float(found[1]) * _AGES[found[2]] if found else None


def quota(kind: str, limit: str, text: str, where: str) -> Quota:
    """The limit that the words say.

    Args:
        where: file and line, or the option: errors begin with it.

    Raises:
        BadInput: there is no such limit, or not for the home; or `text` is no value of it.
    """
    whose = f"of kind {kind}" if kind else "of the home"
    known = LIMITS if kind else LIMITS[:1]
    if limit not in known:
        hint = f"there are: {', '.join(known)}" if kind else "the home has `bytes`; a kind has bytes, jobs and age"
        raise BadInput(f"{where}: there is no limit `{limit}` {whose}", hint=hint)
    most: float | None
    if limit == "bytes":
        most, example = size_bytes(text), "200G"
    elif limit == "age":
        most, example = age_seconds(text), "90d"
    else:
        most, example = (float(text) if text.isdecimal() else None), "20"
    if most is None:
        raise BadInput(f"{where}: `{limit}` {whose} is {text!r}", hint=f"write it as {limit}: {example}")
    return Quota(kind, limit, most, where)


def quota_word(word: str, option: str = "--quota") -> Quota:
    """`bytes=200G` for the home, `KIND:bytes=50G`, `KIND:jobs=20` or `KIND:age=90d`. Raises BadInput."""
    name, equals, text = word.partition("=")
    kind, colon, limit = name.rpartition(":")
    if not equals or (colon and not kind):
        raise BadInput(f"{option} {word!r} is no limit", hint="write bytes=200G, or KIND:jobs=20, KIND:age=90d")
    return quota(kind, limit, text, f"{option} {word}")
