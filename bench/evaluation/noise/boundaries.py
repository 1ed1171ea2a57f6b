"""Boundaries of a clean text and of the same text with noise, compared through the edit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.noise.base import NONE, Noised


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def agreement(
    clean: str, starts: NDArray[np.bool_], noisy: Noised, noisy_starts: NDArray[np.bool_]
) -> tuple[float, float]:
    """(twice the boundaries that are in both cuts, boundaries of the one and of the other): their ratio is F1.

    A boundary of the noisy text stands where the byte stands that it is before, taken back through the edit: bytes of
    characters that noise has put in stand nowhere. The start of a text is no boundary.
    """
    sizes = np.array([len(encoded(c)) for c in clean], dtype=np.int64)
    at = np.concatenate(([0], sizes.cumsum()))
    noisy_sizes = np.array([len(encoded(c)) for c in noisy.text], dtype=np.int64)
    character = np.repeat(np.arange(len(noisy.text)), noisy_sizes)
    inside = np.arange(len(character)) - np.repeat(noisy_sizes.cumsum() - noisy_sizes, noisy_sizes)
    boundaries = np.flatnonzero(noisy_starts[1:]) + 1
    origin = noisy.origin[character[boundaries]]
    known = origin != NONE
    byte = at[origin[known]] + np.minimum(inside[boundaries[known]], sizes[origin[known]] - 1)
    both = np.intersect1d(byte, np.flatnonzero(starts[1:]) + 1)
    return 2.0 * len(both), float(len(boundaries) + starts[1:].sum())
