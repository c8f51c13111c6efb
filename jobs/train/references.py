"""What an objective asks of the original pairs, kept once it is known: networks need not say the same thing again.

Which pairs are kept changes no number: an answer is used as it was given, on the device where it was made.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.train.objective import Objective, Referring

BYTES = 1 << 30  # of answers that are kept; of the challenge's networks one is some 4 MB
_OF_FREE = 4  # on a GPU no more than this part of what is free when the first is kept


class References:
    """The answers of one objective about some pairs of frames.

    Args:
        most: bytes that may be kept [`BYTES`]; the first pairs that are asked about stay.
    """

    def __init__(self, objective: Objective, device: torch.device, most: int | None = None) -> None:
        self.objective, self.device, self.most = objective, device, BYTES if most is None else most
        self.known: dict[int, tuple[Tensor, ...]] = {}
        self.size = 0

    def terms(
        self,
        index: int | None,
        filtered: Tensor,
        original: Callable[[], Tensor],
        decoded: Tensor,
        saliency: Tensor,
    ) -> Tensor:
        """The objective's terms of a pair.

        Args:
            index: of the pair; None: of one that nobody asks about again.
            original: makes the original pair where it is needed.
        """
        if not isinstance(self.objective, Referring):
            return self.objective.terms(filtered, original(), decoded, saliency)
        found = None if index is None else self.known.get(index)
        if found is None:
            found = self.objective.reference(original())
            if index is not None:
                self._keep(index, found)
        return self.objective.terms_against(found, filtered, decoded, saliency)

    def _keep(self, index: int, found: tuple[Tensor, ...]) -> None:
        if not self.known and self.device.type == "cuda":
            self.most = min(self.most, torch.cuda.mem_get_info(self.device)[0] // _OF_FREE)
        size = sum(tensor.numel() * tensor.element_size() for tensor in found)
        if self.size + size <= self.most:
            self.known[index] = found
            self.size += size
