"""Trainings that go wrong, as kinds of their own: a lane runs each as it runs `train`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from core.kind import Context
from jobs.train_kind import Train, TrainParams


class Diverges(Train):
    """After four steps a rate at which nothing stays finite."""

    name: ClassVar[str] = "toy-diverges"

    def run(self, ctx: Context) -> None:
        from jobs.train.recipe import Recipe

        plain = Recipe.rate_of
        Recipe.rate_of = lambda self, step: plain(self, step) if step < 4 else math.inf  # type: ignore[method-assign]
        super().run(ctx)


class StopsHalfway(Train):
    """It trains half the epochs, leaves a bundle all the same, and returns as if nothing were missing."""

    name: ClassVar[str] = "toy-half"

    def run(self, ctx: Context) -> None:
        from jobs.train import loop, run

        p: TrainParams = ctx.params
        full, train = p.recipe().steps, loop.train

        def half(model: Any, frames: Any, objective: Any, hooks: Any, **more: Any) -> bool:
            stopping = hooks.stopping
            hooks.stopping = lambda: model.steps >= full // 2 or stopping()
            hooks.candidates_at = hooks.candidates_at | {full // 2}
            train(model, frames, objective, hooks, **more)
            return True

        run.train = half  # type: ignore[attr-defined]
        super().run(ctx)


class Greedy(Train):
    """After four steps it wants more memory than there is, once: what is called `mark` says that it did."""

    name: ClassVar[str] = "toy-greedy"

    def run(self, ctx: Context) -> None:
        import os
        import resource

        from jobs.train import loop, run

        mark, train = ctx.params.cache + "/greedy", loop.train

        def greedy(model: Any, frames: Any, objective: Any, hooks: Any, **more: Any) -> bool:
            rows = hooks.rows

            def look(found: Any) -> None:
                rows(found)
                if model.steps >= 4 and not os.path.exists(mark):
                    os.mkdir(mark)
                    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
                    frames_of_a_film = model.flat.new_ones((256 << 20,))
                    frames_of_a_film.sum()

            hooks.rows = look
            return train(model, frames, objective, hooks, **more)

        run.train = greedy  # type: ignore[attr-defined]
        super().run(ctx)
