"""The interface of noise operators: pure functions of text, level and seed that track where characters came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""Origin of a character that noise has put in."""


@dataclass(frozen=True)
class Noised:
    """A text after noise."""

    text: str
    origin: NDArray[np.int64]
    """(len(text),) index of the clean character that each character came from, NONE where there is none. What came
    from clean text never goes back by more than one character."""

    @staticmethod
    def of(pieces: Iterable[tuple[str, int]]) -> Noised:
        """From runs of characters with the one clean character that they all came from."""
        kept = list(pieces)
        origin = [i for text, i in kept for _ in text]
        return Noised("".join(text for text, _ in kept), np.array(origin, dtype=np.int64))


Apply = Callable[[str, float, np.random.Generator], Noised]


@dataclass(frozen=True)
class Operator:
    """One kind of noise."""

    name: str
    what: str
    """For people and records: what happens to which characters, and what the level is."""

    level: float | None
    """The level that tables show (the paper's, where it is of the paper); None for noise that has no level."""

    apply: Apply

    def __call__(self, text: str, level: float | None = None, seed: int = 0) -> Noised:
        """The noisy text. The same for the same arguments on every machine.

        What happens to a text does not depend on other texts, and what is changed at a level is changed at each
        higher one too: the random numbers depend on the operator, the seed and the text, not on the level.
        """
        wanted = self.level if level is None else level
        key = hashlib.sha256(f"{self.name} {seed} ".encode() + text.encode("utf-8", "surrogatepass")).digest()
        return self.apply(text, 1.0 if wanted is None else wanted, np.random.default_rng(list(key)))
