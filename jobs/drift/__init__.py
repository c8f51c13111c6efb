"""Drifting models: data, training, sampling and what is said of them. The kinds are in `jobs.drift_kinds`."""
