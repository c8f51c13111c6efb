"""The checker: each thing that it must find, planted into a report that is sound."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from lab.report import build as building
from lab.report import notebook
from lab.report.build import NOTEBOOK, BrokenReport, Built, problems, refuse_broken
from lab.report.check import look, rows_of
from lab.report.doc import Code, Hash, Ident, Inline, Name, Page, Para, When
from lab.report.forms import Form, cell, known, value_of, write
from lab.report.style import CSS, DARK, LIGHT
from tests.lab.report.conftest import built
from tests.lab.report.homes import Scene

Change = Callable[[str], str]


def planted(report: Built, path: str, change: Change) -> list[str]:
    """What the checker says once `change` was done to a file of the report."""
    old = report.files[path].decode()
    new = change(old)
    assert new != old, "nothing was planted"
    return problems({**report.files, path: new.encode()})


def after(mark: str, text: str) -> Change:
    return lambda page: page.replace(mark, mark + text, 1)


def instead(pattern: str, text: str) -> Change:
    return lambda page: re.sub(pattern, text, page, count=1, flags=re.S)


PLANTED: dict[str, tuple[str, Change, str]] = {
    "loose number": ("index.html", after('<main id="main" tabindex="-1">', "<p>FID is 12.3</p>"), "a loose number"),
    "in a heading": ("index.html", instead("Notebook map", "Notebook map 2"), "a loose number"),
    "in a list": ("index.html", instead("<ul><li>", "<ul><li>7 of them "), "a loose number"),
    "beside a number": ("index.html", instead('(<a class="num".*?</a>)', r"\1 1"), "a loose number"),
    "other digits": ("index.html", after('<main id="main" tabindex="-1">', "<p>٣</p>"), "a loose number"),
    "in a plain link": (
        "index.html",
        instead(">Technique snapshots<", ">12 techniques<"),
        "a loose number",
    ),
    "in what is only spoken": ("index.html", instead('aria-label="Pages"', 'aria-label="9 pages"'), "a loose number"),
    "a wrapper of no type": (
        "index.html",
        after('<main id="main" tabindex="-1">', '<p data-t="number">5</p>'),
        "a loose number",
    ),
    "a row where there are none": (
        "index.html",
        after('<main id="main" tabindex="-1">', '<article class="row" id="z"><p data-col="x">5</p></article>'),
        "a loose number",
    ),
    "another number": (
        "index.html",
        instead(r'(<a class="num"[^>]*data-form="score">)[^<]*', r"\g<1>1.00000000"),
        "is not what its row",
    ),
    "more digits than there are": (
        "index.html",
        instead(r'(<a class="num"[^>]*data-form="score">)([^<]*)', r"\g<1>\g<2>0"),
        "is not what its row",
    ),
    "a row that changed": (
        "rows/score-1.html",
        instead(r'(id="score-4-1-0".*?<td data-col="score">)[^<]*', r"\g<1>9.5"),
        "is not what its row",
    ),
    "a row that went": ("rows/score-1.html", instead(r'<article class="row".*?</article>', ""), "has no anchor"),
    "a column that went": (
        "rows/score-1.html",
        instead(r'(id="score-4-1-0".*?data-col="score)"', r'\g<1>d"'),
        "cites column 'score'",
    ),
    "an unknown form": ("index.html", instead('data-form="score"', 'data-form="nice"'), "no form that is known"),
    "other words": (
        "blockers.html",
        instead("it diverged at step 12", "it went well at step 12"),
        "are not those of row",
    ),
    "a link to nowhere": ("index.html", instead('href="lanes.html"', 'href="lane.html"'), "there is no lane.html"),
    "an anchor to nowhere": ("index.html", instead('href="#main"', 'href="#men"'), "has no anchor 'men'"),
    "a link outside": ("index.html", after('<main id="main" tabindex="-1">', '<a href="https://x.y">x</a>'), "outside"),
    "a script from elsewhere": (
        "index.html",
        after('<main id="main" tabindex="-1">', '<script src="studies.html"></script>'),
        "a script is not in the page",
    ),
    "a picture without words": ("techniques.html", instead(r'alt="[^"]*"', 'alt=""'), "has no alt text"),
    "a picture that went": ("techniques.html", instead(r'src="media/[^"]*"', 'src="media/x.png"'), "there is no media"),
    "a heading too deep": (
        "index.html",
        after('<main id="main" tabindex="-1">', "<h4>deep</h4>"),
        "<h4> comes after a heading of level 0",
    ),
    "two first headings": ("index.html", instead("</main>", "<h1>b</h1></main>"), "there are 2 <h1>"),
    "no main": ("index.html", instead("<main ", "<section "), "closes what is not open"),
    "no caption": ("index.html", instead(r"<caption.*?</caption>", ""), "a table has no caption"),
    "no scope": ("index.html", instead(r'<th scope="col"', "<th"), "a <th> has no scope"),
    "an id twice": ("index.html", after('<main id="main" tabindex="-1">', '<p id="main">x</p>'), "is there twice"),
    "a label of nothing": ("index.html", instead('aria-labelledby="floor"', 'aria-labelledby="flor"'), "label names"),
    "a link that says nothing": ("index.html", after('tabindex="-1">', '<a href="lanes.html"></a>'), "says nothing"),
    "no language": ("index.html", instead('<html lang="en">', "<html>"), "names no language"),
    "no skip link": ("index.html", instead(r'<a class="skip".*?</a>', ""), "does not skip to the content"),
    "an order of its own": ("index.html", instead('tabindex="0"', 'tabindex="3"'), "tabindex"),
    "loose in the notebook": (NOTEBOOK, instead("## Glossary", "## Glossary\n\nFID 12"), "a loose number in line"),
    "another number there": (NOTEBOOK, instead(r"\[\d\.\d{8}\]\[score", "[1.00000001][score"), "is not what row"),
    "not defined there": (NOTEBOOK, instead(r"\]\[score-\d+-1-0\]", "][score-99-1-0]"), "is not defined"),
    "led to nowhere there": (NOTEBOOK, instead(r"rows/score-1.html", "rows/score-7.html"), "leads nowhere"),
    "a picture there": (NOTEBOOK, instead(r"\]\(media/", "](medea/"), "is not there"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(report: Built, name: str) -> None:
    path, change, words = PLANTED[name]
    found = planted(report, path, change)
    assert any(words in said for said in found), found[:5]
    assert any(said.startswith(path) or "rows/" in path for said in found)
    with pytest.raises(BrokenReport, match="does not pass its own check"):
        refuse_broken({**report.files, path: change(report.files[path].decode()).encode()})


@pytest.mark.parametrize("word", ["17", "FID of 3", "١٢"])
def test_a_planted_loose_number_fails_the_build(scene: Scene, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    page = building.glossary.page()
    monkeypatch.setattr(building.glossary, "page", lambda: Page(page.path, page.title, [Para([word])], page.menu))
    with pytest.raises(BrokenReport, match="a loose number"):
        built(scene)


@pytest.mark.parametrize("x", [Ident("job 3"), Hash("0123"), Code("lab status 3"), Name("alpha 20"), When(7.5)])
def test_what_is_typed_may_have_digits(scene: Scene, monkeypatch: pytest.MonkeyPatch, x: Inline) -> None:
    page = building.glossary.page()
    monkeypatch.setattr(building.glossary, "page", lambda: Page(page.path, page.title, [Para([x])], page.menu))
    assert built(scene).files


def test_a_broken_link_fails_the_build(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    page = building.glossary.page()
    broken = Page(page.path, page.title, [Para([Name("gone", "studies/gone.html")])], page.menu)
    monkeypatch.setattr(building.glossary, "page", lambda: broken)
    with pytest.raises(BrokenReport, match=r"there is no studies/gone\.html"):
        built(scene)


def test_hostile_names_stay_text() -> None:
    page = look('<html lang="en"><body><p>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;</p></body></html>')
    assert any("a loose number" in p for p in page.problems)
    assert not page.links


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (Form.WHOLE, 1234567, "1,234,567"),
        (Form.SHORT, 1.71931e-07, "1.71931e-07"),
        (Form.SCORE, 1.5, "1.50000000"),
        (Form.GAIN, 0.25, "+0.25000"),
        (Form.SMALL, 0.12345, "0.123"),
        (Form.SIZE, 2048, "2.0 KiB"),
        (Form.SPAN, 61.5, "1m01s"),
        (Form.EXACT, 0.1, "0.1"),
        ("as:.2f", 12.345, "12.35"),
        ("as:", 400.0, "400"),
        ("as:", 0.5, "0.5"),
        (Form.SHORT, float("nan"), "nan"),
    ],
)
def test_forms_are_written_again_from_the_cell(form: str, value: float, text: str) -> None:
    assert known(form)
    assert write(form, value) == text
    assert write(form, value_of(cell(value))) == text


def test_a_layout_is_no_program() -> None:
    assert not known("as:{0.__class__}")
    assert not known("as:>99999999")


def test_rows_are_read_from_the_pages(report: Built) -> None:
    rows = rows_of(report.files)
    assert rows["job-1"]["kind"] == "score"
    assert notebook.problems("FID is 3", rows, report.files)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG 2.2, 1.4.3."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    for ground in ("ground", "panel"):
        for ink in ("ink", "faint", "link", "good", "bad", "warn"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["focus"], colours[ground]) >= 3.0
    assert "--faint" in CSS
