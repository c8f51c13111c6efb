"""Branches of a grid, one of them killed and gone on with elsewhere: same bits, whole tables, one figure, ranks.

The whole of it, over two lanes of which one dies, is tests/lanes/remote/test_train_lab.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from core.kind import Absent
from jobs.train.recipe import branch_of
from lab.standings import rank
from tests.jobs.train.data_context import encoder
from tests.jobs.train.test_train_kind import KIND, Attempt, Killed, Watched

pytestmark = encoder

GRID = [{"alpha": 5, "h": 2}, {"alpha": 5, "h": 3}, {"alpha": 20, "h": 2}]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ready(root: Path, n: int, cores: int, branch: dict[str, Any]) -> Attempt:
    attempt = Attempt(root, n, **branch)
    spec = {**attempt.spec, "grant": {"cores": cores}}
    attempt.ctx = Watched(attempt.run, spec, attempt.params, KIND.tables)
    return attempt


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[Attempt]:
    """Every branch to its end on one core; the second is killed at its fifth step and gone on with on two."""
    place = tmp_path_factory.mktemp("grid")
    found = []
    for number, branch in enumerate(GRID):
        attempt = ready(place / str(number), 1, 1, branch)
        if number == 1:
            attempt.ctx.kill_at = 5
            assert isinstance(attempt.go().caught, Killed)
            attempt = ready(place / str(number), 2, 2, branch)
        found.append(attempt.go())
        assert found[-1].cause == "ok", found[-1].message
    return found


def rows(done: list[Attempt], name: str) -> list[dict[str, Any]]:
    return [{"job": number, **row} for number, attempt in enumerate(done) for row in attempt.table(name)]


def test_the_bits_are_those_of_a_run_that_was_never_killed_with_any_number_of_threads(
    done: list[Attempt], tmp_path: Path
) -> None:
    """For the surrogate, a sum over pixels: what each thread adds is added up in one order."""
    resumed = done[1]
    assert resumed.whole["resumed_at"] is not None
    assert resumed.whole["threads"] == 2
    keys = ("weights_sha256", "average_sha256", "shipped_sha256", "settings_sha256", "value_sha256")
    whole = ready(tmp_path / "whole", 1, 1, GRID[1]).go()
    assert whole.whole["threads"] == 1
    assert {k: whole.whole[k] for k in keys} == {k: resumed.whole[k] for k in keys}
    assert whole.table("candidates") == resumed.table("candidates")
    # The digests tell branches apart.
    assert len({attempt.whole["weights_sha256"] for attempt in done}) == 3
    assert len({attempt.whole["settings_sha256"] for attempt in done}) == 3
    assert len({attempt.whole["value_sha256"] for attempt in done}) == 2


def test_every_planned_candidate_of_every_branch_is_there_once(done: list[Attempt]) -> None:
    found = [(row["branch"], row["weights"], row["epoch"]) for row in rows(done, "candidates")]
    names = [KIND.describe(attempt.params) for attempt in done]
    assert found == [
        (name, weights, epoch)
        for name in names
        for weights, epoch in (("decoded", None), ("unsharp", None), ("average-int8", 3), ("average-int8", 4))
    ]
    assert [branch_of(name)[1:] for name in names] == [(b["alpha"], b["h"]) for b in GRID]


def test_the_figure_and_the_ranks_of_what_the_runs_wrote(done: list[Attempt]) -> None:
    tables = {name: pa.Table.from_pylist(rows(done, name)) for name in ("candidates", "training")}
    out = io.BytesIO()
    said = KIND.figure(out, "svg", tables, [Absent(9, "long4_qat_ema_alpha5_h4", "failed: memory")], "a grid")
    assert said[0] == "surrogate value against epoch and bytes: 3 branches, 3 runs"
    assert "not shown: 9 long4_qat_ema_alpha5_h4 (failed: memory)" in out.getvalue().decode()
    ranking = KIND.ranking()
    chosen = {row["job"]: row for row in rows(done, "candidates") if row["chosen"]}
    given = [
        {**row, **chosen[row["job"]], "name": row["branch"], "value_label": "", "psnr_label": ""}
        for row in rows(done, "training")
    ]
    found = rank("train", ranking, given)
    by_value = [[e.jobs[0] for e in g.entries] for g in found.groups if g.by == "evaluation_value"]
    by_psnr = [[e.jobs[0] for e in g.entries] for g in found.groups if g.by == "psnr"]
    assert [sorted(group) for group in by_value] == [[0, 1], [2]], "each alpha by itself"
    assert [sorted(group) for group in by_psnr] == [[0, 1, 2]]
    for group in by_value:
        values = [chosen[job]["evaluation_value"] for job in group]
        assert values == sorted(values)
