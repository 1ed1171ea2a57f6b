"""Causal BPE: a small model predicts from the previous bytes where a token begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from patchers.base import Starts
from patchers.bpe import BPE
from patchers.registry import register
from patchers.scores.scored import ThresholdPatcher


@register("bpe_predicted")
class BPEPredicted(ThresholdPatcher):
    """A start at t iff p(a token of `bpe` starts at t | data[:t]) > threshold.

    The teacher is `bpe` with `vocab` tokens learnt from the same training documents, or a published
    `encoding`. BLT's released code has such a patcher; Nawrot et al. (2023) distil a unigram tokeniser in the
    same way.
    """

    source: ClassVar[str] = "BLT's bpe patcher; supervised pooling (Nawrot et al. 2023)"
    score_name: ClassVar[str] = "probability of a start"
    threshold: float = 0.5  # probability
    vocab: int = 4096
    encoding: Literal["gpt2", "cl100k_base", "o200k_base"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        BPE(vocab=self.vocab, encoding=self.encoding)  # says what is wrong with them

    def _targets(self, docs: Sequence[bytes], seed: int) -> list[Starts] | None:
        return BPE(vocab=self.vocab, encoding=self.encoding).fit(docs, seed).segment_many(docs)
