"""Colours of phase: cyclic, and the same for phases that differ by whole turns."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from jobs.dose.compare import measure
from jobs.dose.conditions import ARMS, CONTROLS
from jobs.dose.figures import LOOKS, Turn, objects_figure
from jobs.dose_kinds.compare import OTHERS
from tests.jobs.dose.test_compare import TRUTH, made
from tests.jobs.dose.test_region_holes import HOLES, INSIDE
from tests.jobs.dose.test_region_holes import TRUTH as HOLED_TRUTH
from tests.jobs.dose.test_region_holes import made as covered


@pytest.mark.parametrize("extent", [0.2, 1.2, 3.0, 5.5])
def test_a_turn_of_colours_is_a_whole_fraction_of_a_turn_of_phase(extent: float) -> None:
    phase = np.linspace(0, extent, 500).reshape(20, 25)
    turn = Turn.of(phase)
    assert (2 * math.pi / turn.turn) == pytest.approx(round(2 * math.pi / turn.turn))
    assert turn.turn >= np.ptp(phase)
    np.testing.assert_allclose(turn.colours(phase), turn.colours(phase + 2 * math.pi), atol=0.02)
    # A turn that is no such fraction would give one phase two colours.
    odd = Turn(turn.low, turn.high, turn.turn * 1.3)
    assert np.abs(odd.colours(phase) - odd.colours(phase + 2 * math.pi)).max() > 0.2


def test_the_middle_of_a_range_goes_from_dark_to_light() -> None:
    phase = np.linspace(0, 1.0, 400).reshape(20, 20)
    turn = Turn.of(phase)
    colours = turn.colours(np.linspace(turn.low, turn.high, 50)[None])[0, :, :3]
    light = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).mean() > 0.95
    assert light[-1] - light[0] > 0.4
    beyond = turn.colours(np.array([[turn.high + (turn.turn - turn.high) / 2]]))[0, 0]
    assert beyond[2] > beyond[0]  # blue


def test_a_constant_phase_can_be_drawn() -> None:
    assert Turn.of(np.zeros((4, 4))).turn == pytest.approx(2 * math.pi)


def test_every_arm_can_be_told_from_the_others() -> None:
    names = [*ARMS, *CONTROLS, "ptychi", "halves"]
    assert set(LOOKS) == {*ARMS, *CONTROLS, *OTHERS, "halves"}
    assert len({LOOKS[n].colour for n in names}) == len(names)
    assert len({str(LOOKS[n].line) for n in names if n != "halves"}) == len(names) - 1
    assert len({LOOKS[n].mark for n in names}) == len(names)


def test_measure_is_pure() -> None:
    arm, truth = made(TRUTH * 1j), made(TRUTH, border=0)
    before = arm.object.copy(), truth.object.copy()
    measure({"lsqml": arm}, truth)
    np.testing.assert_array_equal(arm.object, before[0])
    np.testing.assert_array_equal(truth.object, before[1])


def test_what_stands_in_a_hole_is_never_drawn(tmp_path: Path) -> None:
    found = measure({"lsqml": covered(HOLED_TRUTH * 1.1, INSIDE & ~HOLES)}, covered(HOLED_TRUTH, np.ones_like(HOLES)))
    assert found.seen is not None
    row = {"arm": "lsqml", "status": "measured", "against": "truth", "flags": "", "ms_ssim_phase": 1.0}
    row |= {"frc50": 0.5, "frc50_reached": "never", "relative_error": 0.0}
    arm = found.arms["lsqml"]
    other = dataclasses.replace(arm, object=np.where(found.seen, arm.object, 5 - 3j))
    drawn = []
    for seen, mine in ((found.seen, arm), (found.seen, other), (None, other)):
        path = tmp_path / f"{len(drawn)}.png"
        objects_figure(path, "a", dataclasses.replace(found, seen=seen, arms={"lsqml": mine}), [row])
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[1], "without holes it is drawn"
