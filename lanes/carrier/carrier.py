"""All that travels between the head and one remote lane. It lives beside the lane's transport, in the lane's actor."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.cluster import LaneConfig
from core.digests import Digests
from core.fsio import no_space, write_json
from core.home import Home
from core.rundir import latest_checkpoint
from lanes.agent import packing
from lanes.carrier.errors import BadHarvest, Cancelled, NotSendable
from lanes.carrier.fetch import Fetch
from lanes.carrier.mirror import Mirror
from lanes.carrier.places import LanePlaces, lane_spec, store_name
from lanes.carrier.pull import Pull, Wrong
from lanes.carrier.source import Want, data_entries
from lanes.carrier.stage import Progress, Stage
from lanes.carrier.weigh import LARGE
from lanes.environment.which import known
from lanes.harvest import NoRoom
from lanes.transport import LinkDown, RemoteError, Transport

_CALL_S = 60.0
_SUMMARY_S = 600.0  # hashing nothing, but walking folders with many files


class Carrier:
    """Sends what attempts need, starts them, keeps their mirror on the head, and fetches what they sealed.

    Safe to use from several threads. It keeps nothing that matters: what was sent or fetched lies on a disk, and
    everything may be called again after the link, or this process, went.

    Args:
        say: told, in one line each, what somebody may want to read in the controller's log.
        large: bytes above which an upload is announced with its largest folders.
    """

    def __init__(
        self,
        home: Home,
        config: LaneConfig,
        transport: Transport,
        *,
        say: Callable[[str], None] | None = None,
        large: int = LARGE,
    ) -> None:
        self._home = home
        self._config = config
        self._transport: Transport = _Patient(transport)
        self._say: Callable[[str], None] = (lambda text: say(f"lane {config.name}: {text}")) if say else _to_log
        self._digests = Digests(home.digests)
        self._stage = Stage(self._transport, self._digests, self._say, large=large)
        self._pull = Pull(self._transport)
        self._mirror = Mirror(home, self._transport, self._pull, self._root, self._say)
        self._guard = threading.Lock()
        self._where: dict[str, Any] | None = None
        self._moving: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._told: set[str] = set()  # interpreters of which the lane knows that we use them

    def close(self) -> None:
        self._mirror.close()
        self._pull.close()
        self._digests.close()

    # To the lane.

    def begin(
        self,
        order: dict[str, Any],
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> dict[str, Any]:
        """Send what the attempt needs and the lane lacks, then start it there. Long, and may be repeated.

        Args:
            order: {"frozen": the spec as lanes.freeze makes it, "lane_python": the interpreter there, or None for the
                one that runs the agent}
            progress: told (bytes done, bytes in all, what is being sent).
            cancelled: ends it between two chunks.

        Returns:
            the agent's answer to `start`, or {"ok": False, "cause": "stale-input" | "setup" | "disk-full" |
            "cancelled", "reason": a sentence}.

        Raises:
            LinkDown, LinkRefused: call it again, it goes on where it stopped. RemoteError, NoRoom.
        """
        frozen = order["frozen"]
        job, n = int(frozen["job"]), int(frozen["attempt"])
        cancelled = cancelled or threading.Event()
        with self._moves("begin", job, n) as row:

            def tell(done: int, total: int, what: str) -> None:
                row.update(done=done, total=total, what=what)
                if progress is not None:
                    progress(done, total, what)

            try:
                return self._begin(frozen, order.get("lane_python"), tell, cancelled)
            except NotSendable as error:
                return {"ok": False, "cause": error.cause, "reason": error.reason}
            except Cancelled:
                reason = "it was cancelled before everything that it needs was on the lane"
                return {"ok": False, "cause": "cancelled", "reason": reason}

    def send_code(self, stores: Iterable[str], cancelled: threading.Event | None = None) -> dict[str, str]:
        """Have snapshots of the home's code store on the lane. Returns name -> path there. Raises as `Stage.send`."""
        wants = [self._code(str(self._home.code / name)) for name in stores]
        return self._stage.send(wants, _nobody, cancelled or threading.Event())

    def ensure_code(self, store: str) -> str:
        """The path on the lane of one snapshot, sent if it is not there. Raises as `Stage.send`."""
        return self.send_code([store])[store]

    def ensure_input(self, item: dict[str, Any]) -> str:
        """The path on the lane of one declared input (as a spec lists it), sent if it is not there.

        Raises as `Stage.send`.
        """
        return self._stage.send([_input(item)], _nobody, threading.Event())[item["sha256"]]

    def send_file(self, path: str, cancelled: threading.Event | None = None) -> str:
        """Have one file of the head (a wheel, a program) on the lane. Returns its path there. Raises as `Stage.send`.

        It is called by its content there; a program that wants its name must link or copy it.
        """
        source = Path(path)
        try:
            digest = self._digests.file(source).sha256
        except OSError as error:
            raise NotSendable("setup", f"{path} cannot be read: {error.strerror or error}") from error
        want = Want("inputs", digest, source, path, tree=False)
        return self._stage.send([want], _nobody, cancelled or threading.Event())[digest]

    # From the lane.

    def saw(self, frame: dict[str, Any]) -> None:
        """A frame of the agent's poll came: have the mirror look. Returns at once."""
        self._mirror.saw(frame.get("reports") or [])

    def sending(self) -> list[dict[str, Any]]:
        """What is under way: {"phase": "begin" | "fetch", "job", "attempt", "what": is being sent, "done", "total"}."""
        with self._guard:
            return [dict(row) for _, row in sorted(self._moving.items())]

    def fetch(self, job: int, n: int, expect: dict[str, Any] | None = None) -> None:
        """Return when everything sealed of this attempt is on the head, verified and durable.

        Args:
            expect: {"nonce", "key"} of the attempt; without it, those that this head had the lane run.

        Raises:
            BadHarvest: no seal, a foreign one, or bytes that differ from it: this attempt gives no result.
            NoRoom: the head's disk is full. LinkDown, LinkRefused: call it again, it goes on where it stopped.
        """
        copy = self._mirror.copy(job, n)
        with self._moves("fetch", job, n) as row:
            with copy.lock:
                copy.fetching = True
            try:
                with copy.files:
                    copy.fetching = True
                    spec = copy.spec()
                    want = {name: (expect or spec).get(name) for name in ("nonce", "key")}

                    def there() -> str:
                        return f"{self._root()}/attempts/{job}/{n}"

                    def count(done: int, total: int) -> None:
                        row.update(done=done, total=total)

                    Fetch(copy, there, self._pull, want, count).run()
            finally:
                copy.fetching = False

    def catch_up(self, job: int, n: int) -> None:
        """Return when the head has what an attempt left that ended without a seal: a next one goes on from there.

        Raises:
            LinkDown, LinkRefused: call it again. RemoteError, NoRoom.
        """
        self._mirror.catch_up(job, n)

    def fetch_file(self, remote: str, local: str, size: int, sha256: str) -> None:
        """Make `local` (on the head) the file `remote` below the agent's folder on the lane, by way of `local`.partial.

        Raises:
            BadHarvest: it is not there, or has another digest. NoRoom, LinkDown, LinkRefused.
        """
        waiting = Path(f"{local}.partial")
        for last in (False, True):
            try:
                self._pull.file(remote, waiting, size=size, sha256=sha256)
                break
            except Wrong:
                if last:
                    raise BadHarvest(f"{remote} on the lane is not what it was said to be") from None
        waiting.replace(local)

    def forget(self, job: int, n: int, keep_checkpoints: bool = True) -> dict[str, Any]:
        """Nothing more of this attempt is wanted: remove its run directory on the lane.

        Its checkpoints stay for a next attempt there; `tidy` removes them when the job has ended.
        """
        self._mirror.over(job, n)
        keep = ["checkpoints"] if keep_checkpoints else []
        answer: dict[str, Any] = self._transport.call("remove", job, n, keep, timeout_s=_CALL_S)
        return answer

    def tidy(self, open_jobs: Iterable[int]) -> dict[str, Any]:
        """Remove what the lane still has of attempts of all other jobs, and of versions of the agent before ours."""
        answer: dict[str, Any] = self._transport.call("tidy", sorted(open_jobs), timeout_s=_SUMMARY_S)
        self._tell_pythons(None)
        code: dict[str, Any] = self._transport.call("tidy_code", timeout_s=_SUMMARY_S)
        if code["removed"]:
            self._say(
                f"versions of the agent that nobody uses were removed from the lane: {', '.join(code['removed'])}"
            )
        return answer

    # Inside.

    def _begin(
        self, frozen: dict[str, Any], python: str | None, progress: Progress, cancelled: threading.Event
    ) -> dict[str, Any]:
        where = self._look()
        if python and python not in self._told:
            self._tell_pythons(python)  # before anything is sent: to make room its environment could be removed
        wants = _wants(frozen)
        sent_checkpoint, kept = self._checkpoints(frozen)
        if sent_checkpoint is not None:
            wants.append(sent_checkpoint)
        paths = self._stage.send(wants, progress, cancelled)
        places = LanePlaces(
            root=str(where["root"]),
            path=str(where["path"]),
            wake=str(where["wake"]),
            python=str(python or where["executable"]),
            code={w.digest: paths[w.digest] for w in wants if w.kind == "code"},
            inputs={w.digest: paths[w.digest] for w in wants if w.kind == "inputs"},
            checkpoints=[*([paths[sent_checkpoint.digest]] if sent_checkpoint else []), *kept],
        )
        spec = lane_spec(frozen, places)
        if cancelled.is_set():
            raise Cancelled
        self._note(spec)
        run_dir = places.run_dir(int(spec["job"]), int(spec["attempt"]))
        answer: dict[str, Any] = self._transport.call("start", spec, run_dir, timeout_s=_CALL_S)
        return answer

    def _tell_pythons(self, python: str | None) -> None:
        """Have the lane keep the environments that we start attempts with."""
        made = known(self._home, self._config.name) or {}
        named = {str(p) for p in (python, made.get("python"), self._config.python) if p}
        if self._transport.call("env_wanted", sorted(named), timeout_s=_CALL_S)["ok"]:
            self._told |= named

    def _note(self, spec: dict[str, Any]) -> None:
        """What the lane is to run, on the head: by it a harvest is told from a foreign one, also after a restart."""
        run = self._home.run_dir(int(spec["job"]), int(spec["attempt"]))
        try:
            run.create()
            write_json(run.spec, spec)
        except OSError as error:
            if no_space(error):
                raise NoRoom(f"the head's disk is full: {error}") from error
            raise

    def _checkpoints(self, frozen: dict[str, Any]) -> tuple[Want | None, list[str]]:
        """A checkpoint to send, if ours is newer than what the lane has; and the lane's own folders, newest first."""
        folders = [Path(p) for p in frozen.get("checkpoints") or ()]
        if not folders:
            return None, []
        there = self._transport.call("kept_checkpoints", int(frozen["job"]), timeout_s=_CALL_S)
        earlier = [k for k in there if k["steps"] and int(k["attempt"]) < int(frozen["attempt"])]
        earlier.sort(key=lambda k: -int(k["attempt"]))
        newest = max((int(step) for k in earlier for step in k["steps"]), default=-1)
        kept = [str(k["path"]) for k in earlier]
        if not any(_has_newer(folder, newest) for folder in folders):
            return None, kept
        found, notes = latest_checkpoint(folders, key=str(frozen.get("key") or ""))
        for note in notes:
            self._say(f"a checkpoint was passed over: {note}")
        if found is None or found.step <= newest:
            return None, kept
        try:
            entries = data_entries(found.path.parent, self._digests, found.path.name)
        except OSError as error:
            raise NotSendable("setup", f"{found.path} cannot be read: {error.strerror or error}") from error
        digest = packing.tree_digest("checkpoints", entries)
        what = f"the checkpoint of step {found.step}"
        want = Want("checkpoints", digest, found.path.parent, what, tree=True, below=found.path.name)
        return want, kept

    def _look(self) -> dict[str, Any]:
        where: dict[str, Any] = self._transport.call("where", timeout_s=_CALL_S)
        with self._guard:
            self._where = where
        return where

    def _root(self) -> str:
        """The agent's folder on the lane: it does not change."""
        with self._guard:
            where = self._where
        return str((where or self._look())["root"])

    def _code(self, path: str) -> Want:
        return Want("code", store_name(path), Path(path), f"the code snapshot {path}", tree=True)

    @contextlib.contextmanager
    def _moves(self, phase: str, job: int, n: int) -> Any:
        row = {"phase": phase, "job": job, "attempt": n, "what": "", "done": 0, "total": 0}
        with self._guard:
            self._moving[(phase, job, n)] = row
        try:
            yield row
        finally:
            with self._guard:
                self._moving.pop((phase, job, n), None)


class _Patient:
    """The transport, for which a lane that has too much to do is one that cannot be reached just now."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        try:
            return self._transport.call(method, *args, timeout_s=timeout_s, bulk=bulk, **named)
        except RemoteError as error:
            if error.type == "Busy":
                raise LinkDown(error.message) from error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _wants(frozen: dict[str, Any]) -> list[Want]:
    """What the spec names on the head and the lane must have."""
    wants = []
    code = frozen.get("code") or {}
    for path in dict.fromkeys([code.get("path"), frozen.get("kind_path")]):
        if path:
            wants.append(Want("code", store_name(path), Path(path), f"the code snapshot {path}", tree=True))
    for item in frozen.get("inputs") or ():
        if not item.get("lane"):
            wants.append(_input(item))
    return wants


def _input(item: dict[str, Any]) -> Want:
    what, made = f"the input {item['name']!r} ({item['path']})", item.get("made")
    want = Want("inputs", item["sha256"], Path(item["path"]), what, tree=bool(item["tree"]))
    return replace(want, since=f"since job {made['job']} made it") if made else want


def _has_newer(folder: Path, step: int) -> bool:
    try:
        return any(p.name.isdigit() and int(p.name) > step for p in folder.iterdir())
    except OSError:
        return False


def _nobody(done: int, total: int, what: str) -> None:
    """Nobody wants to know."""


def _to_log(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, flush=True)
