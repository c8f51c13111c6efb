"""Inputs that lie on a lane, `--input [NAME=]LANE:/PATH[:DEST]`: hashed there, never sent; the job runs on that lane.

The digest is that of the bytes: the same data on the head gives the same key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.cluster import Cluster
from core.errors import BadInput, ImpossibleNeed, NotFound, Unavailable
from core.home import Home
from core.hosts import check_remote_path
from core.spec import InputFile, Needs

ANSWER_S = 600.0  # hashing a terabyte takes longer: it goes on, and is remembered for the next submit
_FORM = re.compile(r"(?P<lane>[A-Za-z0-9][A-Za-z0-9._-]{0,62}):(?P<path>(~/|/).*)", re.DOTALL)

Look = Callable[[str, str], dict[str, Any]]  # (lane, path) -> {"sha256", "size", "tree", "path"}


@dataclass(frozen=True)
class Resident:
    """One such input as it was written. `path` may end with `:DEST`: only the lane knows whether it does."""

    word: str
    name: str | None
    lane: str
    path: str

    def readings(self) -> list[tuple[str, str | None]]:
        """(path, dest) in the order in which they are tried."""
        head, colon, dest = self.path.rpartition(":")
        return [(self.path, None), *([(head, dest)] if colon and dest and dest[0] != "/" else [])]


def resident(word: str, cwd: Path, cluster: Cluster) -> Resident | None:
    """What `word` says if it names something on a lane. A path that exists here stays what it is.

    Raises:
        NotFound: it looks like one, but there is no such lane.
        BadInput: the lane is this machine, or the path cannot be one.
    """
    if _exists(cwd, word):
        return None
    name, equals, rest = word.partition("=")
    if not equals or ":" in name or "/" in name:  # the `=` is of a path
        name, rest = "", word
    elif not name or _exists(cwd, rest):
        return None
    found = _FORM.fullmatch(rest)
    if found is None or _exists(cwd, rest.rpartition(":")[0]):
        return None
    lane, path = found["lane"], found["path"]
    config = next((c for c in cluster.lanes if c.name == lane), None)
    if config is None:
        if len(lane) == 1:  # C:/data: a drive
            return None
        names = ", ".join(c.name for c in cluster.lanes)
        raise NotFound(f"the input {word!r} is not here, and no lane is called {lane!r}", hint=f"lanes: {names}")
    if not config.remote:
        raise BadInput(f"the input {word!r} lies on this machine", hint=f"name it by its path: {path}")
    check_remote_path(path, what=f"the input {word!r}")
    return Resident(word, name or None, lane, path)


def split(words: Iterable[str], cwd: Path, cluster: Cluster) -> tuple[list[str], list[Resident]]:
    """(inputs of this machine, inputs that lie on lanes)."""
    here, there = [], []
    for word in words:
        found = resident(word, cwd, cluster)
        if found is None:
            here.append(word)
        else:
            there.append(found)
    return here, there


def bound(needs: Needs, inputs: Iterable[Resident]) -> Needs:
    """The needs of a job with these inputs: the lane where they lie.

    Raises:
        ImpossibleNeed: they lie on several lanes, or the job was asked for on another one.
    """
    lanes: dict[str, Resident] = {}
    for item in inputs:
        lanes.setdefault(item.lane, item)
    if len(lanes) > 1:
        (a, first), (b, second) = list(lanes.items())[:2]
        raise ImpossibleNeed(
            f"the inputs {first.word!r} and {second.word!r} lie on two lanes, {a} and {b}, and a job runs on one",
            hint="copy one of them to the other lane, or to this machine",
        )
    for lane, item in lanes.items():
        if needs.lane is not None and needs.lane != lane:
            raise ImpossibleNeed(
                f"the job is to run on {needs.lane}, and its input {item.word!r} lies on {lane}",
                hint=f"ask for --lane {lane}, or leave --lane out",
            )
        return needs.model_copy(update={"lane": lane})
    return needs


def hashed(item: Resident, look: Look, dest_of: Callable[[str | None, str, str | None], str | None]) -> InputFile:
    """The input with its digest.

    Args:
        dest_of: (name, base name, dest as written) -> where it lies in work/, or None.

    Raises:
        BadInput: it is not on the lane, or cannot be read there. Unavailable: the lane does not answer.
    """
    refused: BadInput | None = None
    for path, dest in item.readings():
        try:
            found = look(item.lane, path)
        except BadInput as error:
            refused = refused or error
            continue
        base = PurePosixPath(path).name
        return InputFile(
            name=item.name or base,
            path=str(found["path"]),
            dest=dest_of(item.name, base, dest),
            sha256=str(found["sha256"]),
            size=int(found["size"]),
            tree=bool(found["tree"]),
            lane=item.lane,
        )
    assert refused is not None
    raise BadInput(f"the input {item.word!r}: {refused.message}", hint=refused.hint) from None


class Lanes:
    """Asks lanes, through the controller; each path once.

    Args:
        start: start a controller if none runs. Without, an answer is only had from one that runs.
    """

    def __init__(self, home: Home, *, start: bool = True, answer_s: float = ANSWER_S) -> None:
        self._home = home
        self._start = start
        self._answer_s = answer_s
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def look(self, lane: str, path: str) -> dict[str, Any]:
        """{"path", "sha256", "size", "tree"} of `path` on `lane`.

        Raises:
            BadInput: the lane says that it is not there, or cannot be read.
            Unavailable: the lane cannot be reached, or does not say in time.
        """
        if (lane, path) not in self._known:
            self._known[lane, path] = self._ask(lane, path)
        return self._known[lane, path]

    def _ask(self, lane: str, path: str) -> dict[str, Any]:
        from lab import laneask
        from lanes.start import controller_alive

        if not self._start and not controller_alive(self._home):
            raise Unavailable(
                f"what {path} on lane {lane} holds is not known while the controller is down", hint="lab up"
            )
        seq = laneask.ask(self._home, lane, "data", {"path": path}, start=self._start)
        try:
            answer = laneask.wait(self._home, seq, timeout_s=self._answer_s)
        except Unavailable:
            raise Unavailable(
                f"lane {lane} has not said within {self._answer_s:g} s what {path} holds; nothing was submitted",
                hint="large data takes long to hash: submit again later, it goes on from there",
            ) from None
        if answer.ok:
            return dict(answer.data)
        if answer.message.startswith(f"{path} on lane"):  # the lane has looked
            raise BadInput(answer.message, hint=answer.hint)
        raise Unavailable(f"{answer.message}; nothing was submitted", hint=answer.hint)


def _exists(cwd: Path, path: str) -> bool:
    return bool(path) and "\0" not in path and os.path.lexists(cwd / Path(path).expanduser())
