"""Claims, waivers and pins in the journal: replay gives what living through it gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import NotFound
from core.home import Home
from core.journal import Journal, Role, query, schema
from core.journal.apply import replay
from core.states import EventKind as K
from tests.core.test_journal import state_dump, submitted


def stated(name: str) -> dict[str, object]:
    return {"name": name, "by": "ann", "digest": name * 8, "definition": {"name": name}}


def test_replay_of_claims(tmp_path: Path) -> None:
    with Journal.open(Home(tmp_path / "home"), Role.CLIENT, create=True) as journal:
        with journal.transaction() as tx:
            tx.extend([submitted(1), submitted(2)])
            tx.append(K.CLAIM_STATED, data=stated("a"))
            tx.append(K.PINNED, job=1, data={"claim": "a", "by": "ann", "why": ""})
            tx.append(K.CLAIM_EVALUATED, data={"name": "a", "highest": True, "rung": "smoke"})
        with journal.transaction() as tx:
            tx.append(K.WAIVED, job=1, data={"claim": "a", "gate": "trained", "by": "bob", "why": "w"})
            tx.append(K.CLAIM_EVALUATED, data={"name": "a", "highest": False, "rung": None})
            tx.append(K.CLAIM_STATED, data=stated("b"))
            tx.append(K.PINNED, job=2, data={"claim": "b"})
            tx.append(K.PINNED, job=2, data={"claim": "", "by": "ann", "why": "mine"})
        (one,) = query.waivers(journal.conn, "a")
        assert (one.gate, one.job, one.by, one.why) == ("trained", 1, "bob", "w")
        row = query.claim(journal.conn, "a")
        assert row.highest is not None
        assert row.evaluated is not None
        assert (row.highest["rung"], row.evaluated["rung"]) == ("smoke", None)
        with journal.transaction() as tx:  # withdrawn, and stated anew under the same name
            tx.append(K.CLAIM_WITHDRAWN, data={"name": "a", "by": "ann", "why": "wrong"})
            tx.append(K.UNPINNED, job=1, data={"claim": "a"})
            tx.append(K.UNPINNED, job=2, data={"claim": "b"})
        assert [c.name for c in query.claims(journal.conn, standing=True)] == ["b"]
        with journal.transaction() as tx:
            tx.append(K.CLAIM_STATED, data=stated("a"))
        again = query.claim(journal.conn, "a")
        assert again.stated > row.stated
        assert (again.withdrawn, again.evaluated, again.highest) == (None, None, None)
        assert query.waivers(journal.conn, "a") == [], "what was waived was the claim of then"
        assert [(p.job, p.claim, p.why) for p in query.pins(journal.conn)] == [(2, "", "mine")]
        before = state_dump(journal.conn)
        journal.conn.execute("BEGIN")
        schema.drop_state(journal.conn)
        schema.create_state(journal.conn)
        replay(journal.conn)
        assert state_dump(journal.conn) == before
        assert before["claim"]
        journal.conn.execute("ROLLBACK")


def test_a_standing_claim_is_not_stated_over(tmp_path: Path) -> None:
    with Journal.open(Home(tmp_path / "home"), Role.CLIENT, create=True) as journal:
        with journal.transaction() as tx:
            first = tx.append(K.CLAIM_STATED, data=stated("a"))
            tx.append(K.CLAIM_STATED, data=stated("a"))
        assert query.claim(journal.conn, "a").stated == first
        with pytest.raises(NotFound, match="there are: a"):
            query.claim(journal.conn, "b")
