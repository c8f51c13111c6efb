"""The branches of a grid: numbers from hand-made tables, what may stand beside each other, the figure's bytes."""

from __future__ import annotations

import io
import math
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadInput
from core.kind import Absent
from jobs.train.branches import branches, branches_figure, summary
from jobs.train.recipe import branch_name
from jobs.train.schema import CANDIDATES, TRAINING
from jobs.train_kind import Train

Row = dict[str, Any]


def job(number: int, alpha: float, h: int, epochs: int, values: list[float], psnr: float) -> tuple[list[Row], Row]:
    """Candidates at epochs 10, 20, ...; the least value is chosen, with `psnr`; decoded has 30 dB."""
    name = branch_name(epochs, alpha, h)
    empty = {"job": number, **dict.fromkeys(CANDIDATES.names), "branch": name, "quantity": "surrogate value"}
    rows = [
        {
            **empty,
            "weights": "average, int8",
            "epoch": 10 * (k + 1),
            "evaluation_value": value,
            "psnr": psnr if value == min(values) else 30.0,
            "ms_ssim": 0.9,
            "bytes": 100 * h,
            "chosen": value == min(values),
        }
        for k, value in enumerate(values)
    ]
    for other in ("decoded", "unsharp"):
        rows.append({**empty, "weights": other, "evaluation_value": 50.0, "psnr": 30.0, "chosen": False})
    training = {"job": number, **dict.fromkeys(TRAINING.names), "branch": name, "evaluation_sha256": "e" * 64}
    training |= {"value_sha256": f"alpha {alpha}", "settings_sha256": name}
    return rows, training


def grid() -> tuple[list[Row], list[Row]]:
    jobs = [
        job(7, 20, 8, 20, [40.0, 38.0], 31.0),
        job(3, 20, 8, 20, [44.0, 45.0], 30.5),
        job(4, 20, 8, 20, [39.0, 35.0], 31.5),
        job(5, 5, 16, 30, [40.0, 36.0, 37.0], 32.0),
        job(6, 5, 8, 30, [40.0, 39.0, 38.0], 31.25),
    ]
    return [row for rows, _ in jobs for row in rows], [training for _, training in jobs]


def test_runs_of_one_branch_are_put_together_and_branches_in_order() -> None:
    found = branches(*grid())
    assert [b.name for b in found] == [
        "long30_qat_ema_alpha5_h8",
        "long30_qat_ema_alpha5_h16",
        "long20_qat_ema_alpha20_h8",
    ]
    three = found[2]
    assert (three.epochs, three.alpha, three.h, three.size) == (20, 20.0, 8, 800)
    assert [run.job for run in three.runs] == [3, 4, 7]
    assert [run.epoch for run in three.runs] == [10, 20, 20]
    assert three.curve() == [(10, 40.0, 39.0, 44.0), (20, 38.0, 35.0, 45.0)]
    assert three.spread("value") == (38.0, 35.0, 44.0)
    assert three.spread("gain") == (1.0, 0.5, 1.5)
    assert found[1].runs[0].values == (40.0, 36.0, 37.0)
    assert (found[1].runs[0].epoch, found[1].runs[0].gain) == (20, 2.0)


def test_the_summary_has_a_row_a_branch() -> None:
    table = summary(branches(*grid()))
    assert table.num_rows == 3
    assert table.to_pylist()[2] == {
        "branch": "long20_qat_ema_alpha20_h8",
        "alpha": 20.0,
        "h": 8,
        "epochs": 20,
        "runs": 3,
        "bytes": 800,
        "value": 38.0,
        "value_least": 35.0,
        "value_most": 44.0,
        "gain": 1.0,
        "gain_least": 0.5,
        "gain_most": 1.5,
        "psnr": 31.0,
        "ms_ssim": 0.9,
        "chosen_epochs": "10 20 20",
    }


def test_only_what_may_stand_beside_each_other_does() -> None:
    def refused(said: str, change: Any) -> None:
        candidates, training = grid()
        branches(candidates, training)
        change(candidates, training)
        with pytest.raises(BadInput, match=said):
            branches(candidates, training)

    refused("several quantity", lambda c, t: c[0].update(quantity="upstream value"))
    refused("several fixed pairs", lambda c, t: t[0].update(evaluation_sha256="f" * 64))
    refused("job 7 has 0 chosen", lambda c, t: c[1].update(chosen=False))
    refused("job 7 has 2 chosen", lambda c, t: c[0].update(chosen=True))
    refused("0 rows of decoded", lambda c, t: c.pop(2))
    refused("job 6 is in one of the tables", lambda c, t: t.pop())
    refused("800 and 900 bytes|900 and 800 bytes", lambda c, t: c[1].update(bytes=900))
    with pytest.raises(BadInput, match="no candidate"):
        branches([], [])


def test_a_value_that_is_no_number_has_no_place_in_a_curve() -> None:
    candidates, training = grid()
    candidates[0]["evaluation_value"] = math.nan
    assert branches(candidates, training)[2].curve()[0] == (10, 41.5, 39.0, 44.0)  # of two: their middle
    candidates[4]["evaluation_value"] = math.nan
    assert branches(candidates, training)[2].curve()[0] == (10, 39.0, 39.0, 39.0)


def test_values_of_one_alpha_are_made_of_one_thing_and_runs_of_a_branch_differ_in_seeds_only() -> None:
    candidates, training = grid()
    training[4]["value_sha256"] = "the sal term weighs more"
    with pytest.raises(BadInput, match=r"jobs 5 and 6 are made of different things, at one alpha of 5"):
        branches(candidates, training)
    candidates, training = grid()
    training[1]["settings_sha256"] = "another rate"
    with pytest.raises(BadInput, match=r"jobs 3 and 4 are both called long20_qat_ema_alpha20_h8, and differ in more"):
        branches(candidates, training)
    # Another thing at another alpha is what an alpha is.
    assert len({row["value_sha256"] for row in grid()[1]}) == 2


def drawn(candidates: list[Row], training: list[Row], form: str = "png", **more: Any) -> bytes:
    out = io.BytesIO()
    branches_figure(out, branches(candidates, training), title="t", quantity="surrogate value", form=form, **more)
    return out.getvalue()


def test_the_figure_has_equal_bytes_for_equal_branches() -> None:
    candidates, training = grid()
    a, b = drawn(candidates, training), drawn(candidates, training)
    candidates[0]["evaluation_value"] += 1
    assert a == b != drawn(candidates, training)
    assert b"tEXt" not in a
    for form, begin in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        one, two = drawn(candidates, training, form), drawn(candidates, training, form)
        assert one == two
        assert one.startswith(begin)


def test_the_kind_draws_it_from_tables_and_names_what_failed() -> None:
    candidates, training = grid()
    tables = {"candidates": pa.Table.from_pylist(candidates), "training": pa.Table.from_pylist(training)}
    failed = [Absent(n, f"branch-{n}", "failed: not-finite") for n in range(20, 28)]
    out = io.BytesIO()
    said = Train().figure(out, "svg", tables, failed, "sweep 1")
    text = out.getvalue().decode()
    assert said[0] == "surrogate value against epoch and bytes: 3 branches, 5 runs"
    assert said[1] == "not shown: 20 branch-20 (failed: not-finite)"
    assert said[-1] == "not shown: 2 more that have no results"
    assert len(said) == 8
    # Letters are drawn as paths; their text stands beside them as a comment.
    for words in ("sweep 1", "alpha 5", "16 hidden channels", "30 epochs", "not shown: 20 branch-20", "2 more that"):
        assert words in text, words
    assert "not shown" not in drawn(candidates, training, "svg").decode()
    with pytest.raises(BadInput, match="no branch has results: branch-20 failed: not-finite"):
        Train().figure(io.BytesIO(), "svg", {}, failed, "sweep 1")
