"""Updates the n-gram hashes and the open-patch hash of documents byte by byte.

Legend: B rows (documents), G gram sizes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from torch import Tensor

from models.decoding.modules import Lookup
from models.hash_embeddings import _MASK, _MULTIPLIER, NgramEmbedding

_MAX = (1 << 64) - 1
_FACTOR, _LOW, _ONE = np.uint64(_MULTIPLIER), np.uint64(_MASK), np.uint64(1)


class Grams:
    """`NgramEmbedding` for the newest position of B documents, from the last bytes of each."""

    def __init__(self, module: NgramEmbedding, documents: Sequence[bytes]) -> None:
        self._rows, self._sizes = np.uint64(module.rows), np.array(module.sizes)
        self._lookup = Lookup(module.table, skip=len(module.sizes) * module.rows)
        reach = module.sizes[-1]
        self.recent = np.zeros((len(documents), reach), np.uint64)
        """(B, R): newest first."""
        for row, document in enumerate(documents):
            tail = document[-reach:][::-1]
            self.recent[row, : len(tail)] = np.frombuffer(tail, np.uint8)

    def push(self, data: np.ndarray, positions: np.ndarray) -> Tensor:
        """The next byte of each document (B,), the position that holds it (B,) -> (B, D)."""
        self.recent, rows = _pushed_grams(self.recent, data, positions, self._sizes, self._rows)
        return self._lookup(rows)

    def keep(self, rows: np.ndarray) -> None:
        self.recent = self.recent[rows]


@njit(cache=True, nogil=True)
def _pushed_grams(recent, data, positions, sizes, rows):  # type: ignore[no-untyped-def]
    """recent (B, R) before, data and positions (B,) -> recent after, and `gram_rows` (B, G)."""
    after, out = np.empty_like(recent), np.empty((len(data), len(sizes)), np.int64)
    for b in range(len(data)):
        after[b, 0], after[b, 1:] = data[b], recent[b, :-1]
        value, power, done = np.uint64(0), _ONE, 0
        for g in range(len(sizes)):
            for back in range(done, sizes[g]):
                value += (after[b, back] + _ONE) * power
                power *= _FACTOR
            done = sizes[g]
            fits = positions[b] >= done
            out[b, g] = np.int64((value & _LOW) % rows) + g * np.int64(rows) if fits else len(sizes) * np.int64(rows)
    return after, out


class OpenPatches:
    """Length and hash of the patch that each of B documents is writing, as `open_patch_rows` reckons them."""

    def __init__(self, rows: int, documents: Sequence[bytes], begins: Sequence[int]) -> None:
        """`begins`: where the patch of the last byte of each document begins."""
        self._rows = np.uint64(rows - 1)
        self.length = np.zeros(len(documents), np.int64)
        self.value = np.zeros(len(documents), np.uint64)
        self.power = np.ones(len(documents), np.uint64)
        for row, (document, begin) in enumerate(zip(documents, begins, strict=True)):
            value, power = 0, 1
            for byte in document[begin:]:
                value, power = value + (byte + 1) * power & _MAX, power * _MULTIPLIER & _MAX
            self.length[row], self.value[row], self.power[row] = len(document) - begin, value, power

    def push(self, data: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """The next byte of each document (B,), which may begin a patch (B,) -> (B,) rows; `length` is then that with
        this byte."""
        self.length, self.value, self.power, rows = _pushed_patches(
            self.length, self.value, self.power, data, begins, self._rows
        )
        return rows

    def keep(self, rows: np.ndarray) -> None:
        self.length, self.value, self.power = self.length[rows], self.value[rows], self.power[rows]


@njit(cache=True, nogil=True)
def _pushed_patches(length, value, power, data, begins, rows):  # type: ignore[no-untyped-def]
    """All (B,): length, value and power before, data and begins -> these three after, and `open_patch_rows`."""
    length, value, power, out = length + 1, value.copy(), power.copy(), np.empty_like(length)
    for b in range(len(data)):
        if begins[b]:
            length[b], value[b], power[b] = 1, np.uint64(0), _ONE
        value[b] += (np.uint64(data[b]) + _ONE) * power[b]
        power[b] *= _FACTOR
        # the shift of `open_patch_rows` is one of a signed number whose upper bits are then cut off
        mixed = value[b] ^ ((value[b] >> np.uint64(29)) & np.uint64(0x7FFFFFFFF))
        out[b] = np.int64((mixed & _LOW) % rows) + 1
    return length, value, power, out
