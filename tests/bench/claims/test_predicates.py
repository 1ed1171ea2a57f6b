"""Each kind of predicate against a case worked out by hand."""

from __future__ import annotations

from math import inf, log2

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student
from simulated_rows import SimulatedSource

from bench.claims import Condition, Numbers, Predicate, Quantity, get, names, register_predicate
from bench.claims.numbers import Spread
from bench.claims.predicates import Contrast, Crossing, Difference, Exponent, Ratio, Slope
from bench.claims.verdicts import decided, examine
from bench.records.statistics import Bootstrap, Floats, Scores, freedom_of
from patchers.errors import BenchError


def scores(*bpb: float, sizes: tuple[float, ...] = (100.0, 300.0)) -> Scores:
    """A seed for each number; every document has it."""
    counts = np.tile(np.array(sizes), (len(bpb), 1))
    return Scores(tuple(range(len(bpb))), counts * np.array(bpb)[:, None], counts)


def noisy(bpb: float, row: int, documents: int = 60, seeds: int = 1) -> Scores:
    rng = np.random.default_rng(row)
    counts = np.full((seeds, documents), 500.0)
    return Scores(tuple(range(seeds)), counts * (bpb + rng.normal(0, 0.1, (seeds, documents))), counts)


def test_a_difference_is_that_of_the_ratios_of_sums() -> None:
    a = Scores((0,), np.array([[200.0, 900.0]]), np.array([[100.0, 300.0]]))  # 1100 / 400
    b = Scores((0,), np.array([[100.0, 300.0]]), np.array([[100.0, 300.0]]))  # 1
    [tested], place = examine(Difference("a", "b", suite="s", at_least=1), SimulatedSource({"a": a, "b": b}))
    assert tested.estimate.value == pytest.approx(1.75)
    assert tested.what == "bpb.bpb: a minus b"
    assert place is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_of_a_difference_is_that_of_the_tables(seeds: int) -> None:
    rows = {"a": noisy(2.0, 1, seeds=seeds), "b": noisy(2.1, 2, seeds=seeds)}
    [tested], _ = examine(Difference("a", "b", suite="s", at_most=0), SimulatedSource(rows))
    expected = Bootstrap(rows).difference("a", "b")
    assert expected is not None
    got = tested.estimate
    assert [got.value, got.low, got.high] == pytest.approx([expected.value, expected.low, expected.high], rel=1e-6)
    assert tested.measured.influences == pytest.approx(rows["a"].influences() - rows["b"].influences(), rel=3e-3)


def test_only_seeds_that_all_rows_have_count() -> None:
    a, b = scores(2.0, 3.0), Scores((1, 2), *np.array([[[350.0], [900.0]], [[100.0], [100.0]]]))
    a = Scores((0, 1), a.totals[:, :1], a.counts[:, :1])
    [tested], _ = examine(Difference("b", "a", suite="s", at_most=0), SimulatedSource({"a": a, "b": b}))
    assert tested.measured.seeds == (1,)
    assert tested.measured.value == pytest.approx(0.5)
    apart = SimulatedSource({"a": a, "b": Scores((7,), b.totals[:1], b.counts[:1])})
    with pytest.raises(BenchError, match=r"no seed in common \(s/b: \[7\]; s/a: \[0, 1\]\)"):
        examine(Difference("b", "a", suite="s", at_most=0), apart)


def test_a_difference_beyond_another_metric_is_a_difference_of_differences() -> None:
    class Two(SimulatedSource):
        def scores(self, terms):  # type: ignore[no-untyped-def]
            return {t: (self.rows[f"{t.row} {t.metric}"], (t.metric, t.metric + "2")) for t in terms}

    values = {"a code": 5.0, "a home": 2.0, "b code": 4.0, "b home": 1.5}
    source = Two({name: scores(value) for name, value in values.items()})
    predicate = Difference("a", "b", "code", "home", suite="s", at_least=0)
    [tested], _ = examine(predicate, source)
    assert tested.measured.value == pytest.approx((5 - 4) - (2 - 1.5))
    assert tested.measured.influences.shape == (1, 4), "two texts, each with documents of its own"


def test_texts_that_differ_are_drawn_apart() -> None:
    """The variance of a difference between rows on other documents is that of both, also where sums are alike."""
    rows = {"a": noisy(2.0, 1, 400), "b": noisy(2.0, 1, 400)}
    together = SimulatedSource(rows)
    apart = SimulatedSource(rows, names={"b": tuple(f"other {i}" for i in range(400))})
    widths = []
    for source in (together, apart):
        [tested], _ = examine(Difference("a", "b", suite="s", at_least=0), source)
        widths.append(tested.estimate.high - tested.estimate.low)
    assert widths[0] == 0
    assert widths[1] == pytest.approx(2 * 1.97 * 0.1 * np.sqrt(2 / 400), rel=0.1)


def test_a_contrast_weighs_rows() -> None:
    source = SimulatedSource({"a": scores(2.0, 2.2), "b": scores(2.5, 2.5), "c": scores(4.0, 5.0)})
    predicate = Contrast({"a": 1, "b": -2, "c": 0.5}, suite="s", at_most=0)
    [tested], _ = examine(predicate, source)
    assert tested.measured.values == pytest.approx([2 - 5 + 2, 2.2 - 5 + 2.5])
    assert tested.what == "bpb.bpb: +1 a -2 b +0.5 c"


def test_a_ratio_has_the_interval_of_the_delta_method() -> None:
    rows = {"a": noisy(3.0, 1, 400), "b": noisy(2.0, 2, 400)}
    [tested], _ = examine(Ratio("a", "b", suite="s", at_most=1), SimulatedSource(rows))
    a, b = (rows[name].ratios()[0] for name in "ab")
    moves = rows["a"].influences() / b - a / b**2 * rows["b"].influences()
    assert tested.measured.value == pytest.approx(a / b)
    assert tested.measured.influences == pytest.approx(moves, rel=2e-3, abs=1e-8)
    half = student.ppf(0.975, freedom_of(moves[0])) * np.sqrt((moves**2).sum())
    assert (tested.estimate.high - tested.estimate.low) / 2 == pytest.approx(half, rel=0.03)


def test_a_slope_is_that_of_the_least_squares_line_for_each_doubling() -> None:
    budgets = {"x": 1e12, "y": 2e12, "z": 8e12}
    values = {"x": 2.5, "y": 2.4, "z": 2.0}
    source = SimulatedSource({row: scores(value) for row, value in values.items()}, constants=budgets)
    [tested], _ = examine(Slope(("x", "y", "z"), suite="s", at_most=0), source)
    expected = np.polyfit([log2(budgets[row]) for row in "xyz"], [values[row] for row in "xyz"], 1)[0]
    assert tested.measured.value == pytest.approx(expected)
    [less], _ = examine(Slope(("x", "z"), minus=("x", "y"), suite="s", at_most=0), source)
    assert less.measured.value == pytest.approx((2.0 - 2.5) / 3 - (2.4 - 2.5) / 1)


def test_an_exponent_is_that_of_the_law_that_made_the_losses() -> None:
    budgets = dict(zip("abcd", [1e9, 1e10, 1e11, 1e12], strict=True))
    source = SimulatedSource(
        {row: scores(1.2 + 30 * compute**-0.21) for row, compute in budgets.items()}, constants=budgets
    )
    [tested], _ = examine(Exponent(tuple("abcd"), suite="s", at_least=0.1), source)
    assert tested.measured.value == pytest.approx(0.21, rel=1e-4)
    [less], _ = examine(Exponent(tuple("abcd"), minus=tuple("abcd"), suite="s", at_least=0), source)
    assert less.measured.value == pytest.approx(0, abs=1e-9)


def test_the_influences_on_an_exponent_are_smooth() -> None:
    """The fit is searched for on a grid, which must be finer than what a document moves."""
    budgets = dict(zip("abcd", [1e9, 1e10, 1e11, 1e12], strict=True))
    source = SimulatedSource(
        {row: noisy(1.2 + 30 * compute**-0.21, 5) for row, compute in budgets.items()}, constants=budgets
    )
    [tested], _ = examine(Exponent(tuple("abcd"), suite="s", at_least=0.1), source, 4000)
    moved = np.sqrt((tested.measured.influences**2).sum())
    assert tested.measured.resampled.std() == pytest.approx(moved, rel=0.1)


CURVES = {"a1": 2.6, "b1": 2.5, "a2": 2.2, "b2": 2.25, "a3": 1.9, "b3": 2.1}
BUDGETS = {"a1": 1e12, "b1": 1e12, "a2": 4e12, "b2": 4e12, "a3": 16e12, "b3": 16e12}


def test_a_crossing_is_behind_first_and_ahead_last() -> None:
    source = SimulatedSource({row: scores(value, value) for row, value in CURVES.items()}, constants=BUDGETS)
    predicate = Crossing(("a1", "a2", "a3"), ("b1", "b2", "b3"), 0.05, suite="s")
    tested, place = examine(predicate, source)
    assert [one.measured.value for one in tested] == pytest.approx([0.1, -0.05, -0.2])
    assert [(one.at_least, one.at_most) for one in tested] == [(0.05, None), (None, None), (None, -0.05)]
    assert decided(tested) == (0.0, "supported")
    assert place is not None
    assert place.value == pytest.approx(1e12 * 4 ** (2 / 3))  # the line from +0.1 to -0.05, over the logarithm
    assert place.low == pytest.approx(place.value)
    back, beyond = examine(Crossing(("b1", "b3"), ("a1", "a3"), 0.05, suite="s"), source)
    assert decided(back) == (0.0, "refuted")
    assert beyond is not None
    assert beyond.value == 0, "ahead from the first budget on"
    _, never = examine(Crossing(("a1", "b3"), ("b1", "a3"), 0.05, suite="s"), source)
    assert never is not None
    assert never.value == inf


def test_where_more_is_better_a_crossing_is_turned_round() -> None:
    source = SimulatedSource({row: scores(value, value) for row, value in CURVES.items()}, constants=BUDGETS)
    predicate = Crossing(("b1", "b3"), ("a1", "a3"), 0.05, lower_is_better=False, suite="s")
    tested, _ = examine(predicate, source)
    assert [one.measured.value for one in tested] == pytest.approx([0.1, -0.2])


def test_one_seed_borrows_what_trainings_differ_by() -> None:
    rows = {"a": scores(2.0), "b": scores(2.1)}
    spread = Spread(of_row=1e-4, row_freedom=8, of_seed=0.5, seed_freedom=2)
    [tested], _ = examine(Difference("a", "b", suite="s", at_most=0), SimulatedSource(rows, spread))
    half = student.ppf(0.975, 8) * np.sqrt(2e-4)  # what a seed does to both rows cancels
    assert tested.estimate.high - tested.estimate.value == pytest.approx(half, rel=0.02)
    [bare], _ = examine(Difference("a", "b", suite="s", at_most=0), SimulatedSource(rows))
    assert not bare.measured.seeds_are_known
    assert decided([bare])[0] == 1.0, "one seed alone decides nothing"


def test_a_ratio_that_is_far_from_one_keeps_what_seeds_do_to_all_rows() -> None:
    rows = {"a": scores(3.0), "b": scores(1.0)}
    spread = Spread(of_row=1e-6, row_freedom=8, of_seed=1e-4, seed_freedom=2)
    [tested], _ = examine(Ratio("a", "b", suite="s", at_most=1), SimulatedSource(rows, spread))
    variance = 1e-6 * (1 + 9) + 1e-4 * (1 - 3) ** 2
    assert tested.measured.spread is not None
    assert tested.measured.spread.variance == pytest.approx(variance, rel=0.02)
    assert tested.measured.spread.freedom == pytest.approx(2, rel=0.1)


def test_the_spread_of_trainings_is_an_analysis_of_variance() -> None:
    values = np.array([[2.0, 2.1, 2.3], [1.0, 1.2, 1.2]])
    got = Spread.of(values)
    rows, seeds = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    residual = ((values - rows - seeds + values.mean()) ** 2).sum() / 2
    between = 2 * ((seeds - values.mean()) ** 2).sum() / 2
    assert (got.of_row, got.row_freedom) == pytest.approx((residual, 2))
    assert (got.of_seed, got.seed_freedom) == pytest.approx(((between - residual) / 2, 2))
    alone = Spread.of(values[:1])
    assert (alone.of_row, alone.of_seed) == pytest.approx((values[0].var(ddof=1), 0))


@pytest.mark.parametrize(
    ("low", "high", "value", "said"),
    [
        (0.0, None, 0.5, "supported"),
        (1.0, None, 0.5, "refuted"),
        (None, 1.0, 0.5, "supported"),
        (None, 0.0, 0.5, "refuted"),
        (0.0, 1.0, 0.5, "supported"),
        (0.6, 1.0, 0.5, "refuted"),
        (0.0, 0.4, 0.5, "refuted"),
    ],
)
def test_bounds(low: float | None, high: float | None, value: float, said: str) -> None:
    source = SimulatedSource({"a": scores(2.0 + value, 2.0 + value), "b": scores(2.0, 2.0)})
    tested, _ = examine(Difference("a", "b", suite="s", at_least=low, at_most=high), source)
    assert decided(tested) == (0.0, said)


def test_p_values_are_those_of_the_normal_where_documents_are_many() -> None:
    rows = {"a": noisy(2.0, 1, 4000, 2), "b": noisy(2.0, 2, 4000, 2)}
    rows = {name: Scores((0, 1), np.tile(s.totals[:1], (2, 1)), s.counts) for name, s in rows.items()}  # no luck
    [tested], _ = examine(Difference("a", "b", suite="s", at_most=0.002), SimulatedSource(rows))
    error = np.sqrt((tested.measured.influences[0] ** 2).sum())
    away = (tested.measured.value - 0.002) / error
    assert min(tested.supported[0.002], tested.refuted[0.002]) == pytest.approx(2 * norm.sf(abs(away)), abs=0.02)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Difference("a", "b", suite="s"), "a margin is fixed beforehand"),
        (lambda: Difference("a", "b", suite="s", at_least=1, at_most=0), "swap them"),
        (lambda: Contrast({"a": 1}, suite="s", at_least=1), "two rows or more"),
        (lambda: Slope(("a",), suite="s", at_least=1), "two rows or more"),
        (lambda: Exponent(("a", "b"), suite="s", at_least=1), "three budgets"),
        (lambda: Crossing(("a", "b"), ("c",), 0.1, suite="s"), "the same two budgets or more"),
        (lambda: Crossing(("a", "b"), ("c", "d"), -1, suite="s"), "0 or more"),
    ],
)
def test_what_cannot_be_asked(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BenchError, match=said):
        make()


def test_budgets_must_rise() -> None:
    source = SimulatedSource({row: scores(2.0) for row in "abcd"}, constants=dict.fromkeys("abcd", 1e9))
    with pytest.raises(BenchError, match=r"from the smallest flops\.train on"):
        examine(Crossing(("a", "b"), ("c", "d"), 0.1, suite="s"), source)
    with pytest.raises(BenchError, match=r"a different number above 0 at flops\.train for each row, got a 1e\+09"):
        examine(Slope(("a", "b"), suite="s", at_most=0), source)


def test_a_plug_in_is_one_function() -> None:
    @register_predicate("worst-of-three")
    class Worst(Quantity):
        rows: tuple[str, ...] = ()

        def value(self, of: Numbers) -> Floats:
            return np.max(np.stack(np.broadcast_arrays(*(of.metric(row) for row in self.rows))), axis=0)

    assert get("worst-of-three") is Worst
    assert "worst-of-three" in names()
    source = SimulatedSource({"a": scores(2.0), "b": scores(2.5), "c": scores(2.2)})
    [tested], _ = examine(Worst(rows=("a", "b", "c"), suite="s", at_most=3), source)
    assert tested.measured.value == pytest.approx(2.5)
    with pytest.raises(BenchError, match=r"unknown predicate 'diference', did you mean 'difference'\?"):
        get("diference")


def test_a_metric_of_one_document_has_no_interval_beside_another_metric() -> None:
    """Two metrics of one document each, or one of one and one of many: documents must not count as known exactly."""

    class Two(SimulatedSource):
        def scores(self, terms):  # type: ignore[no-untyped-def]
            found = {t: self.rows[f"{t.row} {t.metric}"] for t in terms}
            return {t: (s, tuple(f"{t.metric} {i}" for i in range(s.totals.shape[1]))) for t, s in found.items()}

    values = {"a code": (5.0, 5.1), "a home": (2.0, 2.1), "b code": (4.0, 4.1), "b home": (1.5, 1.6)}
    for sizes in ((100.0,), (100.0, 300.0)):
        rows = {name: scores(*bpb, sizes=sizes if "home" in name else (100.0,)) for name, bpb in values.items()}
        [tested], _ = examine(Difference("a", "b", "code", "home", suite="s", at_least=0), Two(rows))
        assert tested.measured.value == pytest.approx(0.5)
        assert np.isnan([tested.estimate.low, tested.estimate.high]).all()
        assert decided([tested])[0] == 1


def test_a_plug_in_without_a_bound_is_refused() -> None:
    @register_predicate("of-no-use")
    class Unbounded(Predicate):
        def conditions(self, of: Numbers) -> list[Condition]:
            return [Condition("a", of.metric("a"))]

    with pytest.raises(BenchError, match="predicate 'of-no-use' gives none of its conditions a bound"):
        examine(Unbounded(suite="s"), SimulatedSource({"a": scores(2.0)}))
