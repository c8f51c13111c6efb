"""Pictures of the screen, cell by cell, compared with those that were looked at.

A picture is text: each line of the screen, and below it which style each cell has, by a letter that the end of the
file explains. So a difference can be read, and no drawing library can make one. `LAB_PICTURES=new` writes them anew.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.style import Style

from core.home import Home
from lab.tui.app import TopApp
from tests.lab.tui.scene import CLOCK, Still, scene, with_branches, with_cells

PICTURES = Path(__file__).parent / "pictures"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x50": (200, 50)}
CASES = [
    *((f"{theme}-{size}", theme, size, ()) for theme in ("dark", "light") for size in ("80x24", "200x50")),
    ("mono-80x24", "mono", "80x24", ()),
    ("contrast-80x24", "contrast", "80x24", ()),
    ("cells-80x24", "dark", "80x24", ("down", "down", "down", "enter")),
    ("help-80x24", "dark", "80x24", ("question_mark",)),
    ("cancel-80x24", "light", "80x24", ("c",)),
    *((f"branches-{size}", "dark", size, ("down",) * 4) for size in SIZES),
    ("branches-mono-80x24", "mono", "80x24", ("down",) * 4),
]


def picture(theme: str, size: tuple[int, int], keys: tuple[str, ...], *, branches: bool = False) -> str:
    async def run() -> str:
        snapshot = with_branches() if branches else with_cells(scene())
        home = Home(Path("/home/ada/filters/.lab"))
        app = TopApp(home, theme=theme, reader=Still(snapshot), clock=CLOCK)
        async with app.run_test(size=size) as pilot:
            for _ in range(3):
                await pilot.pause()
            await pilot.press(*keys)
            await pilot.pause()
            await pilot.pause()
            return _drawn(app)

    return asyncio.run(run())


def _drawn(app: TopApp) -> str:
    letters: dict[str, str] = {}
    out = []
    for strip in app.screen._compositor.render_strips():
        text, how = "", ""
        for segment in strip:
            named = _named(segment.style)
            letter = letters.setdefault(named, _LETTERS[len(letters) % len(_LETTERS)])
            text += segment.text
            how += letter * cell_len(segment.text)
        out += [f"|{text}|", f" {_runs(how)}"]
    return "\n".join([*out, "", *(f"{letter} {named}" for named, letter in letters.items())]) + "\n"


def _runs(how: str) -> str:
    """aaaabb as 4a2b."""
    out, at = [], 0
    while at < len(how):
        end = at
        while end < len(how) and how[end] == how[at]:
            end += 1
        out.append(f"{end - at}{how[at]}")
        at = end
    return "".join(out)


def _named(style: Style | None) -> str:
    if style is None:
        return "plain"
    on = [w for w in ("bold", "dim", "underline", "reverse") if getattr(style, w)]
    front = style.color.name if style.color is not None else "default"
    back = style.bgcolor.name if style.bgcolor is not None else "default"
    return " ".join([front, "on", back, *on])


@pytest.mark.parametrize(("name", "theme", "size", "keys"), CASES, ids=[c[0] for c in CASES])
def test_the_screen_is_as_it_was_looked_at(name: str, theme: str, size: str, keys: tuple[str, ...]) -> None:
    drawn = picture(theme, SIZES[size], keys, branches=name.startswith("branches"))
    file = PICTURES / f"{name}.txt"
    if os.environ.get("LAB_PICTURES") == "new":
        PICTURES.mkdir(exist_ok=True)
        file.write_text(drawn)
    assert drawn == file.read_text(), f"{name} looks different; look at it, then LAB_PICTURES=new if it should"


def test_a_difference_would_be_seen() -> None:
    assert picture("dark", SIZES["80x24"], ()) != picture("light", SIZES["80x24"], ())
    assert picture("dark", SIZES["80x24"], ("down",)) != (PICTURES / "dark-80x24.txt").read_text()
