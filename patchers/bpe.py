"""Byte-pair encoding: a patch is a token. Learnt with the tokenizers library, encoded with tiktoken."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from patchers.base import Kind, Patcher, Starts, state
from patchers.calibration import bisect, check_size, total_bytes
from patchers.encodings import Encoder, from_tokens, published
from patchers.errors import BenchError
from patchers.registry import register

LEARNT = 65536  # tokens that are learnt at least, so that calibration has room without training again
# What cl100k_base does, without the possessive marks that only matter for speed.
_PIECES = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+$|\s*[\r\n]|\s+(?!\S)|\s"
)


@register("bpe")
class BPE(Patcher):
    """A start at each token's first byte (Sennrich et al. 2016; byte-level as in GPT-2, Radford et al. 2019).

    Either `vocab` tokens learnt from the training documents, or a published `encoding`. Learning goes on to
    65536 tokens (or until no pair is left that occurs twice) and `vocab` takes the first so many: the merges
    of a smaller vocabulary are the first ones of a larger, so calibration trains nothing again. Text that is
    learnt from is cut into words as cl100k_base does; what is no valid UTF-8 is left out of the learning.
    With `encoding` there is no knob and `calibrate` returns the patcher as it is.
    """

    causal: ClassVar[bool] = False
    kind: ClassVar[Kind] = "fitted"
    knob: ClassVar[str | None] = "vocab"
    source: ClassVar[str] = "tiktoken; BPE (Sennrich et al. 2016)"
    vocab: int = 4096
    encoding: Literal["gpt2", "cl100k_base", "o200k_base"] | None = None
    _tokens: NDArray[np.uint8] | None = state()  # bytes of all tokens after the first 256, one after another
    _lengths: NDArray[np.int32] | None = state()

    def __post_init__(self) -> None:
        if self.vocab < 256:
            raise BenchError(f"vocab must be at least 256, a token for each byte, got {self.vocab}")

    def segment(self, data: bytes) -> Starts:
        return self.encode(data)[1]

    def encode(self, data: bytes) -> tuple[NDArray[np.int32], Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),)."""
        return self._encoder.encode(data)

    @property
    def vocab_size(self) -> int:
        """How many ids there are; less than `vocab` where the training text had no more to merge."""
        return self._encoder.vocab_size

    @functools.cached_property
    def _encoder(self) -> Encoder:
        if self.encoding is not None:
            return published(self.encoding)
        return from_tokens(self.tokens()[: self.vocab])

    def tokens(self) -> list[bytes]:
        """Every token learnt, in order of rank; more than `vocab` where there were more to learn."""
        if self._tokens is None or self._lengths is None:
            raise BenchError("patcher 'bpe' has learnt no merges: call fit() first, or give it an encoding")
        flat, ends = self._tokens.tobytes(), np.cumsum(self._lengths).tolist()
        return [bytes([b]) for b in range(256)] + [
            flat[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        if self.encoding is not None:
            return self
        learnt = learn(docs, max(LEARNT, self.vocab))
        return dataclasses.replace(
            self,
            _tokens=np.frombuffer(b"".join(learnt), dtype=np.uint8),
            _lengths=np.array([len(token) for token in learnt], dtype=np.int32),
        )

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        if self.encoding is not None:
            return self
        check_size(bytes_per_patch)
        total, tokens = total_bytes(docs), self.tokens()

        def size(vocab: int) -> float:
            encoder = from_tokens(tokens[:vocab])
            return total / sum(len(encoder.encode(doc)[0]) for doc in docs)

        label = f"'bpe' with the {len(tokens)} tokens that its training text gave"
        return dataclasses.replace(self, vocab=bisect(size, 256, len(tokens), bytes_per_patch, label))


def learn(docs: Iterable[bytes], vocab: int) -> list[bytes]:
    """The tokens after the 256 bytes, in the order of their merges, at most `vocab` in all."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator((doc.decode(errors="ignore") for doc in docs), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    letters = byte_letters()
    tokens = {bytes(letters[c] for c in first + second): None for first, second in merges}
    return list(tokens)  # two merges can make the same token; the first counts


@functools.cache
def byte_letters() -> dict[str, int]:
    """The printable letter that stands for each byte in GPT-2's byte-level vocabularies, to that byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}
