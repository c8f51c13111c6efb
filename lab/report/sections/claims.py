"""Claims: the label of each as the gates compute it now, and a page with its scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.claims.numbers import PLACEHOLDER, NoNumber, Number, Source, evaluate
from core.claims.words import Finding, Outcome
from core.errors import LabError
from core.journal import query
from core.journal.query import ClaimRow
from lab.claims.evaluation import Evaluated
from lab.claims.evaluation import evaluate as look
from lab.claims.render import demoted, verdict
from lab.report.book import Row, slug
from lab.report.doc import (
    Block,
    Code,
    Facts,
    Fold,
    Hash,
    Inline,
    Line,
    Link,
    Mark,
    Name,
    Page,
    Para,
    Section,
    Shell,
    Table,
    When,
)
from lab.report.forms import AS
from lab.report.reading import Reading

PATH = "claims.html"
_TONES = {Outcome.PASSED: "good", Outcome.CAPPED: "warn", Outcome.MISSING: "warn", Outcome.DEFERRED: "warn",
          Outcome.REFUSED: "bad"}  # fmt: skip
_LEAD = (
    "A label is computed from the journal, the tables and the bytes each time this report is made: every cited file is "
    "hashed again, every number recounted. It is stored nowhere, and falls when its evidence does."
)


class ClaimSection:
    """Judges every claim that stands, once."""

    def __init__(self, reading: Reading) -> None:
        self._r, self._book = reading, reading.book
        self._rows = query.claims(reading.conn)
        self._seen: dict[str, Evaluated] = {}
        self._failed: dict[str, str] = {}
        for row in self._rows:
            if row.withdrawn is None:
                try:
                    self._seen[row.name] = look(reading.home, reading.conn, row.name)
                except LabError as error:
                    self._failed[row.name] = str(error)

    def summary(self) -> Line:
        """Of the first page."""
        if not self._rows:
            return ["none was stated"]
        out: list[Inline] = []
        for row in self._rows:
            if row.withdrawn is None:
                out += [*([", "] if out else []), Name(row.name, self._path(row.name)), " ", self._label(row.name)]
        return out or [Link("all were withdrawn", PATH)]

    def pages(self) -> list[Page]:
        blocks: list[Block] = [Para([_LEAD])]
        if not self._rows:
            blocks.append(Para(["No claim was stated yet: ", Code("lab claim new FILE"), " states one."], "note"))
        rows: list[Sequence[Line]] = [
            (
                [Name(row.name, self._path(row.name))],
                [self._label(row.name)],
                [str(self._seen[row.name].claim.wants)] if row.name in self._seen else ["–"],
                self._verdict(row),
                [When(row.at)],
            )
            for row in self._rows
        ]
        if rows:
            head: list[Line] = [["claim"], ["label now"], ["wants"], ["why"], ["stated"]]
            blocks.append(Table(["Claims, the oldest first"], head, rows))
        return [Page(PATH, ["Claims"], blocks, "Claims"), *(self._page(row) for row in self._rows)]

    @staticmethod
    def _path(name: str) -> str:
        return f"claims/{slug(name)}.html"

    def _label(self, name: str) -> Mark:
        seen = self._seen.get(name)
        if seen is None:
            return Mark("cannot be judged" if name in self._failed else "withdrawn", "warn")
        label = seen.label
        return Mark(label.word, "good" if label.reached else _TONES.get(label.outcome, ""))

    def _verdict(self, row: ClaimRow) -> Line:
        name = row.name
        if row.withdrawn is not None:
            return [self._book.words(self._row(row), "withdrawn", 300)]
        if name in self._failed:
            how = "said by the reading of its statement"
            said = self._book.said(f"claim {name} cannot be judged", self._failed[name], how, command=_show(name))
            return [said]
        how = "the gates that decided, asked when this report was made"
        return [self._book.said(f"verdict on claim {name}", verdict(self._seen[name].label), how, command=_show(name),
                                parts=[self._row(row)])]  # fmt: skip

    # A page.

    def _page(self, row: ClaimRow) -> Page:
        seen = self._seen.get(row.name)
        if seen is None:
            blocks: list[Block] = [Para([self._label(row.name), ": ", *self._verdict(row)], "note warn")]
            return Page(self._path(row.name), [Name(row.name)], blocks, above=PATH)
        blocks = [Para(self._statement(row, seen, seen.claim.statement, "words"))]
        fallen = demoted(seen)
        if fallen:
            how = "what has changed since it had reached what it wants"
            told = self._book.said(f"demotion of claim {row.name}", fallen, how, command=_show(row.name))
            blocks.append(Para([told], "note bad"))
        pairs: list[tuple[Line, Line]] = [
            (["label now"], [self._label(row.name), ": ", *self._verdict(row)]),
            (["wants"], [str(seen.claim.wants)]),
            (["stated"], [When(row.at), " by ", Name(row.by), ", ", self._book.ident(self._r.event_row(row.stated))]),
            (["digest of the statement"], [Hash(row.digest)]),
        ]
        if seen.label.inert:
            pairs.append((["inert"], [Name(", ".join(seen.label.inert))]))
        blocks += [Facts(pairs), Shell(_show(row.name))]
        for n, note in enumerate(seen.claim.notes):
            mark: Line = [" ", Mark(f"[{seen.label.word}]", "tag")] if note.of else []
            blocks.append(Para(["Note: ", *self._statement(row, seen, note.text, f"note {n} words"), *mark]))
        blocks.append(Section("scope", ["Scope"], list(self._scope(row, seen))))
        blocks.append(Section("gates", ["Gates"], [self._gates(row, seen.label.findings)]))
        blocks.append(Section("cited", ["Cited jobs"], [self._cited(seen)]))
        if seen.evidence.waivers:
            blocks.append(Section("waivers", ["Waivers"], [self._waivers(seen)]))
        return Page(self._path(row.name), [Name(row.name)], blocks, above=PATH)

    def _statement(self, row: ClaimRow, seen: Evaluated, text: str, column: str) -> list[Inline]:
        """Its words, each number in its place with the label beside it."""
        out: list[Inline] = []
        claim = self._row(row)
        for n, piece in enumerate(PLACEHOLDER.split(text)):
            if n % 2:
                out += [self._number(seen, piece), " ", Mark(f"[{seen.label.word}]", "tag")]
            elif piece:
                words = self._book.words(claim, f"{column} {n // 2}")
                before, behind = piece[: len(piece) - len(piece.lstrip())], piece[len(piece.rstrip()) :]
                out += [before, words, behind] if piece.strip() else [piece]
        return [x for x in out if x != ""]

    def _number(self, seen: Evaluated, expression: str) -> Inline:
        try:
            found = evaluate(seen.evidence, expression)
        except NoNumber as error:
            name, how = f"no number for {expression} of claim {seen.row.name}", "said by the reading of the evidence"
            self._book.said(name, str(error), how, command=_show(seen.row.name))
            return "?"
        layout = AS + expression.partition(":")[2].strip()
        rows = [self._source(s) for s in found.sources]
        if len(rows) == 1 and rows[0] and self._same(rows[0], found):
            return self._book.number(rows[0], found.sources[0].column, layout)
        return self._book.made(
            f"{expression} of claim {seen.row.name}",
            found.value,
            "computed of the cited rows, as the reference in its name says",
            command=_show(seen.row.name),
            parts=[r for r in dict.fromkeys(rows) if r],
            form=layout,
            more={"reference": expression},
        )

    def _source(self, source: Source) -> str:
        """Enter the row that a number was taken from; empty where it is not there any more."""
        rows = self._r.rows(source.table, [source.job])
        return self._r.table_row(source.table, rows[source.row]) if source.row < len(rows) else ""

    def _same(self, row: str, found: Number) -> bool:
        value = self._book.rows[row].values.get(found.sources[0].column)
        return isinstance(value, int | float) and float(value) == found.value

    def _row(self, row: ClaimRow) -> str:
        """Enter the claim as it was stated, its text also in the pieces between its numbers."""
        name = f"claim-{slug(row.name)}"
        if name not in self._book.rows:
            values = {"name": row.name, "stated": row.stated, "by": row.by, "digest": row.digest,
                      "withdrawn": row.withdrawn, **row.definition}  # fmt: skip
            seen = self._seen.get(row.name)
            if seen is not None:
                claim, scope = seen.claim, seen.claim.scope
                values |= _pieces(claim.statement, "words")
                for n, note in enumerate(claim.notes):
                    values |= _pieces(note.text, f"note {n} words")
                values |= {"current scope": scope.current, "policy": scope.policy}
                values |= {f"closed {n}": text for n, text in enumerate(scope.closed)}
                for kind, items in (("deferred", scope.deferred), ("open", scope.open)):
                    for n, item in enumerate(items):
                        values |= {f"{kind} {n}": item.name, f"{kind} {n} why": item.why}
            parts = (self._r.event_row(row.stated),)
            self._book.add(Row(name, "claims", f"claim {row.name}", values, "", _show(row.name), parts=parts))
        return name

    def _scope(self, row: ClaimRow, seen: Evaluated) -> Iterable[Block]:
        claim, scope = self._row(row), seen.claim.scope
        words = self._book.words
        pairs: list[tuple[Line, Line]] = [
            (["current scope"], [words(claim, "current scope")] if scope.current else ["not stated"]),
            (["policy"], [words(claim, "policy")] if scope.policy else ["not stated"]),
        ]
        yield Facts(pairs)
        rows: list[Sequence[Line]] = []
        for kind, items in (("deferred", scope.deferred), ("open", scope.open)):
            for n, item in enumerate(items):
                why: Line = [words(claim, f"{kind} {n} why")] if item.why else ["–"]
                what = "deferred gate" if kind == "deferred" else "open decision"
                rows.append(([words(claim, f"{kind} {n}")], [Mark(what, "warn")], why, [str(item.caps)]))
        for found in seen.label.findings:
            if found.outcome in (Outcome.MISSING, Outcome.CAPPED, Outcome.REFUSED):
                gate = self._gate(row, found)
                cap = str(found.cap) if found.cap is not None else "no label"
                state = Mark(str(found.outcome), _TONES[found.outcome])
                rows.append(([str(found.gate)], [state], [self._book.words(gate, "reason", 400)], [cap]))
        head: list[Line] = [["gate or decision"], ["state"], ["why"], ["caps at"]]
        yield _table("Deferred and open: what keeps it from more", head, rows)
        rows = [([words(claim, f"closed {n}")], ["stated as closed"]) for n in range(len(scope.closed))]
        passed = [f for f in seen.label.findings if f.outcome is Outcome.PASSED]
        rows += [([str(f.gate)], [self._book.words(self._gate(row, f), "reason", 300)]) for f in passed]
        yield _table("Closed gates", [["gate"], ["what it found"]], rows)

    def _gates(self, row: ClaimRow, findings: Sequence[Finding]) -> Block:
        rows: list[Sequence[Line]] = []
        for found in findings:
            gate = self._gate(row, found)
            cap = str(found.cap) if found.cap is not None else "–"
            rows.append(([self._book.ident(gate, str(found.gate))], [Mark(str(found.outcome), _TONES[found.outcome])],
                         [cap], [self._book.words(gate, "reason", 400)]))  # fmt: skip
        table = _table("Every gate, as it was asked when this report was made",
                       [["gate"], ["outcome"], ["cap"], ["reason"]], rows)  # fmt: skip
        return Fold(["Every gate with its reason"], [table])

    def _gate(self, row: ClaimRow, found: Finding) -> str:
        name = f"gate-{slug(row.name)}-{slug(str(found.gate))}"
        values = {"claim": row.name, "gate": str(found.gate), "outcome": str(found.outcome),
                  "cap": str(found.cap) if found.cap is not None else None, "reason": found.reason,
                  "numbers": dict(found.numbers), "jobs": list(found.jobs),
                  "changed": [c.said() for c in found.changed],
                  "waived": found.lifted.why if found.lifted is not None else None}  # fmt: skip
        parts = [self._row(row), *(self._r.job_row(job) for job in found.jobs)]
        title, command = f"gate {found.gate} of claim {row.name}", f"lab claim check {row.name}"
        how = "asked when this report was made"
        return self._book.add(Row(name, "gates", title, values, "", command, how, tuple(parts)))

    def _cited(self, seen: Evaluated) -> Block:
        rows: list[Sequence[Line]] = []
        for cited in seen.evidence.cited:
            good = sum(1 for f in cited.files if f.now == f.sealed and not f.problem)
            how = "files whose bytes now have the digest of the seal"
            row = self._r.job_row(cited.job)
            same = self._book.made(f"files of job {cited.job} that hold", good, how, command=f"lab verify {cited.job}",
                                   parts=[row])  # fmt: skip
            whole = self._book.made(f"files of job {cited.job} under the seal", len(cited.files), "counted in the seal",
                                    command=f"lab verify {cited.job}", parts=[row])  # fmt: skip
            rows.append(([Name(cited.role)], self._r.called(cited.job), [Name(cited.kind)], [Mark(cited.state)],
                         [same, " of ", whole]))  # fmt: skip
        for role, why in seen.evidence.unresolved.items():
            said = self._book.said(f"role {role} of claim {seen.row.name}", why, "no job was found for it")
            rows.append(([Name(role)], [said], ["–"], [Mark("missing", "bad")], ["–"]))
        return _table("Jobs that it stands on: their files are pinned",
                      [["role"], ["job"], ["kind"], ["state"], ["files that hold"]], rows)  # fmt: skip

    def _waivers(self, seen: Evaluated) -> Block:
        rows: list[Sequence[Line]] = []
        for n, w in enumerate(seen.evidence.waivers):
            name = f"waiver {n} of claim {seen.row.name}"
            parts = [self._r.job_row(w.job), *([self._r.event_row(w.seq)] if w.seq is not None else [])]
            said = self._book.said(name, w.why, f"given by {w.who}" if not _digits(w.who) else "given by a person",
                                   command=_show(seen.row.name), parts=parts)  # fmt: skip
            rows.append(([str(w.gate)], self._r.called(w.job), [Name(w.who)], [said], [When(w.at)]))
        head: list[Line] = [["gate"], ["job"], ["by"], ["why"], ["given"]]
        return _table("Checks that were relaxed, and why; a waived run stays experimental", head, rows)


def _show(name: str) -> str:
    return f"lab claim show {name}"


def _pieces(text: str, column: str) -> dict[str, str]:
    pieces = PLACEHOLDER.split(text)[::2]
    return {f"{column} {n}": piece.strip() for n, piece in enumerate(pieces) if piece.strip()}


def _digits(text: str) -> bool:
    return any(c.isdecimal() for c in text)


def _table(caption: str, head: Sequence[Line], rows: Sequence[Sequence[Line]]) -> Block:
    return Table([caption], head, rows) if rows else Para([f"{caption}: none."], "faint")
