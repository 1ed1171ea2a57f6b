"""The count model against a plain Python one, and the rules over scores."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patcher_cases import texts

import patchers
from patchers.entropy import Entropy, EntropyBoth, EntropyJump, EntropySpike
from patchers.errors import BenchError
from patchers.scores.byte_models import ModelOptions
from patchers.scores.ngram import DISCOUNT, PRIOR, STEPS, NgramModel
from patchers.scores.scored import ScorePatcher, chance, decide, levels, limit

DOCS = [b"abracadabra abra\ncadabra", b"", b"a", b"banana bandana\n\nban", b"\xff\x00\xff\x00\xff"]


class PlainCounts:
    """Interpolated absolute discounting as its formula reads, with dictionaries."""

    def __init__(self, docs: list[bytes], order: int, least: int, reset: bool) -> None:
        self.order, self.least, self.reset = order, least, reset
        self.counts: dict[bytes, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        for doc in docs:
            for t, byte in enumerate(doc):
                past = self.past(doc, t)
                for k in range(min(order, len(past)) + 1):
                    self.counts[past[len(past) - k :]][byte] += 1

    def past(self, doc: bytes, t: int) -> bytes:
        begin = doc.rfind(b"\n", 0, t) + 1 if self.reset else 0
        return doc[max(begin, t - self.order) : t]

    def distribution(self, context: bytes) -> list[float]:
        seen = self.counts.get(context)
        total = sum(seen.values()) if seen else 0
        if context and (seen is None or total < self.least):
            return self.distribution(context[1:])
        lower = self.distribution(context[1:]) if context else [1 / 256] * 256
        assert seen is not None
        share = DISCOUNT * len(seen) / total
        return [max(seen[x] - DISCOUNT, 0) / total + share * lower[x] for x in range(256)]

    def entropy(self, doc: bytes, t: int) -> float:
        return -sum(p * math.log(p) for p in self.distribution(self.past(doc, t)) if p > 0)


@pytest.mark.parametrize("reset", ["never", "newline"])
@pytest.mark.parametrize(("order", "least"), [(1, 1), (3, 1), (3, 2), (6, 1)])
def test_entropies_equal_the_formula(order: int, least: int, reset: str) -> None:
    options = ModelOptions(order=order, least=least, reset=reset)  # type: ignore[arg-type]
    model = NgramModel(NgramModel.fit(DOCS, options, 0), options)
    plain = PlainCounts(DOCS, order, least, reset == "newline")
    for doc in [*DOCS, b"bandabra\nxyz aban"]:
        expected = [plain.entropy(doc, t) for t in range(len(doc))]
        assert np.allclose(model.scores([doc])[0], expected, rtol=0, atol=0.5001 / STEPS)


def test_start_probabilities_equal_the_formula() -> None:
    options = ModelOptions(order=2, least=1)
    starts = [np.array([t % 3 == 0 or byte == 97 for t, byte in enumerate(doc)], dtype=bool) for doc in DOCS]
    model = NgramModel(NgramModel.fit(DOCS, options, 0, starts), options)

    def probability(context: bytes) -> float | None:
        lower = probability(context[1:]) if context else 0.5
        seen = [
            flags[t]
            for doc, flags in zip(DOCS, starts, strict=True)
            for t in range(max(1, len(context)), len(doc))
            if doc[t - len(context) : t] == context
        ]
        return (sum(seen) + PRIOR * lower) / (len(seen) + PRIOR) if seen and lower is not None else None

    doc = b"abrabanda"
    for t, score in enumerate(model.scores([doc])[0]):
        known = [p for k in range(min(t, 2) + 1) if (p := probability(doc[t - k : t])) is not None]
        assert score == pytest.approx(known[-1], abs=0.5001 / STEPS)


def with_scores(patcher: ScorePatcher, scores: list[float]) -> list[int]:
    """Where the rule cuts a document with these scores."""
    starts = decide(patcher._margin(np.array(scores), 0), 0, 0.0)
    return np.flatnonzero(starts).tolist()


H = [2.0, 1.0, 1.5, 3.0, 2.9, 0.5, 1.4, 1.4, 1.6]


def test_rules_by_hand() -> None:
    assert with_scores(Entropy(threshold=1.5), H) == [0, 3, 4, 8]
    assert with_scores(EntropyJump(threshold=0.25), H) == [2, 3, 6]
    assert with_scores(EntropyBoth(threshold=1.45, jump=0.1), H) == [2, 3, 8]
    assert with_scores(EntropySpike(previous=1), H) == [0, 2, 3, 6, 8]
    assert with_scores(EntropySpike(previous=2), H) == [0, 3, 8]
    assert with_scores(EntropySpike(previous=5), H) == [0, 3]


def test_a_spike_between_two_whole_numbers_mixes_them() -> None:
    scores = np.random.default_rng(0).random(20_000)
    two, mixed, three = (EntropySpike(previous=k)._margin(scores, 0) > 0 for k in (2, 2.25, 3))
    assert not (mixed & ~two).any()
    assert not (three & ~mixed).any()
    share = (two & ~mixed).sum() / (two & ~three).sum()
    assert share == pytest.approx(0.25, abs=0.03)


def test_thresholds_on_the_grid_are_never_met_by_chance() -> None:
    scores = np.arange(0, 5000) / STEPS
    for threshold in (0.5, 1.25, 2 + 3 / STEPS):
        assert np.array_equal(decide(scores - threshold, 0, 1 / STEPS), scores > threshold)


def test_ties_are_broken_by_position_so_that_a_quantile_can_be_met() -> None:
    """Every byte has the same entropy; nine of ten are to be left uncut."""
    scores = [np.full(5000, 1.25), np.full(3000, 1.25)]
    at = levels(scores, 1 / STEPS)
    threshold = at[int(0.9 * len(at))]
    assert 1.25 - 1 / STEPS < threshold < 1.25
    cuts = [decide(v - threshold, 0, 1 / STEPS) for v in scores]
    assert sum(c[1:].sum() for c in cuts) == pytest.approx(0.1 * 8000, rel=0.01)
    assert np.array_equal(cuts[0][:3000], cuts[1])  # a document's cuts are its own
    assert 0 <= chance(np.arange(1000)).min() <= chance(np.arange(1000)).max() < 1


@pytest.mark.parametrize("size", [1.5, 3.0, 4.5, 8.0, 20.0])
@pytest.mark.parametrize("name", ["entropy", "entropy_jump", "entropy_both", "bpe_predicted"])
def test_calibration_is_a_quantile(name: str, size: float) -> None:
    train, docs = texts()
    patcher = patchers.create(name).fit(train).calibrate(docs, size)
    realised = sum(map(len, docs)) / sum(int(patcher.segment(doc).sum()) for doc in docs)
    assert realised == pytest.approx(size, rel=0.01)
    loose = patchers.create(name, max_patch=24).fit(train).calibrate(docs, size)
    longest = max(np.diff([*np.flatnonzero(s), len(s)]).max() for s in loose.segment_many(docs))
    assert longest <= 24


def test_the_wanted_size_may_be_out_of_reach() -> None:
    train, docs = texts()
    with pytest.raises(BenchError, match=r"'entropy' reaches 1\.00 to 3\.\d\d bytes a patch .* of 10: ask for"):
        patchers.create("entropy", max_patch=4).fit(train).calibrate(docs, 10)


@settings(derandomize=True, database=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 9))
def test_the_longest_patch_is_kept_to(flags: list[bool], longest: int) -> None:
    starts = np.array([True, *flags[1:]])
    expected, begin = [], 0
    for t, flag in enumerate([True, *flags[1:]]):
        if flag or t - begin == longest:
            begin = t
        expected.append(begin == t)
    assert limit(starts.copy(), longest).tolist() == expected


def test_a_line_knows_nothing_of_the_lines_before_it() -> None:
    train, _ = texts()
    fresh = patchers.create("entropy", reset="newline").fit(train)
    kept = patchers.create("entropy").fit(train)
    line = b"The tower of the north is "
    for patcher, same in ((fresh, True), (kept, False)):
        assert isinstance(patcher, ScorePatcher)
        alone, after = patcher.scores(line), patcher.scores(b"In the year of the\n" + line)[19:]
        assert np.array_equal(alone, after) == same


def test_repeated_text_does_not_drift() -> None:
    """An entropy is a function of the last bytes, so it is the same at every repetition."""
    patcher = patchers.create("entropy").fit(texts()[0])
    assert isinstance(patcher, ScorePatcher)
    scores = patcher.scores(b"the same words again and again. " * 50).reshape(50, 32)
    assert (scores[1:] == scores[1]).all()


def test_not_fitted_and_nothing_to_learn_are_said() -> None:
    with pytest.raises(BenchError, match="'entropy_jump' has learnt nothing yet: call fit"):
        patchers.create("entropy_jump").segment(b"a")
    with pytest.raises(BenchError, match="no text"):
        patchers.create("entropy").fit([b""])
    one = patchers.create("bpe_predicted", encoding="cl100k_base").fit([b"a"])  # not a single start to learn from
    assert one.segment(b"ab").tolist() == [True, False]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("width", 30, "width must be a multiple of 8, twice the heads, got 30"),
        ("lr", 0.0, "lr must be greater than 0"),
        ("window", 0, "window must be a whole number from 1"),
        ("max_patch", 0, "max_patch must be at least 1"),
        ("previous", 0.5, "previous must be from 1 to 64"),
        ("train_bytes", 0, "train_bytes must be a whole number from 1"),
    ],
)
def test_options_out_of_range(option: str, value: float, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        patchers.create("entropy_spike", **{option: value})


def test_a_copy_with_another_option_shares_what_was_learnt() -> None:
    patcher = patchers.create("entropy").fit(texts()[0])
    other = dataclasses.replace(patcher, threshold=0.25)  # type: ignore[call-arg]
    assert other.segment(b"abcdefgh").sum() > patcher.segment(b"abcdefgh").sum()
    assert other.fingerprint() != patcher.fingerprint()
