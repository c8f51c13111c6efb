"""The measured study from a user's file to its page: a small star, thinned, and held against the full dose.

Nodes run one after another in this process, each with nothing but what the tree hands it, and the file under the name
that a lane gives it.
"""

from __future__ import annotations

import bz2
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from core.errors import BadInput, JobFailed
from core.kind import load_kind
from core.study import Study
from jobs.dose.measured_tree import measured_tree
from jobs.dose_kinds.study import DoseParams
from kernels.diffraction.lsqml import Settings, batch_order
from kernels.diffraction.lsqml_oracle import moved
from tests.jobs.context import Recorder

N, SIDE, STEP = 32, 8, 6
PHOTONS = 1.2e5


def star(path: Path, *, photons: float = PHOTONS) -> Path:
    """A star of ten spokes with a finer half, as a beamline writes it: counts with DC at [0, 0], (y, x) around 0."""
    rng = np.random.default_rng(3)
    size = N + STEP * (SIDE - 1) + 6
    rows, columns = np.mgrid[:size, :size] - size / 2 + 3.0
    spokes = np.sin(10 * np.arctan2(rows, columns)) * (np.hypot(rows, columns) > 5) > 0
    phase = np.where(spokes & ((columns < 0) | (np.hypot(rows, columns) < 16)), 1.0, 0.0)
    truth = (1 - 0.1 * spokes) * np.exp(1j * phase)
    r = np.hypot(*(np.mgrid[:N, :N] - N // 2))
    probe = np.exp(-((r / 7) ** 2)) * np.exp(0.03j * r**2)
    down, across = np.meshgrid(*(np.arange(SIDE) * float(STEP),) * 2, indexing="ij")
    scan = np.stack([down.ravel(), across.ravel()], axis=1) + rng.uniform(-1, 1, (SIDE**2, 2))
    frames = []
    for y, x in scan + N / 2 + 2:
        row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        seen = truth[row - N // 2 : row + N // 2, column - N // 2 : column + N // 2]
        frames.append(np.abs(np.fft.fft2(moved(probe, y - row, x - column) * seen)) ** 2)
    rates = np.array(frames)
    counts = rng.poisson(rates * photons / rates.sum(axis=(1, 2)).mean())
    data = io.BytesIO()
    arrays = {"data": counts[None].astype(np.float32), "probe": probe.astype(np.complex64), "scan": scan - scan.mean(0)}
    np.savez_compressed(data, **arrays)
    path.write_bytes(bz2.compress(data.getvalue()) if path.suffix == ".bz2" else data.getvalue())
    return path


def run_all(root: Path, study: Study, *, only: tuple[str, ...] = ()) -> dict[str, Recorder]:
    """Every node whose name begins with one of `only`, or all; what a failed one makes is absent."""
    done: dict[str, Recorder] = {}
    for node in study.nodes():
        if only and not node.name.startswith(only):
            continue
        kind = load_kind(node.kind)
        job = Recorder(kind, kind.Params(**node.params), root / node.name, cores=1)
        for name, path in job.inputs.items():  # as on a lane: under the input's name, without an ending
            job.inputs[name] = job.work / name
            shutil.copyfile(path, job.inputs[name])
        job.inputs |= {take.name: done[str(take.job)].artifacts for take in node.takes}
        job.run()
        done[node.name] = job
    return done


def test_from_a_file_to_a_page(tmp_path: Path) -> None:
    data = star(tmp_path / "star.npz.bz2")
    study = measured_tree(DoseParams(data=str(data), doses=[1e3, 1e5], seeds=[42], lsqml_epochs=12))
    assert f"star.npz.bz2: {SIDE**2} frames of" in study.notes[0]
    done = run_all(tmp_path / "run", study)
    full = done["lsqml_full"].tables["dose_lsqml"][0]
    assert (full["axes"], full["batch"], full["start_correlation"]) == ("right", 22, None)
    assert "measured star.npz.bz2" in done["data_full"].tables["dose_data"][0]["source"]

    rows = {}
    for dose in (1000, 100000):
        found = {r["arm"]: r for r in done[f"compare_d{dose}_measured_gs1_s42"].tables["dose_metrics"]}
        assert set(found) >= {"lsqml", "halves"}
        assert found["lsqml"]["status"] == "measured"
        assert found["lsqml"]["against"] == "reference"
        assert found["halves"]["against"] == "half_a of half_b"
        rows[dose] = found["lsqml"]
    # Fewer photons, less of the star.
    assert rows[100000]["frc50"] > 1.3 * rows[1000]["frc50"] > 0
    assert rows[100000]["relative_error"] < 0.5 * rows[1000]["relative_error"]
    page = (done["summary"].artifacts / "index.html").read_text()
    assert page.count("<img") == 2
    assert "2 of 2 planned conditions were compared" in (done["summary"].artifacts / "summary.md").read_text()


def test_swapped_columns_stop_the_study_and_right_ones_do_not(tmp_path: Path) -> None:
    data = star(tmp_path / "star.npz")
    only = ("data_full", "views", "lsqml_full")
    with pytest.raises(JobFailed, match="x and y of the scan are swapped"):
        swapped = DoseParams(data=str(data), scan_order="xy", lsqml_epochs=1)
        run_all(tmp_path / "swapped", measured_tree(swapped), only=only)
    right = run_all(tmp_path / "right", measured_tree(DoseParams(data=str(data), lsqml_epochs=1)), only=only)
    assert right["lsqml_full"].tables["dose_lsqml"][0]["axes"] == "right"


def test_a_dose_that_was_not_measured_is_a_skip_with_its_numbers(tmp_path: Path) -> None:
    data = star(tmp_path / "dim.npz", photons=2e4)
    study = measured_tree(DoseParams(data=str(data)))
    names = [node.name for node in study.nodes()]
    assert not any("d100000" in name for name in names)
    assert "compare_d10000_measured_gs1_s43" in names
    assert any(note.startswith("skipped: 100000 photons: ") for note in study.notes)
    skips = study.nodes()[-1].params["skips"]
    assert [s["condition"] for s in skips] == ["d100000_measured_gs1_s42", "d100000_measured_gs1_s43"]
    assert skips[0]["numbers"]["photons_measured"] == pytest.approx(2e4, rel=0.01)
    with pytest.raises(BadInput, match="photons a pattern were measured"):
        measured_tree(DoseParams(data=str(data), doses=[1e5]))
    bright = measured_tree(DoseParams(data=str(star(tmp_path / "bright.npz"))))
    assert bright.nodes()[-1].params["skips"] == []


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_that_are_none_are_refused(tmp_path: Path, seeds: list[int]) -> None:
    data = str(star(tmp_path / "star.npz"))
    with pytest.raises(BadInput, match="seeds="):
        measured_tree(DoseParams(data=data, seeds=seeds))
    assert measured_tree(DoseParams(data=data, seeds=[0, 1])).notes


def test_what_is_no_measured_set_is_refused_before_anything_is_submitted(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"no set")
    with pytest.raises(BadInput, match=r"no\.npz cannot be read as NPZ"):
        measured_tree(DoseParams(data=str(tmp_path / "no.npz")))


@pytest.mark.parametrize(("frames", "batch"), [(1, 1), (64, 22), (516, 172), (9000, 512)])
def test_a_minibatch_is_a_third_of_the_frames(frames: int, batch: int) -> None:
    from jobs.dose.lsqml_run import a_third

    assert a_third(frames) == batch
    assert Settings(batch=a_third(frames)).batch == batch
    assert len(range(0, len(batch_order(min(frames, 600), 0, 0)), batch)) <= 3
