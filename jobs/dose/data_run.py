"""What `dose-data` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.fsio import sha256_file, write_atomic
from core.kind import Context
from jobs.dose.objects import Photographs, object_of
from jobs.dose.simulate import Made, Scene, expose, thinned
from jobs.dose.sources import read_measured, read_user
from jobs.dose_kinds.data import SOURCE, DoseDataParams, files
from kernels.diffraction import seeds
from kernels.diffraction.probe import simulated_probe
from kernels.diffraction.scan import Geometry, scan_positions


def make(ctx: Context) -> None:
    """Make the datasets, the truth where there is one, and a row for each."""
    params: DoseDataParams = ctx.params
    names = files(params)
    truth = ["truth.npz"] if params.mode == "synthetic" else []
    ctx.expect(rows={"dose_data": len(names)}, artifacts=[*(f"{n}.npz" for n in names), *truth, "data.json"])
    made = made_of(params, ctx.input(SOURCE) if params.source is not None else None)
    assert set(made.datasets) == set(names)
    for name in names:
        made.datasets[name].save(ctx.artifact(f"{name}.npz"))
    if made.truth is not None:
        made.truth.save(ctx.artifact("truth.npz"))
    rows = [row_of(made, name, ctx.artifact(f"{name}.npz")) for name in names]
    text = json.dumps({"params": params.model_dump(), "files": rows}, indent=1, sort_keys=True)
    write_atomic(ctx.artifact("data.json"), (text + "\n").encode())
    ctx.results("dose_data", rows)
    for row in rows:
        ctx.log(f"{row['file']}: {row['frames']} frames, {row['photons_mean']:.6g} photons each")


def made_of(params: DoseDataParams, source: Path | None) -> Made:
    """The datasets that these parameters mean.

    Args:
        source: where the file of `params.source` lies now.

    Raises:
        BadInput: it cannot be used, or the scan cannot be split.
    """
    if params.mode == "measured":
        assert source is not None
        assert params.source is not None
        name = Path(params.source).name
        measured = read_measured(source, scan_order=params.scan_order, dc=params.dc, name=name)
        return thinned(measured, params.photons, seed=params.seed, half=params.half)
    assert params.photons is not None
    scene = scene_of_file(source, Path(params.source or source).name) if source is not None else scene_of(params)
    return expose(scene, params.photons, seed=params.seed, train_fraction=params.train_fraction)


def scene_of(params: DoseDataParams) -> Scene:
    """Two photographs under a simulated probe."""
    geometry = Geometry(params.rows, params.cols, params.step, params.jitter, params.patch, params.margin)
    photographs = Photographs(params.amplitude, params.phase, params.low, params.high, params.span)
    x, y = scan_positions(geometry, seeds.scan_chance(params.seed))
    try:
        probe = simulated_probe(params.patch, diameter=params.disc * params.patch, curvature=params.curvature)
    except ValueError as error:
        raise BadInput(str(error), hint="give another disc") from None
    return Scene(object_of(geometry.object_size, photographs), probe, x, y, photographs.words())


def scene_of_file(path: Path, name: str) -> Scene:
    """The object, probe and scan of a user's file: patterns are drawn anew, at the dose that is asked for."""
    data = read_user(path, name=name)
    last = data.object_guess.shape[0] - data.size / 2 - 1
    for key, value in (("xcoords", data.x), ("ycoords", data.y)):
        if value.max() > last and (value % 1).any():
            raise BadInput(
                f"{name}: {key}: expected positions up to {last:g}, where a bilinear shift finds its neighbours, "
                f"found {value.max():g}",
                hint="leave a pixel of object around the patches",
            )
    return Scene(data.object_guess, data.probe_guess, data.x, data.y, f"object and probe of {name}")


def row_of(made: Made, name: str, path: Path) -> dict[str, Any]:
    """What the table says of one dataset."""
    data, drawn, leak = made.datasets[name], made.drawn[name], made.leakage
    return {
        "file": name,
        "photons": drawn.photons,
        "photons_mean": drawn.photons_mean,
        "photons_least": drawn.photons_least,
        "photons_most": drawn.photons_most,
        "deviation": made.numbers.get("deviation"),
        "frames": drawn.frames,
        "guard_frames": made.guard,
        "shared_pixels": None if leak is None else leak.shared,
        "read_pixels": None if leak is None else (leak.train if name == "train" else leak.test),
        "patch": data.size,
        "object_size": data.object_guess.shape[0],
        "s": drawn.s,
        "scale": data.scale,
        "fraction": made.numbers.get("fraction"),
        "seed": data.meta["seed"],
        "source": data.meta["source"],
        "truth_sha256": data.meta["truth"],
        "sha256": sha256_file(path),
    }
