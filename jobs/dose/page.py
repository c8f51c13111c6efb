"""One HTML page: self-contained (no network, no script), light and dark, readable on a phone and by a screen reader.

It knows nothing of the study: it is given headings, sentences, tables, charts and pictures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jobs.dose.chart import Chart, svg, swatch

_MOST_PIXELS = 1400  # of a picture in the page; a wider one is made smaller, the whole one lies beside its comparison

# Okabe and Ito's colours, lightened where the ground is dark.
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#8a4a77", "#6b6b6b", "#1f7a8c", "#a3790a")
_DARK = ("#5cb8f0", "#ff9a52", "#3fd1a5", "#e0a3cb", "#b4b4b4", "#7fd6e4", "#e8c14f")


def _colours(colours: Sequence[str]) -> str:
    return "".join(f"--s{i}:{c};" for i, c in enumerate(colours))


def _strokes(count: int) -> str:
    return "".join(
        f".line.s{i},.bar.s{i},.cross.s{i}{{stroke:var(--s{i})}}.mark.s{i}{{fill:var(--s{i})}}" for i in range(count)
    )


_CSS = f"""
:root{{color-scheme:light dark;--ink:#1d1f21;--faint:#5a5f66;--line:#d9dce0;--ground:#fff;--panel:#f5f6f8;
--good:#00604a;--bad:#a33a00;{_colours(_LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{--ink:#e8eaed;--faint:#a9b0b8;--line:#3b4046;--ground:#15171a;
--panel:#1f2226;--good:#5fd3b0;--bad:#ffab73;{_colours(_DARK)}}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}}
main{{max-width:76rem;margin:0 auto;padding:1rem clamp(.8rem,3vw,2rem) 4rem}}
h1{{font-size:1.6rem;line-height:1.2;margin:.6rem 0}}h2{{font-size:1.25rem;margin:2.4rem 0 .4rem}}
h3{{font-size:1.02rem;margin:1.4rem 0 .3rem}}p,li{{max-width:46rem}}
.faint,caption,figcaption{{color:var(--faint);font-size:.88rem}}
a{{color:inherit}}a.skip{{position:absolute;left:-999rem}}a.skip:focus{{left:1rem;top:1rem;background:var(--panel)}}
:focus-visible{{outline:3px solid var(--s0);outline-offset:2px}}
nav ul{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;list-style:none;margin:.6rem 0}}
nav a{{display:inline-block;padding:.35rem 0}}
.scroll{{overflow-x:auto;border:1px solid var(--line);border-radius:.4rem;margin:.6rem 0}}
table{{border-collapse:collapse;font-size:.88rem;min-width:100%;font-variant-numeric:tabular-nums}}
caption{{text-align:left;padding:.5rem .6rem}}
th,td{{padding:.3rem .6rem;text-align:left;border-top:1px solid var(--line);vertical-align:top}}
td{{min-width:7rem}}td.n{{min-width:0}}
thead th{{background:var(--panel);position:sticky;top:0}}td.n,th.n{{text-align:right;white-space:nowrap}}
tbody th{{font-weight:600}}.good{{color:var(--good);font-weight:600}}.bad{{color:var(--bad);font-weight:600}}
.charts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:.8rem}}
.chart{{width:100%;max-width:34rem;height:auto;background:var(--panel);border-radius:.4rem}}
.chart text{{fill:var(--ink);font:11px system-ui,sans-serif}}.chart .head{{font-weight:600;font-size:12.5px}}
.chart .tick{{fill:var(--faint)}}.chart .grid{{stroke:var(--line);stroke-width:1}}
.chart .axis{{stroke:var(--faint);stroke-width:1}}
.line{{fill:none;stroke-width:1.8}}.line.ref{{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:5 4}}
.bar{{stroke-width:1.6;fill:none}}.mark{{stroke:var(--panel);stroke-width:1}}.mark.cross{{fill:none;stroke-width:2}}
{_strokes(len(_LIGHT))}
.mark.cross{{fill:none}}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;padding:0;margin:.4rem 0;list-style:none;font-size:.9rem}}
.swatch{{width:26px;height:14px;vertical-align:-2px;margin-right:.35rem}}
figure{{margin:.8rem 0}}figure img{{max-width:100%;height:auto;background:#fff;border-radius:.4rem;display:block}}
details{{margin:.5rem 0;border:1px solid var(--line);border-radius:.4rem;padding:.3rem .7rem}}
summary{{cursor:pointer;padding:.4rem 0;font-weight:600}}
@media print{{details>*{{display:block}}.scroll{{overflow:visible}}}}
"""


def page(title: str, sections: Iterable[tuple[str, str, str]], lead: str) -> str:
    """The whole page.

    Args:
        sections: (id, heading, HTML) each. lead: HTML under the title.
    """
    sections = list(sections)
    links = "".join(f'<li><a href="#{escape(i)}">{escape(head)}</a></li>' for i, head, _ in sections)
    body = "\n".join(
        f'<section aria-labelledby="{escape(i)}"><h2 id="{escape(i)}">{escape(head)}</h2>\n{html}\n</section>'
        for i, head, html in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the results</a>\n<main id="main">\n<h1>{escape(title)}</h1>\n{lead}\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n{body}\n</main>\n</body>\n</html>\n'
    )


def paragraph(text: str, style: str = "") -> str:
    """Plain text as a paragraph."""
    return f"<p{f' class={chr(34)}{style}{chr(34)}' if style else ''}>{escape(text)}</p>"


def bullets(lines: Iterable[str]) -> str:
    """Plain sentences as a list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table that scrolls sideways by itself. The first column names its row.

    Args:
        right: columns of numbers.
    """

    def cell(tag: str, i: int, text: str, scope: str = "") -> str:
        style = ' class="n"' if i in right else _tone(text)
        return f"<{tag}{scope}{style}>{escape(text)}</{tag}>"

    heads = "".join(cell("th", i, text, ' scope="col"') for i, text in enumerate(head))
    lines = [
        "<tr>"
        + cell("th", 0, row[0], ' scope="row"')
        + "".join(cell("td", i, text) for i, text in enumerate(row[1:], start=1))
        + "</tr>"
        for row in rows
    ]
    if not lines:
        return paragraph(f"{caption}: none.", "faint")
    said = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said}"><table><caption>{said}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def charts(name: str, found: Sequence[Chart]) -> str:
    """Charts beside each other with one legend; on a narrow screen one below another."""
    legend: dict[str, int | None] = {}
    for chart in found:
        for series in chart.series:
            legend.setdefault(series.name, series.style)
    marks = "".join(f"<li>{swatch(style)}{escape(text)}</li>" for text, style in legend.items())
    drawn = "".join(svg(chart, f"{name}-{i}") for i, chart in enumerate(found))
    return f'<ul class="legend" aria-label="Legend">{marks}</ul><div class="charts">{drawn}</div>'


def picture(path: Path, told: str, caption: str) -> str:
    """A picture of a file, inside the page; made smaller where it is wider than a page shows.

    Args:
        told: what it shows, for who cannot see it.
    """
    data, width, height = _shrunk(path)
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img alt="{escape(told)}" width="{width}" height="{height}" loading="lazy" '
        f'src="data:image/png;base64,{encoded}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def folded(title: str, html: str, *, opened: bool = False) -> str:
    """What is shown when it is asked for."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{html}</details>"


def _tone(text: str) -> str:
    if text in ("better", "feasible") or text.startswith("better in all"):
        return ' class="good"'
    bad = ("worse", "missing", "failed", "infeasible", "not registered")
    return ' class="bad"' if text in bad or text.startswith(tuple(f"{word} in all" for word in bad)) else ""


def _shrunk(path: Path) -> tuple[bytes, int, int]:
    """(PNG bytes, width, height)."""
    from PIL import Image

    with Image.open(path) as image:
        if image.width <= _MOST_PIXELS:
            return path.read_bytes(), image.width, image.height
        size = _MOST_PIXELS, round(image.height * _MOST_PIXELS / image.width)
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue(), *size
