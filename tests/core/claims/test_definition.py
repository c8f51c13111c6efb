"""A claim is read whole or refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from core.claims import Rung, read
from core.claims.definition import Rule
from core.errors import BadInput
from lab.claims.stating import TEMPLATE

GOOD: dict[str, Any] = {"name": "c", "statement": "FID {eval.fid}", "wants": "smoke", "cites": {"eval": 1}}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "needs `name`"),
    ({"name": "A claim"}, "cannot be the name"),
    ({"wants": "great"}, "no label 'great'"),
    ({"wants": None}, "needs `wants`"),
    ({"cites": {}}, "needs `cites`"),
    ({"cites": [1]}, "must be a mapping"),
    ({"cites": {"eval": 0}}, "is no job"),
    ({"cites": {"eval": -1}}, "is no job id"),
    ({"cites": {"eval": True}}, "is no job"),
    ({"cites": {"Eval": 1}}, "cannot be a role"),
    ({"cites": {"seeds": [{"evals": 1}]}}, "did you mean `eval`"),
    ({"statment": "x"}, "did you mean `statement`"),
    ({"schema": "lab.claim/9"}, "the schema is 'lab.claim/9'"),
    ({"selection": {"rule": "nicest"}}, "no rule 'nicest'"),
    ({"selection": {"rule": "best", "over": {"seed": [1]}}}, "`by` says"),
    ({"selection": {"rule": "all"}}, "needs what is chosen from"),
    ({"margins": {"control": 0}}, "control is 0"),
    ({"margins": {"memorisation": 0.5}}, "memorisation is 0.5"),
    ({"margins": {"control": float("nan")}}, "must be a number"),
    ({"comparisons": [{"a": "eval.fid"}]}, "needs a and b"),
    ({"comparisons": "eval.fid"}, "must be a list"),
    ({"scope": {"deferred": [{"why": "x"}]}}, "needs a name"),
    ({"scope": {"open": [{"name": "x", "caps": "paper-faithful"}]}}, "cannot cap at"),
    ({"contract": "abc"}, "is no SHA-256"),
    ({"package": "p", "nodes": [1]}, "both package and nodes"),
    ({"notes": [{"of": "a / b"}]}, "needs its text"),
]


@pytest.mark.parametrize(("over", "said"), BAD, ids=[s for _, s in BAD])
def test_refused_in_a_sentence(over: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read({**GOOD, **over}, "claim.yaml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("claim.yaml")


def test_what_is_read() -> None:
    claim = read({**GOOD, "cites": {"eval": "7", "sweep": [1, "p/e"], "seeds": [{"train": 2, "eval": 3}]}})
    assert claim.cites == {"eval": 7, "sweep.0": 1, "sweep.1": "p/e", "seeds.0.train": 2, "seeds.0.eval": 3}
    assert (claim.wants, claim.selection.rule, claim.margins.control) == (Rung.SMOKE, Rule.ONLY, 0.1)
    assert claim.roles("sweep") == ["sweep.0", "sweep.1"]


def test_the_template_is_a_claim() -> None:
    claim = read(yaml.safe_load(TEMPLATE))
    assert claim.name == "digits-fid"
    assert claim.scope.deferred[0].caps is Rung.CLOSEST_FEASIBLE
