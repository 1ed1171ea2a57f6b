"""Steps transformer blocks one position at a time, compiled, for the streams of learned patchers.

A step costs tens of microseconds, where as many small torch operations take milliseconds.

Legend: L layers, W window, H heads, E head width, D = H * E width, T positions of a parallel pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from models.decoding.caches import recorded
from models.layers import Block, RMSNorm

EPSILON = RMSNorm(1).eps
Array = NDArray[np.float32]
Ring = tuple[Array, Array]
"""Keys and values (L, W, H, E) of the last W positions; position p is in slot p modulo W."""


class Blocks:
    """The parameters of `models.layers.Block`s as `advance` takes them, those of all layers stacked."""

    def __init__(self, modules: nn.ModuleList, window: int) -> None:
        self._blocks = [block for block in modules if isinstance(block, Block)]
        self._window = window
        assert len(self._blocks) == len(modules) > 0, "only a Block is known here"
        self.stacked = tuple(
            np.stack([array(weight(block)) for block in self._blocks])
            for weight in (
                lambda block: block.attention_norm.weight,
                lambda block: block.attention.qkv.weight,
                lambda block: block.attention.out.weight,
                lambda block: block.mlp_norm.weight,
                lambda block: block.mlp.gate_up.weight,
                lambda block: block.mlp.down.weight,
            )
        )

    def ring(self) -> Ring:
        """An empty one."""
        heads = self._blocks[0].attention.heads
        width = self._blocks[0].attention.qkv.in_features // heads
        keys, values = (np.zeros((len(self._blocks), self._window, heads, width), np.float32) for _ in range(2))
        return keys, values

    @contextmanager
    def recording(self) -> Iterator[Recorded]:
        """While a model runs over one sequence, in float32, what its blocks give of keys and values."""
        with recorded({f"{i}": block.attention.qkv for i, block in enumerate(self._blocks)}) as seen:
            yield Recorded(self, seen)

    def filled(self, projections: list[Array]) -> Ring:
        """The ring after a sequence whose positions have these projections (T, 3 D), one a layer."""
        keys, values = self.ring()
        _, window, heads, width = keys.shape
        places = np.arange(max(0, len(projections[0]) - window), len(projections[0]))
        angles = places[:, None] * 10_000.0 ** (-np.arange(width // 2) / (width // 2))
        cos, sin = (turn(angles)[:, None].astype(np.float32) for turn in (np.cos, np.sin))
        for layer, projected in enumerate(projections):
            _, k, v = projected[places].reshape(len(places), 3, heads, width).swapaxes(0, 1)
            a, b = np.split(k, 2, -1)
            keys[layer, places % window] = np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)
            values[layer, places % window] = v
        return keys, values


class Recorded:
    """What a parallel pass leaves behind."""

    def __init__(self, blocks: Blocks, seen: dict[str, tuple[object, Tensor]]) -> None:
        self._blocks, self._seen = blocks, seen

    def of(self, size: int) -> Ring:
        """The ring after the first `size` positions of it; the others are padding."""
        return self._blocks.filled([self._seen[f"{i}"][1][:size].numpy() for i in range(len(self._seen))])


def array(parameter: Tensor) -> Array:
    """A parameter as an array, matrices turned to (inputs, outputs)."""
    plain: Array = parameter.detach().numpy()
    return np.ascontiguousarray(plain.T)


@njit(cache=True, nogil=True)
def advance(x, position, stacked, keys, values):  # type: ignore[no-untyped-def]
    """The blocks for one position x (D,), whose keys and values are written into the ring -> (D,).

    Angles are reckoned in float64, since positions in a stream grow without end.
    """
    norm1, qkv, out, norm2, up, down = stacked
    layers, window, heads, width = keys.shape
    half = width // 2
    x = x.copy()
    slot, count = position % window, min(position + 1, window)
    for layer in range(layers):
        all_three = product(normed(x, norm1[layer]), qkv[layer]).reshape(3, heads, width)
        q = np.empty((heads, width), dtype=np.float32)
        for i in range(half):
            angle = position * 10_000.0 ** (-i / half)
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            for h in range(heads):
                for which, turned in ((0, q), (1, keys[layer, slot])):
                    a, b = all_three[which, h, i], all_three[which, h, i + half]
                    turned[h, i] = a * cos - b * sin
                    turned[h, i + half] = b * cos + a * sin
        values[layer, slot] = all_three[2]
        mixed = np.zeros((heads, width), dtype=np.float32)
        for h in range(heads):
            weights = np.empty(count, dtype=np.float32)
            for j in range(count):
                total = np.float32(0.0)
                for i in range(width):
                    total += keys[layer, j, h, i] * q[h, i]
                weights[j] = total / np.float32(np.sqrt(width))
            weights = np.exp(weights - weights.max())
            weights /= weights.sum()
            for j in range(count):
                for i in range(width):
                    mixed[h, i] += weights[j] * values[layer, j, h, i]
        x += product(mixed.reshape(heads * width), out[layer])
        both = product(normed(x, norm2[layer]), up[layer])
        gate, rest = both[: len(both) // 2], both[len(both) // 2 :]
        x += product((gate / (np.float32(1.0) + np.exp(-gate)) * rest).astype(np.float32), down[layer])
    return x


@njit(cache=True, nogil=True)
def product(x, matrix):  # type: ignore[no-untyped-def]
    """x (n,) times matrix (n, m), row by row, so that the inner loop is one of whole vectors."""
    out = np.zeros(matrix.shape[1], dtype=np.float32)
    for i in range(len(x)):
        for j in range(len(out)):
            out[j] += x[i] * matrix[i, j]
    return out


@njit(cache=True, nogil=True)
def normed(x, weight):  # type: ignore[no-untyped-def]
    """`RMSNorm`."""
    total = np.float32(0.0)
    for value in x:
        total += value * value
    return (x * np.float32(1.0 / np.sqrt(total / len(x) + EPSILON)) * weight).astype(np.float32)
