"""The report of a home: what it tells, and that it is made of the home alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from lab.report import check
from lab.report.build import ABOUT, NOTEBOOK, Built, problems
from lab.report.sections.floor import Asked
from tests.lab.report.conftest import RIVALS, built
from tests.lab.report.homes import Scene


def words(report: Built, path: str) -> str:
    """The text of a page, without its marks."""
    page = report.files[path].decode()
    body = page[page.index("<main") : page.index("</main>")]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_it_is_sound_and_the_same_twice(scene: Scene, report: Built) -> None:
    assert problems(report.files) == []
    assert dict(built(scene, Asked(rivals=RIVALS)).files) == dict(report.files)
    assert report.warnings == ()


def test_the_summary_says_floor_bytes_and_gap(report: Built) -> None:
    said = words(report, "index.html")
    assert re.search(r"Floor \d\.\d{8} second , authority scorer", said)
    cited = [c for c in check.look(report.files["index.html"].decode()).cites if c.kind == "num"]
    score = next(c for c in cited if c.column == "score")
    rows = check.rows_of(report.files)
    row = score.href.partition("#")[2]
    assert rows[row]["bundle_sha256"] == "second"
    assert any(c.column == "archive_bytes" and c.text == "900,000" for c in cited)
    gaps = [c for c in cited if c.form == "gain"]
    assert float(rows[gaps[0].href.partition("#")[2]]["value"]) == pytest.approx(float(rows[row]["score"]) - 1.5)
    assert "behind" in said
    assert "ahead" in said


def test_techniques_with_verdicts_and_pictures(report: Built) -> None:
    said = words(report, "techniques.html")
    for head in ("Promoted", "Rejected", "Cut before the scorer", "Trainings: hypotheses, no scores"):
        assert head in said
    assert "(this is the floor)" in said
    assert "the first 16 pairs only" in said
    pictures = re.findall(r'src="(media/[0-9a-f]{24}\.png)"', report.files["techniques.html"].decode())
    assert len(pictures) >= 3
    assert set(pictures) <= set(report.files)


def test_live_work_blockers_and_lanes(report: Built) -> None:
    live, blockers, lanes = (words(report, f"{n}.html") for n in ("live", "blockers", "lanes"))
    assert "sleep 60" in live
    assert "(queued)" in live
    assert "held for 3 reasons" in blockers
    assert "it diverged at step 12" in blockers
    assert "lab rerun" in blockers
    assert "2 attempts lost" in blockers
    assert "/etc/hosts2" in blockers
    assert "does not hold 1 GPU declared, 0 found" in lanes
    assert "holds answered in 12 ms" in lanes


def test_studies_commands_and_evidence(scene: Scene, report: Built) -> None:
    page = report.files["studies/dose.html"].decode()
    assert "Table" in page
    assert 'data-col="photons_per_pixel"' in page or 'data-col="most"' in page
    assert "dose/compare_d1000" in words(report, "studies/dose.html")
    assert "lab submit dose -s size=small" in words(report, "commands.html")
    lines = report.files["evidence/commands.tsv"].decode().splitlines()
    assert len(lines) == 1 + scene.jobs
    assert any("submit command -- python3 y.py --n 3" in line for line in lines)
    sealed = report.files["evidence/files.tsv"].decode().splitlines()
    run = scene.home.run_dir(1, 1)
    digest = json.loads(run.manifest.read_text())["files"]["artifacts/report.txt"][0]
    assert any(line.startswith(digest) and "attempts/1/1\tartifacts/report.txt\t1\t1\tlocal" in line for line in sealed)
    assert digest in report.files["evidence.html"].decode()


def test_the_notebook_tells_the_same(report: Built) -> None:
    text = report.files[NOTEBOOK].decode()
    for head in ("Executive summary", "Technique snapshots", "Live work", "Blockers", "Lanes", "Runnable commands",
                 "Evidence index", "Glossary"):  # fmt: skip
        assert f"## {head}" in text
    assert re.search(r"^\[score-\d+-1-0\]: rows/score-1\.html#score-\d+-1-0 \"attempts/\d+/1\"$", text, re.M)


def test_what_was_asked_is_kept(report: Built) -> None:
    asked = json.loads(report.files[ABOUT])["asked"]
    assert asked["rivals"][0] == {"name": "them", "score": 1.5}


def test_a_row_says_where_it_came_from(report: Built) -> None:
    page = report.files["rows/score-1.html"].decode()
    assert "<dt>Run directory</dt>" in page
    assert "attempts/1/1" in page
    assert "lab submit score" in page


def test_only_cited_rows_are_written(report: Built) -> None:
    rows = set(check.rows_of(report.files))
    led = {
        href.partition("#")[2]
        for path, data in report.files.items()
        if path.endswith(".html")
        for href in check.look(data.decode(), rows=path.startswith("rows/")).links
    }
    assert rows <= led


def test_a_damaged_picture_and_seal_are_told(scene: Scene, tmp_path: Path) -> None:
    scene = scene.elsewhere(tmp_path)
    picture = scene.home.run_dir(3, 1).artifacts / "training.png"
    picture.write_bytes(picture.read_bytes() + b"x")
    (scene.home.run_dir(1, 1).manifest).write_text("{}")
    report = built(scene)
    assert any("training.png of job 3 is not what was sealed" in w for w in report.warnings)
    assert "is not what was sealed" in words(report, "blockers.html")
    assert "its manifest is not the one that was committed" in words(report, "evidence.html")


def test_an_empty_home(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.commit()
    report = built(scene)
    assert "nothing was scored yet" in words(report, "index.html")
    assert "Nothing was submitted yet" in words(report, "index.html")


def test_nothing_of_this_machine_but_what_people_typed(scene: Scene, report: Built) -> None:
    here = str(scene.home.path)
    assert not [path for path, data in report.files.items() if here.encode() in data]


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    evil = "<script>alert(1)</script> & [x](http://y/7) `a` 3 | b"
    job = scene.submit("command", evil, params={"argv": ["sh", "-c", "echo `date` | wc > '7'"]}, argv=("lab", evil))
    scene.end(job, "command", state="failed", reason=f"it said 12\n{evil}")
    other = scene.submit("command", "a b", params={"argv": ["x"]})
    scene.end(other, "command", artifacts={"a b": b"1", "a-b": b"2", "ä\n7": b"3"})
    row = pa.table({"what <7>": ["|`5`|"], "n": [float("inf")], "job_": [True]})
    parity = scene.submit("parity", "p")
    scene.end(parity, "parity", tables={"file": row}, artifacts={"r.png": b"no picture"})
    scene.commit()
    report = built(scene)
    page = report.files["blockers.html"].decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http://y" not in " ".join(check.look(page).links)
    assert "r.png of job 3 is no picture" in " ".join(report.warnings)
    assert "inf" in words(report, f"studies/job-{parity}.html")
    assert r"artifacts/ä\n7" in report.files["evidence/files.tsv"].decode()


def test_a_long_table_is_folded(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    job = scene.submit("parity", "p")
    numbers = [float(i) for i in range(400)]
    scene.end(job, "parity", tables={"order": pa.table({"group": numbers, "word": ["w"] * 400})})
    scene.commit()
    report = built(scene)
    said = words(report, f"studies/job-{job}.html")
    assert "order : all rows, folded" in said
    assert "group 400 0 199.5 399" in said
    assert "the first rows, the command below has all" in said
    rows = check.rows_of(report.files)
    assert sum(1 for name in rows if name.startswith("order-")) == 150
    assert dict(built(scene).files) == dict(report.files)
