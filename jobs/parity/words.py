"""The words of a parity table. Apart from the schema, so that a submit need not load Arrow for them."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Why a candidate is in the run. The judge never learns it; only the settlement does."""

    CANDIDATE = "candidate"  # must pass everywhere
    MUTANT = "mutant"  # known bad, ours: every one of its rows must fail, and for its own reason
    CONTROL = "control"  # known bad, another package's: at least one of its rows must fail
    GATE = "gate"  # our own judge, examined: must make no mistake


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    BLOCKED = "blocked"  # it could not run; the error is kept
    INPUT_MISMATCH = "input mismatch"  # it did not work on what the oracle worked on; nothing was compared


class Phase(StrEnum):
    """Which call of a candidate a batch of predictions came from."""

    TRAIN = "train"  # the first call of a function that is then judged on another batch size
    INFERENCE = "inference"
