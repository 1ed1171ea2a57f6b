"""Intervals, paired differences and verdicts, against what is known exactly and against simulations."""

from math import isnan, nan

import numpy as np
import pytest

from bench.stats import (
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
    stats = pytest.importorskip("scipy.stats")
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
    got = Bootstrap({"a": row(sizes, bits / sizes)}, resamples=20_000).estimate("a")
    width = got.high - got.low
    assert got.low == pytest.approx(expected.confidence_interval.low, abs=0.02 * width)
    assert got.high == pytest.approx(expected.confidence_interval.high, abs=0.02 * width)


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
    assert (got.value, got.low, got.high) == (0.5, 0.0, 1.0)
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


# Simulations. A world has documents (log-normal lengths, skewed difficulty), seeds, and what a seed does to
# single documents; each trial draws a sample of both, and the interval should hold the truth in 95 % of them.
WORLDS = {
    # name: (documents, seeds, sd of documents, sd of seeds, sd of seed x document), bits per byte
    "one row, one seed": (200, 1, 0.3, 0.0, 0.0),
    "one row, three seeds": (200, 3, 0.3, 0.005, 0.05),
    "one row, five seeds": (200, 5, 0.3, 0.01, 0.05),
    "difference, documents decide": (300, 3, 0.05, 0.001, 0.02),
    "difference, seeds decide": (200, 3, 0.002, 0.01, 0.02),
    "difference, seed x document decides": (200, 3, 0.0, 0.0, 0.05),
}


def trial(rng: np.random.Generator, world: str, truth: float) -> Scores:
    documents, seeds, of_document, of_seed, of_both = WORLDS[world]
    hard = rng.gamma(4, of_document / 2, documents) - 2 * of_document if of_document else np.zeros(documents)
    luck = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_both, (seeds, documents))
    return row(np.round(np.exp(rng.normal(6.5, 0.6, documents))) + 20, truth + hard + luck)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_hold_the_truth_in_95_percent_of_simulations(world: str) -> None:
    rng = np.random.default_rng(10)
    trials = 2000
    held = 0
    for number in range(trials):
        got = Bootstrap({"a": trial(rng, world, 2.3)}, resamples=1000, seed=number).estimate("a")
        held += got.low <= 2.3 <= got.high
    print(f"{world}: {held / trials:.1%}")
    assert 0.93 <= held / trials <= 0.97


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
