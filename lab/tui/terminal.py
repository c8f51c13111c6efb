"""Running the screen on the real terminal, and leaving quietly when that goes away."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import IO, Any

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from core.home import Home
from lab.output import Page
from lab.output.faces import silence_stdout
from lab.tui.app import TopApp


def run(home: Home, *, theme: str = "") -> int:
    """Show the screen until somebody leaves it, or nobody can see it any more. Returns the exit code."""
    app = TopApp(home, theme=theme, unicode=Page.of(sys.stdout).unicode, driver_class=QuietDriver)
    code = app.run()
    if not _still_there():
        silence_stdout()
    return code or 0


class QuietDriver(LinuxDriver):
    """Draws on stdout, so that errors can be sent elsewhere; a terminal that is gone is the end, not an error."""

    def __init__(self, app: TopApp, **more: Any) -> None:
        super().__init__(app, **more)
        self._top = app
        self._file: IO[str] = _Unbreakable(sys.__stdout__, self._gone)  # type: ignore[assignment]

    def _gone(self) -> None:
        """From any thread: the terminal is closed."""
        self.exit_event.set()
        loop = getattr(self._top, "_loop", None)
        with contextlib.suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._top.leave)

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except OSError:
            self._gone()

    def run_input_thread(self) -> None:
        """As Textual's, but the end of the input is the end: it would ask for more for ever, at full speed."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(0.1):
                    data = os.read(self.fileno, 4096)
                    if not data:
                        self._gone()
                        return
                    for event in parser.feed(decode(data)):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)


class _Unbreakable:
    """Text goes to a terminal; after it has gone, nowhere."""

    def __init__(self, file: Any, gone: Callable[[], None]) -> None:
        self._file = file
        self._on_gone = gone
        self._broken = False

    def write(self, text: str) -> int:
        self._try(lambda: self._file.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def fileno(self) -> int:
        return int(self._file.fileno())

    def isatty(self) -> bool:
        return bool(self._file.isatty())

    def _try(self, work: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            work()
        except UnicodeEncodeError:
            pass  # a terminal of another encoding: a name that it cannot show
        except (OSError, ValueError):
            self._broken = True
            self._on_gone()


def _still_there() -> bool:
    try:
        sys.stdout.flush()
        os.write(1, b"")
        return os.isatty(1)
    except (OSError, ValueError):
        return False
