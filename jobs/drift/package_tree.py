"""The package as a tree: per seed a training and a sweep over alpha; the claimed alpha with all audits; the control."""

from __future__ import annotations

from typing import Any

from core.study import Study
from jobs.drift import branches
from jobs.drift_kinds.package import PackageParams
from jobs.drift_kinds.source import counted
from jobs.drift_kinds.train import DriftTrainParams

RULE = "claimed is the last checkpoint of the first seed at the claimed alpha; all seeds are listed, none is chosen"


def package_tree(params: PackageParams) -> Study:
    """The whole study. Nodes of the first seed have plain names; those of another end in -sSEED.

    Raises:
        BadInput: the source cannot be used.
    """
    study = Study("drift-package")
    plan = branches.Plan(study)
    of = branches.base(plan, params)
    first = params.seeds[0]
    for seed in params.seeds:
        end = "" if seed == first else f"-s{seed}"
        what = _training(params, seed)
        words: dict[str, Any] = {"variant": "full", "encoder": params.encoder, "seed": seed}
        trained = branches.train(plan, of, f"train{end}", what, words)
        for alpha in params.alphas:
            claimed = alpha == params.alpha
            tail = end if claimed else f"-a{alpha:g}{end}"
            told = {**words, "alpha": alpha}
            pair = branches.measured(plan, of, trained, tail, _drawn(params, alpha, seed), told)
            if claimed:
                branches.audited(plan, of, trained, pair, tail, params.n, told, independent=True)
        if seed == first:
            steps = list(DriftTrainParams(**what).models)
            if len(steps) < params.last:
                study.note(f"last={params.last}: a training of {steps[-1]} steps leaves {len(steps)} checkpoints only")
            for step in steps[:-1]:  # the last one is the model itself
                told = {**words, "alpha": params.alpha, "checkpoint": step}
                drawn = {**_drawn(params, params.alpha, seed), "checkpoint": step}
                branches.measured(plan, of, trained, f"-step{step}", drawn, told)
    words = {"variant": "untrained", "encoder": "raw", "seed": first, "control": "untrained"}
    trained = branches.train(plan, of, "train-untrained", {"variant": "untrained", "seed": first}, words)
    told = {**words, "alpha": params.alpha}
    branches.measured(plan, of, trained, "-untrained", _drawn(params, params.alpha, first), told)
    _notes(study, params)
    study.job(
        "drift-summary",
        {
            "title": f"Drift package, {params.named}, {params.profile}",
            "template": "package",
            "nodes": plan.nodes,
            "controls": ["untrained"],
            "alpha": params.alpha,
            "rule": RULE,
        },
        takes=plan.takes,
        name="summary",
        needs=branches.CORE,
    )
    return study


def _training(params: PackageParams, seed: int) -> dict[str, Any]:
    """The same for every seed but for the seed: only then are they each other's repetitions."""
    fields = DriftTrainParams.model_fields
    asked = {
        "encoder": params.encoder,
        "steps": params.steps,
        "unconditional": params.unconditional,
        "scheduler": params.scheduler,
        "last_checkpoints": params.last,
    }
    found = {name: value for name, value in asked.items() if value != fields[name].default}
    return {**found, "seed": seed}


def _drawn(params: PackageParams, alpha: float, seed: int) -> dict[str, Any]:
    return {"n": params.n, "alpha": alpha, "seed": seed}


def _notes(study: Study, params: PackageParams) -> None:
    alphas = ", ".join(f"{a:g}" for a in params.alphas)
    study.note(
        f"{counted(len(params.seeds), 'seed')}, alpha {alphas}, claimed {params.alpha:g}, {params.n} samples each"
    )
    study.note(RULE)
    if params.profile == "proxy":
        study.note("profile proxy: the extractor is random, so a claim on this package stays at smoke")
    if not params.unconditional:
        study.note("unconditional=0: alpha enters nothing but the network's input, and will be labelled inert")
