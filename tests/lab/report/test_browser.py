"""The site in a real browser, over file://: no console error on any page, the colours switch, nothing is too wide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.report.build import Built
from lab.report.folder import write

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_BROWSER = os.environ.get("LAB_CHROMIUM") or next((found for n in _NAMES if (found := shutil.which(n))), "")
_CONSOLE = re.compile(r":CONSOLE[(:]|Uncaught|net::ERR|Failed to load", re.IGNORECASE)

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not _BROWSER, reason=f"no Chromium: none of {', '.join(_NAMES)} is there, nor $LAB_CHROMIUM"),
]

# A page that looks at the page beside it would be another origin over file://: so it looks at itself.
_PROBE = """<script>
addEventListener("load", function () {
  var r = document.documentElement, b = document.querySelector("button.theme"), out = [];
  out.push("wide " + (r.scrollWidth > r.clientWidth));
  out.push("hidden " + b.hidden);
  var before = getComputedStyle(document.body).backgroundColor; b.click();
  out.push("switched " + (getComputedStyle(document.body).backgroundColor !== before));
  document.querySelectorAll("img").forEach(function (i) { i.loading = "eager"; });
  var broken = Array.prototype.filter.call(document.images, function (i) { return i.complete && !i.naturalWidth; });
  out.push("broken " + broken.length);
  r.setAttribute("data-probe", out.join(", "));
});
</script>"""


@pytest.fixture(scope="module")
def site(report: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write(folder, report.files)
    return folder


def browse(page: Path, width: int, profile: Path) -> tuple[str, str]:
    """(the page as it is once its scripts have run, what the browser said)."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--user-data-dir={profile}", f"--window-size={width},900", "--virtual-time-budget=3000"]
    options += ["--disable-background-networking", "--no-first-run"]
    done = subprocess.run([_BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def test_every_page_opens_without_a_console_error(site: Path, tmp_path: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        dom, said = browse(page, 1280, tmp_path / "profile")
        assert "</html>" in dom, page
        assert [line for line in said.splitlines() if _CONSOLE.search(line)] == [], page


@pytest.mark.parametrize("width", [390, 1920])
def test_nothing_is_too_wide_and_the_colours_switch(site: Path, tmp_path: Path, width: int) -> None:
    for name in ("index.html", "techniques.html", "evidence.html", "studies/dose.html", "rows/score-1.html"):
        page = site / name
        probe = page.with_name(f"probe-{page.name}")
        probe.write_text(page.read_text().replace("</head>", f"{_PROBE}</head>"))
        dom, said = browse(probe, width, tmp_path / "profile")
        probe.unlink()
        found = re.search(r'data-probe="([^"]*)"', dom)
        assert found is not None, said[-1000:]
        assert found[1] == "wide false, hidden false, switched true, broken 0", (name, found[1])


def test_a_console_error_would_be_seen(site: Path, tmp_path: Path) -> None:
    page = site / "broken.html"
    page.write_text((site / "index.html").read_text().replace("</body>", "<script>nobody()</script></body>"))
    _, said = browse(page, 1280, tmp_path / "profile")
    page.unlink()
    assert any(_CONSOLE.search(line) for line in said.splitlines())
