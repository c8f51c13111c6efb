"""Studies are data: nodes, names, and what waits for what."""

from __future__ import annotations

import dataclasses

import pytest

from core.errors import BadInput
from core.journal.recover import _as_submitted
from core.spec import InputFile, key_of
from core.states import Cond
from core.study import Study, Take


def test_nodes_come_after_what_they_wait_for() -> None:
    s = Study("fidelity")
    s.job("audit", name="last", after=["score", "base"])
    base = s.job("train", {"seed": 1}, name="base", needs={"cores": 2}, limits={"time_s": 60})
    score = s.sweep("score", grid={"alpha": [0, 10]}, base={"seed": 1}, at_once=4, max_fails=0, after=[base])
    assert [n.name for n in s.nodes()] == ["base", "score", "last"]
    assert (score.name, score.grid.size if score.grid else 0, score.at_once) == ("score", 2, 4)
    assert s.nodes()[2].after == ((Cond.OK, "score"), (Cond.OK, "base"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        base.name = "other"  # type: ignore[misc]


def test_any_asks_only_for_an_end_and_ok_for_more() -> None:
    s = Study("s")
    a = s.job("toy")
    assert s.job("toy", after=[s.any(a)]).after == ((Cond.ANY, "toy"),)
    assert s.job("toy", after=[s.any(a), a]).after == ((Cond.OK, "toy"),)
    assert s.job("toy", after=a).name == "toy-4"  # names are numbered


def test_refusals() -> None:
    with pytest.raises(BadInput, match="cannot be the name of a study"):
        Study("two words")
    s = Study("s")
    with pytest.raises(BadInput, match="has no nodes"):
        s.nodes()
    s.job("toy", name="a")
    with pytest.raises(BadInput, match="two nodes called 'a'"):
        s.job("toy", name="a")
    with pytest.raises(BadInput, match="cannot be the name of a node"):
        s.job("toy", name="7")
    with pytest.raises(BadInput, match="belongs to the study 'other'"):
        s.job("toy", after=[Study("other").job("toy")])
    with pytest.raises(BadInput, match="max_fails of node 'b' is -1"):
        s.sweep("toy", grid={"x": [1]}, max_fails=-1, name="b")
    with pytest.raises(BadInput, match="axis `x` has no value"):
        s.sweep("toy", grid={"x": []})
    s.job("toy", name="c", after=["nobody"])
    with pytest.raises(BadInput, match="waits for 'nobody', which is no node"):
        s.nodes()


def test_a_circle_is_named() -> None:
    s = Study("s")
    s.job("toy", name="a", after=["b"])
    s.job("toy", name="b", after=["a"])
    with pytest.raises(BadInput, match="wait for each other: a -> b -> a"):
        s.nodes()


def test_a_node_takes_files_of_others_and_waits_for_them() -> None:
    s = Study("s")
    data, part = s.job("toy", name="data"), s.job("toy", name="part")
    node = s.job(
        "toy", takes={"data": (data, "a/../b.npz"), "part": s.any(part), "p/q": (s.any(data), "c")}, name="end"
    )
    assert node.takes == (
        Take("data", "data", "b.npz", optional=False),
        Take("part", "part", "", optional=True),
        Take("p/q", "data", "c", optional=True),
    )
    assert node.after == ((Cond.OK, "data"), (Cond.ANY, "part"))
    assert s.job("toy", takes={"d": s.any(data)}, after=data).after == ((Cond.OK, "data"),)


def test_what_cannot_be_taken() -> None:
    s = Study("s")
    data = s.job("toy", name="data")
    many = s.sweep("toy", grid={"x": [1]}, name="many")
    with pytest.raises(BadInput, match="takes 'd' from the sweep 'many', and only jobs make files for others"):
        s.job("toy", takes={"d": many})
    with pytest.raises(BadInput, match="belongs to the study 'other'"):
        s.job("toy", takes={"d": Study("other").job("toy")})
    with pytest.raises(BadInput, match=r"node 'end' takes 'd' from '../x', which leads outside its folder"):
        s.job("toy", takes={"d": (data, "../x")}, name="end")
    with pytest.raises(BadInput, match="takes an input called '/x', which leads outside"):
        s.job("toy", takes={"/x": data})
    with pytest.raises(BadInput, match="takes 'd' from 'data'"):
        s.job("toy", takes={"d": "data"})  # type: ignore[dict-item]
    s.note(" two\n words ")
    assert s.notes == ["two words"]


def test_an_input_by_its_bytes_and_by_what_makes_it() -> None:
    """A stored spec of before `made` has the key that it had."""
    old = {"name": "a", "path": "/a", "dest": None, "sha256": "5" * 64, "size": 1, "tree": False, "lane": None}
    spec = {"kind": "k", "version": 1, "code": None, "kind_code": {"digest": ""}, "packages": {}, "env": {}}
    spec |= {"needs": {"gpus": 0}, "outputs": []}
    new = InputFile.model_validate(old).model_dump(mode="json")
    assert key_of({**spec, "inputs": [old]}, {}) == key_of({**spec, "inputs": [new]}, {})
    made = {"key": "7" * 64, "file": "f", "optional": False, "label": "x"}
    keys = {
        key_of({**spec, "inputs": [{**new, "sha256": "", "made": {**made, **other}}]}, {})
        for other in ({}, {"key": "8" * 64}, {"file": "g"}, {"optional": True}, {"label": "y"})
    }
    assert len(keys) == 4  # what it is called is for people
    back = _as_submitted({**new, "made": {**made, "job": 3, "attempt": 1}})
    assert (back["made"], back["path"], back["sha256"]) == (made, "", "")
    assert _as_submitted(old) == old
