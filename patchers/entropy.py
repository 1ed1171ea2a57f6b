"""Patches that begin where the next byte is hard to guess: the entropy family (BLT; Nawrot et al.)."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.calibration import bisect, check_size, total_bytes
from patchers.errors import BenchError
from patchers.hashing import hash_at
from patchers.ngram import STEPS, NgramModel
from patchers.registry import register

FINE = 65536  # parts of a step of 2^-10 nats that ties are broken by
_TIE_SEED = 0x7165
Entropies = NDArray[np.int64]


class EntropyModel(Protocol):
    """What the rules need of a byte model. Entropies are counted in steps of 2^-10 nats."""

    flops_per_byte: float

    def entropies(self, docs: Sequence[bytes]) -> list[NDArray[Any]]:
        """H_t of byte t given the bytes before it, for each byte of each document."""
        ...

    def stream(self) -> EntropyStream: ...


class EntropyStream(Protocol):
    first: Any  # the entropy of byte 0

    def push(self, byte: int) -> Any:
        """The entropy of the byte after this one."""
        ...


@dataclasses.dataclass(frozen=True)
class EntropyPatcher(Patcher):
    """What the four rules share: the byte model, the context reset and the longest patch.

    Entropies are rounded to 2^-10 nats. A count model gives many bytes the very same entropy, so a threshold
    alone could miss the wanted size by far: below the rounding, entropy h stands for a value in (h - 2^-10,
    h] drawn from a hash of the position. A threshold on the 2^-10 grid is not touched by that; one that falls
    inside a step, as calibration sets it, cuts the right share of the bytes that lie exactly on it.
    """

    kind: ClassVar[Kind] = "fitted"
    knob: ClassVar[str | None] = "threshold"
    model: Literal["ngram"] = "ngram"
    order: int = 5  # ngram: bytes of context
    least: int = 2  # ngram: how often a context must have been seen to be trusted
    reset: Literal["never", "newline"] = "never"  # newline: a line knows nothing of the lines before it
    max_patch: int | None = None  # a patch that has this many bytes ends
    _learnt: dict[str, NDArray[Any]] | None = state()  # noqa: RUF009  (a field, not a shared value)

    def __post_init__(self) -> None:
        for key, low, high in (("order", 1, 6), ("least", 1, 2**31), ("max_patch", 1, 2**31)):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise BenchError(f"{key} must be a whole number from {low} to {high}, got {value}")

    @abstractmethod
    def _cut(self, steps: Entropies, begin: int) -> Starts:
        """Where the rule cuts, given the entropies of the bytes from position `begin` on."""

    @abstractmethod
    def _ladder(self, values: list[Entropies]) -> tuple[Callable[[int], Self], int]:
        """Patchers numbered 1..top whose patches grow with the number, and top; for calibration."""

    @property
    def _reach(self) -> int:
        """How many entropies before the byte's own the rule reads."""
        return 0

    @functools.cached_property
    def _model(self) -> EntropyModel:
        if self._learnt is None:
            raise BenchError(
                f"patcher '{self.name}' has no entropy model yet: call fit() with training text first"
            )
        return NgramModel(self._learnt, self.order, self.reset == "newline")

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        total_bytes(docs)
        return dataclasses.replace(
            self, _learnt=NgramModel.fit(docs, self.order, self.least, self.reset == "newline")
        )

    def segment(self, data: bytes) -> Starts:
        return self.segment_many([data])[0]

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        return [self._finish(steps) for steps in self._model.entropies(docs)]

    def entropies(self, data: bytes) -> NDArray[np.float64]:
        """H_t in nats for each byte, as the rule sees it: what `patchbench segment` draws as bars."""
        return self._model.entropies([data])[0] / STEPS

    def _finish(self, steps: Entropies) -> Starts:
        starts = self._cut(steps, 0)
        starts[:1] = True
        return starts if self.max_patch is None else limit(starts, self.max_patch)

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        check_size(bytes_per_patch)
        total, values = total_bytes(docs), self._model.entropies(docs)
        rung, top = self._ladder(values)

        def size(number: int) -> float:
            patcher = rung(number)
            return total / sum(int(np.count_nonzero(patcher._finish(steps))) for steps in values)

        return rung(bisect(size, 1, top, bytes_per_patch, f"'{self.name}'"))

    def stream(self) -> Stream:
        return _Stream(self)

    def flops_per_byte(self) -> float:
        return self._model.flops_per_byte


class _Stream:
    def __init__(self, patcher: EntropyPatcher) -> None:
        self._patcher, self._model = patcher, patcher._model.stream()
        self._recent = [self._model.first]
        self._position, self._open = 0, 0

    def push(self, byte: int) -> bool:
        self._position += 1
        self._open += 1
        self._recent = [*self._recent, self._model.push(byte)][-self._patcher._reach - 1 :]
        begin = self._position + 1 - len(self._recent)
        starts = (
            bool(self._patcher._cut(np.array(self._recent), begin)[-1])
            or self._open == self._patcher.max_patch
        )
        if starts:
            self._open = 0
        return starts


def limit(starts: Starts, longest: int) -> Starts:
    """`starts` with more of them, so that no patch is longer than `longest` bytes."""
    places = np.flatnonzero(starts)
    more = (np.diff(places, append=len(starts)) - 1) // longest
    for place, count in zip(places[more > 0], more[more > 0], strict=True):
        starts[place : place + count * longest + 1 : longest] = True
    return starts


def above(steps: Entropies, begin: int, threshold: float) -> Starts:
    """Whether each value, made fine, exceeds the threshold (nats); `begin` is the position of the first."""
    cell = math.ceil(threshold * STEPS)  # only values in this step can go either way
    out = steps > cell
    ties = np.flatnonzero(steps == cell)
    out[ties] = fine(steps[ties], begin + ties) > threshold * (STEPS * FINE)
    return out


def fine(steps: Entropies, positions: NDArray[np.int64]) -> Entropies:
    """Values in steps / FINE, hardly two alike: each a hash of its position below its rounded value."""
    ties = hash_at(positions, _TIE_SEED) >> np.uint64(48)
    return (steps.astype(np.int64) - 1) * FINE + ties.astype(np.int64) + 1


def rises(steps: Entropies) -> Entropies:
    """H_t - H_(t-1), the first one against itself."""
    return np.diff(steps, prepend=steps[:1])


def _levels(values: list[Entropies]) -> NDArray[np.float64]:
    """All values that a threshold can be compared with, ascending, in nats; byte 0 starts a patch anyway."""
    return np.sort(np.concatenate([fine(v, np.arange(len(v)))[1:] for v in values])) / (STEPS * FINE)


@register("entropy")
class Entropy(EntropyPatcher):
    """A start at t iff H_t > threshold (BLT, Pagnoni et al. 2024, section 2.3, global constraint)."""

    source: ClassVar[str] = "BLT (Pagnoni et al. 2024), global threshold"
    threshold: float = 1.335  # nats; that of the paper's released models

    def _cut(self, steps: Entropies, begin: int) -> Starts:
        return above(steps, begin, self.threshold)

    def _ladder(self, values: list[Entropies]) -> tuple[Callable[[int], Self], int]:
        levels = _levels(values)
        return lambda number: dataclasses.replace(self, threshold=float(levels[number - 1])), len(levels)
