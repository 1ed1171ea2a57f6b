"""Entropy patchers: four rules that start a patch where the next byte is hard to predict (BLT, section 2.3).

H_t is the entropy in nats of p(byte t given data[:t]).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np

from patchers.errors import BenchError
from patchers.registry import register
from patchers.scores.byte_models import Scores
from patchers.scores.scored import ScorePatcher, ThresholdPatcher, chance, levels


@register("entropy")
class Entropy(ThresholdPatcher):
    """A start at t iff H_t > threshold (BLT, Pagnoni et al. 2024, section 2.3, the global constraint)."""

    source: ClassVar[str] = "BLT, global threshold (Pagnoni et al. 2024)"
    threshold: float = 1.335  # nats; the paper's released models use about this


@register("entropy_jump")
class EntropyJump(ThresholdPatcher):
    """A start at t iff H_t - H_(t-1) > threshold (BLT, section 2.3, the approximate monotonic constraint)."""

    source: ClassVar[str] = "BLT, approximate monotonic (Pagnoni et al. 2024)"
    threshold: float = 0.3  # nats

    @property
    def _reads(self) -> int:
        return 1

    def _compared(self, scores: Scores) -> Scores:
        return rises(scores)


@register("entropy_both")
class EntropyBoth(ScorePatcher):
    """A start at t iff H_t > threshold and H_t - H_(t-1) > jump: both constraints of BLT together.

    Calibration moves both thresholds at once, each to the same quantile of its own values.
    """

    source: ClassVar[str] = "BLT, both constraints (Pagnoni et al. 2024)"
    threshold: float = 1.0  # nats
    jump: float = 0.0  # nats

    @property
    def _reads(self) -> int:
        return 1

    def _margin(self, scores: Scores, begin: int) -> Scores:
        return np.minimum(scores - self.threshold, rises(scores) - self.jump)

    def _ladder(self, values: list[Scores]) -> tuple[Callable[[int], Self], int]:
        high = levels(values, self._model.grid)
        steep = levels([rises(v) for v in values], self._model.grid)
        return (
            lambda number: dataclasses.replace(self, threshold=float(high[number - 1]), jump=float(steep[number - 1])),
            len(high),
        )


@register("entropy_spike")
class EntropySpike(ScorePatcher):
    """A start at t iff H_t is greater than each of the `previous` entropies before it (Nawrot et al. 2023).

    A number that is not whole stands for a mixture, so that calibration can meet a size between two whole
    ones: 2.25 compares with three entropies at a quarter of the positions, chosen by their hash, and with two
    elsewhere. Near the beginning of a document there are fewer to compare with.
    """

    knob: ClassVar[str | None] = "previous"
    source: ClassVar[str] = "entropy spikes, dynamic pooling (Nawrot et al. 2023)"
    previous: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.previous <= 64:
            raise BenchError(f"previous must be from 1 to 64, got {self.previous}")

    @property
    def _reads(self) -> int:
        return int(np.ceil(self.previous))

    def _margin(self, scores: Scores, begin: int) -> Scores:
        fewer = int(self.previous)
        highest = np.full(len(scores), -np.inf)
        for back in range(1, fewer + 1):
            np.maximum(highest[back:], scores[:-back], out=highest[back:])
        if fewer < self.previous:
            more = fewer + 1
            chosen = chance(np.arange(begin + more, begin + len(scores))) < self.previous - fewer
            highest[more:] = np.where(chosen, np.maximum(highest[more:], scores[:-more]), highest[more:])
        return scores - highest

    def _ladder(self, values: list[Scores]) -> tuple[Callable[[int], Self], int]:
        return lambda number: dataclasses.replace(self, previous=1 + (number - 1) / 64), 63 * 64 + 1


def rises(scores: Scores) -> Scores:
    """H_t - H_(t-1), the first one against itself."""
    return np.diff(scores, prepend=scores[:1])
