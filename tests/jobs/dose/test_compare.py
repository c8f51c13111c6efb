"""The comparison of a condition: one pipeline for every arm, one region, and a row for what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput, JobFailed
from jobs.dose import compare, compare_inputs
from jobs.dose.compare import measure
from jobs.dose.npz import read_npz, write_npz
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.region import NOTHING, Rectangle, common_rectangle, largest_rectangle
from jobs.dose_kinds.compare import CompareParams, DoseCompare
from kernels.diffraction import frc
from kernels.diffraction.registration import Alignment, Shift, Shifted, align
from kernels.diffraction.similarity import phase_images
from tests.jobs.context import Recorder
from tests.kernels.diffraction.pictures import noise, ramp, waves

SHAPE = (64, 72)
TRUTH = waves(SHAPE)
NAMED: dict[str, Any] = {
    "condition": "d1000_dense_gs2_s42",
    "photons": 1000.0,
    "view": "dense",
    "gridsize": 2,
    "seed": 42,
}
NUMBERS = ("ssim_phase", "ssim_amplitude", "psnr_phase", "mae_phase", "mse_amplitude", "relative_error", "frc50")


@pytest.fixture(autouse=True)
def _small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the dots: figures are most of the time here."""
    monkeypatch.setattr("jobs.dose.figures._DPI", 60)


def made(image: Any, *, origin: tuple[int, int] = (3, 5), border: int = 4) -> Reconstruction:
    covered = np.zeros(image.shape, dtype=bool)
    covered[border : image.shape[0] - border, border : image.shape[1] - border] = True
    return Reconstruction(np.asarray(image, dtype=np.complex64), origin, covered, None, {"epochs": 3})


def handed(root: Path, given: Mapping[str, Reconstruction]) -> dict[str, Path]:
    """Folders as the jobs of the study leave them."""
    for name, what in given.items():
        (root / name).mkdir(parents=True)
        what.save(root / name / ("truth.npz" if name == "truth" else "reconstruction.npz"))
    return {name: root / name for name in given}


def job(root: Path, inputs: Mapping[str, Path], **params: Any) -> Recorder:
    context = Recorder(DoseCompare(), CompareParams(**{**NAMED, **params}), root / "job", inputs=inputs)
    context.run()
    return context


def rows(context: Recorder) -> dict[str, dict[str, Any]]:
    return {row["arm"]: row for row in context.tables["dose_metrics"]}


def arms_that_differ_by_gauge() -> dict[str, Reconstruction]:
    """The same quality three times: as it is, with another ramp and scale, and shifted too."""
    rough = 0.1
    moved = waves(SHAPE, x=1.4, y=-0.8) + noise(SHAPE, rough, seed=12)
    return {
        "pinn": made(TRUTH + noise(SHAPE, rough, seed=11)),
        "supervised": made((2 - 1j) * ramp(SHAPE, 0.09, 0.04) * (TRUTH + noise(SHAPE, rough, seed=11))),
        "lsqml": made(0.3j * ramp(SHAPE, -0.05, 0.11) * moved),
    }


def test_every_arm_goes_through_the_same_alignment() -> None:
    found = measure(arms_that_differ_by_gauge(), made(TRUTH, border=0))
    first, second, third = (found.arms[name] for name in ("pinn", "supervised", "lsqml"))
    assert second.similarity.relative_error == pytest.approx(first.similarity.relative_error, rel=1e-4)
    assert third.similarity.relative_error == pytest.approx(first.similarity.relative_error, rel=0.1)
    assert third.similarity.ssim_phase == pytest.approx(first.similarity.ssim_phase, abs=0.03)
    assert (third.aligned.shift.x, third.aligned.shift.y) == pytest.approx((1.4, -0.8), abs=0.05)
    assert all(each.object.shape == found.reference.shape for each in found.arms.values())


@pytest.mark.parametrize("spared", ["supervised", "lsqml"])
def test_an_arm_that_is_not_registered_loses(spared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap, put back: with all arms but one aligned, arms of one quality are no longer alike."""
    arms = arms_that_differ_by_gauge()
    box = common_rectangle([made(TRUTH, border=0), *arms.values()])
    raw = compare.cut(arms[spared].object, arms[spared].origin, box).astype(np.complex128)

    def all_but_one(image: Any, reference: Any, _seen: Any, **options: Any) -> Alignment:
        if np.array_equal(image, raw):
            return Alignment(image, Shift(0.0, 0.0, Shifted.APPLIED), 0.0, 0.0, 1 + 0j)
        return align(image, reference, **options)

    monkeypatch.setattr(compare, "align_seen", all_but_one)
    found = measure(arms, made(TRUTH, border=0))
    assert found.arms[spared].similarity.relative_error > 3 * found.arms["pinn"].similarity.relative_error


def test_the_region_is_what_all_cover() -> None:
    truth = made(TRUTH, border=0)
    other = made(waves((40, 50)), origin=(10, 20), border=2)
    assert common_rectangle([truth, other]) == Rectangle(12, 22, 36, 46)
    assert common_rectangle([truth, made(TRUTH, origin=(100, 5))]) == NOTHING
    holed = made(TRUTH, border=0)
    holed.covered[20] = False
    found = measure({"pinn": made(TRUTH + noise(SHAPE, 0.1)), "lsqml": holed}, truth)
    assert found.region.trimmed(-found.trimmed) == Rectangle(3 + 21, 5 + 4, 64 - 4 - 21, 72 - 8)
    shown = compare.cut(TRUTH, (3, 5), found.region)
    np.testing.assert_allclose(found.reference, shown, atol=1e-6)


def test_the_largest_rectangle_by_trying_all() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    for _ in range(40):
        mask = rng.random((6, 7)) < 0.7
        best = max(
            (h * w)
            for top in range(6)
            for left in range(7)
            for h in range(7 - top)
            for w in range(8 - left)
            if mask[top : top + h, left : left + w].all()
        )
        found = largest_rectangle(mask)
        assert found.height * found.width == best
        assert mask[found.top : found.top + found.height, found.left : found.left + found.width].all()
    assert largest_rectangle(np.zeros((3, 3), dtype=bool)) == NOTHING


def test_all_arms_are_trimmed_alike_for_the_longest_shift() -> None:
    near = made(TRUTH + noise(SHAPE, 0.05))
    far = made(waves(SHAPE, x=2.4) + noise(SHAPE, 0.05))
    alone, both = (measure(arms, made(TRUTH, border=0)) for arms in ({"pinn": near}, {"pinn": near, "lsqml": far}))
    assert alone.trimmed <= 1
    assert both.trimmed == 3
    assert both.region == Rectangle(3 + 4 + 3, 5 + 4 + 3, 64 - 8 - 6, 72 - 8 - 6)
    # A shift that is not believed is not applied, and costs the others nothing.
    capped = measure({"pinn": near, "lsqml": far}, made(TRUTH, border=0), cap=1.0)
    assert capped.trimmed == alone.trimmed


def test_a_job_writes_rows_curves_arrays_and_figures(tmp_path: Path) -> None:
    truth = made(TRUTH, border=0)
    folders = handed(tmp_path, {"truth": truth, **arms_that_differ_by_gauge(), "mean": made(np.ones(SHAPE))})
    context = job(tmp_path, folders)
    found = rows(context)
    assert list(found) == ["pinn", "supervised", "lsqml", "mean"]
    assert context.expected["rows"] == {"dose_metrics": 4}
    for name in context.expected["artifacts"]:
        assert (context.artifacts / name).stat().st_size > 0, name
    for name, row in found.items():
        assert row["status"] == "measured", row["reason"]
        assert row["control"] == (name == "mean")
        assert row["against"] == "truth"
        assert all(isinstance(row[n], float) for n in NUMBERS if n != "frc50")
        assert row["ms_ssim_phase"] is None
        assert "160 pixels" in row["flags"]
    for metric in ("relative_error", "mae_phase", "mse_amplitude"):
        assert found["mean"][metric] > 2 * found["lsqml"][metric], metric
    assert found["mean"]["shift_state"] == str(Shifted.FLAT)
    assert found["lsqml"]["ramp_x"] == pytest.approx(-0.05, abs=1e-3)
    curves = context.tables["dose_frc"]
    assert {row["arm"] for row in curves} == set(found)
    assert max(row["frequency"] for row in curves) <= 0.5
    read = json.loads((context.artifacts / "metrics.json").read_text())
    assert read["schema"] == "lab.dose-compare/1"
    assert read["condition"] == NAMED
    assert read["rows"] == context.tables["dose_metrics"]
    assert read["frc"]["pinn"]["frc"] == [row["frc"] for row in curves if row["arm"] == "pinn"]
    assert read["arms"]["pinn"] == {"epochs": 3}
    arrays = read_npz(context.artifacts / "aligned.npz")
    assert set(arrays) == {"truth", "region", *found}
    assert arrays["pinn"].dtype == np.complex64
    assert list(arrays["region"][2:]) == list(arrays["truth"].shape)


def test_units_stand_in_the_table() -> None:
    schema = DoseCompare().tables()["dose_metrics"]
    units = {f.name: (f.metadata or {}).get(b"unit", b"").decode() for f in schema}
    assert units["frc50"] == "cycles/pixel"
    assert (units["mae_phase"], units["shift_x"], units["psnr_phase"]) == ("rad", "pixels", "dB")
    assert set(schema.metadata[b"lab.headline"].decode().split(",")) <= set(schema.names)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    given = {"truth": made(TRUTH, border=0), "lsqml": made(TRUTH + noise(SHAPE, 0.2))}
    written = []
    for n in (1, 2):
        context = job(tmp_path / str(n), handed(tmp_path / str(n), given), arms=["lsqml"])
        written.append({p.name: p.read_bytes() for p in context.artifacts.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"metrics.json", "aligned.npz", "objects.png", "frc.png"}


def test_what_is_missing_or_spoilt_is_a_row_with_its_reason(tmp_path: Path) -> None:
    folders = handed(
        tmp_path,
        {
            "truth": made(TRUTH, border=0),
            "lsqml": made(TRUTH + noise(SHAPE, 0.1)),
            "pinn": made(np.zeros(SHAPE)),
            "untrained": made(TRUTH, border=25),
        },
    )
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / "reconstruction.npz").write_bytes(b"PK nothing")
    context = job(tmp_path, {**folders, "mean": tmp_path / "mean"})
    found = rows(context)
    assert {name: row["status"] for name, row in found.items()} == {
        "pinn": "failed",
        "supervised": "missing",
        "lsqml": "measured",
        "untrained": "failed",
        "mean": "failed",
    }
    assert "zero" in found["pinn"]["reason"]
    assert "failed or was not run" in found["supervised"]["reason"]
    assert "32 pixels" in found["untrained"]["reason"]
    assert "cannot be read" in found["mean"]["reason"]
    assert all(found["pinn"][n] is None for n in NUMBERS)
    assert found["lsqml"]["region_height"] == 64 - 8 - 2 * found["lsqml"]["trimmed"]
    assert set(read_npz(context.artifacts / "aligned.npz")) == {"truth", "lsqml", "region"}


@pytest.mark.parametrize(
    ("word", "value"), [("arm", "supervised"), ("photons", 1e4), ("view", "sparse"), ("gridsize", 1), ("seed", 43)]
)
def test_a_reconstruction_of_another_condition_is_not_measured(word: str, value: Any, tmp_path: Path) -> None:
    own = {k: v for k, v in NAMED.items() if k != "condition"} | {"arm": "pinn"}
    lsqml = made(TRUTH)
    arms = {"pinn": made(TRUTH + noise(SHAPE, 0.1)), "lsqml": lsqml, "ptychi": replace(lsqml, meta={"arm": "lsqml"})}
    for meta, status in ((own, "measured"), (own | {word: value}, "failed")):
        arms["pinn"] = replace(arms["pinn"], meta=meta)
        handed_over = handed(tmp_path / status, {"truth": made(TRUTH, border=0), **arms})
        context = Recorder(DoseCompare(), CompareParams(**NAMED), tmp_path / status / "job", inputs=handed_over)
        given = compare_inputs.gather(context)
        assert ("pinn" in given.arms) is (status == "measured")
        assert {"lsqml", "ptychi"} < set(given.arms) | {"pinn"}
    assert given.unreadable["pinn"].startswith(f"it is a reconstruction of {word}={value!r}, not {own[word]!r}")


def test_the_training_half_is_measured_by_itself_on_its_own_part(tmp_path: Path) -> None:
    """It lies elsewhere in the object: together with the others nothing would be left to compare."""
    whole = waves((150, 72))
    truth = Reconstruction(whole.astype(np.complex64), (0, 0), np.ones(whole.shape, dtype=bool))

    def part(rows_: slice, rough: float, split: str) -> Reconstruction:
        image = (whole[rows_] + noise(whole[rows_].shape, rough)).astype(np.complex64)
        return Reconstruction(image, (rows_.start, 0), np.ones(image.shape, dtype=bool), None, {"split": split})

    halves = {"lsqml": part(slice(0, 64), 0.1, "test"), "lsqml_train": part(slice(90, 150), 0.2, "train")}
    given = handed(tmp_path, {"truth": truth, **halves})
    context = job(tmp_path / "both", given, arms=["lsqml", "lsqml_train"])
    found = rows(context)
    assert {name: row["status"] for name, row in found.items()} == {"lsqml": "measured", "lsqml_train": "measured"}
    assert found["lsqml"]["region_top"] + found["lsqml"]["region_height"] <= 64
    assert found["lsqml_train"]["region_top"] >= 90
    assert found["lsqml_train"]["relative_error"] == pytest.approx(2 * found["lsqml"]["relative_error"], rel=0.1)
    assert context.expected["rows"] == {"dose_metrics": 2}
    assert {row["arm"] for row in context.tables["dose_frc"]} == set(found)
    # Without it the arm has the very same numbers, and with both in one region there is none.
    alone = rows(job(tmp_path / "alone", {n: given[n] for n in ("truth", "lsqml")}, arms=["lsqml"]))
    assert alone["lsqml"] == found["lsqml"]
    with pytest.raises(JobFailed, match="cover no rectangle"):
        measure({"lsqml": halves["lsqml"], "lsqml_train": halves["lsqml_train"]}, truth)
    # One that did not come, or is the wrong half, or cannot be measured, is a row and no end.
    missing = rows(job(tmp_path / "missing", {n: given[n] for n in ("truth", "lsqml")}, arms=["lsqml", "lsqml_train"]))
    assert missing["lsqml_train"]["status"] == "missing"
    assert missing["lsqml"] == found["lsqml"]
    part(slice(90, 150), 0.2, "test").save(given["lsqml_train"] / "reconstruction.npz")
    wrong = rows(job(tmp_path / "wrong", given, arms=["lsqml", "lsqml_train"]))["lsqml_train"]
    assert (wrong["status"], wrong["reason"]) == ("failed", "it is a reconstruction of split='test', not 'train'")
    replace(halves["lsqml_train"], object=np.zeros((60, 72), np.complex64)).save(
        given["lsqml_train"] / "reconstruction.npz"
    )
    dark = rows(job(tmp_path / "dark", given, arms=["lsqml", "lsqml_train"]))
    assert dark["lsqml_train"]["status"] == "failed"
    assert "zero" in dark["lsqml_train"]["reason"]
    assert dark["lsqml"] == found["lsqml"]


def test_a_resolution_in_a_row_is_where_its_stored_curve_crosses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against the curve that lies beside it: the number of a ring is caught, whatever it is called."""
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(TRUTH + noise(SHAPE, 0.12))})

    def fits(name: str) -> bool:
        context = job(tmp_path / name, given, arms=["lsqml"])
        read = json.loads((context.artifacts / "metrics.json").read_text())
        (row,), curve = read["rows"], read["frc"]["lsqml"]
        assert row["frc50_reached"] == "crosses"
        known = np.interp(row["frc50"], curve["frequency"], curve["frc"], right=-1.0)
        return bool(abs(known - 0.5) < 1e-6) and bool(row["frc50_of_nyquist"] == pytest.approx(2 * row["frc50"]))

    assert fits("right")

    def ring(curve: frc.Curve, threshold: Any = 0.5) -> frc.Cutoff:
        first = int(np.flatnonzero(curve.frc < threshold)[0]) + 1
        return frc.Cutoff(float(first), frc.Reached.CROSSES)

    monkeypatch.setattr("jobs.dose.compare_rows.cutoff", ring)
    assert not fits("ring")
    monkeypatch.setattr(
        "jobs.dose.compare_rows.cutoff",
        lambda curve, threshold=0.5: frc.Cutoff(
            ring(curve, threshold).frequency / (2 * len(curve.frc)), frc.Reached.CROSSES
        ),
    )
    assert not fits("ring of Nyquist"), "not even one that is rounded to a whole ring"


def test_ms_ssim_is_what_the_named_library_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: a home-made one. What is recorded is asked itself, of the very images that were compared."""
    import pytorch_msssim
    import torch

    shape = (188, 184)
    truth = waves(shape)
    given = handed(tmp_path, {"truth": made(truth, border=0), "lsqml": made(truth + noise(shape, 0.2))})
    context = job(tmp_path / "job", given, arms=["lsqml"])
    read = json.loads((context.artifacts / "metrics.json").read_text())
    told, (row,) = read["made_with"]["ms_ssim"], read["rows"]
    assert told["by"] == f"pytorch-msssim {version('pytorch-msssim')}"
    assert (row["ms_ssim_scales"], row["ms_ssim_blur"]) == (told["scales"], told["blur_sigma"]) == (5, 1.0)
    arrays = read_npz(context.artifacts / "aligned.npz")
    phases = phase_images(arrays["lsqml"].astype(np.complex128), arrays["truth"].astype(np.complex128))
    first, second = (torch.from_numpy(np.ascontiguousarray(p))[None, None] for p in phases)

    def asked(**other: Any) -> float:
        words = {
            "win_size": told["window"],
            "win_sigma": told["window_sigma"],
            "weights": told["weights"],
            "K": told["k"],
        }
        return float(pytorch_msssim.ms_ssim(first, second, data_range=float(np.ptp(phases[1])), **{**words, **other}))

    assert row["ms_ssim_phase"] == pytest.approx(asked(), abs=1e-6)
    # The twins: home-made ones, with another window or scales that count alike; and it is the library that says it.
    assert abs(row["ms_ssim_phase"] - asked(win_sigma=1.0)) > 1e-4
    assert abs(row["ms_ssim_phase"] - asked(weights=[0.2] * 5)) > 1e-3
    monkeypatch.setattr(pytorch_msssim, "ms_ssim", lambda *_, **__: torch.tensor(0.125))
    assert rows(job(tmp_path / "other", given, arms=["lsqml"]))["lsqml"]["ms_ssim_phase"] == 0.125


def test_arms_that_were_not_asked_for_are_not_missing(tmp_path: Path) -> None:
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(TRUTH + noise(SHAPE, 0.1))})
    assert list(rows(job(tmp_path, given, arms=["lsqml"]))) == ["lsqml"]


def test_a_shift_over_the_cap_is_flagged(tmp_path: Path) -> None:
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(waves(SHAPE, x=2.5))})
    row = rows(job(tmp_path, given, arms=["lsqml"], shift_cap=1.0))["lsqml"]
    assert row["shift_state"] == str(Shifted.OVER_CAP)
    assert row["shift_x"] == pytest.approx(2.5, abs=0.2)
    assert row["flags"].startswith("not registered")
    assert row["trimmed"] == 0


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(np.zeros(SHAPE))})
    with pytest.raises(JobFailed, match="no arm can be compared: lsqml: "):
        job(tmp_path / "1", given)
    with pytest.raises(JobFailed, match="no arm can be compared: pinn: no reconstruction came"):
        job(tmp_path / "2", {"truth": given["truth"]})
    with pytest.raises(BadInput, match="neither a truth nor a reference"):
        job(tmp_path / "3", {"lsqml": given["lsqml"]})
    with pytest.raises(BadInput, match="both a truth and a reference"):
        job(tmp_path / "4", {**given, "reference": given["lsqml"]})
    with pytest.raises(ValueError, match="no arm is called"):
        CompareParams(**NAMED, arms=["linear"])


def test_arms_that_cover_nothing_together_are_named() -> None:
    left, right = made(TRUTH, border=0), made(TRUTH, border=0)
    left.covered[:, 36:], right.covered[:, :36] = False, False
    with pytest.raises(JobFailed, match=r"pinn: 64×36 .*lsqml: 64×36"):
        measure({"pinn": left, "lsqml": right}, made(TRUTH, border=0))


def test_a_measured_set_has_a_reference_and_two_halves(tmp_path: Path) -> None:
    rough = {"lsqml": 11, "half_a": 12, "half_b": 13}
    noisy = {name: made(TRUTH + noise(SHAPE, 0.15, seed=seed)) for name, seed in rough.items()}
    folders = handed(tmp_path, {"reference": made(TRUTH), **noisy})
    context = job(tmp_path, folders, arms=["lsqml"])
    found = rows(context)
    assert list(found) == ["lsqml", "halves"]
    assert found["lsqml"]["against"] == "reference"
    assert found["lsqml"]["frc50_of_nyquist"] == pytest.approx(2 * found["lsqml"]["frc50"])
    # Two noisy halves agree less far than one of them and what has no noise.
    assert 0 < found["halves"]["frc_half_bit"] < found["lsqml"]["frc_half_bit"]
    assert found["halves"]["relative_error"] is None
    assert {row["arm"] for row in context.tables["dose_frc"]} == {"lsqml", "halves"}
    alike = handed(tmp_path / "same", {"reference": made(TRUTH), "lsqml": noisy["lsqml"], "half_a": noisy["half_a"]})
    told = job(tmp_path / "one", alike, arms=["lsqml"])
    assert rows(told)["halves"]["status"] == "failed"
    assert rows(told)["halves"]["reason"] == "half_b is missing"
    assert any("half_b is missing" in line for line in told.logs)
    assert told.expected["rows"] == {"dose_metrics": 2}


@pytest.mark.parametrize(
    ("half", "why"),
    [
        (np.zeros(SHAPE), "half_b: an object that is zero wherever it is compared"),
        (waves(SHAPE, x=6.5) + noise(SHAPE, 0.05), "half_b is not registered: its shift, .* is over the cap of 4 px"),
        (np.full(SHAPE, np.nan), "not finite where it is covered"),
    ],
)
def test_a_half_that_cannot_be_compared_takes_nothing_else_with_it(half: Any, why: str, tmp_path: Path) -> None:
    good = {name: made(TRUTH + noise(SHAPE, 0.15, seed=s)) for name, s in {"lsqml": 11, "half_a": 12}.items()}
    folders = handed(tmp_path, {"reference": made(TRUTH), **good, "half_b": made(TRUTH)})
    fine = made(np.ones(SHAPE))
    object.__setattr__(fine, "object", np.asarray(half, np.complex64))
    fine.save(folders["half_b"] / "reconstruction.npz")
    context = job(tmp_path, folders, arms=["lsqml"])
    found = rows(context)
    assert (found["lsqml"]["status"], found["halves"]["status"]) == ("measured", "failed")
    assert re.search(why, found["halves"]["reason"])
    assert found["halves"]["frc_half_bit"] is None
    assert context.expected["rows"] == {"dose_metrics": len(found)}
    read = json.loads((context.artifacts / "metrics.json").read_text())
    assert "not compared" in read["notes"][0]
    assert "halves" not in read["frc"]
    # The twin: with two good halves the arm has the very same numbers, and the halves have some too.
    made(TRUTH + noise(SHAPE, 0.15, seed=13)).save(folders["half_b"] / "reconstruction.npz")
    whole = rows(job(tmp_path / "twin", folders, arms=["lsqml"]))
    assert whole["halves"]["frc_half_bit"] > 0
    assert whole["lsqml"]["relative_error"] == pytest.approx(found["lsqml"]["relative_error"], rel=0.02)


def test_a_half_that_covers_little_does_not_take_the_region_from_the_arms() -> None:
    arm, little = made(TRUTH + noise(SHAPE, 0.1)), made(TRUTH, border=25)
    both = measure({"lsqml": arm}, made(TRUTH), halves=(made(TRUTH), little))
    assert both.halves is None
    assert "with the halves all cover no rectangle of 32 pixels" in both.apart
    assert both.region == measure({"lsqml": arm}, made(TRUTH)).region


def test_what_the_job_of_a_missing_arm_died_of_is_in_its_row(tmp_path: Path) -> None:
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(TRUTH + noise(SHAPE, 0.1))})
    context = Recorder(DoseCompare(), CompareParams(**NAMED, arms=["pinn", "lsqml"]), tmp_path / "job", inputs=given)
    why = "dose/pinn_d1000 failed: the loss of step 3 is nan"
    context.raw = {"absent": [{"name": "pinn", "made": {"why": why}}, {"name": "supervised", "made": {"why": "other"}}]}
    given_over = compare_inputs.gather(context)
    assert given_over.missing == {"pinn": f"{compare_inputs.ABSENT}: {why}"}
    context.raw = {}
    assert compare_inputs.gather(context).missing == {"pinn": compare_inputs.ABSENT}


def test_photons_are_counted_by_the_pixel(tmp_path: Path) -> None:
    from jobs.dose.dataset import Dataset

    side, count = 16, 30
    rng = np.random.Generator(np.random.Philox(9))
    x, y = rng.uniform(20, 60, count), rng.uniform(20, 60, count)
    frames = np.full((count, side, side), 0.5, dtype=np.float32)
    Dataset(
        diffraction=frames,
        object_guess=np.ones((96, 96), dtype=np.complex64),
        probe_guess=np.ones((side, side), dtype=np.complex64),
        x=x,
        y=y,
        meta={"photons_drawn": 1024.0},
    ).save(tmp_path / "test.npz")
    given = handed(tmp_path, {"truth": made(TRUTH, border=0), "lsqml": made(TRUTH + noise(SHAPE, 0.1))})
    (tmp_path / "test.npz").rename(given["truth"] / "test.npz")
    (tmp_path / "views").mkdir()
    members = np.array([[0, 1], [1, 2], [2, 3]], dtype=np.int32)
    write_npz(tmp_path / "views" / "test_groups.npz", {"members": members, "centres": np.zeros((3, 2))})
    row = rows(job(tmp_path, {**given, "views": tmp_path / "views"}, arms=["lsqml"]))["lsqml"]
    assert row["frames"] == 4  # each once, however many groups it is in
    assert row["photons_drawn"] == 1024.0
    inside = 0
    for k in range(4):
        top, left = (round(v[k]) - side // 2 for v in (y, x))
        down = np.arange(top, top + side) - row["region_top"]
        across = np.arange(left, left + side) - row["region_left"]
        down_in = ((down >= 0) & (down < row["region_height"])).sum()
        inside += int(down_in) * int(((across >= 0) & (across < row["region_width"])).sum())
    expected = inside * 4.0 / (row["region_height"] * row["region_width"])  # 1024 photons on 256 pixels
    assert row["photons_per_pixel"] == pytest.approx(expected)
