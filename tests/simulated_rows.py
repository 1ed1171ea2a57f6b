"""Rows whose truth is known: sums by document of trainings that were never run, as `bench.claims` asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.claims.numbers import Spread, Term
from bench.records.statistics import Scores


@dataclass
class World:
    """How rows differ, documents differ, and trainings differ, in bits per byte."""

    rows: Mapping[str, float]
    hard: float = 0.3
    """Documents, the same for all rows."""
    taste: float = 0.03
    """Documents, each row its own."""
    luck: float = 0.01
    """Seeds, the same for all rows."""
    own_luck: float = 0.004
    """Seeds, each row its own."""
    flicker: float = 0.01
    """Documents, each training its own."""

    def source(self, rng: np.random.Generator, documents: int, seeds: int, others: int = 0) -> SimulatedSource:
        """A sample: rows scored on so many documents after so many trainings. `others` are rows of three seeds of the
        same world, which say what trainings differ by."""
        sizes = np.round(np.exp(rng.normal(6.5, 0.5, documents))) + 20
        hard = rng.normal(0, self.hard, documents)
        luck = rng.normal(0, self.luck, max(3, seeds))
        found = {}
        for row, bpb in {**self.rows, **{f"other-{i}": 2.0 for i in range(others)}}.items():
            count = 3 if row.startswith("other-") else seeds
            taste = rng.normal(0, self.taste, documents)
            own = rng.normal(0, self.own_luck, count)
            flicker = rng.normal(0, self.flicker, (count, documents))
            values = bpb + hard + taste + (luck[:count] + own)[:, None] + flicker
            found[row] = Scores(tuple(range(count)), values * sizes, np.tile(sizes, (count, 1)))
        spread = None
        if others:
            spread = Spread.of(np.stack([s.ratios() for row, s in found.items() if row.startswith("other-")]))
        return SimulatedSource(found, spread)


@dataclass
class SimulatedSource:
    """`bench.claims.numbers.Source` from scores, whatever the suite and the metric are called."""

    rows: Mapping[str, Scores]
    known_spread: Spread | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The documents of rows that were scored on others."""

    def scores(self, terms: list[Term]) -> dict[Term, tuple[Scores, tuple[str, ...]]]:
        return {term: (self.rows[term.row], self._documents(term.row)) for term in terms}

    def _documents(self, row: str) -> tuple[str, ...]:
        return self.names.get(row) or tuple(map(str, range(self.rows[row].totals.shape[1])))

    def constant(self, suite: str, row: str, path: str) -> float:
        return self.constants[row]

    def spread(self, term: Term) -> Spread | None:
        return self.known_spread
