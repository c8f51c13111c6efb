"""The cells of a sweep: axes, each with its values, every combination once. Pure data; nothing here knows a kind.

    Grid.of({"height": [1, 2], "dtype": ["f32", "f64"]}, exclude=[{"height": 2, "dtype": "f64"}]).cells()

The order is fixed, and ids follow it: as in nested loops, the first axis is the outermost and the last moves fastest.
Axes that are zipped go together, value by value, in the place of the first of them.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadInput

LIMIT = 1_000_000  # cells of one sweep: more is a mistake of typing, or several sweeps


@dataclass(frozen=True)
class Grid:
    """What a sweep goes through. Make it with `of`, which checks it.

    Attributes:
        axes: name -> values, outermost first.
        zips: groups of axes that go together.
        excludes: partial cells; a cell that agrees with one of them in all that it names is left out.
        base: parameters that all cells share.
    """

    axes: Mapping[str, tuple[Any, ...]]
    zips: tuple[tuple[str, ...], ...] = ()
    excludes: tuple[Mapping[str, Any], ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(
        axes: Mapping[str, Iterable[Any]],
        *,
        zip: Iterable[Iterable[str]] | Iterable[str] = (),
        exclude: Iterable[Mapping[str, Any]] = (),
        base: Mapping[str, Any] | None = None,
    ) -> Grid:
        """A checked grid. `zip` is a group of names, or several groups.

        Raises:
            BadInput: naming the axis: no value, a value twice, groups of different lengths, a name that is no axis,
                more than LIMIT cells, or none.
        """
        read = {str(name): _values(str(name), values) for name, values in axes.items()}
        if not read:
            raise BadInput("the sweep has no axis", hint="give one, such as --grid alpha=1,2,3")
        given = dict(base or {})
        for name in read:
            if name in given:
                raise BadInput(f"`{name}` is both an axis and a fixed parameter", hint="give it once")
        grid = Grid(read, _groups(zip, read), tuple(dict(e) for e in exclude), given)
        grid._refuse_uneven()
        grid._refuse_twins()
        for partial in grid.excludes:
            if not partial:
                raise BadInput("an exclude names no axis", hint="write --exclude alpha=1,beta=2")
            for name in partial:
                if name not in read:
                    raise BadInput(f"an exclude names `{name}`, which is no axis", hint=_near(name, read))
        if grid.size > LIMIT:
            shape = " x ".join(f"{n:,}" for n in grid.shape)
            raise BadInput(
                f"the sweep would have {grid.size:,} cells ({grid.summary('x') if len(read) < 9 else shape})",
                hint=f"at most {LIMIT:,} in one sweep; make the axes shorter, or submit several",
            )
        if grid.excludes and not grid.places():
            raise BadInput("every cell of the sweep is excluded", hint="leave an --exclude out")
        return grid

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def loops(self) -> tuple[tuple[str, ...], ...]:
        """The axes as they are looped over: those that are zipped in one loop."""
        group = {name: names for names in self.zips for name in names}
        seen: dict[tuple[str, ...], None] = {}
        for name in self.axes:
            seen.setdefault(group.get(name, (name,)))
        return tuple(seen)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(self.axes[names[0]]) for names in self.loops)

    @property
    def size(self) -> int:
        """How many cells there are before the excludes."""
        return math.prod(self.shape)

    def places(self) -> list[tuple[int, ...]]:
        """The cells in their order, each as one place per axis (in the order of `names`)."""
        loops = self.loops
        spots: Iterable[tuple[int, ...]] = itertools.product(*(range(n) for n in self.shape))
        loop_of = {name: i for i, names in enumerate(loops) for name in names}
        turn = [loop_of[name] for name in self.axes]
        if turn != list(range(len(loops))):
            spots = (tuple(spot[i] for i in turn) for spot in spots)
        tests = [test for test in map(self._test, self.excludes) if test is not None]
        if not tests:
            return list(spots)
        return [s for s in spots if not any(all(s[i] in those for i, those in test) for test in tests)]

    def cells(self) -> Iterator[dict[str, Any]]:
        """The parameters of each cell, in order: `base` and its value of each axis."""
        columns = list(self.axes.items())
        for spots in self.places():
            yield {**self.base, **{name: values[i] for (name, values), i in zip(columns, spots, strict=True)}}

    def idle_excludes(self) -> list[Mapping[str, Any]]:
        """Excludes that leave no cell out: most likely a mistake."""
        every = Grid(self.axes, self.zips).places() if self.zips else None
        out = []
        for partial in self.excludes:
            test = self._test(partial)
            if test is None or (every is not None and not any(all(s[i] in t for i, t in test) for s in every)):
                out.append(partial)
        return out

    def summary(self, times: str = "×") -> str:
        """`height×dtype 12×2`; zipped axes are joined by `+`."""
        names = times.join("+".join(group) for group in self.loops)
        return f"{names} {times.join(f'{n:,}' for n in self.shape)}"

    def _test(self, partial: Mapping[str, Any]) -> list[tuple[int, frozenset[int]]] | None:
        """(axis, places of it) that a cell must all have to be left out; None when no cell can."""
        order = {name: i for i, name in enumerate(self.axes)}
        out = []
        for name, wanted in partial.items():
            those = frozenset(i for i, v in enumerate(self.axes[name]) if same(v, wanted))
            if not those:
                return None
            out.append((order[name], those))
        return out

    def _refuse_uneven(self) -> None:
        for group in self.zips:
            lengths = {name: len(self.axes[name]) for name in group}
            if len(set(lengths.values())) > 1:
                said = ", ".join(f"`{name}` has {n}" for name, n in lengths.items())
                raise BadInput(f"zipped axes need equally many values: {said}", hint="make them equally long")

    def _refuse_twins(self) -> None:
        for group in self.loops:
            seen: set[str] = set()
            for values in zip(*(self.axes[name] for name in group), strict=True):
                mark = "\0".join(map(_mark, values))
                if mark in seen:
                    shown = " with ".join(f"{v!r}" for v in values)
                    those = " and ".join(f"`{name}`" for name in group)
                    word, has = ("axes", "have") if len(group) > 1 else ("axis", "has")
                    raise BadInput(f"{word} {those} {has} {shown} twice", hint="give each value once")
                seen.add(mark)


def same(a: Any, b: Any) -> bool:
    """Is it the same value? 1 is 1.0 and [1] is (1,), but `true` is no number."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _values(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if not name:
        raise BadInput("an axis has no name", hint="write --grid NAME=VALUE,VALUE")
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise BadInput(f"axis `{name}` is {values!r}, which is no list of values", hint="give a list")
    if isinstance(values, Sequence) and len(values) > LIMIT:
        raise BadInput(f"axis `{name}` has {len(values):,} values", hint=f"at most {LIMIT:,} cells in one sweep")
    found = tuple(values)
    if not found:
        raise BadInput(f"axis `{name}` has no value", hint=f"give at least one, or leave {name} out")
    return found


def _groups(given: Iterable[Any], axes: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    each = list(given)
    if each and all(isinstance(e, str) for e in each):
        each = [each]
    out: list[tuple[str, ...]] = []
    used: set[str] = set()
    for group in each:
        names = tuple(group) if not isinstance(group, str) else (group,)
        for name in names:
            if name not in axes:
                raise BadInput(f"zip names `{name}`, which is no axis", hint=_near(str(name), axes))
            if name in used:
                raise BadInput(f"axis `{name}` is zipped twice", hint="name it in one group only")
            used.add(name)
        if len(names) < 2:
            raise BadInput(f"axis {names[0] if names else ''!r} is zipped with nothing", hint="write --zip a,b")
        out.append(names)
    return tuple(out)


def _mark(value: Any) -> str:
    """Tells values apart as JSON does: 1 and 1.0 are one parameter's value written twice only if a kind says so."""
    if type(value) is int:  # an axis may have a hundred thousand of them
        return str(value)
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return f"{type(value).__name__}:{value!r}"


def _near(name: str, axes: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(axes), n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(axes)}"
