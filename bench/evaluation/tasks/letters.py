"""The questions of the letter probe: targets computed from the letters of a word.

Legend: W words, Q questions of one target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

COUNTED = "eatinors"
"""Letters whose number is asked for: the most frequent ones, which stand twice in a word often enough."""

LENGTHS = range(4, 13)
"""Of the words that are asked about; so every word has a fourth letter."""


@dataclass(frozen=True)
class Target:
    """Questions of one kind, answered for each word by a class."""

    name: str
    answers: np.ndarray
    """(W, Q) int64."""

    balanced: bool = False
    """Whether the two answers to a question weigh the same, however rare one is: knowing nothing is then right half
    the time. Else an answer weighs as often as it is given."""


def targets(words: Sequence[str]) -> list[Target]:
    """All of DESIGN section 6: letters held, first, last, length, count of a letter, letter at a place."""
    codes = [[ord(letter) - ord("a") for letter in word] for word in words]
    return [
        Target("letters", (letter_counts(words) > 0).astype(np.int64), balanced=True),
        Target("first", np.array([[c[0]] for c in codes])),
        Target("last", np.array([[c[-1]] for c in codes])),
        Target("length", np.array([[len(c)] for c in codes])),
        Target("count", np.array([[min(2, word.count(letter)) for letter in COUNTED] for word in words])),
        Target("position", np.array([c[1:4] for c in codes])),
    ]


def letter_counts(words: Sequence[str]) -> np.ndarray:
    """(W, 26) float64: the bag of bytes of each word, which knows all of its letters and no order."""
    return np.array([[word.count(letter) for letter in ascii_lowercase] for word in words], float)
