"""Generators that follow from words: the same on every machine, and nothing global."""

from __future__ import annotations

import hashlib

import numpy as np

# The study's, by what they are for; the index of a seed is added to each.
SIMULATION, GROUPING, SUBSAMPLING = 42, 123, 456


def generator(*words: object) -> np.random.Generator:
    """A Philox generator whose key is the SHA-256 of the words, joined by spaces."""
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def scan_chance(seed: int) -> np.random.Generator:
    """Of the jitter of positions."""
    return generator("simulation", seed, "scan")


def noise_chance(seed: int, photons: float) -> np.random.Generator:
    """Of the photons at one dose."""
    return generator("simulation", seed, "photons", repr(float(photons)))


def thinning_chance(seed: int, photons: float | None, what: str) -> np.random.Generator:
    """Of which measured photons are kept (`what`: dose), and in which half they are (halves)."""
    return generator("simulation", seed, what, None if photons is None else repr(float(photons)))


def grouping_chance(seed: int, split: str) -> np.random.Generator:
    """Of which neighbours a group has."""
    return generator("grouping", seed, split)


def subsampling_chance(seed: int, split: str) -> np.random.Generator:
    """Of which groups a view keeps."""
    return generator("subsampling", seed, split)
