"""Scaling fits: L = E + A * C^-a for each row of a sweep, and crossings (DESIGN 7).

C is the training compute of a run in FLOPs, its patcher's included, and L its bits per byte. Few budgets hold little
about three numbers, so E, the loss that no compute takes away, is kept at 0 or above, and its interval is given: where
it reaches down to 0 the budgets do not tell E from 0. A crossing is claimed inside the budgets that both rows were
measured at and nowhere else.

Intervals are over documents (and seeds, where there are several): every resample of `bench.records.statistics` is
fitted, the same documents in all rows and budgets, so that what is hard for all cancels where rows are compared. They
do not know of runs that would have come out otherwise with another seed where there is one, nor of a curve that is no
power law.

The squares of relative errors are least, which is to first order those of log L. Given a, E and A are linear: so a is
searched on a grid, then on a finer one, for all resamples together.

Legend: B resamples, N budgets of a row, G values of a.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite
from typing import Any, Literal

import numpy as np

from bench.records.comparison import BPB, Runs, check_comparable, rows_of, scores_of, swept_row
from bench.records.record import Record, dig
from bench.records.statistics import LEVEL, RESAMPLES, Bootstrap, Estimate, Floats, interval_of
from patchers.errors import BenchError

EXPONENTS = np.geomspace(0.005, 4, 121)
STEPS = 400
"""Places between the smallest and the largest common budget at which curves are compared."""


@dataclass(frozen=True)
class Laws:
    """Power laws, one an entry: `floor` E, `height` of A * (C / unit)^-a at C = unit, `exponent` a."""

    floor: Floats
    height: Floats
    exponent: Floats
    unit: float

    def at(self, compute: Floats) -> Floats:
        """(B, len(compute)) losses."""
        falls = (compute / self.unit) ** -self.exponent[:, None]
        return self.floor[:, None] + self.height[:, None] * falls

    @property
    def scale(self) -> Floats:
        """A itself."""
        return self.height * self.unit**self.exponent


def fit(compute: Floats, losses: Floats, passes: int = 3) -> Laws:
    """losses (B, N) at compute (N,), N >= 3 -> the B laws that fit best with E >= 0 and A >= 0.

    Each of the passes narrows the steps between exponents to a tenth.
    """
    unit = float(np.exp(np.log(compute).mean()))
    exponent, step = np.tile(EXPONENTS, (1, 1)), EXPONENTS[1] / EXPONENTS[0]
    for _ in range(passes):
        floor, height, error = _linear(compute / unit, losses, exponent)
        best = error.argmin(axis=1)[:, None]
        exponent = np.take_along_axis(np.broadcast_to(exponent, error.shape), best, 1)
        floor, height = np.take_along_axis(floor, best, 1), np.take_along_axis(height, best, 1)
        found = Laws(floor[:, 0], height[:, 0], exponent[:, 0], unit)
        exponent = exponent * step ** np.linspace(-1, 1, 21)
        step = step**0.1
    return found


def _linear(compute: Floats, losses: Floats, exponent: Floats) -> tuple[Floats, Floats, Floats]:
    """E, A and the squared relative error, each (B, G), that are best for exponents (B or 1, G)."""
    falls = compute ** -exponent[..., None]  # (B or 1, G, N)
    weight = (1 / losses**2)[:, None, :]
    wanted = losses[:, None, :]
    s, sx, sy = weight.sum(-1), (weight * falls).sum(-1), (weight * wanted).sum(-1)
    sxx, sxy = (weight * falls**2).sum(-1), (weight * falls * wanted).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        height = (s * sxy - sx * sy) / (s * sxx - sx**2)
    floor = (sy - height * sx) / s
    height = np.where(floor < 0, sxy / sxx, height)
    floor = np.maximum(floor, 0)
    flat = ~(height >= 0)  # more compute does not help, or nothing is known
    height, floor = np.where(flat, 0, height), np.where(flat, sy / s, floor)
    error = (weight * (wanted - floor[..., None] - height[..., None] * falls) ** 2).sum(-1)
    return floor, height, error


# --- of a suite


@dataclass(frozen=True)
class Point:
    """One budget of a row."""

    row: str
    value: float
    """What was swept."""
    compute: float
    """Training FLOPs."""
    train_bytes: float
    loss: Estimate


@dataclass(frozen=True)
class Fit:
    """A row over its budgets."""

    row: str
    points: tuple[Point, ...]
    laws: Laws
    """The law itself, then those of the resamples."""
    floor: Estimate
    scale: Estimate
    exponent: Estimate
    misfit: float
    """The largest relative distance of a point from the curve."""

    @property
    def floor_is_open(self) -> bool:
        """Whether the budgets do not tell E from 0."""
        return self.floor.low <= 1e-9

    def band(self, places: int = 40) -> list[list[float]]:
        """[compute, loss, low, high] along the measured budgets, for a picture."""
        ends = [point.compute for point in self.points]
        compute = np.geomspace(min(ends), max(ends), places)
        losses = self.laws.at(compute)
        low, high = np.nanquantile(losses[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return np.stack((compute, losses[0], low, high), 1).tolist()


@dataclass(frozen=True)
class Crossing:
    """Where the curve of `below` is from one budget on as low as that of `above`, or that it is nowhere so."""

    rows: tuple[str, str]
    status: Literal["inside", "none", "extrapolated"]
    """`inside` the measured budgets; `none`; or only beyond them, where nothing was measured and no number is given."""
    compute: Estimate | None
    """FLOPs; an end is infinite where resamples cross beyond the measured budgets."""
    lower_first: str
    """The row that is lower at the smallest common budget."""
    share: float
    """Of resamples, those that cross inside the measured budgets."""
    span: tuple[float, float]
    """The budgets that both rows were measured at."""


@dataclass(frozen=True)
class Fits:
    """All that a sweep says."""

    key: str
    rows: Mapping[str, Fit]
    crossings: tuple[Crossing, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "law": "bpb = E + A * FLOPs^-a",
            "rows": {label: _fit_json(found) for label, found in self.rows.items()},
            "crossings": [_crossing_json(found) for found in self.crossings],
        }


def fits_of(records: Iterable[Record], rows: Sequence[str] | None = None, resamples: int = RESAMPLES) -> Fits:
    """The fits of a suite that swept budgets. `rows` are labels as they stand in the suite, without the budget.

    Raises BenchError where nothing was swept, where a row has fewer than three budgets, and where records cannot be
    compared.
    """
    runs = {label: found for label, found in rows_of(records).items() if found.mark is None}
    groups, key = swept(runs)
    if unknown := [label for label in rows or () if label not in groups]:
        raise BenchError(f"unknown row {unknown[0]!r}; rows of the sweep are: {', '.join(groups)}")
    groups = {label: groups[label] for label in rows or groups}
    used = [found for group in groups.values() for found in group]
    check_comparable([record for found in used for record in found.records])
    scores = scores_of(BPB, used)
    bootstrap = Bootstrap(scores, resamples=resamples)
    streams = {found.label: number for number, found in enumerate(used, 1)}
    made = {label: _fit(label, group, bootstrap, streams) for label, group in groups.items()}
    return Fits(key, made, tuple(crossing(a, b) for a, b in combinations(made.values(), 2)))


def swept(runs: Mapping[str, Runs]) -> tuple[dict[str, list[Runs]], str]:
    """The rows of a sweep by the row that they are made of (and what else was swept), from the smallest on; the key.

    Raises BenchError where there is no sweep.
    """
    groups: dict[str, list[Runs]] = {}
    keys: dict[str, None] = {}
    for found in runs.values():
        base = swept_row(found.any_record)
        if base is not None:
            groups.setdefault(base, []).append(found)
            keys[dig(found.any_record, "config.sweep.key")] = None
    if not groups:
        raise BenchError("none of these records is of a sweep; `sweep: {train.bytes: [...]}` in a suite makes one")
    if "bytes_per_patch" in keys:
        raise BenchError(
            "this sweep is over bytes_per_patch, which is no budget; fits are of train.bytes, train_flops or sizes"
        )
    if len(keys) > 1:
        raise BenchError(f"these records are of sweeps over {' and over '.join(keys)}; choose rows of one with --rows")
    order = {label: sorted(group, key=lambda found: _mean(found, "flops.train")) for label, group in groups.items()}
    return order, next(iter(keys))


def _fit(label: str, group: Sequence[Runs], bootstrap: Bootstrap, streams: Mapping[str, int]) -> Fit:
    compute = np.array([_mean(found, "flops.train") for found in group])
    if len(np.unique(compute)) < 3:
        raise BenchError(
            f"row {label!r} has {len(np.unique(compute))} budgets with a number, and a curve of three unknowns takes "
            "at least three; run the others, or choose rows with --rows"
        )
    losses = [bootstrap.estimate(found.label) for found in group]
    points = tuple(_point(found, loss) for found, loss in zip(group, losses, strict=True))
    value = np.array([loss.value for loss in losses])
    draws = np.stack([bootstrap.draws(found.label, streams[found.label]) for found in group], 1)
    laws = fit(compute, np.concatenate((value[None], draws)))
    numbers = (laws.floor, laws.scale, laws.exponent)
    floor, scale, exponent = (interval_of(float(of[0]), of[1:]) for of in numbers)
    misfit = float(np.abs(laws.at(compute)[0] / value - 1).max())
    return Fit(label, points, laws, floor, scale, exponent, misfit)


def _point(runs: Runs, loss: Estimate) -> Point:
    value = float(dig(runs.any_record, "config.sweep.value"))
    return Point(runs.label, value, _mean(runs, "flops.train"), _mean(runs, "cost.train_bytes"), loss)


def _mean(runs: Runs, path: str) -> float:
    return float(np.mean(runs.values(path)))


def crossing(a: Fit, b: Fit) -> Crossing:
    """Where two curves cross, with the interval over the resamples that both have in common."""
    spans = [[point.compute for point in found.points] for found in (a, b)]
    low, high = max(map(min, spans)), min(map(max, spans))
    rows = (a.row, b.row)
    if low >= high:  # no common budgets: nothing can be said
        return Crossing(rows, "extrapolated", None, a.row, 0.0, (low, high))
    compute = np.geomspace(low, high, STEPS)
    apart = a.laws.at(compute) - b.laws.at(compute)  # (1 + B, STEPS)
    places = _first_changes(apart, np.log(compute))
    lower_first = rows[0] if apart[0, 0] <= 0 else rows[1]
    inside = np.isfinite(places)
    share = float(inside[1:].mean())
    if inside[0]:
        # a resample that does not cross here does so beyond the end at which the row that is lower there is to win
        places = np.where(inside, places, np.where(np.sign(apart[:, 0]) == np.sign(apart[0, 0]), inf, -inf))
        tail = (1 - LEVEL) / 2
        ends = np.quantile(places[1:], [tail, 1 - tail], method="nearest")
        found = Estimate(*(float(np.exp(x)) if isfinite(x) else float(x) for x in (places[0], *ends)))
        return Crossing(rows, "inside", found, lower_first, share, (low, high))
    far = np.geomspace(low / 1e3, high * 1e3, STEPS)
    beyond = np.isfinite(_first_changes(a.laws.at(far)[:1] - b.laws.at(far)[:1], np.log(far))[0])
    return Crossing(rows, "extrapolated" if beyond else "none", None, lower_first, share, (low, high))


def _first_changes(apart: Floats, places: Floats) -> Floats:
    """(B,) where each line of differences (B, STEPS) first changes its sign, NaN where it does not."""
    sign = np.signbit(apart)
    changes = sign[:, 1:] != sign[:, :-1]
    at = changes.argmax(axis=1)
    lines = np.arange(len(apart))
    before, after = apart[lines, at], apart[lines, at + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = before / (before - after)
    return np.where(changes.any(axis=1), places[at] + share * (places[at + 1] - places[at]), np.nan)


# --- as JSON


def _fit_json(found: Fit) -> dict[str, Any]:
    return {
        "E": {**found.floor.as_json(), "open": found.floor_is_open},
        "A": found.scale.as_json(),
        "a": found.exponent.as_json(),
        "misfit": found.misfit,
        "points": [
            {"row": p.row, "swept": p.value, "flops": p.compute, "train_bytes": p.train_bytes, "bpb": p.loss.as_json()}
            for p in found.points
        ],
        "band": found.band(),
    }


def _crossing_json(found: Crossing) -> dict[str, Any]:
    return {
        "rows": list(found.rows),
        "status": found.status,
        "flops": None if found.compute is None else found.compute.as_json(),
        "lower_first": found.lower_first,
        "share_inside": found.share,
        "span": list(found.span),
    }
