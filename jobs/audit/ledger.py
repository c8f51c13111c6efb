"""The list of checks: each with what the audit made itself, what it found stated, and whether these agree."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Unauditable(Exception):
    """What a check needs is not there, or makes no sense; a sentence."""


@dataclass(frozen=True)
class Entry:
    """One check. `expected`: made by the audit; `found`: as stated."""

    of: str
    check: str
    expected: str
    found: str
    tolerance: float | None
    passed: bool

    def sentence(self) -> str:
        about = "" if self.tolerance is None else f" (tolerance {self.tolerance:g})"
        return f"{self.of}: {self.check}: {self.expected} by the audit, {self.found} found{about}"

    def row(self) -> dict[str, Any]:
        names = ("of", "check", "expected", "found", "tolerance", "passed")
        return {name: getattr(self, name) for name in names}


@dataclass
class Ledger:
    """Collects checks. Attributes: tolerance: of numbers, relative to them or to 1."""

    tolerance: float
    entries: list[Entry] = field(default_factory=list)

    @property
    def failed(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.passed]

    def same(self, of: str, check: str, expected: object, found: object) -> None:
        """Both are the same value of the same type: the text "1" or the word true is no number."""
        self._add(of, check, text(expected), text(found), None, type(expected) is type(found) and expected == found)

    def near(self, of: str, check: str, expected: float, found: object) -> None:
        """A number within the tolerance. Anything else than a finite number fails."""
        number = found if isinstance(found, (int, float)) and not isinstance(found, bool) else math.nan
        allowed = self.tolerance * max(1.0, abs(expected))
        good = math.isfinite(expected) and math.isfinite(number) and abs(number - expected) <= allowed
        self._add(of, check, text(float(expected)), text(found), self.tolerance, good)

    def holds(self, of: str, check: str, expected: str, found: object, good: bool) -> None:
        """Something else than equality, which the audit has worked out itself."""
        self._add(of, check, expected, text(found), None, bool(good))

    @contextmanager
    def section(self, of: str) -> Iterator[None]:
        """What goes wrong inside is a failed check of its own, and the audit goes on: evidence may be made to break it.

        A bug of the audit's own would show here too, as a failure: it never makes a pass.
        """
        try:
            yield
        except Unauditable as error:
            self._add(of, "it can be audited", "what its checks need", str(error), None, False)
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            self._add(of, "it can be audited", "what its checks need", said, None, False)

    def _add(self, of: str, check: str, expected: str, found: str, tolerance: float | None, good: bool) -> None:
        self.entries.append(Entry(of, check, expected, found, tolerance, good))


def text(value: object) -> str:
    """A value as it stands in the table: words as they are, all else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
