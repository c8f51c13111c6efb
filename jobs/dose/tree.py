"""The synthetic study as a tree: data per dose; views, arms, controls and comparison per condition; the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.study import Study
from jobs.dose.conditions import ARMS, CONTROLS, SPLITS, TRAIN_HALF, TRAINED, Condition, controls_of, dose_word
from jobs.dose.design import Design, filtered
from jobs.dose.feasibility import ViewCheck, view_checks
from jobs.dose.manifest import input_name
from jobs.dose_kinds.study import iterative

if TYPE_CHECKING:
    from core.study import Node
    from jobs.dose_kinds.study import DoseParams

NEEDS = {"cores": 1}


@dataclass(frozen=True)
class Plan:
    """What a submit asks for, worked out.

    Attributes:
        checks: of every view of every seed, feasible or not.
        conditions: those that run; skipped: those that cannot, with the check that says why.
    """

    design: Design
    arms: tuple[str, ...]
    checks: tuple[ViewCheck, ...]
    conditions: tuple[Condition, ...]
    skipped: tuple[tuple[Condition, ViewCheck], ...]


def plan_of(params: DoseParams) -> Plan:
    """The conditions that these parameters mean.

    Raises:
        BadInput: a filter matches nothing, or no view is feasible.
    """
    design = Design.named(params.size).chosen(
        doses=params.doses, views=params.views, gridsizes=params.gridsizes, seeds=params.seeds
    )
    arms = ARMS if params.arms is None else filtered("arms", params.arms, ARMS)
    if params.source is None:
        checks = design.checks()
    else:
        from jobs.dose.sources import read_user

        given = read_user(Path(params.source))
        design = replace(design, patch=given.size)
        checks = tuple(c for seed in design.seeds for c in view_checks(design, seed, given.x, given.y))
    by_view = {(c.view, c.seed): c for c in checks}
    found = [(c, by_view[c.view, c.seed]) for c in design.conditions()]
    plan = Plan(
        design,
        arms,
        checks,
        tuple(c for c, check in found if check.feasible),
        tuple((c, check) for c, check in found if not check.feasible),
    )
    if not plan.conditions:
        reasons = " | ".join(check.sentence() for check in checks)
        raise BadInput(f"nothing of the design {design.size!r} is feasible: {reasons}", hint="choose other views")
    return plan


def synthetic_tree(params: DoseParams) -> Study:
    """The whole study. See `plan_of` for what is refused."""
    plan = plan_of(params)
    study = Study("dose")
    for text in notes(plan):
        study.note(text)
    goldens = goldens_of(params.goldens, plan)
    if goldens:
        trainings = plan.design.counts(plan.arms, conditions=plan.conditions).trainings
        study.note(f"{len(goldens)} of {trainings} trainings are held against a golden")
    summary: dict[str, Any] = {}
    data: dict[tuple[float, int], Node] = {}
    for condition in plan.conditions:
        at = condition.photons, condition.seed
        if at not in data:
            data[at] = _data(study, plan.design, condition, params.source)
        summary |= _condition(study, plan, condition, data[at], params, goldens)
    study.job("dose-summary", summary_params(plan), takes=summary, name="summary", needs=NEEDS)
    return study


def notes(plan: Plan) -> list[str]:
    """What `--plan` says about the study as a whole: counts, then every skip row."""
    asked = plan.design.counts(plan.arms)
    planned = plan.design.counts(plan.arms, conditions=plan.conditions)
    out = [f"design {plan.design.size} (N={plan.design.patch}): {asked.sentence()}"]
    if plan.skipped:
        out.append(f"feasible of these: {planned.sentence()}")
    out += [f"skipped: {check.sentence()}" for check in plan.checks if not check.feasible]
    return out


def summary_params(plan: Plan) -> dict[str, Any]:
    """What the summary must know besides the comparisons: what there should be, and what was skipped."""
    design = plan.design
    return {
        "title": f"Dose study, size {design.size}",
        "arms": [*plan.arms, *controls_of(plan.arms)],
        "conditions": [condition_words(c) for c in plan.conditions],
        "skips": [
            {**condition_words(condition), "reason": check.reason, "numbers": check.numbers()}
            for condition, check in plan.skipped
        ],
        "notes": notes(plan),
    }


def condition_words(condition: Condition) -> dict[str, Any]:
    """A condition as plain values."""
    return {
        "condition": condition.name,
        "photons": condition.photons,
        "view": condition.view.name,
        "gridsize": condition.view.gridsize,
        "seed": condition.seed,
    }


def _data(study: Study, design: Design, condition: Condition, source: str | None) -> Node:
    scan = design.scan
    what: dict[str, Any] = {
        "photons": condition.photons,
        "seed": condition.seed,
        "train_fraction": scan.train_fraction,
    }
    if source is None:
        what |= {
            "patch": design.patch,
            "rows": scan.rows,
            "cols": scan.cols,
            "step": scan.step,
            "jitter": scan.jitter,
            "margin": scan.margin,
            "disc": design.disc,
        }
    else:
        what |= {"source": source}
    name = f"data_d{dose_word(condition.photons)}_s{condition.seed}"
    return study.job("dose-data", what, name=name, needs=NEEDS)


def goldens_of(folder: str | None, plan: Plan) -> dict[tuple[Condition, str], Path]:
    """The goldens that a folder has for trainings of this plan: CONDITION_ARM.json.

    Raises:
        BadInput: there is no such folder, or none of its files is called as a training of this study.
    """
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise BadInput(f"goldens={folder} is no folder", hint="name one with files CONDITION_ARM.json")
    trained = [arm for arm in plan.arms if arm in TRAINED]
    wanted = {(c, arm): Path(folder) / f"{c.name}_{arm}.json" for c in plan.conditions for arm in trained}
    found = {at: path for at, path in wanted.items() if path.is_file()}
    if not found:
        name = next((path.name for path in wanted.values()), None)
        hint = f"a golden is called as its training, e.g. {name}" if name else "no trained arm is asked for"
        raise BadInput(f"goldens={folder} has no golden of a training of this study", hint=hint)
    return found


def _condition(
    study: Study,
    plan: Plan,
    condition: Condition,
    data: Node,
    params: DoseParams,
    goldens: Mapping[tuple[Condition, str], Path],
) -> dict[str, Any]:
    """Views, arms, controls and comparison of one condition. Returns what the summary takes of it."""
    design, view, name = plan.design, condition.view, condition.name
    views = study.job(
        "dose-views",
        {
            "view": view.name,
            "overlap": view.overlap,
            "gridsize": view.gridsize,
            "neighbours": design.neighbours,
            "per_point": design.per_point,
            "disc": design.disc,
            "least": design.min_groups,
            "seed": condition.grouping_seed,
            "subsampling_seed": condition.subsampling_seed,
        },
        takes={"data": data},
        name=f"views_{name}",
        needs=NEEDS,
    )
    takes = {"data": data, "views": views}
    made: dict[str, Node] = {}
    models: dict[str, Any] = {}
    epochs = {
        "pinn": design.pinn_epochs if params.pinn_epochs is None else params.pinn_epochs,
        "supervised": design.supervised_epochs if params.supervised_epochs is None else params.supervised_epochs,
        **dict.fromkeys(CONTROLS, 0),
    }
    for arm in (*plan.arms, *controls_of(plan.arms)):
        if arm in epochs:
            what = {"arm": "pinn" if arm == "untrained" else arm, "epochs": epochs[arm], "seed": condition.seed}
            if (condition, arm) in goldens:
                what["golden"] = str(goldens[condition, arm])
            made[arm] = study.job("dose-train", what, takes=takes, name=f"{arm}_{name}", needs=NEEDS)
            models[input_name(arm, name)] = (Study.any(made[arm]), "model.json")
    if "lsqml" in plan.arms:
        for split in SPLITS:
            node = study.job(
                "dose-lsqml",
                {"split": split, "seed": condition.seed, **iterative(params)},
                takes=takes,
                name=f"lsqml-{split}_{name}",
                needs=NEEDS,
            )
            made["lsqml" if split == "test" else TRAIN_HALF] = node
    compared = study.job(
        "dose-compare",
        {
            **condition_words(condition),
            "arms": [*made],
            "blur": design.blur,
            "frc_threshold": design.frc_threshold,
        },
        takes={"truth": data, "views": views, **{arm: Study.any(node) for arm, node in made.items()}},
        name=f"compare_{name}",
        needs=NEEDS,
    )
    return {f"compare_{name}": Study.any(compared), **models}
