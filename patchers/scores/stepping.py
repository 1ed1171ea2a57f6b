"""Steps transformer blocks one position at a time, for the streams of learned patchers.

A step costs tens of microseconds, where as many small torch operations take milliseconds.

Legend: L layers, W window, H heads, E head width, D = H * E width, T positions of a parallel pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.decoding import kernels
from models.decoding.caches import recorded
from models.layers import Block, RMSNorm

EPSILON = RMSNorm(1).eps
Array = NDArray[np.float32]


class Blocks:
    """The parameters of `models.layers.Block`s, those of all layers stacked."""

    def __init__(self, modules: nn.ModuleList, window: int) -> None:
        self.blocks = [block for block in modules if isinstance(block, Block)]
        self.window = window
        assert len(self.blocks) == len(modules) > 0, "only a Block is known here"
        self.stacked = tuple(
            np.stack([array(weight(block)) for block in self.blocks])
            for weight in (
                lambda block: block.attention_norm.weight,
                lambda block: block.attention.qkv.weight,
                lambda block: block.attention.out.weight,
                lambda block: block.mlp_norm.weight,
                lambda block: block.mlp.gate_up.weight,
                lambda block: block.mlp.down.weight,
            )
        )

    @contextmanager
    def recording(self) -> Iterator[Recorded]:
        """While a model runs over one sequence, in float32, what its blocks give of keys and values."""
        with recorded({f"{i}": block.attention.qkv for i, block in enumerate(self.blocks)}) as seen:
            yield Recorded(self, seen)


class Steps:
    """One sequence, position by position: keys and values of its last W positions, behind one another in memory."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks, self._end = blocks, 0
        self._position = 0
        heads = blocks.blocks[0].attention.heads
        width = blocks.blocks[0].attention.qkv.in_features // heads
        self._kv = np.zeros((len(blocks.blocks), 1, 2 * heads, 2 * blocks.window, width), np.float32)

    def step(self, x: Array) -> Array:
        """The blocks for the next position x (1, D) -> (1, D)."""
        kept, end = self._blocks.window - 1, self._end
        if end == self._kv.shape[3]:
            self._kv[:, :, :, :kept] = self._kv[:, :, :, end - kept : end].copy()
            end = kept
        cos, sin = turns(np.array([self._position]), self._kv.shape[4])
        row, at, low = np.array([[0], [end], [max(0, end - kept)]])
        eps = (EPSILON, EPSILON)
        out: Array = kernels.blocks(x, self._blocks.stacked, eps, cos, sin, self._kv, row, at, low)
        self._position, self._end = self._position + 1, end + 1
        return out

    def fill(self, layer: int, projected: Array) -> None:
        """Take over a layer's queries, keys and values (T, 3 D) of a parallel pass."""
        heads, width = self._kv.shape[2] // 2, self._kv.shape[4]
        self._position, self._end = len(projected), min(len(projected), self._blocks.window)
        places = np.arange(self._position - self._end, self._position)
        _, k, v = projected[places].reshape(self._end, 3, heads, width).swapaxes(0, 1)
        cos, sin = turns(places, width)
        self._kv[layer, 0, :heads, : self._end] = (k * cos + np.roll(k, width // 2, -1) * sin).swapaxes(0, 1)
        self._kv[layer, 0, heads:, : self._end] = v.swapaxes(0, 1)


def turns(positions: NDArray[np.int64], width: int) -> tuple[Array, Array]:
    """Cosines and signed sines of the rotary angles, (T, 1, E) each: reckoned in float64, since positions in a stream
    grow without end."""
    angles = positions[:, None, None] * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((cos, cos), -1).astype(np.float32), np.concatenate((-sin, sin), -1).astype(np.float32)


class Recorded:
    """What a parallel pass leaves behind."""

    def __init__(self, blocks: Blocks, seen: dict[str, tuple[object, Tensor]]) -> None:
        self._blocks, self._seen = blocks, seen

    def steps(self, size: int) -> Steps:
        """To go on after the first `size` positions of it; the others are padding."""
        steps = Steps(self._blocks)
        for layer in range(len(self._seen)):
            steps.fill(layer, self._seen[f"{layer}"][1][:size].numpy())
        return steps


def array(parameter: Tensor) -> Array:
    """A parameter as compiled code takes it."""
    plain: Array = parameter.detach().numpy()
    return np.ascontiguousarray(plain)
