"""From the head's paths to the lane's: nothing of the head is left in a spec that goes away."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from lanes.carrier.places import LanePlaces, lane_spec, search_path, store_name

PLACES = LanePlaces(
    root="/lane/heads/h/mini",
    path="/usr/local/bin:/usr/bin:/venv/bin:/bin",
    wake="/lane/s",
    python="/venv/bin/python",
    code={"aa": "/lane/store/code/aa", "bb": "/lane/store/code/bb"},
    inputs={"d1": "/lane/store/inputs/d1"},
    checkpoints=["/lane/store/checkpoints/cc"],
)


def frozen() -> dict[str, Any]:
    return {
        "job": 3, "attempt": 2, "marker": "lab:h:3:2:n", "key": "k", "env": {"A": "1"},
        "code": {"digest": "x", "path": "/head/code/aa", "subdir": "sub", "root": "/head/project"},
        "kind_path": "/head/code/bb",
        "inputs": [
            {"name": "in", "path": "/head/data", "dest": "d", "sha256": "d1", "size": 1, "tree": False, "lane": None},
            {"name": "big", "path": "/data/set", "dest": None, "sha256": "d2", "size": 9, "tree": True, "lane": "mini"},
        ],
        "python": "/head/venv/bin/python",
        "checkpoints": ["/head/attempts/3/1/checkpoints"],
        "wake": "/head/s",
        "base_env": {"PATH": "/head/bin", "HOME": "/head/home", "USER": "me", "LANG": "C"},
    }  # fmt: skip


def test_every_path_is_the_lanes() -> None:
    given = frozen()
    before = copy.deepcopy(given)
    spec = lane_spec(given, PLACES)
    assert given == before, "it is pure"
    assert spec["code"]["path"] == "/lane/store/code/aa"
    assert spec["code"]["subdir"] == "sub"
    assert spec["kind_path"] == "/lane/store/code/bb"
    assert [i["path"] for i in spec["inputs"]] == ["/lane/store/inputs/d1", "/data/set"]
    assert spec["inputs"][0]["dest"] == "d"
    assert spec["python"] == "/venv/bin/python"
    assert spec["checkpoints"] == ["/lane/store/checkpoints/cc"]
    assert spec["wake"] == "/lane/s"
    assert spec["base_env"] == {"PATH": "/venv/bin:/usr/local/bin:/usr/bin:/bin"}
    assert {k: spec[k] for k in ("job", "attempt", "marker", "key", "env")} == {
        k: before[k] for k in ("job", "attempt", "marker", "key", "env")
    }
    spec["code"].pop("root")  # where it was taken from, for people
    assert "/head" not in json.dumps(spec)
    assert "/head" in json.dumps(before)


def test_a_job_without_code_has_none() -> None:
    spec = lane_spec({**frozen(), "code": {"digest": None, "path": None, "subdir": ""}}, PLACES)
    assert spec["code"]["path"] is None


def test_what_was_not_sent_is_an_error_and_no_head_path() -> None:
    with pytest.raises(KeyError):
        lane_spec(frozen(), LanePlaces("/l", "/bin", "", "/p", code={"aa": "x", "bb": "y"}))


@pytest.mark.parametrize(
    ("python", "path", "want"),
    [
        ("/v/bin/python", "/usr/bin:/bin", "/v/bin:/usr/bin:/bin"),
        ("/usr/bin/python3", "/bin:/usr/bin", "/usr/bin:/bin"),
        ("/v/bin/python", "", "/v/bin"),
    ],
)
def test_the_interpreters_folder_comes_first(python: str, path: str, want: str) -> None:
    assert search_path(python, path) == want


def test_a_snapshot_is_called_by_its_folder() -> None:
    assert store_name("/home/u/.lab/code/abc/") == store_name("/home/u/.lab/code/abc") == "abc"
