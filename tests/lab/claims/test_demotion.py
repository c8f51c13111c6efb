"""A label is withdrawn when its evidence changes, and what has changed is named; waivers and pins."""

from __future__ import annotations

import pytest

from core.claims import Gate, Outcome, Rung
from core.errors import BadInput, NotFound
from core.fsio import sha256_file
from core.journal import Journal, Role, query
from lab.claims import collect as collecting
from lab.claims import evaluate, pinned, stating
from lab.claims.render import demoted
from tests.lab.claims.conftest import Look
from tests.lab.claims.package import Package


def check(made: Package, name: str = "digits") -> bool:
    """What `lab claim check` does. Returns whether something was written."""
    with Journal.open(made.home, Role.CLIENT) as journal:
        found = evaluate(made.home, journal.conn, name)
        return stating.record(journal, name, found.label, found.evidence.current, {c.job for c in found.evidence.cited})


@pytest.fixture
def promoted(made: Package, look: Look) -> Package:
    made.submit()
    made.state()
    made.run()
    assert check(made)
    assert look().label.reached
    return made


def test_a_checkpoint_altered_on_the_disk_demotes(promoted: Package, look: Look) -> None:
    """Nobody asks for an audit: looking is enough."""
    path = promoted.home.run_dir(promoted.ids["train"], 1).artifacts / "model.npz"
    old = sha256_file(path)
    blob = bytearray(path.read_bytes())
    blob[-100] ^= 1
    path.write_bytes(bytes(blob))
    found = look()
    assert found.label.demoted_from is Rung.CLOSEST_FEASIBLE
    assert found.label.rung is None
    assert found.label.by[0].gate is Gate.BYTES
    assert [(c.job, c.what, c.old, c.new) for c in found.label.changed] == [
        (promoted.ids["train"], "artifacts/model.npz", old, sha256_file(path))
    ]
    said = demoted(found)
    assert "was closest-feasible" in said
    assert f"job {promoted.ids['train']}: artifacts/model.npz was {old[:12]}, is {sha256_file(path)[:12]}" in said
    # The record of a demotion does not forget what it once had.
    assert check(promoted)
    assert look().label.demoted_from is Rung.CLOSEST_FEASIBLE
    blob[-100] ^= 1
    path.write_bytes(bytes(blob))
    found = look()
    assert found.label.reached
    assert demoted(found) == ""


def test_what_is_equal_is_recorded_once(promoted: Package, look: Look) -> None:
    assert not check(promoted)
    assert look().label.changed == ()


def test_new_code_of_the_gates_is_a_change(promoted: Package, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "gate_code", lambda: "5" * 64)
    label = look().label
    assert [c.what for c in label.changed] == ["gates"]
    assert label.reached, "the gates say the same: nothing is demoted"
    assert label.demoted_from is None


def test_compaction_is_no_change(promoted: Package, look: Look) -> None:
    """Parts are written anew now and then; the rows stay what they were."""
    with Journal.open(promoted.home) as journal:
        row = query.claim(journal.conn, "digits")
        assert row.highest is not None
        assert not [name for name in row.highest["items"] if "tables/" in name]
    assert look().label.changed == ()


def test_a_waiver_lifts_to_experimental_and_no_further(made: Package, look: Look) -> None:
    made.params["eval"]["allow_shared_encoder"] = True
    made.submit()
    made.state(made.claim(selection={"rule": "only"}))
    made.run()
    before = look().label
    assert (before.rung, [f.gate for f in before.by]) == (Rung.SMOKE, [Gate.OVERRIDE])
    with Journal.open(made.home, Role.CLIENT) as journal:
        stating.waive(journal, "digits", "override", made.ids["eval"], "the encoder is a linear map")
    after = look()
    assert (after.label.rung, after.label.outcome) == (Rung.EXPERIMENTAL, Outcome.CAPPED)
    assert "the encoder is a linear map" in after.label.by[0].reason
    assert [(w.gate, w.job) for w in after.evidence.waivers] == [("override", made.ids["eval"])]


def test_a_waiver_of_a_missing_audit(made: Package, look: Look) -> None:
    made.submit()
    given = made.claim()
    del given["cites"]["nn"]
    made.state(given)
    made.run()
    assert look().label.rung is Rung.SMOKE
    with Journal.open(made.home, Role.CLIENT) as journal:
        stating.waive(journal, "digits", "memorisation", made.ids["sample"], "no room for it")
    assert look().label.rung is Rung.EXPERIMENTAL


@pytest.mark.parametrize("gate", [g for g in Gate if g not in stating.WAIVABLE])
def test_what_is_so_or_not_so_cannot_be_waived(made: Package, gate: Gate) -> None:
    made.submit()
    made.state()
    with Journal.open(made.home, Role.CLIENT) as journal:
        before = journal.last_seq()
        with pytest.raises(BadInput, match="cannot be waived"):
            stating.waive(journal, "digits", str(gate), made.ids["eval"], "please")
        assert journal.last_seq() == before


def test_a_waiver_does_not_lift_a_contradiction(made: Package, look: Look) -> None:
    made.change["train"] = lambda files: files["tables"]["drift_steps"].pop()
    made.change["train"] = lambda files: files["tables"].update(drift_steps=files["tables"]["drift_steps"][:5])
    made.submit()
    made.state()
    made.run()
    with Journal.open(made.home, Role.CLIENT) as journal:
        stating.waive(journal, "digits", "trained", made.ids["train"], "it looks fine")
    label = look().label
    assert label.rung is None
    assert Gate.TRAINED in {f.gate for f in label.by}


def test_bad_waivers(made: Package) -> None:
    made.submit()
    made.state()
    with Journal.open(made.home, Role.CLIENT) as journal:
        with pytest.raises(BadInput, match="no gate 'bites'"):
            stating.waive(journal, "digits", "bites", made.ids["eval"], "x")
        with pytest.raises(BadInput, match="needs a reason"):
            stating.waive(journal, "digits", "trained", made.ids["eval"], " ")
        with pytest.raises(BadInput, match="does not cite job"):
            stating.waive(journal, "digits", "trained", made.ids["eval-broken"], "x")
        with pytest.raises(NotFound, match="no claim 'letters'"):
            stating.waive(journal, "letters", "trained", made.ids["eval"], "x")


def test_what_a_claim_cites_is_pinned(made: Package) -> None:
    """Also what it names before it is there; until the claim is withdrawn."""
    made.submit()
    made.state()
    cited = {i for n, i in made.ids.items() if n not in ("sample-untrained", "train-untrained", "eval-broken")}
    cited -= {made.ids["sample-a1"], made.ids["sample-a2"]}
    with Journal.open(made.home, Role.CLIENT) as journal:
        assert pinned(made.home, journal.conn) == cited
        stating.withdraw(journal, "digits", "another is better")
        assert pinned(made.home, journal.conn) == frozenset()
        with pytest.raises(BadInput, match="withdrawn already"):
            stating.withdraw(journal, "digits", "again")
    made.state()  # its name is free again
    with Journal.open(made.home) as journal:
        assert pinned(made.home, journal.conn) == cited


def test_a_claim_names_jobs_that_are_not_there_yet(made: Package, look: Look) -> None:
    from core.home import Home

    home: Home = made.home
    with Journal.open(home, Role.CLIENT, create=True) as journal:
        stating.state(journal, made.claim())
        assert pinned(home, journal.conn) == frozenset()
    assert "no job is called" in next(f.reason for f in look().label.findings if f.gate is Gate.IDENTITY)
    made.submit()
    made.run()
    with Journal.open(home) as journal:
        assert made.ids["eval"] in pinned(home, journal.conn)
    assert look().label.reached


def test_a_name_is_stated_once(made: Package) -> None:
    made.submit()
    made.state()
    with pytest.raises(BadInput, match="is stated already"):
        made.state()
    with pytest.raises(BadInput, match=r"\{letters.fid\} names no cited role"):
        made.state(made.claim(name="x", statement="FID {letters.fid}"))
    with pytest.raises(BadInput, match="no job 999"):
        made.state(made.claim(name="x", cites={"eval": 999}, statement="{eval.fid}", comparisons=[], notes=[]))
