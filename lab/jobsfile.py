"""`lab submit --file jobs.yaml`: several jobs in one file and one transaction, each error with file and line.

- name: prepare
  kind: command
  set: {argv: [python, prepare.py]}
  outputs: [table.csv]
- kind: parity
  after: [ok:prepare]
  takes: {table: prepare/table.csv}            # JOB or JOB/FILE; any:JOB/FILE where that job may also fail
  needs: {cores: 2, memory: 2G}
  limits: {time: 1h}
- name: sweep
  kind: parity
  grid: {sizes: [[1], [1, 4]], seed: 1..10}    # values, or text as `--grid` has it
  exclude: [{sizes: [1], seed: 3}]
  at_once: 4
  max_fails: 5
  after: [prepare]

`lab submit --sweep FILE` reads one such entry by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.grid import Grid
from core.states import Cond
from core.study import Take
from lab.gridwords import Axes
from lab.params import unknown_name
from lab.planning import Request

# Name in the file -> (name in Request, what it must be).
_FIELDS: dict[str, tuple[str, type]] = {
    "kind": ("kind", str),
    "name": ("name", str),
    "set": ("params", dict),
    "needs": ("needs", dict),
    "limits": ("limits", dict),
    "inputs": ("inputs", list),
    "code": ("code", str),
    "env": ("env", dict),
    "outputs": ("outputs", list),
    "expect": ("expect", dict),
    "after": ("after", list),
    "takes": ("takes", dict),
    "key": ("idem", str),
    "priority": ("priority", int),
    "tags": ("tags", list),
    "note": ("note", str),
    "held": ("held", bool),
    "force": ("force", bool),
    "retries": ("retries", dict),
    "allow_undeclared": ("allow_undeclared", list),
    "on_unreachable": ("on_unreachable", str),
    "at_once": ("at_once", int),
    "max_fails": ("max_fails", int),
}
# These together are the grid of a sweep.
_GRID: dict[str, type] = {"grid": dict, "zip": list, "exclude": list}
# What people write, and what the spec calls it.
_SHORT = {
    "needs": {"memory": "memory_mb", "disk": "disk_mb"},
    "limits": {"time": "time_s", "grace": "grace_s", "setup": "setup_s"},
}
_WORDS = {str: "text", dict: "a mapping (name: value)", list: "a list", int: "a whole number", bool: "true or false"}
_TEXT_LISTS = ("inputs", "outputs", "after", "tags", "allow_undeclared")


def read_jobs(path: Path) -> list[Request]:
    """The jobs of the file, in its order.

    Raises:
        BadInput: with file and line: broken YAML, an unknown or doubled name, a wrong type.
    """
    import yaml

    root = _compose(path, "jobs file")
    if isinstance(root, yaml.MappingNode) and len(root.value) == 1 and root.value[0][0].value == "jobs":
        root = root.value[0][1]
    if not isinstance(root, yaml.SequenceNode):
        line = root.start_mark.line + 1 if root is not None else 1
        raise BadInput(f"{path}:{line}: the file must be a list of jobs", hint="start each job with `- kind: NAME`")
    if not root.value:
        raise BadInput(f"{path}:1: there are no jobs in the file", hint="start each job with `- kind: NAME`")
    found = [_job(path, node) for node in root.value]
    return [replace(r, takes=_takes(r, [other.name for other in found])) if r.takes else r for r in found]


def _takes(request: Request, names: Sequence[str]) -> tuple[Take, ...]:
    """`{NAME: [any:]JOB[/FILE]}`, where JOB may have slashes of its own."""
    out = []
    given: Mapping[str, Any] = request.takes  # type: ignore[assignment]
    for name, word in given.items():
        text = str(word).strip()
        cond, colon, what = text.partition(":")
        if not colon or cond not in set(Cond):
            cond, what = str(Cond.OK), text
        job = max((n for n in names if n and (what == n or what.startswith(f"{n}/"))), key=len, default="")
        job = job or what.partition("/")[0]
        if not job or isinstance(word, (bool, float, list, dict)):
            raise BadInput(
                f"{request.where}: the input {name!r} is taken from {word!r}", hint="write JOB/FILE, or any:JOB/FILE"
            )
        of: str | int = int(job) if job.isdigit() and job not in names else job
        out.append(Take(name, of, what[len(job) + 1 :], cond == Cond.ANY))
    return tuple(out)


def read_sweep(path: Path) -> Request:
    """The one sweep of `lab submit --sweep FILE`: a mapping with `kind` and `grid`.

    Raises:
        BadInput: as `read_jobs`; and where there is no `grid`.
    """
    import yaml

    root = _compose(path, "sweep file")
    line = root.start_mark.line + 1 if root is not None else 1
    listed = isinstance(root, yaml.MappingNode) and [k.value for k, _ in root.value] == ["jobs"]
    if not isinstance(root, yaml.MappingNode) or listed:
        hint = "start it with `kind: NAME` and `grid:`; a list of jobs is read with --file"
        raise BadInput(f"{path}:{line}: the file must be one sweep (name: value)", hint=hint)
    request = _job(path, root)
    if request.grid is None:
        raise BadInput(f"{path}:{line}: the sweep has no `grid`", hint="add `grid: {NAME: [VALUE, VALUE]}`")
    if request.takes:
        raise BadInput(f"{path}:{line}: a sweep cannot take files of other jobs", hint="leave `takes` out")
    return request


def _compose(path: Path, what: str) -> Any:
    """The YAML nodes of the file, which know their lines."""
    import yaml

    try:
        text = path.read_text()
    except FileNotFoundError:
        raise BadInput(f"the {what} {path} does not exist", hint="correct the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the {what} {path} cannot be read ({error})", hint="name a text file") from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadInput(f"{path}:{line}: this is not YAML ({problem})", hint="correct that line") from error


def _job(path: Path, node: Any) -> Request:
    where = f"{path}:{node.start_mark.line + 1}"
    given: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    for name, child in _pairs(path, node, "a job").items():
        here = f"{path}:{child.start_mark.line + 1}"
        if name in _GRID:
            grid[name] = child
            continue
        if name not in _FIELDS:
            known = [*_FIELDS, *_GRID]
            raise BadInput(f"{here}: a job has no setting `{name}`", hint=unknown_name(name, known))
        target, want = _FIELDS[name]
        value: Any = _value(path, child)
        if name in ("name", "key", "note") and isinstance(value, int) and not isinstance(value, bool):
            value = str(child.value)  # `name: 12` is a name all the same
        fits = isinstance(value, want) and not (want is int and isinstance(value, bool))
        if not fits:
            raise BadInput(f"{here}: `{name}` must be {_WORDS[want]}, not {value!r}")
        if name in _TEXT_LISTS:
            odd = [v for v in value if not isinstance(v, (str, int)) or isinstance(v, bool)]
            if odd:
                raise BadInput(f"{here}: `{name}` must be a list of words, not {odd[0]!r}")
            value = [str(v) for v in value]
        if name == "env":
            value = _environment(here, value)
        if name in _SHORT:
            value = {_SHORT[name].get(k, k): v for k, v in value.items()}
        given[target] = value
    if "kind" not in given:
        raise BadInput(f"{where}: the job has no `kind`", hint="start it with `- kind: NAME`")
    if grid:
        _add_grid(path, where, grid, given)
    return Request(**given, literal=True, where=where)


def _add_grid(path: Path, where: str, nodes: dict[str, Any], given: dict[str, Any]) -> None:
    """Read `grid`, `zip` and `exclude` into a Grid."""
    import yaml

    def here(node: Any) -> str:
        return f"{path}:{node.start_mark.line + 1}"

    if "grid" not in nodes:
        name, node = next(iter(nodes.items()))
        raise BadInput(f"{here(node)}: `{name}` without `grid`", hint="add `grid: {NAME: [VALUE, VALUE]}`")
    axes = Axes()
    for name, child in _pairs(path, nodes["grid"], "`grid`").items():
        if isinstance(child, yaml.SequenceNode):
            axes.values[name] = [_value(path, item) for item in child.value]
        elif isinstance(child, yaml.ScalarNode):
            axes.add(name, str(child.value), f"{here(child)}: axis `{name}`")
        else:
            raise BadInput(f"{here(child)}: axis `{name}` must be a list of values", hint="write [1, 2, 3], or 1..100")
    plain = {name: _value(path, nodes[name]) for name in ("zip", "exclude") if name in nodes}
    for name, value in plain.items():
        if not isinstance(value, list):
            raise BadInput(f"{here(nodes[name])}: `{name}` must be {_WORDS[list]}, not {value!r}")
    for partial in plain.get("exclude", ()):
        if not isinstance(partial, dict):
            hint = "write `exclude: [{NAME: VALUE}]`"
            raise BadInput(f"{here(nodes['exclude'])}: an exclude must be {_WORDS[dict]}, not {partial!r}", hint=hint)
    for group in plain.get("zip", ()):
        if not isinstance(group, (str, list)) or not all(isinstance(n, str) for n in group):
            hint = "write `zip: [a, b]`, or `zip: [[a, b], [c, d]]`"
            raise BadInput(f"{here(nodes['zip'])}: `zip` names axes, not {group!r}", hint=hint)
    base = given.get("params", {})
    try:
        given["grid"] = Grid.of(axes.values, zip=plain.get("zip", ()), exclude=plain.get("exclude", ()), base=base)
    except BadInput as error:
        raise BadInput(f"{here(nodes['grid'])}: {error.message}", hint=error.hint) from None
    given["words"] = axes.words
    if axes.at_once is not None:
        given["at_once"] = min(axes.at_once, given.get("at_once") or axes.at_once)


def _environment(here: str, value: dict[str, Any]) -> dict[str, str]:
    out = {}
    for name, text in value.items():
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise BadInput(f"{here}: the variable {name} is {text!r}, which is not text", hint="put it in quotes")
        out[name] = str(text)
    return out


def _pairs(path: Path, node: Any, what: str) -> dict[str, Any]:
    import yaml

    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise BadInput(
            f"{path}:{line}: {what} must be a mapping (name: value)", hint="start each job with `- kind: NAME`"
        )
    out: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in out:
            raise BadInput(f"{path}:{key.start_mark.line + 1}: `{name}` is there twice", hint="remove one")
        out[name] = value
    return out


def _value(path: Path, node: Any) -> Any:
    """The plain value of a node; names are text, and none is there twice."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {name: _value(path, child) for name, child in _pairs(path, node, "this").items()}
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, child) for child in node.value]
    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(
            f"{path}:{node.start_mark.line + 1}: {node.value!r} cannot be read", hint="put it in quotes"
        ) from error
    # Dates and the like: what was written, as text.
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(node.value)
