"""Verdicts on samples of a known truth: how often they are false, and whether power is what was foretold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import nct, norm
from scipy.stats import t as student
from simulated_rows import World

from bench.claims.numbers import Measured
from bench.claims.power import Question, power
from bench.claims.predicates import Difference
from bench.claims.verdicts import ALPHA, Said, decided, examine, holm
from bench.records.statistics import SeedSpread

BETTER = Difference("a", "b", suite="any", at_most=-0.01)
"""a is better than b by the margin."""


def sample(world: World, number: int, documents: int, seeds: int, others: int, resamples: int) -> tuple[float, Said]:
    """The p-value, and what is shown at that level, of one sample."""
    source = world.source(np.random.default_rng([number, documents, seeds]), documents, seeds, others)
    return decided(examine(BETTER, source, resamples)[0])


def share(
    world: World, wrong: Said, times: int, documents: int, seeds: int, others: int = 0, resamples: int = 500
) -> float:
    """How often a sample of this world has that verdict."""
    found = [sample(world, number, documents, seeds, others, resamples) for number in range(times)]
    return float(np.mean([p <= ALPHA and said == wrong for p, said in found]))


# documents, seeds, rows with three seeds to borrow from, what a training adds to one row alone
SAMPLES = [(100, 3, 0, 0.004), (100, 3, 0, 0.02), (30, 5, 0, 0.008), (100, 1, 4, 0.004), (100, 1, 4, 0.02)]
TRUTHS: list[tuple[float, Said]] = [
    (0.0, "supported"),
    (-0.01, "refuted"),
    (-0.0099, "supported"),
    (-0.0101, "refuted"),
]
"""No difference, the margin itself, and just beside it on either side; which verdict would be false."""


@pytest.mark.parametrize(("truth", "wrong"), TRUTHS[:2])
@pytest.mark.parametrize("how", SAMPLES[1::2])
def test_false_verdicts_are_rare(truth: float, wrong: Said, how: tuple[int, int, int, float]) -> None:
    documents, seeds, others, luck = how
    assert share(World({"a": 2 + truth, "b": 2.0}, own_luck=luck), wrong, 200, documents, seeds, others) <= 0.05


def test_one_seed_without_others_is_never_believed() -> None:
    """Documents alone would have been wrong in half of the samples: trainings differ by more than the margin."""
    world = World({"a": 2.0, "b": 2.0}, own_luck=0.03)
    assert share(world, "supported", 20, 400, 1) == 0
    blind = []
    for number in range(60):
        source = world.source(np.random.default_rng(number), 400, 1)
        [one] = examine(BETTER, source, 500)[0]
        blind.append(one.estimate.high < -0.01)
    assert np.mean(blind) > 0.25


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "wrong"), TRUTHS)
@pytest.mark.parametrize("how", [*SAMPLES, (400, 2, 0, 0.01), (400, 3, 0, 0.0), (1000, 1, 8, 0.01)])
def test_false_verdicts_are_one_in_twenty_at_most(truth: float, wrong: Said, how: tuple[int, int, int, float]) -> None:
    documents, seeds, others, luck = how
    world = World({"a": 2 + truth, "b": 2.0}, own_luck=luck)
    assert share(world, wrong, 1500, documents, seeds, others, 1000) <= 0.05


def test_holm_by_hand() -> None:
    # 4 * 0.01, then the larger of that and 3 * 0.005 is not reached: sorted 0.005, 0.01, 0.03, 0.04
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def any_false(lists: int, of: int, resamples: int) -> tuple[float, float]:
    """In lists of claims that are all false or at their margin: how often any verdict is false, with and without
    Holm's procedure."""
    with_holm, without = 0, 0
    for number in range(lists):
        truths = [TRUTHS[place % 2] for place in range(of)]
        found = [
            sample(World({"a": 2 + truth, "b": 2.0}), 1000 * number + place, 100, 3, 0, resamples)
            for place, (truth, _) in enumerate(truths)
        ]
        wrong = [said == false for (_, said), (_, false) in zip(found, truths, strict=True)]
        with_holm += any(p <= ALPHA and bad for p, bad in zip(holm([p for p, _ in found]), wrong, strict=True))
        without += any(p <= ALPHA and bad for (p, _), bad in zip(found, wrong, strict=True))
    return with_holm / lists, without / lists


@pytest.mark.slow
def test_a_list_has_a_false_verdict_one_time_in_twenty_at_most() -> None:
    with_holm, without = any_false(300, 13, 2000)
    assert with_holm <= 0.05
    assert without > 0.05, "there is something to correct"


# --- power

WORLD = World({"a": 1.982, "b": 2.0}, own_luck=0.003)


@pytest.fixture(scope="module")
def pilot() -> Measured:
    """What a large sample of the world says of its spreads, at the true difference."""
    [one] = examine(BETTER, WORLD.source(np.random.default_rng(200), 2000, 60), 500)[0]
    return replace(one.measured, values=one.measured.values - one.measured.value - 0.018)


def foretold(pilot: Measured, documents: int, seeds: int) -> float:
    times = documents / pilot.influences.shape[1]
    return power(Question(pilot, -0.01, ALPHA), times=times, seeds=seeds, repetitions=2000)


@pytest.mark.parametrize(("documents", "seeds"), [(200, 3), (50, 8)])
def test_power_is_what_was_foretold(pilot: Measured, documents: int, seeds: int) -> None:
    assert foretold(pilot, documents, seeds) == pytest.approx(share(WORLD, "supported", 200, documents, seeds), abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("documents", [20, 50, 200, 800])
@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 20])
def test_power_is_what_was_foretold_everywhere(pilot: Measured, documents: int, seeds: int) -> None:
    truth = share(WORLD, "supported", 600, documents, seeds, resamples=1000)
    assert foretold(pilot, documents, seeds) == pytest.approx(truth, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("documents", "seeds", "others"), [(100, 3, 0), (200, 1, 5)])
def test_usual_samples_foretell_power_on_average(documents: int, seeds: int, others: int) -> None:
    said = []
    for number in range(300):
        source = WORLD.source(np.random.default_rng([9, number]), documents, seeds, others)
        [one] = examine(BETTER, source, 1000)[0]
        said.append(power(Question(one.measured, -0.01, ALPHA), seeds=seeds, repetitions=300))
    truth = share(WORLD, "supported", 600, documents, seeds, others, 1000)
    assert np.mean(said) == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_power_is_that_of_the_t_test_where_seeds_alone_differ(seeds: int) -> None:
    """An oracle: the distribution of t where the truth is off (noncentral t)."""
    values = np.array([0.0, 0.01, 0.02]) - 0.04
    alike = Measured((0, 1, 2), values, np.tile(values, (10, 1)), np.zeros((3, 50)))
    away = (-0.01 - alike.value) / (0.01 / np.sqrt(seeds))
    expected = nct.sf(student.ppf(1 - ALPHA / 2, seeds - 1), seeds - 1, away)
    got = power(Question(alike, -0.01, ALPHA), seeds=seeds, repetitions=20_000)
    assert got == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("times", [1.0, 40.0])
def test_power_is_that_of_the_normal_where_documents_alone_differ(times: float) -> None:
    """Of one seed whose spread is known to be none; few documents are drawn, and of many the sum is."""
    influences = np.random.default_rng(0).normal(0, 0.01, (1, 400)) / 20
    sure = Measured((0,), np.array([-0.02]), np.zeros((10, 1)), influences, SeedSpread(0.0, 8.0))
    away = 0.01 / np.sqrt((influences**2).sum() / times)
    got = power(Question(sure, -0.02 + 0.01 / np.sqrt(times), ALPHA), times=times, repetitions=20_000)
    assert got == pytest.approx(norm.sf(1.96 - away / np.sqrt(times)), abs=0.02)


def test_power_rises_with_documents_and_seeds(pilot: Measured) -> None:
    table = np.array(
        [[foretold(pilot, documents, seeds) for seeds in (2, 3, 5, 8, 20)] for documents in (20, 50, 200, 800)]
    )
    assert (np.diff(table, axis=0) > -0.03).all()
    assert (np.diff(table, axis=1) > -0.03).all()
    assert table[0, 0] < 0.2
    assert table[-1, -1] > 0.9
