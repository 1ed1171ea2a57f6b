"""Hand-worked examples of every rule, and the rules against plain Python that follows their sentence."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchers
from patchers.errors import BenchError
from patchers.hashing import BLOCK, hash_at, mix, position_hash

anything = st.binary(max_size=80) | st.text(max_size=40).map(str.encode)


def cut(patcher: patchers.Patcher, text: str | bytes) -> str:
    """The text with a bar before each patch, as Latin-1 so that every byte shows."""
    data = text.encode() if isinstance(text, str) else text
    places = [*np.flatnonzero(patcher.segment(data)), len(data)]
    return "|".join(data[a:b].decode("latin-1") for a, b in itertools.pairwise(places))


@pytest.mark.parametrize(
    ("name", "options", "text", "expected"),
    [
        ("bytes", {}, "abc", "a|b|c"),
        ("stride", {"stride": 3}, "abcdefgh", "abc|def|gh"),
        ("stride", {"stride": 1}, "abc", "a|b|c"),
        ("stride", {"stride": 2.5}, "abcdefghijk", "abc|de|fgh|ij|k"),
        ("stride", {"stride": 1.1}, "abcdefghijklmnopqrstuvw", "ab|c|d|e|f|g|h|i|j|k|lm|n|o|p|q|r|s|t|u|v|w"),
        # SpaceByte: after the first of a run of space-like bytes; the byte after "(" starts none, ", " being a run
        ("whitespace", {}, "the cat, sat", "the |cat,| sat"),
        ("whitespace", {}, "a  b", "a | b"),
        ("whitespace", {}, " ab", " |ab"),
        ("whitespace", {}, "x=(1)", "x=|(1)"),
        ("whitespace", {}, "a\n\nb", "a\n|\nb"),
        ("whitespace", {}, "né", "n\xc3|\xa9"),  # 0xC3 is space-like, 0xA9 is not
        ("words", {}, "the cat, sat", "the |cat, |sat"),
        ("words", {}, "a \n b", "a |\n b"),
        ("words", {}, " a", " |a"),
        ("words", {"every": 2}, "a b c d e", "a b |c d |e"),
        ("codepoint", {}, "aé€😀b", "a|\xc3\xa9|\xe2\x82\xac|\xf0\x9f\x98\x80|b"),
        ("codepoint", {}, b"\x80\x80", "\x80|\x80"),  # nothing announced them
        ("codepoint", {}, b"\xc3\xa9\xa9", "\xc3\xa9|\xa9"),
        ("codepoint", {}, b"\xe2\x82a", "\xe2\x82a"),  # cut short: runs on until something is complete
        ("codepoint", {}, b"\xf8\xffa", "\xf8|\xff|a"),
        # LZ78: a | aa | aaa | aaaa: each phrase is a known one and a byte
        ("lz", {}, "aaaaaaaaaa", "a|aa|aaa|aaaa"),
        ("lz", {}, "abababa", "a|b|ab|aba"),
        ("lz", {}, "sir sid eastman", "s|i|r| |si|d| e|a|st|m|an"),  # the classic example
    ],
)
def test_by_hand(name: str, options: dict[str, object], text: str | bytes, expected: str) -> None:
    assert cut(patchers.create(name, **options), text) == expected


@pytest.mark.parametrize("stride", [1, 2, 7, 1.1, 2.5, 4.3, 4.4837, 1000.001])
def test_a_stride_starts_where_the_quotient_changes(stride: float) -> None:
    n, exact = 5000, Fraction(str(stride))
    quotients = [t / exact // 1 for t in range(n)]
    expected = [t == 0 or quotients[t] != quotients[t - 1] for t in range(n)]
    assert patchers.create("stride", stride=stride).segment(bytes(n)).tolist() == expected


def like_space(b: int) -> bool:
    return not (0x30 <= b <= 0x39 or 0x41 <= b <= 0x5A or 0x61 <= b <= 0x7A or 0x80 <= b <= 0xBF)


def test_whitespace_knows_each_byte() -> None:
    for byte in range(256):
        starts = patchers.create("whitespace").segment(bytes([ord("x"), byte, ord("x")]))
        assert starts.tolist() == [True, False, like_space(byte)], hex(byte)


@settings(derandomize=True, database=None)
@given(anything)
def test_whitespace_follows_its_sentence(data: bytes) -> None:
    expected = [
        t == 0 or (like_space(data[t - 1]) and not (t >= 2 and like_space(data[t - 2]))) for t in range(len(data))
    ]
    assert patchers.create("whitespace").segment(data).tolist() == expected


@settings(derandomize=True, database=None)
@given(st.text(max_size=50))
def test_codepoints_are_characters_of_valid_text(text: str) -> None:
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    expected = [flag for c in text for flag in [True] + [False] * (len(c.encode()) - 1)]
    assert patchers.create("codepoint").segment(data).tolist() == expected


@settings(derandomize=True, database=None)
@given(anything)
def test_lz_phrases_are_known_ones_and_a_byte(data: bytes) -> None:
    phrases = cut(patchers.create("lz"), data).encode("latin-1").split(b"|") if b"|" not in data else []
    known = {b""}
    for phrase in phrases[:-1]:
        assert phrase[:-1] in known
        assert phrase not in known
        known.add(phrase)


def test_lz_on_a_long_document_agrees_with_its_stream() -> None:
    data = np.random.default_rng(0).integers(97, 105, 60_000).astype(np.uint8).tobytes()  # the table doubles
    stream = patchers.create("lz").stream()
    assert patchers.create("lz").segment(data)[1:].tolist() == [stream.push(byte) for byte in data][:-1]


def test_random_is_a_hash_of_seed_and_position_alone() -> None:
    first = patchers.create("random", size=3.0)
    a, b = first.segment(bytes(50_000)), first.segment(b"x" * 60_000)
    assert np.array_equal(a, b[:50_000])
    assert not np.array_equal(a, patchers.create("random", size=3.0, seed=1).segment(bytes(50_000)))
    assert abs(a.mean() * 3 - 1) < 0.02
    gaps = np.diff(np.flatnonzero(a))
    assert abs(gaps.std() / np.sqrt(3 * 2) - 1) < 0.03  # geometric, as independent starts are


def test_position_hash_is_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 1234567, as every implementation of it has them."""
    gamma = 0x9E3779B97F4A7C15
    state = [(1234567 + i * gamma) % 2**64 for i in (1, 2, 3)]
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix(s) for s in state] == known
    far = position_hash(0, 3 * BLOCK, seed=9)
    assert np.array_equal(far[BLOCK - 2 : BLOCK + 5], position_hash(BLOCK - 2, BLOCK + 5, seed=9))
    assert np.array_equal(far[[0, 5, BLOCK]], hash_at(np.array([0, 5, BLOCK]), seed=9))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("stride", "stride", 0.5), ("random", "size", 0), ("words", "every", 0), ("entropy", "order", 7)],
)
def test_options_out_of_range_are_refused(name: str, option: str, value: float) -> None:
    with pytest.raises(BenchError, match=rf"{option} must be .* got {value}"):
        patchers.create(name, **{option: value})


def test_a_size_below_one_or_no_text_is_refused() -> None:
    with pytest.raises(BenchError, match=r"at least 1, got 0\.5"):
        patchers.create("stride").calibrate([b"abc"], 0.5)
    with pytest.raises(BenchError, match="no text to calibrate"):
        patchers.create("random").calibrate([b""], 4)


@pytest.mark.parametrize("name", ["stride", "random"])
def test_short_documents_are_allowed_for(name: str) -> None:
    docs = [bytes(length) for length in np.random.default_rng(0).integers(10, 60, 500)]
    calibrated = patchers.create(name).calibrate(docs, 4.0)
    size = sum(map(len, docs)) / sum(int(calibrated.segment(doc).sum()) for doc in docs)
    assert abs(size / 4 - 1) < 0.05


def test_a_stride_that_comes_out_right_stays_as_asked() -> None:
    assert patchers.create("stride").calibrate([bytes(100_000)], 4).options() == {"stride": 4.0}
