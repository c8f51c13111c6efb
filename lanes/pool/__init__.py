"""Pooled cells: short, pure jobs that run many at once inside warm Ray workers."""
