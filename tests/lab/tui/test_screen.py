"""The screen under a person's hands: keys, mouse, sizes, themes; requests land in the journal as from the commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from core.home import Home
from core.journal import Journal, Role, query
from core.states import EventKind as K
from core.states import JobState as S
from core.states import LaneState
from lab.session import new_session
from lab.tui.app import TopApp
from lab.tui.facts import Snapshot
from lab.tui.logview import LogScreen
from lab.tui.model import JobRow
from tests.lab.conftest import Submit
from tests.lab.journals import many_jobs
from tests.lab.tui.scene import CLOCK, NOW, Still, job, scene, with_cells

Work = Callable[["Screen"], Awaitable[None]]


class Screen:
    """The app, a pilot, and what is on the screen."""

    def __init__(self, app: TopApp, pilot: Pilot[Any], still: Still | None) -> None:
        self.app, self.pilot, self._still = app, pilot, still

    @property
    def still(self) -> Still:
        assert self._still is not None
        return self._still

    @property
    def lines(self) -> list[str]:
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def give(self, snapshot: Snapshot) -> None:
        self.still.give(snapshot)
        await self.pilot.pause()

    async def until(self, seen: Callable[[], object], what: str) -> None:
        for _ in range(400):
            await self.pilot.pause()
            if seen():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what}; there is:\n{self.text}")

    async def selects(self, job_id: int) -> None:
        rows = self.app.jobs.rows
        self.app.jobs.select(next(i for i, r in enumerate(rows) if r.id == job_id))
        await self.pilot.pause()

    @property
    def selected(self) -> int:
        row = self.app.jobs.selected
        return row.id if row is not None else 0


def show(
    work: Work,
    *,
    snapshot: Snapshot | None = None,
    home: Home | None = None,
    size: tuple[int, int] = (80, 24),
    **more: Any,
) -> None:
    """Run `work` on a screen: of a snapshot that stands still, or of a home as it is."""

    async def run() -> None:
        still = None if home is not None else Still(snapshot or scene())
        reader = {} if still is None else {"reader": still}
        app = TopApp(home or Home(Path("/home/ada/filters/.lab")), clock=CLOCK, **({"theme": "dark"} | reader | more))
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, pilot, still)
            await pilot.pause()
            await screen.until(lambda: app.jobs.rows or app.snapshot.at, "the first snapshot")
            await pilot.pause()
            await work(screen)

    asyncio.run(run())


# Looking.


def test_everything_is_there_at_80_by_24() -> None:
    async def work(s: Screen) -> None:
        for words in ("controller up", "3 running", "bat00", "● up", "unreachable", "disk is full", "postfilter-64ch"):
            assert words in s.text
        for words in ("● running", "○ queued", "kernel parity grid", "loss 0.06187", "epoch 42", "q quit"):
            assert words in s.text

    show(work)


def test_selection_and_place_stay_with_the_job() -> None:
    base = scene()

    async def work(s: Screen) -> None:
        await s.selects(1445)
        y = next(i for i, line in enumerate(s.lines) if " 1445 " in line)
        new = [job(900 + i, state=S.RUNNING, name=f"new {i}", began=5.0, attempts=1) for i in range(4)]
        await s.give(replace(base, journal=replace(base.journal, jobs=(*new, *base.journal.jobs))))
        assert s.selected == 1445
        assert " 1445 " in s.lines[y]
        fewer = tuple(j for j in base.journal.jobs if j.id != 1445)
        await s.give(replace(base, journal=replace(base.journal, jobs=fewer)))
        assert s.selected == 1446  # it went: its neighbour

    show(work)


def test_an_unchanged_snapshot_repaints_nothing() -> None:
    async def work(s: Screen) -> None:
        painted: list[Any] = []
        for widget in (s.app.jobs, s.app.lanes, s.app.detail):
            widget.refresh = lambda *a, **k: painted.append(a)  # type: ignore[method-assign,assignment]
        await s.give(replace(scene()))
        assert painted == []
        jobs = list(scene().journal.jobs)
        jobs[1] = replace(jobs[1], state=S.CANCELLING)
        await s.give(replace(scene(), journal=replace(scene().journal, jobs=tuple(jobs))))
        assert len(painted) == 1  # one stretch of one line
        assert painted[0][0].height == 1
        assert painted[0][0].width < 60

    show(work)


def test_a_sweep_unfolds_pages_and_folds() -> None:
    async def work(s: Screen) -> None:
        await s.selects(430)
        await s.press("enter")
        assert s.still.wanted.unfolded == ((430, 100),)
        await s.give(with_cells(scene()))
        labels = [r.label for r in s.app.jobs.rows]
        assert "973 more: Enter shows 100" in labels
        s.app.jobs.select(labels.index("973 more: Enter shows 100"))
        await s.press("enter")
        assert s.still.wanted.unfolded == ((430, 200),)
        await s.selects(430)
        await s.press("enter")
        assert s.still.wanted.unfolded == ()
        assert not any(r.fold == "." for r in s.app.jobs.rows)

    show(work)


def test_filter_as_one_types_and_out_again() -> None:
    async def work(s: Screen) -> None:
        every = len(s.app.jobs.rows)
        await s.press("slash", *"state:failed")
        await s.until(lambda: [r.id for r in s.app.jobs.rows] == [430, 401, 398], "three rows")
        assert s.still.wanted.states == (S.FAILED,)
        await s.press("enter")
        assert "/state:failed" in s.text
        await s.press("q" if False else "escape")
        assert len(s.app.jobs.rows) == every
        await s.press("slash", *"zzz")
        await s.until(lambda: "no job is like that" in s.text, "words for an empty table")

    show(work)


def test_sort_and_failed_only() -> None:
    async def work(s: Screen) -> None:
        await s.press("s")
        assert s.app.jobs.rows[0].id == 1461
        assert "by newest" in s.text
        await s.press("f")
        assert {r.id for r in s.app.jobs.rows} == {430, 401, 398}
        await s.press("f")
        assert len(s.app.jobs.rows) > 20

    show(work)


def test_metrics_turn() -> None:
    async def work(s: Screen) -> None:
        assert "loss 0.06187" in s.text
        await s.press("right_square_bracket")
        assert "loss 0.06187" not in s.text
        assert "lr" in s.text or "psnr" in s.text
        await s.press("left_square_bracket")
        assert "loss 0.06187" in s.text

    show(work)


def test_help_and_panes() -> None:
    async def work(s: Screen) -> None:
        await s.press("question_mark")
        assert "unfold or fold a sweep" in s.text
        await s.press("escape")
        assert "unfold or fold a sweep" not in s.text
        assert s.app.jobs.has_focus
        await s.press("tab")
        assert s.app.detail.has_focus
        await s.press("tab")
        assert s.app.lanes.has_focus

    show(work)


def test_mouse_selects_unfolds_scrolls_and_presses_keys() -> None:
    async def work(s: Screen) -> None:
        y = next(i for i, r in enumerate(s.app.jobs.rows) if r.id == 425) + 1
        await s.pilot.click("#jobs", offset=(20, y))
        await s.pilot.pause()
        assert s.selected == 425
        y = next(i for i, r in enumerate(s.app.jobs.rows) if r.id == 430) + 1
        await s.pilot.click("#jobs", offset=(1, y))
        await s.pilot.pause()
        assert s.still.wanted.unfolded == ((430, 100),)
        await s.pilot.click("#footer", offset=(s.lines[-1].index("sort") + 1, 0))
        await s.pilot.pause()
        assert s.app.choices.order == "newest"

    show(work)


def test_resize_to_wide_narrow_tiny_and_back() -> None:
    async def work(s: Screen) -> None:
        await s.selects(430)
        for size in ((200, 50), (61, 15), (120, 40)):
            await s.pilot.resize_terminal(*size)
            await s.pilot.pause()
            assert all(len(line) <= size[0] for line in s.lines)
            assert "kernel" in s.text
            assert s.selected == 430
        await s.pilot.resize_terminal(50, 12)
        await s.pilot.pause()
        assert "lab top needs 60x15, this is 50x12." in s.text
        assert "kernel" not in s.text
        await s.pilot.resize_terminal(80, 24)
        await s.pilot.pause()
        assert "kernel" in s.text

    show(work)


@pytest.mark.parametrize("theme", ["dark", "light", "contrast", "mono"])
def test_the_same_words_in_every_theme(theme: str) -> None:
    async def work(s: Screen) -> None:
        assert "✗ 7 failed" in s.text
        await s.press("t")
        assert "✗ 7 failed" in s.text

    show(work, theme=theme)


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def work(s: Screen) -> None:
        for strip in s.app.screen._compositor.render_strips():
            for segment in strip:
                style = segment.style
                for colour in (style.color, style.bgcolor) if style is not None else ():
                    assert colour is None or colour.is_default, segment

    show(work, theme="")


def test_a_lane_that_dies_is_said_where_it_matters() -> None:
    base = scene()

    async def work(s: Screen) -> None:
        lanes = tuple(
            replace(x, state=LaneState.DOWN, heard_s=900.0, reason="it was switched off") if x.name == "bat00" else x
            for x in base.lanes
        )
        live = {**base.live, (412, 2): replace(base.live[(412, 2)], age_s=900.0)}
        await s.give(replace(base, lanes=lanes, live=live))
        assert "✗ down" in s.text
        assert "15m" in s.text
        assert s.app.jobs.rows[0].note == "lane bat00 is down, last heard 15m00s ago"
        await s.give(base)
        assert "✗ down" not in s.text

    show(work)


def test_trouble_is_in_the_first_line_and_the_rows_stay() -> None:
    async def work(s: Screen) -> None:
        await s.give(replace(scene(), trouble="the journal was replaced; run the command again"))
        assert "! the journal was replaced" in s.lines[0]
        assert "postfilter-64ch" in s.text

    show(work)


def test_a_hostile_log_stays_in_its_pane(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    many_jobs(home, 30)
    run = home.run_dir(28, 1)
    run.path.mkdir(parents=True)
    evil = b"\x1b[2J\x1b[H\x1b]52;c;ZXZpbA==\x07first\nabc\b\b\bxyz\n\x9b31m\xff\xfe\x00\nlast\n"
    run.log.write_bytes(b"w" * 3_000_000 + b"\n" + evil)

    async def work(s: Screen) -> None:
        await s.selects(28)
        await s.until(lambda: "last" in s.text, "the log")
        assert "xyz" in s.text
        assert "ZXZp" not in s.text
        assert "\x1b" not in s.text
        assert "\x9b" not in s.text
        assert all(len(line) == 80 for line in s.lines)
        await s.press("l")
        await s.until(lambda: isinstance(s.app.screen, LogScreen) and "first" in s.text, "the whole log")
        assert "following" in s.lines[0]
        await s.press("home")
        assert "line" in s.lines[0]
        with run.log.open("a") as f:
            f.write("one more\n")
        await s.press("end")
        await s.until(lambda: "one more" in s.text, "the new line")
        run.log.unlink()
        await s.until(lambda: "the log file is gone" in s.text, "that it went")
        await s.press("escape")
        assert "LANE" in s.text

    show(work, home=home)


# Asking.


@pytest.fixture
def asked(home: Home, ask: Submit, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Three queued jobs of a real submit; the third is held."""
    monkeypatch.setenv("LAB_NO_START", "1")
    new_session().home_given = home.path
    for alpha in (1.0, 2.0, 3.0):
        ask(alpha=alpha)
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.HELD, job=3, data={"reason": "asked"})
    return home


def events(home: Home, kind: K) -> list[int | str | None]:
    with Journal.open(home) as journal:
        return [e.job if e.job is not None else e.lane for e in query.events(journal.conn) if e.kind == kind]


def test_cancel_asks_first_and_then_writes_a_request(asked: Home) -> None:
    async def work(s: Screen) -> None:
        await s.selects(1)
        await s.press("c")
        assert "Cancel job 1" in s.text
        await s.press("enter")  # the button that is ready says: leave it
        assert events(asked, K.CANCEL_ASKED) == []
        await s.press("c", "y")
        await s.until(lambda: "cancel asked" in s.text, "what came of it")
        assert events(asked, K.CANCEL_ASKED) == [1]

    show(work, home=asked)


def test_cancel_by_mouse(asked: Home) -> None:
    async def work(s: Screen) -> None:
        await s.selects(2)
        await s.press("c")
        await s.pilot.click(s.app.screen.query_one("#yes", Button))
        await s.until(lambda: events(asked, K.CANCEL_ASKED) == [2], "the request")

    show(work, home=asked)


def test_what_has_ended_is_not_cancelled_and_says_why(asked: Home) -> None:
    with Journal.open(asked, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.JOB_ENDED, job=1, data={"state": "succeeded", "cause": "ok", "reason": ""})

    async def work(s: Screen) -> None:
        await s.selects(1)
        await s.press("c")
        await s.until(lambda: "nothing to cancel" in s.text, "the reason")
        assert events(asked, K.CANCEL_ASKED) == []

    show(work, home=asked)


def test_hold_and_release_by_one_key(asked: Home) -> None:
    async def work(s: Screen) -> None:
        await s.selects(2)
        await s.press("h")
        await s.until(lambda: events(asked, K.HOLD_ASKED) == [2], "the request to hold")
        await s.selects(3)
        await s.press("h")
        await s.until(lambda: events(asked, K.RELEASE_ASKED) == [3], "the request to release")

    show(work, home=asked)


def test_rerun_submits_a_new_job(asked: Home) -> None:
    with Journal.open(asked, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.JOB_ENDED, job=1, data={"state": "failed", "cause": "error", "reason": "it broke"})

    def jobs() -> int:
        with Journal.open(asked) as journal:
            return len(query.jobs(journal.conn))

    async def work(s: Screen) -> None:
        await s.selects(1)
        await s.press("r")
        assert "Run 1 again?" in s.text
        await s.press("n")
        assert jobs() == 3
        await s.press("r", "y")
        await s.until(lambda: jobs() == 4, "the new job")
        await s.until(lambda: any(r.id == 4 for r in s.app.jobs.rows), "its row")

    show(work, home=asked)


def test_of_a_sweep_the_failed_cells_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.tui import actions

    asked: list[tuple[int, bool]] = []

    def rerun(job: int, *, failed_cells: bool = False) -> actions.Outcome:
        asked.append((job, failed_cells))
        return actions.Outcome("submitted", True)

    monkeypatch.setattr(actions, "rerun", rerun)

    async def work(s: Screen) -> None:
        await s.selects(430)
        await s.press("r")
        assert "Run the 3 failed cells of 430 again?" in s.text
        await s.press("y")
        await s.until(lambda: asked == [(430, True)], "the request")
        await s.selects(398)
        await s.press("r", "y")
        await s.until(lambda: asked[1:] == [(398, False)], "the request")

    show(work)


def test_drain_needs_a_reason_and_resume_does_not(asked: Home) -> None:
    async def work(s: Screen) -> None:
        await s.press("tab", "tab", "d")
        assert "Drain lane local" in s.text
        await s.press("enter")
        assert "a reason is needed" in s.text
        await s.press(*"full", "enter")
        await s.until(lambda: events(asked, K.DRAIN_ASKED) == ["local"], "the request")
        await s.until(lambda: "drain asked" in s.text, "the wish in the table")
        await s.press("d")
        await s.until(lambda: "Resume lane local" in s.text, "the other question")
        await s.press("enter")
        await s.until(lambda: events(asked, K.RESUME_ASKED) == ["local"], "the request")

    show(work, home=asked)


def test_an_error_is_one_sentence_at_the_bottom(asked: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.errors import Unavailable
    from lab import asking

    def busy(*_: Any, **__: Any) -> None:
        raise Unavailable("the journal is busy", hint="try again")

    monkeypatch.setattr(asking, "ask", busy)

    async def work(s: Screen) -> None:
        await s.selects(2)
        await s.press("h")
        await s.until(lambda: "the journal is busy; try again" in s.lines[-1], "the sentence")

    show(work, home=asked)


def test_no_home_is_a_sentence_and_then_a_table(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work(s: Screen) -> None:
        await s.until(lambda: "there is no lab home" in s.lines[0], "the sentence")
        many_jobs(home, 3)
        await s.until(lambda: "number 2" in s.text, "the jobs")

    show(work, home=home)


def test_a_screen_without_jobs_says_how_to_begin() -> None:
    async def work(s: Screen) -> None:
        assert "lab submit parity" in s.text
        await s.press("c", "enter", "l", "h", "r")  # nothing is selected: nothing happens
        assert "no job is selected" in s.text

    show(work, snapshot=Snapshot("/home/ada/.lab", NOW))


def test_quitting_keys() -> None:
    async def quits(key: str) -> int | None:
        app = TopApp(Home(Path("/nowhere")), reader=Still(scene()), clock=CLOCK, theme="dark")
        async with app.run_test() as pilot:
            await pilot.pause()
            await pilot.press(key)
        return app.return_code

    assert [asyncio.run(quits(key)) for key in ("q", "ctrl+c")] == [0, 0]


def test_rows_know_their_kind() -> None:
    async def work(s: Screen) -> None:
        assert all(isinstance(r, JobRow) for r in s.app.jobs.rows)

    show(work)
