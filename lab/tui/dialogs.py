"""What lies above the screen for a moment: a question, a reason to be typed, the help."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

HELP = (
    ("", "Move"),
    ("↑ ↓  j k", "one row; PgUp PgDn a page; Home End first and last"),
    ("Tab", "the next pane: jobs, detail, lanes"),
    ("Enter", "unfold or fold a sweep; on “more” the next cells"),
    ("", "Look"),
    ("/", "filter: words state:failed kind:x tag:x lane:x"),
    ("f  s", "failed only; the order: state, newest, longest, name"),
    ("[  ]", "another metric"),
    ("l", "the log on the whole screen"),
    ("t", "another theme: dark, light, contrast, mono"),
    ("", "Change"),
    ("c", "cancel the job or sweep (asks)"),
    ("h", "hold it, or release what is held"),
    ("r", "run it again; of a sweep what failed (asks)"),
    ("d", "drain the lane, or resume it (asks for a reason)"),
    ("q", "leave; jobs go on"),
)


class Ask(ModalScreen[bool]):
    """A question with yes and no. Enter alone does not say yes to what cannot be undone: `y` does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q,ctrl+c", "answer(False)", show=False),
    ]

    def __init__(self, question: str, yes: str, about: str = "") -> None:
        super().__init__()
        self._question, self._yes, self._about = question, yes, about

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, style="bold"), classes="question")
            if self._about:
                yield Static(Text(self._about), classes="about")
            with Horizontal(classes="buttons"):
                yield Button(Text.assemble((f"y  {self._yes}", "")), id="yes", compact=True)
                yield Button(Text.assemble(("n  leave it", "")), id="no", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)

    def on_key(self, event: events.Key) -> None:
        if event.key in ("left", "right", "up", "down"):
            event.stop()
            self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class AskReason(ModalScreen[str | None]):
    """A line to be typed; None when it was left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+c", "leave", show=False, priority=True)]

    def __init__(self, question: str, *, needed: bool, about: str = "") -> None:
        super().__init__()
        self._question, self._needed, self._about = question, needed, about

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question, style="bold"), classes="question")
            line = Input(placeholder="why" if self._needed else "what was mended (may be left empty)", compact=True)
            line.cursor_blink = False
            yield line
            yield Static(Text(self._about or "Enter does it, Esc leaves it"), classes="about")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if text or not self._needed:
            self.dismiss(text)
        else:
            self.query_one(".about", Static).update(Text("a reason is needed: everyone who asks later will read it"))

    def action_leave(self) -> None:
        self.dismiss(None)


class Help(ModalScreen[None]):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter,space,ctrl+c", "leave", show=False)]

    def compose(self) -> ComposeResult:
        text = Text()
        for key, does in HELP:
            if not key:
                text.append(f"{does}\n", style="bold underline")
            else:
                text.append(f"  {key:<10}", style="bold")
                text.append(f"{does}\n")
        with Vertical(classes="dialog help"):
            yield Static(text)

    def action_leave(self) -> None:
        self.dismiss(None)

    def on_click(self) -> None:
        self.dismiss(None)
