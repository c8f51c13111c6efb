"""`lab floor`: the verdicts as a table, the floor as a view over committed results, and what can never promote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import BadInput, Exit
from core.home import Home
from core.journal import Event, Journal, Role
from core.states import EventKind as K
from core.tables import append_part
from jobs.score.formula import Score
from jobs.score.proxy import Authority, authority_of
from jobs.score.schema import FILES, SCORE
from jobs.train.schema import CANDIDATES, TRAINING
from lab import cli, main
from lab.floor import Floor, Scoring, Standing, Verdict, find_floor, judge, noise_of, read_rivals, read_scorings

PROXY = ("a proxy value (the first 16 pairs only)",)
SIDE = ("lane mini had not the role promote",)

# candidate, bars, floor, noise -> verdict, a word of the rule. Each rounding may hide 0.001 on either side.
TABLE = [
    (1.95, (), None, None, Verdict.PROMOTE, "there was no floor"),
    (1.95, (), 1.99, 0.01, Verdict.PROMOTE, "beats the floor"),
    (1.95, (), 1.99, 0.0, Verdict.PROMOTE, "beats the floor"),
    (1.977, (), 1.99, 0.01, Verdict.PROMOTE, "beats the floor"),
    (1.979, (), 1.99, 0.01, Verdict.CLOSE_MISS, "equal to the floor"),
    (1.99, (), 1.99, 0.01, Verdict.CLOSE_MISS, "equal to the floor"),
    (2.001, (), 1.99, 0.01, Verdict.CLOSE_MISS, "equal to the floor"),
    (2.003, (), 1.99, 0.01, Verdict.REJECT, "worse"),
    (1.9885, (), 1.99, 0.0, Verdict.CLOSE_MISS, "equal to the floor"),
    (1.50, (), 1.99, 1.0, Verdict.CLOSE_MISS, "equal to the floor"),
    (1.50, (), 1.99, None, Verdict.CLOSE_MISS, "noise is unknown"),
    (1.989, (), 1.99, None, Verdict.CLOSE_MISS, "rounding alone"),
    (2.50, (), 1.99, None, Verdict.REJECT, "noise is unknown"),
    (1.00, PROXY, None, 0.0, Verdict.UNRANKED, "only ranks"),
    (1.00, PROXY, 1.99, 0.0, Verdict.CLOSE_MISS, "only ranks"),
    (1.00, SIDE, 1.99, 0.0, Verdict.CLOSE_MISS, "mini"),
    (1.00, PROXY, 1.99, None, Verdict.CLOSE_MISS, "only ranks"),
    (1.99, PROXY, 1.99, 0.0, Verdict.CLOSE_MISS, "equal"),
    (2.50, PROXY, 1.99, 0.0, Verdict.CUT, "behind"),
    (2.50, SIDE, 1.99, None, Verdict.CUT, "behind"),
]


@pytest.mark.parametrize(("value", "bars", "floor", "noise", "verdict", "rule"), TABLE)
def test_verdicts(
    value: float, bars: tuple[str, ...], floor: float | None, noise: float | None, verdict: Verdict, rule: str
) -> None:
    told = judge(Standing(value, 0.001, bars), None if floor is None else Standing(floor, 0.001), noise)
    assert told.verdict is verdict
    assert rule in told.rule
    assert told.gain == (None if floor is None else pytest.approx(floor - value, abs=1e-12))


@pytest.mark.parametrize("value", [0.0, 1.0, 1.98, 1.99, 2.0, 3.0])
@pytest.mark.parametrize("floor", [None, 1.99])
@pytest.mark.parametrize("noise", [None, 0.0, 0.01])
@pytest.mark.parametrize("bars", [PROXY, SIDE, PROXY + SIDE])
def test_what_only_ranks_never_promotes(
    value: float, floor: float | None, noise: float | None, bars: tuple[str, ...]
) -> None:
    assert judge(Standing(value, 0.0, bars), Standing(floor) if floor else None, noise).verdict is not Verdict.PROMOTE


def test_authorities_are_ordered() -> None:
    assert Authority.UPSTREAM > Authority.SCORER > Authority.PROXY > Authority.TRAINING > Authority.SIDE
    assert [a for a in Authority if a.promotes] == [Authority.SCORER, Authority.UPSTREAM]
    assert Authority.of("upstream") is Authority.UPSTREAM
    with pytest.raises(BadInput, match="there is no authority 'best'"):
        Authority.of("best")
    clean: dict[str, Any] = {"commit": "a" * 40, "dirty": False}
    assert authority_of(**clean)[0] is Authority.SCORER
    assert authority_of(pinned=True, **clean)[0] is Authority.UPSTREAM
    assert authority_of(proxy="a part", pinned=True, **clean) == (Authority.PROXY, "a part")
    assert authority_of(commit="a" * 40, dirty=True)[0] is Authority.PROXY
    assert authority_of(commit="a" * 40, dirty=None)[0] is Authority.PROXY
    assert authority_of()[0] is Authority.PROXY


def scoring(job: int, bundle: str, value: float, **more: Any) -> Scoring:
    given: dict[str, Any] = {"contract": "c" * 64, "authority": Authority.SCORER, "bytes": 1000, "resolution": 0.0}
    given |= {"name": bundle, "lane": "local"}
    return Scoring(job=job, bundle=bundle, value=value, **(given | more))


def told(floor: Floor) -> dict[str, Verdict]:
    return {c.name: c.judged.verdict for c in floor.candidates if c.judged is not None}


def test_the_floor_goes_down_by_more_than_the_noise_each_time() -> None:
    rows = [
        scoring(1, "first", 2.0),
        scoring(2, "first", 2.004),  # the noise: 0.004, and the mean 2.002
        scoring(3, "near", 1.999),
        scoring(4, "second", 1.95),
        scoring(5, "worse", 1.96),
        scoring(6, "third", 1.90),
    ]
    found = find_floor(rows)
    assert found.noise.value == pytest.approx(0.004)
    assert found.floor is not None
    assert (found.floor.name, found.floor.jobs) == ("third", (6,))
    assert [c.name for c in found.candidates] == ["third", "second", "worse", "near", "first"]
    assert told(found) == {
        "first": Verdict.PROMOTE,
        "near": Verdict.CLOSE_MISS,
        "second": Verdict.PROMOTE,
        "worse": Verdict.REJECT,
        "third": Verdict.PROMOTE,
    }
    assert sum(c.is_floor for c in found.candidates) == 1
    assert find_floor(reversed(rows)) == found, "in whatever order the rows come"


def test_many_small_steps_are_measured_from_the_floor() -> None:
    rows = [scoring(1, "a", 2.0), scoring(2, "a", 2.01), *(scoring(n, f"s{n}", 2.008 - n / 1000) for n in range(3, 20))]
    found = find_floor(rows)
    first = min(
        c.jobs[0] for c in found.candidates if c.judged and c.judged.verdict is Verdict.PROMOTE and c.name != "a"
    )
    assert 2.005 - (2.008 - first / 1000) > 0.01
    assert 2.005 - (2.008 - (first - 1) / 1000) <= 0.01 + 1e-12


def test_without_a_second_scoring_nothing_beats_the_floor() -> None:
    rows = [scoring(1, "a", 2.0), scoring(2, "b", 1.0)]
    found = find_floor(rows)
    assert found.floor is not None
    assert (found.floor.name, found.noise.value) == ("a", None)
    assert told(found)["b"] is Verdict.CLOSE_MISS
    again = find_floor([*rows, scoring(3, "b", 1.0)])
    assert again.floor is not None
    assert (again.floor.name, again.noise.value, again.noise.repeated) == ("b", 0.0, 1)


def test_noise() -> None:
    assert noise_of([scoring(1, "a", 2.0)]).value is None
    rows = [
        scoring(1, "a", 2.0),
        scoring(2, "a", 2.1),
        scoring(3, "b", 9.0),
        scoring(4, "b", 9.3),
        scoring(5, "c", 0.0),
    ]
    assert noise_of(rows).value == pytest.approx(0.3)
    assert noise_of(rows).repeated == 2


def test_proxies_and_other_contracts_stand_apart() -> None:
    other: dict[str, Any] = {"contract": "d" * 64}
    proxy: dict[str, Any] = {"contract": "e" * 64, "authority": Authority.PROXY, "bars": PROXY}
    rows = [
        scoring(1, "old", 0.5, **other),  # another evaluator: a number that says nothing here
        scoring(2, "floor", 2.0),
        scoring(3, "floor", 2.0),
        scoring(4, "floor", 3.0, **proxy),
        scoring(5, "good", 2.5, **proxy),
        scoring(6, "bad", 3.5, **proxy),
        scoring(7, "side", 1.0, bars=SIDE),
    ]
    found = find_floor(rows)
    assert found.floor is not None
    assert found.floor.name == "floor"
    verdicts = {(c.name, c.contract[0]): c.judged.verdict for c in found.candidates if c.judged}
    assert verdicts == {
        ("floor", "c"): Verdict.PROMOTE,
        ("side", "c"): Verdict.CLOSE_MISS,
        ("old", "d"): Verdict.UNRANKED,
        ("floor", "e"): Verdict.CLOSE_MISS,
        ("good", "e"): Verdict.CLOSE_MISS,
        ("bad", "e"): Verdict.CUT,
    }
    assert found.contracts == ("d" * 64, "c" * 64)
    before = find_floor(rows, contract="dd")
    assert before.floor is not None
    assert before.floor.name == "old"
    for wrong in ("x", "e"):
        with pytest.raises(BadInput, match="no contract"):
            find_floor(rows, contract=wrong)
    with pytest.raises(BadInput, match="several contracts"):
        find_floor([*rows, replace(rows[1], job=9, contract="cd")], contract="c")


def test_nothing_that_may_promote_is_no_floor() -> None:
    found = find_floor([scoring(1, "a", 0.1, authority=Authority.PROXY, bars=PROXY)])
    assert found.floor is None
    assert told(found) == {"a": Verdict.UNRANKED}
    assert find_floor([]).floor is None


# The journal: which rows count, and what the lane was allowed at the time.

CLUSTER = """lanes:
  local: {transport: local, cores: 1}
  plain: {transport: local, cores: 1, roles: [eval]}
  far: {transport: ssh, host: example.org}
"""


class Lab:
    """A home in which scorings are committed as the controller would."""

    def __init__(self, folder: Path) -> None:
        (folder / "cluster.yaml").write_text(CLUSTER)
        self.home = Home(folder / "home", folder / "cluster.yaml")
        self.folder = folder
        self.jobs = 0

    def admit(self, lane: str, ok: bool) -> None:
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            tx.append(K.ADMITTED, lane=lane, data={"role": "promote", "ok": ok, "reason": ""})

    def score(
        self,
        bundle: str,
        *,
        seg: float,
        lane: str = "local",
        role: str = "eval",
        undeclared: int = 0,
        state: str = "succeeded",
        row: dict[str, Any] | None = None,
    ) -> int:
        self.jobs += 1
        n = self.jobs
        spec: dict[str, Any] = {
            "kind": "score",
            "inputs": [],
            "code": None,
            "needs": {"cores": 1, "role": role},
            "limits": {},
        }
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal:
            folder = self.folder / "arrows"
            folder.mkdir(exist_ok=True)
            path = folder / f"{n}.arrow"
            table = pa.Table.from_pylist([made_row(bundle, seg) | (row or {})], schema=SCORE)
            with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
                writer.write_table(table)
            where: dict[str, Any] = {"job": n, "attempt": 1, "lane": lane, "key": f"k{n}", "kind": "score"}
            part = append_part(self.home, **where, table="score", arrow_path=path, schema=SCORE)
            submitted = {"kind": "score", "name": bundle, "params": {"archive": bundle}, "key": f"k{n}", "priority": 0}
            submitted |= {"spec": f"s{role}", "held": False, "idem": None, "tags": [], "note": "", "after": []}
            ended = {"state": state, "cause": "ok", "parts": [part.data()] if state == "succeeded" else []}
            with journal.transaction() as tx:
                tx.extend(
                    [
                        Event(K.SPEC, data={"digest": f"s{role}", "data": json.dumps(spec)}),
                        Event(K.SUBMITTED, job=n, data=submitted),
                        Event(K.PLACED, n, 1, lane, {"nonce": "n", "grant": {}}),
                        Event(K.ATTEMPT_ENDED, n, 1, lane, ended | {"undeclared": ["/x"] * undeclared}),
                        Event(
                            K.JOB_ENDED,
                            job=n,
                            data={"state": state, "cause": "ok", "reason": "", "undeclared": undeclared},
                        ),
                    ]
                )
        return n

    def commit(self, kind: str, name: str, tables: dict[str, pa.Table]) -> int:
        """A job that succeeded on `local` with such results."""
        self.jobs += 1
        n = self.jobs
        spec: dict[str, Any] = {"kind": kind, "inputs": [], "code": None, "needs": {"cores": 1}, "limits": {}}
        folder = self.folder / "arrows"
        folder.mkdir(exist_ok=True)
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal:
            parts = []
            for table, rows in tables.items():
                path = folder / f"{n}-{table}.arrow"
                with pa.OSFile(str(path), "wb") as f, pa.ipc.new_file(f, rows.schema) as writer:
                    writer.write_table(rows)
                where: dict[str, Any] = {"job": n, "attempt": 1, "lane": "local", "key": f"k{n}", "kind": kind}
                parts.append(append_part(self.home, **where, table=table, arrow_path=path, schema=rows.schema).data())
            submitted = {"kind": kind, "name": name, "params": {}, "key": f"k{n}", "priority": 0, "spec": f"s{kind}"}
            submitted |= {"held": False, "idem": None, "tags": [], "note": "", "after": []}
            ended = {"state": "succeeded", "cause": "ok", "parts": parts, "undeclared": []}
            with journal.transaction() as tx:
                tx.extend(
                    [
                        Event(K.SPEC, data={"digest": f"s{kind}", "data": json.dumps(spec)}),
                        Event(K.SUBMITTED, job=n, data=submitted),
                        Event(K.PLACED, n, 1, "local", {"nonce": "n", "grant": {}}),
                        Event(K.ATTEMPT_ENDED, n, 1, "local", ended),
                        Event(
                            K.JOB_ENDED,
                            job=n,
                            data={"state": "succeeded", "cause": "ok", "reason": "", "undeclared": 0},
                        ),
                    ]
                )
        return n

    def train(self, name: str, value: float, **more: Any) -> int:
        """A training that would ship something of this evaluation value."""
        given = {"quantity": "upstream training value", "pairs": "p" * 64, "made": "m" * 64, "shipped": name, **more}
        common = {"branch": name, "quantity": given["quantity"]}
        own: dict[str, Any] = {
            **{n: "0" * 64 for n in TRAINING.names if n.endswith("_sha256")},
            **dict.fromkeys((n for n in TRAINING.names if pa.types.is_int64(TRAINING.field(n).type)), 1),
            "mode": "fresh",
            "bundle_bytes": 4000,
            "device": "cpu",
            "torch": "2",
            "seconds": 1.0,
            "shipped_sha256": given["shipped"],
            "evaluation_sha256": given["pairs"],
            "value_sha256": given["made"],
        }
        measured: dict[str, Any] = {"evaluation_terms": "{}", "psnr": 30.0, "chosen": False}
        candidates = [
            {**common, **measured, "weights": "decoded", "evaluation_value": 9.0},
            {**common, **measured, "weights": "average-int8", "evaluation_value": value + 1, "psnr": 31.0},
            {**common, **measured, "weights": "average-int8", "evaluation_value": value, "psnr": 32.5, "chosen": True},
        ]
        tables = {
            "training": pa.Table.from_pylist([{**common, **own}], schema=TRAINING),
            "candidates": pa.Table.from_pylist(candidates, schema=CANDIDATES),
        }
        return self.commit("train", "", tables)

    def scorings(self, view: str = "archive", warnings: list[str] | None = None) -> list[Scoring]:
        with Journal.open(self.home) as journal:
            return read_scorings(self.home, journal.conn, view, warnings if warnings is not None else [])

    def floor(self, view: str = "archive") -> Floor:
        return find_floor(self.scorings(view), view=view)


def made_row(bundle: str, seg: float) -> dict[str, Any]:
    score, whole = Score(0.05, seg, 900_000), Score(0.05, seg, 950_000)
    return {
        "score": score.value,
        "pose": 0.05,
        "seg": seg,
        "rate": score.rate,
        "seg_part": score.seg_part,
        "pose_part": score.pose_part,
        "rate_part": score.rate_part,
        "printed": round(score.value, 2),
        "resolution": 1e-6,
        "archive_bytes": 900_000,
        "original_bytes": score.original_bytes,
        "faithful_score": whole.value,
        "faithful_rate": whole.rate,
        "faithful_bytes": 950_000,
        "view": "archive",
        "value": score.value,
        "authority": "scorer",
        "why": "the evaluator is not pinned",
        "samples": 600,
        "device": "cpu",
        "checkout_commit": "a" * 40,
        "checkout_dirty": False,
        "scorer_sha256": "5" * 64,
        "contract_sha256": "c" * 64,
        "archive_sha256": "b" * 64,
        "bundle_sha256": bundle,
        "report_sha256": "e" * 64,
        "evaluator_python": None,
        "evaluator_packages": None,
        "seconds": 1.0,
    }


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def bars(lab: Lab) -> dict[str, tuple[str, ...]]:
    return {s.bundle: s.bars for s in lab.scorings()}


def test_the_floor_is_made_from_committed_results(lab: Lab) -> None:
    lab.score("a", seg=0.006)
    lab.score("a", seg=0.006)
    lab.score("b", seg=0.005)
    lab.score("c", seg=0.004, state="failed")
    found = lab.floor()
    assert found.floor is not None
    assert found.floor.name == "b"
    assert found.floor.standing.value == Score(0.05, 0.005, 900_000).value
    faithful = lab.floor("faithful")
    assert faithful.floor is not None
    assert faithful.floor.standing.value == Score(0.05, 0.005, 950_000).value


def test_a_row_that_contradicts_itself_is_left_out(lab: Lab) -> None:
    lab.score("honest", seg=0.006)
    lab.score("forged", seg=0.006, row={"score": 0.1, "value": 0.1})
    lab.score("nan", seg=0.006, row={"seg": float("nan")})
    lab.score("word", seg=0.006, row={"authority": "official"})
    warnings: list[str] = []
    assert [s.bundle for s in lab.scorings(warnings=warnings)] == ["honest"]
    assert [w.split(":")[0] for w in warnings] == [f"the scoring of job {n} is left out" for n in (2, 3, 4)]
    assert "its parts give" in warnings[0]


def test_a_proxys_row_only_ranks(lab: Lab) -> None:
    lab.score("p", seg=0.001, role="promote", row={"authority": "proxy", "why": "the first 16 pairs only"})
    assert bars(lab) == {"p": ("a proxy value (the first 16 pairs only)",)}
    assert lab.floor().floor is None


def test_lanes_without_the_role_at_the_time(lab: Lab) -> None:
    lab.score("here", seg=0.006)
    lab.score("plain", seg=0.006, lane="plain")
    lab.score("before", seg=0.001, lane="far")
    lab.admit("far", True)
    lab.score("while", seg=0.005, lane="far")
    lab.admit("far", False)
    lab.score("after", seg=0.001, lane="far")
    lab.score("unknown", seg=0.001, lane="elsewhere")
    lab.score("asked", seg=0.006, lane="elsewhere", role="promote")  # it was placed by that role
    lab.admit("far", True)  # later: it changes nothing that was
    may = {name for name, why in bars(lab).items() if not why}
    assert may == {"here", "while", "asked"}
    assert bars(lab)["before"] == ("lane far had not the role promote",)
    sided = {s.bundle: s.authority for s in lab.scorings()}
    assert sided["before"] is Authority.SIDE
    assert sided["while"] is Authority.SCORER
    verdicts = told(lab.floor())
    assert {n for n, v in verdicts.items() if v is Verdict.PROMOTE} == {"here"}, "once the noise is known, `while` too"
    lab.score("here", seg=0.006)
    assert {n for n, v in told(lab.floor()).items() if v is Verdict.PROMOTE} == {"here", "while"}


def test_what_read_undeclared_files_only_ranks(lab: Lab) -> None:
    lab.score("u", seg=0.001, undeclared=1)
    assert bars(lab) == {"u": ("it read files that were not declared",)}


def test_rivals(tmp_path: Path) -> None:
    file = tmp_path / "rivals.yaml"
    file.write_text("- {name: b, score: 2.05}\n- {name: a, score: 1.89}\n")
    assert [(r.name, r.score) for r in read_rivals(file)] == [("a", 1.89), ("b", 2.05)]
    file.write_text("rivals:\n  - {name: a, score: 1}\n")
    assert read_rivals(file)[0].score == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1.9", "no list of rivals"),
        ("- a", "rival 1 must have a name and a score"),
        ("- {name: a, score: 1, link: x}", "rival 1 must have"),
        ("- {name: a, score: .nan}", "the score of rival 1"),
        ("- {name: a, score: low}", "the score of rival 1"),
        ("- {name: a, score: true}", "the score of rival 1"),
        ("- {name: a, score: -1}", "the score of rival 1"),
        ("- {name: a, score: 1}\n- {name: a, score: 2}", "there twice"),
        ("- {name: a, score: [", "cannot be read"),
    ],
)
def test_rivals_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rivals.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as error:
        read_rivals(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


# The command.


@pytest.fixture
def command(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setitem(cli.COMMANDS, "floor", cli.Entry("lab.commands.floor", "Show the floor.", "Results"))
    monkeypatch.setenv("LAB_HOME", str(lab.home.path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(lab.folder)

    def run(*words: str) -> tuple[int, str, str]:
        code = main.main(["floor", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_command(lab: Lab, command: Any, tmp_path: Path) -> None:
    lab.score("mine/a.zip", seg=0.006)
    lab.score("mine/a.zip", seg=0.006)
    lab.score("mine/b.zip", seg=0.005)
    lab.score("mine/c.zip", seg=0.007)
    lab.score("mine/d.zip", seg=0.001, row={"authority": "proxy", "why": "the first 16 pairs only"})
    (tmp_path / "rivals.yaml").write_text("- {name: best, score: 1.5}\n- {name: worst, score: 3}\n")
    code, text, _ = command("--rivals", str(tmp_path / "rivals.yaml"))
    assert code == Exit.OK
    value = Score(0.05, 0.005, 900_000).value
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["floor", f"{value:.8f}", "mine/b.zip"]
    assert lines[1].startswith("noise  0, of 1 submission scored again")
    assert "promote (floor)" in text
    assert "reject" in text
    assert "close miss" in text
    assert f"{1.5 - value:+.4f}  behind" in text
    assert f"{3 - value:+.4f}  ahead" in text
    code, text, _ = command("--json", "--rivals", str(tmp_path / "rivals.yaml"))
    answer = json.loads(text)
    assert answer["schema"] == "lab.floor/1"
    assert answer["floor"]["value"] == value
    assert answer["floor"]["jobs"] == [3]
    assert answer["rivals"][0] == {"name": "best", "score": 1.5, "rounding": 0.005, "behind": value - 1.5}
    assert {c["name"]: c["verdict"] for c in answer["candidates"]} == {
        "mine/a.zip": "promote",
        "mine/b.zip": "promote",
        "mine/c.zip": "reject",
        "mine/d.zip": "close miss",
    }
    assert command("--quiet")[1] == f"{value!r}\n"
    assert command("--view", "faithful", "--json")[0] == Exit.OK


def test_a_rivals_score_is_known_as_far_as_it_is_rounded(lab: Lab, command: Any, tmp_path: Path) -> None:
    """1.80637... is 1.81 on a board: who stands there with 1.81 is matched, and with 1.80 is behind."""
    lab.score("mine", seg=0.005)
    value = Score(0.05, 0.005, 900_000).value
    assert f"{value:.2f}" == "1.81"
    for score, word in ((1.81, "equal, as theirs is rounded"), (1.8, "behind"), (1.82, "ahead"), (1.8062, "behind")):
        (tmp_path / "rivals.yaml").write_text(f"- {{name: other, score: {score}}}\n")
        last = command("--rivals", str(tmp_path / "rivals.yaml"))[1].splitlines()[-1]
        assert last.endswith(word)
        assert f"{score - value:+.4f}" in last


def test_the_command_says_what_is_wrong(lab: Lab, command: Any) -> None:
    assert command()[0] == Exit.NOT_FOUND  # no home yet
    lab.admit("far", False)
    code, _, err = command()
    assert code == Exit.NOT_FOUND
    assert "nothing was scored yet" in err
    lab.score("p", seg=0.001, row={"authority": "proxy", "why": ""})
    code, text, _ = command()
    assert code == Exit.OK
    assert text.startswith("there is no floor: nothing that was scored may promote")
    assert json.loads(command("--json")[1])["floor"] is None
    assert command("--view", "both")[0] == Exit.BAD_INPUT
    assert command("--contract", "zz")[0] == Exit.BAD_INPUT
    assert command("--rivals", "nowhere.yaml")[0] == Exit.BAD_INPUT


# Trainings: hypotheses, beside it all.


def test_what_a_training_says_is_a_hypothesis_and_changes_no_verdict(lab: Lab, command: Any) -> None:
    lab.score("mine/a.zip", seg=0.006)
    lab.score("mine/a.zip", seg=0.006)
    before = json.loads(command("--json")[1])
    lab.train("long500_h32", 0.001)  # far below any score
    lab.train("long500_h16", 0.002)
    lab.train("other pairs", 0.0005, pairs="q" * 64)
    lab.train("surrogate", 0.0001, quantity="surrogate value")
    code, text, err = command()
    assert (code, err) == (Exit.OK, "")
    after = json.loads(command("--json")[1])
    hypotheses = after.pop("hypotheses")
    assert before.pop("hypotheses") == []
    assert after == before, "neither floor, noise, candidates nor verdicts"
    assert [(h["name"], h["value"], h["authority"]) for h in hypotheses] == [
        ("surrogate", 0.0001, "training"),
        ("long500_h32", 0.001, "training"),
        ("long500_h16", 0.002, "training"),
        ("other pairs", 0.0005, "training"),
    ]
    assert all("verdict" not in h for h in hypotheses)
    assert hypotheses[1]["gain_db"] == 2.5
    lines = text.splitlines()
    heads = [line for line in lines if line.startswith("hypotheses")]
    assert [line.split("  ")[1] for line in heads] == [
        "surrogate value on the fixed pairs pppppppppppp: no score, ranked with none",
        "upstream training value on the fixed pairs pppppppppppp: no score, ranked with none",
        "upstream training value on the fixed pairs qqqqqqqqqqqq: no score, ranked with none",
    ]
    verdicts = lines[: lines.index(heads[0])]
    assert not any("long500" in line for line in verdicts)


def test_trainings_alone_make_no_floor(lab: Lab, command: Any) -> None:
    for n in range(7):
        lab.train(f"branch{n}", 7.0 - n)
    code, text, _ = command()
    assert code == Exit.OK
    assert text.splitlines()[0] == "there is no floor: nothing was scored yet"
    assert "VERDICT" not in text
    assert "branch6" in text
    assert "and 2 more that are worse" in text
    assert command("--quiet")[1] == ""


def test_a_hypothesis_says_which_job_scored_its_very_file(lab: Lab, command: Any) -> None:
    lab.train("mine", 0.5, shipped="a" * 64)
    lab.train("never", 0.6, shipped="b" * 64)
    rows = [
        {"name": "archive.zip", "bytes": 9, "sha256": "c" * 64, "counts": True},
        {"name": "archive.zip/weights.q", "bytes": 9, "sha256": "a" * 64, "counts": False},
    ]
    files = {"score_files": pa.Table.from_pylist(rows, schema=FILES)}
    scored = lab.commit("score", "x", {"score": pa.Table.from_pylist([made_row("x", 0.006)], schema=SCORE), **files})
    told = {h["name"]: h["scored_in"] for h in json.loads(command("--json")[1])["hypotheses"]}
    assert told == {"mine": [scored], "never": []}
    assert f"job {scored}" in command()[1]


def test_a_training_that_contradicts_itself_is_left_out(lab: Lab, command: Any) -> None:
    lab.train("nan", float("nan"))
    code, text, err = command()
    assert code == Exit.OK
    assert "the training of job 1 is left out: its value is no number" in err
    assert "hypotheses" not in text


def test_evaluators_with_other_packages_are_said(lab: Lab, command: Any) -> None:
    def evaluator(torch: str) -> dict[str, Any]:
        return {"evaluator_python": "3.11.7", "evaluator_packages": json.dumps({"torch": torch, "av": "12"})}

    lab.score("a", seg=0.006, row=evaluator("2.2.0"))
    lab.score("b", seg=0.005, row=evaluator("2.2.0"))
    assert command()[2] == ""
    lab.score("c", seg=0.004, row=evaluator("2.4.1"))
    assert "torch 2.2.0 (job 1 and 1 more), 2.4.1 (job 3)" in command()[2]
    assert "av" not in command()[2].partition("reason:")[2]


def test_roles_of_this_machines_lanes_are_those_of_the_time(lab: Lab) -> None:
    def declare(roles: list[str] | None) -> None:
        declared = {"transport": "local"} | ({"roles": roles} if roles is not None else {})
        with Journal.open(lab.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            tx.append(K.LANE, lane="local", data={"state": "up", "reason": "", "info": {"declared": declared}})

    declare(["eval"])
    lab.score("before", seg=0.006)
    declare(None)  # all roles
    lab.score("since", seg=0.006)
    assert bars(lab) == {"before": ("lane local had not the role promote",), "since": ()}
    assert lab.home.cluster_file is not None
    lab.home.cluster_file.write_text(CLUSTER.replace("local: {", "local: {roles: [eval], "))
    assert bars(lab)["since"] == (), "nor does what cluster.yaml says now take it back"


def test_several_contracts_are_said(lab: Lab, command: Any) -> None:
    lab.score("a", seg=0.006)
    lab.score("b", seg=0.006, row={"contract_sha256": "d" * 64})
    code, text, err = command()
    assert code == Exit.OK
    assert "2 contracts" in err
    assert " b " in text.splitlines()[0]
    _, text, err = command("--contract", "ccc")
    assert err == ""
    assert " a " in text.splitlines()[0]
