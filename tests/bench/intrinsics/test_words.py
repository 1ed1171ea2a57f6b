"""Words and morphemes of a text."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.intrinsics.words import WordedText, read_morphemes
from patchers.errors import BenchError


def words(*docs: bytes) -> list[bytes]:
    text = WordedText.of(docs)
    return [text.data[begin:end] for begin, end in text.words.tolist()]


def test_words_are_runs_of_letters_marks_and_digits() -> None:
    assert words(b"It's 42 a.m., x_y") == [b"It", b"s", b"42", b"a", b"m", b"x", b"y"]
    assert words("naïve e\u0301t 東京 हिन्दी".encode()) == [w.encode() for w in ("naïve", "e\u0301t", "東京", "हिन्दी")]
    assert words(b"ab\xffcd\xe2\x82") == [b"ab", b"cd"]
    assert words(b"ab", b"", b"cd ", b"ef") == [b"ab", b"cd", b"ef"]
    assert words() == words(b"") == words(b" \0 ") == []


@given(st.lists(st.text(max_size=12) | st.sampled_from(["é", "a b", "東 京", "\0", "😀x"]), max_size=5))
def test_words_are_what_a_regular_expression_finds(parts: list[str]) -> None:
    def marked(text: str) -> str:
        return "".join("w" if unicodedata.category(c)[0] in "LMN" else " " for c in text)

    wanted = [part[m.start() : m.end()].encode() for part in parts for m in re.finditer("w+", marked(part))]
    assert words(*(part.encode() for part in parts)) == wanted


def test_morphemes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "morphemes.tsv"
    path.write_text("unhappily\tun happi ly\n\ncats\tcat s\ncafés\tcafé s\nit\tit\n", encoding="utf-8")
    assert read_morphemes(path) == {b"unhappily": (2, 7), b"cats": (3,), "cafés".encode(): (5,), b"it": ()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no morphemes; wanted lines like"),
        (b"cats cat s\n", "line 1: wanted a word, a tab, and its morphemes"),
        (b"cats\tcat s\ndogs\tdog\n", "line 2: wanted a word, a tab, and its morphemes .* got 'dogs.tdog'"),
        (b"\xff\n", "cannot read the morphemes"),
    ],
)
def test_morphemes_that_are_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(BenchError, match=said):
        read_morphemes(tmp_path / "m")
    with pytest.raises(BenchError, match="cannot read the morphemes"):
        read_morphemes(tmp_path / "none")
