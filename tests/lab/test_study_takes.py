"""Jobs of a study that take files of each other: keys, what an attempt is told, and what the cache may answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from core.digests import Digests
from core.errors import BadInput, LabError
from core.home import Home
from core.journal import Journal, Role, query
from core.journal.recover import _as_submitted
from core.made import NotThere, content, makers, standing
from core.states import Cond, EventKind
from core.study import Study
from lab.again import rerun
from lab.api import Jobs, Lab
from lab.arguments import ids
from lab.named import members
from lab.plan import plan
from lab.planning import Request
from lab.selection import resolve
from lanes.taken import with_made_inputs

from .toys import finish

FILES = {"train.npz": "train", "truth.npz": "truth", "more/a.txt": "a", "more-b.txt": "b"}


@pytest.fixture
def lab(home: Home, here: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(here)
    return Lab(home, start=False)


def told(lab: Lab, job: int) -> dict[str, Any]:
    """The spec that an attempt of this job would be told now."""
    row = query.job(lab.journal.conn, job)
    return with_made_inputs(lab.home, lab.journal.conn, row, query.spec_of(lab.journal.conn, row.spec))


def run(lab: Lab, jobs: Jobs, *, failed: tuple[str, ...] = (), mark: str = "") -> None:
    """Let all of them end that have not, in order."""
    for job in jobs:
        if not job.refresh().row.state.terminal:
            name = job.name.split("/")[1]
            if name in failed:
                finish(lab.home, job.id, state="failed", cause="error")
            else:
                finish(lab.home, job.id, artifacts={**FILES, "own.txt": f"{name} {mark}"})


def answers(jobs: Jobs) -> dict[str, str]:
    return {job.name.split("/")[1]: job.answer for job in jobs}


def test_the_key_of_what_takes_holds_the_key_of_what_makes(lab: Lab) -> None:
    data, one, two, end = lab.submit_study("doses")
    spec = query.spec_of(lab.journal.conn, one.row.spec)
    made = {i["name"]: i["made"] for i in spec["inputs"]}
    assert made["data"] == {"key": data.key, "file": "", "optional": False, "label": "doses/data"}
    assert made["truth"]["file"] == "truth.npz"
    assert [c for c, _ in query.dependencies(lab.journal.conn, end.id)] == [Cond.ANY, Cond.ANY]
    # All the way down: a change in the first makes another key of the last, and nothing else does.
    other = Study("doses")
    first = other.job("toy", {"label": "another"}, name="data")
    part = other.job("toy", {"alpha": 1}, takes={"data": first, "truth": (first, "truth.npz")}, name="part1")
    other.job("toy", {"label": "end"}, takes={"part1": other.any(part)}, name="end")
    changed = lab.submit_study(other)
    assert changed[1].params == one.params
    assert changed[1].key != one.key
    assert len({j.key for j in (data, one, two, end, *changed)}) == 7


def test_an_attempt_is_told_paths_and_digests_of_what_was_made(lab: Lab) -> None:
    data, one, *_ = lab.submit_study("doses")
    with pytest.raises(NotThere, match=r"the input 'data' cannot be taken: no job that makes it \(doses/data\) has"):
        told(lab, one.id)
    finish(lab.home, data.id, artifacts=FILES)
    folder, file = told(lab, one.id)["inputs"]
    artifacts = lab.home.run_dir(data.id, 1).artifacts
    with Digests(None) as digests:
        for item, path in ((folder, artifacts), (file, artifacts / "truth.npz")):
            real = digests.of(path)
            assert (item["path"], item["sha256"]) == (str(path), real.sha256)
            assert (item["size"], item["tree"]) == (real.size, real.tree)
        assert content(standing(lab.home, lab.journal.conn, data.id), "more") == digests.of(artifacts / "more")
    assert (folder["made"]["job"], folder["made"]["attempt"]) == (data.id, 1)
    with pytest.raises(NotThere, match=r"made no file 'other.npz'.*"):
        content(standing(lab.home, lab.journal.conn, data.id), "other.npz")


def test_the_cache_answers_all_the_way_down(lab: Lab) -> None:
    first = lab.submit_study("doses")
    run(lab, first)
    again = lab.submit_study("doses")
    assert [j.id for j in again] == [j.id for j in first]
    assert set(answers(again).values()) == {"cached"}
    assert [p.cached_id for p in plan(lab.home, [Request("doses")], cwd=Path.cwd())] == [j.id for j in first]


def test_a_study_submitted_again_after_a_failure_runs_what_failed_and_what_was_made_without_it(lab: Lab) -> None:
    first = lab.submit_study("doses")
    run(lab, first, failed=("part2",))
    assert first[-1].state == "succeeded"  # without part2
    (absent,) = told(lab, first[-1].id)["absent"]
    assert absent["name"] == "part2"
    assert absent["made"]["why"].startswith("doses/part2 failed"), "how it ended is told"
    (spec,) = (i for i in query.spec_of(lab.journal.conn, first[-1].row.spec)["inputs"] if i["name"] == "part2")
    assert _as_submitted(absent) == spec, "a recovered submit knows nothing of it"
    planned = plan(lab.home, [Request("doses")], cwd=Path.cwd())
    assert [p.cached_id is not None for p in planned] == [True, True, False, False]
    second = lab.submit_study("doses")
    assert answers(second) == {"data": "cached", "part1": "cached", "part2": "new", "end": "new"}
    assert second[-1].key == first[-1].key
    run(lab, second)
    assert told(lab, second[-1].id)["absent"] == []
    third = lab.submit_study("doses")
    assert [j.id for j in third] == [j.id for j in second]  # the one with all parts, not the earlier one


def test_a_result_that_was_made_without_it_stands_as_long_as_it_fails(lab: Lab) -> None:
    """By itself (not in one submit with what makes it), the cache looks at what is there now."""
    from lab.answers import answer_in_cache

    first = lab.submit_study("doses")
    run(lab, first, failed=("part2",))
    end = first[-1]
    found, why = answer_in_cache(lab.home, lab.journal.conn, end.key)
    assert found is not None
    assert found.id == end.id
    part = lab.rerun(first[2], force=True)
    finish(lab.home, part.id, artifacts=FILES)
    found, why = answer_in_cache(lab.home, lab.journal.conn, end.key)
    assert found is None
    assert why == f"job {end.id} is the same but its input part2 was absent then, and job {part.id} makes it now"


def test_what_was_made_from_other_bytes_is_no_answer(lab: Lab) -> None:
    first = lab.submit_study("doses")
    run(lab, first)
    data = lab.rerun(first[0], force=True)
    finish(lab.home, data.id, artifacts={**FILES, "own.txt": "data "})  # the same bytes once more
    assert [j.id for j in lab.submit_study("doses")] == [data.id, *(j.id for j in first[1:])]
    other = lab.rerun(first[0], force=True)
    finish(lab.home, other.id, artifacts={**FILES, "train.npz": "not the same"})
    assert answers(lab.submit_study("doses")) == {"data": "cached", "part1": "new", "part2": "new", "end": "new"}


def test_a_damaged_maker_answers_nobody(lab: Lab) -> None:
    first = lab.submit_study("doses")
    run(lab, first)
    manifest = lab.home.run_dir(first[0].id, 1).manifest
    manifest.write_text(manifest.read_text().replace("truth.npz", "trvth.npz"))
    with pytest.raises(NotThere, match="the manifest of job 1 is not the one that was committed"):
        told(lab, first[1].id)
    assert set(answers(lab.submit_study("doses")).values()) == {"new"}


def test_a_study_that_is_under_way_is_not_submitted_twice(lab: Lab) -> None:
    first = lab.submit_study("doses")
    finish(lab.home, first[0].id, artifacts=FILES)
    assert [j.id for j in lab.submit_study("doses")] == [j.id for j in first]
    finish(lab.home, first[1].id, state="failed", cause="error")
    second = lab.submit_study("doses")
    # The first `end` still waits, for a part1 that has failed: it would be without it.
    assert answers(second) == {"data": "cached", "part1": "new", "part2": "queued-already", "end": "new"}


def test_forced_makers_force_what_takes_their_files(lab: Lab, here: Path) -> None:
    file = here / "jobs.yaml"
    text = "- {kind: toy, name: a, force: false}\n- {kind: toy, set: {alpha: 2}, takes: {x: a, y: 'any:a/f.txt'}}\n"
    file.write_text(text)
    first = lab.submit_file(file)
    for job in first:
        finish(lab.home, job.id, artifacts={"f.txt": "f"})
    assert {j.answer for j in lab.submit_file(file)} == {"cached"}
    file.write_text(text.replace("false", "true"))
    assert {j.answer for j in lab.submit_file(file)} == {"new"}
    assert [m["made"]["optional"] for m in makers(lab.journal.conn, first[1].id)] == [False, True]


def test_what_failed_runs_again_with_all_that_waited_for_it(lab: Lab) -> None:
    first = lab.submit_study("doses", params={"seeds": 3})
    run(lab, first, failed=("part2",))
    for word in (first[-1].id, first[2].id):  # the last one, or the one that failed
        jobs = rerun(lab.home, [word], failed=True)
        assert [j.name for j in jobs] == ["doses/part2", "doses/end"]
        part, end = (lab.job(j.id) for j in jobs)
        if word == first[-1].id:
            waits = [(str(c), u.id) for c, u in query.dependencies(lab.journal.conn, end.id)]
            assert sorted(waits) == [("any", first[1].id), ("any", first[3].id), ("any", part.id)]
            assert {i["name"] for i in makers(lab.journal.conn, end.id)} == {"part1", "part2", "part3"}
            run(lab, Jobs([part, end]))
            assert {i["made"]["job"] for i in told(lab, end.id)["inputs"]} == {first[1].id, first[3].id, part.id}
        else:
            assert [j.answer for j in jobs] == ["cached", "cached"]
    with pytest.raises(BadInput, match=f"job {part.id} has not failed .succeeded., nor has any that it waited for"):
        rerun(lab.home, [part.id], failed=True)


def test_a_study_that_still_runs_does_not_end_without_what_runs_again(lab: Lab) -> None:
    """The summary of before waits for a part that has failed: it would be the study's, and without it."""
    _data, part, other, end = first = lab.submit_study("doses")
    finish(lab.home, first[0].id, artifacts=FILES)
    finish(lab.home, part.id, state="failed", cause="error")
    new = rerun(lab.home, members(lab.journal.conn, "doses"), failed=True)
    assert [j.name for j in new] == ["doses/part1", "doses/end"]

    def wishes(*jobs: int) -> list[str | None]:
        return [query.job(lab.journal.conn, job).wish for job in jobs]

    assert wishes(end.id, other.id, *(j.id for j in new)) == ["cancel", None, None, None]
    waits = sorted((str(c), u.id) for c, u in query.dependencies(lab.journal.conn, new[1].id))
    assert waits == [("any", other.id), ("any", new[0].id)]
    assert [i for i in members(lab.journal.conn, "doses") if query.job(lab.journal.conn, i).wish] == []
    # The twin: one that has ended is left as it is, and a rerun without --failed takes nobody's place.
    finish(lab.home, other.id, artifacts=FILES)
    for job in new:
        finish(lab.home, job.id, artifacts=FILES)
    rerun(lab.home, [new[0].id], force=True)
    assert wishes(*(j.id for j in new)) == [None, None]


def test_what_was_skipped_runs_again_too(lab: Lab) -> None:
    first = lab.submit_study("doses")
    finish(lab.home, first[0].id, state="failed", cause="error")
    with Journal.open(lab.home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        for job in first[1:]:
            end = {"state": "skipped", "cause": "dependency", "reason": "", "undeclared": 0}
            tx.append(EventKind.JOB_ENDED, job=job.id, data=end)
    with pytest.raises(BadInput, match=r"the input 'data' of job 2 is made by another job, which is not there") as no:
        rerun(lab.home, [first[1].id], force=True)
    assert "lab rerun 1 2" in no.value.hint
    jobs = rerun(lab.home, [first[2].id], failed=True)
    assert [j.name for j in jobs] == ["doses/data", "doses/part1", "doses/part2", "doses/end"]
    assert [u.id for _, u in query.dependencies(lab.journal.conn, jobs[1].id)] == [jobs[0].id]


def test_nobody_takes_files_of_a_job_that_was_asked_to_end(lab: Lab) -> None:
    data, part, *_ = lab.submit_study("doses")
    (again,) = rerun(lab.home, [part.id], force=True)  # the twin: one that is under way is waited for
    assert [u.id for _, u in query.dependencies(lab.journal.conn, again.id)] == [data.id]
    with Journal.open(lab.home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(EventKind.CANCEL_ASKED, job=data.id)
    with pytest.raises(BadInput, match=r"the input 'data' of job 2 is made by another job, which is not there"):
        rerun(lab.home, [part.id], force=True)


def test_a_study_by_its_name(lab: Lab) -> None:
    lab.submit_study("doses", params={"seeds": 3})
    assert members(lab.journal.conn, "doses") == [1, 2, 3, 4, 5]
    first = lab.submit_study("doses")
    assert members(lab.journal.conn, "doses") == [1, 2, 3, 6]  # the first three are those of before
    run(lab, first, failed=("part1",))
    again = rerun(lab.home, members(lab.journal.conn, "doses"), failed=True)
    assert [j.name for j in again] == ["doses/part1", "doses/end", "doses/end"]
    assert again[1].message == ""
    assert members(lab.journal.conn, "doses")[:2] == [1, 3]
    assert members(lab.journal.conn, "dose") == []
    assert resolve(lab.journal.conn, ids(["doses", "4"])) == (*members(lab.journal.conn, "doses"), 4)
    with pytest.raises(BadInput, match="'dose' is not a job id, and no study of that name was submitted"):
        resolve(lab.journal.conn, ids(["dose"]))


REFUSED = {
    "- {kind: toy, takes: {x: nobody/f}}": "the input 'x' is taken from 'nobody', which is no job of this submit",
    "- {kind: toy, name: a, takes: {x: a}}": "these jobs take files of each other: a -> a",
    "- {kind: quick, name: a}\n- {kind: toy, takes: {x: a}}": "taken from a, a job of kind quick that keeps no files",
    "- {kind: toy, name: a, grid: {alpha: [1, 2]}}\n- {kind: toy, takes: {x: a}}": "kind toy that keeps no files",
    "- {kind: toy, name: a}\n- {kind: toy, grid: {alpha: [1]}, takes: {x: a}}": "the cells of a sweep cannot take",
    "- {kind: toy, name: a}\n- {kind: toy, takes: {x: a/../../b}}": "takes 'x' from '../../b', which leads outside",
    "- {kind: toy, name: a}\n- {kind: toy, takes: {x: true}}": "the input 'x' is taken from True",
    "- {kind: toy, takes: {x: 99/f}}": "there is no job 99",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_taken_is_refused(lab: Lab, here: Path, text: str) -> None:
    lab.submit("toy")
    file = here / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(LabError, match=re.escape(REFUSED[text])) as found:
        lab.submit_file(file)
    assert found.value.message.startswith(f"{file}:{len(text.splitlines())}: ")
    assert len(lab.jobs()) == 1


def test_files_of_an_earlier_job_are_taken_by_its_id(lab: Lab, here: Path) -> None:
    first = lab.submit("toy", name="a/b")
    taker = lab.submit("toy", alpha=2.0, takes={"x": (first, "more/a.txt")})
    assert [u.id for _, u in query.dependencies(lab.journal.conn, taker.id)] == [first.id]
    finish(lab.home, first.id, artifacts=FILES)
    assert told(lab, taker.id)["inputs"][0]["path"].endswith("artifacts/more/a.txt")
    file = here / "jobs.yaml"
    file.write_text(f"- {{kind: toy, set: {{alpha: 2.0}}, takes: {{x: {first.id}/more/a.txt}}}}\n")
    assert lab.submit_file(file)[0].id == taker.id
