"""KV caches and rotary tables for incremental decoding.

Everything here serves B documents that are written side by side, each at a place of its own.

Legend: B rows (documents), N new positions, L layers, H heads, E head width, S keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Rope

SPARE = 64
"""Positions that there is room for beside a window's, or at first."""


class RotaryTable:
    """The rotary angles of all positions so far, reckoned as `Rope` does, so that they are the training's."""

    def __init__(self, head_width: int, device: torch.device) -> None:
        self._width, self._device = head_width, device
        self._grow(1024)

    def _grow(self, size: int) -> None:
        rope = Rope(self._width, torch.arange(size, device=self._device), torch.float32)
        self._cos, self._sin, self._half = rope.cos[:, None], rope.sin[:, None], rope.half

    def at(self, positions: np.ndarray) -> Turn:
        """The turn of each of N positions."""
        last = int(positions.max())
        if last >= len(self._cos):
            self._grow(2 * last)
        if len(positions) == 1:
            return Turn(self._cos[last : last + 1], self._sin[last : last + 1], self._half)
        index = torch.from_numpy(positions).to(self._device)
        return Turn(self._cos[index], self._sin[index], self._half)


@dataclass(frozen=True)
class Turn:
    cos: Tensor
    sin: Tensor
    half: int

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self.cos.numpy(), self.sin.numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, n, E) turned by its position's angles."""
        return torch.addcmul(x * self.cos, x.roll(self.half, -1), self.sin)


class Place(Protocol):
    """Where new positions go in a cache."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Remember k and v (N, H, E) and attend from q (N, H, E) to all that a position may see -> (N, H * E)."""
        ...


@dataclass(frozen=True)
class CachePlace:
    """Where new positions go in a cache; each sees the keys of its row from `low` up to itself."""

    kv: Tensor
    """(L, B, 2 H, S, E)."""

    row: np.ndarray
    """(N,), as are the next two."""

    at: np.ndarray
    low: np.ndarray

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.kv.numpy(), self.row, self.at, self.low

    @cached_property
    def _index(self) -> tuple[Tensor, Tensor]:
        row, at = (torch.from_numpy(index).to(self.kv.device) for index in (self.row, self.at))
        return row, at

    @cached_property
    def _span(self) -> slice:
        """From the first key that any position sees to the last."""
        return slice(int(self.low.min()), int(self.at.max()) + 1)

    @cached_property
    def _bias(self) -> Tensor | None:
        """(N, 1, 1, S) over the keys of the span; None where every position sees all of them."""
        key = np.arange(self._span.start, self._span.stop)
        unseen = (key < self.low[:, None]) | (key > self.at[:, None])
        if not unseen.any():
            return None
        bias = torch.zeros(unseen.shape).masked_fill_(torch.from_numpy(unseen), -torch.inf)
        return bias[:, None, None].to(self.kv.device)

    @cached_property
    def _everywhere(self) -> bool:
        """Whether there is one new position in every row."""
        return np.array_equal(self.row, np.arange(self.kv.shape[1]))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kv, h = self.kv[layer], q.shape[1]
        row, at = self._index
        kv[row, :h, at], kv[row, h:, at] = k, v
        seen = kv[:, :, self._span]
        if not self._everywhere:
            seen = seen.index_select(0, row)
        return F.scaled_dot_product_attention(q[:, :, None], seen[:, :h], seen[:, h:], attn_mask=self._bias).flatten(1)


class KVCache:
    """Keys and values of the last `window` positions of layers, or of all (None), for rows written side by side.

    A window is a stretch of memory that the newest positions are written behind; what it still needs is moved to the
    front when the memory is full, once in a window, so a step costs the same wherever it is, and neighbours in time
    stay neighbours in memory. Rows of windows end at the same place, and grow together.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, width: int, window: int | None, device: torch.device
    ) -> None:
        self.heads, self.window = heads, window
        room = SPARE if window is None else 2 * window + SPARE
        self.kv = torch.zeros(layers, rows, 2 * heads, room, width, device=device)
        self.begin, self.end = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        """(B,): the places from the first that is remembered up to the next new one."""

    def fill(self, layer: int, qkv: Tensor, offsets: Tensor, table: RotaryTable) -> None:
        """Remember all rows' positions from a layer's projections (T or more, 3 H E) of a parallel pass.

        Row b has those from `offsets[b]` to `offsets[b + 1]`.
        """
        h, ends, lengths = self.heads, offsets[1:].tolist(), offsets.diff().tolist()
        qkv = qkv.view(len(qkv), 3 * h, -1)
        together = None if self.window is None else min(max(lengths), self.window)
        self._reserve(together or max(lengths))
        for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            size = length if self.window is None else min(length, self.window)
            last = together or size
            own = qkv[end - size : end]
            turn = table.at(np.arange(length - size, length))
            self.kv[layer, row, :h, last - size : last] = turn(own[:, h : 2 * h]).transpose(0, 1)
            self.kv[layer, row, h:, last - size : last] = own[:, 2 * h :].transpose(0, 1)
            self.begin[row], self.end[row] = last - size, last

    def _reserve(self, size: int) -> None:
        have = self.kv.shape[3]
        if size <= have:
            return
        if self.window is None:
            self.kv = F.pad(self.kv, (0, 0, 0, max(size, 2 * have) - have))
            return
        kept, end = self.window - 1, int(self.end[0])
        self.kv[:, :, :, :kept] = self.kv[:, :, :, end - kept : end].clone()
        self.begin = np.maximum(self.begin - (end - kept), 0)
        self.end[:] = kept

    def enter(self, rows: np.ndarray) -> CachePlace:
        """Room for a new position in each of N rows."""
        self._reserve(int(self.end[rows].max()) + 1)
        at, low = self.end[rows], self.begin[rows]
        self.end[rows] += 1
        return CachePlace(self.kv, rows, at, low if self.window is None else np.maximum(at - self.window + 1, low))

    def keep(self, rows: Tensor) -> None:
        host = rows.cpu().numpy()
        self.kv, self.begin, self.end = self.kv.index_select(1, rows), self.begin[host], self.end[host]


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """While a model runs as it always does, what goes into some of its parts and what comes out: (arguments, result).

    So prefill is the very forward pass that training and scoring use, and its keys and values are read from it.
    """
    seen: dict[str, tuple[Any, Any]] = {}

    def listener(name: str) -> Any:
        def listen(_module: nn.Module, arguments: Any, result: Any) -> None:
            seen[name] = arguments, result

        return listen

    handles = [module.register_forward_hook(listener(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
