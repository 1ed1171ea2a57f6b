"""Predicates: what a claim says of the numbers of rows; their registry, and those that are built in.

A predicate is true where its number lies within bounds that were fixed before the records were looked at. Numbers of a
metric are as tables show them: where lower is better, a row that is better has a difference below zero.
"""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from math import inf, nan
from typing import ClassVar, Literal, TypeVar

import numpy as np

from bench.claims.numbers import Measured, Numbers
from bench.records.comparison import BPB
from bench.records.fits import fit
from bench.records.statistics import LEVEL, Estimate, Floats
from patchers.errors import BenchError
from patchers.named import Named

GROUP = "patchbench.predicates"
T = TypeVar("T", bound="Predicate")
Style = Literal["signed", "ratio", "number"]


@dataclass(frozen=True)
class Condition:
    """A number and where it must lie."""

    what: str
    value: Floats
    """(N, S), as computed with what `Numbers.metric` gave."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Predicate(ABC):
    """A frozen dataclass whose fields are its YAML options."""

    name: ClassVar[str] = ""
    style: ClassVar[Style] = "signed"
    """How its numbers are rounded (`bench.reporting.formats`)."""

    _: KW_ONLY
    suite: str
    """Whose records it is about."""

    @abstractmethod
    def conditions(self, of: Numbers) -> list[Condition]:
        """All of which must hold. Raises BenchError, through `of`, for rows and metrics that there are none of."""

    def place(self, of: Numbers, measured: Sequence[Measured]) -> Estimate | None:
        """A number to show instead of those of the conditions, which `measured` are."""
        return None


@dataclass(frozen=True)
class Quantity(Predicate):
    """A predicate about one number, which must lie within bounds: a plug-in has `value`, and `what` in words."""

    _: KW_ONLY
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise BenchError("a margin is fixed beforehand: give at_least, at_most, or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise BenchError(f"nothing is at_least {self.at_least:g} and at_most {self.at_most:g}; swap them")

    @abstractmethod
    def value(self, of: Numbers) -> Floats:
        """The number, computed element by element with what `of.metric(ROW)` gives."""

    def what(self) -> str:
        """The number in words."""
        return self.name

    def conditions(self, of: Numbers) -> list[Condition]:
        return [Condition(self.what(), self.value(of), self.at_least, self.at_most)]


PREDICATES: Named[Predicate] = Named("predicate", Predicate, GROUP)
get, names = PREDICATES.get, PREDICATES.names


@typing.dataclass_transform(frozen_default=True)
def register_predicate(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator that makes a Predicate known as `name`, and a frozen dataclass if it is not one yet."""
    return lambda cls: PREDICATES.add(name, cls)


# --- built in


@register_predicate("difference")
@dataclass(frozen=True)
class Difference(Quantity):
    """A metric of a row minus that of another, paired by document and seed.

    With `beyond` of what each row has more in `metric` than in that one: how much more another text costs it.
    """

    row: str
    reference: str
    metric: str = BPB
    beyond: str | None = None

    def value(self, of: Numbers) -> Floats:
        found = of.metric(self.row, self.metric) - of.metric(self.reference, self.metric)
        if self.beyond is not None:
            found = found - (of.metric(self.row, self.beyond) - of.metric(self.reference, self.beyond))
        return found

    def what(self) -> str:
        beyond = f" beyond {self.beyond}" if self.beyond else ""
        return f"{self.metric}{beyond}: {self.row} minus {self.reference}"


@register_predicate("level")
@dataclass(frozen=True)
class Level(Quantity):
    """A metric of a row, `less` a number, such as what guessing would come to, or what stands in its records."""

    row: str
    metric: str = BPB
    less: str | float = 0.0

    def value(self, of: Numbers) -> Floats:
        less = of.constant(self.row, self.less) if isinstance(self.less, str) else self.less
        return of.metric(self.row, self.metric) - less

    def what(self) -> str:
        return f"{self.metric}{f' less {self.less}' if self.less else ''}: {self.row}"


@register_predicate("contrast")
@dataclass(frozen=True)
class Contrast(Quantity):
    """A weighted sum of a metric over rows: a difference of differences, for instance."""

    weights: dict[str, float]
    metric: str = BPB

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.weights) < 2:
            raise BenchError("weights are of two rows or more, as {entropy: 1, stride: -1}")

    def value(self, of: Numbers) -> Floats:
        return sum((weight * of.metric(row, self.metric) for row, weight in self.weights.items()), np.zeros((1, 1)))

    def what(self) -> str:
        return f"{self.metric}: {' '.join(f'{weight:+g} {row}' for row, weight in self.weights.items())}"


@register_predicate("ratio")
@dataclass(frozen=True)
class Ratio(Quantity):
    """A metric of a row over that of another, paired by document and seed."""

    style: ClassVar[Style] = "ratio"
    row: str
    reference: str
    metric: str = BPB

    def value(self, of: Numbers) -> Floats:
        return of.metric(self.row, self.metric) / of.metric(self.reference, self.metric)

    def what(self) -> str:
        return f"{self.metric}: {self.row} over {self.reference}"


@dataclass(frozen=True)
class OverRows(Quantity):
    """A number of several rows' curve; with `minus` that of those rows less."""

    rows: tuple[str, ...]
    over: str = "flops.train"
    metric: str = BPB
    minus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        least, complaint = self.takes()
        if len(self.rows) < least or 0 < len(self.minus) < least:
            raise BenchError(complaint)

    @abstractmethod
    def takes(self) -> tuple[int, str]:
        """The least number of rows, and what is said where there are fewer."""

    @abstractmethod
    def of_rows(self, of: Numbers, rows: Sequence[str]) -> Floats:
        """The number of these rows."""

    def value(self, of: Numbers) -> Floats:
        found = self.of_rows(of, self.rows)
        return found - self.of_rows(of, self.minus) if self.minus else found

    def what(self) -> str:
        return f", minus that of {', '.join(self.minus)}" if self.minus else ""


@register_predicate("slope")
@dataclass(frozen=True)
class Slope(OverRows):
    """By how much a metric changes where a number of the rows doubles: the least squares line over its logarithm.

    With `minus` the slope over those rows less, in the same order or not.
    """

    def takes(self) -> tuple[int, str]:
        return 2, "a slope is of two rows or more"

    def of_rows(self, of: Numbers, rows: Sequence[str]) -> Floats:
        places = np.log2(_constants(of, rows, self.over))
        centred = places - places.mean()
        weights = centred / (centred**2).sum()
        return sum((w * of.metric(row, self.metric) for w, row in zip(weights, rows, strict=True)), np.zeros((1, 1)))

    def what(self) -> str:
        return f"{self.metric} for each doubling of {self.over} over {', '.join(self.rows)}{super().what()}"


@register_predicate("exponent")
@dataclass(frozen=True)
class Exponent(OverRows):
    """The exponent a of L = E + A * C^-a over rows of three budgets C or more (`bench.records.fits`).

    With `minus` that of those rows less.
    """

    def takes(self) -> tuple[int, str]:
        return 3, "a curve of three unknowns takes rows of three budgets at least"

    def of_rows(self, of: Numbers, rows: Sequence[str]) -> Floats:
        budgets = _constants(of, rows, self.over)
        losses = np.stack(np.broadcast_arrays(*(of.metric(row, self.metric) for row in rows)), axis=-1)
        flat = losses.reshape(-1, len(rows))
        exponents = np.full(len(flat), np.nan)
        known = np.isfinite(flat).all(axis=1)
        exponents[known] = fit(budgets, flat[known], passes=6).exponent
        return exponents.reshape(losses.shape[:-1])

    def what(self) -> str:
        return f"exponent of {self.metric} over {self.over} of {', '.join(self.rows)}{super().what()}"


def _constants(of: Numbers, rows: Sequence[str], path: str) -> Floats:
    found = np.array([of.constant(row, path) for row in rows])
    if not (found > 0).all() or len(np.unique(found)) < len(found):
        said = ", ".join(f"{row} {value:g}" for row, value in zip(rows, found, strict=True))
        raise BenchError(f"wanted a different number above 0 at {path} for each row, got {said}")
    return found


@register_predicate("crossing")
@dataclass(frozen=True)
class Crossing(Predicate):
    """Rows that are worse than others at the smallest budget and better at the largest, by `margin` both times.

    `rows` and `references` are of the same budgets, from the smallest on. Where they cross is read off the straight
    line between two budgets, over the logarithm of what stands at `over`.
    """

    rows: tuple[str, ...]
    references: tuple[str, ...]
    margin: float
    over: str = "flops.train"
    metric: str = BPB
    lower_is_better: bool = True

    def __post_init__(self) -> None:
        if len(self.rows) < 2 or len(self.rows) != len(self.references):
            raise BenchError("rows and references are of the same two budgets or more")
        if self.margin < 0:
            raise BenchError(f"a margin is 0 or more, got {self.margin:g}")

    def conditions(self, of: Numbers) -> list[Condition]:
        sign = 1 if self.lower_is_better else -1
        out = []
        for place, (row, reference) in enumerate(zip(self.rows, self.references, strict=True)):
            behind = sign * (of.metric(row, self.metric) - of.metric(reference, self.metric))
            first, last = place == 0, place == len(self.rows) - 1
            out.append(
                Condition(
                    f"{self.metric}: how far {row} is behind {reference}",
                    behind,
                    self.margin if first else None,
                    -self.margin if last else None,
                )
            )
        self._budgets(of)
        return out

    def place(self, of: Numbers, measured: Sequence[Measured]) -> Estimate:
        """Where the rows overtake the references: infinite beyond the budgets, 0 before them."""
        behind = np.stack([np.append(one.value, one.draws) for one in measured], axis=1)
        places = np.exp(_overtakes(behind, np.log(self._budgets(of))))
        if np.isnan(places[1:]).all():
            return Estimate(float(places[0]), nan, nan)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(places[1:][~np.isnan(places[1:])], [tail, 1 - tail], method="nearest")
        return Estimate(float(places[0]), float(low), float(high))

    def _budgets(self, of: Numbers) -> Floats:
        """The mean of both rows at each budget. Raises BenchError where they do not rise."""
        found = np.array(
            [[of.constant(row, self.over) for row in pair] for pair in zip(self.rows, self.references, strict=True)]
        )
        budgets: Floats = np.exp(np.log(found).mean(axis=1))
        if any(a >= b for a, b in pairwise(budgets)):
            raise BenchError(
                f"wanted rows from the smallest {self.over} on, got {', '.join(f'{b:.3g}' for b in budgets)}"
            )
        return budgets


def _overtakes(behind: Floats, places: Floats) -> Floats:
    """(B,) where lines (B, K) over places (K,) first go from above 0 to 0 or below."""
    before, after = behind[:, :-1], behind[:, 1:]
    changes = (before > 0) & (after <= 0)
    at = changes.argmax(axis=1)
    lines = np.arange(len(behind))
    first, second = before[lines, at], after[lines, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = places[at] + first / (first - second) * (places[at + 1] - places[at])
    beyond = np.where(behind[:, 0] > 0, inf, -inf)
    found = np.where(changes.any(axis=1), inside, beyond)
    return np.where(np.isnan(behind).any(axis=1), nan, found)
