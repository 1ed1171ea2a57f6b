"""How many documents or seeds would decide what is undecided: power by simulation from the records' own sums.

If the truth is what was estimated, and documents and seeds are spread as they were, then another sample of so many
documents and so many seeds is a draw of documents' influences with replacement, and of the mean of so many seeds. Both
spreads are estimated anew in each sample and the interval is built as `bench.records.statistics.crossed_draws` builds
it, from the same spreads and the same tails, so that what is counted is what a verdict would have said.

Legend: R repetitions, D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from bench.claims.numbers import Measured
from bench.records.statistics import MANY, SHARE, Floats, freedom_of

WANTED = 0.8
"""The power that is asked for, as is usual (Cohen 1988)."""
REPETITIONS = 1000
MOST_DOCUMENTS = 1000.0
"""Times as many documents as there are: beyond, documents alone are said not to decide."""
MOST_SEEDS = 30
MANY_DOCUMENTS = 2000
"""From here on the sum of so many influences is as good as normal, and drawn as such."""


@dataclass(frozen=True)
class Question:
    """A number, the bound that it must be told from, and the level of the test."""

    measured: Measured
    bound: float
    alpha: float
    """Two-sided."""

    @property
    def seeds(self) -> int:
        return len(self.measured.seeds)


@dataclass(frozen=True)
class Need:
    """What would decide a claim with a power of WANTED; None where nothing up to the most that is looked at would."""

    now: float
    """The power of what there is."""
    documents: float | None
    """Times as many documents, with the seeds that there are."""
    seeds: int | None
    """So many seeds, with the documents that there are."""


def need(questions: Sequence[Question]) -> Need:
    """What would settle all of these questions; each alone is decided with the power that is wanted."""
    now = min(power(one) for one in questions)
    times = np.geomspace(1, MOST_DOCUMENTS, 61).tolist()
    documents = _largest([_least(one, "times", times) for one in questions])
    seeds = _largest([_least(one, "seeds", range(max(2, one.seeds), MOST_SEEDS + 1)) for one in questions])
    return Need(now, documents, None if seeds is None else int(seeds))


def _largest(found: Sequence[float | None]) -> float | None:
    known = [value for value in found if value is not None]
    return max(known) if len(known) == len(found) else None


def _least(question: Question, what: Literal["times", "seeds"], candidates: Sequence[float]) -> float | None:
    """The first candidate with the power that is wanted, which rises with them."""

    def reaches(candidate: float) -> bool:
        changed: dict[str, Any] = {what: candidate}
        return power(question, **changed) >= WANTED

    if not reaches(candidates[-1]):
        return None
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(candidates[middle]) else (middle + 1, high)
    return candidates[high]


def power(
    question: Question,
    *,
    times: float = 1.0,
    seeds: int | None = None,
    repetitions: int = REPETITIONS,
    rng: int = 0,
) -> float:
    """The share of samples of `times` as many documents and of so many seeds (by default those that there are) in which
    the number is told from its bound, on the side on which it was estimated."""
    measured = question.measured
    count = question.seeds if seeds is None else seeds
    away = abs(measured.value - question.bound)
    draw = np.random.default_rng(rng)
    moved, spread, freedom = _documents(measured, times, repetitions, draw)
    own, seed_spread, seed_freedom = _seeds(measured, times, count, repetitions, draw)
    variance = spread + seed_spread
    share = np.divide(seed_spread, variance, out=np.zeros_like(variance), where=variance > 0)
    tails = student.ppf(1 - question.alpha / 2, freedom)
    tails = tails + share**SHARE * (student.ppf(1 - question.alpha / 2, seed_freedom) - tails)
    return float((away + moved + own > tails * np.sqrt(variance)).mean())


def _documents(
    measured: Measured, times: float, repetitions: int, draw: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """How far other documents move the number, the variance that they show, and its degrees of freedom; (R,) each."""
    seeds, documents = measured.influences.shape
    influences = measured.influences.mean(axis=0)
    influences = influences - influences.mean()
    total = float((influences**2).sum())
    if seeds > 1 and total > 0:  # what a seed does to single documents counts as the seeds'
        influences = influences * np.sqrt(max(0.0, 1 - _interaction(measured) / seeds / total))
        total = float((influences**2).sum())
    count = round(documents * times)
    if count > MANY_DOCUMENTS:
        moved = draw.normal(0, np.sqrt(total / times), repetitions)
        known = min(MANY, times * freedom_of(influences)) if total > 0 else MANY
        return moved, np.full(repetitions, total / times), np.full(repetitions, known)
    drawn = influences[draw.integers(0, documents, (repetitions, count))] / times
    moved = drawn.sum(axis=1)
    drawn = drawn - drawn.mean(axis=1, keepdims=True)
    squares = drawn**2
    spread = squares.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = (squares**2).sum(axis=1) / spread**2 - 1 / count
        freedom = np.where(noise > 0, 2 / noise, MANY)
    freedom = np.where(spread > 0, np.minimum(np.minimum(freedom, count - 1), MANY), MANY)
    return moved, spread * count / max(1, count - 1), freedom


def _interaction(measured: Measured) -> float:
    """The variance of a seed's number that comes of what it does to single documents."""
    own = measured.influences - measured.influences.mean(axis=0)
    return float((own**2).sum()) / (len(measured.seeds) - 1)


def _seeds(
    measured: Measured, times: float, count: int, repetitions: int, draw: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """How far the mean of other seeds moves the number, the variance that they show, its degrees of freedom."""
    if len(measured.seeds) > 1:
        single = _interaction(measured)
        variance = max(0.0, float(measured.values.var(ddof=1)) - single) + single / times
        borrowed = None
    else:
        borrowed = measured.spread
        variance = 0.0 if borrowed is None else borrowed.variance
    if count == 1:
        known = np.inf if borrowed is None else borrowed.freedom
        if borrowed is None and variance == 0.0:
            return np.zeros(repetitions), np.zeros(repetitions), np.full(repetitions, MANY)
        return (
            draw.normal(0, np.sqrt(variance), repetitions),
            np.full(repetitions, variance),
            np.full(repetitions, known),
        )
    moved = draw.normal(0, np.sqrt(variance / count), repetitions)
    shown = variance / count * draw.chisquare(count - 1, repetitions) / (count - 1)
    return moved, shown, np.full(repetitions, float(count - 1))
