"""Finds the words of texts and splits word types between probe training and test.

A word here is a run of ASCII lower-case letters that nothing else of a word touches, so that it is one word in
whatever way a text is cut.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TOUCHING = rb"A-Za-z0-9\x80-\xff'_-"
_WORD = re.compile(rb"(?<![" + _TOUCHING + rb"])[a-z]+(?![" + _TOUCHING + rb"])")
_CLAUSE = re.compile(rb"(?<=[.;:,] )[a-z]+(?: [a-z]+)+(?=[.;:,])")


def share(word: str) -> float:
    """A word's place in [0, 1), from its SHA-256 alone: a split by it is the same in every corpus."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) / 2**64


@dataclass(frozen=True)
class Spot:
    """Where a word stands: bytes begin..end of a text."""

    text: int
    begin: int
    end: int


def spots(texts: Sequence[bytes], lengths: range, most: int, after: int) -> dict[str, list[Spot]]:
    """The first places of every word of these lengths, at most `most` each, with `after` bytes of text behind them.

    Words come in the order of their hashes.
    """
    found: dict[str, list[Spot]] = {}
    for index, text in enumerate(texts):
        for match in _WORD.finditer(text, 0, max(0, len(text) - after)):
            if match.end() - match.start() in lengths:
                of_word = found.setdefault(match[0].decode(), [])
                if len(of_word) < most:
                    of_word.append(Spot(index, *match.span()))
    return {word: found[word] for word in sorted(found, key=share)}


def common_words(texts: Iterable[bytes], lengths: range, most: int) -> list[str]:
    """The most frequent words of these lengths, the most frequent first."""
    counts: Counter[bytes] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text))
    ranked = sorted(((-n, word) for word, n in counts.items() if len(word) in lengths))
    return [word.decode() for _, word in ranked[:most]]


def clauses(texts: Iterable[bytes], words: range, longest: int) -> list[str]:
    """What stands between two marks of punctuation, of so many words and at most `longest` bytes, each once, in the
    order of hashes."""
    found = {c for text in texts for c in _CLAUSE.findall(text) if len(c) <= longest and c.count(b" ") + 1 in words}
    return sorted((c.decode() for c in found), key=share)
