"""How far a value may be believed, and the faithful proxy: the same formula and evaluator on less than all of it.

A proxy takes the first pairs of the video only, or frames that were made elsewhere in place of what the archive
decodes to. It says which of two candidates is better, at a fraction of the cost; it promotes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from core.errors import BadInput, JobFailed

_COPY = 16 << 20


class Authority(IntEnum):
    """Whose word counts more; a greater value, more."""

    SIDE = 0  # a lane that is not admitted for it: ranks
    TRAINING = 1  # what the training printed: a hypothesis
    PROXY = 2  # the formula on a part, or on other frames: ranks
    SCORER = 3  # the upstream evaluator over the whole submission: promotes
    UPSTREAM = 4  # and its checkout is the one that was pinned

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def promotes(self) -> bool:
        return self >= Authority.SCORER

    @classmethod
    def of(cls, word: str) -> Authority:
        """Raises BadInput."""
        try:
            return cls[word.upper()]
        except KeyError:
            known = ", ".join(a.word for a in sorted(cls, reverse=True))
            raise BadInput(f"there is no authority {word!r}", hint=f"there are: {known}") from None


def authority_of(
    *, proxy: str = "", pinned: bool = False, commit: str | None = None, dirty: bool | None = None
) -> tuple[Authority, str]:
    """The authority of a scoring, and why it is no higher ("" at the top).

    Args:
        proxy: what it leaves out; "": nothing.
        pinned: the evaluator's checkout is the one that was named beforehand.
        commit, dirty: what git says of that checkout.
    """
    if proxy:
        return Authority.PROXY, proxy
    if pinned:
        return Authority.UPSTREAM, ""
    if commit is None:
        return Authority.PROXY, "nothing says which version the evaluator is: pin it"
    if dirty is not False:
        return Authority.PROXY, "files of the evaluator differ from its commit"
    return Authority.SCORER, "the evaluator is not pinned"


def said_of(frames: bool, pairs: int | None) -> str:
    """What a scoring leaves out, as a phrase; "" where it is all there."""
    left = []
    if pairs is not None:
        left.append(f"the first {pairs} pairs only")
    if frames:
        left.append("frames made elsewhere, not decoded from the archive")
    return "; ".join(left)


def put_frames(source: Path, target: Path, names: Sequence[str], *, pairs: int | None, height: int, width: int) -> None:
    """Put `BASE.raw` of each video, uint8 (frames, height, width, 3) in C order, where the evaluator looks for it.

    Args:
        source: the folder that has them; may be `target` itself.
        pairs: only the first so many; None: all.

    Raises:
        JobFailed: one is missing, empty, or no whole number of pairs.
    """
    target.mkdir(parents=True, exist_ok=True)
    pair = 2 * height * width * 3
    for name in names:
        raw, put = source / name, target / name
        size = raw.stat().st_size if raw.is_file() else 0
        if size == 0:
            raise JobFailed(f"there is no {name} among the decoded frames: the decoder left that video out")
        if size % pair:
            raise JobFailed(f"{name} has {size:,} bytes, which are no whole pairs of {height}×{width} RGB frames")
        wanted = size if pairs is None else pairs * pair
        if wanted > size:
            raise JobFailed(f"{name} has {size // pair:,} pairs, and {pairs:,} are to be evaluated")
        if raw != put and wanted == size:
            put.symlink_to(raw.resolve())
        elif raw != put:
            _copy_first(raw, put, wanted)
        elif wanted != size:
            with raw.open("r+b") as file:
                file.truncate(wanted)


def _copy_first(source: Path, target: Path, count: int) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        while count > 0:
            block = read.read(min(_COPY, count))
            write.write(block)
            count -= len(block)
    shutil.copymode(source, target)
