"""One hook for news: a program of the user's that gets a JSON document on stdin.

In cluster.yaml:

    notify: [./notify.sh, --quietly]     # a relative path with a slash is meant from the folder of cluster.yaml

It is run once for each of these events, with one document (UTF-8, one line):

    {"schema": "lab.notify/1", "event": "job-done", "id": 7, "name": "train -e 3", "kind": "command",
     "state": "succeeded", "cause": "ok", "reason": null, "counts": null, "lane": "local",
     "home": "/home/ann/.lab", "at": "2026-03-01T12:00:00Z"}

    job-done, job-failed    a job by itself; cells of a sweep are not told of one by one
    sweep-failing           the first cell of a sweep has failed (once for each sweep)
    sweep-finished          a sweep has ended, however; `counts` holds its cells by state
    lane-lost               a lane no longer answers; `id`, `name` and `kind` are null

Nothing waits for it: it runs beside the controller, a few at once; after 30 s it and what it started in its process
group are killed, and what waits beyond a bound is dropped. Its own errors go into the controller's log. What a
controller did not come to tell before its end is not told by the next one: for the truth, ask `lab status --json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from core.cluster import Cluster
from core.home import Home
from core.journal import Event, Journal, query
from core.journal.query import Job
from core.states import EventKind, JobState, LaneState
from lanes.mirror import say

SCHEMA = "lab.notify/1"
LIMIT_S = 30.0
AT_ONCE = 3
_WAITING = 500
_STDERR = 500  # how much of what it says gets into the log
_FINISH_S = 3.0

Document = dict[str, Any]


class Hook:
    """Runs the program, away from everything else. `tell` never waits."""

    def __init__(self, argv: Sequence[str], folder: Path, *, limit_s: float = LIMIT_S) -> None:
        self._argv = list(argv)
        self._folder = folder
        self._limit_s = limit_s
        self._queue: queue.Queue[Document | None] = queue.Queue(_WAITING)
        self._dropped = 0
        self._threads = [threading.Thread(target=self._work, name=f"notify-{i}", daemon=True) for i in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def tell(self, document: Document) -> None:
        try:
            self._queue.put_nowait(document)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1 or self._dropped % 1000 == 0:
                say(f"notify: {self._argv[0]} does not keep up; {self._dropped} dropped so far")

    def finish(self) -> None:
        """At a graceful end: what waits gets a moment, no more."""
        deadline = time.monotonic() + _FINISH_S
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=max(0.0, deadline - time.monotonic()))
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (document := self._queue.get()) is not None:
            try:
                why = run_hook(self._argv, document, self._folder, limit_s=self._limit_s)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            if why:
                say(f"notify: {self._argv[0]} for {document['event']} of {document['id']}: {why}")


def run_hook(argv: Sequence[str], document: Document, folder: Path, *, limit_s: float) -> str:
    """Run the program with `document` on its stdin. Returns "" or what went wrong."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LAB_ATTEMPT"))}
    env["LAB_HOME"] = document["home"]
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=env,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"it does not start: {getattr(error, 'strerror', None) or error}"
    assert child.stdin is not None
    assert child.stderr is not None
    deadline = time.monotonic() + limit_s
    with child.stdin as stdin, child.stderr as stderr:
        # A document is far smaller than a pipe: this does not wait, whether anybody reads it or not.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(document, ensure_ascii=True).encode() + b"\n")
            stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        said = _listen(child, stderr, deadline)
        if child.poll() is None:  # before its stderr is closed: that would end it in a way that looks like its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"killed after {limit_s:g} s"
    if child.returncode:
        text = said.decode(errors="replace").strip().replace("\n", " | ")
        how = f"exit {child.returncode}" if child.returncode > 0 else f"signal {-child.returncode}"
        return how + (f" ({text!a})" if text else "")
    return ""


def _listen(child: subprocess.Popen[bytes], stderr: IO[bytes], deadline: float) -> bytes:
    """What it says on stderr until it ends, the beginning of it; the rest is read and dropped."""
    said = b""
    fd = stderr.fileno()
    open_ = True
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        if not open_:
            if ended:
                break
            time.sleep(0.02)
            continue
        ready = select.select([fd], [], [], 0.0 if ended else 0.05)[0]
        if ready:
            chunk = os.read(fd, 1 << 16)
            said = (said + chunk)[:_STDERR]
            open_ = bool(chunk)
        elif ended:
            break
    return said


class News:
    """Turns what was committed into documents for the hook. Does nothing where none is declared."""

    def __init__(self, home: Home, journal: Journal, cluster: Cluster) -> None:
        self._home = home
        self._journal = journal
        folder = cluster.path.parent if cluster.path is not None else home.path
        self._hook = Hook(_resolved(cluster.notify, folder), folder) if cluster.notify else None

    def hear(self, events: Sequence[Event]) -> None:
        if self._hook is None:
            return
        try:
            self._hear(events)
        except Exception as error:  # news are not worth stopping for
            say(f"notify: {type(error).__name__}: {error}")

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            data = event.data
            final = event.kind is EventKind.CELL_ENDED and data["to"] != JobState.QUEUED
            if event.job is not None and (final or event.kind is EventKind.JOB_ENDED):
                self._ended(event.job)
            elif event.kind is EventKind.BATCH_ENDED:
                for first, last, _n in data["ok"]:
                    if query.job(self._journal.conn, first).sweep is None:
                        for job in range(first, last + 1):
                            self._ended(job)
            elif event.kind is EventKind.LANE and data["state"] == LaneState.UNREACHABLE:
                self._tell("lane-lost", None, lane=event.lane, state=data["state"], reason=data["reason"])

    def failing(self, sweep: int, cell: int) -> None:
        """A sweep's first cell has failed."""
        if self._hook is not None:
            conn = self._journal.conn
            job, failed = query.job(conn, sweep), query.job(conn, cell)
            reason = f"job {cell} failed: {failed.reason or failed.cause}"
            self._tell("sweep-failing", job, cause=failed.cause, reason=reason, counts=self._counts(sweep))

    def finish(self) -> None:
        if self._hook is not None:
            self._hook.finish()

    def _ended(self, job_id: int) -> None:
        job = query.job(self._journal.conn, job_id)
        if job.sweep is not None:
            return
        if job.is_sweep:
            self._tell("sweep-finished", job, counts=self._counts(job_id))
        elif job.state is JobState.SUCCEEDED:
            self._tell("job-done", job)
        elif job.state is JobState.FAILED:
            self._tell("job-failed", job)

    def _counts(self, sweep: int) -> dict[str, int]:
        return {str(state): n for state, n in query.sweep_counts(self._journal.conn, sweep).items()}

    def _tell(self, event: str, job: Job | None, **more: Any) -> None:
        document: Document = {
            "schema": SCHEMA,
            "event": event,
            "id": job.id if job else None,
            "name": job.name[:500] if job else None,
            "kind": job.kind if job else None,
            "state": str(job.state) if job else None,
            "cause": job.cause if job else None,
            "reason": (job.reason or None) if job else None,
            "counts": None,
            "lane": job.lane if job else None,
            "home": str(self._home.path),
            "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            **more,
        }
        if document["reason"]:
            document["reason"] = str(document["reason"])[:2000]
        assert self._hook is not None
        self._hook.tell(document)


def _resolved(argv: Sequence[str], folder: Path) -> list[str]:
    program = argv[0]
    if "/" in program and not program.startswith(("/", "~")):
        program = str(folder / program)
    return [os.path.expanduser(program), *argv[1:]]
