"""Everything wrong is refused in one sentence before anything exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, ImpossibleNeed, LabError, NotFound, UnknownKind
from core.home import Home
from core.journal import Journal, Role, query
from core.states import EventKind as K
from lab.submission import Request, submit
from tests.lab.conftest import Submit


def cluster(home: Home, text: str) -> Home:
    home.path.mkdir(exist_ok=True)
    file = home.path / "cluster.yaml"
    file.write_text(text)
    return Home(home.path, file)


MANY = 4096
REFUSALS: list[tuple[str, dict[str, Any], type[LabError], str]] = [
    ("tooy", {}, UnknownKind, "no kind is called 'tooy'; did you mean 'toy'?"),
    ("broken", {}, UnknownKind, "cannot be loaded"),
    ("liar", {}, BadInput, "registered as 'liar' calls itself 'another'"),
    ("needy", {}, BadInput, "needs the package no-such-distribution, which is not installed"),
    ("toy", {"params": {"alpah": 1}}, BadInput, "kind toy has no parameter `alpah`; did you mean `alpha`?"),
    ("toy", {"params": {"alpha": "much"}}, BadInput, "`alpha` of kind toy is 'much': it must be a valid number"),
    ("toy", {"params": {"alpha": "-1"}}, BadInput, "it must be greater than 0; `alpha`: how strongly"),
    ("toy", {"params": {"alpha": ".nan"}}, BadInput, "parameter `alpha` of kind toy is nan"),
    ("toy", {"params": {"alpha": ".inf"}}, BadInput, "is inf, which is no number"),
    ("toy", {"params": {"sizes": "[1, x]"}}, BadInput, "`sizes[1]` of kind toy is 'x'"),
    ("toy", {"params": {"mode": "medium"}}, BadInput, "it must be 'fast' or 'slow'"),
    ("toy", {"params": {"data": "gone.csv"}}, BadInput, "the input 'gone.csv' does not exist"),
    ("toy", {"needs": {"cores": MANY}}, ImpossibleNeed, "local has"),
    ("toy", {"needs": {"cores": 0}}, BadInput, "`cores` of the needs is 0"),
    ("toy", {"needs": {"coers": 1}}, BadInput, "did you mean `cores`?"),
    ("toy", {"needs": {"gpus": 64}}, ImpossibleNeed, "GPUs, 64 needed"),
    ("toy", {"needs": {"memory_mb": "9000G"}}, ImpossibleNeed, "MiB of memory, 9216000 needed"),
    ("toy", {"needs": {"memory_mb": "lots"}}, BadInput, "not an amount of memory"),
    ("toy", {"needs": {"resources": ("licence",)}}, ImpossibleNeed, "local does not offer licence"),
    (
        "toy",
        {"needs": {"resources": ("licence",)}},
        ImpossibleNeed,
        "write `resources: [scorer, licence]` under `local:`",
    ),
    ("toy", {"needs": {"role": "admin"}}, BadInput, "`role` of the needs is 'admin'"),
    ("toy", {"needs": {"lane": "moon"}}, NotFound, "no lane is called 'moon'"),
    ("toy", {"limits": {"time_s": "soon"}}, BadInput, "not a length of time"),
    ("toy", {"limits": {"time_s": "90"}}, BadInput, "has no unit"),
    ("toy", {"limits": {"time_s": -1}}, BadInput, "`time_s` of the limits is -1"),
    ("toy", {"inputs": ["gone.csv"]}, BadInput, "the input 'gone.csv' does not exist"),
    ("toy", {"inputs": ["/dev/null"]}, BadInput, "neither a file nor a folder"),
    ("toy", {"inputs": ["train.py:../../x"]}, BadInput, "outside the run directory"),
    ("toy", {"inputs": ["train.py:/etc/x"]}, BadInput, "outside the run directory"),
    ("toy", {"inputs": ["../x=train.py"]}, BadInput, "outside the run directory"),
    ("toy", {"inputs": ["a=train.py", "a=train.py"]}, BadInput, "two inputs are called 'a'"),
    ("program", {"inputs": ["train.py", "b=train.py:train.py"]}, BadInput, "two inputs would be put at work/train.py"),
    ("toy", {"outputs": ["/abs"]}, BadInput, "an output is '/abs', outside the run directory"),
    ("toy", {"outputs": ["a/../../b"]}, BadInput, "outside the run directory"),
    ("toy", {"outputs": ["."]}, BadInput, "names no file"),
    ("toy", {"expect": {"artifacts": ["../m"]}}, BadInput, "an expected artifact is '../m'"),
    ("toy", {"expect": {"rows": {"toy": 1}}}, BadInput, "writes no table `toy`; did you mean `toys`?"),
    ("toy", {"after": ["ok:99"]}, NotFound, "there is no job 99"),
    ("toy", {"after": ["maybe:1"]}, BadInput, "write ok:ID"),
    ("toy", {"after": ["nobody"]}, BadInput, "`after` names 'nobody'"),
    ("toy", {"code": Path()}, BadInput, "runs no code of yours"),
    ("program", {"code": Path("nowhere")}, BadInput, "is not a folder"),
    ("toy", {"env": {"LAB_ATTEMPT": "x"}}, BadInput, "set by lab itself"),
    ("toy", {"env": {"A B": "x"}}, BadInput, "no name of a variable"),
    ("toy", {"retries": {"eror": 1}}, BadInput, "did you mean `error`?"),
    ("toy", {"retries": {"error": -1}}, BadInput, "retries for error are -1"),
    ("toy", {"on_unreachable": "requeue-after:soon"}, BadInput, "not a length of time"),
    ("toy", {"on_unreachable": "panic"}, BadInput, "on_unreachable is 'panic'"),
    ("toy", {"tags": ["a b"]}, BadInput, "the tag 'a b'"),
    ("toy", {"idem": " "}, BadInput, "--key is empty"),
    ("toy", {"priority": 10**9}, BadInput, "the priority is"),
]


@pytest.mark.parametrize(
    ("kind", "request_", "error", "words"), REFUSALS, ids=[f"{r[0]}-{r[3][:40]}" for r in REFUSALS]
)
def test_refused_in_one_sentence_and_nothing_is_made(
    home: Home, here: Path, toy: Path, kind: str, request_: dict[str, Any], error: type[LabError], words: str
) -> None:
    with pytest.raises(error) as caught:
        submit(home, [Request(kind, **request_)], cwd=here)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if home.journal.exists():  # only what is known to the journal alone is found so late
        assert "after" in request_
        with Journal.open(home) as journal:
            assert journal.last_seq() == 0


def test_one_bad_request_among_good_ones_records_nothing(home: Home, here: Path, ask: Submit) -> None:
    ask()
    with pytest.raises(BadInput):
        submit(home, [Request("toy", {"alpha": 2}), Request("toy", {"alpha": 0})], cwd=here)
    with pytest.raises(NotFound):
        submit(home, [Request("toy", {"alpha": 2}), Request("toy", {"alpha": 3}, after=["77"])], cwd=here)
    with Journal.open(home) as journal:
        assert [j.id for j in query.jobs(journal.conn)] == [1]


def test_an_unreadable_input(home: Home, here: Path, toy: Path) -> None:
    (here / "data").mkdir()
    (here / "data" / "dangling").symlink_to("nowhere")
    with pytest.raises(BadInput, match="cannot be read"):
        submit(home, [Request("toy", inputs=["data"])], cwd=here)
    (here / "link").symlink_to("nowhere")
    with pytest.raises(BadInput, match="is a link to nothing"):
        submit(home, [Request("toy", inputs=["link"])], cwd=here)


LANES = """
lanes:
  local: {cores: 1}
  big: {transport: ssh, host: big, cores: 64, memory_mb: 1000, gpus: 2, roles: [train], resources: [scorer]}
  dark: {transport: ssh, host: dark}
"""


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"cores": 65}, "local has 1 core, 65 needed; big not admitted for eval (declared, never probed); dark has 1"),
        ({"cores": 65, "role": "train"}, "big has 64 cores, 65 needed"),
        ({"gpus": 3, "role": "train"}, "big has 2 GPUs, 3 needed"),
        ({"memory_mb": 10**9, "role": "train"}, "big has 1000 MiB of memory"),
        ({"lane": "local", "resources": ("scorer",)}, "no lane can take this job: local does not offer scorer; write"),
        ({"lane": "big"}, "big not admitted for eval"),
    ],
)
def test_impossible_needs_say_what_each_lane_lacks(
    home: Home, here: Path, toy: Path, needs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ImpossibleNeed) as caught:
        submit(cluster(home, LANES), [Request("toy", needs=needs)], cwd=here)
    assert words in str(caught.value)


def test_possible_needs_are_accepted(home: Home, here: Path, toy: Path) -> None:
    home = cluster(home, LANES)
    good = [
        {"cores": 64, "gpus": 2, "memory_mb": 1000, "role": "train", "resources": ("scorer",)},
        {"lane": "dark", "cores": 500, "gpus": 4},  # named: the user is taken at their word
    ]
    assert len(submit(home, [Request("toy", needs=n) for n in good], cwd=here)) == 2


def test_what_a_probe_found_counts(home: Home, here: Path, ask: Submit) -> None:
    ask()
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        info = {"cores": 512, "memory_mb": 10**6, "gpus": [{"index": i} for i in range(8)]}
        tx.append(K.LANE, lane="local", data={"state": "up", "info": info})
    assert submit(home, [Request("toy", needs={"cores": 512, "gpus": 8})], cwd=here)[0].answer == "new"
    with pytest.raises(ImpossibleNeed, match="has 512 cores, 513 needed"):
        submit(home, [Request("toy", needs={"cores": 513})], cwd=here)
