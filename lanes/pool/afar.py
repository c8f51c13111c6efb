"""A warm worker on a lane that is reached over ssh: the same loop as in Ray, in a process without it.

`python -P -c "from lanes.pool.afar import main; main()" FOLDER`, with the kind's snapshot on PYTHONPATH. Batches come
as files and are answered by files (see lanes.pool.post); whoever holds the other end of them may come and go. On a
`joined` lane Ray starts the process, and `serve` is all that it runs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.fsio import read_json, write_json
from lanes.agent import procs
from lanes.pool import post
from lanes.pool import words as w
from lanes.pool.words import Words

LOOK_S = 1.0  # between two looks at the orders when nobody rings
_FULL_S = 0.5  # between two tries to write an end on a full disk
_TAINTED = 3  # so many workers of a crew are replaced because they had read undeclared files
_ROOM = 0.7  # of its memory limit: a worker that holds more after a batch is not used again


def main() -> None:
    """Be the worker whose folder is the last argument. Never returns."""
    code = 1
    try:
        serve(Path(sys.argv[-1]))
        code = 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def serve(folder: Path) -> None:
    """Run batches until there are none for a while, or until this process is no longer fit for one."""
    setup: dict[str, Any] = json.loads((folder / post.SETUP).read_bytes())
    os.environ["PYTHONPATH"] = ""  # programs that a cell starts must not find our snapshot by accident
    os.umask(0o022)
    page = Words(folder / post.WORDS)
    page.view[w.TICKS] = procs.start_ticks(os.getpid()) or 0
    page.view[w.PID] = os.getpid()
    try:
        loop = _load(setup, page)
    except BaseException as error:
        traceback.print_exc()
        last = traceback.format_exception_only(error)[-1].strip()
        said = str(error) if hasattr(error, "hint") else last
        why = f"the kind {setup['entry']} cannot be loaded in a worker on this lane: {said}"
        write_json(folder / "refused.json", {"message": why}, sync=False)
        return
    _Far(folder, setup, loop).run()


def _load(setup: Mapping[str, Any], page: Words) -> Any:
    kind_path = os.path.realpath(str(setup["kind_path"]))
    if setup["protocol"] != w.PROTOCOL:
        raise RuntimeError(f"the snapshot is of another version of lab ({w.PROTOCOL}, not {setup['protocol']})")
    for module in (post, w):
        if not os.path.realpath(str(module.__file__)).startswith(kind_path + os.sep):
            raise RuntimeError(f"{module.__name__} comes from {module.__file__} and not from the snapshot {kind_path}")
    from lanes.pool.loop import Loop

    return Loop({**setup, "extra": [*(setup.get("extra") or ()), os.path.abspath(__file__)]}, page)


class _Far:
    """The worker once its kind is loaded."""

    def __init__(self, folder: Path, setup: Mapping[str, Any], loop: Any) -> None:
        self.folder = folder
        self.crew = Path(setup["crew"])
        self.ends = Path(setup["ends"])
        self.bells = Path(setup["bells"])
        self.memory_mb = setup.get("memory_mb")
        self.idle_s = float(setup["idle_s"])
        self.loop = loop
        self.serial = 0
        self._ended = False
        self.bell = post.Bell(self.bells, str(setup["bell"]))
        with contextlib.suppress(ValueError):  # in a process of Ray's it may not be ours to say
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> None:
        post.ring(self.bells, post.AGENT_BELL)  # it is known to be ready
        self.loop.prepare()
        since = time.monotonic()
        while not self._ended and time.monotonic() - since < self.idle_s:
            order = self._claim()
            if order is None:
                self.bell.wait(min(LOOK_S, self.idle_s))
                continue
            fit = self._batch(order)
            if not fit:
                return
            self.loop.prepare()
            since = time.monotonic()

    def _on_sigterm(self, *_: Any) -> None:
        self._ended = True
        post.ring(self.bells, self.folder.name)

    def _claim(self) -> dict[str, Any] | None:
        place = self.folder / post.ORDER
        for name, nonce, _ahead in post.waiting(self.crew):
            if not post.claim(self.crew, name, place):
                continue
            order = post.read_order(place, whole=True)
            if order is not None and not (self.ends / nonce).exists():
                return order
            place.unlink(missing_ok=True)  # torn, or ended already
        return None

    def _batch(self, order: dict[str, Any]) -> bool:
        """Run a batch and say how it ended. False when another process should do what comes next."""
        self.serial += 1
        answer = self.loop.run({**order, "serial": self.serial, "spec": order["spec"].encode()})
        end = {name: answer[name] for name in ("ok", "ends", "back", "seconds", "manifest", "broken")}
        end["no_room"] = bool(answer.get("no_room"))
        self._say(str(order["nonce"]), {"how": "answer", "dir": order["dir"], "crew": self.crew.name, **end})
        (self.folder / post.ORDER).unlink(missing_ok=True)
        post.ring(self.bells, post.AGENT_BELL)
        return not answer["broken"] and not self._is_spoiled(answer["ends"])

    def _say(self, nonce: str, end: dict[str, Any]) -> None:
        while True:
            try:
                post.publish(self.ends, nonce, end)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                time.sleep(_FULL_S)

    def _is_spoiled(self, ends: list[list[Any]]) -> bool:
        if any(row[6] for row in ends):
            # The cells to come would be held to depend on what one of these read. If each worker reads it, they do.
            place = self.crew / "tainted.json"
            before = int(read_json(place, {}).get("workers") or 0)
            if before < _TAINTED:
                with contextlib.suppress(OSError):
                    write_json(place, {"workers": before + 1}, sync=False)
                return True
        if self.memory_mb is None:
            return False
        return procs.rss_bytes([os.getpid()]) / (1 << 20) > _ROOM * float(self.memory_mb)
