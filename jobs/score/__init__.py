"""The scorer: one formula, the upstream evaluator's report, and what may be promoted."""
