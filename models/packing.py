"""A transformer over flat sequences of different lengths, packed with little or no padding.

Legend: P positions (patches or tokens) of all sequences in one flat vector, D width, R rows, C row length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.attention import SPAN
from models.layers import Block, RMSNorm, Rope, RowMask, SpanMask


@dataclass(frozen=True)
class Rows:
    """Where each flat position lies in (R, C) rows that hold several sequences each."""

    source: Tensor
    """(R * C,): flat position at each place of a row; 0 at padding, which nothing reads."""

    place: Tensor
    """(P,): place of each flat position, row by row; 0 for those beyond the last sequence."""

    sequence: Tensor
    """(R, C): sequence id, -1 at padding."""
    position: Tensor
    """(R * C,): place in its own sequence, for rotary positions."""

    @property
    def waste(self) -> float:
        """Share of places that are padding."""
        return float((self.sequence < 0).float().mean())


def pack(lengths: np.ndarray, device: torch.device, room: int | None = None) -> Rows:
    """Lay sequences of `lengths` (W,) into rows: longest first, each into the fullest row that still takes it.

    The row length is the one, out of a few at least as long as the longest sequence, that wastes least; longer rows
    cost more attention, so they are tried only up to twice the longest.
    """
    longest = int(lengths.max())
    step = 64 if longest > 64 else 8  # few row lengths, for the reason that `bucket` gives
    best: tuple[int, int, np.ndarray] | None = None
    for capacity in dict.fromkeys(int(-(-longest * f // step) * step) for f in (1, 1.25, 1.5, 1.75, 2)):
        begin, rows = _fill(lengths, capacity)
        if best is None or rows * capacity < best[0] * best[1]:
            best = rows, capacity, begin
        if rows * capacity <= 1.06 * lengths.sum():
            break
    assert best is not None
    rows, capacity, begin = best
    sequence = np.full(rows * capacity, -1, np.int64)
    ids = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(ids)) - np.repeat(lengths.cumsum() - lengths, lengths)
    own = np.repeat(begin, lengths) + position
    sequence[own] = ids
    source = np.zeros(rows * capacity, np.int64)
    source[own] = np.arange(len(ids))
    at = np.zeros(rows * capacity, np.int64)
    at[own] = position
    place = np.zeros(room or len(ids), np.int64)
    place[: len(own)] = own
    as_tensor = [torch.from_numpy(a).to(device) for a in (source, place, sequence.reshape(rows, capacity), at)]
    return Rows(*as_tensor)


def _fill(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing: first place (W,) of each sequence and the number of rows."""
    begin = np.zeros(len(lengths), np.int64)
    free = np.empty(len(lengths), np.int64)
    rows = 0
    for w in np.argsort(-lengths, kind="stable"):
        fits = np.flatnonzero(free[:rows] >= lengths[w])
        if len(fits):
            row = fits[free[fits].argmin()]
        else:
            row, rows = rows, rows + 1
            free[row] = capacity
        begin[w] = row * capacity + capacity - free[row]
        free[row] -= lengths[w]
    return begin, rows


def spans_of(lengths: np.ndarray) -> list[tuple[int, int]] | None:
    """Flat positions [a, b) of each sequence, where attending to one after the other is less work than to rows of
    several; None where sequences are many and short, or all of a length, which rows hold without padding."""
    held = lengths > 0
    if int((lengths[held] ** 2 + SPAN).sum()) >= int(lengths.sum()) * int(lengths.max()):
        return None
    ends = lengths.cumsum()
    return [(int(end - n), int(end)) for n, end in zip(lengths, ends, strict=True) if n]


class PackedTransformer(nn.Module):
    """Causal transformer over each of many flat sequences (blocks of `models.layers`), ending in a norm."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (P, D), lengths (W,) summing to P -> (P, D): position i of a sequence has seen positions 0..i of it.

        Positions beyond the last sequence, where lengths sum to less than P, come back with values that mean nothing.
        """
        counts = lengths.cpu().numpy()
        alone = torch.is_grad_enabled() and not x.is_cuda and not torch.compiler.is_compiling()
        spans = spans_of(counts) if alone else None
        if spans is not None:
            return self.norm(self._through(x, _places(counts, x), SpanMask(spans)))
        rows = pack(counts, x.device, len(x))
        h = self._through(x.index_select(0, rows.source), rows.position, RowMask(rows.sequence, x.dtype))
        return self.norm(h.index_select(0, rows.place))

    def _through(self, h: Tensor, position: Tensor, mask: RowMask | SpanMask) -> Tensor:
        rope = Rope(h.shape[-1] // self.heads, position, h.dtype)
        for block in self.blocks:
            h = block(h, rope, mask)
        return h


def _places(lengths: np.ndarray, x: Tensor) -> Tensor:
    """(P,): the place of each flat position in its sequence, 0 beyond the last."""
    place = np.zeros(len(x), np.int64)
    total = int(lengths.sum())
    place[:total] = np.arange(total) - np.repeat(lengths.cumsum() - lengths, lengths)
    return torch.from_numpy(place).to(x.device)
