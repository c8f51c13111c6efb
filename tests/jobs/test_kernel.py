"""The kernel job: right numbers pass, wrong ones fail, and a judge that cannot say no is found out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import jobs.kernel.run as kernel_run
from core.errors import CheckCannotFail, JobFailed
from jobs.kernel import Kernel, Params
from jobs.parity.verdict import Judgement
from jobs.parity.words import Verdict
from kernels.translation import translate
from tests.jobs.context import Recorder


def run(tmp_path: Path, **params: Any) -> dict[str, Any]:
    kind = Kernel()
    ctx = Recorder(kind, kind.Params(**params), tmp_path / str(len(list(tmp_path.iterdir()))))
    ctx.run()
    assert ctx.expected == {"rows": {"kernel": 1}}
    (row,) = ctx.rows
    return row


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float32", "float64"])
@pytest.mark.parametrize(
    "shift",
    [
        {},
        {"dx": 0.0, "dy": 0.0},
        {"dx": 3.0, "dy": -2.0},
        {"dx": 0.0, "dy": 0.0, "amplitude": 5.0},
        {"dx": 19.5, "dy": 16.0},
    ],
    ids=["sub-pixel", "none", "whole", "random", "almost out of sight"],
)
def test_right_numbers_pass(tmp_path: Path, backend: str, dtype: str, shift: dict[str, float]) -> None:
    row = run(tmp_path, backend=backend, dtype=dtype, batch=3, height=17, width=20, **shift)
    assert row["verdict"] == "pass"
    assert row["max_rel"] <= row["tolerance"]
    assert (row["tolerance"] == 0.0) == (shift.get("dx") in (0.0, 3.0) and "amplitude" not in shift)
    assert row["seconds"] > 0


def test_the_row_follows_from_the_parameters_alone(tmp_path: Path) -> None:
    one, same = run(tmp_path, seed=3), run(tmp_path, seed=3, repeats=4)
    assert one["checksum"] == same["checksum"]
    for change in ({"seed": 4}, {"dx": 0.25}, {"batch": 5}, {"dtype": "complex128"}, {"amplitude": 0.5}):
        assert run(tmp_path, **{"seed": 3, **change})["checksum"] != one["checksum"], change
    images, offsets = kernel_run.data(Params(seed=3))
    assert kernel_run.checksum(translate(images, offsets, backend="torch")) == one["checksum"]


def _swapped(images: Any, offsets: Any) -> Any:
    return translate(images, offsets[..., ::-1].copy(), backend="torch")


def _backwards(images: Any, offsets: Any) -> Any:
    return translate(images, -offsets, backend="torch")


def _one_pixel(images: Any, offsets: Any) -> Any:
    moved = translate(images, offsets, backend="torch")
    moved[-1, -2, -2] *= 1.0001
    return moved


def _not_a_number(images: Any, offsets: Any) -> Any:
    moved = translate(images, offsets, backend="torch")
    moved[0, 0, 0] = np.nan
    return moved


@pytest.mark.parametrize("wrong", [_swapped, _backwards, _one_pixel, _not_a_number])
@pytest.mark.parametrize("dtype", ["complex64", "float64"])
def test_wrong_numbers_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, dtype: str) -> None:
    monkeypatch.setattr(kernel_run, "backend", lambda name: wrong)
    with pytest.raises(JobFailed, match=f"torch translation at {dtype} is wrong"):
        run(tmp_path, dtype=dtype)
    # A whole-pixel shift is judged bit for bit.
    with pytest.raises(JobFailed):
        run(tmp_path, dtype=dtype, dx=2.0, dy=1.0)


def test_a_judge_that_cannot_say_no_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_run, "judge", lambda right, moved, tolerance: Judgement(Verdict.PASS, "fine"))
    with pytest.raises(CheckCannotFail):
        run(tmp_path)


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"backend": "tensorflow-xla"}, "must not share a process with torch"),
        ({"backend": "jax"}, "none of numpy, torch"),
        ({"dx": float("nan")}, "finite"),
        ({"batch": 4096, "height": 4096, "width": 4096}, "pixels"),
        ({"dx": 60.0, "amplitude": 4.0}, "out of sight"),
        ({"name": "rotation"}, "translation"),
        ({"mutant": "swapped"}, "Extra inputs"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Params(**params)


def test_the_kind_is_light_and_says_what_it_is() -> None:
    kind = Kernel()
    assert kind.pooled
    assert kind.describe(Params(amplitude=2)) == "translation: torch at complex64, 4×64×64 by (0.5, -0.25) ± 2"
    code = "import sys, jobs.kernel; print(sorted({'numpy', 'torch', 'pyarrow', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    headline = kind.tables()["kernel"].metadata[b"lab.headline"].decode().split(",")
    assert set(headline) <= set(kind.tables()["kernel"].names)
