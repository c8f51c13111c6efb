"""The kernel job: right numbers pass, wrong ones fail, arrays come back, a judge that cannot say no is caught."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

import jobs.kernel.run as kernel_run
import jobs.kernel.subjects as subjects
from core.errors import BadInput, CheckCannotFail, JobFailed
from jobs.kernel import Kernel, Params
from jobs.kernel.run import checksum
from jobs.kernel.subjects import Result
from jobs.parity.verdict import Judgement
from jobs.parity.words import Verdict
from kernels.translation import translate
from lab.arrays import from_files, from_rows
from tests.jobs.context import Recorder

SMALL = {
    "translation": {"batch": 3, "height": 17, "width": 20},
    "fcell": {"height": 24, "width": 20, "oversample": 2},
    "postfilter": {"batch": 1, "height": 21, "width": 26, "h": 5},
}


def recorded(tmp_path: Path, **params: Any) -> Recorder:
    kind = Kernel()
    ctx = Recorder(kind, kind.Params(**params), tmp_path / str(len(list(tmp_path.iterdir()))))
    ctx.run()
    assert {name: len(rows) for name, rows in ctx.tables.items()} == ctx.expected["rows"]
    assert all(ctx.artifact(name).stat().st_size for name in ctx.expected["artifacts"])
    return ctx


def run(tmp_path: Path, **params: Any) -> dict[str, Any]:
    (row,) = recorded(tmp_path, **params).rows
    return row


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
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
    images, offsets = subjects.made_images(Params(seed=3))
    assert checksum(translate(images, offsets, backend="torch")) == one["checksum"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_each_kernel_on_each_backend(tmp_path: Path, name: str, backend: str) -> None:
    row = run(tmp_path, name=name, backend=backend, **SMALL[name])
    assert (row["verdict"], row["backend"], row["device"]) == ("pass", backend, "cpu")
    assert 0 <= row["max_rel"] <= row["tolerance"]
    assert abs(row["sum_ratio"] - 1) < 1e-5
    assert row["work"] == Params(name=name, **SMALL[name]).work / (5 if name == "postfilter" else 1)
    assert row["rate"] == pytest.approx(row["work"] / row["seconds"] / 1e6)
    if name == "fcell":
        counts = json.loads(row["counts"])
        assert counts["lookups"] == row["work"] == sum(counts[n] for n in ("listed", "unlisted", "out_of_grid"))
        assert min(counts[n] for n in ("listed", "unlisted", "out_of_grid")) > 0, "the made grid shows every outcome"


def test_the_digest_of_the_input_is_the_same_for_every_backend(tmp_path: Path) -> None:
    for name, small in SMALL.items():
        found = {run(tmp_path, name=name, backend=b, **small)["input_digest"] for b in ("numpy", "numba", "torch")}
        assert len(found) == 1, name
        assert run(tmp_path, name=name, backend="numpy", **{**small, "height": 25})["input_digest"] not in found


FCELL_CASES = [
    {"made_grid": False},
    {"cell": "70,80,90,80,95,110", "cells": "5,7,9"},
    {"phisteps": 3, "osc": 1.0, "mosaic_domains": 2, "mosaic_spread": 0.5},
    {"interpolate": True},
    {"shape": "gauss"},
]


@pytest.mark.parametrize("case", FCELL_CASES, ids=["no grid", "triclinic", "phi and mosaic", "tricubic", "gauss"])
def test_cases_of_fcell(tmp_path: Path, case: dict[str, Any]) -> None:
    row = run(tmp_path, name="fcell", backend="numba", **{**SMALL["fcell"], **case})
    assert row["verdict"] == "pass"
    assert json.loads(row["settings"]).keys() == {*case, "oversample"}


def test_a_file_of_structure_factors(tmp_path: Path) -> None:
    hkl = tmp_path / "a.hkl"
    hkl.write_text("# made\n0 0 0 12.5\n1 -2 3 7\n-3 4 -5 100\n")
    made = run(tmp_path, name="fcell", backend="numba", **SMALL["fcell"])
    row = run(tmp_path, name="fcell", backend="numba", hkl=str(hkl), **SMALL["fcell"])
    assert row["input_digest"] != made["input_digest"]
    hkl.write_text("0 0 0 12.5\n1 -2 x 7\n")
    with pytest.raises(BadInput, match=r"a\.hkl.*2") as said:
        Kernel().inputs(Params(name="fcell", hkl=str(hkl)))
    assert "\n" not in str(said.value)
    hkl.write_text("# nothing\n")
    with pytest.raises(BadInput, match=r"a\.hkl"):
        Kernel().inputs(Params(name="fcell", hkl=str(hkl)))
    with pytest.raises(BadInput, match="is no file"):
        Kernel().inputs(Params(name="fcell", hkl=str(tmp_path / "b.hkl")))


@pytest.mark.parametrize("size", ["rows", "files"])
def test_arrays_come_back_without_a_copy(tmp_path: Path, size: str) -> None:
    shape = {"batch": 5, "height": 16, "width": 12} if size == "rows" else {"batch": 8, "height": 100, "width": 90}
    ctx = recorded(tmp_path, keep=True, backend="numba", dtype="complex64", **shape)
    if size == "rows":
        table = ctx.table("arrays")
        arrays = from_rows(table)
        whole = table.column("values").chunk(0).buffers()[2]
        places = [(whole.address, whole.address + whole.size)]
        assert all(any(low <= a.__array_interface__["data"][0] < high for low, high in places) for a in arrays.values())
    else:
        assert "arrays" not in ctx.tables
        before = pa.total_allocated_bytes()
        arrays = from_files({n.removesuffix(".arrow"): ctx.artifact(n) for n in ctx.expected["artifacts"]})
        assert pa.total_allocated_bytes() == before
    assert set(arrays) == {"result", "images", "offsets"}
    images, offsets = subjects.made_images(ctx.params)
    assert arrays["images"].dtype == np.complex64
    assert np.array_equal(arrays["images"], images)
    assert np.array_equal(arrays["offsets"], offsets)
    assert np.array_equal(arrays["result"], translate(images, offsets, backend="numba"))
    assert not any(a.flags.writeable for a in arrays.values())


def test_a_part_of_a_table_has_its_own_arrays() -> None:
    given = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4, dtype="<i2"), "c": np.array([1j])}
    rows = [kernel_run._as_row(name, array) for name, array in given.items()]
    table = pa.Table.from_pylist(rows, schema=Kernel().tables()["arrays"])
    for part in (table, table.slice(1), table.slice(1, 1), table.slice(3), pa.concat_tables([table[2:], table[:1]])):
        found = from_rows(part)
        assert list(found) == part.column("array").to_pylist()
        assert all(np.array_equal(found[name], given[name]) for name in found)
        assert not any(array.flags.writeable for array in found.values())


def test_arrays_of_ones_own(tmp_path: Path) -> None:
    images, offsets = subjects.made_images(Params(batch=2, height=9, width=11, dtype="float64"))
    path = tmp_path / "mine.npz"
    np.savez(path, images=images, offsets=offsets)
    row = run(tmp_path, input=str(path), backend="numba")
    assert (row["batch"], row["height"], row["width"], row["dtype"]) == (2, 9, 11, "float64")
    assert not Kernel().pools(Params(input=str(path)))

    def refused(word: str, **arrays: Any) -> None:
        np.savez(path, **arrays)
        with pytest.raises(BadInput, match=word) as said:
            Kernel().inputs(Params(input=str(path)))
        assert "mine.npz" in str(said.value)
        assert "\n" not in str(said.value)

    refused("no array 'offsets'", images=images)
    refused("2 images .* 1 offsets", images=images, offsets=offsets[:1])
    broken = images.copy()
    broken[1, 2, 3] = np.nan
    refused(r"1, 2, 3|finite|NaN", images=broken, offsets=offsets)
    path.write_bytes(b"PK no more")
    with pytest.raises(BadInput, match=r"no \.npz file"):
        Kernel().inputs(Params(input=str(path)))


def test_dim_arrays_pass_and_dark_ones_prove_nothing(tmp_path: Path) -> None:
    images, offsets = subjects.made_images(Params(batch=2, height=9, width=11, dtype="float32"))
    path = tmp_path / "mine.npz"
    for backend in ("numba", "torch"):
        np.savez(path, images=images * np.float32(1e-40), offsets=offsets)  # few digits are left, and none is wrong
        assert run(tmp_path, input=str(path), backend=backend)["verdict"] == "pass"
        for dark in (images * 0, images[:, :1, :1]):
            np.savez(path, images=dark, offsets=offsets + 3)
            with pytest.raises(JobFailed, match="0 or the same number everywhere"):
                run(tmp_path, input=str(path), backend=backend)
            assert run(tmp_path, input=str(path), backend=backend, check=False)["verdict"] == "unchecked"


def test_physics_that_is_none_is_refused_at_submit() -> None:
    kind = Kernel()
    assert kind.inputs(Params(name="fcell")) == {}
    for word, bad in (("wavelength", {"wavelength": 1e-300}), ("angles", {"cell": "9,9,9,10,10,170"})):
        with pytest.raises(BadInput, match=word) as said:
            kind.inputs(Params(name="fcell", **bad))
        assert "\n" not in str(said.value)


def test_unchecked_is_no_pass(tmp_path: Path) -> None:
    row = run(tmp_path, check=False)
    assert row["verdict"] == "unchecked"
    assert row["max_rel"] is row["tolerance"] is None


def test_what_is_long_or_large_runs_by_itself() -> None:
    kind = Kernel()
    assert kind.pools(Params())
    assert kind.pools(Params(keep=True))
    assert not kind.pools(Params(keep=True, batch=64, height=128, width=128))
    assert not kind.pools(Params(name="fcell", height=4096, width=4096, oversample=2))


def test_cuda_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    for name in SMALL:
        with pytest.raises(JobFailed, match=r"torch-cuda .*CUDA") as said:
            run(tmp_path, name=name, backend="torch-cuda", **SMALL[name])
        assert "--gpus 1" in str(said.value)
        assert "\n" not in str(said.value)


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
    monkeypatch.setattr(subjects, "_translator", lambda name, threads: wrong)
    with pytest.raises(JobFailed, match=f"torch translation at {dtype} is wrong"):
        run(tmp_path, dtype=dtype)
    # A whole-pixel shift is judged bit for bit.
    with pytest.raises(JobFailed):
        run(tmp_path, dtype=dtype, dx=2.0, dy=1.0)


def test_a_judge_that_cannot_say_no_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_run, "judge", lambda right, moved, tolerance: Judgement(Verdict.PASS, "fine"))
    with pytest.raises(CheckCannotFail, match="one wrong pixel"):
        run(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(kernel_run, "same_counts", lambda want, told: "")
    with pytest.raises(CheckCannotFail, match="off by one"):
        run(tmp_path, name="fcell", backend="numpy", **SMALL["fcell"])


def test_a_count_that_is_off_by_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subjects._fcell

    def off(p: Params, files: Any, threads: int) -> Any:
        case = real(p, files, threads)
        found = case.compute()
        wrong = Result(found.values, {**found.counts, "listed": found.counts["listed"] + 1})
        return subjects.Case(**{**vars(case), "compute": lambda: wrong})

    monkeypatch.setattr(subjects, "_fcell", off)
    with pytest.raises(JobFailed, match="the count listed is"):
        run(tmp_path, name="fcell", backend="numpy", **SMALL["fcell"])


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"backend": "tensorflow-xla"}, "must not share a process with torch"),
        ({"backend": "jax"}, "none of numpy, numba, torch"),
        ({"name": "fcell", "dx": 1.0}, "dx is a parameter of translation"),
        ({"oversample": 2}, "oversample is a parameter of fcell"),
        ({"name": "fcell", "cells": "5,7"}, "3 numbers"),
        ({"name": "fcell", "cell": "1,1,1,90,90,0"}, "6 numbers"),
        ({"name": "fcell", "input": "a.npz"}, "takes no arrays"),
        ({"input": "a.npz", "dx": 3.0}, "dx is what the file of input says itself"),
        ({"name": "postfilter", "input": "a.npz", "height": 32}, "height is what the file of input says"),
        ({"name": "postfilter", "weights": "a.pf8", "h": 8}, "h is what the file of weights says"),
        ({"name": "fcell", "hkl": "a.hkl", "made_grid": False}, "made_grid is what the file of hkl says"),
        ({"name": "fcell", "batch": 2}, "one image"),
        ({"name": "postfilter", "tile": 32}, "only numba"),
        ({"name": "fcell", "height": 8192, "width": 4096, "oversample": 32}, "lookups"),
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
