"""What ended attempts teach: lanes and cells are told apart though neither is known."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from lanes.speeds import Speeds, Work, work_of

LANES = {"quick": 1.0, "half": 2.0, "quarter": 4.0}


def cell(**params: object) -> Work:
    return work_of("k", params)


def relative(speeds: Speeds, lane: str, than: str, family: str = "k") -> float:
    return math.exp(speeds.slowness(lane, family).log - speeds.slowness(than, family).log)


def taught(ends: int, *, noise: float = 0.05, seed: int = 1) -> Speeds:
    """Cells of six lengths, each on a lane that is drawn: no cell ran on two lanes."""
    rng, speeds = random.Random(seed), Speeds()
    for i in range(ends):
        lane, a, b = rng.choice(list(LANES)), rng.choice((1, 10, 30)), rng.choice(("x", "y"))
        seconds = a * (1 if b == "x" else 3) * LANES[lane] * math.exp(rng.gauss(0, noise))
        speeds.ended(lane, cell(a=a, b=b, seed=i), seconds)
    return speeds


def test_lanes_and_cells_are_told_apart() -> None:
    speeds = taught(60)
    assert relative(speeds, "quarter", "quick") == pytest.approx(4, rel=0.1)
    assert relative(speeds, "half", "quick") == pytest.approx(2, rel=0.1)
    long, short = (speeds.seconds("quick", cell(a=a, b=b, seed=-1)) for a, b in ((30, "y"), (1, "x")))
    assert long is not None
    assert short is not None
    assert long.factor == pytest.approx(90, rel=0.15)
    assert short.factor == pytest.approx(1, rel=0.15)
    assert speeds.slowness("quick", "k").ends > 10


def test_who_only_averages_would_be_misled() -> None:
    """The slow lane got the short cells: by its seconds alone it would look the faster one."""
    speeds = Speeds()
    for i in range(12):
        speeds.ended("slow", cell(a=1, seed=i), 3.0)
        speeds.ended("quick", cell(a=10, seed=i), 10.0)
        speeds.ended("both", cell(a=(1, 10)[i % 2], seed=-i), (2.0, 20.0)[i % 2])
    assert relative(speeds, "slow", "quick") == pytest.approx(3, rel=0.2)


def test_a_length_that_was_never_seen_follows_the_numbers_around_it() -> None:
    speeds = Speeds()
    for i, size in enumerate((1, 2, 3, 5, 8, 12, 20, 30) * 3):
        speeds.ended("quick", cell(size=size, seed=i), 0.5 * size**2)
    found = speeds.seconds("quick", cell(size=15, seed=99))
    assert found is not None
    assert found.factor == pytest.approx(0.5 * 15**2, rel=0.35)


def test_a_parameter_that_says_nothing_is_left_out() -> None:
    """Hundreds of seeds, each seen once: none of them may explain what the lanes do."""
    speeds = Speeds()
    rng = random.Random(3)
    for i in range(120):
        lane = rng.choice(list(LANES))
        speeds.ended(lane, cell(seed=i, tag=f"t{i % 7}"), 5 * LANES[lane] * math.exp(rng.gauss(0, 0.1)))
    assert relative(speeds, "quarter", "quick") == pytest.approx(4, rel=0.1)
    one, other = (speeds.work(cell(seed=500, tag=f"t{n}")) for n in (1, 5))
    assert one is not None
    assert other is not None
    assert one.log == pytest.approx(other.log, abs=0.15)


def test_one_odd_end_changes_little() -> None:
    speeds = taught(60)
    before = relative(speeds, "half", "quick")
    speeds.ended("half", cell(a=1, b="x", seed=1000), 5000.0)
    for i in range(8):
        speeds.ended("quick", cell(a=1, b="x", seed=2000 + i), 1.0)
    assert relative(speeds, "half", "quick") == pytest.approx(before, rel=0.25)


def test_doubt_shrinks_with_every_end() -> None:
    speeds, doubts = Speeds(), []
    for i in range(5):
        doubts.append(speeds.slowness("new", "k").var)
        speeds.ended("old", cell(seed=i), 10.0)
        speeds.ended("old", cell(seed=i), 10.0)
        speeds.ended("new", cell(seed=i), 20.0)
    assert all(a > b for a, b in itertools.pairwise(doubts))
    assert "new" not in speeds.pace("k", [("old", 1), ("new", 1)]).unsure
    assert "never" in speeds.pace("k", [("old", 1), ("never", 1)]).unsure


def test_a_probe_and_other_kinds_come_before_a_lane_has_run_anything() -> None:
    speeds = Speeds()
    speeds.probed("slow", 4.0)
    assert 2 < math.exp(speeds.slowness("slow", "k").log) <= 4.01
    for i in range(20):
        speeds.ended("a", work_of("other", {"seed": i}), 1.0)
        speeds.ended("b", work_of("other", {"seed": i}), 3.0)
    assert relative(speeds, "b", "a") > 2
    assert speeds.known_from("b", "k") == "20 of other kinds"
    assert speeds.known_from("slow", "k") == "its probe"
    assert speeds.known_from("never", "k") == ""


def test_a_lane_that_turns_slow_is_noticed() -> None:
    speeds = Speeds()
    for seconds, times in ((10.0, 100), (40.0, 500)):
        for i in range(times):
            speeds.ended("steady", cell(seed=i), 10.0)
            speeds.ended("turns", cell(seed=i), seconds)
    assert relative(speeds, "turns", "steady") == pytest.approx(4, rel=0.2)


def test_programs_that_differ_in_their_words_are_different_work() -> None:
    train = work_of("command", {"argv": ["python", "train.py", "--epochs", "30"], "env": {}})
    again = work_of("command", {"argv": ["python", "train.py", "--epochs", "10"], "env": {}})
    score = work_of("command", {"argv": ["python", "score.py", "--epochs", "30"], "env": {}})
    assert train.family == again.family != score.family
    assert train.axes != again.axes
    inside = [work_of("command", {"argv": ["sh", "-c", f"burn {n}; echo done"]}) for n in (3, 40)]
    assert inside[0].family == inside[1].family
    assert inside[1].axes[0][1:] == ("40", math.log(40))
    assert work_of("k", {"a": 1}, gpus=1).family != work_of("k", {"a": 1}).family


def test_nothing_is_known_of_what_never_ended() -> None:
    speeds = Speeds()
    assert speeds.work(cell(a=1)) is None
    assert speeds.seconds("quick", cell(a=1)) is None
    for nonsense in (0.0, -1.0, math.nan, math.inf):
        speeds.ended("quick", cell(a=1), nonsense)
    assert speeds.ends("k") == 0


def test_start_up_is_learned_and_one_slow_start_is_not_the_rule() -> None:
    speeds = Speeds()
    for _ in range(10):
        speeds.started("far", 2.0)
        speeds.closed("far", 1.0)
    assert speeds.start_s("far") == pytest.approx(2.0)
    assert speeds.overhead_s("far") == pytest.approx(3.0)
    speeds.started("far", 600.0)
    assert speeds.start_s("far") < 4.0
