"""What predicates compute with: metrics of rows, with all resamples at once.

A predicate is a function of a few numbers, and its interval must hold what documents and seeds may do to it. So a
predicate gets arrays instead of numbers, and computes with all of these in one go:

- the metrics themselves;
- the metrics in resamples of the documents, the same draws wherever the documents are the same;
- the metrics with one document weighing a little more, for each document: how much each moves the result (the
  infinitesimal jackknife; Efron 1982, chapter 6), which `bench.records.statistics.crossed_draws` takes its tails from;
- the metrics of one row moved by what a training may differ from another, for each row. Where there is one seed alone,
  that is known from rows of the same text that have several (`Spread`), or not at all.

Legend: S seeds, B resamples, D documents of all metrics together, K metrics, N = 1 + B + D + K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan, nan
from typing import Protocol

import numpy as np

from bench.records.comparison import BPB
from bench.records.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Floats,
    Scores,
    SeedSpread,
    crossed_draws,
    divided,
    interval_of,
    resampled_sums,
)
from patchers.errors import BenchError

WEIGHT = 0.1
"""How much more a document weighs where its influence is measured: small beside 1, large beside what a fit rounds."""


@dataclass(frozen=True)
class Term:
    """One number of one row: `metric` is TASK.METRIC."""

    suite: str
    row: str
    metric: str

    @property
    def label(self) -> str:
        return f"{self.suite}/{self.row}"


@dataclass(frozen=True)
class Spread:
    """What trainings of one text differ by in one metric, from rows that were trained with the same several seeds.

    Analysis of variance of rows and seeds: `of_row` is the variance of a row's value that its seeds do not share with
    other rows, `of_seed` of what a seed does to all rows alike, which cancels in a difference.
    """

    of_row: float
    row_freedom: float
    of_seed: float
    seed_freedom: float

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """values (rows, S), S >= 2."""
        rows, seeds = values.shape
        if rows == 1:  # nothing tells the two apart: all of it counts where it hurts most
            return cls(float(values.var(ddof=1)), seeds - 1.0, 0.0, seeds - 1.0)
        centred = values - values.mean(axis=1, keepdims=True)
        shared = centred.mean(axis=0)
        freedom = (rows - 1.0) * (seeds - 1.0)
        of_row = float(((centred - shared) ** 2).sum()) / freedom
        between = rows * float((shared**2).sum()) / (seeds - 1)
        return cls(of_row, freedom, max(0.0, (between - of_row) / rows), seeds - 1.0)


class Source(Protocol):
    """Where numbers come from: records, or in tests anything else."""

    def scores(self, terms: list[Term]) -> dict[Term, tuple[Scores, tuple[str, ...]]]:
        """Sums by document, and the documents' names. Raises BenchError where rows cannot be compared."""

    def constant(self, suite: str, row: str, path: str) -> float:
        """A number of a row that has no documents, such as its training FLOPs."""

    def spread(self, term: Term) -> Spread | None:
        """None where no rows of the same text have several seeds."""


@dataclass(frozen=True)
class Measured:
    """A number that a predicate came to, and all that is known of how far it may be off."""

    seeds: tuple[int, ...]
    values: Floats  # (S,)
    resampled: Floats  # (B, S)
    influences: Floats  # (S, D)
    spread: SeedSpread | None = None  # of one seed, where there is one
    stream: int = 0

    @cached_property
    def draws(self) -> Floats:
        """(B,) that it might as well have come to; NaN where there is no telling."""
        if self.influences.shape[1] < 2 or isnan(self.value):
            return np.full(len(self.resampled), nan)
        return crossed_draws(
            *(self.resampled, self.values, self.influences), stream=self.stream, spread_of_seeds=self.spread
        )

    @property
    def value(self) -> float:
        return float(self.values.mean())

    @cached_property
    def estimate(self) -> Estimate:
        if np.isnan(self.draws).all():
            return Estimate(self.value, nan, nan)
        return interval_of(self.value, self.draws, LEVEL)

    @property
    def seeds_are_known(self) -> bool:
        """Whether anything says what another training might have come to."""
        return len(self.seeds) > 1 or self.spread is not None


@dataclass
class Numbers:
    """What a predicate asks for the numbers of rows. It is asked twice: first to learn which, then with all resamples.

    `metric` gives an array (1, 1), then (N, S), to be computed with element by element; `constant` gives a number.
    """

    source: Source
    suite: str
    resamples: int = RESAMPLES
    terms: dict[Term, Floats] = field(default_factory=dict)
    constants: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _known: dict[Term, tuple[Scores, tuple[str, ...]]] = field(default_factory=dict)

    def metric(self, row: str, metric: str = BPB, suite: str | None = None) -> Floats:
        """A metric of a row. Raises BenchError for a row or a metric that there is none of."""
        term = Term(suite or self.suite, row, metric)
        if term not in self.terms:
            scores = self.source.scores([term])[term][0]
            self.terms[term] = np.full((1, 1), scores.ratios().mean())
        return self.terms[term]

    def constant(self, row: str, path: str, suite: str | None = None) -> float:
        """The number at a dotted path of the row's records, such as `flops.train`, the mean over its seeds."""
        key = (suite or self.suite, row, path)
        if key not in self.constants:
            self.constants[key] = self.source.constant(*key)
        return self.constants[key]

    def measure(self, of: Callable[[Numbers], Sequence[Floats]]) -> list[Measured]:
        """The numbers that a predicate comes to, `of` the metrics that it asks for.

        Raises BenchError where the rows have no seed in common, and where rows cannot be compared.
        """
        of(self)
        self._known = self.source.scores(list(self.terms))
        seeds = self._shared_seeds()
        documents, filled = self._fill(seeds)
        fewest = min(len(names) for _, names in self._known.values())
        self.terms = filled
        end = 1 + self.resamples
        out = []
        for stream, values in enumerate(of(self)):
            values = np.broadcast_to(values, (end + documents + len(filled), len(seeds)))
            moved = (values[end : end + documents] - values[0]) / WEIGHT
            if fewest < 2:  # of other documents one says nothing, however many another metric has
                moved = moved[:0]
            steps = values[end + documents :, 0] - values[0, 0]
            spread = self._spread_of_seeds(steps) if len(seeds) == 1 else None
            out.append(Measured(seeds, values[0], values[1:end], moved.T, spread, stream))
        return out

    def _shared_seeds(self) -> tuple[int, ...]:
        have = [set(scores.seeds) for scores, _ in self._known.values()]
        seeds = tuple(sorted(set.intersection(*have)))
        if not seeds:
            said = "; ".join(f"{term.label}: {sorted(found)}" for term, found in zip(self._known, have, strict=True))
            raise BenchError(f"the rows have no seed in common ({said}); run them with the same seeds")
        return seeds

    def _fill(self, seeds: tuple[int, ...]) -> tuple[int, dict[Term, Floats]]:
        """D, and (N, S) of each term."""
        by_documents: dict[tuple[str, ...], list[Term]] = {}
        for term, (_, names) in self._known.items():
            by_documents.setdefault(names, []).append(term)
        documents = sum(map(len, by_documents))
        filled: dict[Term, Floats] = {}
        end = first = 1 + self.resamples
        for number, (names, terms) in enumerate(by_documents.items()):
            sums = [self._sums(term, seeds) for term in terms]  # (2, S, D) each
            columns = np.concatenate([part.reshape(-1, len(names)) for part in sums]).T
            drawn = resampled_sums(columns, self.resamples, number).reshape(self.resamples, len(terms), 2, len(seeds))
            for place, (term, part) in enumerate(zip(terms, sums, strict=True)):
                total, count = part.sum(axis=2)
                values = np.tile(divided(total, count), (end + documents + len(self._known), 1))
                values[1:end] = divided(drawn[:, place, 0], drawn[:, place, 1])
                heavier = np.moveaxis(part.sum(axis=2)[:, :, None] + WEIGHT * part, 2, 0)  # (D, 2, S)
                values[first : first + len(names)] = divided(heavier[:, 0], heavier[:, 1])
                if spread := self.source.spread(term):
                    values[end + documents + list(self._known).index(term)] += np.sqrt(spread.of_row)
                filled[term] = values
            first += len(names)
        return documents, filled

    def _sums(self, term: Term, seeds: tuple[int, ...]) -> Floats:
        scores = self._known[term][0]
        places = [scores.seeds.index(seed) for seed in seeds]
        return np.stack((scores.totals[places], scores.counts[places]))

    def _spread_of_seeds(self, steps: Floats) -> SeedSpread | None:
        """Of a result that moves by `steps` (K,) as each row's own spread moves it; None where it is not known."""
        parts: list[tuple[float, float]] = []  # variance and degrees of freedom
        shared: dict[str, list[float]] = {}
        spreads: dict[str, Spread] = {}
        for term, step in zip(self._known, steps, strict=True):
            spread = self.source.spread(term)
            if spread is None:
                return None
            parts.append((float(step) ** 2, spread.row_freedom))
            if spread.of_row > 0:
                shared.setdefault(term.metric, []).append(float(step) / np.sqrt(spread.of_row))
                spreads[term.metric] = spread
        # what a seed does to all rows alike moves the result by the sum of its slopes: by nothing in a difference
        parts += [
            (sum(found) ** 2 * spreads[name].of_seed, spreads[name].seed_freedom) for name, found in shared.items()
        ]
        variance = sum(part for part, _ in parts)
        if variance == 0:
            return SeedSpread(0.0, max(freedom for _, freedom in parts))
        return SeedSpread(variance, _freedom(parts, variance))


def _freedom(parts: list[tuple[float, float]], variance: float) -> float:
    """Degrees of freedom of a sum of variances (Satterthwaite 1946). Variances of rows are one pooled estimate each
    metric, so that what has the same degrees of freedom is added first."""
    pooled: dict[float, float] = {}
    for part, freedom in parts:
        pooled[freedom] = pooled.get(freedom, 0.0) + part
    return variance**2 / sum(part**2 / freedom for freedom, part in pooled.items())
