"""Claims and their labels: words, evidence, gates, and the rule that makes a label of what the gates find.

All of it is pure: `lab.claims` collects the evidence of a home, these functions judge it. A label is never stored.
"""

from core.claims.definition import Definition, read
from core.claims.evidence import Cited, Evidence
from core.claims.label import GATES, findings, label
from core.claims.words import Change, Finding, Gate, Label, Outcome, Rung, Waiver

__all__ = [
    "GATES",
    "Change",
    "Cited",
    "Definition",
    "Evidence",
    "Finding",
    "Gate",
    "Label",
    "Outcome",
    "Rung",
    "Waiver",
    "findings",
    "label",
    "read",
]
