"""What a user can get wrong: one clear sentence, a documented exit code, and nothing was started or written."""

from __future__ import annotations

import json

import pytest

from core.errors import Exit
from tests.lab.shell import Shell, shell  # noqa: F401

CIRCLE = """\
jobs:
  - {name: a, kind: toy, set: {alpha: 1.0}, after: [ok:b]}
  - {name: b, kind: toy, set: {alpha: 2.0}, after: [ok:a]}
"""

# What is typed -> exit code, words that the sentence must have.
CASES = {
    "unknown kind": ("submit toi", Exit.BAD_INPUT, ["'toi'", "did you mean 'toy'"]),
    "broken kind": ("submit broken", Exit.BAD_INPUT, ["broken", "cannot be loaded"]),
    "no kind": ("submit", Exit.BAD_INPUT, ["no kind was given"]),
    "unknown parameter": ("submit toy --set alhpa=1", Exit.BAD_INPUT, ["alhpa", "did you mean `alpha`"]),
    "wrong type": ("submit toy --set alpha=many", Exit.BAD_INPUT, ["`alpha`", "many", "number"]),
    "value out of range": ("submit toy --set alpha=-1", Exit.BAD_INPUT, ["`alpha`", "-1", "greater than 0"]),
    "choice": ("submit toy --set mode=medium", Exit.BAD_INPUT, ["`mode`", "medium", "fast", "slow"]),
    "parameter twice": ("submit toy --set alpha=1 --set alpha=2", Exit.BAD_INPUT, ["alpha", "twice"]),
    "no value": ("submit toy --set alpha", Exit.BAD_INPUT, ["--set", "NAME=VALUE"]),
    "missing input": ("submit toy --input nothing.csv", Exit.BAD_INPUT, ["nothing.csv", "does not exist"]),
    "impossible cores": ("submit toy --cores 4000", Exit.NO_RESOURCE, ["no lane", "4000"]),
    "impossible resource": ("submit toy --resource dish", Exit.NO_RESOURCE, ["dish", "resources: [scorer, dish]"]),
    "odd memory": ("submit toy --memory lots", Exit.BAD_INPUT, ["--memory", "lots", "2G"]),
    "odd cores": ("submit toy --cores two", Exit.BAD_INPUT, ["--cores", "two", "whole number"]),
    "odd time": ("submit toy --time-limit soon", Exit.BAD_INPUT, ["--time-limit", "soon", "90s"]),
    "time without unit": ("submit toy --time-limit 10", Exit.BAD_INPUT, ["--time-limit 10", "10m"]),
    "odd role": ("submit toy --role boss", Exit.BAD_INPUT, ["role", "boss"]),
    "odd cause": ("submit toy --retries bad-luck=3", Exit.BAD_INPUT, ["bad-luck", "time-limit"]),
    "unset variable": ("submit toy --env SURELY_NOT_SET", Exit.BAD_INPUT, ["SURELY_NOT_SET", "not set"]),
    "unknown lane": ("submit toy --lane moon", Exit.NOT_FOUND, ["moon", "local"]),
    "output outside": ("submit toy --output ../x", Exit.BAD_INPUT, ["../x", "outside"]),
    "input outside": ("submit toy --input train.py:../../x", Exit.BAD_INPUT, ["outside the run directory"]),
    "artifact outside": ("submit toy --expect-artifact /etc/passwd", Exit.BAD_INPUT, ["/etc/passwd", "outside"]),
    "unknown dependency": ("submit toy --after ok:99", Exit.NOT_FOUND, ["99"]),
    "odd dependency": ("submit toy --after never:1", Exit.BAD_INPUT, ["never:1", "any:ID"]),
    "words for a kind": ("submit toy -- train.py", Exit.BAD_INPUT, ["takes no words", "--set"]),
    "circle": ("submit --file circle.yaml", Exit.BAD_INPUT, ["circle.yaml:2", "wait for each other"]),
    "broken yaml": ("submit --file broken.yaml", Exit.BAD_INPUT, ["broken.yaml:3", "not YAML"]),
    "unknown setting": ("submit --file unknown.yaml", Exit.BAD_INPUT, ["unknown.yaml:2", "corse"]),
    "missing file": ("submit --file none.yaml", Exit.BAD_INPUT, ["none.yaml", "does not exist"]),
    "file and kind": ("submit toy --file circle.yaml", Exit.BAD_INPUT, ["--file"]),
    "unknown option": ("submit toy --corse 2", Exit.BAD_INPUT, ["--corse", "lab submit --help"]),
    "unknown command": ("sumbit toy", Exit.BAD_INPUT, ["sumbit", "did you mean `lab submit`"]),
    "no command": ("lane", Exit.BAD_INPUT, ["missing command"]),
    "no home": ("status", Exit.NOT_FOUND, ["no lab home"]),
    "unknown axis": ("submit toy --grid alhpa=1,2", Exit.BAD_INPUT, ["axis `alhpa`", "did you mean `alpha`"]),
    "axis of a wrong type": ("submit toy --grid alpha=1,many", Exit.BAD_INPUT, ["axis `alpha`", "many", "number"]),
    "axis out of range": ("submit toy --grid alpha=0:1:0.5", Exit.BAD_INPUT, ["axis `alpha`", "0", "greater than 0"]),
    "axis and parameter": ("submit toy --set alpha=1 --grid alpha=1,2", Exit.BAD_INPUT, ["`alpha`", "both"]),
    "axis without values": ("submit toy --grid alpha=", Exit.BAD_INPUT, ["--grid alpha", "no value"]),
    "value twice": ("submit toy --grid alpha=1,2,1", Exit.BAD_INPUT, ["axis `alpha` has 1 twice"]),
    "range without end": ("submit toy --grid alpha=1:9:-1", Exit.BAD_INPUT, ["--grid alpha", "lead away from 9"]),
    "odd range of an axis": ("submit toy --grid alpha=0:1", Exit.BAD_INPUT, ["--grid alpha", "first:last:step"]),
    "uneven zip": (
        "submit toy --grid alpha=1,2 --grid label=a,b,c --zip alpha,label",
        Exit.BAD_INPUT,
        ["equally many", "`alpha` has 2", "`label` has 3"],
    ),
    "unknown zip": ("submit toy --grid alpha=1,2 --zip alpha,lable", Exit.BAD_INPUT, ["zip names `lable`"]),
    "unknown exclude": ("submit toy --grid alpha=1,2 --exclude label=a", Exit.BAD_INPUT, ["exclude names `label`"]),
    "all excluded": ("submit toy --grid alpha=1 --exclude alpha=1", Exit.BAD_INPUT, ["every cell", "excluded"]),
    "too many cells": (
        "submit toy --grid alpha=1..2000 --grid label=1..2000",
        Exit.BAD_INPUT,
        ["4,000,000 cells", "1,000,000"],
    ),
    "limit without axis": ("submit toy --at-once 3", Exit.BAD_INPUT, ["--at-once", "--grid"]),
    "zip without axis": ("submit toy --zip a,b", Exit.BAD_INPUT, ["--zip", "--grid"]),
    "odd limit": ("submit toy --grid alpha=1,2 --at-once 0", Exit.BAD_INPUT, ["--at-once", "0"]),
    "placeholder nowhere": ("submit command --grid lr=1,2 -- python train.py", Exit.BAD_INPUT, ["`lr`", "{lr}"]),
    "file without grid": ("submit --sweep circle.yaml", Exit.BAD_INPUT, ["circle.yaml:1", "one sweep", "--file"]),
    "sweep file of another kind": ("submit --sweep sweep.yaml", Exit.BAD_INPUT, ["sweep.yaml:1", "no `grid`"]),
    "sweep and kind": ("submit toy --sweep sweep.yaml", Exit.BAD_INPUT, ["--sweep", "own options"]),
    "axis of a file": ("submit --file axis.yaml", Exit.BAD_INPUT, ["axis.yaml:4", "axis `alpha` has no value"]),
    "axis of a file, of a wrong type": ("submit --file wrong.yaml", Exit.BAD_INPUT, ["wrong.yaml:2", "axis `alpha`"]),
    "failed of what": ("rerun --failed", Exit.NOT_FOUND, ["no lab home"]),
    "odd cell": ("status 17.x", Exit.BAD_INPUT, ["'17.x'", "17.3"]),
    "odd id": ("status 7th", Exit.BAD_INPUT, ["'7th'", "17"]),
    "odd range": ("cancel 9-3", Exit.BAD_INPUT, ["9-3", "3-9"]),
    "odd state": ("status --state done", Exit.BAD_INPUT, ["'done'", "succeeded"]),
    "run unknown kind": ("run toi", Exit.BAD_INPUT, ["'toi'"]),
    "run unknown parameter": ("run toy --set alhpa=1", Exit.BAD_INPUT, ["alhpa"]),
    "drain without reason": ("lane drain local", Exit.BAD_INPUT, ["--reason"]),
    "drain unknown lane": ("lane drain moon --reason x", Exit.NOT_FOUND, ["moon"]),
    "odd format": ("results --format excel", Exit.BAD_INPUT, ["excel", "parquet"]),
}


@pytest.fixture
def files(shell: Shell) -> Shell:  # noqa: F811
    (shell.cwd / "train.py").write_text("print(1)\n")
    (shell.cwd / "circle.yaml").write_text(CIRCLE)
    (shell.cwd / "broken.yaml").write_text("jobs:\n  - kind: [toy\n")
    (shell.cwd / "unknown.yaml").write_text("jobs:\n  - {kind: toy, corse: 2}\n")
    (shell.cwd / "sweep.yaml").write_text("kind: toy\n")
    (shell.cwd / "axis.yaml").write_text("- kind: toy\n- kind: toy\n  grid:\n    alpha: []\n")
    (shell.cwd / "wrong.yaml").write_text("- kind: toy\n- {kind: toy, grid: {alpha: [1, x]}}\n")
    # A mistake here would start a controller: it must be seen, not prevented.
    del shell.env["LAB_NO_START"]
    return shell


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_done(files: Shell, name: str) -> None:
    typed, code, words = CASES[name]
    done = files(*typed.split())
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.startswith("lab: ")
    assert done.err.count("\n") == 1, done.err
    for word in words:
        assert word in done.err, done.err
    assert files.jobs() == 0
    assert not files.home.guardian_lock.exists()
    assert not files.home.controller_log.exists()


@pytest.mark.parametrize("name", ["unknown kind", "unknown lane", "unknown option", "odd cores", "circle", "no home"])
def test_the_same_in_json(files: Shell, name: str) -> None:
    typed, code, words = CASES[name]
    done = files(*typed.split(), "--json")
    assert done.code == code
    assert done.err == ""
    assert done.json["schema"] == "lab.error/1"
    assert done.json["exit_code"] == code
    assert set(done.json) == {"schema", "error", "message", "hint", "exit_code"}
    for word in words:
        assert word in f"{done.json['message']}; {done.json['hint']}"


def test_unknown_id_in_a_home_that_has_jobs(files: Shell) -> None:
    files.ok("submit", "toy", "--hold", "-q", LAB_NO_START="1")
    events = files.events()
    for command in ("status", "explain", "logs", "cancel", "hold", "release", "rerun", "results", "fetch", "verify"):
        done = files(command, "99")
        assert done.code == Exit.NOT_FOUND, (command, done.err)
        assert done.err == "lab: there is no job 99; ids so far go from 1 to 1; `lab status --all` lists them\n"
    assert files("compare", "1", "99").code == Exit.NOT_FOUND
    assert files.events() == events


def test_broken_cluster_file_names_file_and_line(files: Shell) -> None:
    files.home.path.mkdir()
    (files.home.path / "cluster.yaml").write_text("lanes:\n  local:\n    cores: many\n")
    for typed in ("submit toy", "lanes", "up"):
        done = files(*typed.split())
        assert done.code == Exit.BAD_INPUT, done.err
        assert f"{files.home.path}/cluster.yaml:3: `cores` must be a whole number" in done.err
        assert done.err.count("\n") == 1
    assert files.jobs() == 0
    assert not files.home.controller_log.exists()


def test_key_of_another_job(files: Shell) -> None:
    files.ok("submit", "toy", "--key", "night", "--hold", LAB_NO_START="1")
    done = files("submit", "toy", "--set", "alpha=3", "--key", "night")
    assert done.code == Exit.BAD_INPUT
    assert "belongs to job 1" in done.err
    assert "alpha" in done.err
    assert files.jobs() == 1


def test_foreign_core_is_met_before_anything_is_imported(files: Shell) -> None:
    foreign = files.cwd / "core"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("raise SystemExit('the foreign package was imported')\n")
    path = f"{files.cwd}:{files.env['PYTHONPATH']}"
    for typed in ("status", "submit toy", "up", "--help"):
        done = files(*typed.split(), PYTHONPATH=path)
        assert done.code == Exit.BAD_INPUT, done.err
        assert f"a foreign package named 'core' hides ours: {foreign}/__init__.py" in done.err
        assert done.err.count("\n") == 1
    as_json = files("status", "--json", PYTHONPATH=path)
    assert json.loads(as_json.out)["error"] == "foreign-package"
    assert not files.home.path.exists()


def test_foreign_core_in_the_working_folder_does_not_matter(files: Shell) -> None:
    (files.cwd / "core").mkdir()
    (files.cwd / "core" / "__init__.py").write_text("raise SystemExit('the foreign package was imported')\n")
    assert files.ok("submit", "toy", "-q", LAB_NO_START="1").out == "1\n"
