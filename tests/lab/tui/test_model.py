"""From a snapshot to rows: pure, at a fixed time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.states import JobState, LaneState
from lab.tui import columns, model, panes, plot
from lab.tui.facts import JournalFacts, Snapshot, Usage
from lab.tui.filters import Filter
from lab.tui.lanemodel import lane_rows
from lab.tui.marks import Marks
from lab.tui.model import Choices, JobRow
from lab.tui.spans import changed, fitted, text_of, width_of
from lanes.switched import NOT_YET
from tests.lab.tui.scene import NOW, job, news, scene, with_branches, with_cells

S = JobState
MARKS = Marks()


def rows(snapshot: Snapshot | None = None, **chosen: object) -> list[JobRow]:
    return list(model.job_rows(snapshot or scene(), Choices(**chosen)))  # type: ignore[arg-type]


def row(key: int, snapshot: Snapshot | None = None) -> JobRow:
    return next(r for r in rows(snapshot) if r.key == str(key))


def one(*jobs: object, **more: object) -> Snapshot:
    return Snapshot("h", NOW, JournalFacts(jobs=jobs, **more))  # type: ignore[arg-type]


def test_what_runs_then_the_queue_then_held_then_what_ended_last() -> None:
    ids = [r.id for r in rows()]
    assert ids[:4] == [412, 425, 428, 430]
    assert ids[4] == 1440  # priority 2
    assert ids.index(1460) < ids.index(1461) < ids.index(401) < ids.index(398)
    assert [r.state for r in rows()][-1] == "succeeded"


def test_priority_comes_before_age_in_the_queue() -> None:
    assert [r.id for r in rows(one(job(1), job(2, priority=5), job(3, priority=5)))] == [2, 3, 1]


def test_a_sweep_is_one_row_with_counts_rate_and_first_error() -> None:
    found = row(430)
    assert (found.fold, found.said, found.percent, found.eta) == ("+", "614/1,000", "61%", "34s")
    assert found.note.startswith("3 failed, 64 running, 11/s, first: max error 0.031")
    assert found.role == "error"
    assert found.bar is not None
    assert found.bar.failed == pytest.approx(0.003)


def test_a_sweep_that_is_fine_says_nothing_of_failures() -> None:
    found = row(210)
    assert "failed" not in found.note
    assert found.faint


def test_progress_step_and_time_left_of_a_plain_job() -> None:
    found = row(412)
    assert (found.said, found.eta) == ("42%", "1h39m")
    assert found.note == "42,180/100,000; epoch 42 of 100; attempt 2"
    steps = replace(one(job(1, state=S.RUNNING, attempts=1, began=9.0)), live={(1, 1): news(step=7)})
    assert (row(1, steps).note, row(1, steps).bar, row(1, steps).eta) == ("step 7", None, "")


def test_time_left_is_not_guessed_where_nothing_is_known() -> None:
    running = job(1, state=S.RUNNING, attempts=2, began=100.0)  # a second attempt went on from a checkpoint
    snapshot = replace(one(running), live={(1, 2): news(done=50.0, total=100.0)})
    assert row(1, snapshot).eta == ""
    first = replace(one(replace(running, attempts=1)), live={(1, 1): news(done=50.0, total=100.0)})
    assert row(1, first).eta == "1m40s"


@pytest.mark.parametrize(("done", "total"), [(5.0, 0.0), (200.0, 100.0), (-3.0, 10.0), (0.0, 10.0)])
def test_progress_that_makes_no_sense_is_no_error(done: float, total: float) -> None:
    snapshot = replace(one(job(1, state=S.RUNNING, attempts=1, began=9.0)), live={(1, 1): news(done=done, total=total)})
    found = row(1, snapshot)
    assert found.bar is None or 0.0 <= found.bar.done <= 1.0


def test_a_lane_that_is_away_is_the_note_of_what_runs_there() -> None:
    snapshot = replace(
        one(job(1, state=S.RUNNING, attempts=1, lane="mini", began=9.0)),
        lanes=(scene().lanes[2],),
        live={(1, 1): news(age_s=250.0)},
    )
    away = "mini unreachable for 4m10s, it may well run on; `lab lane down mini` requeues it"
    assert row(1, snapshot).note == away, "the words of `lab status`"
    assert row(1, snapshot).role == "warn"
    up = replace(snapshot, lanes=(replace(scene().lanes[2], state=LaneState.UP),))
    assert "no heartbeat for 4m10s" in row(1, up).note


def test_cells_come_running_first_and_more_can_be_asked_for() -> None:
    found = rows(with_cells(scene()), unfolded={430: 100})
    at = [r.id for r in found].index(430)
    cells = found[at + 1 : at + 29]
    assert [c.state for c in cells[:8]] == ["running"] * 4 + ["failed"] * 3 + ["queued"]
    assert all(c.fold == "." for c in cells[:-1])
    assert cells[0].label == "shape=64 backend=numba seed=0"
    assert cells[-1].fold == ">"
    assert cells[-1].label == "973 more: Enter shows 100"
    assert [r for r in rows(with_cells(scene())) if r.fold == "."] == []  # folded: none


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("state:failed", [430, 401, 398]),
        ("state:held", [1461]),
        ("kind:score lane:local state:run", [425]),
        ("tag:night", [412]),
        ("kodak", [425]),
        ("KODAK24 score", [425]),
        ("1461", [1461]),
        ("kind:dose,audit", [1460, 1461]),
        ("state:nonsense", []),
        ("no such words", []),
    ],
)
def test_filters(typed: str, ids: list[int]) -> None:
    assert [r.id for r in rows(filter=Filter.parse(typed))] == ids


def test_failed_only_is_a_filter_of_its_own() -> None:
    assert [r.id for r in rows(failed_only=True)] == [430, 401, 398]
    found = rows(with_cells(scene()), failed_only=True, unfolded={430: 100})
    assert [r.state for r in found if r.fold == "."] == ["failed"] * 3
    assert not any(r.fold == ">" for r in found)  # three failed, three are shown


def test_orders() -> None:
    assert [r.id for r in rows(order="newest")][:2] == [1461, 1460]
    assert rows(order="longest")[0].id == 398
    assert [r.label for r in rows(order="name")][:1] == ["audit claims of section 4"]


def test_lanes_say_state_link_slots_load_rate_and_work() -> None:
    local, bat, mini, molt = lane_rows(scene())
    assert (local.slots, local.rate, local.link) == ("10/16", "14/s", "0.3s")
    assert local.now == "64 cells, 425 score kodak24 against libaom"
    assert (bat.gpu, bat.gpu_said, bat.device) == (0.93, "93%", "2× RTX 4090, 32 cores, 251 G")
    assert (mini.state, mini.link, mini.link_role) == ("unreachable", "4m", "warn")
    assert (mini.cpu, mini.memory, mini.memory_said) == (None, None, "")  # what it was says nothing of now
    there = [replace(x, state=LaneState.UP) if x.name == "mini" else x for x in scene().lanes]
    up = lane_rows(replace(scene(), lanes=tuple(there)))[2]
    assert up.memory_said == "0.8G"  # nobody says more than what our attempts take
    assert (molt.state, molt.note) == ("draining", "disk is full")


def test_a_rate_fades_when_nothing_ends() -> None:
    assert lane_rows(replace(scene(), at=NOW + 300))[0].rate == ""


def test_an_age_that_nobody_wrote_down_is_no_alarm() -> None:
    old = replace(scene().lanes[0], heard_s=7200.0)  # heard of at its start, and up ever since
    snapshot = Snapshot("h", NOW, lanes=(old,), controller_alive=True)
    assert lane_rows(snapshot)[0].link == ""
    assert lane_rows(replace(snapshot, controller_alive=False))[0].link == "2h"
    assert lane_rows(replace(snapshot, lanes=(replace(old, state=LaneState.UNREACHABLE),)))[0].link == "2h"


def test_a_lane_of_which_nothing_is_known_has_empty_cells() -> None:
    bare = replace(scene().lanes[1], usage=Usage(), gpus=(), cores=None, memory_mb=None, heard_s=None)
    found = lane_rows(Snapshot("h", NOW, lanes=(bare,)))[0]
    assert (found.slots, found.cpu, found.memory_said, found.gpu_said, found.link, found.rate) == ("", None) + ("",) * 4


@pytest.mark.parametrize("width", [58, 60, 79, 90, 103, 104, 119, 133, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_every_line_is_as_wide_as_the_screen(width: int, unicode: bool) -> None:
    marks = Marks(unicode)
    layout = columns.Layout.of(columns.JOBS, width)
    for r in rows(with_cells(scene()), unfolded={430: 100}):
        assert width_of(columns.job_line(r, layout, width, marks)) == width
    lanes = columns.Layout.of(columns.LANES, width)
    for lane in lane_rows(scene()):
        assert width_of(columns.lane_line(lane, lanes, width, marks)) == width
    assert width_of(columns.titles(layout, width)) == width
    assert width_of(panes.header_line(model.header(scene()), width, marks, clock="12:00:00")) == width
    for line in panes.detail_lines(scene().detail, width, 20, NOW, "", marks):
        assert width_of(line) == width


def test_without_unicode_everything_is_ascii() -> None:
    marks = Marks(False)
    layout = columns.Layout.of(columns.JOBS, 100)
    text = "".join(text_of(columns.job_line(r, layout, 100, marks)) for r in rows())
    text += "".join(text_of(li) for li in panes.detail_lines(scene().detail, 80, 12, NOW, "lr", marks)[:3])
    assert text.isascii()
    assert "> running" in text


def test_trouble_takes_the_place_of_the_counts() -> None:
    head = model.header(replace(scene(), trouble="the journal is busy: another process holds it"))
    line = text_of(panes.header_line(head, 80, MARKS, clock="12:00:00"))
    assert "! the journal is busy" in line
    assert "held" not in line
    assert "held" in text_of(panes.header_line(model.header(scene()), 80, MARKS, clock="12:00:00"))


def test_a_controller_that_is_down_is_named() -> None:
    assert model.header(replace(scene(), controller_alive=False)).controller == "controller down"
    assert model.header(scene()).controller == "controller up"


def test_the_detail_pane_says_why_a_job_failed() -> None:
    failed = next(j for j in scene().journal.jobs if j.id == 401)
    detail = replace(
        scene().detail,  # type: ignore[type-var]
        job=failed,
        curves={},
        attempts=(),
        explained=("job 401 is failed, attempt 1 on local (check-cannot-fail): the negative control passed",),
    )
    lines = [text_of(li).strip() for li in panes.detail_lines(detail, 80, 8, NOW, "", MARKS)]
    assert lines[1] == "Check-cannot-fail: the negative control passed"


def test_which_metric_is_shown() -> None:
    detail = scene().detail
    assert detail is not None
    assert panes.chosen(detail, "") == "loss"
    assert panes.chosen(detail, "lr") == "lr"
    assert panes.chosen(detail, "gone") == "loss"
    assert panes.chosen(replace(detail, curves={}), "lr") == ""


def test_the_curve_of_a_training_is_one_of_its_values_while_it_is_one() -> None:
    detail = scene().detail
    assert detail is not None
    two, one_only = ((1.0, 2.0), (3.0, 4.0)), ((1.0,), (3.0,))
    training = {"ema_distance": two, "rate": two, "seconds": two, "training_value": two}
    assert panes.chosen(replace(detail, curves={**training, "evaluation_value": two}), "") == "evaluation_value"
    assert panes.chosen(replace(detail, curves={**training, "evaluation_value": one_only}), "") == "training_value"
    assert panes.chosen(replace(detail, curves={"x_value": one_only, "a": two}), "") == "x_value"
    assert panes.chosen(replace(detail, curves={"b": two, "a": two}), "") == "a"


def test_names_of_branches_that_are_too_long_keep_what_tells_them_apart() -> None:
    names = ["long500_qat_ema_alpha10_h16 seed=1", "long500_qat_ema_alpha20_h16 seed=1"]
    detail = with_branches().detail
    assert detail is not None
    series = tuple(replace(one, label=name) for one, name in zip(detail.series, names, strict=False))

    def legend(width: int) -> str:
        shown = replace(detail, series=series)
        return "\n".join(text_of(line) for line in panes.detail_lines(shown, width, 40, 0.0, "", Marks()))

    assert all(name in legend(60) for name in names)
    assert "alpha10 " in legend(40)
    assert "alpha20 " in legend(40)
    assert "seed" not in legend(40)
    assert "and 4 more cells" in legend(40)


def test_a_hostile_name_cannot_leave_its_cell() -> None:
    snapshot = one(job(1, name="x\x1b]0;t\x07\x1b[2J\nsecond\u202e"))
    assert row(1, snapshot).label.isprintable()
    assert row(1, snapshot).label.startswith("train x ")


# Lines and curves.


def test_only_the_cells_that_differ_are_found() -> None:
    old = (("ab", "t"), ("12s", "t"), ("end", "t"))
    assert changed(old, old) is None
    assert changed(old, (("ab", "t"), ("13s", "t"), ("end", "t"))) == (2, 3)
    assert changed(old, (("ab", "t"), ("12s", "bad"), ("end", "t"))) == (2, 3)
    assert changed(old, (("日", "t"), ("12s", "t"), ("end", "t"))) == (0, 2)


@given(st.lists(st.tuples(st.text("ab日é", max_size=6), st.sampled_from("xy")), max_size=6), st.integers(0, 20))
def test_fitted_is_exact(line: list[tuple[str, str]], width: int) -> None:
    assert width_of(fitted(line, width)) == width


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40),
    st.integers(1, 30),
    st.integers(1, 8),
)
def test_any_curve_has_its_size(ys: list[float], width: int, height: int) -> None:
    drawn = plot.curve([float(i) for i in range(len(ys))], ys, width, height)
    assert [len(line) for line in drawn] == [width] * height


def test_a_rising_line_rises_and_a_flat_one_lies_in_the_middle() -> None:
    up = plot.curve([0, 1], [0, 1], 4, 2)
    assert up[0][0] == " "
    assert up[1][0] != " "
    assert up[0][3] != " "
    flat = plot.curve([0, 1, 2], [5, 5, 5], 6, 3)
    assert flat[0].strip() == ""
    assert flat[1].strip() != ""
    assert plot.curve([], [], 3, 1) == ["   "]
    assert plot.curve([0, 1], [0, 1], 2, 2, unicode=False) == [" *", "* "]


def test_curves_in_one_frame_keep_their_owners_and_their_letters() -> None:
    up, down = ([0.0, 1.0], [0.0, 1.0]), ([0.0, 1.0], [1.0, 0.0])
    drawn = plot.curves([up, down], 5, 3, letters="ab")
    assert [len(row) for row in drawn] == [5, 5, 5]
    assert (drawn[0][4], drawn[2][4]) == (("a", 0), ("b", 1))
    assert (drawn[2][0][1], drawn[0][0][1]) == (0, 1)
    assert drawn[0][2] == (" ", -1)
    # Both end at one point: both letters are there. Not a number, or nothing, is no curve and no letter.
    both = plot.curves([up, up, ([], []), ([math.nan], [1.0])], 5, 3, letters="abcd")
    letters = {cell for row in both for cell in row if cell[0].isalpha()}
    assert letters == {("a", 0), ("b", 1)}
    assert plot.curves([up], 5, 3)[0][4][0] != "a"
    assert plot.curves([], 2, 1) == [[(" ", -1), (" ", -1)]]


def test_what_failed_is_seen_in_a_bar_however_little_it_is() -> None:
    spans = plot.bar(0.999, 10, failed=0.001)
    assert [r for _, r in spans] == ["good", "bad"]
    assert sum(len(t) for t, _ in spans) == 10
    assert {t[0] for t, _ in plot.bar(0.4, 10, failed=0.2, running=0.2)} == set("█▒▓░")  # textures, not colours alone
    assert plot.bar(math.inf, 0) == []


def test_what_is_left_does_not_grow_while_a_lane_is_not_heard() -> None:
    steps = {(412, 2): news(step=50), (425, 1): news(step=30)}
    paced = replace(scene(), live=steps, paces={412: 1.0, 425: 1.0})
    jobs = tuple(replace(j, last_step=100) if j.id in (412, 425) else j for j in paced.journal.jobs)
    paced = replace(paced, journal=replace(paced.journal, jobs=jobs))

    def left(snapshot: Snapshot, job_id: int) -> tuple[str, str]:
        row = next(r for r in model.job_rows(snapshot, Choices()) if r.id == job_id)
        return row.percent, row.eta

    assert left(paced, 412) == ("50%", "50s")  # of the last step that is expected
    assert left(paced, 425) == ("30%", "1m10s")
    gone = tuple(replace(x, state=LaneState.UNREACHABLE) if x.name == "bat00" else x for x in paced.lanes)
    assert left(replace(paced, lanes=gone), 412) == ("50%", "")
    assert left(replace(paced, lanes=gone), 425) == ("30%", "1m10s")
    assert left(replace(paced, live={**steps, (425, 1): news(step=30, age_s=60.0)}), 425) == ("30%", "")


def test_a_lane_connects_until_a_try_has_failed() -> None:
    lanes = tuple(replace(x, reason=NOT_YET) if x.name == "mini" else x for x in scene().lanes)
    first = lane_rows(replace(scene(), lanes=lanes, controller_alive=True))[2]
    assert (first.state, first.note) == ("connecting", "")
    assert lane_rows(replace(scene(), lanes=lanes, controller_alive=False))[2].state == "unreachable"
    assert lane_rows(scene())[2].state == "unreachable"
