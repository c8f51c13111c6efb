"""What people ask of the tables of the evaluating kinds: the queries run on rows of these schemas, and answer."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from core.kind import Kind
from jobs.audit_kind import Audit
from jobs.drift_kinds.evaluate import DriftEval
from jobs.drift_kinds.nn import DriftNn

_FILL = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): True}


def ask(kind: Kind, name: str, **tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answer over these rows, of job 1; what a row does not name is nothing, zero or true."""
    with duckdb.connect() as db:
        for table, schema in kind.tables().items():
            blank = {field.name: _FILL[field.type] for field in schema}
            whole = pa.Table.from_pylist([{**blank, **row} for row in tables.get(table, [])], schema=schema)
            db.register(table, whole.append_column("job", pa.array([1] * len(whole), pa.int64())))
        found = db.execute(kind.questions()[name].sql.format(jobs="job IN (1)"))
        columns = [str(column[0]) for column in found.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def test_each_number_stands_beside_its_floor() -> None:
    rows: list[dict[str, Any]] = [
        {"metric": "fid", "value": 3.0, "n": 48},
        {"metric": "is_mean", "value": 8.0, "n": 48, "waiver": "allow_shared_encoder"},
        {"metric": "fid_floor", "value": 2.0, "n": 40, "control": "held"},
        {"metric": "is_floor", "value": 9.0, "n": 40, "control": "held"},
    ]
    found = {row["metric"]: row for row in ask(DriftEval(), "floor", drift_eval=rows)}
    assert {name: (row["value"], row["floor"], row["floor_n"]) for name, row in found.items()} == {
        "fid": (3.0, 2.0, 40),
        "is_mean": (8.0, 9.0, 40),
    }
    assert found["is_mean"]["waiver"] == "allow_shared_encoder"


def test_waivers_are_listed() -> None:
    (row,) = ask(DriftEval(), "waivers", drift_waiver=[{"waiver": "allow_shared_encoder", "reason": "why"}])
    assert (row["job"], row["waiver"], row["reason"]) == (1, "allow_shared_encoder", "why")


def test_how_much_closer_samples_come_than_held_out_images() -> None:
    rows = [{"which": "samples", "p95": 0.9, "n": 5}, {"which": "held", "p95": 0.75, "n": 5}]
    (row,) = ask(DriftNn(), "memory", drift_nn=rows)
    assert (row["p95"], row["held_p95"], round(row["excess"], 6)) == (0.9, 0.75, 0.15)


def test_checks_are_counted_by_what_they_are_about() -> None:
    rows = [{"of": "eval"}, {"of": "eval", "passed": False}, {"of": "nn"}]
    found = ask(Audit(), "checks", audit=rows)
    assert [(row["of"], row["checks"], row["failed"]) for row in found] == [("eval", 2, 1), ("nn", 1, 0)]
