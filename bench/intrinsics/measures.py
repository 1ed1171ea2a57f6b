"""The numbers of one cut, and of two cuts of the same text.

Legend: N bytes of all documents laid end to end, B boundaries (starts that begin no document), P patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.intrinsics.words import Places, WordedText
from patchers import Starts
from patchers.base import as_array

ALPHA = 2.5
"""The order of Rényi's entropy that goes best with translation quality (Zouhar et al. 2023, abstract)."""


def boundaries_of(starts: Starts, offsets: Places) -> Places:
    """(B,): where patches begin inside of documents, in the text (N,) that the starts are of."""
    inside = starts.copy()
    inside[offsets[:-1][np.diff(offsets) > 0]] = False
    return np.flatnonzero(inside)


@dataclass(frozen=True)
class WordNumbers:
    """How patches lie to words."""

    fertility: float
    """Patches that a word touches, the mean over words: 'fertility' of Rust et al. (2021). A patch that
    holds parts of two words counts for both."""
    whole: float
    """Share of the words that lie in one patch: 1 minus the 'proportion of continued words' there."""
    precision: float | None
    """Share of the boundaries that are not inside of a word. None without boundaries."""
    recall: float | None
    """Share of the gaps between two neighbouring words that have a boundary, at either end or inside. None without
    gaps."""

    @property
    def f1(self) -> float | None:
        return None if self.recall is None else harmonic(self.precision or 0.0, self.recall)


def harmonic(precision: float, recall: float) -> float:
    """F1: their harmonic mean; 0 where both are 0."""
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def word_numbers(text: WordedText, boundaries: Places) -> WordNumbers | None:
    """None for a text without words."""
    if not len(text.words):
        return None
    begins, ends = text.words.T
    inside = np.searchsorted(boundaries, ends, "left") - np.searchsorted(boundaries, begins, "right")
    before, after = text.gaps.T
    in_gaps = np.searchsorted(boundaries, after, "right") - np.searchsorted(boundaries, before, "left")
    return WordNumbers(
        fertility=float(1 + inside.mean()),
        whole=float((inside == 0).mean()),
        precision=float(1 - inside.sum() / len(boundaries)) if len(boundaries) else None,
        recall=float((in_gaps > 0).mean()) if len(in_gaps) else None,
    )


def morpheme_f1(words: Places, morphemes: Places, boundaries: Places) -> float | None:
    """F1 of the boundaries inside of `words` (words, 2) with those between morphemes: boundary precision and recall of
    Virpioja et al. (2011), over all occurrences together. None where there is nothing to find."""
    if not len(morphemes):
        return None
    begins, ends = words.T
    first, last = np.searchsorted(boundaries, begins, "right"), np.searchsorted(boundaries, ends, "left")
    given = int((last - first).sum())
    right = int(np.isin(morphemes, boundaries, assume_unique=True).sum())
    return 2 * right / (given + len(morphemes))


def agreement(one: Places, other: Places) -> float:
    """F1 of two cuts' boundaries, 2 |A and B| / (|A| + |B|) (Dice 1945); 1 where neither has any."""
    if not len(one) and not len(other):
        return 1.0
    return 2 * len(np.intersect1d(one, other, assume_unique=True)) / (len(one) + len(other))


# --- the patches as a vocabulary


@dataclass(frozen=True)
class VocabularyNumbers:
    """The distribution of the distinct patches of a text."""

    types: int
    """Distinct patches."""
    shannon: float | None
    """H(p) / log |V|, V the distinct patches; None where there is only one."""
    renyi: float | None
    """H_2.5(p) / log |V|: 'Rényi efficiency' of Zouhar et al. (2023), with V as in their tokenization-scorer."""


def vocabulary_numbers(data: bytes, starts: Starts) -> VocabularyNumbers:
    """Of the patches of a text, (N,) each."""
    counts = np.unique(_hashes(as_array(data), np.flatnonzero(starts)), return_counts=True)[1]
    if len(counts) < 2:
        return VocabularyNumbers(len(counts), None, None)
    p = counts / counts.sum()
    return VocabularyNumbers(
        types=len(counts),
        shannon=float(-(p * np.log(p)).sum() / np.log(len(p))),
        renyi=float(np.log((p**ALPHA).sum()) / (1 - ALPHA) / np.log(len(p))),
    )


@njit(cache=True, nogil=True)
def _hashes(data, places):  # type: ignore[no-untyped-def]
    """FNV-1a of each patch, 64 bits (P,): of a million distinct patches two are alike once in forty million texts."""
    out = np.empty(len(places), np.uint64)
    for i in range(len(places)):
        end = places[i + 1] if i + 1 < len(places) else len(data)
        value = np.uint64(0xCBF29CE484222325)
        for t in range(places[i], end):
            value = (value ^ np.uint64(data[t])) * np.uint64(0x100000001B3)
        out[i] = value
    return out


# --- languages


@dataclass(frozen=True)
class Parity:
    """What the same sentences cost in several languages."""

    premiums: dict[str, float]
    """Of each language its patches over those of the reference: 'tokenization premium' of Petrov et al. (2023),
    over all sentences together. The reference's own, 1, is not in it."""
    mean: float
    worst: float
    gini: float
    """Gini's coefficient of the patches of all languages, the reference among them: 0 where all cost the same."""


def parity(patches: dict[str, int], reference: str) -> Parity:
    """From the patches of the same sentences in each language, two at least."""
    premiums = {name: count / patches[reference] for name, count in patches.items() if name != reference}
    mean = sum(premiums.values()) / len(premiums)
    return Parity(premiums, mean, max(premiums.values()), gini(list(patches.values())))


def gini(values: Sequence[float]) -> float:
    """The mean absolute difference of two values, each with each, over twice the mean (Gini 1912)."""
    x: NDArray[np.float64] = np.array(values, np.float64)
    return float(np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean()))
