"""The ablation as a tree: data, judge; per variant and seed a training, samples, evaluation and audits; the summary."""

from __future__ import annotations

from core.study import Study
from jobs.drift import branches
from jobs.drift_kinds.ablation import CONTROLS, VARIANTS, AblationParams, chosen
from jobs.drift_kinds.source import counted


def ablation_tree(params: AblationParams) -> Study:
    """The whole study.

    Raises:
        BadInput: there is no such variant, or the source cannot be used.
    """
    variants = chosen(params)
    study = Study("drift-ablation")
    plan = branches.Plan(study)
    of = branches.base(plan, params)
    for variant in variants:
        for seed in params.seeds:
            tail = f"-{variant}-s{seed}"
            made = VARIANTS[variant]
            words = {"variant": variant, "encoder": made.get("encoder", "raw"), "seed": seed, "alpha": params.alpha}
            if variant == "untrained":
                words["control"] = "untrained"
            what = {**made, "seed": seed}
            if params.steps is not None and variant != "untrained":
                what["steps"] = params.steps
            trained = branches.train(plan, of, f"train{tail}", what, words)
            drawn = {"n": params.n, "alpha": params.alpha, "seed": seed}
            pair = branches.measured(plan, of, trained, tail, drawn, words)
            # A control that collapsed makes images that are alike: that is its result and no fault of the package.
            branches.audited(plan, of, trained, pair, tail, 1, words, independent=False)
    seeds = ", ".join(map(str, params.seeds))
    study.note(
        f"{counted(len(variants), 'variant')} × {counted(len(params.seeds), 'seed')} ({seeds}), {params.n} samples each"
    )
    study.job(
        "drift-summary",
        {
            "title": f"Drift ablation, {params.named}",
            "template": "ablation",
            "nodes": plan.nodes,
            "controls": [v for v in variants if v in CONTROLS],
            "alpha": params.alpha,
        },
        takes=plan.takes,
        name="summary",
        needs=branches.CORE,
    )
    return study
