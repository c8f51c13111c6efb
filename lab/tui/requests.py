"""What keys ask of the controller: each is asked once more where it matters, done by a worker, answered in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.states import JobState, LaneState
from lab.tui import actions
from lab.tui.actions import Outcome
from lab.tui.dialogs import Ask, AskReason
from lab.tui.model import JobRow

if TYPE_CHECKING:
    from textual.app import App

    from core.journal.query import Job
    from lab.tui.detail import FooterLine
    from lab.tui.facts import Snapshot
    from lab.tui.feed import Feed
    from lab.tui.grid import JobsGrid, LanesGrid

    _Base = App[int]
else:
    _Base = object

_MESSAGE_S = 8.0


class Requests(_Base):
    """The part of the app that asks for changes."""

    if TYPE_CHECKING:
        snapshot: Snapshot
        _feed: Feed

        @property
        def jobs(self) -> JobsGrid: ...
        @property
        def lanes(self) -> LanesGrid: ...
        @property
        def footer(self) -> FooterLine: ...
        def _find_job(self, wanted: int) -> Job | None: ...

    _message_timer: Any = None

    def say(self, message: str, role: str = "text") -> None:
        """One line at the bottom, for a while."""
        self.footer.say(message, role)
        if self._message_timer is not None:
            self._message_timer.stop()
        self._message_timer = self.set_timer(_MESSAGE_S, lambda: self.footer.say(""))

    def _do(self, work: Callable[[], Outcome]) -> None:
        def run() -> None:
            outcome = work()
            self.call_from_thread(self._done, outcome)

        self.say("asking")
        self.run_worker(run, thread=True, group="asking", exit_on_error=False)

    def _done(self, outcome: Outcome) -> None:
        self.say(outcome.said, "text" if outcome.fine else "bad")
        self._feed.poke()

    def _job(self) -> tuple[JobRow, JobState, str | None] | None:
        """The selected job, with what is known of it."""
        row = self.jobs.selected
        if row is None or not row.id or row.fold == ">":
            self.say("no job is selected")
            return None
        found = self._find_job(row.id)
        return (row, found.state, found.wish) if found is not None else (row, JobState(row.state), None)

    def action_cancel(self) -> None:
        chosen = self._job()
        if chosen is None:
            return
        row, state, wish = chosen
        if state.terminal or wish == "cancel":
            self._do(lambda: actions.cancel(row.id))  # it answers why there is nothing to do
            return
        fact = self.snapshot.journal.sweeps.get(row.id)
        about = "What runs is asked to stop; after its grace everything of it is killed."
        if fact is not None:
            about = f"{fact.total - fact.ended:,} cells have not ended. " + about

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: actions.cancel(row.id))

        self.push_screen(
            Ask(f"Cancel {'sweep' if fact else 'job'} {row.id}: {row.label[:50]}?", "cancel it", about), answered
        )

    def action_hold(self) -> None:
        chosen = self._job()
        if chosen is None:
            return
        row, state, wish = chosen
        work = actions.release if actions.held(state, wish) else actions.hold
        self._do(lambda: work(row.id))

    def action_rerun(self) -> None:
        chosen = self._job()
        if chosen is None:
            return
        row, _, _ = chosen
        fact = self.snapshot.journal.sweeps.get(row.id)
        failed = fact.of(JobState.FAILED) if fact is not None else 0
        cells = f"the {failed:,} failed cells" if failed > 1 else "the failed cell"
        what = f"Run {cells} of {row.id} again?" if failed else f"Run {row.id} again?"

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: actions.rerun(row.id, failed_cells=bool(failed)))

        about = "It becomes a new job, with the code and inputs of then."
        self.push_screen(Ask(f"{what}  {row.label[:50]}", "run it", about), answered)

    def action_drain(self) -> None:
        lane = self._lane()
        if lane is None:
            self.say("no lane is chosen: Tab goes to the lanes")
            return
        fact = next((x for x in self.snapshot.lanes if x.name == lane), None)
        drained = fact is not None and (
            fact.wish == "drain" or (fact.state is LaneState.DRAINING and fact.wish != "resume")
        )

        def answered(reason: str | None) -> None:
            if reason is not None:
                work = actions.resume if drained else actions.drain
                self._do(lambda: work(lane, reason))

        question = f"Resume lane {lane}" if drained else f"Drain lane {lane}: place nothing more on it"
        self.push_screen(AskReason(question, needed=not drained), answered)

    def _lane(self) -> str | None:
        """The lane that `d` means: the one under the cursor, else that of the selected job, else the only one."""
        row = self.lanes.selected
        if self.lanes.has_focus and row is not None:
            return row.name
        job = self.jobs.selected
        if job is not None and job.lane:
            return job.lane
        return self.lanes.rows[0].name if len(self.lanes.rows) == 1 else None
