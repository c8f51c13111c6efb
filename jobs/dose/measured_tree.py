"""The measured study as a tree: counts thinned to each dose, and held against the reconstruction of the full dose.

Only LSQML takes part: there is no ground truth to train the supervised baseline on, no second object to test a PINN
on, and the guard band that keeps training from test would leave few frames of a scan of a few hundred pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.study import Study
from jobs.dose.design import SIMULATION, Condition, Design, View, dose_word, filtered
from jobs.dose.tree import NEEDS, condition_words
from jobs.dose_kinds.study import iterative

if TYPE_CHECKING:
    from core.study import Node
    from jobs.dose_kinds.study import DoseParams

VIEW = View("measured", None, 1)
SEEDS = (SIMULATION, SIMULATION + 1)
HALVES = ("half_a", "half_b")
WHY = (
    "measured set: only LSQML takes part. PINN and supervised are left out: a measured set has no ground truth to "
    "train the supervised baseline on, and no second object on which a trained network could be tested"
)


def measured_tree(params: DoseParams) -> Study:
    """Full dose once; for each dose and seed the thinned counts and two disjoint halves of them.

    Raises:
        BadInput: there is no such file, or a dose that the study does not have.
    """
    assert params.data is not None
    if not Path(params.data).is_file():
        raise BadInput(f"data={params.data} is no file", hint="correct the path")
    doses = Design.named("seed").doses
    if params.doses is not None:
        doses = filtered("doses", [float(d) for d in params.doses], doses)
    conditions = [Condition(d, VIEW, s) for s in params.seeds or SEEDS for d in doses]
    study = Study("dose")
    study.note(f"{Path(params.data).name}: {_count(conditions)}")
    study.note(WHY)
    full = _data(study, params, None, SIMULATION, "data_full")
    views = study.job(
        "dose-views",
        {"view": VIEW.name, "overlap": None, "gridsize": VIEW.gridsize},
        takes={"data": full},
        name="views",
        needs=NEEDS,
    )
    reference = _lsqml(study, params, full, views, "lsqml_full")
    summary: dict[str, Any] = {}
    for condition in conditions:
        name = condition.name
        data = _data(study, params, condition.photons, condition.seed, f"data_{_short(condition)}")
        takes: dict[str, Any] = {"reference": reference, "data": data, "views": views}
        takes["lsqml"] = Study.any(_lsqml(study, params, data, views, f"lsqml_{name}"))
        for i, half in enumerate(HALVES, start=1):
            part = _data(study, params, condition.photons, condition.seed, f"data-{half}_{_short(condition)}", half=i)
            takes[half] = Study.any(_lsqml(study, params, part, views, f"lsqml-{half}_{name}"))
        what = {**condition_words(condition), "arms": ["lsqml"]}
        compared = study.job("dose-compare", what, takes=takes, name=f"compare_{name}", needs=NEEDS)
        summary[f"compare_{name}"] = Study.any(compared)
    words = {
        "title": f"Dose study of {Path(params.data).name}",
        "arms": ["lsqml"],
        "conditions": [condition_words(c) for c in conditions],
        "notes": list(study.notes),
    }
    study.job("dose-summary", words, takes=summary, name="summary", needs=NEEDS)
    return study


def _data(study: Study, params: DoseParams, photons: float | None, seed: int, name: str, *, half: int = 0) -> Node:
    what = {
        "mode": "measured",
        "source": params.data,
        "photons": photons,
        "seed": seed,
        "half": half,
        "scan_order": params.scan_order,
        "dc": params.dc,
    }
    return study.job("dose-data", what, name=name, needs=NEEDS)


def _lsqml(study: Study, params: DoseParams, data: Node, views: Node, name: str) -> Node:
    what = {"split": "train", **iterative(params)}
    return study.job("dose-lsqml", what, takes={"data": data, "views": views}, name=name, needs=NEEDS)


def _short(condition: Condition) -> str:
    return f"d{dose_word(condition.photons)}_s{condition.seed}"


def _count(conditions: list[Condition]) -> str:
    doses, seeds = {c.photons for c in conditions}, {c.seed for c in conditions}
    reconstructions = 1 + len(conditions) * (1 + len(HALVES))
    return (
        f"{len(doses)} doses x {len(seeds)} seeds: {len(conditions)} conditions, {reconstructions} iterative "
        f"reconstructions (one of the full dose), {len(conditions)} comparisons"
    )
