"""Choices by lot that anybody can draw again: the lot of an item is a hash of its name, so no generator is needed.

The lot of an item is the SHA-256 (hex) of `SEED/WORD/NAME`; the lowest lots are drawn first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def drawn(names: Sequence[str], word: str, seed: int) -> list[int]:
    """Positions of all names in the order in which they are drawn."""
    lots = [hashlib.sha256(f"{seed}/{word}/{name}".encode()).hexdigest() for name in names]
    return sorted(range(len(names)), key=lambda at: (lots[at], at))


def stratified(
    names: Sequence[str], labels: Sequence[int], quotas: Mapping[int, int], word: str, seed: int
) -> list[int]:
    """Positions, rising: of each class as many as its quota says, those that are drawn first."""
    left = Counter(quotas)
    chosen = []
    for at in drawn(names, word, seed):
        if left[int(labels[at])] > 0:
            left[int(labels[at])] -= 1
            chosen.append(at)
    return sorted(chosen)


def counts(labels: Iterable[int]) -> dict[int, int]:
    """How many there are of each class."""
    return dict(sorted(Counter(int(label) for label in labels).items()))


def quotas(available: Mapping[int, int], n: int) -> dict[int, int]:
    """`n` shared among classes in proportion to what there is of each: largest remainders, the lower class of equals.

    Raises:
        ValueError: there are not so many.
    """
    total = sum(available.values())
    if not 0 <= n <= total:
        raise ValueError(f"{n} of {total} cannot be chosen")
    out = {label: n * of // total if total else 0 for label, of in sorted(available.items())}
    rest = sorted(available, key=lambda label: (-(n * available[label] % total) if total else 0, label))
    for label in rest[: n - sum(out.values())]:
        out[label] += 1
    return out
