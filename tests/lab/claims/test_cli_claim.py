"""`lab claim`, as it is typed: answers, exit codes, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import Exit
from lab import main
from tests.lab.claims.package import Package


@pytest.fixture
def claim(made: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`lab claim WORDS`: exit code, stdout, stderr."""
    monkeypatch.setenv("LAB_HOME", str(made.home.path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(made.here)

    def run(*words: str) -> tuple[int, str, str]:
        code = main.main(["claim", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def written(made: Package, tmp_path: Path, **over: Any) -> str:
    path = tmp_path / "claim.yaml"
    path.write_text(yaml.safe_dump(made.claim(**over)))
    return str(path)


def test_from_the_statement_to_the_demotion(made: Package, claim: Any, tmp_path: Path) -> None:
    made.submit()
    code, out, err = claim("new", written(made, tmp_path))
    assert (code, err) == (Exit.OK, "")
    assert "claim digits is stated" in out
    code, out, _ = claim("check", "digits")
    assert code == Exit.JOB_FAILED, "there are no results yet"
    made.run()
    code, out, _ = claim("check", "digits")
    assert code == Exit.OK
    assert "FID is 15.00 [closest-feasible] of 400 [closest-feasible] samples" in out
    assert "memorisation" in out, "every gate is shown"
    code, out, _ = claim("check", "digits", "--json")
    told = json.loads(out)
    assert (told["schema"], told["rung"], told["reached"]) == ("lab.claim/1", "closest-feasible", True)
    assert {g["gate"] for g in told["gates"]} >= {"bytes", "demotion", "independent"}
    (fid,) = [n for n in told["numbers"] if n["reference"] == "eval.fid:.2f"]
    assert fid["value"] == 15.0
    assert fid["cells"][0] | {"row": 0} == {
        "job": made.ids["eval"], "role": "eval", "table": "drift_eval", "row": 0, "column": "value",
    }  # fmt: skip

    path = made.home.run_dir(made.ids["train"], 1).artifacts / "model.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    code, out, _ = claim("show", "digits")
    assert code == Exit.OK, "to look is no check"
    assert "demoted: was closest-feasible" in out
    assert f"job {made.ids['train']}: artifacts/model.npz was" in out
    assert "15.00 [refused]" in out
    code, out, _ = claim("list", "--json")
    (row,) = json.loads(out)["claims"]
    assert (row["label"], row["demoted_from"], row["by"][0]) == ("refused", "closest-feasible", "bytes")
    assert claim("list", "--quiet")[1] == "digits\n"
    assert claim("check", "digits")[0] == Exit.JOB_FAILED
    assert claim("show", "digits", "--quiet")[1] == "refused\n"


def test_waive_and_withdraw(made: Package, claim: Any, tmp_path: Path) -> None:
    made.submit()
    claim("new", written(made, tmp_path))
    train = str(made.ids["train"])
    assert claim("waive", "digits", "trained", "--job", train)[0] == Exit.BAD_INPUT
    assert "cannot be waived" in claim("waive", "digits", "bytes", "--job", train, "--why", "x")[2]
    code, out, _ = claim("waive", "digits", "trained", "--job", train, "--why", "a smoke test", "--json")
    assert (code, json.loads(out)["schema"], json.loads(out)["gate"]) == (Exit.OK, "lab.claim-waived/1", "trained")
    assert "waived: trained for job" in claim("show", "digits")[1]
    assert claim("withdraw", "digits")[0] == Exit.BAD_INPUT
    assert claim("withdraw", "digits", "--why", "another is better")[0] == Exit.OK
    assert "withdrawn: another is better" in claim("show", "digits")[1]
    assert claim("check", "digits")[0] == Exit.BAD_INPUT
    assert "No claim is stated" in claim("list")[1]
    assert "withdrawn" in claim("list", "--all")[1]


def test_what_is_refused_before_anything_is_written(made: Package, claim: Any, tmp_path: Path) -> None:
    made.submit()
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nstatement: [\n")
    cases = [
        (("new",), Exit.BAD_INPUT, "no file was named"),
        (("new", str(tmp_path / "none.yaml")), Exit.BAD_INPUT, "does not exist"),
        (("new", str(bad)), Exit.BAD_INPUT, "bad.yaml:3: this is not YAML"),
        (("new", written(made, tmp_path, wants="great")), Exit.BAD_INPUT, "no label 'great'"),
        (("new", "--template", str(bad)), Exit.BAD_INPUT, "leave one out"),
        (("show", "letters"), Exit.NOT_FOUND, "no claim 'letters'"),
        (("check", "letters"), Exit.NOT_FOUND, "no claim 'letters'"),
        (("waive", "letters", "trained", "--why", "x"), Exit.BAD_INPUT, "--job was not given"),
    ]
    for words, exit_code, said in cases:
        code, _, err = claim(*words)
        assert code == exit_code, (words, err)
        assert said in err
        assert len(err.strip().splitlines()) == 1
    assert "No claim is stated" in claim("list")[1]


def test_the_template_can_be_stated(made: Package, claim: Any, tmp_path: Path) -> None:
    """It names jobs that are not there: that is how a claim comes before its results."""
    made.submit()
    code, out, _ = claim("new", "--template")
    assert code == Exit.OK
    path = tmp_path / "mine.yaml"
    path.write_text(out)
    assert claim("new", str(path))[0] == Exit.OK
    code, out, _ = claim("show", "digits-fid")
    assert code == Exit.OK
    assert "smoke" in out


def test_a_claim_may_be_the_first_thing_in_a_home(claim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before its results; what is refused leaves nothing behind."""
    new = tmp_path / "new" / "home"
    monkeypatch.setenv("LAB_HOME", str(new))
    path = tmp_path / "mine.yaml"
    path.write_text("name: [")
    assert claim("new", str(path))[0] == Exit.BAD_INPUT
    assert not new.exists()
    path.write_text(claim("new", "--template")[1])
    assert claim("new", str(path))[0] == Exit.OK
    assert "digits-fid" in claim("list")[1]
