"""What batches did, and what is placed now, into the journal: one transaction for all of it."""

from __future__ import annotations

import traceback

from core.errors import LabError
from core.failpoint import failpoint
from core.journal import Event, query
from lanes.dispatch import Dispatch
from lanes.flights import Written
from lanes.mirror import Mirror, say


class Recorder:
    """Writes down what was sent and what came back. Owned by the controller's one thread."""

    def __init__(self, mirror: Mirror, dispatch: Dispatch) -> None:
        self.m = mirror
        self.dispatch = dispatch

    def record(self, placed: list[Event], *, now: bool = False) -> bool:
        """One transaction for all that batches did since the last one, and for what is placed now.

        Args:
            now: also placements that could wait a moment for the ends of their batches.
        """
        batches = self.dispatch.waits
        if not placed and (not batches or (not now and self.dispatch.patience() > 0)):
            return False
        written = Written()
        if placed:
            failpoint("controller.before_placed")
        if batches:
            failpoint("controller.before_batches")
        try:
            with self.m.journal.transaction() as tx:
                if batches:
                    written = self.dispatch.write(tx)
                if placed:
                    tx.extend(placed)
        except LabError:
            raise
        except Exception:
            if not self.dispatch.done:
                raise
            say(f"a bug of ours\n{traceback.format_exc()}")
            self._record_singly()
            self.m.stale = True
            return True
        if placed:
            failpoint("controller.after_placed")
        if batches:
            failpoint("controller.after_batches")
        self.dispatch.landed(written)
        self.m.heard(placed)
        for event in placed:
            assert event.job is not None
            attempt = next(a for a in query.attempts(self.m.journal.conn, event.job) if a.n == event.attempt)
            self.m.take_up(attempt)
            self.m.tell_start(query.job(self.m.journal.conn, event.job), attempt)
        return True

    def _record_singly(self) -> None:
        """One batch that cannot be recorded must not take the others with it."""
        for nonce in list(self.dispatch.done):
            try:
                with self.m.journal.transaction() as tx:
                    written = self.dispatch.write(tx, [nonce])
            except LabError:
                raise
            except Exception as error:
                self.dispatch.give_up(nonce, f"it could not be recorded: {type(error).__name__}: {str(error)!a}")
                with self.m.journal.transaction() as tx:
                    written = self.dispatch.write(tx, [nonce])
            self.dispatch.landed(written)
