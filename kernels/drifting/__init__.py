"""Drifting models: the drift field, its schedules, and the metrics of samples."""
