"""The gate on what is said: every number comes from a row, or is what the rows give; a summary says what rows say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.claims.evidence import Cited, Evidence
from core.claims.magnitudes import Unit, Written, agrees, written
from core.claims.numbers import PLACEHOLDER, NoNumber, evaluate
from core.claims.words import Finding, Gate, missing, passed, refused, worst

_SMALL = 100  # whole numbers below it count things (3 seeds, 8×8 pixels) unless a metric stands before them
_BEFORE = re.compile(r"([A-Za-z_][\w@]*)[\s:=≈~<>()]*(?:of|is|at|was|reaches|to)?[\s:=≈~<>(]*$")


def statement(evidence: Evidence) -> Finding:
    """No number of the text is loose, stale or wrong by a magnitude."""
    gate = Gate.STATEMENT
    found = [*_placeholders(evidence), *_text(evidence, evidence.claim.statement)]
    for note in evidence.claim.notes:
        if note.of:
            found += _note(evidence, note.text, note.of)
        else:
            found += _text(evidence, note.text)
    for summary in evidence.all("summary"):
        found += _summary(evidence, summary)
    count = len(PLACEHOLDER.findall(evidence.claim.statement))
    return worst(
        found, passed(gate, f"{count} numbers of the statement are taken from rows, none is loose", numbers=count)
    )


def _placeholders(evidence: Evidence) -> Iterator[Finding]:
    for text in (evidence.claim.statement, *(n.text for n in evidence.claim.notes)):
        for expression in PLACEHOLDER.findall(text):
            try:
                evaluate(evidence, expression)
            except NoNumber as error:
                jobs = (error.job,) if error.job is not None else ()
                yield missing(Gate.STATEMENT, str(error), jobs)


def _text(evidence: Evidence, text: str) -> Iterator[Finding]:
    """Numbers that are written out: each must be one of the evidence."""
    plain = PLACEHOLDER.sub(lambda m: " " * len(m[0]), text)
    for number in written(plain):
        metric = _metric_before(evidence, plain[: number.start])
        if metric is not None:
            name, values = metric
            if not any(number.is_(v) for v in values):
                said = ", ".join(f"{v:.6g}" for v in sorted(set(values))[:3])
                yield refused(
                    Gate.STATEMENT, f"the text says {name} {number.text}, and the rows say {said}: it is stale"
                )
        elif number.unit in (Unit.FOLD, Unit.ORDERS, Unit.PERCENT):
            said = f"the text says {number.text} and not of what: write it as a note with `of: A / B`"
            yield refused(Gate.STATEMENT, said)
        elif not _may_stand(evidence, number):
            yield refused(Gate.STATEMENT, f"the text says {number.text}, which no cited row or parameter does")


def _metric_before(evidence: Evidence, before: str) -> tuple[str, list[float]] | None:
    """The metric whose name stands before a number, with its values in the cited evaluations."""
    found = _BEFORE.search(before)
    if found is None:
        return None
    word = _name(found[1])
    rows = [
        r
        for c in evidence.cited
        for r in c.metrics()
        if word in (_name(str(r["metric"])), _name(str(r["metric"]).removesuffix("_mean")))
    ]
    return (found[1], [float(r["value"]) for r in rows if _finite(r["value"])]) if rows else None


def _name(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _may_stand(evidence: Evidence, number: Written) -> bool:
    if number.plain and number.value < _SMALL:
        return True
    return any(number.is_(v) for c in evidence.cited for v in _numbers_of(c))


def _numbers_of(cited: Cited) -> Iterator[float]:
    yield from _plain_numbers(cited.params)
    for document in (cited.documents.get("config.json"), cited.documents.get("data.json")):
        yield from _plain_numbers(document)
    for row in (*cited.metrics(), *cited.rows("p95")):
        yield from _plain_numbers(row)


def _plain_numbers(value: Any) -> Iterator[float]:
    if _finite(value):
        yield float(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _plain_numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _plain_numbers(each)


def _note(evidence: Evidence, text: str, of: str) -> Iterator[Finding]:
    """A note that says of what its number is: recomputed."""
    plain = PLACEHOLDER.sub(lambda m: " " * len(m[0]), text)
    try:
        number = evaluate(evidence, of)
    except NoNumber as error:
        yield missing(Gate.STATEMENT, f"the note {text!r}: {error}", (error.job,) if error.job is not None else ())
        return
    found = list(written(plain))
    judged = (
        [w for w in found if w.unit is not Unit.PLAIN]
        or [w for w in found if not (w.plain and w.value < _SMALL)]
        or found
    )
    if not judged and not PLACEHOLDER.search(text):
        yield missing(Gate.STATEMENT, f"the note {text!r} has no number that could be compared with {of}")
    for one in judged:
        if not agrees(one, number.value, plain):
            jobs = tuple(dict.fromkeys(s.job for s in number.sources))
            said = f"the note says {one.text}, and {of} is {number.value:.4g}"
            yield refused(Gate.STATEMENT, said + _off(one, number.value), jobs, stated=one.value, found=number.value)


def _off(one: Written, value: float) -> str:
    """By how many orders of magnitude, where it is one or more."""
    if one.unit is Unit.ORDERS or one.value <= 0 or value <= 0:
        return ""
    orders = math.log10(value / one.value)
    return f" (wrong by a factor of 10^{round(orders)})" if abs(orders) >= 1 else ""


def _summary(evidence: Evidence, summary: Cited) -> Iterator[Finding]:
    """What a summary repeats of cited evaluations must be what their rows say now."""
    gate, jobs = Gate.STATEMENT, (summary.job,)
    rows = summary.metrics()
    if not rows and not summary.documents:
        yield missing(gate, f"the summary (job {summary.job}) has no rows", jobs)
        return
    makers = {t.maker for t in summary.taken}
    main = evidence.of("eval")
    if main is not None and makers and main.job not in makers:
        said = f"the summary (job {summary.job}) was not made of job {main.job} (eval): it is of other results"
        yield missing(gate, said, (summary.job, main.job))
    told = [*rows, *_told(summary.documents.get("summary.json"))]
    for judged in [c for c in evidence.judged if c.job in makers or not makers]:
        for row in judged.metrics():
            if row.get("control") == "held" or str(row["metric"]).endswith("_floor") or not _finite(row["value"]):
                continue
            same = [t for t in told if _same_row(t, row, judged)]
            odd = [t for t in same if not _close(t.get("value"), row["value"])]
            # Without a node's name others may look alike: then one that fits is enough.
            if any(t.get("node") for t in odd) or (odd and len(odd) == len(same)):
                said = f"the summary (job {summary.job}) says {row['metric']} = {odd[0].get('value')!r} of job "
                said += f"{judged.job}, whose row says {row['value']:.6g}: it is stale"
                yield refused(gate, said, (summary.job, judged.job))
                return


def _same_row(told: Mapping[str, Any], row: Mapping[str, Any], judged: Cited) -> bool:
    """Does a summary's row speak of this row? By the name of its node; without one by all that both say."""
    if told.get("metric") != row["metric"]:
        return False
    node = told.get("node")
    if node:
        return str(node) in (judged.name, judged.name.rpartition("/")[2])
    same = ("seed", "alpha", "n", "control", "contract", "samples")
    return all(told[c] == row[c] for c in same if told.get(c) is not None and row.get(c) is not None)


def _told(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, Mapping):
        if "metric" in document and "value" in document:
            yield document
        for value in document.values():
            yield from _told(value)
    elif isinstance(document, list):
        for value in document:
            yield from _told(value)


def _close(a: Any, b: float) -> bool:
    return _finite(a) and math.isclose(float(a), b, rel_tol=1e-9, abs_tol=1e-12)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
