"""Scan, split, groups, views and overlap, each with what it must refuse or would get wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kernels.diffraction import seeds
from kernels.diffraction.grouping import apart, centres_of, groups, most_groups, nearest, spacing
from kernels.diffraction.overlap import disc_overlap, overlaps
from kernels.diffraction.scan import Geometry, scan_positions
from kernels.diffraction.split import leakage, y_split
from kernels.diffraction.views import feasible, select_view, spacing_of

SMALL = Geometry(rows=513, cols=224, step=16, jitter=3, size=64)
# The seed's own: 165×166 px of scan, patches of 128, a sparse view at 102.4 px.
SEED = Geometry(rows=166, cols=165, step=8, jitter=1, size=128)


def scan(geometry: Geometry, seed: int = 42) -> Any:
    return scan_positions(geometry, seeds.scan_chance(seed))


def view(x: Any, y: Any, px: float, members: int = 4, split: str = "train", **more: Any) -> Any:
    chances = {
        "grouping": seeds.grouping_chance(123, split),
        "subsampling": seeds.subsampling_chance(456, split),
    } | more
    return select_view(x, y, spacing=px, neighbours=7, members=members, **chances)


def test_scan_is_a_raster_moved_by_chance_and_inside_its_object() -> None:
    x, y = scan(SMALL)
    down, across = SMALL.points
    assert (down, across) == (33, 15)
    assert len(x) == down * across
    grid = np.arange(across) * 16 - 112 + SMALL.object_size / 2
    off = x.reshape(down, across) - grid
    assert np.abs(off).max() <= 3
    assert off.std() > 1
    assert min(x.min(), y.min()) - 32 >= 1
    assert max(x.max(), y.max()) + 32 + 1 < SMALL.object_size
    assert (x * 64 == np.rint(x * 64)).all()
    assert (scan(SMALL)[0] == x).all()
    assert (scan(SMALL, 43)[0] != x).any()
    still = scan(Geometry(rows=513, cols=224, step=16, jitter=0, size=64))[0]
    assert (still.reshape(down, across) == still[:across]).all()
    with pytest.raises(ValueError, match="positive step"):
        Geometry(rows=10, cols=10, step=0, jitter=0, size=64)


def test_split_shares_no_pixel_and_a_split_by_centres_does() -> None:
    x, y = scan(SMALL)
    train, test, guard = y_split(x, y, 64)
    assert sorted([*train, *test, *guard]) == list(range(len(x)))
    assert len(guard)
    assert y[test].min() - y[train].max() >= 65
    found = leakage(x, y, train, test, 64)
    assert found.shared == 0
    assert found.train > 50_000 < found.test
    # Twins: by centres only, and with a band that is smaller than a patch.
    for band in (0.0, 32.0, 48.0):
        upper, lower, _ = y_split(x, y, 64, guard=band)
        assert leakage(x, y, upper, lower, 64).shared > 0


def test_leakage_counts_the_pixel_that_a_shift_reads() -> None:
    x, first, second = np.array([40.0, 40.0]), np.array([0]), np.array([1])
    assert leakage(x, np.array([32.0, 96.0]), first, second, 64).shared == 0
    assert leakage(x, np.array([32.0, 95.0]), first, second, 64).shared == 64
    assert leakage(x, np.array([32.5, 96.0]), first, second, 64).shared == 64  # rows 0 to 64, and 64 to 127
    assert leakage(x, np.array([32.5, 96.5]), first, second, 64) == leakage(
        x, np.array([32.5, 96.5]), first, second, 64
    )
    assert leakage(np.array([40.0, 200.0]), np.array([32.0, 40.0]), first, second, 64).shared == 0
    brute = np.zeros((2, 200, 200), bool)
    x, y = np.array([50.25, 90.0, 70.0]), np.array([60.0, 90.5, 100.0])
    for side, i in ((0, 0), (0, 1), (1, 2)):
        high, wide = 32 + (y[i] % 1 > 0), 32 + (x[i] % 1 > 0)
        top, left = int(y[i]) - 16, int(x[i]) - 16
        brute[side, top : top + high, left : left + wide] = True
    found = leakage(x, y, np.array([0, 1]), np.array([2]), 32)
    assert (found.shared, found.train, found.test) == ((brute[0] & brute[1]).sum(), brute[0].sum(), brute[1].sum())


def test_fraction_moves_the_cut() -> None:
    x, y = scan(SMALL)
    train, test, _ = y_split(x, y, 64, fraction=0.75)
    assert len(train) > 2.5 * len(test)
    assert leakage(x, y, train, test, 64).shared == 0
    with pytest.raises(ValueError, match="cannot be split"):
        y_split(x, y, 64, fraction=1.0)


def test_groups_are_neighbours_with_the_seed_point_in_and_no_frame_twice() -> None:
    x, y = scan(SMALL)
    found = groups(x, y, 7, 4, seeds.generator("g"))
    assert found.dtype == np.int32
    assert found.shape == (len(x), 4)
    assert (found[:, 0] == np.arange(len(x))).all()
    assert all(len(set(group)) == 4 for group in found)
    far = np.hypot(x[:, None] - x, y[:, None] - y)
    near = np.argsort(far, axis=1, kind="stable")[:, 1:8]
    assert all(set(group[1:]) <= set(near[i]) for i, group in enumerate(found))
    assert {int(np.flatnonzero(near[i] == m)[0]) for i, g in enumerate(found) for m in g[1:]} == set(range(7))
    assert (groups(x, y, 7, 4, seeds.generator("g")) == found).all()
    assert (groups(x, y, 7, 4, seeds.generator("h")) != found).any()
    assert (groups(x, y, 7, 1, seeds.generator("g"))[:, 0] == np.arange(len(x))).all()


def test_oversampling_only_where_asked_and_only_different_groups() -> None:
    x, y = scan(Geometry(rows=64, cols=64, step=16, jitter=2, size=16))
    assert most_groups(7, 4) == math.comb(7, 4) == 35
    found = groups(x, y, 7, 4, seeds.generator("g"), per_point=35)
    assert len(found) == 35 * len(x)
    assert len({tuple(sorted(g)) for g in found[:35]}) == 35
    assert (found[:35, 0] == 0).all()
    for neighbours, members, per_point in ((7, 4, 36), (4, 4, 2), (7, 1, 2)):
        with pytest.raises(ValueError, match="groups a point"):
            groups(x, y, neighbours, members, seeds.generator("g"), per_point=per_point)
    with pytest.raises(ValueError, match="at most K"):
        groups(x, y, 3, 4, seeds.generator("g"))
    with pytest.raises(ValueError, match="neighbours each"):
        groups(x[:7], y[:7], 7, 4, seeds.generator("g"))


def test_equal_distances_go_by_index() -> None:
    x, y = (a.ravel().astype(float) for a in np.mgrid[:3, :3])
    assert nearest(x, y, 4)[4].tolist() == [1, 3, 5, 7]
    assert nearest(x, y, 2)[0].tolist() == [1, 3]


@pytest.mark.parametrize("overlap", [0.7, 0.2])
def test_a_view_keeps_its_spacing_and_as_many_groups_as_fit(overlap: float) -> None:
    x, y = scan(SMALL)
    train, _, _ = y_split(x, y, 64)
    x, y = x[train], y[train]
    px = spacing_of(overlap, 64)
    assert px == {0.7: 19.2, 0.2: 51.2}[overlap]
    found = view(x, y, px)
    np.testing.assert_allclose(found.centres, centres_of(x, y, found.members))
    far = np.hypot(*(found.centres[:, None] - found.centres).transpose(2, 0, 1))
    np.fill_diagonal(far, np.inf)
    told = found.spacing
    assert far.min() >= px
    assert told.least == pytest.approx(far.min())
    assert told.mean == pytest.approx(far.min(axis=1).mean())
    assert told.median == pytest.approx(np.median(far.min(axis=1)))
    assert told.most == pytest.approx(far.min(axis=1).max())
    assert told.threshold == px
    assert (told.accepted, told.accepted + told.rejected) == (len(found.members), len(x))
    assert told.rate == told.accepted / len(x)
    assert sum(told.histogram) == told.accepted
    # No group that was left out could be added.
    rest = centres_of(x, y, groups(x, y, 7, 4, seeds.grouping_chance(123, "train")))
    gap = np.hypot(*(rest[:, None] - found.centres).transpose(2, 0, 1)).min(axis=1)
    assert (gap < px).all()
    assert feasible(found).ok
    other = view(x, y, px, subsampling=seeds.subsampling_chance(457, "train"))
    assert other.members.tobytes() != found.members.tobytes()
    assert view(x, y, px).members.tobytes() == found.members.tobytes()


def test_baseline_keeps_every_frame() -> None:
    x, y = scan(SMALL)
    found = view(x, y, spacing_of(None, 64), members=1)
    assert (found.members[:, 0] == np.arange(len(x))).all()
    assert found.spacing.rate == 1
    assert sum(found.spacing.histogram) == len(x)


def test_the_seeds_sparse_view_is_infeasible_and_says_so() -> None:
    x, y = scan(SEED)
    found = view(x, y, spacing_of(0.2, 128))
    verdict = feasible(found)
    assert not verdict.ok
    assert verdict.groups < 16
    assert verdict.groups == len(found.members)
    for words in ("102.4 px", f"holds {verdict.groups} groups", "16 are needed", "307.2×307.2 px", f"{len(x)} frames"):
        assert words in verdict.why
    assert feasible(found, least=verdict.groups).ok  # twin: it is the number that decides
    dense = view(x, y, spacing_of(0.7, 128))
    train, test, _ = y_split(x, y, 128)
    assert feasible(dense).ok or len(dense.members) < 16
    for part in (train, test):  # a guard band of a whole patch leaves little of 166 rows
        assert not feasible(view(x[part], y[part], spacing_of(0.7, 128))).ok


def test_too_few_frames_are_no_view() -> None:
    verdict = feasible(view(np.array([40.0, 50.0]), np.array([40.0, 40.0]), 19.2))
    assert not verdict.ok
    assert verdict.groups == 0
    assert "2 frames holds 0 groups" in verdict.why


@pytest.mark.parametrize("seed", range(42, 46))
def test_the_small_geometry_is_feasible_in_both_halves(seed: int) -> None:
    x, y = scan(SMALL, seed)
    for split, part in zip(("train", "test"), y_split(x, y, 64)[:2], strict=True):
        assert min(np.ptp(x[part]), np.ptp(y[part])) > 160
        chances: dict[str, Any] = {
            "grouping": seeds.grouping_chance(seed + 81, split),
            "subsampling": seeds.subsampling_chance(seed + 414, split),
        }
        for overlap in (0.7, 0.2):
            assert feasible(view(x[part], y[part], spacing_of(overlap, 64), **chances)).ok


def test_the_choice_of_centres_beats_taking_them_as_they_come() -> None:
    x, y = scan(Geometry(rows=208, cols=208, step=16, jitter=3, size=64))
    centres = np.stack([x, y], axis=1)
    kept = apart(centres, 51.2, seeds.generator("s"))
    plain: list[int] = []
    for i in range(len(x)):
        if all(np.hypot(*(centres[i] - centres[j])) >= 51.2 for j in plain):
            plain.append(i)
    assert len(kept) > len(plain)


def test_spacing_of_few_centres_and_what_lies_beyond_the_histogram() -> None:
    one = spacing(np.array([[3.0, 4.0]]), 10.0, 2)
    assert math.isnan(one.least)
    assert one.accepted == 1
    assert one.rate == 1 / 3
    assert sum(one.histogram) == 0
    far = spacing(np.array([[0.0, 0.0], [0.0, 500.0]]), 10.0, 0)
    assert far.histogram[-1] == 2
    assert far.edges[8] == 10.0
    assert far.most == 500
    assert spacing(np.zeros((0, 2)), 10.0, 0).rate == 0
    with pytest.raises(ValueError, match="an overlap is 0 to below 1"):
        spacing_of(1.0, 64)


def test_disc_overlap_by_counting_points() -> None:
    radius, step = 1.0, 0.005
    axis = np.arange(-1.5, 3.0, step)
    px, py = np.meshgrid(axis, np.arange(-1.0, 1.0, step))
    for d in (0.0, 0.3, 1.0, 1.7, 2.0, 2.4):
        both = (px**2 + py**2 < radius**2) & ((px - d) ** 2 + py**2 < radius**2)
        counted = both.sum() * step**2 / (math.pi * radius**2)
        assert disc_overlap(d, radius) == pytest.approx(counted, abs=2e-3)
    # Twin: 1 - d/2R, the overlap along the line between the centres, is another number.
    assert abs(disc_overlap(1.0, radius) - 0.5) > 0.1
    assert disc_overlap(0.0, 5.0) == 1
    assert disc_overlap(10.0, 5.0) == 0
    assert disc_overlap(99.0, 5.0) == 0
    assert (np.diff(disc_overlap(np.linspace(0, 10, 50), 5.0)) < 0).all()
    with pytest.raises(ValueError, match="not negative"):
        disc_overlap(-1.0, 1.0)


def test_three_means_of_overlap() -> None:
    x, y = np.array([0.0, 10.0, 40.0, 50.0]), np.zeros(4)
    members = np.array([[0, 1], [2, 3]], np.int32)
    centres = centres_of(x, y, members)
    found = overlaps(x, y, members, centres, 1, 48.0)
    assert found.in_group == pytest.approx(float(disc_overlap(10.0, 24.0)), abs=1e-9)
    assert found.neighbours == pytest.approx(float(disc_overlap(10.0, 24.0)), abs=1e-9)
    assert found.centres == pytest.approx(float(disc_overlap(40.0, 24.0)), abs=1e-9)
    # A frame that is in two groups counts once.
    twice = np.array([[0, 1], [1, 0], [2, 3]], np.int32)
    assert overlaps(x, y, twice, centres_of(x, y, twice), 1, 48.0).neighbours == found.neighbours
    wide = overlaps(x, y, members, centres, 3, 48.0)
    assert wide.neighbours < found.neighbours
    alone = overlaps(x, y, np.arange(4, dtype=np.int32)[:, None], np.stack([x, y], axis=1), 1, 48.0)
    assert math.isnan(alone.in_group)
    assert alone.centres == found.neighbours
