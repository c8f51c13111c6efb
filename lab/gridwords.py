"""The words of `--grid`, `--zip` and `--exclude`.

alpha=1,2,3          values with commas between, each read as YAML
sizes=[1],[4],[1,4]  lists
beta=0:1:0.25        from 0 to 1 (included) in steps of 0.25; whole numbers stay whole, decimals are exact
seed=1..100          whole numbers, both ends included
seed=1..100%8        at most eight cells at once, as Slurm writes it (the same as --at-once 8)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from core.errors import BadInput
from core.grid import LIMIT
from lab.params import from_text

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_STEPS = re.compile(rf"({_NUMBER}):({_NUMBER}):({_NUMBER})")
_COUNT = re.compile(r"([-+]?\d+)\.\.([-+]?\d+)")
_AT_ONCE = re.compile(r"(.*)%(\d*)", re.DOTALL)
_OPEN, _CLOSE = "[{(", "]})"


@dataclass
class Axes:
    """Axes as they were typed.

    Attributes:
        values: name -> values, read as YAML.
        words: the same as typed, for parameters that want text.
        at_once: the smallest `%N`.
    """

    values: dict[str, list[Any]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    at_once: int | None = None

    def add(self, name: str, text: str, where: str) -> None:
        """Read one axis; `where` starts its errors, such as "--grid alpha"."""
        rest = _AT_ONCE.fullmatch(text)
        if rest is not None:
            if not rest[2] or int(rest[2]) < 1:
                raise BadInput(f"{where}: %{rest[2]} is no number of cells", hint="write %8 for eight at once")
            self.at_once = min(int(rest[2]), self.at_once or int(rest[2]))
            text = rest[1]
        words: list[str] = []
        for piece in split(text, where):
            words += _range(piece, where) or [piece]
            if len(words) > LIMIT:
                raise _too_many(where, len(words))
        self.words[name] = words
        self.values[name] = [from_text(w) for w in words]


def read_axes(words: Iterable[str] | None) -> Axes:
    """The axes of all `--grid` options, in the order in which they were given.

    Raises:
        BadInput: naming the axis.
    """
    out = Axes()
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"--grid {word!r} has no values", hint="write --grid NAME=1,2,3 or --grid NAME=1..100")
        if name in out.values:
            raise BadInput(f"--grid gives axis `{name}` twice", hint="give all its values at once")
        out.add(name, text, f"--grid {name}")
    return out


def read_zips(words: Iterable[str] | None) -> list[list[str]]:
    """`--zip a,b`: each option one group."""
    return [[name.strip() for name in word.split(",") if name.strip()] for word in words or ()]


def read_excludes(words: Iterable[str] | None) -> list[dict[str, Any]]:
    """`--exclude a=1,b=2`: each option one partial cell."""
    out = []
    for word in words or ():
        partial: dict[str, Any] = {}
        for piece in split(word, f"--exclude {word!r}"):
            name, equals, text = piece.partition("=")
            if not equals or not name or not text:
                raise BadInput(f"--exclude {word!r}: {piece!r} has no value", hint="write --exclude alpha=1,beta=2")
            if name in partial:
                raise BadInput(f"--exclude {word!r} names `{name}` twice", hint="write two --exclude options")
            partial[name] = from_text(text)
        out.append(partial)
    return out


def split(text: str, where: str) -> list[str]:
    """`text` at its commas, but for those inside brackets and quotes."""
    out: list[str] = [""]
    closers: list[str] = []
    quote = ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not out[-1].strip():  # a quote inside a word is a letter: it's
            quote = char
        elif char in _OPEN:
            closers.append(_CLOSE[_OPEN.index(char)])
        elif closers and char == closers[-1]:
            closers.pop()
        elif char == "," and not closers:
            out.append("")
            continue
        out[-1] += char
    if quote or closers:
        raise BadInput(f"{where}: {text!r} has no closing {quote or closers[-1]}", hint="add it")
    pieces = [piece.strip() for piece in out]
    if not all(pieces):
        what = "there is no value" if len(pieces) == 1 else "a value between commas is empty"
        raise BadInput(f"{where}: {what}", hint="write NAME=1,2,3 (and '' for an empty text)")
    return pieces


def _range(piece: str, where: str) -> list[str]:
    """The numbers of `first:last:step` or `first..last`, as words; empty where `piece` is no range."""
    found = _COUNT.fullmatch(piece)
    if found:
        first, last, step = Decimal(found[1]), Decimal(found[2]), Decimal(1)
        if last < first:
            raise BadInput(f"{where}: the range {piece} is empty", hint=f"write {last}..{first} or {first}:{last}:-1")
    else:
        found = _STEPS.fullmatch(piece)
        if not found:
            if re.fullmatch(rf"{_NUMBER}:{_NUMBER}(:.*)?", piece):
                raise BadInput(
                    f"{where}: {piece!r} is no range", hint="write first:last:step, such as 0:1:0.25, or 1..100"
                )
            return []
        first, last, step = (Decimal(n) for n in found.groups())
        if step == 0:
            raise BadInput(f"{where}: the step of {piece} is 0", hint="write first:last:step, such as 0:1:0.25")
        if last != first and (last > first) != (step > 0):
            raise BadInput(
                f"{where}: the steps of {piece} lead away from {found[2]}",
                hint="turn the sign of the step, or the ends",
            )
    try:
        count = int((last - first) / step) + 1
    except ArithmeticError:
        raise BadInput(f"{where}: the numbers of {piece} are too large or too small", hint="write them out") from None
    if count > LIMIT:
        raise _too_many(where, count)
    whole = all(n == n.to_integral_value() and "." not in text for n, text in _with_text(found.groups()))
    return [_text(first + step * i, whole) for i in range(count)]


def _with_text(texts: Sequence[str]) -> list[tuple[Decimal, str]]:
    return [(Decimal(t), t.lower().replace("e", ".")) for t in texts]


def _text(number: Decimal, whole: bool) -> str:
    if whole:
        return str(int(number))
    return repr(float(number))


def _too_many(where: str, count: int) -> BadInput:
    return BadInput(f"{where}: {count:,} values", hint=f"at most {LIMIT:,} cells in one sweep")
