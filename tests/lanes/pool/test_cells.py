"""Cells in a warm worker: what they may do, how they end, what is kept of them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import BadInput
from core.rundir import RunDir, verify_manifest
from core.spec import CodeRef
from core.states import AttemptState, Cause
from lanes.pool import pool
from lanes.pool.spool import read_spool
from lanes.rows import Tables
from tests.lanes.pool.toys import SOURCE, Bench, declared, ends, only, rows


def test_each_cell_has_its_row(bench: Bench, toy: CodeRef) -> None:
    done = bench.run(bench.spec(toy), *["row"] * 500)
    assert len(done.ok) == 500
    assert not done.ends
    assert not done.worker_died
    found = rows(done)
    assert [(r["job"], r["attempt"], r["x"], r["word"], r["y"]) for r in found] == [
        (job, 1, i, f"w{i}", i / 3) for i, job in enumerate(done.ok)
    ]
    schema = pa.ipc.open_stream(done.tables["t"].data).schema
    assert schema.metadata == {b"lab.headline": b"x,word"}
    assert not schema.field("x").nullable


def test_cells_fail_one_by_one(bench: Bench, toy: CodeRef) -> None:
    done = bench.run(
        bench.spec(toy),
        *["row", "error", "failed", "cannot_fail", "leave", {"do": "quit", "x": 3}, {"do": "quit", "x": 0}, "row"],
        {"do": "row", "nonsense": 1},
    )
    assert [j % 1000 for j in done.ok] == [0, 6, 7]
    told = ends(done)
    assert told[:5] == [
        (1, "failed", "error", "ValueError: odd 1"),
        (2, "failed", "error", "it is not good; look again"),
        (3, "failed", "check-cannot-fail", "the control passed"),
        (4, "failed", "preempted", "it left when asked to"),
        (5, "failed", "error", "exit 3"),
    ]
    assert told[5][:3] == (8, "failed", "error")
    assert "nonsense" in told[5][3] or "ValidationError" in told[5][3]
    assert [r["x"] for r in rows(done)] == [0, 7], "rows of a cell that failed do not count"
    assert all(e.seconds is not None for e in done.ends)


def test_bad_rows_are_blamed_on_their_cells(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    done = bench.run(
        bench.spec(toy), "row", "text_for_number", "row", "no_value", "other_column", "other_table", "artifact", "row"
    )
    assert [j % 1000 for j in done.ok] == [0, 2, 7]
    assert [r["x"] for r in rows(done)] == [0, 2, 7]
    assert rows(done, "lists") == [], "no table of a cell counts when one of them is wrong"
    told = {place: message for place, _, cause, message in ends(done) if cause == "error"}
    schemas = {"t": pa.schema([pa.field("x", pa.int32(), nullable=False), pa.field("word", pa.string())])}
    for place, bad in ((1, {"x": "many"}), (3, {"word": "x is missing"}), (4, {"x": 1, "z": 2})):
        with pytest.raises(BadInput) as plain:
            Tables(tmp_path, schemas).append("t", [bad])
        assert told[place] == str(plain.value), "the same words as in an attempt of its own"
    assert told[5] == "this kind declares no table 'u'; it declares: lists, t"
    assert "a cell of a pooled kind has no artifacts ('picture.png')" in told[6]
    assert "no checkpoints" in only(bench.run(bench.spec(toy), "checkpoint")).message


def test_rows_are_taken_as_they_were(bench: Bench, toy: CodeRef) -> None:
    """A kind that fills one dict and one array again and again."""
    done = bench.run(bench.spec(toy), "reuse", "arrow")
    assert [(r["x"], r["word"]) for r in rows(done)] == [(0, "0"), (1, "1"), (2, "2"), (1, None), (2, "a"), (3, None)]
    assert [r["values"] for r in rows(done, "lists")] == [[0, 0], [1, 1], [2, 2]]


def test_what_was_planned_must_be_there(bench: Bench, toy: CodeRef) -> None:
    def planned(n: int, do: str = "planned") -> dict[str, object]:
        return {"do": do, "x": n}

    done = bench.run(bench.spec(toy), planned(1), planned(2), planned(2, "steps"), planned(3, "steps"))
    assert ends(done) == [
        (0, "failed", "incomplete", "exit 0, but the table t has 1 rows and 2 were planned"),
        (2, "failed", "incomplete", "exit 0, but the step rows end at 2 and step 3 was planned"),
    ]
    # What the user expects counts as well.
    spec = bench.spec(toy, expect={"rows": {"t": 1}})
    done = bench.run(spec, "nothing", "row")
    assert ends(done) == [(0, "failed", "incomplete", "exit 0, but the table t has 0 rows and 1 were planned")]
    assert bench.run(bench.spec(toy), "nothing").ends == []


def test_a_batch_has_one_sealed_folder(bench: Bench, toy: CodeRef) -> None:
    spec = bench.spec(toy)
    cells = bench.cells("row", "print", "error", "row", {"do": "print", "x": 9}, {"do": "steps", "x": 3})
    batch = bench.start(spec, cells)
    done = bench.wait(batch)
    folder = bench.path(batch)
    frozen = json.loads((folder / "spec.json").read_text())
    assert frozen["spec"] == spec
    assert frozen["cells"] == [[c.job, c.attempt, c.key, json.loads(c.params)] for c in cells]
    assert json.loads((folder / "env.json").read_text())["executable"] == sys.executable

    log = (folder / "log.txt").read_bytes()
    slices = {s["job"] % 1000: log[s["from"] : s["to"]].decode() for s in map(json.loads, _lines(folder / "log.idx"))}
    assert slices[1] == "hello 1\nfrom below\nlogged\nto stderr\n"
    assert slices[4] == "hello 9\nfrom below\nlogged\nto stderr\n"
    assert slices[2].startswith(f"--- job {cells[2].job}, attempt 1: ValueError: odd 2\nTraceback")
    assert slices[2].endswith("ValueError: odd 2\n")
    assert set(slices) == {1, 2, 4}, "silent cells have no slice"

    steps = [json.loads(line) for line in _lines(folder / "metrics.jsonl")]
    assert [(s["job"], s["step"], s["loss"]) for s in steps] == [(cells[5].job, i, 1 / (i + 1)) for i in range(4)]

    assert done.manifest == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert verify_manifest(RunDir(folder)) == []
    with open(folder / "cells.spool", "ab") as f:
        f.write(b"x")
    assert verify_manifest(RunDir(folder)) != []


def test_a_batch_that_takes_long_is_cut_short(bench: Bench, toy: CodeRef) -> None:
    done = bench.run(bench.spec(toy), *["slow"] * 40)
    assert done.ok
    assert done.back
    assert not done.ends
    assert max(done.ok) < min(done.back), "in order"
    assert [r["job"] for r in rows(done)] == done.ok


def test_environment_and_code(bench: Bench, toy: CodeRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    spec = bench.spec(toy, needs={"cores": 3}, env={"SETTING": "on"})
    done = bench.run(spec, {"do": "tell", "x": 5})
    told = json.loads(rows(done)[0]["word"])
    env = told["env"]
    assert told["threads"] == env["OPENBLAS_NUM_THREADS"] == "3", "set before anything was imported"
    assert (env["OMP_WAIT_POLICY"], env["GOMP_SPINCOUNT"], env["KMP_BLOCKTIME"]) == ("PASSIVE", "0", "0")
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["SETTING"] == "on"
    assert "A_SECRET_OF_THE_CONTROLLER" not in env
    assert (told["cores"], told["gpus"], told["attempt"], told["raw"]["x"]) == (3, [], 1, 5)
    store = str(bench.home.code / toy.store)
    for place in (told["file"], told["core"], told["loop"]):
        assert place.startswith(store + "/"), place
    assert told["path"][0] == store
    assert not {"", os.getcwd(), str(bench.folder)} & set(told["path"]), "neither our folder nor the user's"
    # The same worker goes on with the next batch, one of another crew does not.
    again = json.loads(rows(bench.run(spec, "tell"))[0]["word"])
    other = json.loads(rows(bench.run(bench.spec(toy), "tell"))[0]["word"])
    assert again["pid"] == told["pid"] != other["pid"]
    assert other["threads"] == "1"


def test_an_edit_after_the_submit_changes_nothing(bench: Bench) -> None:
    name = "edited"
    first = bench.snapshot(SOURCE, name)
    (bench.folder / f"{name}.py").write_text(SOURCE.replace('WORD = "one"', 'WORD = "two"'))
    done = bench.run(bench.spec(first, f"{name}:Toy"), "tell")
    assert json.loads(rows(done)[0]["word"])["word"] == "one"
    second = bench.snapshot(SOURCE.replace('WORD = "one"', 'WORD = "two"'), name)
    done = bench.run(bench.spec(second, f"{name}:Toy"), "tell")
    assert json.loads(rows(done)[0]["word"])["word"] == "two"


def test_a_kind_that_cannot_be_loaded(bench: Bench, toy: CodeRef) -> None:
    good = SOURCE
    ref = bench.snapshot(good, "breaks")
    stored = bench.home.code / ref.store / "breaks.py"
    stored.chmod(0o644)
    stored.write_text("raise RuntimeError('no such luck')\n")
    done = bench.run(bench.spec(ref, "breaks:Toy"), "row", "row")
    assert {(e.state, e.cause) for e in done.ends} == {(AttemptState.FAILED, Cause.SETUP)}
    assert len(done.ends) == 2
    assert "breaks:Toy" in done.ends[0].message
    assert "no such luck" in done.ends[0].message
    # A module from anywhere else than the snapshot is refused, whatever it is.
    done = bench.run(bench.spec(toy, "json.decoder:JSONDecoder"), "row")
    assert only(done).cause is Cause.SETUP
    assert "not from its snapshot" in only(done).message


def test_a_kind_that_dies_while_it_is_loaded(bench: Bench) -> None:
    ref = bench.snapshot(SOURCE, "dies")
    stored = bench.home.code / ref.store / "dies.py"
    stored.chmod(0o644)
    stored.write_text("import os; os._exit(9)\n")
    spec = bench.spec(ref, "dies:Toy")
    for _ in range(2):
        done = bench.run(spec, "row")
        assert done.back
        assert done.worker_died
    assert only(bench.run(spec, "row")).cause is Cause.SETUP


def test_inputs_are_what_they_were(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("first")
    spec = bench.spec(toy, inputs=[declared(data)])
    assert [r["word"] for r in rows(bench.run(spec, "input", "input"))] == ["first", "first"]
    data.write_text("other")
    done = bench.run(spec, "input", "input")
    assert [(s, c) for _, s, c, _ in ends(done)] == [("failed", "stale-input")] * 2
    assert "is not what it was when the job was submitted" in done.ends[0].message
    data.write_text("first")
    assert len(bench.run(spec, "input").ok) == 1
    # Changed while a cell runs: what it computed counts for nothing.
    done = bench.run(spec, "spoil_input")
    assert only(done).cause is Cause.STALE_INPUT
    assert not done.tables
    assert "no input is called" in only(bench.run(bench.spec(toy), "input")).message


def test_undeclared_reads_are_shown(bench: Bench, toy: CodeRef, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("seen")
    read = {"do": "read", "path": str(secret)}
    done = bench.run(bench.spec(toy), "row", read, "row")
    assert [j % 1000 for j in done.ok] == [0], "what was read before is in the process for those that follow"
    assert [(e.state, e.cause, e.undeclared) for e in done.ends] == [
        (AttemptState.SUCCEEDED, Cause.OK, (str(secret),))
    ] * 2
    assert len(rows(done)) == 3
    # The next batch has a new worker, and declared is declared.
    assert len(bench.run(bench.spec(toy), "row").ok) == 1
    spec = bench.spec(toy, inputs=[declared(secret)])
    assert len(bench.run(spec, read, "row").ok) == 2
    assert len(bench.run(bench.spec(toy, allow_undeclared=[str(tmp_path)]), read).ok) == 1


def test_cells_leave_nothing_for_one_another(bench: Bench, toy: CodeRef) -> None:
    done = bench.run(bench.spec(toy), "scratch", "scratch")
    assert [r["word"] for r in rows(done)] == ['[[], "left"]'] * 2


def test_a_cell_finds_the_folder_empty_whoever_wrote(bench: Bench, toy: CodeRef) -> None:
    """Another folder, a program's file, and one that only C code saw being made."""
    unseen = ["chdir", "scratch", "child", "scratch", "in_c", "scratch", "in_c", "scratch"]
    done = bench.run(bench.spec(toy), *unseen)
    assert not done.ends
    assert [r["word"] for r in rows(done)] == ['[[], "left"]'] * 4
    # By itself, in a process that has tidied up nothing lately.
    for ruin in ("in_c", "chdir", "child"):
        bench.run(bench.spec(toy), ruin)
        assert [r["word"] for r in rows(bench.run(bench.spec(toy), "scratch"))] == ['[[], "left"]']


def test_the_child_of_a_cell_does_not_run_the_batch(bench: Bench, toy: CodeRef) -> None:
    cells = bench.cells("row", "fork", "row", {"do": "fork", "x": 3, "path": "raise"}, "row")
    batch = bench.start(bench.spec(toy), cells)
    done = bench.wait(batch)
    assert not done.worker_died
    # On a busy machine the last may be given back, to be run elsewhere; both that fork have ended well.
    ran = [c.job for c in cells if c.job not in done.back]
    assert done.back in ([], [cells[-1].job])
    assert [r["x"] for r in rows(done)] == [0, 1, 2, 3, 4][: len(ran)]
    frames, _ = read_spool(bench.path(batch) / "cells.spool")
    assert [job for f in frames for job in f.ok] == ran, "each is written once"
    log = (bench.path(batch) / "log.txt").read_text()
    assert log.splitlines() == ["fork 1", "fork 3"], "nothing of the children"
    assert verify_manifest(RunDir(bench.path(batch))) == []
    assert len(bench.run(bench.spec(toy), "row").ok) == 1


def test_a_kind_that_cannot_be_loaded_is_tried_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = bench.snapshot(SOURCE, "missing")
    stored = bench.home.code / ref.store / "missing.py"
    stored.chmod(0o644)
    stored.write_text("raise RuntimeError('no such luck')\n")
    hired: list[str] = []
    hire = bench.pool._hire
    monkeypatch.setattr(bench.pool, "_hire", lambda crew, batch: hired.append(batch.nonce) or hire(crew, batch))
    monkeypatch.setattr(pool, "_REFUSED_S", 600.0)
    spec = bench.spec(ref, "missing:Toy")
    first = bench.run(spec, "row", "row")
    for _ in range(3):
        again = bench.run(spec, "row", "row")
        assert [(e.cause, e.message) for e in again.ends] == [(Cause.SETUP, first.ends[0].message)] * 2
    assert len(hired) == 1
    # It is not for ever: what was missing may be there again.
    stored.write_text(SOURCE)
    monkeypatch.setattr(pool, "_REFUSED_S", 0.0)
    assert len(bench.run(spec, "row").ok) == 1
    assert len(hired) == 2


def test_a_cell_that_ruins_the_process(bench: Bench, toy: CodeRef) -> None:
    done = bench.run(bench.spec(toy), "row", "close", "row")
    assert [j % 1000 for j in done.ok] == [0]
    assert ends(done)[0][:3] == (1, "failed", "error")
    assert "the worker could not go on" in done.ends[0].message
    assert [j % 1000 for j in done.back] == [2]
    assert len(bench.run(bench.spec(toy), "row").ok) == 1


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
