"""The one output interface and its three faces: for people, for programs (JSON), and quiet.

A command makes a `Report` and hands it to the face; it prints nothing by itself. What is shown on stdout is the
answer; remarks, progress and errors go to stderr, so that a pipe carries answers only.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from lab.output.page import Page


class Report(ABC):
    """What a command answers, in every way that it can be shown.

    Attributes:
        schema: name and version of the JSON form; the version changes when a field changes its meaning or goes away.
    """

    schema: ClassVar[str]

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """The answer for programs, without the schema field."""

    @abstractmethod
    def text(self, page: Page) -> Iterable[str]:
        """The answer for people, line by line."""

    def brief(self) -> Iterable[str]:
        """The answer for `--quiet`: identifiers only, or nothing."""
        return ()


class Face(ABC):
    """Where a command's answers and remarks go."""

    people: ClassVar[bool] = False  # does a person read this (progress bars, next steps)?

    @abstractmethod
    def show(self, report: Report) -> None:
        """The command's answer."""

    def remark(self, line: str) -> None:  # noqa: B027
        """Something for people beside the answer: a next step, a warning. Silent for programs."""

    @abstractmethod
    def failed(self, slug: str, message: str, hint: str, exit_code: int) -> None:
        """Why the command did not do what was asked."""

    @property
    def page(self) -> Page:
        return Page.of(sys.stdout)

    def raw(self, text: str) -> None:
        """Text that is an answer by itself: a log, a CSV table."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def raw_bytes(self, data: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


class PeopleFace(Face):
    people = True

    def show(self, report: Report) -> None:
        lines = list(report.text(self.page))
        if lines:
            _write("\n".join(lines) + "\n")

    def remark(self, line: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def failed(self, slug: str, message: str, hint: str, exit_code: int) -> None:
        page = Page.of(sys.stderr)
        sentence = f"{message}; {hint}" if hint else message
        self.remark(page.paint("lab:", "bad") + " " + " ".join(sentence.split()))


class JsonFace(Face):
    """One JSON document per answer: indented on a terminal, else one line each."""

    def show(self, report: Report) -> None:
        self._document({"schema": report.schema, **report.json()})

    def failed(self, slug: str, message: str, hint: str, exit_code: int) -> None:
        body = {"error": slug, "message": message, "hint": hint, "exit_code": exit_code}
        self._document({"schema": "lab.error/1", **body})

    def _document(self, body: dict[str, Any]) -> None:
        indent = 2 if sys.stdout.isatty() else None
        _write(json.dumps(body, indent=indent, ensure_ascii=False, default=str) + "\n")


class QuietFace(PeopleFace):
    people = False

    def show(self, report: Report) -> None:
        lines = list(report.brief())
        if lines:
            _write("\n".join(lines) + "\n")

    def remark(self, line: str) -> None:
        pass

    def failed(self, slug: str, message: str, hint: str, exit_code: int) -> None:
        PeopleFace().failed(slug, message, hint, exit_code)


def silence_stdout() -> None:
    """After a reader has gone (`lab status | head`): nothing more can be written, and that is no error."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
