"""A kind's parameters: words of the command line made into values, and every refusal one sentence."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from core.errors import BadInput
from core.kind import Kind

_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,20})?")


def check(kind: Kind, given: Mapping[str, Any], *, literal: bool = False) -> tuple[Any, dict[str, Any]]:
    """Validate `given` by the kind's own model.

    Args:
        literal: take text as text. Otherwise it may be a word of the command line: read as YAML first (`[1, 4]`,
            `true`, `1e-3`), and as it stands where the parameter wants text.

    Returns:
        The kind's `Params`, and the same as plain JSON values: equal jobs give equal ones.

    Raises:
        BadInput: naming the parameter, the value, and what is allowed.
    """
    refuse_unknown(kind, given)
    raw = dict(given)
    parsed = raw if literal else {k: from_text(v) if isinstance(v, str) else v for k, v in raw.items()}
    try:
        params = kind.Params(**parsed)
    except ValidationError as error:
        again = {str(e["loc"][0]) for e in error.errors(include_url=False) if e["loc"]}
        again = {name for name in again if parsed.get(name) is not raw.get(name)}
        if not again:
            raise refusal(kind, error) from None
        try:
            params = kind.Params(**{**parsed, **{name: raw[name] for name in again}})
        except ValidationError:
            raise refusal(kind, error) from None
    plain = params.model_dump(mode="json")
    for name, value in plain.items():
        if _has_nan(value):
            raise BadInput(
                f"parameter `{name}` of kind {kind.name} is {value}, which is no number", hint="give a finite one"
            )
    return params, plain


def from_text(text: str) -> Any:
    """The value that `text` means in YAML; the text itself where that is no plain value."""
    if _PLAIN_NUMBER.fullmatch(text):  # as YAML has it too, and an axis may have a hundred thousand of them
        return float(text) if "." in text else int(text)
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError):
        return text
    return value if _plain(value) else text


def first_sentence(error: ValidationError, what: str) -> str:
    """The first error of `error` as one sentence about `what`, such as "`cores` of needs must be ..."."""
    errors = error.errors(include_url=False)
    first = errors[0]
    place = _place(first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "missing":
        return f"`{place}` of {what} is missing{more}"
    allowed = _allowed(first["msg"])
    if not place:
        return f"{what}: {allowed}{more}"
    return f"`{place}` of {what} is {_shown(first['input'])}: {allowed}{more}"


def unknown_name(name: str, known: list[str]) -> str:
    """What to do about a name that does not exist."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"there are: {', '.join(known)}" if known else "it takes none"


def refuse_unknown(kind: Kind, given: Iterable[str], what: str = "parameter") -> None:
    """Raises BadInput for a name that the kind's model does not have, with the nearest that it has.

    Args:
        what: what the name was given as.
    """
    fields = kind.Params.model_fields
    known = [f.alias or name for name, f in fields.items()]
    for name in given:
        if name not in known and name not in fields:
            said = f"kind {kind.name} has no parameter `{name}`"
            if what != "parameter":
                said = f"{what} `{name}` is no parameter of kind {kind.name}"
            raise BadInput(said, hint=unknown_name(name, known))


def refusal(kind: Kind, error: ValidationError, what: str = "parameter") -> BadInput:
    """The first error of `error` as a sentence. `what`: where the value came from."""
    first = error.errors(include_url=False)[0]
    loc = first["loc"]
    if first["type"] == "missing" and len(loc) == 1:
        return BadInput(f"kind {kind.name} needs the parameter `{loc[0]}`", hint=f"give it with --set {loc[0]}=VALUE")
    sentence = first_sentence(error, f"kind {kind.name}")
    field = kind.Params.model_fields.get(str(loc[0])) if loc else None
    # Where the allowed values are named, what the parameter is in general says nothing more.
    listed = first["type"] in ("literal_error", "enum")
    hint = f"`{loc[0]}`: {field.description}" if field is not None and field.description and not listed else ""
    return BadInput(f"{what} {sentence}" if loc else f"the parameters of {sentence}", hint=hint)


def _place(loc: tuple[int | str, ...]) -> str:
    out = ""
    for part in loc:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def _allowed(message: str) -> str:
    for prefix in ("Value error, ", "Assertion failed, "):
        if message.startswith(prefix):
            return message.removeprefix(prefix)
    if message.startswith("Input should be "):
        # "a valid integer, unable to parse string as an integer": the second half says nothing new.
        return "it must be " + message.removeprefix("Input should be ").split(", unable to parse", 1)[0]
    return message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return type(value).__name__
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_plain(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _has_nan(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_nan(v) for v in value)
    if isinstance(value, dict):
        return any(_has_nan(v) for v in value.values())
    return isinstance(value, float) and not math.isfinite(value)
