"""Parts of trees that both drift studies have: data and judge, a training, samples of it with all that judges them.

Each part writes down what it planned, so that the summary can list a node that never delivered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.study import Node, Study
from jobs.drift_kinds.names import CONTRACT_AUDIT, DATA, EVAL, EVALUATION, EXTRACTOR, NEAREST_SAID, NN, SAMPLE, TRAIN
from jobs.drift_kinds.sample import PREVIEW
from jobs.drift_kinds.source import SourceParams
from jobs.drift_kinds.train import CONFIG

CORE = {"cores": 1}
_AUDITED = "audit.json"
# The file of each role that the summary reads.
FILES = {
    "data": "data.json",
    "extractor": "contract.json",
    "train": CONFIG,
    "sample": PREVIEW,
    "eval": EVALUATION,
    "nn": NEAREST_SAID,
    "contract": CONTRACT_AUDIT,
    "audit": _AUDITED,
}


@dataclass
class Plan:
    """A study as it grows.

    Attributes:
        nodes: what the summary is told of each, see `jobs.drift_kinds.summary.NodeWords`.
        takes: what the summary takes: a file of each node, whether it succeeds or not.
    """

    study: Study
    nodes: list[dict[str, Any]] = field(default_factory=list)
    takes: dict[str, Any] = field(default_factory=dict)

    def job(
        self, role: str, kind: str, name: str, params: dict[str, Any], takes: dict[str, Node], **words: Any
    ) -> Node:
        """Add a job and remember it. `words`: variant, encoder, seed, alpha, checkpoint, control."""
        node = self.study.job(kind, params, takes=takes, name=name, needs=CORE)
        self.nodes.append({"node": name, "role": role, **words})
        self.takes[name] = (Study.any(node), FILES[role])
        return node


@dataclass(frozen=True)
class Base:
    """The data and what judges."""

    data: Node
    extractor: Node


def base(plan: Plan, params: SourceParams) -> Base:
    """Data, and the extractor with its contract and reference statistics.

    Raises:
        BadInput: the source cannot be used.
    """
    params.check()
    data = plan.job("data", "drift-data", "data", params.data(), {})
    profile = {} if params.profile == "cached" else {"profile": params.profile}
    return Base(data, plan.job("extractor", "drift-extractor", "extractor", profile, {DATA: data}))


def train(plan: Plan, of: Base, name: str, params: dict[str, Any], words: dict[str, Any]) -> Node:
    """A training."""
    return plan.job("train", "drift-train", name, params, {DATA: of.data}, **words)


def measured(
    plan: Plan, of: Base, trained: Node, tail: str, params: dict[str, Any], words: dict[str, Any]
) -> tuple[Node, Node]:
    """(samples, their evaluation). `tail`: of the names. `words["control"]` is told to the evaluation."""
    sample = plan.job("sample", "drift-sample", f"sample{tail}", params, {TRAIN: trained}, **words)
    control = {"control": words["control"]} if words.get("control") else {}
    takes = {SAMPLE: sample, EXTRACTOR: of.extractor, DATA: of.data, TRAIN: trained}
    return sample, plan.job("eval", "drift-eval", f"eval{tail}", control, takes, **words)


def audited(
    plan: Plan,
    of: Base,
    trained: Node,
    made: tuple[Node, Node],
    tail: str,
    least_n: int,
    words: dict[str, Any],
    *,
    independent: bool,
) -> None:
    """Nearest neighbours and contract audit of an evaluation; `independent`: and the audit by other code."""
    sample, evaluation = made
    near = plan.job("nn", "drift-nn", f"nn{tail}", {}, {SAMPLE: sample, DATA: of.data}, **words)
    takes = {DATA: of.data, EXTRACTOR: of.extractor, TRAIN: trained, SAMPLE: sample, EVAL: evaluation, NN: near}
    plan.job("contract", "drift-contract", f"contract{tail}", {"least_n": least_n}, takes, **words)
    if independent:
        plan.job("audit", "audit", f"audit{tail}", {"least_n": least_n}, takes, **words)
