"""Generates text from a trained model: prompts in, bytes out as they come."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np
from torch import nn

from models.byte_lm import ByteLM
from models.decoding.generate import (
    ByteWriter,
    Limits,
    PatchWriter,
    Piece,
    PricedWriter,
    TokenWriter,
    Writer,
    write,
)
from models.decoding.sampling import Sampling
from models.harness import Harness
from models.token_lm import TokenLM
from patchers import Patcher
from patchers.errors import BenchError


@dataclass(frozen=True)
class Wish:
    """What to write; by default 256 bytes, each the most probable one."""

    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    """Row i of a batch draws from `seed + i`, and gets what it would get alone with that seed."""

    def __post_init__(self) -> None:
        s = self.sampling
        if not 0 <= s.temperature < float("inf"):
            raise BenchError(f"temperature must be 0 (greedy) or more, got {s.temperature}")
        if s.top_k is not None and s.top_k < 1:
            raise BenchError(f"top-k must be at least 1, got {s.top_k}")
        if s.top_p is not None and not 0 < s.top_p <= 1:
            raise BenchError(f"top-p must be above 0 and at most 1, got {s.top_p}")
        if self.limits.max_bytes < 0:
            raise BenchError(f"the number of bytes to write must be 0 or more, got {self.limits.max_bytes}")
        if self.seed < 0:
            raise BenchError(f"a seed must be 0 or more, got {self.seed}")


def stream(module: nn.Module, patcher: Patcher | None, prompts: Sequence[bytes], wish: Wish) -> Iterator[list[Piece]]:
    """Continue all prompts side by side: what each step shows, row by row.

    Raises BenchError where the model cannot write: its patcher is not causal and it does not predict boundaries.
    """
    chance = [np.random.default_rng(wish.seed + row) for row in range(len(prompts))]
    writer = begin(module, patcher, prompts, wish.sampling, chance)
    return write(writer, prompts, wish.limits, wish.sampling, chance)


def continuations(module: nn.Module, patcher: Patcher | None, prompts: Sequence[bytes], wish: Wish) -> list[bytes]:
    """What each prompt goes on with, without the prompt."""
    out = [b""] * len(prompts)
    for pieces in stream(module, patcher, prompts, wish):
        for piece in pieces:
            out[piece.row] += piece.data
    return out


class Screen:
    """Shows bytes as they come.

    A terminal gets characters, each as soon as it is whole, and U+FFFD for what is none; anything else gets the very
    bytes.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._bytes = out, None if out.isatty() else getattr(out, "buffer", None)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def show(self, data: bytes, final: bool = False) -> None:
        """`final`: nothing comes any more, so an incomplete character is shown as what it is."""
        if self._bytes is not None:
            self._bytes.write(data)
            self._bytes.flush()
            return
        self._out.write(self._decoder.decode(data, final))
        self._out.flush()


def begin(
    module: nn.Module,
    patcher: Patcher | None,
    prompts: Sequence[bytes],
    sampling: Sampling | None = None,
    chance: Sequence[np.random.Generator] | None = None,
) -> Writer:
    """A writer that has read the prompts."""
    if isinstance(module, ByteLM):
        return ByteWriter(module, prompts)
    if isinstance(module, Harness) and module.router is not None:
        return PatchWriter(module, prompts, None)
    assert patcher is not None, "every other model is cut by a patcher"
    if isinstance(module, TokenLM):
        return TokenWriter(module, [_ids(patcher, p) for p in prompts], _spelling(patcher, module.vocab_size))
    assert isinstance(module, Harness), type(module)
    if module.price is None:
        return PatchWriter(module, prompts, [patcher.stream() for _ in prompts])
    draws = [rng.random() for rng in chance] if chance is not None else [0.5] * len(prompts)
    temperature = sampling.temperature if sampling is not None else 0.0
    return PricedWriter(module, prompts, patcher.segment_many(prompts), temperature, np.array(draws))


def can_write(module: nn.Module, patcher: Patcher | None) -> bool:
    """Whether `begin` would not raise."""
    if isinstance(module, TokenLM):
        return hasattr(patcher, "tokens")
    if isinstance(module, Harness) and module.price is None and module.router is None:
        return patcher is not None and patcher.causal
    return True


def _ids(patcher: Patcher, prompt: bytes) -> np.ndarray:
    encode = getattr(patcher, "encode", None)
    assert encode is not None, "a token_lm's patcher has a vocabulary"
    ids: np.ndarray = encode(prompt)[0]
    return ids


def _spelling(patcher: Patcher, vocab_size: int) -> list[bytes]:
    """The bytes of each token."""
    tokens = getattr(patcher, "tokens", None)
    if tokens is None:
        raise BenchError(
            f"patcher '{patcher.name}' does not say how its tokens are spelled, so nothing can be written with them: "
            "give it a method tokens() with the bytes of each id, as bpe has"
        )
    spelled: list[bytes] = tokens()[:vocab_size]
    return spelled
