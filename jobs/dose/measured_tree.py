"""The measured study as a tree: counts thinned to each dose, and held against the reconstruction of the full dose.

Only LSQML takes part: there is no ground truth to train the supervised baseline on, no second object to test a PINN
on, and the guard band that keeps training from test would leave few frames of a scan of a few hundred pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.study import Study
from jobs.dose.conditions import SIMULATION, Condition, View, dose_word
from jobs.dose.design import Design, filtered
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
        BadInput: there is no such file, it is no measured set, or a dose or seed that the study cannot have.
    """
    assert params.data is not None
    if not Path(params.data).is_file():
        raise BadInput(f"data={params.data} is no file", hint="correct the path")
    doses = Design.named("seed").doses
    if params.doses is not None:
        doses = filtered("doses", [float(d) for d in params.doses], doses)
    seeds = SEEDS if params.seeds is None else tuple(params.seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise BadInput(f"seeds={list(seeds)}", hint="name each once, at least one, none of them negative")
    frames, had = _read(params)
    planned = [Condition(d, VIEW, s) for s in seeds for d in doses]
    conditions = [c for c in planned if c.photons <= had]
    few = f"{had:.6g} photons a pattern were measured: thinning takes some away and adds none"
    if not conditions:
        raise BadInput(f"{Path(params.data).name}: {few}", hint="ask for a smaller dose, or bring more photons")
    study = Study("dose")
    study.note(f"{Path(params.data).name}: {frames} frames of {had:.6g} photons; {_count(conditions)}")
    for dose in sorted({c.photons for c in planned if c not in conditions}):
        study.note(f"skipped: {dose_word(dose)} photons: {few}")
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
        "skips": [
            {**condition_words(c), "reason": few, "numbers": {"photons_measured": had}}
            for c in planned
            if c not in conditions
        ],
        "notes": list(study.notes),
    }
    study.job("dose-summary", words, takes=summary, name="summary", needs=NEEDS)
    return study


def _read(params: DoseParams) -> tuple[int, float]:
    """(frames, mean photons of one): before anything is submitted, since every job of the study needs the file.

    Raises:
        BadInput: it is no measured set.
    """
    from jobs.dose.sources import read_measured  # numpy, only once a study is asked for

    measured = read_measured(Path(params.data or ""), scan_order=params.scan_order, dc=params.dc)
    return len(measured.counts), int(measured.counts.sum()) / len(measured.counts)


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
