"""What is known of a job or cell before it runs: which kind of work it is, and what may tell how much. Pure.

`lanes/speeds.py` learns from it how long such work takes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_MOST_AXES = 12
_NUMBERS = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")

Value = tuple[str, str, float | None]  # parameter, its value, its logarithm if it is a positive number


class Work(NamedTuple):
    """What is known of a cell before it runs: which kind of work it is, and what may tell how much."""

    family: str
    axes: tuple[Value, ...] = ()


def work_of(kind: str, params: Mapping[str, Any], *, spec: str = "", cores: int = 1, gpus: int = 0) -> Work:
    """Describe a job or cell for `Speeds`.

    Programs that differ in their words are different kinds of work; the numbers in them are parameters like any others.

    Args:
        spec: digest of what it shares with the other cells of its submit.
        cores, gpus: what it is granted.
    """
    axes: list[Value] = []
    words: list[str] = []
    for path, value in _leaves("", params):
        if path.startswith(".argv") and isinstance(value, str):
            found = _NUMBERS.findall(value)
            words.append(_NUMBERS.sub("#", value) if found else value)
            axes += [(f"{path}#{i}", *_read(number)) for i, number in enumerate(found)]
        else:
            axes.append((path, *_read(value)))
    del axes[_MOST_AXES:]
    axes.append(("spec", spec[:16], None))
    if cores != 1:
        axes.append(("cores", str(cores), math.log(cores)))
    device = f" on {gpus} GPU" if gpus else ""
    program = f" {hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:12]}" if words else ""
    return Work(f"{kind}{device}{program}", tuple(axes))


def _leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name in sorted(value):
            yield from _leaves(f"{path}.{name}", value[name])
    elif isinstance(value, (list, tuple)) and (path == ".argv" or len(value) <= 4):
        for i, item in enumerate(value):
            yield from _leaves(f"{path}[{i}]", item)
    else:
        yield path, value


def _read(value: Any) -> tuple[str, float | None]:
    """A value as a short text, and the logarithm of its size where it has one."""
    text = str(value)[:64]
    if isinstance(value, bool) or value is None:
        return text, None
    if isinstance(value, (list, tuple)):
        return f"{len(value)} values", math.log(len(value)) if value else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return text, None
    return text, math.log(number) if 0 < number < math.inf else None
