"""Verdicts: supported, refuted, or undecided at this scale.

A claim is *supported* where the interval of its number lies within its bounds, *refuted* where it lies beyond one of
them, and undecided where a bound is inside of it. The test is two-sided at 5 %, so that a claim that is true is
refuted, and one that is false supported, in 5 % of samples at most, also where the truth lies at the bound.

Over a list of claims there would be false verdicts by and by. Holm's procedure (1979) holds the chance of any false
verdict in the list to 5 %: the smallest p-value must be below 5 % over the number of claims, the next below 5 % over
one fewer, and so on until one is not. The verdict is what holds with it; the one without it stands beside.

A claim whose records are missing has no verdict. Neither it, nor one that cannot be decided however it came out (it
rests on one seed, and nothing says what another would give), is in the list that is corrected for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bench.claims.config import Claim, Claims
from bench.claims.evidence import Evidence, NoRecords
from bench.claims.numbers import Measured, Numbers, Source
from bench.claims.power import Need, Question, need
from bench.claims.predicates import Predicate, Style
from bench.records.record import Record
from bench.records.statistics import LEVEL, RESAMPLES, Estimate
from patchers.errors import BenchError

Said = Literal["supported", "refuted", "undecided", "no records"]
SAID: tuple[Said, ...] = get_args(Said)
ALPHA = 1 - LEVEL
ONE_SEED = "it rests on one seed, and no rows with several say what another training would give: run two more"


@dataclass(frozen=True)
class Examined:
    """A condition and what the records say of it. P-values are two-sided."""

    what: str
    at_least: float | None
    at_most: float | None
    style: Style
    measured: Measured

    @property
    def estimate(self) -> Estimate:
        return self.measured.estimate

    @property
    def within(self) -> bool:
        """Whether the estimate itself lies within the bounds."""
        value = self.measured.value
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def supported(self) -> dict[float, float]:
        """The p-value of each bound that the number must be shown to lie within."""
        found = {} if self.at_least is None else {self.at_least: self._above(self.at_least)}
        return found | ({} if self.at_most is None else {self.at_most: self._below(self.at_most)})

    @property
    def refuted(self) -> dict[float, float]:
        """The p-value of each bound that the number may be shown to lie beyond."""
        found = {} if self.at_least is None else {self.at_least: self._below(self.at_least)}
        return found | ({} if self.at_most is None else {self.at_most: self._above(self.at_most)})

    @property
    def decidable(self) -> bool:
        """Whether it has an interval that knows of documents and of trainings."""
        return self.measured.seeds_are_known and not np.isnan(self.estimate.low)

    def _above(self, bound: float) -> float:
        return self._p(self.measured.draws <= bound)

    def _below(self, bound: float) -> float:
        return self._p(self.measured.draws >= bound)

    def _p(self, against: np.ndarray) -> float:
        if not self.decidable:
            return 1.0
        known = ~np.isnan(self.measured.draws)
        return min(1.0, 2 * float(against[known].mean()))


@dataclass(frozen=True)
class Finding:
    """A claim and what the records say of it."""

    claim: Claim
    said: Said
    """With Holm's correction over the list."""
    alone: Said
    """Without it."""
    p: float
    """The smallest level at which the claim alone would be decided."""
    p_in_list: float
    """The same with Holm's correction."""
    tested: tuple[Examined, ...] = ()
    needed: tuple[Examined, ...] = ()
    """What had to be shown before there is a verdict."""
    places: tuple[Estimate, ...] = ()
    """Where curves cross, for predicates that say."""
    records: tuple[Record, ...] = ()
    why: str = ""
    """Why there is no verdict."""
    need: Need | None = None
    """Of one that is undecided."""

    @property
    def decidable(self) -> bool:
        """Whether it could have come out as supported or refuted."""
        return self.said != "no records" and all(one.decidable for one in self.tested if one.supported)

    @property
    def deciding(self) -> Examined | None:
        """The condition that the verdict hangs on."""
        bounded = [one for one in self.tested if one.supported]
        if not bounded:
            return None
        if all(one.within for one in bounded):
            return max(bounded, key=lambda one: max(one.supported.values()))
        return min(bounded, key=lambda one: (min(one.refuted.values()), one.within))


def judge(claims: Claims, results: Path, plugins: Sequence[str] = (), resamples: int = RESAMPLES) -> list[Finding]:
    """A finding a claim, in their order.

    Raises BenchError for rows and metrics that there are none of, with the place in the file and the nearest name, and
    where rows cannot be compared.
    """
    evidence = Evidence(results, claims.spread, plugins)
    return corrected([_alone(claim, evidence, resamples) for claim in claims.claims])


def _alone(claim: Claim, evidence: Evidence, resamples: int) -> Finding:
    """The finding without the others of the list."""
    evidence.used.clear()
    tested: list[Examined] = []
    needed: list[Examined] = []
    places: list[Estimate] = []
    for predicate in (*claim.tests, claim.needs):
        if predicate is None:
            continue
        try:
            more, place = examine(predicate, evidence, resamples)
        except NoRecords as error:
            return Finding(claim, "no records", "no records", 1.0, 1.0, why=str(error))
        except BenchError as error:
            raise (claim.place / ("needs" if predicate is claim.needs else "test")).error(str(error)) from error
        if predicate is claim.needs:
            needed += more
        else:
            tested += more
            places += [] if place is None else [place]
    p, said = decided(tested)
    if missing := _missing(needed):
        p = 1.0
    records = tuple(evidence.used[run_id] for run_id in sorted(evidence.used))
    alone: Said = said if p <= ALPHA else "undecided"
    return Finding(claim, alone, alone, p, p, tuple(tested), tuple(needed), tuple(places), records, missing)


def _missing(needed: Sequence[Examined]) -> str:
    """Why nothing can be said, where what a claim needs is not shown."""
    if not needed:
        return ""
    p, said = decided(needed)
    if said == "supported" and p <= ALPHA:
        return ""
    [most, *_] = needed
    found = most.estimate
    return f"there is no signal to read: {most.what} is {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def examine(predicate: Predicate, source: Source, resamples: int = RESAMPLES) -> tuple[list[Examined], Estimate | None]:
    """A predicate's conditions with what the numbers say of them, and a place where it gives one.

    Raises BenchError for a predicate none of whose conditions has a bound: there would be nothing to decide.
    """
    numbers = Numbers(source, predicate.suite, resamples)
    measured = numbers.measure(lambda of: [condition.value for condition in predicate.conditions(of)])
    conditions = predicate.conditions(numbers)
    if all(one.at_least is None and one.at_most is None for one in conditions):
        raise BenchError(f"predicate '{predicate.name}' gives none of its conditions a bound; give at_least or at_most")
    tested = [
        Examined(condition.what, condition.at_least, condition.at_most, predicate.style, one)
        for condition, one in zip(conditions, measured, strict=True)
    ]
    return tested, predicate.place(numbers, measured)


def decided(tested: Sequence[Examined]) -> tuple[float, Said]:
    """The smallest level at which something is shown of conditions that must all hold, and what.

    All must be shown to hold, each at that level; or one of several not to, for which the level is divided by their
    number (Bonferroni).
    """
    bounded = [one for one in tested if one.supported]
    holds = max(max(one.supported.values()) for one in bounded)
    fails = min(1.0, len(bounded) * min(min(one.refuted.values()) for one in bounded))
    return (holds, "supported") if holds < fails else (fails, "refuted")


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with Holm's procedure over those that have records, and what the undecided would need."""
    places = [place for place, one in enumerate(findings) if one.decidable]
    out = list(findings)
    for place, p in zip(places, holm([findings[place].p for place in places]), strict=True):
        out[place] = replace(out[place], p_in_list=p, said=out[place].alone if p <= ALPHA else "undecided")
    undecided = sum(out[place].said == "undecided" for place in places)
    return [_with_need(one, undecided) if one.said == "undecided" else one for one in out]


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's procedure: what is at most A holds in a list that has any false one with chance A."""
    out, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        out[place] = highest
    return out


def _with_need(finding: Finding, undecided: int) -> Finding:
    """What would decide it, as the next claim of those that Holm's procedure has not decided."""
    if finding.why:
        return finding
    bounded = [one for one in finding.tested if one.supported]
    if not finding.decidable:
        known = all(one.measured.seeds_are_known for one in bounded)
        return replace(
            finding, why="it rests on one document, which has no interval: score more" if known else ONE_SEED
        )
    alpha = ALPHA / undecided
    if all(one.within for one in bounded):
        questions = [
            Question(one.measured, bound, alpha) for one in bounded for bound, p in one.supported.items() if p > alpha
        ]
    else:
        most = finding.deciding
        assert most is not None
        bound = min(most.refuted, key=lambda bound: most.refuted[bound])
        questions = [Question(most.measured, bound, alpha / len(bounded))]
    return replace(finding, need=need(questions) if questions else None)
