"""Noise operators: what they do to hand-worked texts, how often they do it, and where each character came from."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bench.evaluation.noise import NONE, OPERATORS, PAPER
from bench.evaluation.noise import words as word_noise
from bench.evaluation.noise.letters import LOOK_ALIKES, NEIGHBOURS
from bench.evaluation.noise.words import misspellings
from patchers.errors import BenchError

# Text with everything: other scripts, combining marks, emoji, half surrogates as undecodable bytes are read.
TEXTS = st.text(st.characters(), max_size=60) | st.binary(max_size=40).map(
    lambda data: data.decode("utf-8", "surrogateescape")
)
PROSE = "Their government was definitely beginning to believe it; nevertheless the weird library received more. "
LEVELED = [name for name, operator in OPERATORS.items() if operator.level is not None]
RANDOM = [*LEVELED, "random_case"]


class Given:
    """A generator whose numbers are known."""

    def __init__(self, *numbers: list[float]) -> None:
        self.numbers = list(numbers)

    def random(self, size: int) -> np.ndarray:
        numbers = np.array(self.numbers.pop(0))
        assert numbers.shape == (size,)
        return numbers


def applied(name: str, text: str, level: float, *numbers: list[float]) -> tuple[str, list[int]]:
    rng: Any = Given(*numbers)
    noised = OPERATORS[name].apply(text, level, rng)
    return noised.text, noised.origin.tolist()


# --- by hand


def test_the_five_of_the_paper_by_hand() -> None:
    assert PAPER == ("ant_speak", "drop", "random_case", "repeat", "upper_case")
    assert applied("ant_speak", "a bß", 1) == ("A   B S S", [0, NONE, 1, NONE, 2, NONE, 3, NONE, 3])
    assert applied("drop", "abcde", 0.1, [0.05, 0.5, 0.1, 0.99, 0.0999]) == ("bcd", [1, 2, 3])
    assert applied("random_case", "aBcDß", 1, [0.1, 0.6, 0.49, 0.5, 0.0]) == ("AbCdSS", [0, 1, 2, 3, 4, 4])
    repeated = applied("repeat", "abcd", 0.2, [0.19, 0.2, 0.0, 0.1], [0.0, 0.5, 0.34, 0.99])
    assert repeated == ("aabcccdddd", [0, 0, 1, 2, 2, 2, 3, 3, 3, 3])
    assert applied("upper_case", "Straße 東京é", 1) == ("STRASSE 東京É", [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9])
    levels = {name: OPERATORS[name].level for name in PAPER}
    assert levels == {"ant_speak": None, "drop": 0.1, "random_case": None, "repeat": 0.2, "upper_case": None}


def test_slips_by_hand() -> None:
    assert NEIGHBOURS["g"] == "bfhtvy"
    assert NEIGHBOURS["Q"] == "!@AW"
    assert applied("keyboard", "gé1Q", 0.1, [0.0] * 4, [0.5, 0.0, 0.0, 0.99]) == ("té1W", [0, 1, 2, 3])
    assert applied("look_alikes", "ace東", 0.5, [0.0, 0.6, 0.4, 0.0]) == ("аcе東", [0, 1, 2, 3])
    assert applied("swaps", "abcd e", 0.5, [0.0] * 6) == ("badc e", [1, 0, 3, 2, 4, 5])
    assert applied("swaps", "aab", 0.5, [0.0, 0.0, 0.0]) == ("aba", [0, 2, 1])


def test_misspellings_keep_the_case_and_know_where_letters_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_noise, "misspellings", lambda: {"their": ("thier",), "weird": ("wierd", "weid")})
    numbers = [[0.0, 0.9], [0.9, 0.9], [0.0, 0.49], [0.0, 0.0]]
    text, origin = applied("misspellings", "Their own WEIRD their2", 0.5, *numbers)
    assert text == "Thier own WIERD thier2"
    assert len(origin) == len(text)
    assert [(i, o) for i, o in enumerate(origin) if i != o and o != NONE] != []
    assert origin[5:10] == [5, 6, 7, 8, 9]
    shorter, places = applied("misspellings", "weird!", 0.5, [0.0, 0.99])
    assert (shorter, places) == ("weid!", [0, 1, 2, 4, 5])


def test_the_list_of_misspellings() -> None:
    known = misspellings()
    assert len(known) > 10_000
    assert "teh" in known["the"]
    assert "thier" in known["their"]
    for right, wrong in known.items():
        assert re.fullmatch(r"[^\W\d_]+", right)
        assert right not in wrong


def test_without_the_list_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    misspellings.cache_clear()
    try:
        with pytest.raises(BenchError, match="pip install codespell"):
            OPERATORS["misspellings"](PROSE)
    finally:
        misspellings.cache_clear()


# --- properties


@pytest.mark.parametrize("name", OPERATORS)
@given(text=TEXTS, seed=st.integers(0, 99), level=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_any_text_gives_one_noisy_text_and_an_alignment(name: str, text: str, seed: int, level: float) -> None:
    noised = OPERATORS[name](text, level, seed)
    again = OPERATORS[name](text, level, seed)
    assert noised.text == again.text
    assert noised.origin.tolist() == again.origin.tolist()
    assert noised.origin.shape == (len(noised.text),)
    assert all(NONE <= o < len(text) for o in noised.origin)
    noised.text.encode("utf-8", "surrogatepass")
    places = noised.origin[noised.origin != NONE]
    assert (np.diff(places) >= -1).all()


@pytest.mark.parametrize("name", OPERATORS)
@given(text=TEXTS, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_alignment_leads_back_to_the_clean_text(name: str, text: str, seed: int) -> None:
    noised = OPERATORS[name](text, 0.5, seed)
    became: dict[int, str] = {}
    for character, place in zip(noised.text, noised.origin.tolist(), strict=True):
        if place != NONE:
            became[place] = became.get(place, "") + character
    for place, now in became.items():
        was = text[place]
        allowed = {
            "ant_speak": {was.upper()},
            "upper_case": {was.upper()},
            "drop": {was},
            "swaps": {was},
            "random_case": {was.upper(), was.lower()},
            "repeat": {was * n for n in (1, 2, 3, 4)},
            "keyboard": {was, *NEIGHBOURS.get(was, "")},
            "look_alikes": {was, LOOK_ALIKES.get(was, was)},
            "misspellings": {now} if was.isalpha() else {was},
        }
        assert now in allowed[name]
    if name != "drop" and name != "misspellings":
        assert len(became) == len(text), "nothing else is lost"
    if name not in ("ant_speak", "misspellings"):
        assert NONE not in noised.origin


@pytest.mark.parametrize("name", LEVELED)
@given(text=TEXTS)
@settings(max_examples=25, deadline=None)
def test_level_zero_changes_nothing(name: str, text: str) -> None:
    noised = OPERATORS[name](text, 0.0)
    assert noised.text == text
    assert noised.origin.tolist() == list(range(len(text)))


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_differ_and_texts_too(name: str) -> None:
    operator = OPERATORS[name]
    a, b = operator(PROSE * 5, seed=0), operator(PROSE * 5, seed=1)
    assert a.text != b.text
    # Not the same places in every text: the beginning of a longer one is another text.
    assert not operator(PROSE * 6, seed=0).text.startswith(a.text[: 4 * len(PROSE)])


@pytest.mark.parametrize("name", [name for name in LEVELED if name != "swaps"])
def test_what_is_changed_at_a_level_is_changed_at_higher_ones(name: str) -> None:
    text = PROSE * 20

    def changed(level: float) -> set[int]:
        noised = OPERATORS[name](text, level)
        kept: dict[int, str] = {}
        for character, place in zip(noised.text, noised.origin.tolist(), strict=True):
            kept[place] = kept.get(place, "") + character
        return {i for i, c in enumerate(text) if kept.get(i) != c}

    few, some, many = changed(0.02), changed(0.1), changed(0.5)
    assert few <= some <= many
    assert 0 < len(few) < len(some) < len(many)


@given(text=TEXTS)
@settings(max_examples=50, deadline=None)
def test_idempotent_where_it_should_be(text: str) -> None:
    for name in ("upper_case", "look_alikes"):
        once = OPERATORS[name](text, 1.0).text
        assert OPERATORS[name](once, 1.0).text == once


def test_upper_case_is_idempotent_for_each_character_there_is() -> None:
    upper = OPERATORS["upper_case"]
    some = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.upper() != c)
    assert len(some) > 1400
    once = upper(some)
    assert upper(once.text).text == once.text == some.upper()
    assert once.origin.tolist() == [i for i, c in enumerate(some) for _ in c.upper()]


# --- how often


def within(count: int, of: int, rate: float) -> bool:
    low, high = binom.interval(1 - 1e-6, of, rate)
    return bool(low <= count <= high)


TEXT = PROSE * 60  # 6,700 characters


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("name", ["drop", "repeat", "keyboard", "look_alikes"])
def test_rates_of_characters(name: str, level: float) -> None:
    able = {"keyboard": NEIGHBOURS, "look_alikes": LOOK_ALIKES}.get(name, dict.fromkeys(TEXT))
    eligible = [i for i, c in enumerate(TEXT) if c in able]
    noised = OPERATORS[name](TEXT, level, seed=3)
    times = np.bincount(noised.origin, minlength=len(TEXT))
    if name in ("drop", "repeat"):
        hit = int((times != 1).sum())
    else:
        hit = sum(a != b for a, b in zip(TEXT, noised.text, strict=True))
    assert within(hit, len(eligible), level)
    if name == "repeat":
        assert set(times) <= {1, 2, 3, 4}
        for n in (2, 3, 4):
            assert within(int((times == n).sum()), hit, 1 / 3)


def test_rates_of_case_words_and_swaps() -> None:
    text = "abcdefghij" * 500
    upper = sum(c.isupper() for c in OPERATORS["random_case"](text).text)
    assert within(upper, len(text), 0.5)
    known = misspellings()
    words = re.findall(r"[^\W\d_]+", TEXT)
    wrong = re.findall(r"[^\W\d_]+", OPERATORS["misspellings"](TEXT, 0.2).text)
    assert within(sum(a != b for a, b in zip(words, wrong, strict=True)), sum(w.lower() in known for w in words), 0.2)
    # A pair that changes places uses up the next chance: of n chances and k swaps, n + k letters.
    swapped = int((OPERATORS["swaps"](text, 0.2).origin > np.arange(len(text))).sum())
    assert within(swapped, len(text) - swapped, 0.2)
