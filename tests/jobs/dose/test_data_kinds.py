"""The kinds dose-data and dose-views: whole jobs on a small scan, their bytes, and what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BadInput
from jobs.dose.dataset import Dataset, validate
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.simulate import Scene, expose, split_safely
from jobs.dose.views_run import Groups, disc_pixels
from jobs.dose_kinds.data import DoseData, DoseDataParams
from jobs.dose_kinds.views import DoseViews, DoseViewsParams
from kernels.diffraction.forward import intensity, patches
from kernels.diffraction.probe import simulated_probe
from tests.jobs.context import Recorder
from tests.jobs.dose.test_sources import measured_set, user_file

SMALL: dict[str, Any] = {"patch": 16, "rows": 137.0, "cols": 60.0, "step": 4.0, "jitter": 0.75}


def data_job(root: Path, **params: Any) -> Recorder:
    job = Recorder(DoseData(), DoseDataParams(**params), root)
    job.run()
    assert job.expected["rows"] == {"dose_data": len(job.tables["dose_data"])}
    for name in job.expected["artifacts"]:
        assert (job.artifacts / name).stat().st_size
    return job


def views_job(root: Path, data: Path, **params: Any) -> Recorder:
    job = Recorder(DoseViews(), DoseViewsParams(**params), root, inputs={"data": data})
    job.run()
    return job


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return data_job(tmp_path_factory.mktemp("made") / "job", photons=1e4, **SMALL)


def test_a_simulated_dose(made: Recorder) -> None:
    train, test = (Dataset.load(made.artifacts / f"{name}.npz") for name in ("train", "test"))
    truth = Reconstruction.load(made.artifacts / "truth.npz")
    rows = {row["file"]: row for row in made.tables["dose_data"]}
    frames = train.count + test.count
    drawn = (train.counts().sum() + test.counts().sum()) / frames
    assert abs(drawn - 1e4) < 4 * (1e4 / frames) ** 0.5
    assert rows["train"]["deviation"] == pytest.approx((drawn - 1e4) / (1e4 / frames) ** 0.5, abs=1e-6)
    for name, data in (("train", train), ("test", test)):
        validate(data)
        assert rows[name]["photons_mean"] == data.counts().sum() / data.count == data.meta["photons_drawn"]
        assert rows[name]["shared_pixels"] == 0
        assert truth.probe is not None
        assert truth.probe.tobytes() == data.probe_guess.tobytes()
        assert truth.object.tobytes() == data.object_guess.tobytes()
        # What is stored is the forward model of the truth, up to the noise of so many photons.
        seen = patches(truth.object, data.x, data.y, 16)
        np.testing.assert_array_equal(data.patches, seen.astype(np.complex64))
        rates = np.fft.fftshift(intensity(data.probe_guess, seen), axes=(1, 2)) * data.scale**2
        chi = ((data.counts() - rates) ** 2 / np.maximum(rates, 1e-9))[rates > 5]
        assert 0.95 < chi.mean() < 1.05
    assert rows["train"]["guard_frames"] + frames == 35 * 16
    told = json.loads((made.artifacts / "data.json").read_text())
    assert told["params"]["photons"] == 1e4
    assert told["files"] == made.tables["dose_data"]


def test_same_seed_same_bytes_another_seed_other_bytes(made: Recorder, tmp_path: Path) -> None:
    names = ("train.npz", "test.npz", "truth.npz", "data.json")
    again = data_job(tmp_path / "again", photons=1e4, **SMALL)
    other = data_job(tmp_path / "other", photons=1e4, seed=43, **SMALL)
    dose = data_job(tmp_path / "dose", photons=1e3, **SMALL)
    for name in names:
        assert (made.artifacts / name).read_bytes() == (again.artifacts / name).read_bytes()
    assert made.tables == again.tables
    for job in (other, dose):
        for name in ("train.npz", "test.npz"):
            assert (made.artifacts / name).read_bytes() != (job.artifacts / name).read_bytes()
    # The seed moves the scan; the dose does not.
    x = [Dataset.load(job.artifacts / "train.npz").x.tolist() for job in (made, other, dose)]
    assert x[0] != x[1]
    assert x[0] == x[2]


OTHER_LANE = """
import sys
from pathlib import Path
from jobs.dose.data_run import made_of
from jobs.dose_kinds.data import DoseDataParams
made = made_of(DoseDataParams.model_validate_json(sys.argv[2]), None)
for name, data in made.datasets.items():
    data.save(Path(sys.argv[1]) / f"{name}.npz")
"""


def test_a_lane_with_other_vectors_and_threads_makes_the_same_bytes(made: Recorder, tmp_path: Path) -> None:
    params = DoseDataParams(photons=1e4, **SMALL).model_dump_json()
    # Without these, products of complex numbers have other last bits. Names that numpy does not know are passed over.
    less = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4 X86_V3 ASIMDHP SVE"
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": less, "OMP_NUM_THREADS": "3"}
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-W", "ignore", "-c", OTHER_LANE, str(tmp_path), params]
    subprocess.run(command, check=True, env=env, cwd=root)
    for name in ("train.npz", "test.npz"):
        assert (tmp_path / name).read_bytes() == (made.artifacts / name).read_bytes()


def test_a_split_that_leaks_is_refused() -> None:
    x, y = (a.ravel().astype(float) for a in np.meshgrid(np.arange(10, 54, 4), np.arange(10, 90, 4)))
    scene = Scene(np.ones((100, 100), np.complex64), simulated_probe(16), x, y, "flat")
    assert expose(scene, 1e3, seed=1).leakage.shared == 0  # type: ignore[union-attr]
    for guard in (0.0, 8.0):
        with pytest.raises(BadInput, match=r"share \d+ pixels of the object: a guard band of \d px is less"):
            expose(scene, 1e3, seed=1, guard=guard)
    with pytest.raises(BadInput, match="cannot be split along y with a guard band of 17 px"):
        split_safely(x, 10 + y / 10, 16)


def test_a_users_object_at_another_dose(tmp_path: Path) -> None:
    y = np.array([10.0, 11, 11.25, 29, 29.5, 30])
    given = user_file(tmp_path / "mine.npz", ycoords=y)
    job = data_job(tmp_path / "job", source=str(tmp_path / "mine.npz"), photons=1e5)
    train, test = (Dataset.load(job.artifacts / f"{name}.npz") for name in ("train", "test"))
    assert [*train.y, *test.y] == y.tolist()
    np.testing.assert_allclose(train.object_guess, given["objectGuess"], rtol=1e-6)
    assert abs(train.counts().sum() / 3 - 1e5) < 1e4
    with pytest.raises(ValueError, match="patch means nothing"):
        DoseDataParams(source="mine.npz", patch=32)
    user_file(tmp_path / "edge.npz", ycoords=y + 1.75)
    with pytest.raises(BadInput, match="ycoords: expected positions up to 31"):
        data_job(tmp_path / "edge", source=str(tmp_path / "edge.npz"))


def test_a_measured_set_thinned(tmp_path: Path) -> None:
    measured_set(tmp_path / "set.npz.bz2")
    job = data_job(tmp_path / "job", mode="measured", source=str(tmp_path / "set.npz.bz2"), photons=100.0)
    rows = {row["file"]: row for row in job.tables["dose_data"]}
    assert set(rows) == {"train", "half_a", "half_b"}
    assert rows["train"]["fraction"] == pytest.approx(0.25, rel=0.1)
    assert rows["train"]["truth_sha256"] is None
    assert not (job.artifacts / "truth.npz").exists()
    counts = {name: Dataset.load(job.artifacts / f"{name}.npz").counts() for name in rows}
    np.testing.assert_array_equal(counts["half_a"] + counts["half_b"], counts["train"])
    half = data_job(tmp_path / "half", mode="measured", source=str(tmp_path / "set.npz.bz2"), photons=100.0, half=2)
    np.testing.assert_array_equal(Dataset.load(half.artifacts / "train.npz").counts(), counts["half_b"])
    views = views_job(tmp_path / "views", job.artifacts)
    assert [row["split"] for row in views.tables["dose_spacing"]] == ["train"]
    # What was written once may be thinned again.
    again = data_job(tmp_path / "again", mode="measured", source=str(job.artifacts / "train.npz"), photons=None)
    np.testing.assert_array_equal(Dataset.load(again.artifacts / "train.npz").counts(), counts["train"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "measured"}, "needs source=FILE"),
        ({"photons": None}, "a simulation needs photons"),
        ({"half": 1}, "half means nothing"),
        ({"scan_order": "xy"}, "scan_order means nothing"),
        ({"mode": "measured", "source": "a", "train_fraction": 0.4}, "train_fraction means nothing"),
        ({"amplitude": "moon"}, "both moon"),
        ({"low": 2.0}, "low=2.0"),
        ({"photons": 0}, "photons"),
    ],
)
def test_parameters_that_do_not_go_together(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DoseDataParams(**params)


def test_views_of_a_dose(made: Recorder, tmp_path: Path) -> None:
    jobs = {
        name: views_job(tmp_path / name, made.artifacts, view=name, overlap=f, gridsize=g)
        for name, f, g in (("baseline", None, 1), ("dense", 0.7, 2), ("sparse", 0.2, 2))
    }
    for name, job in jobs.items():
        for row in job.tables["dose_spacing"]:
            data = Dataset.load(made.artifacts / f"{row['split']}.npz")
            groups = Groups.load(job.artifacts / f"{row['split']}_groups.npz", data.count)
            assert len(groups.members) == row["groups"] == row["accepted"] >= 16
            assert len(groups.frames) == row["frames_used"]
            assert row["threshold"] == {"baseline": 0, "dense": 4.8, "sparse": 12.8}[name]
            assert row["least"] >= row["threshold"]
            assert row["photons_per_pixel"] * row["disc_pixels"] == pytest.approx(
                data.counts()[groups.frames].sum(), rel=1e-12
            )
            assert sum(row["histogram"]) == row["groups"]
            assert row["overlap_in_group"] is None if name == "baseline" else 0 < row["overlap_in_group"] < 1
    perpixel = {name: job.tables["dose_spacing"][0]["photons_per_pixel"] for name, job in jobs.items()}
    assert perpixel["baseline"] > perpixel["dense"] > perpixel["sparse"]
    again = views_job(tmp_path / "again", made.artifacts, view="dense", overlap=0.7, gridsize=2)
    other = views_job(tmp_path / "other", made.artifacts, view="dense", overlap=0.7, gridsize=2, seed=124)
    file = "train_groups.npz"
    assert (again.artifacts / file).read_bytes() == (jobs["dense"].artifacts / file).read_bytes()
    assert again.tables == jobs["dense"].tables
    assert (other.artifacts / file).read_bytes() != (jobs["dense"].artifacts / file).read_bytes()


def test_an_infeasible_view_fails_with_its_numbers(made: Recorder, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"the view far is infeasible: train: .* px with \d+ frames holds \d+ groups? at a"
    ) as caught:
        views_job(tmp_path / "far", made.artifacts, view="far", overlap=0.0, gridsize=2, least=30)
    assert "spacing of 16 px" in caught.value.message
    assert "; test: " in caught.value.message
    views_job(tmp_path / "near", made.artifacts, view="far", overlap=0.0, gridsize=2, least=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"has no train\.npz"):
        views_job(tmp_path / "none", tmp_path / "empty")
    for params in (
        {"gridsize": 3, "neighbours": 7},
        {"per_point": 2},
        {"gridsize": 2, "neighbours": 4, "per_point": 2},
    ):
        with pytest.raises(ValueError, match="neighbours"):
            DoseViewsParams(**params)


def test_groups_of_other_frames_are_refused(tmp_path: Path) -> None:
    members, centres = np.array([[0, 5]], np.int32), np.zeros((1, 2))
    Groups(members, centres).save(tmp_path / "a.npz")
    assert Groups.load(tmp_path / "a.npz", 6).members.tolist() == [[0, 5]]
    with pytest.raises(BadInput, match="members: expected frames 0 to 4, found 0 to 5"):
        Groups.load(tmp_path / "a.npz", 5)
    Groups(members.astype(np.int64), centres).save(tmp_path / "b.npz")
    with pytest.raises(BadInput, match=r"members: expected int32 \(g, C\), found int64"):
        Groups.load(tmp_path / "b.npz", 6)
    Groups(members, centres[:, :1]).save(tmp_path / "c.npz")
    with pytest.raises(BadInput, match="centres: expected float64"):
        Groups.load(tmp_path / "c.npz", 6)


def test_disc_pixels_counted() -> None:
    x, y = np.array([20.25, 27.0]), np.array([18.5, 30.75])
    rows, columns = np.mgrid[:60, :60]
    inside = [(columns - a) ** 2 + (rows - b) ** 2 <= 49 for a, b in zip(x, y, strict=True)]
    assert disc_pixels(x, y, 14.0) == (inside[0] | inside[1]).sum()
    assert disc_pixels(x[:0], y[:0], 14.0) == 0
