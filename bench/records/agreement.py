"""Agreement between two suites: the share of pairwise comparisons that a small suite orders as a large one.

After DataDecide (Magnusson et al. 2025, section 2.2), where a ranking at one small scale decides 80 % of the
comparisons of the large one. Of all pairs of rows that the large suite tells apart, a pair counts 1 where the small
suite orders it the same way, 0 where it orders it the other way, and 1/2 where it cannot tell.

Told apart means what bold means in a table: the interval of the paired difference has no zero in it and reaches beyond
the margin (`bench.records.statistics.verdict`).

The interval of the share is over the rows, which are a sample of those that might have been compared: rows are drawn
with replacement, and a pair counts as often as both of its rows were drawn together. What documents and seeds leave
open is in the halves already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan
from typing import Any, Literal

import numpy as np
from scipy.stats import kendalltau

from bench.records.comparison import BPB, Runs, rows_of, scores_of
from bench.records.record import Record, dig
from bench.records.statistics import MARGIN, RESAMPLES, Bootstrap, Estimate, interval_of, verdict
from patchers.errors import BenchError

Order = Literal["better", "worse", "unclear"]
"""Of the first row of a pair against the second."""


@dataclass(frozen=True)
class Pair:
    """Two rows, as both suites order them."""

    rows: tuple[str, str]
    small: Order
    large: Order

    @property
    def score(self) -> float | None:
        """None where the large suite does not tell the rows apart."""
        if self.large == "unclear":
            return None
        return 0.5 if self.small == "unclear" else float(self.small == self.large)


@dataclass(frozen=True)
class Agreement:
    """How far the order of one suite is that of another."""

    rows: tuple[str, ...]
    """That both have numbers of."""
    pairs: tuple[Pair, ...]
    share: Estimate
    """Of the pairs that the large suite tells apart, those that the small one orders alike; NaN where there is none."""
    tau: float
    """Kendall's tau-b between the values of the rows."""

    @property
    def decided(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.score is not None]

    def as_json(self) -> dict[str, Any]:
        pairs = [{"rows": list(p.rows), "small": p.small, "large": p.large, "score": p.score} for p in self.pairs]
        tau = None if isnan(self.tau) else self.tau
        return {
            "rows": list(self.rows),
            "decided": len(self.decided),
            "share": self.share.as_json(),
            "tau": tau,
            "pairs": pairs,
        }


def agreement(small: Sequence[Record], large: Sequence[Record], *, resamples: int = RESAMPLES) -> Agreement:
    """Raises BenchError where fewer than two rows have a number in both."""
    runs = [_ranked(rows_of(records)) for records in (small, large)]
    shared = [label for label in runs[1] if label in runs[0]]
    if len(shared) < 2:
        raise BenchError(
            f"at least two rows must have a number in both suites, and {len(shared)} "
            f"{'has' if len(shared) == 1 else 'have'}: the first has {', '.join(runs[0]) or 'none'}, the second "
            f"{', '.join(runs[1]) or 'none'}"
        )
    boots = [Bootstrap(scores_of(BPB, [own[label] for label in shared]), resamples=resamples) for own in runs]
    pairs = []
    for a, b in combinations(shared, 2):
        first, second = (_order(bootstrap.difference(a, b)) for bootstrap in boots)
        pairs.append(Pair((a, b), first, second))
    values = [[float(boot.rows[label].ratios().mean()) for label in shared] for boot in boots]
    return Agreement(tuple(shared), tuple(pairs), share_of(pairs, resamples), float(kendalltau(*values).statistic))


def _ranked(rows: Mapping[str, Runs]) -> dict[str, Runs]:
    """The rows that a table would rank."""
    return {label: runs for label, runs in rows.items() if runs.mark is None}


def _order(difference: Estimate | None) -> Order:
    said = None if difference is None else verdict(difference, margin=MARGIN)
    return said if said in ("better", "worse") else "unclear"


def share_of(pairs: Sequence[Pair], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean score of the pairs that the large suite tells apart, with its interval over rows."""
    scored = [(pair.rows, pair.score) for pair in pairs if pair.score is not None]
    if not scored:
        return Estimate(nan, nan, nan)
    labels = list(dict.fromkeys(label for rows, _ in scored for label in rows))
    place = {label: i for i, label in enumerate(labels)}
    a, b = (np.array([place[rows[side]] for rows, _ in scored]) for side in (0, 1))
    scores = np.array([score for _, score in scored])
    drawn = np.random.default_rng(seed).multinomial(len(labels), [1 / len(labels)] * len(labels), size=resamples)
    weight = drawn[:, a] * drawn[:, b]  # (B, pairs)
    with np.errstate(invalid="ignore"):
        shares = (weight @ scores) / weight.sum(axis=1)
    if np.isnan(shares).all():
        return Estimate(float(scores.mean()), nan, nan)
    return interval_of(float(scores.mean()), shares)


def at_budget(records: Sequence[Record], value: float | None = None) -> list[Record]:
    """Of a suite with a sweep, the records at one value of what is swept (by default the largest), under the names that
    the rows have in the suite; of a suite without one, all.

    Raises BenchError for a value that was not swept.
    """
    values = sorted({float(v) for record in records if (v := dig(record, "config.sweep.value")) is not None})
    if value is not None and value not in values:
        known = ", ".join(f"{v:g}" for v in values) or "no values: it has no sweep"
        raise BenchError(f"no records at {value:g}; there are {known}")
    if not values:
        return list(records)
    wanted = values[-1] if value is None else value
    of_sweep = [record for record in records if dig(record, "config.sweep.value") in (wanted, None)]
    return [{**record, "row": dig(record, "config.sweep.row") or record["row"]} for record in of_sweep]
