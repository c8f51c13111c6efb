"""Reads what the nodes of a drift study left, and keeps count of those that left nothing, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.drift_kinds.summary import DriftSummaryParams, NodeWords

SUCCEEDED = "succeeded"
HELD = "held"


@dataclass(frozen=True)
class Value:
    """One number of a node.

    Attributes:
        control: "" of a trained model's samples, untrained, or held (real images stand in for samples).
    """

    metric: str
    value: float
    std: float | None = None
    n: int | None = None
    control: str = ""
    alpha: float | None = None
    contract: str = ""
    samples: str = ""


@dataclass(frozen=True)
class Told:
    """A node: what was planned of it, how it ended, and its numbers.

    Attributes:
        unconditional: of a training: its unconditional negatives; None: it says nothing of them.
        picture: of samples.
        profile: of an extractor, as its contract says.
    """

    words: NodeWords
    state: str
    reason: str
    values: tuple[Value, ...] = ()
    unconditional: int | None = None
    picture: Path | None = None
    profile: str = ""

    @property
    def good(self) -> bool:
        return self.state == SUCCEEDED


def gather(ctx: Context, params: DriftSummaryParams) -> tuple[Told, ...]:
    """Every planned node, in the order of the plan.

    Raises:
        BadInput: a file is none of its kind, or speaks of another alpha or control than its node.
    """
    return tuple(_told(ctx, words) for words in params.nodes)


def _told(ctx: Context, words: NodeWords) -> Told:
    if not ctx.has_input(words.node):
        state, reason = _ended(ctx, words.node)
        return Told(words, state, reason)
    path = ctx.input(words.node)
    if words.role == "sample":
        return Told(words, SUCCEEDED, "", picture=path)
    read = _document(path)
    if words.role == "train":
        recipe = read.get("recipe")
        free = recipe.get("unconditional") if isinstance(recipe, dict) else None
        return Told(words, SUCCEEDED, "", unconditional=free if isinstance(free, int) else None)
    if words.role == "extractor":
        payload = read.get("payload")
        return Told(words, SUCCEEDED, "", profile=str(payload.get("profile")) if isinstance(payload, dict) else "")
    if words.role == "eval":
        return Told(words, SUCCEEDED, "", _evaluated(path, read, words))
    if words.role == "nn":
        return Told(words, SUCCEEDED, "", _nearest(path, read))
    return Told(words, SUCCEEDED, "", _checks(read) if words.role in ("contract", "audit") else ())


def _ended(ctx: Context, name: str) -> tuple[str, str]:
    """(state, reason) of a node whose file is absent, as the lane was told."""
    for item in ctx.raw.get("absent") or ():
        if item.get("name") == name:
            made = item.get("made") or {}
            return str(made.get("state") or "failed"), str(made.get("why") or "its job did not succeed")
    return "failed", f"its job did not succeed: the input {name} is absent"


def _evaluated(path: Path, read: Mapping[str, Any], words: NodeWords) -> tuple[Value, ...]:
    out = []
    for row in _rows(path, read):
        control = str(row.get("control") or "")
        if control != HELD:
            if control != words.control:
                raise BadInput(
                    f"{path} is of control={control!r}, and the node {words.node} of {words.control!r}",
                    hint="give the evaluation of this node",
                )
            if words.alpha is not None and row.get("alpha") != words.alpha:
                raise BadInput(
                    f"{path} is of alpha {row.get('alpha')}, and the node {words.node} of {words.alpha:g}",
                    hint="give the evaluation of this node",
                )
        out.append(
            Value(
                metric=str(row.get("metric")),
                value=_number(row.get("value")),
                std=None if row.get("std") is None else _number(row["std"]),
                n=row.get("n"),
                control=control,
                alpha=row.get("alpha"),
                contract=str(row.get("contract") or ""),
                samples=str(row.get("samples") or ""),
            )
        )
    return tuple(out)


def _nearest(path: Path, read: Mapping[str, Any]) -> tuple[Value, ...]:
    out = []
    for row in _rows(path, read):
        of = "" if row.get("which") == "samples" else HELD
        out += [
            Value(f"nn_{name}", _number(row.get(name)), n=row.get("n"), control=of, samples=str(row.get("samples")))
            for name in ("mean", "median", "p95", "label_match", "copies")
        ]
    return tuple(out)


def _checks(read: Mapping[str, Any]) -> tuple[Value, ...]:
    """How many checks there were, and how many failed; of a job that succeeded none did."""
    found = read.get("checks")
    if not isinstance(found, list):
        return ()
    wrong = sum(not (isinstance(row, dict) and row.get("passed") is True) for row in found)
    return (Value("checks", float(len(found))), Value("checks_failed", float(wrong)))


def _rows(path: Path, read: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = read.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path} has no rows", hint="give what drift-eval or drift-nn made")
    return rows


def _document(path: Path) -> Mapping[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint="give the file that its job made") from None
    if not isinstance(read, dict):
        raise BadInput(f"{path} holds no JSON object", hint="give the file that its job made")
    return read


def _number(value: Any) -> float:
    """A number, or nan, which is listed and counted as lost."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good else math.nan
