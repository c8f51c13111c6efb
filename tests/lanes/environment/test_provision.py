"""Environments really made, from wheels really sent, with no network: what is promised of a lane that has nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from core.cluster import LaneConfig
from lanes.agent.envmake import MARKER
from lanes.agent.envs import Environments
from lanes.environment import provision
from lanes.environment.making import told
from lanes.environment.rebuild import installed, rebuild
from lanes.environment.which import known, lane_python
from tests.lanes.environment.bases import bare_python, other_python
from tests.lanes.environment.conftest import Reach, lock_text
from tests.support import wait_for


def run(python: str, code: str) -> str:
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_lane_is_provisioned_offline_and_only_once(reach: Reach, small_lock: Path) -> None:
    access = reach()
    planned = provision(access, {"lock": str(small_lock), "plan": True})
    assert planned["ok"], planned
    assert planned["data"]["to_send"]["count"] == 6  # five, and pip
    assert access.parts[1].disk()["kept"]["inputs"] == [0, 0]
    assert access.told("rung") == []

    made = provision(access, {"lock": str(small_lock)})
    assert made["ok"], made
    python = made["data"]["python"]
    assert (
        run(python, "import pydantic; print(pydantic.__version__)")
        == dict(line.split("==") for line in lock_text().splitlines())["pydantic"]
    )
    assert Path(python).parent.parent.parent == access.parts[0]._folder
    rung = access.told("rung")[-1]
    assert (rung["rung"], rung["ok"], rung["evidence"]["python"]) == ("environment", True, python)
    assert lane_python(access.config, known(access.home, "far")) == python
    assert known(access.home, "other") is None
    assert told(access.home, "far") == {"step": "", "done": 0, "of": 0}
    # Nothing half-made is left, and nothing of the maker's folder is in what was made.
    names = {p.name for p in access.parts[0]._folder.iterdir()}
    assert names == {Path(python).parent.parent.name, Path(python).parent.parent.name + ".lock"}

    access.calls.clear()
    again = provision(access, {"lock": str(small_lock)})
    assert again["ok"]
    assert again["data"]["there"]
    assert again["data"]["python"] == python
    assert set(access.calls) == {"env_bases", "env_have"}

    # Another lock sends only what is new.
    other = small_lock.with_name("other.txt")
    other.write_text(lock_text(("typing-extensions",)))
    less = provision(access, {"lock": str(other), "plan": True})
    assert less["data"]["wheels"]["count"] == 2
    assert less["data"]["to_send"] == {"count": 0, "bytes": 0}


def test_a_python_without_venv_ensurepip_and_pip_is_enough(reach: Reach, small_lock: Path, tmp_path: Path) -> None:
    base = bare_python(tmp_path / "bare")
    for module in ("venv", "ensurepip", "pip"):
        assert subprocess.run([base, "-c", f"import {module}"], capture_output=True, check=False).returncode != 0
    access = reach(base=base)
    made = provision(access, {"lock": str(small_lock)})
    assert made["ok"], made
    assert run(made["data"]["python"], "import pydantic, sys; print(sys.prefix)").startswith(str(tmp_path / "lane"))


def test_another_minor_gets_wheels_of_its_own_or_a_sentence(reach: Reach, tmp_path: Path) -> None:
    base = other_python("3.12" if sys.version_info[:2] == (3, 11) else "3.11")
    pure = tmp_path / "pure.txt"
    pure.write_text(lock_text(("typing-extensions", "annotated-types")))
    access = reach(base=base)
    made = provision(access, {"lock": str(pure)})
    assert made["ok"], made
    assert made["data"]["version"].startswith(run(base, "import platform; print(platform.python_version())"))

    compiled = tmp_path / "compiled.txt"
    compiled.write_text(lock_text())
    refused = provision(access, {"lock": str(compiled)})
    assert not refused["ok"]
    assert "there is no wheel of pydantic-core" in refused["message"]
    assert "the one here is for cp3" in refused["message"]
    assert "--wheels" in refused["hint"]
    assert access.told("rung")[-1]["ok"] is False
    assert lane_python(access.config, known(access.home, "far")) == made["data"]["python"]


def test_the_newest_fitting_python_is_chosen_and_an_old_one_refused(reach: Reach, small_lock: Path) -> None:
    old = reach(base=other_python("3.9"))
    answer = provision(old, {"lock": str(small_lock)})
    assert not answer["ok"]
    assert "is Python 3.9" in answer["message"]
    assert "3.11 or newer" in answer["message"]
    none = provision(reach(base="/nowhere/python3"), {"lock": str(small_lock)})
    assert "/nowhere/python3 is not there" in none["message"]
    free = reach(base=None)
    plan = provision(free, {"lock": str(small_lock), "plan": True})
    minor = "{}.{}".format(*sys.version_info[:2])
    assert plan["data"]["target"].startswith(f"Python {minor}.")


def test_a_lock_that_is_not_whole_is_told(reach: Reach, tmp_path: Path) -> None:
    lock = tmp_path / "half.txt"
    lock.write_text(lock_text(("pydantic", "pydantic-core", "typing-extensions", "annotated-types")))
    access = reach()
    answer = provision(access, {"lock": str(lock)})
    assert not answer["ok"]
    assert "the lock is not whole: pydantic" in answer["message"]
    assert "typing-inspection" in answer["message"]
    assert not [p for p in access.parts[0]._folder.iterdir() if p.suffix != ".lock"]


def test_wheels_of_the_users_own_folder(reach: Reach, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    here = installed("typing-extensions")
    rebuild(here, folder / here.file)
    lock = tmp_path / "one.txt"
    lock.write_text(lock_text(("typing-extensions",)))
    access = reach(wheels=str(folder))
    plan = provision(access, {"lock": str(lock), "plan": True})
    assert {w["name"]: w["origin"] for w in plan["data"]["largest"]}["typing-extensions"] == "folder"
    assert provision(access, {"lock": str(lock)})["ok"]

    blob = (folder / here.file).read_bytes()
    for bad, said in ((blob[: len(blob) // 2], "is broken"), (b"", "is broken")):
        (folder / here.file).write_bytes(bad)
        broken = provision(access, {"lock": str(lock), "wheels": str(folder), "plan": True, "folder": None})
        # What is there already needs no wheel; a lane without it does.
        assert broken["ok"]
        fresh = reach(wheels=str(folder), base=bare_python(tmp_path / f"b{len(bad)}"))
        fresh.parts = (Environments(tmp_path / f"lane{len(bad)}"), fresh.parts[1])
        broken = provision(fresh, {"lock": str(lock)})
        assert not broken["ok"]
        assert said in broken["message"]
        assert str(folder) in broken["message"]


def test_a_wheel_that_says_another_version_is_found_out(reach: Reach, tmp_path: Path) -> None:
    """The name of the file says one thing, and what it holds another."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    here = installed("typing-extensions")
    wrong = folder / "typing_extensions-99.0-py3-none-any.whl"
    rebuild(here, wrong)
    lock = tmp_path / "one.txt"
    lock.write_text("typing-extensions==99.0\n")
    answer = provision(reach(wheels=str(folder)), {"lock": str(lock)})
    assert not answer["ok"]
    assert "99.0" in answer["message"]


def test_a_package_that_cannot_be_imported_is_found_out(reach: Reach, tmp_path: Path) -> None:
    """Rightly named and rightly versioned, but its code does not run here."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "numpy-9.9-py3-none-any.whl", "w") as z:
        z.writestr("numpy.py", "raise ImportError('GLIBC_2.99 not found')\n")
        z.writestr("numpy-9.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 9.9\n")
        z.writestr("numpy-9.9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("numpy-9.9.dist-info/RECORD", "numpy.py,,\n")
    lock = tmp_path / "one.txt"
    lock.write_text("numpy==9.9\n")
    answer = provision(reach(wheels=str(folder)), {"lock": str(lock)})
    assert not answer["ok"]
    assert "numpy is installed but cannot be imported" in answer["message"]
    assert "GLIBC_2.99" in answer["message"]


def test_a_full_disk_is_told_before_anything_is_unpacked(
    reach: Reach, small_lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = reach()
    monkeypatch.setattr("lanes.agent.envmake._ROOM", 1 << 60)
    answer = provision(access, {"lock": str(small_lock)})
    assert not answer["ok"]
    assert "on the lane's disk" in answer["message"]
    assert answer["data"]["cause"] == "disk-full"
    assert not [p for p in access.parts[0]._folder.iterdir() if p.suffix != ".lock"]


def test_an_environment_whose_python_went_away_is_made_anew(reach: Reach, tmp_path: Path) -> None:
    lock = tmp_path / "one.txt"
    lock.write_text(lock_text(("typing-extensions",)))
    base = bare_python(tmp_path / "bare")
    access = reach(base=base)
    made = provision(access, {"lock": str(lock)})
    assert made["ok"], made
    python = Path(made["data"]["python"])
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert access.call("env_have", made["data"]["digest"]) is None
    again = provision(access, {"lock": str(lock)})
    assert again["ok"]
    assert again["data"]["made"]
    assert run(str(python), "import typing_extensions; print('good')") == "good"


def test_what_a_killed_maker_left_is_removed_and_two_makers_agree(reach: Reach, tmp_path: Path) -> None:
    lock = tmp_path / "one.txt"
    lock.write_text(lock_text(("typing-extensions",)))
    access = reach()
    plan = provision(access, {"lock": str(lock), "plan": True})
    name = plan["data"]["digest"][:20]
    left = tmp_path / "lane" / "env" / f"{name}.0badcafe.partial" / "env" / "bin"
    left.mkdir(parents=True)
    half = tmp_path / "lane" / "env" / name  # whole by its name, without the marker
    half.mkdir()
    second = reach()
    second.parts = (second.parts[0], access.parts[1])
    answers: list[dict[str, object]] = []
    threads = [
        threading.Thread(target=lambda a=a: answers.append(provision(a, {"lock": str(lock)}))) for a in (access, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [a["ok"] for a in answers] == [True, True], answers
    assert not left.exists()
    assert json.loads((half / MARKER).read_text())["digest"] == plan["data"]["digest"]


def test_status_of_what_nobody_makes_and_hostile_names(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    assert environments.env_status("0" * 32) == {"state": "unknown"}
    for bad in ("../../etc", "", "A" * 32, "0" * 8):
        with pytest.raises(ValueError, match="no digest"):
            environments.env_status(bad)
    order = {"digest": "0" * 32, "base": "/nowhere", "lock": [], "wheels": [["../x.whl", "/x.whl"]]}
    environments.env_make(order)
    status = wait_for(
        lambda: s if (s := environments.env_status("0" * 32))["state"] != "making" else None, "the refusal"
    )
    assert status["state"] == "failed"
    assert "/nowhere is not there" in status["message"]
    order["digest"] = "1" * 32
    order["base"] = sys.executable
    environments.env_make(order)
    status = wait_for(
        lambda: s if (s := environments.env_status("1" * 32))["state"] != "making" else None, "the refusal"
    )
    assert "no name of a wheel" in status["message"]


def test_look_says_what_is_installed(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    found = environments.env_look(sys.executable, ["pydantic", "no-such-package"])
    assert found["ok"]
    assert found["packages"]["pydantic"]
    assert found["packages"]["no-such-package"] is None
    missing = environments.env_look("/nowhere/python", ["pydantic"])
    assert missing == {"ok": False, "message": "the interpreter /nowhere/python is not there"}


def test_which_interpreter_runs_attempts() -> None:
    plain = LaneConfig("far", transport="ssh", host="far")
    named = LaneConfig("far", transport="ssh", host="far", python="/opt/py/bin/python3")
    made = {"made": True, "named": None, "python": "/root/.lab-lane/env/x/bin/python"}
    assert lane_python(plain, None) is None
    assert lane_python(plain, made) == "/root/.lab-lane/env/x/bin/python"
    assert lane_python(named, None) is None
    # Named after it was made: the person means that one.
    assert lane_python(named, made) is None
    assert lane_python(named, {**made, "named": "/opt/py/bin/python3"}) == "/root/.lab-lane/env/x/bin/python"
    assert lane_python(plain, {"ok": True, "python": "/usr/bin/python3"}) is None


def simple_index(folder: Path) -> str:
    """An index of one package, as a folder."""
    here = installed("typing-extensions")
    place = folder / "simple" / "typing-extensions"
    place.mkdir(parents=True)
    rebuild(here, place / here.file)
    (place / "index.html").write_text(f'<a href="{here.file}">{here.file}</a>')
    return f"file://{folder}/simple"


def test_a_lane_may_get_its_packages_from_an_index_of_its_own(reach: Reach, tmp_path: Path) -> None:
    lock = tmp_path / "one.txt"
    lock.write_text(lock_text(("typing-extensions",)))
    access = reach(index=simple_index(tmp_path))
    made = provision(access, {"lock": str(lock)})
    assert made["ok"], made
    assert made["data"]["wheels"]["count"] == 1  # pip itself
    assert run(made["data"]["python"], "import typing_extensions; print('good')") == "good"

    lock.write_text("typing-extensions==0.0.1\n")
    none = provision(access, {"lock": str(lock)})
    assert not none["ok"]
    assert "the index has no wheel for this lane" in none["message"]
    away = provision(reach(index="http://127.0.0.1:9/simple"), {"lock": str(lock)})
    assert "the index cannot be reached from this lane" in away["message"]
    secret = provision(reach(index="https://me:hunter2@example.org/simple"), {"lock": str(lock)})
    assert "holds a password" in secret["message"]
    assert "hunter2" not in json.dumps(secret)
    odd = provision(reach(index="-r /etc/passwd"), {"lock": str(lock)})
    assert "is no URL" in odd["message"]


def test_an_uv_of_the_lane_that_fails_is_done_without(
    reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 1\n')
    uv.chmod(0o755)
    monkeypatch.setattr("lanes.agent.envmake._uv", lambda: str(uv))
    lock = tmp_path / "one.txt"
    lock.write_text(lock_text(("typing-extensions",)))
    made = provision(reach(), {"lock": str(lock)})
    assert made["ok"], made
    assert made["data"]["by"] == "pip"
    assert "--offline" in (tmp_path / "asked").read_text()
