"""A claim in words: each number followed by the label, and why it has that label."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.claims.evidence import Evidence
from core.claims.numbers import PLACEHOLDER, NoNumber, Number, evaluate
from core.claims.words import Label, Outcome
from lab.claims.evaluation import Evaluated


def sentence(evaluated: Evaluated) -> str:
    """The statement with its numbers, each with the label beside it."""
    return fill(evaluated.evidence, evaluated.claim.statement, evaluated.label.word)


def notes(evaluated: Evaluated) -> list[str]:
    """The notes, in the same way; a note's own number has the label at the end."""
    return [
        f"{fill(evaluated.evidence, note.text, evaluated.label.word)} [{evaluated.label.word}]"
        if note.of
        else fill(evaluated.evidence, note.text, evaluated.label.word)
        for note in evaluated.claim.notes
    ]


def fill(evidence: Evidence, text: str, word: str) -> str:
    """`text` with its placeholders filled: `12.30 [experimental]`; what leads to no number is `? [...]`."""

    def number(found: re.Match[str]) -> str:
        try:
            return f"{evaluate(evidence, found[1]).text} [{word}]"
        except NoNumber:
            return f"? [{word}]"

    return PLACEHOLDER.sub(number, text)


def numbers(evaluated: Evaluated) -> Iterator[tuple[str, Number | None, str]]:
    """(reference, the number, why there is none) of each placeholder of the statement."""
    for expression in dict.fromkeys(PLACEHOLDER.findall(evaluated.claim.statement)):
        try:
            yield expression, evaluate(evaluated.evidence, expression), ""
        except NoNumber as error:
            yield expression, None, str(error)


def verdict(label: Label) -> str:
    """The label and what decided it, in one sentence."""
    if label.reached:
        return f"{label.word}: every gate allows what it wants"
    why = "; ".join(f"{f.gate}: {f.reason}" for f in label.by[:1])
    what = {
        Outcome.REFUSED: "refused",
        Outcome.DEFERRED: f"{label.rung}, {label.wants} is deferred",
    }.get(label.outcome, f"{label.rung}, not {label.wants}")
    more = f" (and {len(label.by) - 1} more)" if len(label.by) > 1 else ""
    return f"{what}, by {why}{more}"


def demoted(evaluated: Evaluated) -> str:
    """Why the label is lower than it was, in one sentence; empty where it is not."""
    label = evaluated.label
    if label.demoted_from is None or evaluated.evidence.earlier is None:
        return ""
    now = str(label.rung) if label.rung is not None else "refused"
    changes = [c.said() for c in label.changed if not c.what.startswith("table ")] or [c.said() for c in label.changed]
    why = "; ".join(changes[:4]) + (f"; and {len(changes) - 4} more" if len(changes) > 4 else "")
    gates = ", ".join(str(f.gate) for f in label.by[:4])
    said = why or "nothing that it cites has changed, but what else there is has"
    return f"demoted: was {label.demoted_from} (event {evaluated.evidence.earlier.seq}), is {now} by {gates}: {said}"
