"""`lab report` as a user has it: writing, writing again, `--check`, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import BadInput, Exit, NotFound
from core.home import Home
from core.journal import Event, Journal, Role
from core.states import EventKind as K
from lab import main
from lab.report.folder import differences, refuse_foreign, write
from tests.lab.report.homes import Scene
from tests.lab.test_floor import made_row

Run = tuple[int, str, str]


@pytest.fixture
def own(scene: Scene, tmp_path: Path) -> Scene:
    return scene.elsewhere(tmp_path)


def run(capsys: pytest.CaptureFixture[str], home: Home, *args: str) -> Run:
    code = main.main(["report", "--home", str(home.path), *args])
    told = capsys.readouterr()
    return int(code), told.out, told.err


def test_from_writing_to_a_changed_row(own: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, own.home, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["schema"] == "lab.report/1"
    folder = own.home.path / "report"
    assert (folder / "index.html").is_file()
    assert told["written"] == told["files"]
    code, out, _ = run(capsys, own.home, "--check")
    assert code == 0
    assert "every byte is what would be written now" in out
    assert json.loads(run(capsys, own.home, "--json")[1])["written"] == 0

    # One row of the journal changes: an event of a lane. Then one row of a table: a scoring is added.
    with Journal.open(own.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.extend([Event(K.LANE, lane="far", data={"state": "quarantined", "reason": "3 attempts lost"})])
    code, out, _ = run(capsys, own.home, "--check")
    assert code == Exit.JOB_FAILED
    assert "is not what would be written now" in out
    assert "blockers.html: line" in out
    assert "3 attempts lost" in out
    run(capsys, own.home)
    own.score("second", 0.0041)
    own.commit()
    code, out, _ = run(capsys, own.home, "--check", "--json")
    found = json.loads(out)
    assert code == Exit.JOB_FAILED
    assert not found["equal"]
    changed = {d["path"]: d["said"] for d in found["differences"]}
    assert {"index.html", "techniques.html", "evidence.html", "report.md", "rows/score-1.html"} <= set(changed)
    assert made_row("second", 0.0041)["archive_bytes"] == 900_000
    run(capsys, own.home)
    assert run(capsys, own.home, "--check")[0] == 0


def test_a_byte_that_changed_and_a_file_that_went(own: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, own.home)
    folder = own.home.path / "report"
    page = folder / "index.html"
    page.write_text(page.read_text().replace("Notebook map", "Notebook Map"))
    (folder / "lanes.html").unlink()
    (folder / "extra.html").write_text("x")
    code, out, _ = run(capsys, own.home, "--check")
    assert code == Exit.JOB_FAILED
    assert "index.html: line" in out
    assert "lanes.html: is not in the folder, and would be now" in out
    assert "extra.html: is in the folder, and would not be now" in out
    run(capsys, own.home)
    assert not (folder / "extra.html").exists()
    assert run(capsys, own.home, "--check", "-q") == (0, "", "")


def test_a_check_asks_what_was_asked(own: Scene, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rivals = tmp_path / "rivals.yaml"
    rivals.write_text("- {name: them, score: 1.5}\n")
    out = tmp_path / "out"
    assert run(capsys, own.home, "-o", str(out), "--rivals", str(rivals), "--view", "faithful")[0] == 0
    rivals.unlink()
    assert run(capsys, own.home, "-o", str(out), "--check")[0] == 0
    assert "Gap to the best rival" in (out / "index.html").read_text()


def test_refusals(own: Scene, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, own.home, "--check")
    assert code == Exit.NOT_FOUND
    assert "there is no report in" in err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    code, _, err = run(capsys, own.home, "-o", str(mine))
    assert code == Exit.BAD_INPUT
    assert "holds something else than a report" in err
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    code, _, err = run(capsys, own.home, "--check", "--view", "faithful")
    assert code == Exit.BAD_INPUT
    code, _, err = run(capsys, own.home, "--view", "nobody")
    assert code == Exit.BAD_INPUT
    assert "there is no view 'nobody'" in err
    code, _, err = run(capsys, own.home, "--contract", "ffff")
    assert code == Exit.BAD_INPUT
    with pytest.raises(BadInput, match="is a file"):
        refuse_foreign(mine / "thesis.txt")


def test_no_home(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, _ = run(capsys, Home(tmp_path / "none"))
    assert code == NotFound("x").exit_code


def test_writing_removes_what_is_no_more(tmp_path: Path) -> None:
    about = {"report.json": b'{"schema": "lab.report-site/1"}'}
    write(tmp_path, {**about, "rows/a-1.html": b"a", "index.html": b"i"})
    assert write(tmp_path, {**about, "index.html": b"j"}) == 1
    assert not (tmp_path / "rows").exists()
    assert [d.path for d in differences(tmp_path, {**about, "index.html": b"i\n"})] == ["index.html"]
    picture = {**about, "index.html": b"j", "media/x.png": b"\xff\xfe"}
    write(tmp_path, picture)
    (found,) = differences(tmp_path, {**picture, "media/x.png": b"\xff"})
    assert found.said == "differs (2 bytes in the folder, 1 now)"
