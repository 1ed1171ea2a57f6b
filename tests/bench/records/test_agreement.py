"""What a small suite is worth, against a case worked by hand."""

from math import isnan

import pytest
from record_builder import make_record

from bench.records.agreement import Agreement, Order, Pair, agreement, at_budget, share_of
from bench.records.record import Record
from patchers import BenchError


def suite_of(**rows: float) -> list[Record]:
    """Records whose rows have these bits per byte, with next to no noise."""
    return [{**make_record(row, bpb=bpb), "row_index": i} for i, (row, bpb) in enumerate(rows.items())]


def test_a_case_by_hand() -> None:
    """Large: a < b < c < d, but c and d cannot be told apart. Small: b < a, a = c, and d is last."""
    large = suite_of(a=2.0, b=2.1, c=2.3, d=2.3)
    small = suite_of(b=2.0, a=2.1, c=2.1, d=2.4)
    found = agreement(small, large)
    scores = {pair.rows: pair.score for pair in found.pairs}
    assert scores == {
        ("a", "b"): 0.0,  # the other way round
        ("a", "c"): 0.5,  # the small one cannot tell
        ("a", "d"): 1.0,
        ("b", "c"): 1.0,
        ("b", "d"): 1.0,
        ("c", "d"): None,  # nothing to be right about
    }
    assert len(found.decided) == 5
    assert found.share.value == pytest.approx(3.5 / 5)


def test_kendalls_tau_by_hand() -> None:
    """Of six pairs one is the other way round: (5 - 1) / 6."""
    found = agreement(suite_of(a=2.1, b=2.0, c=2.2, d=2.3), suite_of(a=2.0, b=2.1, c=2.2, d=2.3))
    assert found.tau == pytest.approx(4 / 6)
    assert found.share.value == pytest.approx(5 / 6)


def test_a_suite_agrees_with_itself_and_not_with_its_reverse() -> None:
    rows = {"a": 2.0, "b": 2.1, "c": 2.2}
    same = agreement(suite_of(**rows), suite_of(**rows))
    assert (same.share.value, same.share.low, same.share.high, same.tau) == (1.0, 1.0, 1.0, 1.0)
    reverse = agreement(suite_of(a=2.2, b=2.1, c=2.0), suite_of(**rows))
    assert (reverse.share.value, reverse.tau) == (0.0, -1.0)


def test_the_interval_is_over_rows() -> None:
    """With rows drawn again, a pair counts as often as both of its rows were drawn together."""
    alike: tuple[Order, Order] = ("better", "better")
    unlike: tuple[Order, Order] = ("worse", "better")
    pairs = [Pair(("a", "b"), *alike), Pair(("a", "c"), *unlike), Pair(("b", "c"), *alike)]
    share = share_of(pairs)
    assert share.value == pytest.approx(2 / 3)
    assert (share.low, share.high) == (0.0, 1.0), "three rows say little"
    many = [Pair((f"r{i}", f"r{j}"), *(alike if (i + j) % 5 else unlike)) for j in range(30) for i in range(j)]
    assert 0.05 < share_of(many).high - share_of(many).low < 0.3
    assert isnan(share_of([Pair(("a", "b"), "better", "unclear")]).value)


def test_a_sweep_is_taken_at_its_largest_value_or_at_one_that_is_named() -> None:
    records = []
    for value, bpb in ((2_000_000, 2.5), (8_000_000, 2.2)):
        record = make_record(f"stride@{value}", bpb=bpb)
        record["config"]["sweep"] = {"row": "stride", "key": "train.bytes", "value": value}
        records.append(record)
    assert [(r["row"], r["config"]["sweep"]["value"]) for r in at_budget(records)] == [("stride", 8_000_000)]
    assert at_budget(records, 2e6)[0]["config"]["sweep"]["value"] == 2_000_000
    with pytest.raises(BenchError, match="no records at 3e\\+06; there are 2e\\+06, 8e\\+06"):
        at_budget(records, 3e6)
    assert at_budget(suite_of(a=2.0))[0]["row"] == "a"


def test_too_few_rows_in_common() -> None:
    with pytest.raises(BenchError, match="two rows must have a number in both suites, and 1 has: the first has a"):
        agreement(suite_of(a=2.0), suite_of(a=2.0, b=2.1))


def test_as_json() -> None:
    found: Agreement = agreement(suite_of(a=2.0, b=2.1), suite_of(a=2.0, b=2.1))
    assert found.as_json()["share"]["value"] == 1.0
    assert found.as_json()["pairs"] == [{"rows": ["a", "b"], "small": "better", "large": "better", "score": 1.0}]
