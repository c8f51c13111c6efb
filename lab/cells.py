"""From a grid to jobs: each cell's parameters are checked by the kind's own model, named and keyed. Writes nothing.

A sweep may have a hundred thousand cells, so what they share is done once, and a cell costs a validation, one JSON text
and one hash.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from core.errors import BadInput
from core.fsio import digest
from core.kind import Kind
from core.spec import JobSpec, Keys
from lab.asked import Request
from lab.output import human
from lab.params import from_text, refusal, refuse_unknown

_LONGEST_NAME = 200


def _canonical_encoder() -> Callable[[Any], str]:
    """As core.fsio.canonical, but made once: `json` makes a new encoder for every call."""
    whole = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return whole.encode
    chunks = make(None, whole.default, json.encoder.encode_basestring, None, ":", ",", True, False, False)
    return lambda value: "".join(chunks(value, 0))


canonical_text = _canonical_encoder()


class Cell(NamedTuple):
    """One cell as the journal will have it. `spec` is None where it is the sweep's own."""

    key: str
    name: str
    params: str
    spec: str | None


@dataclass(frozen=True)
class Cells:
    """The cells of a sweep, in the order of its grid.

    Attributes:
        axes: as they are shown: values as the kind's model has them.
        base: what all cells share, of what was given.
        spec, data: of the sweep; `specs` are those of cells whose inputs are others, by digest.
        pooled: all of them may run in batches.
    """

    rows: list[Cell]
    axes: list[tuple[str, list[Any]]]
    base: dict[str, Any]
    spec: JobSpec
    data: dict[str, Any]
    specs: dict[str, dict[str, Any]]
    pooled: bool


def expand(kind: Kind, request: Request, spec_for: Callable[[Mapping[str, Path]], JobSpec]) -> Cells:
    """All cells of `request.grid`.

    Args:
        spec_for: the spec of a job with these inputs (which follow from its parameters).

    Raises:
        BadInput: naming the axis and its value, or the cell.
    """
    assert request.grid is not None
    return _Expansion(kind, request, spec_for).all()


class _Expansion:
    def __init__(self, kind: Kind, request: Request, spec_for: Callable[[Mapping[str, Path]], JobSpec]) -> None:
        grid = request.grid
        assert grid is not None
        self._kind, self._grid, self._spec_for = kind, grid, spec_for
        self._given = {**grid.base, **request.params}
        refuse_unknown(kind, self._given)
        fields = kind.Params.model_fields
        known = {f.alias or name for name, f in fields.items()} | set(fields)
        # What is no parameter of a program is a place in its words: `{alpha}`.
        self._filled = [n for n in grid.names if n not in known and "argv" in fields and kind.user_code]
        refuse_unknown(kind, [n for n in grid.names if n not in self._filled], "axis")
        literal = request.literal
        self._base = {n: from_text(v) if isinstance(v, str) and not literal else v for n, v in self._given.items()}
        self._values = {name: list(values) for name, values in grid.axes.items()}
        self._typed = {name: list(words) for name, words in request.words.items()}
        self._shown: dict[str, list[Any]] = {name: [None] * len(v) for name, v in self._values.items()}
        # One row for each axis: its name, its values, the same as they are shown, and as they stand in names of cells.
        self._axes = [(n, v, self._shown[n], [""] * len(v)) for n, v in self._values.items()]
        self._argv = _Argv(self._base.get("argv"), self._filled, self._values, self._typed) if self._filled else None
        self._follow = type(kind).inputs is not Kind.inputs
        self._asked = kind.pooled and type(kind).pools is not Kind.pools
        self._pooled = kind.pooled
        self._called = frozenset(kind.described) & frozenset(grid.names)
        self._groups: dict[Any, tuple[Keys, str | None]] = {}
        self._specs: dict[str, dict[str, Any]] = {}
        self._first: tuple[JobSpec, dict[str, Any]] | None = None

    def all(self) -> Cells:
        places = self._grid.places()
        with _no_collection():
            rows = [self._cell(spots) for spots in places]
        self._refuse_twins(rows, places)
        assert self._first is not None
        spec, data = self._first
        plain = json.loads(rows[0].params)
        base = {name: plain.get(name) for name in self._given}
        if self._argv is not None:
            base["argv"] = list(self._argv.words)
        axes = [(name, self._shown[name]) for name in self._grid.names]
        return Cells(rows, axes, base, spec, data, self._specs, self._pooled)

    def _cell(self, places: tuple[int, ...]) -> Cell:
        given = self._base.copy()
        for (name, values, _, _), i in zip(self._axes, places):  # noqa: B905 (equally long, and a hundred thousand times)
            given[name] = values[i]
        if self._argv is not None:
            self._argv.fill(given, places)
        try:
            params = self._kind.Params(**given)
        except ValidationError as error:
            params = self._again(given, places, error)
        if self._asked and self._pooled and not self._kind.pools(params):
            self._pooled = False
        plain = params.model_dump(mode="json")
        try:
            text = canonical_text(plain)
            blob = text.encode()
        except ValueError as error:
            odd = "text that is not UTF-8" if isinstance(error, UnicodeError) else "a number that is not finite"
            raise BadInput(f"cell {self._name(places)} holds {odd}", hint="give another value") from None
        parts = [self._kind.describe(params)] if self._called else []
        for (name, values, shown, names), i in zip(self._axes, places):  # noqa: B905
            if not names[i]:
                shown[i] = plain[name] if name in plain else _plain(name, values[i])
                names[i] = f"{name}={_short(shown[i])}"
            if name not in self._called:
                parts.append(names[i])
        keys, spec = self._group(params)
        label = " ".join(parts)
        return Cell(keys.of(blob), label if len(label) <= _LONGEST_NAME else label[:197] + "...", text, spec)

    def _again(self, given: dict[str, Any], places: tuple[int, ...], error: ValidationError) -> Any:
        """Take the words as they stand where what YAML made of them does not fit, as any submit does."""
        wrong = {str(e["loc"][0]) for e in error.errors(include_url=False) if e["loc"]}
        changed = False
        for (name, values), i in zip(self._values.items(), places, strict=True):
            words = self._typed.get(name)
            if name in wrong and words is not None and values[i] is not words[i]:
                given[name] = values[i] = words[i]
                changed = True
        for name in wrong & self._given.keys():
            word = self._given[name]
            if isinstance(word, str) and self._base[name] is not word:
                given[name] = self._base[name] = word
                changed = True
        if changed:
            try:
                return self._kind.Params(**given)
            except ValidationError:
                pass
        first = error.errors(include_url=False)[0]["loc"]
        said = refusal(self._kind, error, "axis" if first and first[0] in self._values else "parameter")
        if not first:
            said = BadInput(f"cell {self._name(places)}: {said.message}", hint=said.hint)
        raise said from None

    def _name(self, places: tuple[int, ...]) -> str:
        return " ".join(f"{n}={_short(v[i])}" for (n, v), i in zip(self._values.items(), places, strict=True))

    def _group(self, params: Any) -> tuple[Keys, str | None]:
        """Cells with the same inputs share a spec; the first group's is the sweep's."""
        if not self._follow and self._groups:
            return self._groups[()]
        found = self._kind.inputs(params)
        mark = tuple(sorted((name, str(path)) for name, path in found.items()))
        group = self._groups.get(mark)
        if group is None:
            spec = self._spec_for(found)
            data = spec.model_dump(mode="json")
            if self._first is None:
                self._first = (spec, data)
                group = (Keys(data), None)
            else:
                name = digest(data)
                self._specs[name] = data
                group = (Keys(data), name)
            self._groups[mark] = group
        return group

    def _refuse_twins(self, rows: Sequence[Cell], places: Sequence[tuple[int, ...]]) -> None:
        """Two cells that are one job: values written differently, or that the kind does not tell apart."""
        if len({row.key for row in rows}) == len(rows):
            return
        seen: dict[str, tuple[int, ...]] = {}
        for row, spots in zip(rows, places, strict=True):
            twin = seen.setdefault(row.key, spots)
            if twin is not spots:
                said = f"two cells are the same job: {self._name(twin)} and {self._name(spots)}"
                raise BadInput(said, hint="give each value once")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Many small objects, none of them in a circle: the more there are, the longer is each look for circles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Argv:
    """The words of a program with `{axis}` in them."""

    def __init__(
        self, words: Any, names: Sequence[str], values: Mapping[str, Sequence[Any]], typed: Mapping[str, Sequence[str]]
    ) -> None:
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise BadInput(
                f"axis `{names[0]}` is no parameter, and there are no words to put it into",
                hint=f"give the program after --, with {{{names[0]}}} where the value goes",
            )
        self.words: list[str] = words
        self._pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in names))
        used = set(self._pattern.findall("\0".join(words)))
        for name in names:
            if f"{{{name}}}" not in used:
                raise BadInput(
                    f"axis `{name}` is used nowhere: no word of the program holds {{{name}}}",
                    hint=f"write {{{name}}} where its value goes, or leave the axis out",
                )
        order = list(values)
        self._axes = [
            (name, order.index(name), [_argument(name, v, i, typed) for i, v in enumerate(values[name])])
            for name in names
        ]
        self._open = [i for i, word in enumerate(words) if self._pattern.search(word)]

    def fill(self, given: dict[str, Any], places: tuple[int, ...]) -> None:
        """Put the cell's values into the words, in place of the axes themselves."""
        texts = {}
        for name, at, arguments in self._axes:
            del given[name]
            texts[f"{{{name}}}"] = arguments[places[at]]
        argv = list(self.words)
        for i in self._open:
            argv[i] = self._pattern.sub(lambda found: texts[found[0]], argv[i])
        given["argv"] = argv


def _argument(name: str, value: Any, place: int, typed: Mapping[str, Sequence[str]]) -> str:
    """A value as a word of a program: as it was typed; text without the quotes that YAML needed."""
    if isinstance(value, str):
        return value
    if name in typed:
        return typed[name][place]
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(_plain(name, value), separators=(",", ":"))
    return "" if value is None else human.value(value) if isinstance(value, bool) else str(value)


def _plain(name: str, value: Any) -> Any:
    """`value` as JSON has it."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, Path):
        return str(value)
    try:
        return json.loads(canonical_text(value))
    except (TypeError, ValueError, RecursionError):
        said = f"axis `{name}` has the value {value!r}, which is no plain value"
        raise BadInput(said, hint="give text or numbers") from None


def _short(value: Any) -> str:
    """A value in the name of a cell: floats in full, so that no two cells have the same name."""
    return repr(value) if type(value) in (int, float) else human.value(value)
