"""The benchmark geometry at its full size: every pixel of every backend, every count (`make test-long`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.fcell import Beam, Crystal, Detector, Experiment, Grid, Simulation, build, build_plan
from kernels.fcell.digest import effective_input
from tests.kernels.fcell_cases import worst

pytestmark = pytest.mark.long

CRYSTALS: dict[str, dict[str, Any]] = {
    "N=5, cubic": {"cell": (100.0, 100.0, 100.0, 90.0, 90.0, 90.0), "cells": (5, 5, 5)},
    "N=(5,7,9), triclinic": {"cell": (74.0, 84.0, 97.0, 82.0, 95.0, 108.0), "cells": (5, 7, 9)},
}


def made_grid() -> Grid:
    """About as large and as full as that of a protein crystal; the frame sees beyond it on all sides but one."""
    rng = np.random.default_rng(3)
    shape = (49, 57, 62)
    listed = rng.random(shape) < 0.37
    listed[0, 0, 0] = listed[-1, -1, -1] = True
    values = np.where(listed, np.round(rng.lognormal(4.5, 1.0, shape), 2), 100.0)
    return Grid(values, listed, -24, -28, -31, 100.0)


@pytest.mark.parametrize("oversample", [1, 2])
@pytest.mark.parametrize("grid", [True, False], ids=["grid", "default_F only"])
@pytest.mark.parametrize("crystal", CRYSTALS)
def test_the_whole_frame_on_every_backend(crystal: str, grid: bool, oversample: int) -> None:
    experiment = Experiment(
        Crystal(**CRYSTALS[crystal], default_f=100.0), Beam(0.5), Detector(4096, 4096, 0.05, 500.0, oversample)
    )
    plan = build_plan(experiment, made_grid() if grid else None)
    right = build("numpy")(plan)
    assert right.image64 is not None
    assert right.counts.lookups == 4096 * 4096 * oversample**2
    if crystal == "N=5, cubic":
        _as_published(right, grid=grid, oversample=oversample)
    for backend in ("numba", "torch"):
        found = build(backend)(plan)
        assert worst(found, right) <= 1e-6, backend
        assert abs(found.image.sum(dtype=np.float64) / right.image64.sum() - 1) <= 1e-8, backend
        for name in ("lookups", "listed", "unlisted", "out_of_grid", "no_grid", "zero_f", "bounds"):
            assert getattr(found.counts, name) == getattr(right.counts, name), (backend, name)
        assert found.counts.sum_f == pytest.approx(right.counts.sum_f, rel=1e-12)
    assert effective_input(experiment, None).sha256 != effective_input(experiment, made_grid()).sha256


def _as_published(right: Simulation, *, grid: bool, oversample: int) -> None:
    """What does not depend on the values in the grid, only on its extents."""
    assert right.counts.bounds == ((-8, 0), (-40, 40), (-40, 40))
    if grid and oversample == 2:
        assert right.counts.out_of_grid == 30_690_544
    if not grid and oversample == 1:
        assert right.image64 is not None
        assert right.image64.sum() == pytest.approx(201039.07, abs=0.01)
