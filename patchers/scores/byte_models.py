"""The interface of score models: one score per byte, computed from the bytes before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from patchers.errors import BenchError

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ModelOptions:
    """Options of the byte models; those of the model that is not chosen are not read."""

    model: Literal["ngram", "transformer"] = "ngram"
    reset: Literal["never", "newline"] = "never"  # newline: a line knows nothing of the lines before it
    order: int = 5  # ngram: bytes of context
    least: int = 2  # ngram: how often a context must have been seen to be trusted
    width: int = 64  # transformer, as are all below
    layers: int = 2
    heads: int = 4
    window: int = 64  # positions that each layer attends to
    train_bytes: int = 3_276_800  # bytes of training text that it learns from, some twice where there are fewer
    lr: float = 6e-3
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the first look; no cut depends on it

    def check(self) -> None:
        """Raises BenchError for a number out of range."""
        for key, low, high in (("order", 1, 6), ("least", 1, 2**31), ("layers", 1, 64), ("heads", 1, 64)):
            _check(key, getattr(self, key), low, high)
        _check("window", self.window, 1, 65536)
        _check("train_bytes", self.train_bytes, 1, 2**40)
        if self.width < 2 or self.width % (2 * self.heads):
            raise BenchError(f"width must be a multiple of {2 * self.heads}, twice the heads, got {self.width}")
        if not self.lr > 0:
            raise BenchError(f"lr must be greater than 0, got {self.lr}")


def _check(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BenchError(f"{key} must be a whole number from {low} to {high}, got {value}")


class ScoreModel(Protocol):
    """A fitted model. The score of byte t is a function of the bytes before it.

    It is the entropy of byte t in nats, or the probability that byte t starts a patch.
    """

    grid: float
    """Scores are whole multiples of this; 0.0 where they are not rounded."""
    tolerances: tuple[float, ...]
    """How far scores may be off: those of `scores`, then those after each `refine` but the last; () if exact."""
    flops_per_byte: float
    training_flops: float

    def scores(self, docs: Sequence[bytes]) -> list[Scores]:
        """Float64 (len(doc),) for each document."""
        ...

    def refine(self, doc: bytes, scores: Scores, wanted: NDArray[np.bool_], round_: int) -> Scores:
        """The scores with better ones at the wanted positions, exact ones in the last round."""
        ...

    def stream(self) -> ScoreStream: ...


class ScoreStream(Protocol):
    """The scores of one document byte by byte."""

    first: float
    """The score of byte 0."""

    def push(self, byte: int) -> float:
        """The score of the byte after this one, as near as the last but one tolerance."""
        ...

    def prime(self, data: bytes, count: int) -> Scores:
        """Take the beginning of a document at once; the exact scores of its last `count` positions, the one after the
        last byte included (of all of them where there are fewer)."""
        ...

    def exact(self, count: int) -> Any:
        """The exact scores of the last `count` positions, the one after the last byte pushed included."""
        ...
