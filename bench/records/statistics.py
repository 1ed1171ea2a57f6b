"""Bootstrap intervals over documents and seeds, paired differences, verdicts.

Every metric is a ratio of sums over documents. Two things make it uncertain. The *documents* are a sample of
the texts that might have been scored, and the *seeds* are a sample of the trainings that might have been run.
The two are crossed (every seed scores every document), and each is treated for what it is:

- **Documents are resampled** with replacement (percentile bootstrap), the same draws for every row and seed.
  So a difference between two rows is resampled document by document, and what is hard for both cancels.
- **Within each resample the mean over the seeds moves as well**, by its standard error. Resampling three seeds with
  replacement would be wrong here: it has 2/3 of the variance, and no tails. Where seeds decide, such "95 %" intervals
  held the truth in 77 % of our simulations.
- What a seed does to single documents is in both parts. It is measured and taken out of the second, as far as it is
  there: an interval is never narrower than documents alone make it, however well two seeds happen to agree. A seed of
  one row is paired with the same seed of the other: initial weights and order of data are the same.
- **Both spreads are estimates**, so that the tails of the draws are stretched to those of Student's t: with S-1
  degrees of freedom as far as seeds decide, and as far as documents do with as many as they are worth, which is few
  where a few long ones decide. Without that, percentiles held the truth in 90 to 93 % with few documents or lengths
  with heavy tails.

In simulations of all of these the intervals hold the truth in 93 to 97 % (`tests/bench/records/test_stats.py`).
With one seed nothing is known about training noise, and the interval is over documents alone; tables say so.
Intervals are per comparison, not simultaneous over all rows of a table.

Legend: R rows, S seeds of a row, D documents, B resamples, K columns of sums.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, isnan, nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchers.errors import BenchError

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "tie", "undecided"]

MARGIN = 0.01  # bits per byte; fixed beforehand (DESIGN 8): a smaller difference does not matter to anybody
RESAMPLES = 10_000
LEVEL = 0.95
SHARE = 1.25
"""How the tails go from those of documents to those of seeds, by the seeds' share of the variance: its power. With 1
(Cochran 1953) intervals hold the truth in up to 97.2 % of our simulations, with 1.5 in as few as 92.8 %, and with this
in 93.3 to 96.4 %."""
MANY = 10_000.0
"""Degrees of freedom at which Student's t is as good as normal."""


@dataclass(frozen=True)
class Scores:
    """One row's per-document sums for one metric; the documents and their order are the same in every row."""

    seeds: tuple[int, ...]
    totals: Floats  # (S, D), for instance bits
    counts: Floats  # (S, D), for instance bytes

    def __post_init__(self) -> None:
        shape = (len(self.seeds), *self.totals.shape[1:])
        assert self.totals.ndim == 2, f"want (S, D), got {self.totals.shape}"
        assert self.totals.shape == self.counts.shape == shape, f"{self.totals.shape}, {self.counts.shape}"
        assert len(set(self.seeds)) == len(self.seeds) > 0, f"seeds {self.seeds}"

    def ratios(self) -> Floats:
        """(S,) the metric of each seed, NaN where nothing was counted."""
        return divided(self.totals.sum(axis=1), self.counts.sum(axis=1))

    def influences(self) -> Floats:
        """(S, D) how much each document moves its seed's ratio, to first order."""
        counted = self.counts.sum(axis=1, keepdims=True)
        return divided(self.totals - self.ratios()[:, None] * self.counts, counted)


@dataclass(frozen=True)
class Estimate:
    """A value, the mean over seeds, and the ends of its interval; NaN where there is no interval to give."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """What is not finite is null."""
        return {name: end if isfinite(end) else None for name, end in vars(self).items()}

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.high, -self.low)


class Bootstrap:
    """All rows of a table resampled together, once; estimates and paired differences are read off it.

    A row's interval depends on its own scores alone, not on which other rows are there.
    """

    def __init__(
        self, rows: Mapping[str, Scores], *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
    ) -> None:
        """Raises BenchError when the rows were not scored on the same number of documents."""
        self.rows = dict(rows)
        self.level = level
        self._seed = seed
        self._first: dict[str, int] = {}  # label -> its first column in self._ratios
        totals: list[Floats] = []
        counts: list[Floats] = []
        known: dict[bytes, int] = {}  # most rows share their counts: raw bytes are raw bytes
        count_of: list[int] = []
        for label, scores in self.rows.items():
            self._first[label] = len(totals)
            for total, count in zip(scores.totals, scores.counts, strict=True):
                if totals and len(total) != len(totals[0]):
                    raise BenchError(
                        f"row {label!r} has {len(total)} documents and row {next(iter(rows))!r} has "
                        f"{len(totals[0])}; score both on the same documents"
                    )
                totals.append(total)
                key = count.tobytes()
                if key not in known:
                    known[key] = len(counts)
                    counts.append(count)
                count_of.append(known[key])
        if totals:
            sums = resampled_sums(np.stack(totals + counts, axis=1), resamples, seed)
            self._ratios = divided(sums[:, : len(totals)], sums[:, len(totals) :][:, count_of])  # (B, R*S)

    def estimate(self, row: str) -> Estimate:
        """The row's value with its interval over documents and over its seeds."""
        scores = self.rows[row]
        return self._interval(self._columns(row, scores.seeds), scores.ratios(), scores.influences())

    def difference(self, row: str, reference: str) -> Estimate | None:
        """Row minus reference, paired by document and seed, over the seeds both have; None without any."""
        a, b = self.rows[row], self.rows[reference]
        common = [seed for seed in a.seeds if seed in b.seeds]
        if not common:
            return None
        at, bt = [a.seeds.index(s) for s in common], [b.seeds.index(s) for s in common]
        return self._interval(
            self._columns(row, common) - self._columns(reference, common),
            a.ratios()[at] - b.ratios()[bt],
            a.influences()[at] - b.influences()[bt],
        )

    def draws(self, row: str, stream: int) -> Floats:
        """(B,) values that the row might as well have come to; the documents are drawn alike for all rows.

        What its seeds add is drawn apart for each `stream`, as if the trainings of two rows had nothing in common.
        """
        scores = self.rows[row]
        return self._draws(self._columns(row, scores.seeds), scores.ratios(), scores.influences(), stream)

    def _columns(self, row: str, seeds: Iterable[int]) -> Floats:
        """(B, S) resampled ratios of these seeds."""
        mine = self.rows[row].seeds
        return self._ratios[:, [self._first[row] + mine.index(seed) for seed in seeds]]

    def _interval(self, resampled: Floats, values: Floats, influences: Floats) -> Estimate:
        """From (B, S) resampled values, the (S,) values themselves and their (S, D) influences."""
        value = float(values.mean())
        if influences.shape[1] < 2 or isnan(value):
            return Estimate(value, nan, nan)
        return interval_of(value, self._draws(resampled, values, influences), self.level)

    def _draws(self, resampled: Floats, values: Floats, influences: Floats, stream: int = 0) -> Floats:
        return crossed_draws(resampled, values, influences, seed=self._seed, stream=stream)


@dataclass(frozen=True)
class SeedSpread:
    """How much one training's value differs from another's, known from elsewhere, with its degrees of freedom."""

    variance: float
    freedom: float


def crossed_draws(
    resampled: Floats,
    values: Floats,
    influences: Floats,
    *,
    seed: int = 0,
    stream: int = 0,
    spread_of_seeds: SeedSpread | None = None,
) -> Floats:
    """(B,) draws of the mean over seeds of any number that comes of per-document sums.

    `resampled` (B, S) are its values in resamples of the documents, `values` (S,) itself, and `influences` (S, D) how
    much each document moves it. The draws are moved as the mean of other seeds might be, with the tails that they need
    because both spreads are estimates. `spread_of_seeds` stands in where there is one seed, which says nothing of it.
    """
    seeds, documents = influences.shape
    draws: Floats = resampled.mean(axis=1)
    centre, spread = np.nanmean(draws), float(np.nanvar(draws))
    kept, of_seeds = documents / max(1, documents - 1), 0.0  # a sample is less spread than what it is from
    freedom = float(seeds - 1)
    if seeds > 1:
        # What a seed does to single documents is in the spread of the documents too: count it there only.
        own = influences - influences.mean(axis=0)
        counted = float((own**2).sum()) / (seeds - 1) / seeds
        of_seeds = max(0.0, float(values.var(ddof=1)) / seeds - counted)
    elif spread_of_seeds is not None:
        of_seeds, freedom = spread_of_seeds.variance, spread_of_seeds.freedom
    draws = np.sqrt(kept) * (draws - centre)
    tails = even_quantiles(len(draws), freedom_of(influences.mean(axis=0)))
    if of_seeds > 0:
        shuffled = np.random.default_rng([seed, seeds - 1, *([stream] if stream else [])])
        draws = draws + np.sqrt(of_seeds) * shuffled.permutation(even_quantiles(len(draws), MANY))
        share = of_seeds / (of_seeds + kept * spread)
        tails = tails + share**SHARE * (even_quantiles(len(draws), freedom) - tails)
    return centre + _with_tails(draws, tails, even_quantiles(len(draws), MANY))


@lru_cache(maxsize=64)
def even_quantiles(count: int, freedom: float) -> Floats:
    """(count,) equally likely quantiles of Student's t: less noise in the tails than draws."""
    quantiles = student_quantiles((np.arange(count) + 0.5) / count, freedom)
    quantiles.flags.writeable = False
    return quantiles


def freedom_of(influences: Floats) -> float:
    """Degrees of freedom of the variance that documents' influences (D,) add up to: few where a few decide."""
    squares = influences**2
    total = float(squares.sum())
    if total == 0:
        return MANY
    noise = float((squares**2).sum()) / total**2 - 1 / len(influences)  # relative variance of `total`
    return min(MANY, len(influences) - 1, 2 / noise if noise > 0 else MANY)


def _with_tails(draws: Floats, tails: Floats, normal: Floats) -> Floats:
    """draws (B,) about as normal as sums are, each moved away from the middle as `tails` are from normal quantiles."""
    known = np.flatnonzero(~np.isnan(draws))
    order = known[draws[known].argsort()]
    places = np.linspace(0, len(normal) - 1, len(order)).astype(int)
    further = np.divide(tails, normal, out=np.ones_like(normal), where=np.abs(normal) > 1e-6)[places]
    middle = np.median(draws[known])
    out = draws.copy()
    out[order] = middle + (draws[order] - middle) * further
    return out


def interval_of(value: float, draws: Floats, level: float = LEVEL) -> Estimate:
    """A value with the percentile interval of its draws; NaN draws, in which nothing was counted, are left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def resampled_sums(columns: Floats, resamples: int, seed: int) -> Floats:
    """(B, K) sums of (D, K) columns over B resamples of the D documents, drawn with replacement.

    How often each document was drawn is a (B, D) matrix of counts, and the sums are its product with the
    columns: in blocks of resamples, so that the counts stay in the cache.
    """
    documents = len(columns)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, columns.shape[1]))
    block = max(1, 2**18 // documents)
    for at in range(0, resamples, block):
        n = min(block, resamples - at)
        drawn = rng.integers(0, documents, size=(n, documents), dtype=np.int32)
        drawn += np.arange(0, n * documents, documents, dtype=np.int32)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * documents).reshape(n, documents)
        sums[at : at + n] = times.astype(np.float64) @ columns
    return sums


ANGLES = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
LOG_COSINES = np.log(np.cos(ANGLES))


def student_quantiles(levels: Floats, freedom: float) -> Floats:
    """Quantiles of Student's t. Where t = sqrt(v) tan(phi), the density of phi goes as cos(phi)^(v-1)."""
    density = np.exp((freedom - 1) * LOG_COSINES)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.sqrt(freedom) * np.tan(np.interp(levels, below / below[-1], ANGLES))


def verdict(difference: Estimate, *, margin: float = MARGIN, lower_is_better: bool = True) -> Verdict:
    """What a paired difference (row minus reference) says about the row.

    tie: the whole interval is within the margin: whatever the difference is, it is too small to matter.
    better, worse: it is not, and it excludes zero. undecided: it has zero in it and reaches beyond the margin
    (more documents or seeds are needed), or there is no interval.
    """
    d = difference if lower_is_better else -difference
    if isnan(d.low) or isnan(d.high):
        return "undecided"
    if -margin <= d.low and d.high <= margin:
        return "tie"
    if d.high < 0:
        return "better"
    return "worse" if d.low > 0 else "undecided"


def best_rows(
    bootstrap: Bootstrap, labels: Iterable[str], *, margin: float = MARGIN, lower_is_better: bool = True
) -> list[str]:
    """The rows to print in bold: the best, and each that its paired difference does not show to be worse."""
    values = {label: float(bootstrap.rows[label].ratios().mean()) for label in labels}
    values = {label: value for label, value in values.items() if not isnan(value)}
    if not values:
        return []
    best = (min if lower_is_better else max)(values, key=lambda label: values[label])

    def holds(label: str) -> bool:
        if label == best:
            return True
        difference = bootstrap.difference(label, best)
        if difference is None:
            return True
        return verdict(difference, margin=margin, lower_is_better=lower_is_better) != "worse"

    return [label for label in values if holds(label)]


def divided(total: Floats, count: Floats) -> Floats:
    """The ratios; NaN where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count == 0, nan, total / count)
