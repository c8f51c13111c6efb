"""One run of the command line: which home, which face. Commands ask here; nothing else is global."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab.output import Face, JsonFace, PeopleFace, QuietFace

if TYPE_CHECKING:
    from core.home import Home
    from core.journal import Journal


class Session:
    """The choices that every command shares.

    Attributes:
        home_given: the value of --home, if any.
        out: where answers go.
    """

    def __init__(self) -> None:
        self.home_given: Path | None = None
        self.out: Face = PeopleFace()

    @functools.cached_property
    def home(self) -> Home:
        from core.home import Home

        return Home.find(self.home_given)

    def use_json(self) -> None:
        self.out = JsonFace()

    def use_quiet(self) -> None:
        if not isinstance(self.out, JsonFace):
            self.out = QuietFace()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Journal]:
        """The journal for reading: no lock, no waiting. Raises NotFound when there is no home yet."""
        from core.journal import Journal

        with Journal.open(self.home) as journal:
            yield journal

    @contextlib.contextmanager
    def asking(self, *, migrate: bool = True, create: bool = False) -> Iterator[Journal]:
        """The journal for writing requests; as an older controller left it where `migrate` is false.

        Args:
            create: make a home where there is none.
        """
        from core.journal import Journal, Role

        with Journal.open(self.home, Role.CLIENT, migrate=migrate, create=create) as journal:
            yield journal

    def show_version(self) -> None:
        from lab.commands._version import VersionReport

        self.out.show(VersionReport())


_current = Session()


def session() -> Session:
    """The session of this process."""
    return _current


def new_session() -> Session:
    """Start over (each call of `main` has a session of its own)."""
    global _current
    _current = Session()
    return _current
