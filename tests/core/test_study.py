"""Studies are data: nodes, names, and what waits for what."""

from __future__ import annotations

import dataclasses

import pytest

from core.errors import BadInput
from core.states import Cond
from core.study import Study


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
