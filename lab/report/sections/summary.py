"""The first page: what a reader must know, and where the rest is."""

from __future__ import annotations

from collections.abc import Sequence

from lab.report.doc import Block, Bullets, Cards, Code, Facts, Line, Link, Page, Para, Section, When
from lab.report.html import FIRST
from lab.report.reading import Reading
from lab.report.sections import evidence, glossary, jobs, lanes
from lab.report.sections.claims import ClaimSection
from lab.report.sections.floor import FloorSection
from lab.report.sections.studies import PATH as STUDIES
from lab.report.sections.studies import StudySection

_LEAD = (
    "Everything here is computed from the journal, the result tables and the sealed files of one home. A number with a "
    "dotted line leads to its row, and from there to the run directory and the command that made it."
)
# What the newest of these says, the report is about; heartbeats and the like change nothing.
_NEWEST = "SELECT max(max(ifnull(ended, 0), ifnull(started, 0))) FROM job_state"
_SUBMITTED = "SELECT e.at FROM job_state s JOIN event e ON e.seq = s.submit ORDER BY s.id DESC LIMIT 1"


def page(
    r: Reading,
    floor: FloorSection,
    studies: StudySection,
    claims: ClaimSection,
    index: evidence.Index,
) -> Page:
    """The executive summary."""
    files, size = evidence.totals(r, index)
    blocks: list[Block] = [
        Para([_LEAD]),
        Section("floor", ["Floor and gap"], [Cards(floor.cards()), *floor.rivals()]),
        Section(
            "state",
            ["State"],
            [
                Facts(
                    [
                        (["newest change of a job"], [When(_newest(r))]),
                        (["claims"], claims.summary()),
                        (["sealed evidence"], [files, " files, ", size]),
                        (["lanes"], lanes.summary(r)),
                    ]
                ),
                *_counts(r),
            ],
        ),
        Section("map", ["Notebook map"], [Bullets(_map(studies))]),
    ]
    return Page(FIRST, ["Lab notebook"], blocks, "Summary")


def _counts(r: Reading) -> Sequence[Block]:
    found = jobs.counts(r)
    return [jobs.counts_table(found)] if found else [Para(["Nothing was submitted yet."], "note")]


def _newest(r: Reading) -> float | None:
    changed = r.conn.execute(_NEWEST).fetchone()[0] or 0.0
    row = r.conn.execute(_SUBMITTED).fetchone()
    return max(float(changed), float(row[0]) if row else 0.0) or None


def _map(studies: StudySection) -> list[Line]:
    return [
        [Link("Technique snapshots", "techniques.html"), ": promoted and rejected submissions, with pictures"],
        [Link("Claims", "claims.html"), ": what is stated, and the label that the evidence gives it now"],
        [Link("Studies", STUDIES), ": studies, sweeps and parity runs, each with its tables"],
        [Link("Live work", jobs.LIVE), ": what runs and what waits"],
        [Link("Blockers", jobs.BLOCKERS), ": what failed, is held, or cannot be read"],
        [Link("Lanes", lanes.PATH), ": machines and the ladder that each climbed"],
        [Link("Runnable commands", jobs.COMMANDS), ": the line that makes each job"],
        [Link("Evidence index", evidence.PATH), ": every sealed file with its digest"],
        [Link("Glossary", glossary.PATH), ": the words"],
        ["the same as one Markdown file: ", Code("report.md")],
    ]
