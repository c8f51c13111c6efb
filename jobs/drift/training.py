"""The steps of a drift training and everything that a step changes.

Each step: classes and a strength of guidance for each; noise through the generator; real samples of the class as
positives, the samples themselves and real samples of any class as negatives; features of all; the drift of each
feature as a loss; one step of AdamW. Source: Deng et al. (2026), A.9.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jobs.drift.encoders import Encode
from jobs.drift.generator import Architecture, Generator
from jobs.drift.train_queue import Queues
from jobs.drift.train_recipe import Recipe
from kernels.drifting.field import Gains
from kernels.drifting.schedule import Scheduler, alphas, rate_of, unconditional_weight
from kernels.drifting.torch_field import drift_loss

_BETAS = (0.9, 0.95)
_LAST_RATE = 0.02  # part of the rate that a cosine ends at


@dataclass(frozen=True)
class StepRow:
    """What a step said of itself.

    Attributes:
        step: from 1. loss: of all features, as normalised; it hardly falls. loss_pixel: its raw pixel term.
        drift_norm: root mean square of the pixel drift before its normalisation, mean over temperatures, in parts of
            the mean distance: this falls towards 0.
        negatives: of a sample: the other samples of its group, and the unconditional ones.
        finite: loss and gradient are.
    """

    step: int
    loss: float
    loss_pixel: float
    lr: float
    negatives: int
    alpha_mean: float
    weight_mean: float
    drift_norm: float
    gradient_norm: float
    finite: bool


class NotFinite(ArithmeticError):
    """A loss or a gradient was no number; the network was not changed by it."""

    def __init__(self, row: StepRow) -> None:
        super().__init__(
            f"step {row.step} has a loss or a gradient that is no number: loss {row.loss:g}, "
            f"gradient norm {row.gradient_norm:g}"
        )
        self.row = row


class Hooks(Protocol):
    """What a training tells, and asks, between two steps."""

    def stepped(self, row: StepRow) -> None: ...
    def due(self, step: int) -> bool: ...
    def checkpoint(self, training: Training) -> None: ...
    def stopping(self) -> bool: ...


class Training:
    """A generator, the average of its weights, its optimizer, its queues and its chances.

    Args:
        images: (n, H, W, C) float32 in [-1, 1], the train split. labels: (n,), from 0 to classes - 1.
        encode: images to features. None: the raw pixel term is the only one.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        classes: int,
        encode: Encode | None,
    ) -> None:
        self.recipe, self.classes, self.encode = recipe, classes, encode
        self.device = torch.device(recipe.device)
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        height, width, channels = images.shape[1:]
        self.architecture = Architecture(height, width, channels, classes, recipe.noise, recipe.hidden, recipe.depth)
        self.generator = Generator(self.architecture, seed=recipe.seed).to(self.device)
        self.average = Generator(self.architecture, seed=recipe.seed).to(self.device).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.generator.parameters(), lr=recipe.rate, betas=_BETAS, weight_decay=recipe.weight_decay
        )
        self.chance = np.random.default_rng([recipe.seed, 1])
        self.noise = torch.Generator(device=self.device)
        self.noise.manual_seed(recipe.seed)
        self.queues = Queues(
            labels,
            classes,
            size=recipe.queue,
            whole=recipe.queue_all,
            push=recipe.queue_push,
            chance=np.random.default_rng([recipe.seed, 2]),
        )
        self.gains = Gains(*recipe.variant.gains)
        self.steps = 0

    def run(self, hooks: Hooks) -> bool:
        """To the last step; False: it was asked to stop, and a checkpoint was made.

        Raises:
            NotFinite: a loss or a gradient is no number.
        """
        with settings(self.recipe.threads, self.device):
            while self.steps < self.recipe.steps:
                if hooks.stopping():
                    hooks.checkpoint(self)
                    return False
                row = self.step()
                if not row.finite:
                    raise NotFinite(row)
                hooks.stepped(row)
                if hooks.due(self.steps):
                    hooks.checkpoint(self)
        return True

    def rate(self) -> float | None:
        """Of the next step; None: there is none."""
        r = self.recipe
        if self.steps >= r.steps:
            return None
        scheduler = Scheduler(r.scheduler)
        return rate_of(self.steps, r.steps, rate=r.rate, scheduler=scheduler, warmup=r.warmup_steps, last=_LAST_RATE)

    def step(self) -> StepRow:
        """One step; the training must not be at its end."""
        r = self.recipe
        rate = self.rate()
        assert rate is not None
        self.queues.feed()
        groups = min(r.groups, self.classes)
        classes = self.chance.permutation(self.classes)[:groups]
        alpha = alphas(self.chance.random(groups), power=r.alpha_power, least=r.alpha_least, greatest=r.alpha_greatest)
        positive = self._rows(np.stack([self.queues.draw(int(c), r.positives) for c in classes]))
        free = self._rows(self.queues.draw_all(r.unconditional)[None]) if r.unconditional else None
        weight = unconditional_weight(alpha, r.samples, r.unconditional) if r.unconditional else None

        noise = torch.randn((groups * r.samples, r.noise), generator=self.noise, device=self.device)
        labels = torch.from_numpy(np.repeat(classes, r.samples)).to(self.device)
        strength = torch.from_numpy(np.repeat(alpha, r.samples).astype(np.float32)).to(self.device)
        images = self.generator(noise, labels, strength)
        loss, pixel, size = self._loss(images, positive, free, weight)

        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), r.clip)
        value, length = float(loss.detach()), float(norm)
        finite = math.isfinite(value) and math.isfinite(length)
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self._follow()
            self.steps += 1
        return StepRow(
            step=self.steps if finite else self.steps + 1,
            loss=value,
            loss_pixel=float(pixel),
            lr=rate,
            negatives=r.samples - 1 + r.unconditional,
            alpha_mean=float(alpha.mean()),
            weight_mean=0.0 if weight is None else float(weight.mean()),
            drift_norm=float(size),
            gradient_norm=length,
            finite=finite,
        )

    def _loss(
        self, images: Tensor, positive: Tensor, free: Tensor | None, weight: npt.NDArray[np.float64] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, its pixel term, size of the pixel drift)."""
        r, groups = self.recipe, positive.shape[0]
        weights = None if weight is None else torch.from_numpy(weight.astype(np.float32)).to(self.device)

        def grouped(feature: Tensor, count: int) -> Tensor:
            """(groups·count, places, C) to (groups, places, count, C)."""
            return feature.reshape(-1, count, *feature.shape[1:]).transpose(1, 2)

        def term(x: Tensor, pos: Tensor, unc: Tensor | None) -> tuple[Tensor, Tensor]:
            others = None if unc is None else grouped(unc, r.unconditional).expand(groups, -1, -1, -1)
            loss, found = drift_loss(
                grouped(x, r.samples), grouped(pos, r.positives), others, weights,
                temperatures=r.temperatures, gains=self.gains,
            )  # fmt: skip
            return loss, found.sizes.mean()

        def flat(each: Tensor) -> Tensor:
            return each.flatten(1)[:, None]

        reals = positive.flatten(0, 1)
        frees = None if free is None else free.flatten(0, 1)
        pixel, size = term(flat(images), flat(reals), None if frees is None else flat(frees))
        loss = r.pixel_weight * pixel
        if self.encode is not None:
            own = self.encode(images)
            with torch.no_grad():
                of_reals = self.encode(reals)
                of_frees = [None] * len(own) if frees is None else self.encode(frees)
            for x, pos, unc in zip(own, of_reals, of_frees, strict=True):
                loss = loss + term(x, pos, unc)[0] / len(own)
        return loss, pixel.detach(), size

    def _rows(self, index: npt.NDArray[np.int64]) -> Tensor:
        """(groups, count, H, W, C)."""
        found: Tensor = self.images[torch.from_numpy(index).to(self.device)]
        return found

    def _follow(self) -> None:
        """The average follows; at first faster, so that it does not stand for the first weights."""
        keep = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, own in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.mul_(keep).add_(own, alpha=1 - keep)


@contextmanager
def settings(threads: int, device: torch.device) -> Iterator[None]:
    """So many threads, whole float32 products, and the same bits every time."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    # On a GPU some backward passes have no such algorithm; there equal bits are not promised.
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warned)
