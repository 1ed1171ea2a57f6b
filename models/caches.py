"""What decoding remembers instead of computing it again: keys and values, and rotary tables.

Everything here serves B documents that are written side by side, each at a place of its own.

Legend: B rows (documents), N rows of one step, M new positions a row, L layers, H heads, E head width, S keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Block, RMSNorm, Rope

DRAFT = 64
"""How many positions may be added at once to what is remembered of a window, and taken back again."""


class RotaryTable:
    """The rotary angles of all positions so far, reckoned as `Rope` does, so that they are the training's."""

    def __init__(self, head_width: int, device: torch.device) -> None:
        self._width, self._device = head_width, device
        self._grow(1024)

    def _grow(self, size: int) -> None:
        rope = Rope(self._width, torch.arange(size, device=self._device), torch.float32)
        self._cos, self._sin, self._half = rope.cos, rope.sin, rope.half

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

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, n, E) turned by its position's angles."""
        return torch.addcmul(x * self.cos, x.roll(self.half, -1), self.sin)


class Place(Protocol):
    """Where new positions go in a cache."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Remember k and v (N, H, E) and attend from q (N, H, E) to all that a position may see -> (N, H * E)."""
        ...


def rms(norm: RMSNorm, x: Tensor) -> Tensor:
    """`RMSNorm` without what its gradient needs."""
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)


class Layer:
    """A `Block` with its weights at hand: looking them up in modules would take a third of a step's time."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.attention, block.mlp
        self.heads, self.width = attention.heads, (attention.qkv.in_features,)
        self.attention_norm, self.mlp_norm = block.attention_norm.weight, block.mlp_norm.weight
        self.attention_eps, self.mlp_eps = block.attention_norm.eps, block.mlp_norm.eps
        self.qkv, self.out = attention.qkv.weight, attention.out.weight
        self.gate_up, self.down = mlp.gate_up.weight, mlp.down.weight
        self.projection = attention.qkv

    def advance(self, layer: int, x: Tensor, turn: Turn, place: Place) -> Tensor:
        """The block for new positions x (N, D), as `Block.forward` would give them among all others."""
        h = self.heads
        normed = F.rms_norm(x, self.width, self.attention_norm, self.attention_eps)
        qkv = F.linear(normed, self.qkv).view(len(x), 3 * h, -1)
        turned = turn(qkv[:, : 2 * h])
        mixed = place.attend(layer, turned[:, :h], turned[:, h:], qkv[:, 2 * h :])
        x = x + F.linear(mixed, self.out)
        normed = F.rms_norm(x, self.width, self.mlp_norm, self.mlp_eps)
        gate, up = F.linear(normed, self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class WindowCache:
    """Keys and values of the last `window` positions of local layers.

    A window is a stretch of memory that the newest positions are written behind; what it still needs is moved to the
    front when the memory is full, once in a window, so a step costs the same wherever it is, and neighbours in time
    stay neighbours in memory.
    """

    def __init__(self, layers: int, rows: int, heads: int, width: int, window: int, device: torch.device) -> None:
        self.window, self.heads = window, heads
        self.kv = torch.zeros(layers, rows, 2 * heads, 2 * window + DRAFT, width, device=device)
        self.end = 0
        self.begin = np.zeros(rows, np.int64)

    def fill(self, layer: int, row: int, k: Tensor, v: Tensor, end: int) -> None:
        """Positions that a parallel pass has computed, k and v (S, H, E), the newest of them at `end` - 1."""
        self.end = end
        self.begin[row] = end - len(k)
        self.kv[layer, row, : self.heads, end - len(k) : end] = k.transpose(0, 1)
        self.kv[layer, row, self.heads :, end - len(v) : end] = v.transpose(0, 1)

    def enter(self, count: int = 1) -> WindowPlace:
        """Room for `count` new positions in every row."""
        self.reserve(count)
        self.end += count
        return self.place(self.end - count, count)

    def reserve(self, count: int) -> None:
        """Make sure that the next `count` positions move nothing."""
        assert count <= DRAFT
        if self.end + count > self.kv.shape[3]:
            kept = self.window - 1
            shift = self.end - kept
            self.kv[:, :, :, :kept] = self.kv[:, :, :, shift : self.end].clone()
            self.begin = np.maximum(self.begin - shift, 0)
            self.end = kept

    def place(self, at: int, count: int) -> WindowPlace:
        """The positions from `at` on, which may have been entered before."""
        low = max(0, at - self.window + 1, int(self.begin.min()))
        bias = None
        if count > 1 or int(self.begin.max()) > low:
            query, key = np.arange(at, at + count)[:, None], np.arange(low, at + count)
            seen = (key <= query) & (key > query - self.window) & (key >= self.begin[:, None, None])
            bias = torch.zeros(seen.shape).masked_fill_(torch.from_numpy(~seen), -torch.inf)[:, None]
            bias = bias.to(self.kv.device)
        return WindowPlace(self.kv[:, :, :, low : at + count], self.heads, count, bias)

    def keep(self, rows: Tensor) -> None:
        self.kv = self.kv.index_select(1, rows)
        self.begin = self.begin[rows.cpu().numpy()]


@dataclass(frozen=True)
class WindowPlace:
    kv: Tensor
    """(L, B, 2 H, S, E): all that new positions may see, they themselves the last M."""

    heads: int
    count: int
    bias: Tensor | None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kv, h, m = self.kv[layer], self.heads, self.count
        b = len(kv)
        new = kv[:, :, -m:]
        new[:, :h] = k.view(b, m, h, -1).transpose(1, 2)
        new[:, h:] = v.view(b, m, h, -1).transpose(1, 2)
        return _mix(q.view(b, m, h, -1), kv, self.bias)


class GrowingCache:
    """Keys and values of all positions of layers with full attention; rows grow one by one."""

    def __init__(self, layers: int, rows: int, heads: int, width: int, device: torch.device) -> None:
        self.heads = heads
        self.kv = torch.zeros(layers, rows, 2 * heads, 64, width, device=device)
        self.counts = np.zeros(rows, np.int64)

    def fill(self, layer: int, row: int, k: Tensor, v: Tensor) -> None:
        """All positions so far of a row, from a parallel pass: k and v (S, H, E)."""
        self._reserve(len(k))
        self.counts[row] = len(k)
        self.kv[layer, row, : self.heads, : len(k)] = k.transpose(0, 1)
        self.kv[layer, row, self.heads :, : len(v)] = v.transpose(0, 1)

    def _reserve(self, size: int) -> None:
        have = self.kv.shape[3]
        if size > have:
            self.kv = F.pad(self.kv, (0, 0, 0, max(size, 2 * have) - have))

    def enter(self, rows: np.ndarray, count: int = 1) -> GrowingPlace:
        """Room for `count` new positions in each of N rows (for one in each where rows differ in length)."""
        at = self.counts[rows].copy()
        longest = int(at.max()) + count
        self._reserve(longest)
        self.counts[rows] += count
        device = self.kv.device
        level = int(at.min()) + count == longest
        if level and len(rows) == len(self.counts):
            bias = None
            if count > 1:
                seen = torch.ones(count, longest, dtype=torch.bool).tril(longest - count)
                bias = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf).to(device)[None, None]
            return GrowingPlace(self, None, at, longest, count, bias)
        assert count == 1, "rows of different lengths grow one by one"
        bias = None
        if not level:
            unseen = torch.from_numpy(np.arange(longest) > at[:, None])
            bias = torch.zeros(unseen.shape).masked_fill_(unseen, -torch.inf)[:, None, None].to(device)
        return GrowingPlace(self, torch.from_numpy(rows).to(device), at, longest, count, bias)

    def keep(self, rows: Tensor) -> None:
        self.kv = self.kv.index_select(1, rows)
        self.counts = self.counts[rows.cpu().numpy()]


@dataclass(frozen=True)
class GrowingPlace:
    cache: GrowingCache
    rows: Tensor | None
    """Which rows grow; None for all of them, all of one length."""

    at: np.ndarray
    """(N,): the first new position of each."""

    longest: int
    count: int
    bias: Tensor | None

    @property
    def positions(self) -> np.ndarray:
        """(N * M,)."""
        return (self.at[:, None] + np.arange(self.count)).ravel()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kv, h, m = self.cache.kv[layer], self.cache.heads, self.count
        seen = kv[:, :, : self.longest]
        if self.rows is None:
            new = seen[:, :, -m:]
            new[:, :h] = k.view(len(kv), m, h, -1).transpose(1, 2)
            new[:, h:] = v.view(len(kv), m, h, -1).transpose(1, 2)
        else:
            at = torch.from_numpy(self.at).to(kv.device)
            kv[:, :h][self.rows, :, at] = k
            kv[:, h:][self.rows, :, at] = v
            if len(self.rows) < len(kv):
                seen = seen.index_select(0, self.rows)
        return _mix(q.view(len(seen), m, h, -1), seen, self.bias)


def _mix(q: Tensor, kv: Tensor, bias: Tensor | None) -> Tensor:
    """q (N, M, H, E) over kv (N, 2 H, S, E) under bias (N or 1, 1, M, S) -> (N * M, H * E)."""
    n, m, h, e = q.shape
    out = F.scaled_dot_product_attention(q.transpose(1, 2), kv[:, :h], kv[:, h:], attn_mask=bias)
    return out.transpose(1, 2).reshape(n * m, h * e)


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
