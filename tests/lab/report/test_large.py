"""A large home: sweeps are folded, lists are cut short, and only cited rows are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal
from lab.report import check
from lab.report.build import Built, build
from lab.report.sections.floor import Asked
from tests.lab.journals import many_jobs
from tests.lab.report.test_build import words


def report_of(home: Home) -> Built:
    with Journal.open(home) as journal:
        return build(home, journal.conn, Asked())


def test_many_jobs_make_few_pages(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    many_jobs(home, 3000, live=500)
    report = report_of(home)
    assert report.pages < 60
    assert sum(map(len, report.files.values())) < 8_000_000
    assert "2,250" in words(report, "index.html")
    for page in ("live.html", "blockers.html"):
        assert "the list is cut short" in words(report, page)
    assert len(report.files["evidence/commands.tsv"].decode().splitlines()) == 3001


@pytest.mark.long
def test_a_hundred_thousand_jobs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    many_jobs(home, 100_000)
    report = report_of(home)
    assert report.pages < 60
    assert len(check.rows_of(report.files)) < 2000
