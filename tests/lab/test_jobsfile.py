"""Jobs files: every refusal names file and line, and all of a file is recorded or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import BadInput, LabError
from core.home import Home
from core.journal import Journal, query
from lab.jobsfile import read_jobs
from lab.submission import submit

GOOD = """
- name: prepare
  kind: toy
  set: {alpha: 2, label: "20"}
  tags: [night, 2]
- kind: toy
  after: [ok:prepare, any:first]
  needs: {cores: 1, memory: 64M}
  limits: {time: 1h, grace: 5s}
  retries: {error: 1}
- {name: first, kind: toy, set: {alpha: 5}, key: 12, priority: -3, held: true, env: {A: 1}}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "jobs.yaml"
    file.write_text(text)
    return file


def test_a_file_in_one_transaction_dependencies_first(home: Home, here: Path, toy: Path) -> None:
    answers = submit(home, read_jobs(write(here, GOOD)), cwd=here)
    assert [a.id for a in answers] == [1, 3, 2]  # in the order of the file; what is waited for has the lower id
    with Journal.open(home) as journal:
        last = query.job(journal.conn, 3)
        spec = query.spec_of(journal.conn, last.spec)
        waits = [(str(c), u.name) for c, u in query.dependencies(journal.conn, 3)]
        first, held = query.job(journal.conn, 1), query.job(journal.conn, 2)
    assert waits == [("ok", "prepare"), ("any", "first")]
    assert (spec["needs"]["memory_mb"], spec["limits"]["time_s"], spec["limits"]["grace_s"]) == (64, 3600, 5)
    assert (first.params["label"], first.tags) == ("20", ("night", "2"))
    assert (held.idem, held.priority, held.state) == ("12", -3, "held")


def test_the_same_file_again_is_answered(home: Home, here: Path, toy: Path) -> None:
    file = write(here, GOOD)
    first = submit(home, read_jobs(file), cwd=here)
    again = submit(home, read_jobs(file), cwd=here)
    assert [a.id for a in again] == [a.id for a in first]
    assert [a.answer for a in again] == ["queued-already", "queued-already", "same-key"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("- kind: toy\n  set: {a: [1\n", 3, "this is not YAML"),
        ("- kind: toy\n\tname: x\n", 2, "this is not YAML"),
        ("kind: toy\n", 1, "must be a list of jobs"),
        ("", 1, "must be a list of jobs"),
        ("[]\n", 1, "there are no jobs"),
        ("- toy\n", 1, "a job must be a mapping"),
        ("- kind: toy\n- name: x\n", 2, "the job has no `kind`"),
        ("- kind: toy\n  sett: {}\n", 2, "no setting `sett`; did you mean `set`?"),
        ("- kind: toy\n  kind: toy\n", 2, "`kind` is there twice"),
        ("- kind: toy\n  set:\n    alpha: 1\n    alpha: 2\n", 4, "`alpha` is there twice"),
        ("- kind: toy\n  set: 3\n", 2, "`set` must be a mapping"),
        ("- kind: toy\n  priority: high\n", 2, "`priority` must be a whole number"),
        ("- kind: toy\n  priority: true\n", 2, "`priority` must be a whole number"),
        ("- kind: toy\n  after: 1\n", 2, "`after` must be a list"),
        ("- kind: toy\n  after: [[1]]\n", 2, "`after` must be a list of words"),
        ("- kind: toy\n  env: {A: [1]}\n", 2, "the variable A"),
        ("- kind: toy\n- kind: tooy\n", 2, "no kind is called 'tooy'"),
        ("- kind: toy\n- kind: toy\n  set: {alpah: 1}\n", 2, "no parameter `alpah`"),
        ("- kind: toy\n- kind: toy\n  set: {alpha: 0}\n", 2, "greater than 0"),
        ("- kind: toy\n- kind: toy\n  needs: {cores: 4000}\n", 2, "no lane can take this job"),
        ("- kind: toy\n- kind: toy\n  inputs: [gone]\n", 2, "the input 'gone' does not exist"),
        ("- kind: toy\n- kind: toy\n  after: [ok:77]\n", 2, "there is no job 77"),
        ("- {kind: toy, name: b}\n- kind: toy\n  after: [a]\n", 2, "`after` names 'a', which is neither"),
        ("- {kind: toy, name: a, after: [a]}\n", 1, "these jobs wait for each other: a -> a"),
        (
            "- {kind: toy, name: z}\n- {kind: toy, name: a, after: [c]}\n- {kind: toy, name: c, after: ['any:a', z]}\n",
            2,
            "these jobs wait for each other: a -> c -> a; remove one `after`",
        ),
        (
            "- {kind: toy, name: a}\n- {kind: toy, name: a}\n- {kind: toy, after: [a]}\n",
            2,
            "two jobs are called 'a'",
        ),
        ("- kind: toy\n  zip: [a, b]\n", 2, "`zip` without `grid`"),
        ("- kind: toy\n  grid: [1]\n", 2, "`grid` must be a mapping"),
        ("- kind: toy\n  grid:\n    alpha: {a: 1}\n", 3, "axis `alpha` must be a list of values"),
        ("- kind: toy\n  grid:\n    alpha: 0:1:0\n", 3, "the step of 0:1:0 is 0"),
        ("- kind: toy\n  grid: {alpha: [1, 1]}\n", 2, "axis `alpha` has 1 twice"),
        ("- kind: toy\n  grid: {alpha: [1]}\n  exclude: [alpha]\n", 3, "an exclude must be a mapping"),
        ("- kind: toy\n  grid: {alpha: [1]}\n  exclude: {alpha: 1}\n", 3, "`exclude` must be a list"),
        ("- kind: toy\n  grid: {alpha: [1]}\n  zip: [[alpha, 1]]\n", 3, "`zip` names axes"),
        ("- kind: toy\n  grid: {alpha: [1]}\n  at_once: many\n", 3, "`at_once` must be a whole number"),
        ("- kind: toy\n- kind: toy\n  grid: {alpha: [1]}\n  at_once: 0\n", 2, "--at-once is 0"),
        ("- kind: toy\n- kind: toy\n  max_fails: 1\n", 2, "--max-fails is for sweeps"),
    ],
)
def test_refusals_name_file_and_line(home: Home, here: Path, toy: Path, text: str, line: int, words: str) -> None:
    file = write(here, text)
    with pytest.raises(LabError) as caught:
        submit(home, read_jobs(file), cwd=here)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: ")
    assert words in message
    assert "\n" not in message
    if home.journal.exists():
        with Journal.open(home) as journal:
            assert journal.last_seq() == 0


def test_a_file_that_is_not_there(here: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_jobs(here / "none.yaml")
    (here / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_jobs(here / "binary")
