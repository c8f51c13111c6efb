"""What is written of claims: stated, withdrawn, waived, evaluated. Each is an event; labels are not among them."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.claims.definition import Definition, read
from core.claims.numbers import PLACEHOLDER, references
from core.claims.words import WAIVABLE, Gate, Label
from core.errors import BadInput, NotFound
from core.fsio import digest
from core.journal import Event, Journal, query
from core.states import EventKind
from lab.claims.resolve import resolve

TEMPLATE = """\
schema: lab.claim/1
name: digits-fid
# Numbers are never typed: {ROLE.METRIC} is taken from the cited row, and the label is shown beside it.
statement: >
  On scikit-learn's 8x8 digits one step reaches FID {eval.fid:.2f} (n = {eval.fid.n}), untrained {control.fid:.2f};
  over three seeds {seeds.fid.mean:.2f} with standard deviation {seeds.fid.std:.2f}.
wants: closest-feasible        # smoke | experimental | closest-feasible | paper-faithful
package: drift-package         # all its nodes must have ended, and failed ones be listed
cites:                         # job ids, or names of jobs as `lab status` shows them
  data: drift-package/data
  extractor: drift-package/extractor
  train: drift-package/train
  sample: drift-package/sample
  eval: drift-package/eval
  nn: drift-package/nn
  contract: drift-package/contract
  audit: drift-package/audit
  control: drift-package/eval-untrained
  summary: drift-package/summary
  sweep: [drift-package/eval-a1, drift-package/eval-a2]
  seeds:                       # every seed, the one above too
    - {train: drift-package/train, sample: drift-package/sample, eval: drift-package/eval}
    - {train: drift-package/train-s2, sample: drift-package/sample-s2, eval: drift-package/eval-s2}
    - {train: drift-package/train-s3, sample: drift-package/sample-s3, eval: drift-package/eval-s3}
selection:                     # how the cited evaluation was chosen; stated before there are results
  rule: all                    # only | all | best (then also `by: fid`)
  over: {seed: [1, 2, 3], checkpoint: [null]}    # null: the last one
knobs: [alpha]                 # parameters that are said to have an effect
margins: {control: 0.1, memorisation: 0.02}
comparisons:
  - {a: eval.fid, b: control.fid}
notes:                         # a number in words is recomputed from what it is of
  - no image was left out by hand
# - {text: the untrained control is 120-fold worse, of: control.fid / eval.fid}
scope:
  current: pixels, digits
  deferred:
    - {name: convnext, why: no pretrained encoder, caps: closest-feasible}
  open: []
  closed: [scheduler state is in the checkpoints]
  policy: no number is shown without its label
"""


def load(path: Path) -> Definition:
    """A claim from a YAML or JSON file.

    Raises:
        BadInput: one sentence with file and, where there is one, line.
    """
    return read(_plain(path), str(path))


def load_mapping(path: Path) -> dict[str, Any]:
    """The same as plain values, checked: as it goes into the journal."""
    found = _plain(path)
    read(found, str(path))
    return dict(json.loads(json.dumps(found)))


def _plain(path: Path) -> Any:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"the claim {path} does not exist", hint="correct the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the claim {path} cannot be read ({error})", hint="name a text file") from error
    try:
        found = yaml.safe_load(text)
        json.dumps(found, allow_nan=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark else 1
        raise BadInput(f"{path}:{line}: this is not YAML ({problem})", hint="correct that line") from error
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: a value is no plain text or number ({error})", hint="put dates in quotes") from error
    return found


def state(journal: Journal, given: Mapping[str, Any], where: str = "the claim") -> tuple[Definition, int]:
    """Record a claim, and pin the jobs that it cites. Returns it and its sequence number.

    Raises:
        BadInput: its name is taken, a reference names no cited role, or a cited id does not exist.
    """
    claim = read(given, where)
    _refuse_unknown_roles(claim, where)
    with journal.transaction() as tx:
        if any(row.name == claim.name and row.withdrawn is None for row in query.claims(tx.conn)):
            raise BadInput(
                f"the claim {claim.name!r} is stated already",
                hint=f"give it another name, or `lab claim withdraw {claim.name}` first",
            )
        found = resolve(tx.conn, claim, tx.last_seq)
        for role, what in claim.cites.items():
            if isinstance(what, int) and role in found.problems:
                raise BadInput(f"{where}: {role}: {found.problems[role]}", hint="cite a job that was submitted")
        data = {"name": claim.name, "by": user(), "definition": dict(given), "digest": digest(dict(given))}
        seq = tx.append(EventKind.CLAIM_STATED, data=data)
        _pin(tx, claim.name, {job.id for job in found.jobs.values()})
    return claim, seq


def _refuse_unknown_roles(claim: Definition, where: str) -> None:
    roles = set(claim.cites) | {r.split(".", 1)[0] for r in claim.cites}
    said = [e for text in (claim.statement, *(n.text for n in claim.notes)) for e in PLACEHOLDER.findall(text)]
    said += [e for c in claim.comparisons for e in (c.a, c.b)] + [n.of for n in claim.notes if n.of]
    for expression in said:
        for reference in references(expression):
            role = reference.split(".", 1)[0]
            if role not in roles or "." not in reference:
                hint = f"cited are: {', '.join(sorted(roles))}; write {{eval.fid}}"
                raise BadInput(f"{where}: {{{expression}}} names no cited role", hint=hint)


def withdraw(journal: Journal, name: str, why: str) -> None:
    """The claim stands no longer; its pins go. Raises NotFound, BadInput."""
    with journal.transaction() as tx:
        row = query.claim(tx.conn, name)
        if row.withdrawn is not None:
            raise BadInput(f"the claim {name!r} was withdrawn already ({row.withdrawn})")
        tx.append(EventKind.CLAIM_WITHDRAWN, data={"name": name, "by": user(), "why": why})
        own = [p.job for p in query.pins(tx.conn) if p.claim == name]
        tx.extend(Event(EventKind.UNPINNED, job=job, data={"claim": name, "by": user()}) for job in own)


def waive(journal: Journal, name: str, gate: str, job: int, why: str) -> int:
    """Record that a check was relaxed for a job. Returns the sequence number.

    Raises:
        BadInput: no such gate, one that nobody may waive, a job that the claim does not cite, or no reason.
        NotFound: no such claim.
    """
    if gate not in set(Gate):
        raise BadInput(f"there is no gate {gate!r}", hint=f"gates that may be waived: {', '.join(WAIVABLE)}")
    if Gate(gate) not in WAIVABLE:
        raise BadInput(
            f"the gate {gate} cannot be waived: what it asks is so or not so",
            hint=f"gates that may be waived: {', '.join(WAIVABLE)}",
        )
    if not why.strip():
        raise BadInput("a waiver needs a reason", hint='say why: --why "..."')
    with journal.transaction() as tx:
        row = query.claim(tx.conn, name)
        if row.withdrawn is not None:
            raise BadInput(f"the claim {name!r} was withdrawn ({row.withdrawn})", hint="state it anew")
        cited = {j.id: r for r, j in resolve(tx.conn, read(row.definition), row.stated).jobs.items()}
        if job not in cited:
            listed = ", ".join(f"{i} ({r})" for i, r in sorted(cited.items())) or "none"
            raise BadInput(f"the claim {name!r} does not cite job {job}", hint=f"it cites {listed}")
        return tx.append(
            EventKind.WAIVED, job=job, data={"claim": name, "gate": gate, "by": user(), "why": why.strip()}
        )


def record(journal: Journal, name: str, label: Label, items: Mapping[str, str], cited: set[int]) -> bool:
    """Write down what an evaluation found, and pin what it cites by now. False: the journal says so already."""
    data = {
        "name": name,
        "rung": str(label.rung) if label.rung is not None else None,
        "outcome": str(label.outcome),
        "highest": label.reached,
        "gates": {str(f.gate): [str(f.outcome), str(f.cap) if f.cap is not None else None] for f in label.findings},
        "digest": digest(dict(items)),
        "items": dict(items),
    }
    with journal.transaction() as tx:
        try:
            row = query.claim(tx.conn, name)
        except NotFound:
            return False
        _pin(tx, name, cited)
        if row.evaluated is not None and all(row.evaluated.get(k) == v for k, v in data.items()):
            return False
        tx.append(EventKind.CLAIM_EVALUATED, data=data)
    return True


def _pin(tx: Any, name: str, jobs: set[int]) -> None:
    known = {p.job for p in query.pins(tx.conn) if p.claim == name}
    tx.extend(Event(EventKind.PINNED, job=j, data={"claim": name, "by": user()}) for j in sorted(jobs - known))


def user() -> str:
    """Who is at the keyboard."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
