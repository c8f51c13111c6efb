"""The words of `--grid`, `--zip` and `--exclude`."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import BadInput
from lab.gridwords import read_axes, read_excludes, read_zips


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", [1, 2, 3]),
        ("1", [1]),
        ("1, 2.5 ,x", [1, 2.5, "x"]),
        ("true,null,'1',''", [True, None, "1", ""]),
        ("[1],[4],[1,4]", [[1], [4], [1, 4]]),
        ("{a: 1, b: 2},{a: 3}", [{"a": 1, "b": 2}, {"a": 3}]),
        ("'a,b',c", ["a,b", "c"]),
        ("it's,x", ["it's", "x"]),
        ("0:1:0.25", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0:0.3:0.1", [0.0, 0.1, 0.2, 0.3]),  # not 0.30000000000000004, and 0.3 is there
        ("0:10:4", [0, 4, 8]),
        ("3:1:-1", [3, 2, 1]),
        ("1..4", [1, 2, 3, 4]),
        ("-1..1", [-1, 0, 1]),
        ("5..5", [5]),
        ("1..3,10,20:22:1", [1, 2, 3, 10, 20, 21, 22]),
        ("'1:2:3'", ["1:2:3"]),
        ("50%'", ["50%'"]),
        ("a..b", ["a..b"]),
    ],
)
def test_values(text: str, values: list[Any]) -> None:
    found = read_axes([f"a={text}"]).values["a"]
    assert found == values
    assert [type(v) for v in found] == [type(v) for v in values]


def test_words_are_kept_as_typed() -> None:
    axes = read_axes(["lr=1e-3,1e-2", "n=010..012", "text='a b'"])
    assert axes.words["lr"] == ["1e-3", "1e-2"]
    assert axes.words["n"] == ["10", "11", "12"]
    assert axes.words["text"] == ["'a b'"]
    assert list(axes.values) == ["lr", "n", "text"]


def test_percent_is_slurms_limit() -> None:
    assert read_axes(["seed=1..100%8"]).at_once == 8
    assert read_axes(["a=1,2%8", "b=1,2%3"]).at_once == 3
    assert read_axes(["a=1,2"]).at_once is None
    assert read_axes(["a='x%8'"]).values["a"] == ["x%8"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "'a' has no values"),
        ("=1", "has no values"),
        ("a=", "--grid a: there is no value"),
        ("a=1,,2", "a value between commas is empty"),
        ("a=[1,2", "has no closing ]"),
        ("a='x", "has no closing '"),
        ("a=0:1:0", "the step of 0:1:0 is 0"),
        ("a=0:1:-0.5", "lead away from 1"),
        ("a=0:1", "is no range"),
        ("a=9..3", "the range 9..3 is empty"),
        ("a=1..9%0", "%0 is no number of cells"),
        ("a=1..9%", "% is no number of cells"),
        ("a=1..2000000", "2,000,000 values"),
        ("a=0:1:1e-12", "values"),
        ("a=0:1e999999999:1e-999999999", "too large or too small"),
    ],
)
def test_refusals_name_the_axis(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_axes([text])
    assert words in str(caught.value)
    assert "--grid" in str(caught.value)


def test_an_axis_twice() -> None:
    with pytest.raises(BadInput, match="gives axis `a` twice"):
        read_axes(["a=1", "a=2"])


def test_zips_and_excludes() -> None:
    assert read_zips(["a,b", "c, d"]) == [["a", "b"], ["c", "d"]]
    assert read_excludes(["a=1,b=x", "sizes=[1,4]"]) == [{"a": 1, "b": "x"}, {"sizes": [1, 4]}]
    for word, said in (("a", "'a' has no value"), ("a=1,a=2", "names `a` twice"), ("a=", "has no value")):
        with pytest.raises(BadInput, match=said):
            read_excludes([word])
