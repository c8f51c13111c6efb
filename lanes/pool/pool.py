"""The pool of warm workers, as the controller sees it: batches go in, `("batch", lane, BatchDone)` comes out.

Its methods are called from the controller's thread and never wait for a worker. Answers come in on the thread of the
links, which gives the worker its next batch at once; ends of workers are looked into on another. A lock keeps the few
books that all of them share.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.home import Home
from core.states import Cause
from lanes.agent import procs
from lanes.later import Message
from lanes.pool.crew import Crew, Running, Worker, crew_key, spec_blob, why_not
from lanes.pool.ends import death, done_of, never_ready, not_begun, over, running_end, whole
from lanes.pool.folder import SPARE
from lanes.pool.links import Link, Links
from lanes.pool.recover import recover
from lanes.pool.types import Batch, BatchDone, Cell

IDLE_S = 60.0  # a worker without work is ended after this
MOST_IDLE = 8
AHEAD_S = 0.2  # a batch that was sent ahead waits no longer than this
_REFUSED_S = 5.0  # for so long no worker is made for a kind that could not be loaded
_TAINTED = 3  # so many workers of a crew are replaced because they had read undeclared files
_ROOM = 0.7  # of its memory limit: a worker that holds more after a batch is not used again


class Pool:
    """All warm workers of one controller.

    Args:
        say: puts a message into the controller's inbox; called from any thread.
    """

    def __init__(self, home: Home, say: Callable[[Message], None]) -> None:
        self._home = home
        self.say = say
        self._lock = threading.RLock()
        self._crews: dict[str, Crew] = {}
        self._keys: dict[str, str] = {}  # spec digest -> crew key
        self._why: dict[str, str] = {}  # crew key and what else matters -> why it cannot be pooled
        self._blobs: dict[str, bytes] = {}
        self._running: dict[str, Running] = {}
        self._numbers = itertools.count(1)
        self._morgue = ThreadPoolExecutor(1, thread_name_prefix="pool-deaths")
        self._dismissals = ThreadPoolExecutor(1, thread_name_prefix="pool-ends")
        self._oom_kills = procs.oom_kills()
        self._closed = False
        shutil.rmtree(home.runtime / "pool", ignore_errors=True)  # of an earlier session, whose workers are dead
        shutil.rmtree(home.batches / SPARE, ignore_errors=True)
        (home.batches / SPARE).mkdir(parents=True)
        self._links = Links(home.create_runtime() / "pool.sock")

    # What the controller asks.

    def crew(self, spec_digest: str, spec: Mapping[str, Any]) -> str:
        """The crew that serves this spec."""
        key = self._keys.get(spec_digest)
        if key is None:
            key = self._keys[spec_digest] = crew_key(spec)
        return key

    def can(self, spec: Mapping[str, Any]) -> str:
        """Empty when cells of this spec can run in a pool here, else why not."""
        return why_not(self._home, spec)

    def size(self, crew: str) -> int:
        """How many cells the next batch should hold."""
        with self._lock:
            return self._crew(crew).sizer.next()

    def seconds(self, crew: str, cells: int) -> float:
        """How long a batch of so many cells should take; infinity when nobody knows."""
        with self._lock:
            return self._crew(crew).sizer.seconds(cells)

    def free(self, crew: str) -> int:
        """Warm workers that wait for a batch."""
        with self._lock:
            return len(self._crew(crew).idle)

    def load(self, crew: str) -> tuple[int, int]:
        """(workers that have a batch, batches that wait for one)."""
        with self._lock:
            found = self._crew(crew)
            return len(found.busy), len(found.waiting)

    def in_flight(self) -> dict[str, Batch]:
        with self._lock:
            return {nonce: r.batch for nonce, r in self._running.items()}

    def start(self, batch: Batch, *, time_limit: float | None = None, ahead: bool = False) -> None:
        """Give the batch to the worker that is free first, or to a new one. Its end comes as a message, always.

        Args:
            ahead: it is meant for a worker that is soon done: no new one is made for it, and if it has to wait for
                long it comes back as if it had never been placed.
        """
        if time_limit is None:
            time_limit = (batch.spec.get("limits") or {}).get("time_s")
        run = Running(batch, time_limit, ahead, time.monotonic())
        with self._lock:
            crew = self._crew(self.crew(batch.spec_digest, batch.spec))
            self._running[batch.nonce] = run
            crew.waiting.append(run)
            self._serve(crew)

    def stop_cells(self, jobs: set[int], cause: Cause, *, only: str = "") -> None:
        """Have cells stopped: those that have not begun do not begin, one that runs has its grace, then is killed.

        Args:
            only: nonce of the one batch that is meant; others may have the same cells.
        """
        now = time.monotonic()
        with self._lock:
            for run in [*self._running.values()]:
                mine = [c.job for c in run.batch.cells if c.job in jobs and c.job not in run.stops]
                if not mine or (only and run.batch.nonce != only):
                    continue
                run.stops.update((job, (now, str(cause))) for job in mine)
                if run.worker is None:
                    self._return(run)
                    continue
                with contextlib.suppress(OSError):
                    run.worker.ask_stop({job: str(cause) for job in mine}, run.batch.nonce)

    def collect(self, folder: Path, cells: Iterable[Cell]) -> BatchDone:
        """What the batch of a dead controller has proven; the rest is `back`. Its worker must be dead."""
        folder = Path(folder)
        return recover(folder, folder.name.rpartition("-")[2], cells)

    def tick(self) -> None:
        """Enforce limits, end idle workers. Called a few times a second."""
        now = time.monotonic()
        with self._lock:
            for run in [*self._running.values()]:
                if run.worker is None:
                    if run.ahead and now - run.since > AHEAD_S:
                        self._return(run)
                elif run.killed is None:
                    run.killed = over(run, now)
                    if run.killed is not None:
                        run.worker.kill()
            for crew in self._crews.values():
                for worker in [x for x in crew.idle if now - x.idle_since > IDLE_S]:
                    crew.leave(worker)
                    self._end(worker)
                for worker in crew.warming:
                    if not worker.late and now - worker.born > worker.setup_s:
                        worker.late = True
                        worker.kill()
                for worker in [x for x in (*crew.busy, *crew.warming) if x.proc is not None and not x.lives]:
                    self._later(self._gone, worker, None)
                self._serve(crew)
            if not any(r.killed for r in self._running.values()):
                self._oom_kills = procs.oom_kills()

    def close(self) -> None:
        """End every worker. Nothing is said after this."""
        with self._lock:
            self._closed = True
            workers = [x for c in self._crews.values() for x in (*c.idle, *c.warming, *c.busy)]
            busy = [x for c in self._crews.values() for x in c.busy]
            self._crews.clear()
            self._running.clear()
        for worker in busy:
            worker.kill()
        self._morgue.shutdown(wait=True)
        for worker in workers:
            self._dismissals.submit(worker.dismiss)
        self._dismissals.shutdown(wait=True)
        self._links.close()

    # Workers.

    def _crew(self, key: str) -> Crew:
        return self._crews.setdefault(key, Crew(key))

    def _serve(self, crew: Crew) -> None:
        """Batches that wait, to workers that wait; a new worker for each that finds none."""
        if self._closed:
            return
        while crew.waiting and crew.idle:
            run, worker = crew.waiting.pop(0), crew.idle.pop()
            worker.serial += 1
            run.serial = worker.serial
            crew.busy.append(worker)
            worker.give(run, self._order(run, worker))
        if crew.refused and time.monotonic() - crew.refused_at < _REFUSED_S:
            # Another worker would only find out the same again, once for each batch.
            for run in [r for r in crew.waiting if not (r.ahead and crew.busy)]:
                crew.waiting.remove(run)
                if self._running.pop(run.batch.nonce, None) is not None:
                    self._tell(run.batch, whole(run.batch, Cause.SETUP, crew.refused))
        for _ in range(crew.missing):
            run = next((r for r in crew.waiting if not r.ahead), crew.waiting[0])
            try:
                crew.warming.append(self._hire(crew, run.batch))
            except Exception as error:
                crew.waiting.remove(run)
                del self._running[run.batch.nonce]
                said = f"no worker could be started: {error}"
                self._tell(run.batch, whole(run.batch, Cause.START_LOST, said))

    def _hire(self, crew: Crew, batch: Batch) -> Worker:
        idle = sorted((x for c in self._crews.values() for x in c.idle), key=lambda x: x.idle_since)
        for worker in idle[: max(0, len(idle) + 1 - MOST_IDLE)]:
            worker.crew.idle.remove(worker)
            self._end(worker)
        name = f"{os.getpid()}-{next(self._numbers)}"
        made: list[Worker] = []

        def opened(link: Link) -> Callable[[Any], None]:
            with self._lock:  # which is held until it is made
                return self._opened(made[0], link)

        token = self._links.expect(opened)
        try:
            worker = Worker(self._home, crew, name, batch, self._links.path, token)
        except BaseException:
            self._links.forget(token)
            raise
        made.append(worker)
        worker.serving.future().add_done_callback(lambda f: self._later(self._gone, worker, f.exception()))
        return worker

    def _order(self, run: Running, worker: Worker) -> dict[str, Any]:
        batch = run.batch
        digest = batch.spec_digest
        blob = None
        if digest not in worker.known:
            if digest not in self._blobs:
                self._blobs[digest] = spec_blob(batch.spec)
            blob = self._blobs[digest]
            worker.known.add(digest)
        return {
            "serial": run.serial,
            "nonce": batch.nonce,
            "dir": batch.dir,
            "folder": str(self._home.batches / batch.dir),
            "lane": batch.lane,
            "spec_digest": digest,
            "spec": blob,
            "grant": dict(batch.grant),
            "cells": list(zip(*batch.cells, strict=True)),  # in columns: a tenth of the work for both sides
        }

    def _end(self, worker: Worker) -> None:
        """End a worker that has no batch, away from this thread."""
        worker.ended = True
        self._links.forget(worker.token)
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._dismissals.submit(worker.dismiss)

    # What workers say, on the links' thread.

    def _opened(self, worker: Worker, link: Link) -> Callable[[Any], None]:
        """It has connected: its kind is loaded, or cannot be."""
        worker.link = link
        crew = worker.crew
        if worker.ended or self._closed:
            link.close()
        elif worker in crew.warming:
            crew.warming.remove(worker)
            worker.idle_since = time.monotonic()
            crew.idle.append(worker)
            self._serve(crew)
        return lambda answer: self._heard(worker, answer)

    def _heard(self, worker: Worker, answer: Any) -> None:
        if answer is None:
            self._later(self._gone, worker, None)
            return
        try:
            with self._lock:
                self._answered(worker, answer)
        except Exception as error:  # an answer that cannot be understood: what is on disk counts
            self._later(self._gone, worker, error)

    def _answered(self, worker: Worker, answer: dict[str, Any]) -> None:
        crew, run = worker.crew, worker.run
        if worker.ended:
            return
        refused = answer.get("refused")
        if refused is not None and not any(x.well for x in (*crew.idle, *crew.busy)):
            crew.refused, crew.refused_at = str(refused), time.monotonic()
        if run is None:
            if refused is not None:
                crew.leave(worker)
                self._end(worker)
            return
        if refused is not None:
            done, keep = whole(run.batch, Cause.SETUP, str(refused)), False
        else:
            done = done_of(run.batch, answer)
            # One that is being killed for a limit was quicker with its answer than we with the kill.
            keep = not answer["broken"] and run.killed is None and not self._spoiled(run, worker, done)
            worker.well = True
            crew.deaths, crew.refused = 0, ""
            crew.sizer.measured(len(done.ok) + len(done.ends), done.seconds)
        worker.run = None
        crew.leave(worker)
        if keep:
            worker.idle_since = time.monotonic()
            crew.idle.append(worker)
        else:
            self._end(worker)
        self._serve(crew)
        if self._running.pop(run.batch.nonce, None) is not None:
            self._tell(run.batch, done)

    def _spoiled(self, run: Running, worker: Worker, done: BatchDone) -> bool:
        """Should a new worker do what comes next?"""
        if any(e.undeclared for e in done.ends) and worker.crew.tainted < _TAINTED:
            # The cells to come would be held to depend on what one of these read. If each worker reads it, they do.
            worker.crew.tainted += 1
            return True
        most = (run.batch.spec.get("needs") or {}).get("memory_mb")
        return most is not None and worker.rss_mb() > _ROOM * float(most)

    # Ends of workers, on a thread that may wait.

    def _later(self, work: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._morgue.submit(work, *args)

    def _gone(self, worker: Worker, error: BaseException | None) -> None:
        """Make sure that the worker is gone, and find out what its batch had finished."""
        crew = worker.crew
        with self._lock:
            if worker.ended or self._closed:
                return
            worker.ended = True
            connected = worker.link is not None
            if worker.run is None:  # else its slot in `busy` says that those who wait need not wait for it alone
                crew.leave(worker)
        worker.kill()
        worker.wait_gone()
        if worker.link is not None:
            worker.link.close()
        self._links.forget(worker.token)
        run, done = worker.run, None
        if run is not None:
            seconds, folder = time.monotonic() - run.since, self._home.batches / run.batch.dir
            running = running_end(run, worker, lambda: death(folder, oom=procs.oom_kills() > self._oom_kills))
            done = recover(folder, run.batch.nonce, run.batch.cells, running=running, seconds=seconds)
        with self._lock:
            crew.leave(worker)
            worker.remove()
            if run is None and not connected:
                crew.deaths += 1
                run = next((r for r in crew.waiting if not r.ahead), None)
                if run is not None:
                    crew.waiting.remove(run)
                    done = never_ready(run.batch, crew.deaths, error, late=worker.late)
            self._serve(crew)
            if run is not None and done is not None and self._running.pop(run.batch.nonce, None) is not None:
                self._tell(run.batch, done)

    def _return(self, run: Running) -> None:
        """End a batch that has no worker: what was asked to stop is stopped, the rest goes back."""
        batch = run.batch
        self._crew(self.crew(batch.spec_digest, batch.spec)).waiting.remove(run)
        del self._running[batch.nonce]
        self._tell(batch, not_begun(run))

    def _tell(self, batch: Batch, done: BatchDone) -> None:
        if not self._closed:
            self.say(("batch", batch.lane, done))
