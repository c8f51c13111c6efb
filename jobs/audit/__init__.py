"""The independent audit of a drift package. It shares no code with what made the numbers: see `tests/jobs/audit`."""
