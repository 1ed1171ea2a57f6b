"""Intervals, paired differences and verdicts, against what is known exactly and against simulations."""

from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np
import pytest

from bench.records import statistics
from bench.records.statistics import (
    Bootstrap,
    Estimate,
    Scores,
    best_rows,
    resampled_sums,
    student_quantiles,
    verdict,
)
from patchers.errors import BenchError


def sizes_of(rng: np.random.Generator, documents: int) -> np.ndarray:
    """Document lengths in bytes: log-normal, as texts are."""
    return np.round(np.exp(rng.normal(6.5, 0.8, documents))) + 20


def row(sizes: np.ndarray, bpb: np.ndarray) -> Scores:
    """A row of (S, D) bits per byte of documents with these sizes."""
    bpb = np.atleast_2d(bpb)
    return Scores(tuple(range(len(bpb))), bpb * sizes, np.tile(sizes, (len(bpb), 1)))


def test_value_is_the_ratio_of_sums_averaged_over_seeds() -> None:
    scores = Scores((0, 7), np.array([[10.0, 2.0], [20.0, 4.0]]), np.array([[4.0, 2.0], [4.0, 2.0]]))
    assert Bootstrap({"a": scores}).estimate("a").value == (12 / 6 + 24 / 6) / 2


def test_resampled_sums_equal_a_loop_over_drawn_documents() -> None:
    columns = np.random.default_rng(1).normal(size=(7, 3))
    drawn = np.random.default_rng(5).integers(0, 7, size=(40, 7), dtype=np.int32)
    expected = [columns[list(documents)].sum(axis=0) for documents in drawn]
    assert np.allclose(resampled_sums(columns, 40, seed=5), expected, rtol=0, atol=1e-12)


def test_sums_do_not_depend_on_the_blocks_they_are_taken_in() -> None:
    columns = np.ones((50_000, 1))  # five resamples a block, and eleven of them
    assert np.array_equal(resampled_sums(columns, 11, seed=0), np.full((11, 1), 50_000.0))
    first = resampled_sums(columns * np.arange(50_000)[:, None], 11, seed=0)
    assert len(np.unique(first)) == 11, "blocks repeat one another"


def test_interval_over_documents_has_the_width_of_the_delta_method() -> None:
    rng = np.random.default_rng(2)
    sizes = sizes_of(rng, 800)
    bpb = rng.normal(2.3, 0.4, 800)
    got = Bootstrap({"a": row(sizes, bpb)}).estimate("a")
    ratio = (bpb * sizes).sum() / sizes.sum()
    error = np.sqrt((((bpb - ratio) * sizes) ** 2).sum()) / sizes.sum()
    assert got.value == pytest.approx(ratio, abs=1e-12)
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.03)
    assert (got.high + got.low) / 2 == pytest.approx(ratio, abs=0.1 * error)


def test_interval_over_documents_equals_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(3)
    sizes = sizes_of(rng, 60)
    bits = (2 + rng.gamma(2, 0.2, 60)) * sizes  # few and skewed, so that the interval is lopsided
    expected = stats.bootstrap(
        (bits, sizes),
        lambda b, n, axis: b.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    # and wider, since the variance of so few is an estimate too: as Student's t is, with the fewer degrees of freedom
    # the fewer documents decide
    influences = (bits - bits.sum() / sizes.sum() * sizes) ** 2
    freedom = 2 / ((influences**2).sum() / influences.sum() ** 2 - 1 / 60)
    assert 3 < freedom < 10, "one long document decides"
    wider = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975) * np.sqrt(60 / 59)
    middle = np.median(expected.bootstrap_distribution)
    got = Bootstrap({"a": row(sizes, bits / sizes)}, resamples=20_000).estimate("a")
    width = got.high - got.low
    for end, percentile in zip((got.low, got.high), expected.confidence_interval, strict=True):
        assert end == pytest.approx(middle + wider * (percentile - middle), abs=0.02 * width)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (99, 1.98422)]
)
def test_student_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    got = student_quantiles(np.array([0.025, 0.5, 0.975]), freedom)
    assert got == pytest.approx([-quantile, 0, quantile], rel=1e-4, abs=1e-9)


def test_where_only_seeds_vary_the_interval_is_the_t_interval() -> None:
    sizes = sizes_of(np.random.default_rng(4), 50)
    seeds = np.array([2.30, 2.31, 2.35])
    got = Bootstrap({"a": row(sizes, np.tile(seeds[:, None], 50))}).estimate("a")
    half = 4.30265 * seeds.std(ddof=1) / np.sqrt(3)
    assert got.value == pytest.approx(2.32)
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.01)


@pytest.mark.parametrize("luck", [0.002, 0.01, 0.05])
def test_where_documents_and_seeds_vary_the_tails_are_between_those_of_both(luck: float) -> None:
    documents = 1000
    hard = np.random.default_rng(14).normal(2.3, 0.3, documents)
    seeds = np.array([-1.0, 0.0, 1.0]) * luck
    got = Bootstrap({"a": row(np.full(documents, 500.0), hard + seeds[:, None])}).estimate("a")
    of_documents, of_seeds = hard.var(ddof=1) / documents, luck**2 / 3
    share = of_seeds / (of_documents + of_seeds)
    tail = 1.962 + share**1.25 * (4.30265 - 1.962)  # Student's t with 999 and with 2 degrees of freedom
    assert (got.high - got.low) / 2 == pytest.approx(tail * np.sqrt(of_documents + of_seeds), rel=0.03)


def test_what_seeds_do_to_single_documents_is_counted_once() -> None:
    # Documents are alike and seeds are alike, but for noise that is independent for each pair of both.
    widths = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = row(np.full(400, 500.0), 2.3 + rng.normal(0, 0.2, (12, 400)))
        got = Bootstrap({"a": scores}, resamples=1000).estimate("a")
        widths.append(got.high - got.low)
    expected = 2 * 2.20099 * 0.2 / np.sqrt(12 * 400)  # t with 11 degrees of freedom; 1.3 times that if twice
    assert np.mean(widths) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_agree_by_chance_do_not_make_documents_certain(seeds: int) -> None:
    """What seeds do to single documents is large here and cancels in the seeds' means to the last digit."""
    rng = np.random.default_rng(31)
    documents, size = 120, 500.0
    bpb = 2.3 + rng.normal(0, 0.2, (seeds, documents))
    bpb -= bpb.mean(axis=1, keepdims=True) - 2.3
    got = Bootstrap({"a": row(np.full(documents, size), bpb)}).estimate("a")
    of_documents = bpb.mean(axis=0).std(ddof=1) / np.sqrt(documents)
    assert got.high - got.low == pytest.approx(2 * 1.98 * of_documents, rel=0.05)


def test_differences_are_paired_by_document() -> None:
    rng = np.random.default_rng(5)
    sizes = sizes_of(rng, 300)
    hard = rng.normal(2.3, 0.5, 300)
    rows = {"a": row(sizes, hard), "b": row(sizes, hard + 0.01 + rng.normal(0, 0.01, 300))}
    bootstrap = Bootstrap(rows)
    alone, difference = bootstrap.estimate("b"), bootstrap.difference("b", "a")
    assert difference is not None
    assert difference.value == pytest.approx(bootstrap.estimate("b").value - bootstrap.estimate("a").value)
    assert difference.high - difference.low < 0.05 * (alone.high - alone.low)


def test_differences_are_paired_by_seed() -> None:
    rng = np.random.default_rng(6)
    sizes = sizes_of(rng, 300)
    lucky = np.array([[-0.05], [0.0], [0.05]])  # the same initial weights and order of data help both rows
    hard = rng.normal(2.3, 0.1, 300)
    rows = {
        "a": row(sizes, hard + lucky),
        "b": row(sizes, hard + lucky + np.array([[0.010], [0.011], [0.012]])),
    }
    difference = Bootstrap(rows).difference("b", "a")
    assert difference is not None
    assert 0.008 < difference.low < 0.011 < difference.high < 0.014


def test_what_seeds_do_to_single_documents_of_both_rows_cancels() -> None:
    rng = np.random.default_rng(12)
    shared = rng.normal(2.3, 0.1, (3, 400))
    own = rng.normal(0, 0.05, 400)
    sizes = np.full(400, 500.0)
    difference = Bootstrap({"a": row(sizes, shared), "b": row(sizes, shared + own)}).difference("b", "a")
    assert difference is not None
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * own.std() / np.sqrt(400), rel=0.03)


def test_rows_may_count_differently() -> None:
    # The second row counts half of what the first one counts, in other documents: a metric need not be bpb.
    counts = {"a": np.array([[4.0, 2.0, 0.0, 2.0]]), "b": np.array([[0.0, 2.0, 2.0, 0.0]])}
    bootstrap = Bootstrap({name: Scores((0,), 3 * count, count) for name, count in counts.items()})
    for name in counts:
        got = bootstrap.estimate(name)
        assert [got.value, got.low, got.high] == pytest.approx([3, 3, 3])


def test_a_difference_uses_the_seeds_that_both_have() -> None:
    sizes = np.full(20, 100.0)
    totals = np.tile(sizes, (2, 1))
    a = Scores((0, 1), totals * np.array([[2.0], [3.0]]), totals)
    b = Scores((1, 2), totals * np.array([[3.5], [9.0]]), totals)
    bootstrap = Bootstrap({"a": a, "b": b, "c": Scores((5,), totals[:1], totals[:1])})
    difference = bootstrap.difference("b", "a")
    assert difference is not None
    assert difference.value == pytest.approx(0.5)
    assert bootstrap.difference("c", "a") is None


def test_the_other_direction_is_the_mirror_image() -> None:
    rng = np.random.default_rng(7)
    sizes = sizes_of(rng, 200)
    rows = {"a": row(sizes, rng.normal(2.3, 0.1, (3, 200))), "b": row(sizes, rng.normal(2.3, 0.1, (3, 200)))}
    bootstrap = Bootstrap(rows)
    there, back = bootstrap.difference("a", "b"), bootstrap.difference("b", "a")
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(-back.value)
    slack = 0.02 * (there.high - there.low)
    assert [there.low, there.high] == pytest.approx([-back.high, -back.low], abs=slack)


def test_the_same_scores_give_the_same_numbers_whatever_other_rows_there_are() -> None:
    rng = np.random.default_rng(8)
    sizes = sizes_of(rng, 100)
    rows = {name: row(sizes, rng.normal(2.3, 0.1, (2, 100))) for name in "abc"}
    everything, again, two = Bootstrap(rows), Bootstrap(rows), Bootstrap({k: rows[k] for k in "ca"})
    assert everything.estimate("a") == again.estimate("a")
    got, expected = two.difference("a", "c"), everything.difference("a", "c")
    assert got is not None
    assert expected is not None
    assert [got.low, got.high] == pytest.approx([expected.low, expected.high], rel=1e-12)


def test_one_document_has_no_interval() -> None:
    got = Bootstrap({"a": row(np.array([100.0]), np.array([2.0]))}).estimate("a")
    assert got.value == 2
    assert isnan(got.low)
    assert isnan(got.high)


def test_resamples_in_which_nothing_was_counted_are_left_out() -> None:
    counts = np.array([[1.0, 0.0, 0.0, 1.0]])
    got = Bootstrap({"a": Scores((0,), np.array([[1.0, 0.0, 0.0, 0.0]]), counts)}).estimate("a")
    assert got.value == 0.5
    assert 0.5 - got.low == pytest.approx(got.high - 0.5, rel=0.01)
    assert 0.5 < got.high < 2, "half a byte in two is not known at all"
    nothing = Bootstrap({"a": Scores((0,), np.zeros((1, 4)), np.zeros((1, 4)))}).estimate("a")
    assert isnan(nothing.value)


def test_rows_with_other_documents_are_refused() -> None:
    a, b = row(np.ones(3), np.ones(3)), row(np.ones(4), np.ones(4))
    with pytest.raises(BenchError, match="row 'b' has 4 documents and row 'a' has 3"):
        Bootstrap({"a": a, "b": b})


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.03, -0.02, "better"),
        (-0.013, -0.007, "better"),
        (0.007, 0.013, "worse"),
        (-0.009, -0.001, "tie"),
        (-0.01, 0.01, "tie"),
        (0.0, 0.0, "tie"),
        (-0.011, 0.001, "undecided"),
        (-0.5, 0.5, "undecided"),
        (nan, nan, "undecided"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate((low + high) / 2, low, high)) == expected
    mirrored = {"better": "worse", "worse": "better"}.get(expected, expected)
    assert verdict(Estimate((low + high) / 2, low, high), lower_is_better=False) == mirrored


def test_a_margin_of_zero_leaves_only_what_the_interval_says() -> None:
    assert verdict(Estimate(-0.005, -0.009, -0.001), margin=0) == "better"
    assert verdict(Estimate(0, 0, 0), margin=0) == "tie"


def test_best_row_stands_alone_only_where_the_paired_interval_shows_it() -> None:
    rng = np.random.default_rng(9)
    sizes = sizes_of(rng, 300)
    hard = rng.normal(2.3, 0.5, 300)
    noise = rng.normal(0, 0.02, (4, 300))
    rows = {
        "best": row(sizes, hard + noise[0]),
        "near": row(sizes, hard + 0.004 + noise[1]),
        "behind": row(sizes, hard + 0.03 + noise[2]),  # its own interval overlaps the best one's by far
        "far": row(sizes, hard + 0.3 + noise[3]),
    }
    bootstrap = Bootstrap(rows)
    assert bootstrap.estimate("behind").low < bootstrap.estimate("best").high
    assert best_rows(bootstrap, rows) == ["best", "near"]
    assert best_rows(bootstrap, ["best", "behind", "far"]) == ["best"]
    assert best_rows(bootstrap, ["far", "behind"]) == ["behind"]
    assert best_rows(bootstrap, rows, lower_is_better=False) == ["far"]
    assert best_rows(bootstrap, []) == []


# Simulations. Documents are drawn from a population whose number is known, seeds from all trainings that there might
# be, and the interval should hold the truth in 95 % of the trials.


@dataclass(frozen=True)
class World:
    """Spreads are in bits per byte; those of "one text" are what standard's records on wiki-en have."""

    documents: int = 205
    seeds: int = 3
    paired: bool = False
    of_document: float = 0.27
    of_seed: float = 0.003
    of_both: float = 0.03  # what a seed does to single documents
    lengths: float = 0.5  # of their logarithm: 0.5 is wiki-en; at 1.6, 1 % of the documents have 20 % of the bytes
    slope: float = 0.0  # of difficulty over the logarithm of length


ONE = World()
PAIR = World(paired=True, of_document=0.016, of_seed=0.0022, of_both=0.015)
WORLDS = {
    "one text, one seed": replace(ONE, seeds=1),
    "one text, three seeds": ONE,
    "one text, five seeds": replace(ONE, seeds=5),
    "few documents": replace(ONE, documents=30, seeds=1),
    "many documents": replace(ONE, documents=2000),
    "heavy lengths": replace(ONE, seeds=1, lengths=1.2),
    "very heavy lengths": replace(ONE, seeds=1, lengths=1.6),
    "few documents of heavy lengths": replace(ONE, documents=50, seeds=1, lengths=1.2),
    "long documents are easier": replace(ONE, seeds=1, lengths=1.0, slope=-0.1),
    "documents and seeds alike": replace(ONE, of_seed=0.03),
    "pair, one seed": replace(PAIR, seeds=1, of_seed=0.0),
    "pair, two seeds": replace(PAIR, seeds=2),
    "pair, three seeds": PAIR,
    "pair, five seeds": replace(PAIR, seeds=5),
    "pair, documents decide": replace(PAIR, of_document=0.05, of_seed=0.001),
    "pair, seeds decide": replace(PAIR, of_document=0.002, of_seed=0.01),
    "pair, seed x document decides": replace(PAIR, of_document=0.0, of_seed=0.0, of_both=0.05),
    "pair, few documents": replace(PAIR, documents=30),
    "pair, heavy lengths": replace(PAIR, lengths=1.2),
}


class Population:
    """Two hundred thousand documents: lengths in bytes, bits per byte for the first row, and what a second one adds."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        deviation = rng.normal(0, world.lengths, 200_000)
        self.sizes = np.minimum(np.round(np.exp(6 + deviation)) + 20, 200_000.0)
        spread = ONE.of_document if world.paired else world.of_document
        self.hard = 2 + skewed(rng, spread, len(self.sizes)) + world.slope * deviation
        self.more = skewed(rng, world.of_document, len(self.sizes))

    @property
    def truth(self) -> float:
        return float(np.average(self.more if self.world.paired else self.hard, weights=self.sizes))

    def trial(self, rng: np.random.Generator) -> list[Scores]:
        """A sample of documents, scored by the row, or by the two."""
        world = self.world
        at = rng.integers(0, len(self.sizes), world.documents)
        first = self.hard[at] + self._luck(rng, ONE if world.paired else world)
        if not world.paired:
            return [row(self.sizes[at], first)]
        return [row(self.sizes[at], first), row(self.sizes[at], first + self.more[at] + self._luck(rng, world))]

    def _luck(self, rng: np.random.Generator, of: World) -> np.ndarray:
        seeds, documents = self.world.seeds, self.world.documents
        return rng.normal(0, of.of_seed, (seeds, 1)) + rng.normal(0, of.of_both, (seeds, documents))


def skewed(rng: np.random.Generator, spread: float, count: int) -> np.ndarray:
    return rng.gamma(4, spread / 2, count) - 2 * spread if spread else np.zeros(count)


def share_held(world: World, trials: int = 6000, together: int = 250) -> float:
    """Of the trials, those whose interval holds the truth; many trials are rows of one bootstrap, which is fast."""
    rng = np.random.default_rng(10)
    population = Population(world, rng)
    held = 0
    for block in range(trials // together):
        drawn = [population.trial(rng) for _ in range(together)]
        rows = {f"{number} {part}": part_of for number, made in enumerate(drawn) for part, part_of in enumerate(made)}
        bootstrap = Bootstrap(rows, resamples=1000, seed=block)
        for number in range(together):
            if world.paired:
                got = bootstrap.difference(f"{number} 1", f"{number} 0")
                assert got is not None
            else:
                got = bootstrap.estimate(f"{number} 0")
            held += got.low <= population.truth <= got.high
    return held / trials


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_hold_the_truth_in_95_percent_of_simulations(world: str) -> None:
    held = share_held(WORLDS[world])
    print(f"{world}: {held:.1%}")
    assert 0.93 <= held <= 0.97


@pytest.mark.parametrize("planted", [0.0, 0.01])
def test_a_planted_difference_is_found_and_a_planted_zero_is_not(planted: float) -> None:
    rng = np.random.default_rng(11)
    excluded = decided = 0
    for _ in range(200):
        sizes = sizes_of(rng, 400)
        hard = 2.0 + rng.gamma(4, 0.1, 400)
        luck = rng.normal(0, 0.005, (3, 1))  # shared by both rows, as initial weights and order of data are
        own = rng.normal(0, 0.02, (2, 3, 400)) + rng.normal(0, 0.0005, (2, 3, 1))
        rows = {"a": row(sizes, hard + luck + own[0]), "b": row(sizes, hard + luck + own[1] - planted)}
        difference = Bootstrap(rows, resamples=500).difference("b", "a")
        assert difference is not None
        excluded += difference.high < 0 or difference.low > 0
        decided += verdict(difference) == "better"
    if planted:
        assert excluded >= 190
        assert decided >= 180
    else:
        assert excluded <= 16  # 10 expected of 200
        assert decided == 0


def test_why_seeds_are_not_resampled() -> None:
    # What the module's docstring says of three seeds drawn with replacement, where nothing but seeds decides.
    rng = np.random.default_rng(13)
    seeds = rng.normal(0, 1, (2000, 3))
    drawn = rng.integers(0, 3, (2000, 1000, 3))
    means = np.take_along_axis(seeds[:, None, :], drawn, axis=2).mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert 0.73 < np.mean((low <= 0) & (high >= 0)) < 0.79
    half = student_quantiles(np.array([0.975]), 2) * seeds.std(axis=1, ddof=1) / np.sqrt(3)
    assert 0.94 < np.mean(np.abs(seeds.mean(axis=1)) <= half) < 0.96


def test_a_sample_of_documents_is_less_spread_than_what_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bessel: the variance of n documents is n / (n - 1) times that of their resamples; with two, twice."""
    monkeypatch.setattr(statistics, "freedom_of", lambda influences: statistics.MANY)  # so that tails are the normal's
    resampled = np.random.default_rng(0).normal(2.0, 0.1, (20_000, 1))
    for documents in (2, 3, 10):
        draws = statistics.crossed_draws(resampled, np.array([2.0]), np.ones((1, documents)))
        wanted = 0.1 * np.sqrt(documents / (documents - 1))
        assert float(draws.std()) == pytest.approx(wanted, rel=0.03)
