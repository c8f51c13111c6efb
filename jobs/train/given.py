"""What a training is given: its frames, its objective, its device, and the digest of the code that decides it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from core.errors import BadInput, JobFailed
from core.kind import Context
from jobs.train.data import av1, pairs
from jobs.train.data.cache import Say
from jobs.train.data.clip import Clip
from jobs.train.data.pairs import Pairs
from jobs.train.data.source import open_source
from jobs.train.objective import Surrogate, Upstream
from jobs.train_kind import CHECKOUT, EVALUATION, SOURCE, TrainParams, photograph_clips

_OURS = Path(__file__).parent
_SHOWS = ("figure.py", "preview.py", "branches.py", "show.py")


def data(ctx: Context, p: TrainParams) -> tuple[Pairs, Pairs, Clip]:
    """(pairs to train on, fixed pairs), encoded now or taken from the cache; and one of the sequences of the latter.

    Raises:
        BadInput: a source cannot be read, or both are the same.
    """
    own = open_source(ctx.input(SOURCE), pairs=p.pairs) if p.source is not None else None
    size = (p.width, p.height) if own is None else (own.width, own.height)
    pans, held = photograph_clips(p, *size)
    training = [own] if own is not None else pans
    fixed = [open_source(ctx.input(EVALUATION), pairs=p.evaluation_pairs)] if p.evaluation_source is not None else held
    if own is not None and own.identity()["sha256"] == fixed[0].identity().get("sha256"):
        raise BadInput(
            f"{p.source} and {p.evaluation_source} are the same frames", hint="evaluate on others than are trained on"
        )
    root = Path(p.cache) if p.cache is not None else None
    say = _saying(ctx)
    made = pairs.prepare(training, p.settings(*size), root=root, say=say)
    try:
        other = (fixed[0].width, fixed[0].height)
        return made, pairs.prepare(fixed, p.settings(*other), root=root, say=say), fixed[0]
    except BaseException:
        made.close()
        raise


def objective(
    ctx: Context, p: TrainParams, training: Pairs, device: torch.device
) -> tuple[Surrogate | Upstream, str | None]:
    """The objective, and the digest of the networks that it asks, if it does.

    Raises:
        UpstreamRefused: the checkout's networks cannot be had here.
    """
    if p.objective == "surrogate":
        return Surrogate.of(p.recipe()), None
    from jobs.train.upstream import load

    names = [str(item["name"]) for item in ctx.raw.get("inputs") or ()]
    parts = {n.removeprefix(f"{CHECKOUT}/"): ctx.input(n) for n in names if n.startswith(f"{CHECKOUT}/")}
    height, width = training.original.shape[2:4]
    networks = load(parts, device, height=height, width=width)
    return networks.objective(p.recipe()), networks.sha256


def _saying(ctx: Context) -> Say:
    def say(sentence: str) -> None:
        if ctx.stopping:
            ctx.leave()  # what is half made is taken away
        ctx.log(sentence)

    av1.library()  # what is missing is known before anything is read
    return say


def device(ctx: Context, p: TrainParams) -> torch.device:
    if p.device == "cpu":
        return torch.device("cpu")
    if not ctx.gpus:
        raise BadInput("device=cuda and no GPU was granted", hint="submit with --gpus 1")
    if not torch.cuda.is_available():
        raise JobFailed("torch finds no CUDA device here", hint="install a torch with CUDA on this lane")
    return torch.device("cuda", 0)  # the first of those that were granted


def code_digest() -> str:
    """SHA-256 of all source that decides the numbers: ours and the operator's. How they are shown is no part of it."""
    from kernels import postfilter

    there = Path(str(postfilter.__file__)).parent
    ours = [f for f in _OURS.rglob("*.py") if f.name not in _SHOWS]
    named = [("train", f, _OURS) for f in ours] + [("postfilter", f, there) for f in there.glob("*.py")]
    lines = [
        f"{top}/{f.relative_to(root).as_posix()} {hashlib.sha256(f.read_bytes()).hexdigest()}" for top, f, root in named
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
