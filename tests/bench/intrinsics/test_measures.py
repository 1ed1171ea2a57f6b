"""Each number of a cut against a case that is worked by hand, and against its definition on random cuts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.intrinsics.measures import (
    agreement,
    boundaries_of,
    gini,
    morpheme_f1,
    parity,
    vocabulary_numbers,
    word_numbers,
)
from bench.intrinsics.words import WordedText

TEXT = b"the cats sat"
#        0123456789..  words 0-3, 4-8, 9-12; gaps 3-4 and 8-9


def starts_at(size: int, *places: int) -> np.ndarray:
    starts = np.zeros(size, bool)
    starts[list(places)] = True
    return starts


def boundaries(text: bytes, *places: int) -> np.ndarray:
    return boundaries_of(starts_at(len(text), 0, *places), WordedText.of([text]).offsets)


def test_words_by_hand() -> None:
    """the| ca|ts sat: the words touch 1, 2 and 1 patches; of the 2 boundaries 1 is inside of a word; of the 2 gaps 1
    has one."""
    found = word_numbers(WordedText.of([TEXT]), boundaries(TEXT, 3, 6))
    assert found is not None
    assert found.fertility == pytest.approx(4 / 3)
    assert found.whole == pytest.approx(2 / 3)
    assert (found.precision, found.recall) == (0.5, 0.5)
    assert found.f1 == 0.5


@pytest.mark.parametrize("places", [(3, 8), (4, 9), (3, 4, 8, 9)])
def test_a_cut_at_spaces_is_perfect_on_whichever_side_they_fall(places: tuple[int, ...]) -> None:
    found = word_numbers(WordedText.of([TEXT]), boundaries(TEXT, *places))
    assert found is not None
    assert (found.fertility, found.whole, found.f1) == (1, 1, 1)


def test_no_boundary_finds_nothing() -> None:
    found = word_numbers(WordedText.of([TEXT]), boundaries(TEXT))
    assert found is not None
    assert (found.fertility, found.whole, found.precision, found.recall, found.f1) == (1, 1, None, 0, 0)
    alone = word_numbers(WordedText.of([b"cats"]), boundaries(b"cats", 2))
    assert alone is not None
    assert (alone.fertility, alone.whole, alone.precision, alone.recall, alone.f1) == (2, 0, 0, None, None)
    assert word_numbers(WordedText.of([b" .. "]), boundaries(b" .. ", 2)) is None


def test_the_beginning_of_a_document_is_no_boundary() -> None:
    text = WordedText.of([b"ab", b"", b"cd"])
    assert boundaries_of(np.array([True, False, True, True]), text.offsets).tolist() == [3]
    assert text.words.tolist() == [[0, 2], [2, 4]]
    assert text.gaps.tolist() == []


def test_morphemes_by_hand() -> None:
    """un|happi|ly, cut as unha|ppi|ly: 1 of 2 is right and 1 of 2 is found; the boundary in a word that is not given
    does not count."""
    data = b"unhappily so"
    words, inside = WordedText.of([data]).morpheme_boundaries({b"unhappily": (2, 7)})
    assert (words.tolist(), inside.tolist()) == ([[0, 9]], [2, 7])
    assert morpheme_f1(words, inside, boundaries(data, 4, 7, 9, 11)) == 0.5
    assert morpheme_f1(words, inside, boundaries(data, 2, 7)) == 1
    assert morpheme_f1(words, inside, boundaries(data)) == 0
    assert morpheme_f1(words[:0], inside[:0], boundaries(data, 2)) is None


def test_efficiency_by_hand() -> None:
    """a, a, b, c: p = 1/2, 1/4, 1/4. H = 1.5 bits of log2 3. Order 2.5: log2(2^-2.5 + 2 * 4^-2.5) / -1.5 bits."""
    found = vocabulary_numbers(b"aabc", np.ones(4, bool))
    assert found.types == 3
    assert found.shannon == pytest.approx(1.5 / math.log2(3))
    assert found.renyi == pytest.approx(math.log2(2**-2.5 + 2 * 4**-2.5) / -1.5 / math.log2(3))


@pytest.mark.parametrize(
    ("tokens", "renyi", "shannon"),
    [
        ("pick @@ed pick @@l @@ed pick @@les", 0.8265064834225245, 0.9211854965885544),
        ("pick @@e @@d pick @@l @@e @@d pick @@l @@e @@s", 0.9204840242168808, 0.9609557933859342),
    ],
)
def test_efficiency_is_that_of_its_authors(tokens: str, renyi: float, shannon: float) -> None:
    """The cases in the tests of tokenization-scorer, by the first author of Zouhar et al. (2023)."""
    patches = [token.encode() for token in tokens.split()]
    data = b"".join(patches)
    starts = starts_at(len(data), *np.cumsum([0, *map(len, patches[:-1])]).tolist())
    found = vocabulary_numbers(data, starts)
    assert [found.renyi, found.shannon] == pytest.approx([renyi, shannon], rel=1e-12)


def test_equal_shares_are_efficient_and_one_patch_has_no_efficiency() -> None:
    found = vocabulary_numbers(b"abcd" * 3, np.tile([True, False, True, False], 3))
    assert found.types == 2
    assert [found.shannon, found.renyi] == pytest.approx([1, 1])
    assert vocabulary_numbers(b"aaaa", np.ones(4, bool)).shannon is None
    assert vocabulary_numbers(b"", np.zeros(0, bool)).types == 0


@given(st.lists(st.sampled_from([b"a", b"b", b"ab", b"ba", b"\0", b"\0\0"]), min_size=1, max_size=40))
def test_patches_are_counted_by_their_bytes(patches: list[bytes]) -> None:
    data = b"".join(patches)
    starts = starts_at(len(data), *np.cumsum([0, *map(len, patches[:-1])]).tolist())
    counts = Counter(patches)
    found = vocabulary_numbers(data, starts)
    assert found.types == len(counts)
    if len(counts) > 1:
        shares = [count / len(patches) for count in counts.values()]
        assert found.shannon == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(len(counts)))


def test_agreement_by_hand() -> None:
    """3, 6 and 3, 8, 10 share one of 2 + 3: 2 / 5."""
    assert agreement(np.array([3, 6]), np.array([3, 8, 10])) == pytest.approx(2 / 5)
    assert agreement(np.array([3]), np.array([3])) == 1
    assert agreement(np.array([], int), np.array([3])) == 0
    assert agreement(np.array([], int), np.array([], int)) == 1


def test_gini_by_hand() -> None:
    """1, 2, 3: differences 1, 1, 2, each twice, over 2 * 9 * 2."""
    assert gini([1, 2, 3]) == pytest.approx(float(Fraction(2 * (1 + 1 + 2), 2 * 9 * 2)))
    assert gini([5, 5, 5]) == 0
    assert gini([0, 0, 0, 12]) == pytest.approx(3 / 4)


def test_parity_by_hand() -> None:
    found = parity({"eng": 100, "deu": 150, "tam": 450}, "eng")
    assert found.premiums == {"deu": 1.5, "tam": 4.5}
    assert (found.mean, found.worst) == (3, 4.5)
    assert found.gini == pytest.approx(gini([100, 150, 450]))


@given(st.binary(max_size=40), st.sets(st.integers(1, 39)))
def test_numbers_of_words_are_what_a_loop_finds(data: bytes, places: set[int]) -> None:
    text = WordedText.of([data])
    cut = [place for place in sorted(places) if place < len(data)]
    found = word_numbers(text, boundaries(data, *cut) if data else np.zeros(0, int))
    words = text.words.tolist()
    if not words:
        assert found is None
        return
    assert found is not None
    touched = [1 + sum(begin < place < end for place in cut) for begin, end in words]
    assert found.fertility == pytest.approx(sum(touched) / len(words))
    assert found.whole == pytest.approx(touched.count(1) / len(words))
    gaps = [(one[1], other[0]) for one, other in itertools.pairwise(words)]
    if gaps:
        assert found.recall == pytest.approx(sum(any(a <= p <= b for p in cut) for a, b in gaps) / len(gaps))
