"""Streams H-Net's cut byte by byte: the harness's local encoder and its router, compiled.

Legend: D local width, S gram sizes, N bytes of the longest gram.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numba import njit

from models.batch import BOS, Windows
from models.decoding import kernels
from models.decoding.caches import recorded
from models.harness import Harness
from models.hash_embeddings import _MASK, _MULTIPLIER
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
        self._last = self._encode(BOS)

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
        self._steps = passed.steps(len(text))
        self._last = seen["last"][1][len(text) - 1 : len(text)].numpy()
        return self._owner.segment(data + b"\0")

    def _encode(self, symbol: int) -> Array:
        """The encoder's state of the position that holds this symbol (1, D)."""
        w = self._weights
        x = w.byte[symbol : symbol + 1]
        if w.table is not None:
            newest = np.frombuffer(self._tail[-int(w.sizes[-1]) :][::-1], np.uint8)
            x = with_grams(x, newest, w.table, w.sizes, w.rows)
        return self._steps.step(x)


class Weights:
    """What of a harness a stream needs, as arrays."""

    def __init__(self, harness: Harness) -> None:
        assert harness.router is not None, "a harness that is told its cuts has none of its own"
        self.blocks = Blocks(harness.encoder, harness.config.local_window)
        self.byte = harness.byte.detach().numpy()
        self.query, self.key = array(harness.router.query), array(harness.router.key)
        grams = harness.ngrams
        self.table = None if grams is None else grams.table.detach().numpy()
        self.sizes = np.array(() if grams is None else grams.sizes, np.int64)
        self.rows = 0 if grams is None else grams.rows


@njit(cache=True, nogil=True)
def with_grams(x, newest, table, sizes, rows):  # type: ignore[no-untyped-def]
    """x (1, D) and the embedding of each gram that the newest bytes (N or fewer, the last one first) make."""
    x = x.copy()
    value, power, done = np.uint64(0), np.uint64(1), 0
    for column in range(len(sizes)):
        if sizes[column] > len(newest):
            break
        for back in range(done, sizes[column]):
            value += (np.uint64(newest[back]) + np.uint64(1)) * power
            power *= np.uint64(_MULTIPLIER)
        done = sizes[column]
        x[0] += table[np.int64((value & np.uint64(_MASK)) % np.uint64(rows)) + column * rows]
    return x


def fires(before: Array, state: Array, query: Array, key: Array) -> float:
    """`CosineRouter`: the probability of a start, from the states of two positions (1, D)."""
    q, k = kernels.product(before, query)[0], kernels.product(state, key)[0]
    lengths = np.sqrt(np.sum(q * q)) * np.sqrt(np.sum(k * k))
    return min(max(0.5 * (1.0 - float(np.sum(q * k)) / max(float(lengths), 1e-8)), 0.0), 1.0)
