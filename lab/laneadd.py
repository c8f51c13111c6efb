"""Adding a lane to the text of a cluster.yaml: a few lines are put in, and every other byte stays as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from core.errors import BadInput

_PLAIN = re.compile(r"[A-Za-z0-9_./~@][A-Za-z0-9_./~@+:-]*( [A-Za-z0-9_./~@+-]+)*")


def insert(text: str, name: str, settings: Mapping[str, Any]) -> str:
    """`text` with one more lane, behind the last one.

    Args:
        text: a cluster.yaml that `core.cluster.load` accepts, or an empty one.
        settings: as they are to be written, in their order.

    Raises:
        BadInput: the lane is there already, or `lanes` is written in a way that cannot be added to.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return _ended(text, newline) + _lines_of_all(name, settings, newline)
    lanes = next((value for key, value in root.value if key.value == "lanes"), None)
    if lanes is None or not isinstance(lanes, yaml.MappingNode):
        raise BadInput("cluster.yaml has no `lanes:` to add to", hint="`lab init` writes a working one")
    for key, _value in lanes.value:
        if str(key.value) == name:
            raise BadInput(
                f"cluster.yaml has a lane {name!r} already, at line {key.start_mark.line + 1}",
                hint="change it there, or choose another name",
            )
    if lanes.flow_style:
        return _into_braces(text, lanes, name, settings)
    column = lanes.value[0][0].start_mark.column
    step = _step(lanes, column)
    rows = text.splitlines(keepends=True)
    at = _behind(rows, lanes.value[-1], column)
    new = [" " * column + f"{name}:", *(" " * (column + step) + f"{k}: {value(v)}" for k, v in settings.items())]
    before = "".join(rows[:at])
    # One lane to a paragraph, where the others are.
    gap = newline if _spaced(rows, lanes) else ""
    return _ended(before, newline) + gap + newline.join(new) + newline + "".join(rows[at:])


def value(v: Any) -> str:
    """A value as YAML, in quotes only where it would be read as something else."""
    if isinstance(v, list | tuple):
        return "[" + ", ".join(value(x) for x in v) + "]"
    if isinstance(v, str):
        plain = _PLAIN.fullmatch(v) is not None and not v.endswith(":")
        return v if plain and yaml.safe_load(f"[{v}]") == [v] else json.dumps(v, ensure_ascii=False)
    return json.dumps(v)


def _into_braces(text: str, lanes: yaml.MappingNode, name: str, settings: Mapping[str, Any]) -> str:
    """Lanes written as {a: {...}, b: {...}}."""
    end = lanes.end_mark.index - 1  # of the closing brace
    inside = ", ".join(f"{k}: {value(v)}" for k, v in settings.items())
    head = text[:end].rstrip()
    comma = "" if head.endswith(("{", ",")) else ","
    return f"{head}{comma} {name}: {{{inside}}}{text[end:]}"


def _behind(rows: list[str], last: tuple[yaml.Node, yaml.Node], column: int) -> int:
    """The index of the line before which a new lane goes: behind the last one and the comments that belong to it."""
    at = _last_line(last[1] if _end(last[1]) > _end(last[0]) else last[0]) + 1
    while at < len(rows):
        line = rows[at].rstrip("\r\n")
        indent = len(line) - len(line.lstrip())
        if not line.strip().startswith("#") or indent <= column:
            break
        at += 1
    return at


def _last_line(node: yaml.Node) -> int:
    """The line on which a node's text ends. (A block ends, for the parser, where the next thing begins.)"""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        child = node.value[-1]
        pair = child if isinstance(child, tuple) else (child,)
        return max(_last_line(n) for n in pair)
    mark = node.end_mark
    # A literal block's end is the beginning of the line behind it.
    return int(mark.line) - int(mark.column == 0 and mark.line > node.start_mark.line)


def _end(node: yaml.Node) -> int:
    return int(node.end_mark.index)


def _step(lanes: yaml.MappingNode, column: int) -> int:
    """By how much settings stand to the right of their lane's name."""
    for _key, lane in lanes.value:
        if isinstance(lane, yaml.MappingNode) and not lane.flow_style and lane.value:
            inner: int = lane.value[0][0].start_mark.column
            return max(1, inner - column)
    return 2


def _spaced(rows: list[str], lanes: yaml.MappingNode) -> bool:
    starts = [key.start_mark.line for key, _ in lanes.value[1:]]
    return not starts or any(line and not rows[line - 1].strip() for line in starts)


def _lines_of_all(name: str, settings: Mapping[str, Any], newline: str) -> str:
    lines = ["lanes:", f"  {name}:", *(f"    {k}: {value(v)}" for k, v in settings.items())]
    return newline.join(lines) + newline


def _ended(text: str, newline: str) -> str:
    return text if not text or text.endswith("\n") else text + newline
