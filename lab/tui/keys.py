"""The keys of the main screen: what each does, and those that the last line names."""

from __future__ import annotations

from textual.binding import Binding, BindingType

# In the order of the last line; the first of them must fit into 80 columns (panes.FIRST_KEYS).
KEYS = (
    ("c", "cancel"),
    ("h", "hold"),
    ("r", "rerun"),
    ("d", "drain"),
    ("/", "filter"),
    ("s", "sort"),
    ("f", "failed"),
    ("l", "log"),
    ("?", "help"),
    ("q", "quit"),
    ("t", "theme"),
    ("Tab", "pane"),
)
FOR_KEY = {key: "pane" if key == "Tab" else does for key, does in KEYS}

BINDINGS: list[BindingType] = [
    Binding("q", "quit", show=False),
    Binding("ctrl+c", "quit", show=False, priority=True),
    Binding("ctrl+q", "quit", show=False),
    Binding("ctrl+z", "suspend_process", show=False),
    Binding("ctrl+l", "redraw", show=False),
    Binding("c", "cancel", show=False),
    Binding("h", "hold", show=False),
    Binding("r", "rerun", show=False),
    Binding("d", "drain", show=False),
    Binding("slash", "filter", show=False),
    Binding("escape", "clear", show=False),
    Binding("s", "sort", show=False),
    Binding("f", "failed", show=False),
    Binding("l", "log", show=False),
    Binding("t", "theme", show=False),
    Binding("question_mark", "help", show=False),
    Binding("left_square_bracket", "metric(-1)", show=False),
    Binding("right_square_bracket", "metric(1)", show=False),
    Binding("tab", "pane(1)", show=False, priority=True),
    Binding("shift+tab", "pane(-1)", show=False, priority=True),
]
