"""What a training makes small: a plug-in. `Surrogate` needs pictures only; `Upstream` is the challenge's own loss.

An objective names its terms and what a value of it is called. A surrogate value is not comparable with an upstream one,
and neither is a score.

Both hold the term `sal`: the mean of (filtered - decoded)² / (1 + alpha·saliency) over the second frame of the pair (or
both), which keeps the filter from changing what draws nobody's eye. Terms stay on the device; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from jobs.train.recipe import Recipe
from jobs.train.saliency import LEVELS


class Objective(Protocol):
    """A loss of one pair of frames, in terms that are reported apart."""

    quantity: ClassVar[str]  # what a value of it is called, in every table
    names: ClassVar[tuple[str, ...]]  # of its terms

    def terms(self, filtered: Tensor, original: Tensor, decoded: Tensor, saliency: Tensor) -> Tensor:
        """(len(names),) float32 of one pair, with gradients to `filtered`.

        Args:
            filtered, original, decoded: (2, 3, H, W) float32 with values from 0 to 255.
            saliency: (frames, H, W) uint8, in 255ths, of the second frame or of both.
        """
        ...

    def value(self, terms: Tensor) -> Tensor:
        """() the loss, from the terms."""
        ...


@runtime_checkable
class Referring(Protocol):
    """An objective that asks something of the original pair, which is the same every time it is asked."""

    def reference(self, original: Tensor) -> tuple[Tensor, ...]:
        """What `terms` needs of the original pair in place of it."""
        ...

    def terms_against(
        self, reference: tuple[Tensor, ...], filtered: Tensor, decoded: Tensor, saliency: Tensor
    ) -> Tensor:
        """As `terms`, bit for bit."""
        ...


@runtime_checkable
class Local(Protocol):
    """An objective that is a sum over pixels: its slope can be written down, strip by strip."""

    @property
    def alpha(self) -> float: ...

    def slope(
        self, filtered: Tensor, original: Tensor, decoded: Tensor, emphasis: Tensor | None, pixels: int
    ) -> tuple[Tensor, Tensor]:
        """(the loss's derivative at every value of `filtered`, what these values add to each term).

        Args:
            filtered, original, decoded: (n, 3, rows, W) of some frames of pairs.
            emphasis: (n, 1, rows, W): 1 / (1 + alpha·saliency), 0 for a frame that `sal` leaves out; None: it leaves
                out all.
            pixels: H·W of a frame.
        """
        ...


@dataclass(frozen=True)
class Surrogate:
    """reconstruction + sal_weight·sal, both in squared levels of 0 to 255.

    `reconstruction` is the mean of (filtered - original)² over both frames.
    """

    alpha: float = 20.0
    sal_weight: float = 0.1
    sal_both_frames: bool = False

    quantity: ClassVar[str] = "surrogate value"
    names: ClassVar[tuple[str, ...]] = ("reconstruction", "sal")

    @classmethod
    def of(cls, recipe: Recipe) -> Surrogate:
        return cls(recipe.alpha, recipe.sal_weight, recipe.sal_both_frames)

    def terms(self, filtered: Tensor, original: Tensor, decoded: Tensor, saliency: Tensor) -> Tensor:
        reconstruction = (filtered - original).square().mean()
        return torch.stack([reconstruction, sal_term(filtered, decoded, saliency, self.alpha)])

    def value(self, terms: Tensor) -> Tensor:
        return terms[0] + self.sal_weight * terms[1]

    def slope(
        self, filtered: Tensor, original: Tensor, decoded: Tensor, emphasis: Tensor | None, pixels: int
    ) -> tuple[Tensor, Tensor]:
        of_all, of_sal = 1 / (6 * pixels), 1 / (3 * (2 if self.sal_both_frames else 1) * pixels)
        missed = filtered - original
        reconstruction = missed.square().sum() * of_all
        slope = missed.mul_(2 * of_all)
        if emphasis is None:
            return slope, torch.stack([reconstruction, torch.zeros_like(reconstruction)])
        moved = filtered - decoded
        emphasised = moved * emphasis
        sal = moved.mul_(emphasised).sum() * of_sal
        return slope.add_(emphasised, alpha=2 * of_sal * self.sal_weight), torch.stack([reconstruction, sal])


# A network takes a pair (2, 3, H, W) with values from 0 to 255; what it sees of it (both frames, or the second only)
# and how it scales it is its own affair.
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Upstream:
    """seg_weight·seg + sqrt(pose_weight·pose + pose_epsilon) + sal_weight·sal.

    pose is the mean squared difference of the first 6 outputs of the pose network for the filtered and the original
    pair, seg is 1 - mean Σ softmax·softmax over the classes of the segmentation network.

    Attributes:
        pose: gives (..., at least 6).
        seg: gives logits (n, classes, height, width).
    """

    pose: Network
    seg: Network
    alpha: float = 20.0
    sal_weight: float = 0.1
    sal_both_frames: bool = False
    seg_weight: float = 100.0
    pose_weight: float = 10.0
    pose_epsilon: float = 1e-8

    quantity: ClassVar[str] = "upstream training value"
    names: ClassVar[tuple[str, ...]] = ("seg", "pose", "sal")

    @classmethod
    def of(cls, recipe: Recipe, pose: Network, seg: Network) -> Upstream:
        return cls(
            pose,
            seg,
            recipe.alpha,
            recipe.sal_weight,
            recipe.sal_both_frames,
            recipe.seg_weight,
            recipe.pose_weight,
            recipe.pose_epsilon,
        )

    def terms(self, filtered: Tensor, original: Tensor, decoded: Tensor, saliency: Tensor) -> Tensor:
        return self.terms_against(self.reference(original), filtered, decoded, saliency)

    @torch.no_grad()
    def reference(self, original: Tensor) -> tuple[Tensor, ...]:
        """(six pose outputs, the probability of each class)."""
        return self.pose(original)[..., :6].clone(), self.seg(original).softmax(dim=1)

    def terms_against(
        self, reference: tuple[Tensor, ...], filtered: Tensor, decoded: Tensor, saliency: Tensor
    ) -> Tensor:
        pose, classes = reference
        moved = (self.pose(filtered)[..., :6] - pose).square().mean()
        agreed = (self.seg(filtered).softmax(dim=1) * classes).sum(dim=1).mean()
        return torch.stack([1 - agreed, moved, sal_term(filtered, decoded, saliency, self.alpha)])

    def value(self, terms: Tensor) -> Tensor:
        seg, pose, sal = terms
        root: Tensor = (self.pose_weight * pose + self.pose_epsilon).sqrt()
        value: Tensor = self.seg_weight * seg + root + self.sal_weight * sal
        return value


def sal_term(filtered: Tensor, decoded: Tensor, saliency: Tensor, alpha: float) -> Tensor:
    """() mean((filtered - decoded)² / (1 + alpha·saliency)) over as many last frames as there are of saliency."""
    frames = len(saliency)
    return ((filtered[-frames:] - decoded[-frames:]).square() * emphasis(saliency, alpha)).mean()


def emphasis(saliency: Tensor, alpha: float) -> Tensor:
    """(n, 1, H, W) float32: 1 / (1 + alpha·saliency) of (n, H, W) uint8, in 255ths."""
    return saliency.unsqueeze(1).to(torch.float32).mul_(alpha / LEVELS).add_(1).reciprocal_()
