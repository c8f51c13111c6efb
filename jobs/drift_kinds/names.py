"""What the kinds of a drift package call their inputs and files: one word for what one makes and another takes."""

from __future__ import annotations

# Inputs: the folders of the jobs that make them.
DATA, EXTRACTOR, TRAIN, SAMPLE, EVAL, NN = "data", "extractor", "train", "sample", "eval", "nn"

# Artifacts of drift-extractor, drift-eval, drift-nn and drift-contract.
WEIGHTS, CONTRACT, REFERENCE = "extractor.npz", "contract.json", "reference.npz"
EVALUATION, FEATURES = "evaluation.json", "features.npz"
NEAREST, NEAREST_SAID = "nn.npz", "nn.json"
CONTRACT_AUDIT = "contract_audit.json"

# The parameter of drift-eval that relaxes a check, and the check.
WAIVER, GATE = "allow_shared_encoder", "no-leakage"
