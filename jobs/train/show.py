"""What people look at when a training is over: its figure, and a short video of frames it has never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import JobFailed
from core.kind import Context
from jobs.train.data.clip import Clip
from jobs.train.data.pairs import Pairs
from jobs.train.figure import HeldOut, choose_crops, training_figure
from jobs.train.measured import Measured
from jobs.train.preview import preview_of
from jobs.train_kind import TrainParams

FIGURE, VIDEO, POSTER = "training.png", "preview.mp4", "preview.png"


def names(p: TrainParams) -> list[str]:
    """The artifacts that `show` leaves."""
    return [FIGURE, VIDEO, POSTER] if p.preview else [FIGURE]


def show(
    ctx: Context, p: TrainParams, title: str, measured: Measured, rows: Sequence[Mapping[str, Any]], held: Pairs,
    clip: Clip,
) -> None:  # fmt: skip
    """Write the figure and, if it is wanted, the preview.

    Args:
        rows: of the table CANDIDATES.
        clip: a sequence that was never trained on.
    """
    assert measured.best is not None
    with HeldOut(held, held.sources, measured.best, threads=ctx.cores) as view:
        crops = choose_crops(view, len(view))
    training_figure(ctx.artifact(FIGURE), title=title, steps=measured.course.curves(), candidates=rows, crops=crops)
    if not p.preview:
        return
    settings = p.settings(clip.width, clip.height)
    root = Path(p.cache) if p.cache is not None else None
    video, poster = ctx.artifact(VIDEO), ctx.artifact(POSTER)
    try:
        made = preview_of(video, poster, clip, settings, measured.best, root=root, threads=ctx.cores)
    except JobFailed as error:
        # The last checkpoint holds the training: the next attempt comes here again within minutes.
        raise JobFailed(
            f"the preview could not be made: {error}", hint="`lab rerun` it, or submit preview=false"
        ) from error
    ctx.log(f"{VIDEO}: {made.frames} frames, {made.codec}, {made.bytes:,} bytes; decoded {made.decoded:.2f} dB, "
            f"filtered {made.filtered:.2f} dB")  # fmt: skip
