"""Which size is best for a budget, where a sweep is over sizes as well as bytes: bytes a parameter (Hoffmann et al.
2022, their second approach, with fitted curves in the place of measured equal-compute runs).

At a budget each size reads as many bytes as it can pay for, and its own curve says what that gives. Through the three
best sizes beside each other goes a parabola over the logarithm of their parameters, and its lowest point is the
optimum; where the best is the smallest or the largest size, nothing more is claimed than that.

Legend: B resamples, S sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.records.comparison import rows_of
from bench.records.fits import Fit, Fits
from bench.records.record import Record, dig
from bench.records.statistics import Estimate, Floats, interval_of

BUDGETS = 3
"""Budgets along what all sizes of a row were measured at."""


@dataclass(frozen=True)
class Optimum:
    """The best size of a row at one budget."""

    row: str
    compute: float
    parameters: float
    """Non-embedding; of the nearest size where the optimum is not bracketed."""
    train_bytes: float
    ratio: Estimate | None
    """Bytes a parameter; None where the optimum is not bracketed."""
    side: Literal["smallest", "largest"] | None

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "ratio": None if self.ratio is None else self.ratio.as_json()}


@dataclass(frozen=True)
class _Size:
    fit: Fit
    parameters: float
    flops_a_byte: float
    """Of training."""


def optima_of(records: Iterable[Record], fits: Fits) -> list[Optimum]:
    """At budgets along what was measured, for each row that has three sizes or more; none without such a sweep."""
    runs = rows_of(records)
    families: dict[str, list[_Size]] = {}
    for found in fits.rows.values():
        record = runs[found.points[-1].row].any_record
        flops_a_byte = float(dig(record, "flops.train")) / float(dig(record, "cost.train_bytes"))
        size = _Size(found, float(dig(record, "parameters.non_embedding")), flops_a_byte)
        families.setdefault(str(dig(record, "config.sweep.row")), []).append(size)
    out = []
    for row, sizes in families.items():
        if len({size.parameters for size in sizes}) < 3:
            continue
        sizes.sort(key=lambda size: size.parameters)
        spans = [[point.compute for point in size.fit.points] for size in sizes]
        low, high = max(map(min, spans)), min(map(max, spans))
        budgets = np.geomspace(low, high, BUDGETS).tolist() if low < high else []
        out += [_optimum(row, sizes, budget) for budget in budgets]
    return out


def _optimum(row: str, sizes: list[_Size], compute: float) -> Optimum:
    losses = np.concatenate([size.fit.laws.at(np.array([compute])) for size in sizes], 1)  # (1 + B, S)
    counts = np.array([size.parameters for size in sizes])
    best = int(losses[0].argmin())
    if best in (0, len(sizes) - 1):
        read = compute / sizes[best].flops_a_byte
        return Optimum(row, compute, float(counts[best]), read, None, "largest" if best else "smallest")
    parameters = np.exp(_lowest(np.log(counts), losses))
    # between two sizes, the cost of a byte goes as a power of the parameters
    cost = np.exp(np.interp(np.log(parameters), np.log(counts), np.log([size.flops_a_byte for size in sizes])))
    paid: Floats = compute / cost
    ratio = interval_of(float(paid[0] / parameters[0]), (paid / parameters)[1:])
    return Optimum(row, compute, float(parameters[0]), float(paid[0]), ratio, None)


def _lowest(places: Floats, losses: Floats) -> Floats:
    """(B,) where the parabola through each line's lowest value and its two neighbours is lowest; the end itself where
    that is the lowest."""
    best = losses.argmin(axis=1)
    inner = np.clip(best, 1, len(places) - 2)
    lines = np.arange(len(losses))
    x0, x1, x2 = (places[inner + d] for d in (-1, 0, 1))
    y0, y1, y2 = (losses[lines, inner + d] for d in (-1, 0, 1))
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    with np.errstate(divide="ignore", invalid="ignore"):
        lowest = (x0 + x1) / 2 - left * (x2 - x0) / 2 / (right - left)
    return np.where(best == inner, np.clip(lowest, x0, x2), places[best])
