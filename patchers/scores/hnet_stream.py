"""Streams H-Net's cut byte by byte: the harness's local encoder and its router, for one position at a time.

Legend: D local width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from models.batch import BOS, Windows
from models.decoding import kernels
from models.decoding.caches import recorded
from models.decoding.running_hashes import Grams
from models.harness import Harness
from patchers.base import Starts, Stream
from patchers.scores.stepping import Array, Blocks, Steps, array


class Cutter(Protocol):
    """The trained patcher whose stream it is."""

    @property
    def reach(self) -> int:
        """How many bytes back a decision sees."""
        ...

    def segment(self, data: bytes) -> Starts: ...

    def exact(self, contexts: Sequence[bytes]) -> list[float]:
        """The probability that a patch starts after each context, in float64."""
        ...


class HNetStream(Stream):
    """Float32 with the keys and values still in a window; a probability within `doubt` of a half is worked out anew."""

    def __init__(self, owner: Cutter, harness: Harness, weights: Weights, doubt: float) -> None:
        self._owner, self._harness, self._weights, self._doubt = owner, harness, weights, doubt
        self._steps, self._tail = Steps(weights.blocks), b""
        self._grams = self._grams_of(b"")
        self._last = self._encode(BOS)

    def _grams_of(self, text: bytes) -> Grams | None:
        return None if self._harness.ngrams is None else Grams(self._harness.ngrams, [text])

    def push(self, byte: int) -> bool:
        self._tail = (self._tail + bytes([byte]))[-self._owner.reach :]
        before, self._last = self._last, self._encode(byte)
        probability = fires(before, self._last, self._weights.query, self._weights.key)
        if abs(probability - 0.5) < self._doubt:
            probability = self._owner.exact([self._tail])[0]
        return bool(probability > 0.5)

    def prime(self, data: bytes) -> Starts:
        self._tail = data[-self._owner.reach :]
        text = torch.tensor([*self._tail, 0])
        none, ends = torch.zeros(len(text), dtype=torch.bool), torch.tensor([0, len(text)])
        encoder = recorded({"last": self._harness.encoder[-1]})
        with torch.inference_mode(), self._weights.blocks.recording() as passed, encoder as seen:
            self._harness.encode(Windows(text, ends, none, none), torch.float32)
        self._steps, self._grams = passed.steps(len(text)), self._grams_of(self._tail)
        self._last = seen["last"][1][len(text) - 1 : len(text)].numpy()
        return self._owner.segment(data + b"\0")

    def _encode(self, symbol: int) -> Array:
        """The encoder's state of the position that holds this symbol (1, D)."""
        x = self._weights.byte[symbol : symbol + 1]
        if self._grams is not None and self._tail:
            with torch.inference_mode():
                x = x + self._grams.push(np.array([symbol]), np.array([len(self._tail)])).numpy()
        return self._steps.step(x)


class Weights:
    """What of a harness a stream needs, as arrays."""

    def __init__(self, harness: Harness) -> None:
        assert harness.router is not None, "a harness that is told its cuts has none of its own"
        self.blocks = Blocks(harness.encoder, harness.config.local_window)
        self.byte = harness.byte.detach().numpy()
        self.query, self.key = array(harness.router.query), array(harness.router.key)


def fires(before: Array, state: Array, query: Array, key: Array) -> float:
    """`CosineRouter`: the probability of a start, from the states of two positions (1, D)."""
    q, k = kernels.product(before, query)[0], kernels.product(state, key)[0]
    lengths = np.sqrt(np.sum(q * q)) * np.sqrt(np.sum(k * k))
    return min(max(0.5 * (1.0 - float(np.sum(q * k)) / max(float(lengths), 1e-8)), 0.0), 1.0)
