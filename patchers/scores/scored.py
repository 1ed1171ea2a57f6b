"""Base class of patchers that start a patch by the score of a byte model: entropies or predicted boundaries."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.calibration import bisect, check_size, total_bytes
from patchers.errors import BenchError
from patchers.hashing import hash_at
from patchers.scores.byte_models import ModelOptions, ScoreModel, Scores
from patchers.scores.ngram import NgramModel

if TYPE_CHECKING:
    from patchers.scores.transformer import TransformerModel


def _transformer() -> type[TransformerModel]:
    from patchers.scores.transformer import TransformerModel  # loads torch: seconds that only its users should wait

    return TransformerModel


MODELS: dict[str, Callable[[], type[NgramModel] | type[TransformerModel]]] = {
    "ngram": lambda: NgramModel,
    "transformer": _transformer,
}
_TIE_SEED = 0x7165
_TIES = 65536


@dataclasses.dataclass(frozen=True)
class ScorePatcher(ModelOptions, Patcher):
    """A rule over scores: it cuts where its margin, by how much the scores pass its threshold, is positive.

    Scores of the count model are rounded to 2^-10, and many bytes have the very same, so a threshold alone
    could miss the wanted size by far. A margin between 0 and 2^-10 therefore cuts with a chance in
    proportion, from a hash of the position. A threshold on the 2^-10 grid never meets that; one inside a
    step, as calibration sets it, cuts the right share of the bytes whose score is the step's upper end.

    Scores of the transformer are not rounded. A margin within the tolerance of the fast arithmetic is
    worked out anew from exact scores, so cuts are the same alone, in a batch, in a stream, in float32 and
    bfloat16.
    """

    kind: ClassVar[Kind] = "fitted"
    knob: ClassVar[str | None] = "threshold"
    score_name: ClassVar[str] = "entropy in nats"
    max_patch: int | None = None  # a patch that has this many bytes ends
    _learnt: dict[str, NDArray[Any]] | None = state()  # noqa: RUF009  (a field, not a value that is shared)

    def __post_init__(self) -> None:
        self.check()
        if self.max_patch is not None and self.max_patch < 1:
            raise BenchError(f"max_patch must be at least 1, or null for no limit, got {self.max_patch}")

    @abstractmethod
    def _margin(self, scores: Scores, begin: int) -> Scores:
        """How far above the threshold each byte is, given the scores of the bytes from `begin` on."""

    @abstractmethod
    def _ladder(self, values: list[Scores]) -> tuple[Callable[[int], Self], int]:
        """Patchers numbered 1..top whose patches grow with the number, and top; for calibration."""

    @property
    def _reads(self) -> int:
        """How many scores before the byte's own the margin reads."""
        return 0

    @property
    def _terms(self) -> int:
        """How many scores can be off at once in a margin: that of the byte, and one that it is compared with."""
        return 2 if self._reads else 1

    @functools.cached_property
    def _model(self) -> ScoreModel:
        if self._learnt is None:
            raise BenchError(f"patcher '{self.name}' has learnt nothing yet: call fit() with training text first")
        return MODELS[self.model]()(self._learnt, self)

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        total_bytes(docs)
        learnt = MODELS[self.model]().fit(docs, self, seed, self._targets(docs, seed))
        return dataclasses.replace(self, _learnt=learnt)

    def _targets(self, docs: Sequence[bytes], seed: int) -> list[Starts] | None:
        """What the model is to predict: starts, or None for the next byte."""
        return None

    def scores(self, data: bytes) -> Scores:
        """The score of each byte, float64 (len(data),): what `patchbench segment` draws as bars."""
        return self._model.scores([data])[0]

    def segment(self, data: bytes) -> Starts:
        return self.segment_many([data])[0]

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        return [self._cut(doc, scores) for doc, scores in zip(docs, self._model.scores(docs), strict=True)]

    def _cut(self, doc: bytes, scores: Scores) -> Starts:
        margin = self._margin(scores, 0)
        for round_, tolerance in enumerate(self._model.tolerances):
            doubtful = np.abs(margin) <= self._terms * tolerance
            if not doubtful.any():
                break
            for back in range(1, self._reads + 1):
                doubtful[:-back] |= doubtful[back:]
            scores = self._model.refine(doc, scores, doubtful, round_)
            margin = self._margin(scores, 0)
        return self._starts(margin)

    def _starts(self, margin: Scores) -> Starts:
        starts = decide(margin, 0, self._model.grid)
        starts[:1] = True
        return starts if self.max_patch is None else limit(starts, self.max_patch)

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        check_size(bytes_per_patch)
        total, values = total_bytes(docs), self._model.scores(docs)
        for round_ in range(len(self._model.tolerances) - 1):  # a quantile needs scores that are off to no side
            everywhere = (np.ones(len(doc), dtype=bool) for doc in docs)
            values = [self._model.refine(d, v, w, round_) for d, v, w in zip(docs, values, everywhere, strict=True)]
        rung, top = self._ladder(values)

        def size(number: int) -> float:
            patcher = rung(number)
            cuts = (patcher._starts(patcher._margin(scores, 0)) for scores in values)
            return total / sum(int(np.count_nonzero(starts)) for starts in cuts)

        return rung(bisect(size, 1, top, bytes_per_patch, f"'{self.name}'"))

    def stream(self) -> Stream:
        return _Stream(self)

    def flops_per_byte(self) -> float:
        return self._model.flops_per_byte

    def training_flops(self) -> float:
        return self._model.training_flops


@dataclasses.dataclass(frozen=True)
class ThresholdPatcher(ScorePatcher):
    """A rule that compares one number a byte with one threshold: the score, or what a subclass makes of the scores."""

    threshold: float = 0.0

    def _compared(self, scores: Scores) -> Scores:
        return scores

    def _margin(self, scores: Scores, begin: int) -> Scores:
        return self._compared(scores) - self.threshold

    def _ladder(self, values: list[Scores]) -> tuple[Callable[[int], Self], int]:
        at = levels([self._compared(v) for v in values], self._model.grid)
        return lambda number: dataclasses.replace(self, threshold=float(at[number - 1])), len(at)


class _Stream(Stream):
    def __init__(self, patcher: ScorePatcher) -> None:
        self._patcher, self._model, self._scores = patcher, patcher._model, patcher._model.stream()
        self._recent = [self._scores.first]
        self._position, self._open = 0, 0

    def push(self, byte: int) -> bool:
        self._position += 1
        self._open += 1
        self._recent = [*self._recent, self._scores.push(byte)][-self._patcher._reads - 1 :]
        margin = self._margin(np.array(self._recent))
        if self._model.tolerances and abs(margin[-1]) <= self._patcher._terms * self._model.tolerances[-1]:
            margin = self._margin(self._scores.exact(len(self._recent)))
        cut = bool(decide(margin[-1:], self._position, self._model.grid)[0]) or self._open == self._patcher.max_patch
        if cut:
            self._open = 0
        return cut

    def prime(self, data: bytes) -> Starts:
        starts = self._patcher.segment(data + b"\0")
        self._position = len(data)
        self._open = len(data) - int(np.flatnonzero(starts)[-1])
        self._recent = self._scores.prime(data, self._patcher._reads + 1).tolist()
        return starts

    def _margin(self, recent: Scores) -> Scores:
        return self._patcher._margin(recent, self._position + 1 - len(recent))


def decide(margin: Scores, begin: int, grid: float) -> Starts:
    """Which margins cut; `begin` is the position of the first."""
    cuts = margin > 0
    ties = np.flatnonzero(cuts & (margin < grid))
    cuts[ties] = margin[ties] > grid * chance(begin + ties)
    return cuts


def chance(positions: NDArray[np.int64]) -> Scores:
    """A number in [0, 1) for each position, in steps of 2^-16."""
    return (hash_at(positions, _TIE_SEED) >> np.uint64(48)).astype(np.float64) / _TIES


def levels(values: list[Scores], grid: float) -> Scores:
    """Every threshold at which one more byte is cut, ascending: scores, less a chance of the grid's step."""
    return np.sort(np.concatenate([v[1:] - grid * chance(np.arange(1, len(v))) for v in values if len(v)]))


def limit(starts: Starts, longest: int) -> Starts:
    """`starts` with more of them, so that no patch is longer than `longest` bytes."""
    places = np.flatnonzero(starts)
    more = (np.diff(places, append=len(starts)) - 1) // longest
    for place, count in zip(places[more > 0], more[more > 0], strict=True):
        starts[place : place + count * longest + 1 : longest] = True
    return starts
