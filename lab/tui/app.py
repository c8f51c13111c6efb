"""The screen: three panes, a first and a last line. A thread reads, workers ask for changes; nothing waits here."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from core.home import Home
from core.journal.query import Job
from lab.tui import model
from lab.tui.detail import LEAST, DetailPane, FooterLine, HeaderLine, TooSmall
from lab.tui.dialogs import Help
from lab.tui.facts import Detail, Snapshot
from lab.tui.feed import Feed
from lab.tui.filters import ORDERS, Filter
from lab.tui.grid import Grid, JobsGrid, LanesGrid
from lab.tui.keys import BINDINGS, FOR_KEY, KEYS
from lab.tui.lanemodel import LaneRow, lane_rows
from lab.tui.logview import LogScreen
from lab.tui.marks import Marks
from lab.tui.model import Choices, JobRow
from lab.tui.painted import Painted
from lab.tui.requests import Requests
from lab.tui.sheet import SHEET
from lab.tui.themes import PALETTES, Styles, default_name, textual_theme
from lab.tui.tight import TightScreen

_WIDE = (150, 30)  # from here on the detail stands beside the jobs
_TYPING_S = 0.15
Reader = Callable[[Home, Callable[[Snapshot], None]], Feed]


class Read(Message):
    """A new snapshot is there."""


class TopApp(Requests, App[int]):
    """`lab top`.

    Args:
        theme: one of themes.PALETTES.
        reader: makes the thread that reads; tests give one that they turn by hand.
        clock: shown instead of the time of day, for pictures that must not change.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "lab top"
    CSS = SHEET
    BINDINGS = BINDINGS

    def __init__(
        self,
        home: Home,
        *,
        theme: str = "",
        unicode: bool = True,
        reader: Reader = Feed,
        clock: str | None = None,
        driver_class: Any = None,
    ) -> None:
        name = theme or default_name()
        # Textual would turn our colours into greys; without colours we have a palette of our own.
        os.environ.pop("NO_COLOR", None)
        super().__init__(driver_class=driver_class)
        self.animation_level = "none"
        self.home = home
        self.snapshot = Snapshot(str(home.path), 0.0)
        self.choices = Choices()
        self.typed = ""  # the filter as it stands in its line
        self._palette = PALETTES[name]
        self.styles_now = Styles(self._palette)
        self.marks = Marks(unicode)
        self._latest: Snapshot | None = None
        self._waiting = False
        self._feed = reader(home, self._deliver)
        self._clock = clock
        self._typing_timer: Any = None
        self._log_screen: LogScreen | None = None
        for palette in PALETTES.values():
            self.register_theme(textual_theme(palette))
        self.theme = f"lab-{name}"

    def get_default_screen(self) -> Screen[Any]:
        return TightScreen(id="_default")

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict.fromkeys(
            ("lab-dim", "lab-accent", "lab-text", "lab-cursor", "lab-surface", "lab-line"), "ansi_default"
        )

    def compose(self) -> ComposeResult:
        style, marks = self.styles_now, self.marks
        yield HeaderLine(style, marks, id="header", clock=self._clock)
        yield LanesGrid(style, marks, id="lanes")
        with Container(id="main"):
            yield JobsGrid(style, marks, id="jobs")
            yield DetailPane(style, marks, id="detail")
        yield FooterLine(style, marks, id="footer")
        line = Input(id="filter", placeholder="words  state:failed  kind:train  tag:night  lane:bat00", compact=True)
        line.cursor_blink = False
        line.display = False
        yield line
        yield TooSmall(style, marks, id="small")

    def on_mount(self) -> None:
        self.jobs.focus()
        self.footer.show(KEYS)
        self.jobs.empty = "reading the journal"
        self._watch_signals()
        self.app_resume_signal.subscribe(self, lambda _: self.action_redraw())  # after Ctrl-Z and `fg`
        self._fit()
        self._feed.start()

    def _watch_signals(self) -> None:
        """A terminal that goes away, or a polite request to end, ends the screen as `q` does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self.leave)
            except (ValueError, RuntimeError):  # not in the main thread: a test
                return

    @property
    def jobs(self) -> JobsGrid:
        return self.main_screen.query_one("#jobs", JobsGrid)

    @property
    def lanes(self) -> LanesGrid:
        return self.main_screen.query_one("#lanes", LanesGrid)

    @property
    def detail(self) -> DetailPane:
        return self.main_screen.query_one("#detail", DetailPane)

    @property
    def footer(self) -> FooterLine:
        return self.main_screen.query_one("#footer", FooterLine)

    @property
    def main_screen(self) -> Screen[Any]:
        return self.screen_stack[0]

    # Snapshots.

    def _deliver(self, snapshot: Snapshot) -> None:
        """From the reader's thread. If the terminal does not take our output, snapshots must not pile up."""
        self._latest = snapshot
        if not self._waiting:
            self._waiting = True
            self.post_message(Read())

    def on_read(self) -> None:
        self._waiting = False
        if self._latest is not None:
            self.snapshot, self._latest = self._latest, None
            self.show_all()

    def show_all(self) -> None:
        """Bring every pane up to the snapshot and the choices. Each repaints what differs, and no more."""
        snapshot = self.snapshot
        with self.batch_update():
            self.main_screen.query_one("#header", HeaderLine).show(model.header(snapshot))
            lanes = lane_rows(snapshot)
            if len(lanes) != len(self.lanes.rows):
                self.lanes.set_rows(lanes)
                self._fit()
            self.lanes.set_rows(lanes)
            self.jobs.empty = self._empty_words()
            self.jobs.status = self._status()
            self.jobs.set_rows(model.job_rows(snapshot, self.choices))
            selected = self._selected_id()
            self.detail.show(self._detail_of(selected), snapshot.at)
            if self._log_screen is not None:
                self._log_screen.show(snapshot.detail)
        self._ask_feed()

    def _detail_of(self, selected: int | None) -> Detail | None:
        """What is known of the selected job; just its row until the reader has looked into it."""
        detail = self.snapshot.detail
        if detail is not None and detail.job.id == selected:
            return detail
        found = self._find_job(selected) if selected is not None else None
        return Detail(found, sweep=self.snapshot.journal.sweeps.get(found.id)) if found is not None else None

    def _find_job(self, wanted: int) -> Job | None:
        facts = self.snapshot.journal
        shown = itertools.chain(facts.jobs, *facts.cells.values())
        return next((j for j in shown if j.id == wanted), None)

    def _empty_words(self) -> str:
        if not self.choices.filter.empty or self.choices.failed_only:
            return "no job is like that"
        if self.snapshot.trouble and not self.snapshot.journal.counts:
            return "nothing to show"
        return "There are no jobs yet: `lab submit parity` puts one into the queue."

    def _status(self) -> str:
        parts = []
        if self.choices.order != ORDERS[0]:
            parts.append(f"by {self.choices.order}")
        if self.choices.failed_only:
            parts.append("failed only")
        if self.typed:
            parts.append(f"/{self.typed}")
        return f" {self.marks.dot} ".join(parts)

    def _selected_id(self) -> int | None:
        row = self.jobs.selected
        return row.id if row is not None and row.id else None

    def _ask_feed(self) -> None:
        self._feed.want(self.choices.want(self._selected_id(), whole_log=self._log_screen is not None))

    def on_grid_selected(self, event: Grid.Selected) -> None:
        if isinstance(event.grid, JobsGrid):
            self.detail.show(self._detail_of(self._selected_id()), self.snapshot.at)
            self._ask_feed()

    # Sizes.

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size)

    def _fit(self, size: Size | None = None) -> None:
        """Which pane stands where, and how high each is."""
        if not self.screen_stack or not self.main_screen.query("#small"):
            return  # not made yet
        width, height = size or self.size
        screen = self.main_screen
        small = width < LEAST[0] or height < LEAST[1]
        wide = width >= _WIDE[0] and height >= _WIDE[1]
        screen.set_class(small, "small")
        screen.set_class(wide, "wide")
        lanes = max(1, len(self.lanes.rows))
        most = max(2, height // 6)
        self.lanes.styles.height = 1 + min(lanes, most)
        if wide:
            self.detail.styles.height = "1fr"
        else:
            self.detail.styles.height = max(6, min(height // 2, height // 3 if height < 30 else height * 2 // 5))

    # Panes.

    def action_pane(self, by: int) -> None:
        if len(self.screen_stack) > 1:
            self.screen.focus_next() if by > 0 else self.screen.focus_previous()
            return
        panes = [self.jobs, self.detail, self.lanes]
        at = next((i for i, p in enumerate(panes) if p.has_focus), 0)
        panes[(at + by) % len(panes)].focus()

    def on_grid_opened(self, event: Grid.Opened) -> None:
        row = event.grid.selected
        if isinstance(row, LaneRow):
            self.action_drain()
        elif isinstance(row, JobRow):
            self._fold(row)

    def _fold(self, row: JobRow) -> None:
        open_ = dict(self.choices.unfolded)
        if row.fold == "+":
            open_[row.id] = model.PAGE
        elif row.fold == "-":
            del open_[row.id]
        elif row.fold == ">":
            open_[row.id] = open_.get(row.id, 0) + model.PAGE
        else:
            self.detail.focus()
            return
        self._choose(unfolded=open_)

    def _choose(self, **changes: Any) -> None:
        self.choices = replace(self.choices, **changes)
        self.show_all()

    def action_sort(self) -> None:
        order = ORDERS[(ORDERS.index(self.choices.order) + 1) % len(ORDERS)]
        self._choose(order=order)
        self.say(f"sorted by {order}")

    def action_failed(self) -> None:
        self._choose(failed_only=not self.choices.failed_only)

    def action_metric(self, by: int) -> None:
        if not self.detail.other_metric(by):
            self.say("there is no other curve")

    def action_theme(self) -> None:
        names = list(PALETTES)
        name = names[(names.index(self._palette.name) + 1) % len(names)]
        self._palette = PALETTES[name]
        self.styles_now = Styles(self._palette)
        self.theme = f"lab-{name}"
        for widget in self.main_screen.query(Painted):
            widget.use(self.styles_now)
        self.say(f"theme {name}")

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_log(self) -> None:
        if self._selected_id() is None:
            self.say("no job is selected")
            return

        def closed(_: None) -> None:
            self._log_screen = None
            self._ask_feed()

        self._log_screen = LogScreen(self.styles_now, self.marks)
        self._log_screen.show(self.snapshot.detail)
        self.push_screen(self._log_screen, closed)
        self._ask_feed()

    def action_redraw(self) -> None:
        """Draw everything again: who knows what else was written on the terminal."""
        for screen in self.screen_stack:
            screen.refresh()
            for widget in screen.query(Painted):
                widget.repaint_all()

    async def action_quit(self) -> None:
        self.leave()

    def leave(self) -> None:
        self._feed.stop()
        self.exit(0)

    def on_footer_line_pressed(self, event: FooterLine.Pressed) -> None:
        action = FOR_KEY.get(event.key)
        if action == "quit":
            self.leave()
        elif action == "pane":
            self.action_pane(1)
        elif action:
            getattr(self, f"action_{action}")()

    # The filter.

    @property
    def _line(self) -> Input:
        line: Input = self.main_screen.query_one("#filter", Input)
        return line

    def action_filter(self) -> None:
        self.footer.display = False
        self._line.display = True
        self._line.focus()

    def action_clear(self) -> None:
        """Esc: out of the line and of the filter."""
        if self._line.display or self.typed or self.choices.failed_only:
            self._line.value = ""
            self._typed("")
            self._choose(failed_only=False)
        self._close_line()

    def _close_line(self) -> None:
        if self._line.display:
            self._line.display = False
            self.footer.display = True
            self.jobs.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id != "filter":
            return
        if self._typing_timer is not None:
            self._typing_timer.stop()
        text = event.value
        self._typing_timer = self.set_timer(_TYPING_S, lambda: self._typed(text))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._typed(event.value)
            self._close_line()

    def _typed(self, text: str) -> None:
        if self._typing_timer is not None:
            self._typing_timer.stop()
            self._typing_timer = None
        if text != self.typed:
            self.typed = text
            self._choose(filter=Filter.parse(text))
