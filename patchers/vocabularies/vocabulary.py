"""Base class of patchers that learn a vocabulary: the option `vocab`, token ids, and calibration."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from patchers.base import Kind, Patcher, Starts, state
from patchers.calibration import bisect, check_size, total_bytes
from patchers.errors import BenchError
from patchers.vocabularies.tokens import pack, unpack


class TokenEncoder(Protocol):
    """Any bytes to tokens that cover them."""

    vocab_size: int

    def encode(self, data: bytes) -> tuple[NDArray[np.int32], Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),)."""
        ...


@dataclasses.dataclass(frozen=True)
class VocabularyPatcher(Patcher):
    """A start at the first byte of each token of a learnt vocabulary; its first 256 tokens are the single bytes.

    `fit` learns more than `vocab` tokens, in an order in which any first so many are a vocabulary of their own, and
    `vocab` says how many count. So calibration trains nothing again.
    """

    causal: ClassVar[bool] = False
    kind: ClassVar[Kind] = "fitted"
    knob: ClassVar[str | None] = "vocab"
    learnt: ClassVar[int] = 65536  # tokens that are learnt at least, so that calibration has room
    vocab: int = 4096
    _tokens: NDArray[np.uint8] | None = state()  # noqa: RUF009  all after the first 256, see patchers.vocabularies.tokens
    _lengths: NDArray[np.int32] | None = state()  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.vocab < 256:
            raise BenchError(f"vocab must be at least 256, a token for each byte, got {self.vocab}")

    @abstractmethod
    def _encoder_of(self, tokens: list[bytes]) -> TokenEncoder:
        """The encoder with these tokens."""

    def segment(self, data: bytes) -> Starts:
        return self.encode(data)[1]

    def encode(self, data: bytes) -> tuple[NDArray[np.int32], Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),)."""
        return self._encoder.encode(data)

    @property
    def vocab_size(self) -> int:
        """How many ids there are; less than `vocab` where the training text gave no more."""
        return self._encoder.vocab_size

    @functools.cached_property
    def _encoder(self) -> TokenEncoder:
        return self._encoder_of(self.tokens()[: self.vocab])

    def tokens(self) -> list[bytes]:
        """Every token by rank, which is its id; more than `vocab` where there were more to learn."""
        if self._tokens is None or self._lengths is None:
            raise BenchError(f"patcher '{self.name}' has learnt no tokens: call fit() with training text first")
        return [bytes([b]) for b in range(256)] + unpack(self._tokens, self._lengths)

    def _with(self, tokens: Sequence[bytes]) -> Self:
        """A copy that has learnt these tokens, which come after the 256 bytes."""
        flat, lengths = pack(tokens)
        return dataclasses.replace(self, _tokens=flat, _lengths=lengths)

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        check_size(bytes_per_patch)
        total, tokens = total_bytes(docs), self.tokens()

        def size(vocab: int) -> float:
            encoder = self._encoder_of(tokens[:vocab])
            return total / sum(len(encoder.encode(doc)[0]) for doc in docs)

        label = f"'{self.name}' with the {len(tokens)} tokens that its training text gave"
        return dataclasses.replace(self, vocab=bisect(size, 256, len(tokens), bytes_per_patch, label))
