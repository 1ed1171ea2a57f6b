"""Hashes of what documents end on, kept up to date byte by byte: the last bytes' grams, and the open patch.

Legend: B rows (documents), G gram sizes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.ngrams import _MASK, _MULTIPLIER, NgramEmbedding

_MAX = (1 << 64) - 1


class Grams:
    """`NgramEmbedding` for the newest position of B documents, from the last bytes of each."""

    def __init__(self, module: NgramEmbedding, documents: Sequence[bytes]) -> None:
        self._table = module.table
        self._rows, self._sizes = np.uint64(module.rows), np.array(module.sizes)
        reach = module.sizes[-1]
        powers = [pow(_MULTIPLIER, back, _MASK + 1) for back in range(reach)]
        self._powers = np.array(powers, np.uint64)
        self._first = np.arange(len(self._sizes), dtype=np.int64) * module.rows
        self.recent = np.zeros((len(documents), reach), np.uint64)
        for row, document in enumerate(documents):
            tail = document[-reach:][::-1]
            self.recent[row, : len(tail)] = np.frombuffer(tail, np.uint8)

    def push(self, data: np.ndarray, positions: np.ndarray) -> Tensor:
        """The next byte of each document (B,), the position that holds it (B,) -> (B, D)."""
        self.recent = np.concatenate((data.astype(np.uint64)[:, None], self.recent[:, :-1]), 1)
        values = ((self.recent + np.uint64(1)) * self._powers).cumsum(1, dtype=np.uint64)[:, self._sizes - 1]
        rows = ((values & np.uint64(_MASK)) % self._rows).astype(np.int64) + self._first
        fits = positions[:, None] >= self._sizes
        padding = len(self._sizes) * int(self._rows)
        index = torch.from_numpy(np.where(fits, rows, padding)).to(self._table.device)
        return F.embedding_bag(index, self._table, mode="sum", padding_idx=padding)

    def keep(self, rows: np.ndarray) -> None:
        self.recent = self.recent[rows]


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
        """The next byte of each document (B,), which may begin a patch (B,) -> (B, 2) int64: lengths and rows."""
        power = np.where(begins, np.uint64(1), self.power)
        self.length = np.where(begins, 1, self.length + 1)
        self.value = np.where(begins, np.uint64(0), self.value) + (data.astype(np.uint64) + np.uint64(1)) * power
        self.power = power * np.uint64(_MULTIPLIER)
        # the shift of `open_patch_rows` is one of a signed number whose upper bits are then cut off
        mixed = self.value ^ ((self.value >> np.uint64(29)) & np.uint64(0x7FFFFFFFF))
        rows = ((mixed & np.uint64(_MASK)) % self._rows).astype(np.int64) + 1
        return np.stack((self.length, rows), 1)

    def keep(self, rows: np.ndarray) -> None:
        self.length, self.value, self.power = self.length[rows], self.value[rows], self.power[rows]
