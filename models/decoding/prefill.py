"""Prefill: runs the parallel forward pass over prompts and fills the caches for the steps that follow.

Legend: B rows (documents), N rows of one step, M new positions a row, T positions of all prompts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import Windows
from models.decoding.caches import GrowingCache, RotaryTable, WindowCache, recorded
from models.decoding.modules import Layer, rms
from models.layers import Block, Transformer


class LatentCache:
    """A `Transformer` that remembers its sequences and takes their next positions."""

    def __init__(self, model: Transformer, rows: int, device: torch.device) -> None:
        self._model, self._blocks = model, layers_of(model.blocks)
        width = self._blocks[0].width[0] // model.heads
        self._table = RotaryTable(width, device)
        self.cache = GrowingCache(len(self._blocks), rows, model.heads, width, device)

    def filling(self) -> _Filling:
        """A context in which the model runs over all rows' sequences, which are remembered."""
        return _Filling(self)

    def step(self, x: Tensor, rows: np.ndarray, count: int = 1) -> Tensor:
        """x (N * M, D): the next `count` positions of each of `rows` (N,) -> (N * M, D)."""
        place = self.cache.enter(rows, count)
        turn = self._table.at(place.at)
        for i, block in enumerate(self._blocks):
            x = block.step(i, x, turn, place)
        return rms(self._model.norm, x)

    def keep(self, rows: Tensor) -> None:
        self.cache.keep(rows)


class _Filling:
    def __init__(self, owner: LatentCache) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        owner = self._owner
        parts: dict[str, nn.Module] = {f"{i}": block.projection for i, block in enumerate(owner._blocks)}
        self._recording = recorded(parts | {"all": owner._model})
        self._seen = self._recording.__enter__()

    def __exit__(self, *problem: object) -> None:
        self._recording.__exit__(None, None, None)
        if problem[0] is not None:
            return
        owner, seen = self._owner, self._seen
        (_, sequences), _ = seen["all"]
        cu = sequences.segments.cu.tolist()
        heads = owner._model.heads
        for i in range(len(owner._blocks)):
            qkv = seen[f"{i}"][1]
            qkv = qkv.view(len(qkv), 3 * heads, -1)
            for row in range(len(owner.cache.counts)):
                own = qkv[cu[row] : cu[row + 1]]
                turn = owner._table.at(np.arange(len(own)))
                owner.cache.fill(i, row, turn(own[:, heads : 2 * heads]), own[:, 2 * heads :])


def layers_of(modules: nn.ModuleList) -> list[Layer]:
    blocks = [Layer(block) for block in modules if isinstance(block, Block)]
    assert len(blocks) == len(modules) > 0, "decoding knows how to advance a Block"
    return blocks


def lengthened(prompts: Sequence[bytes], starts: Sequence[np.ndarray], device: torch.device) -> Windows:
    """Prompts with a byte more each, so that there is a position that predicts it; no position reads it."""
    data = torch.frombuffer(bytearray(b"".join(p + b"\0" for p in prompts)), dtype=torch.uint8).long()
    offsets = torch.tensor([0, *(len(p) + 1 for p in prompts)]).cumsum(0)
    flags = torch.from_numpy(np.concatenate(starts))
    return Windows(data, offsets, flags, torch.zeros_like(flags)).to(device)


def fill_windows(cache: WindowCache, layer: int, qkv: Tensor, offsets: Tensor, table: RotaryTable) -> None:
    """Remember the last window of each row from a layer's projections (T or more, 3 D) of a parallel pass."""
    heads, ends, lengths = cache.heads, offsets[1:].tolist(), offsets.diff().tolist()
    common = min(max(lengths), cache.window)
    qkv = qkv.view(len(qkv), 3 * heads, -1)
    for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        size = min(length, cache.window)
        own = qkv[end - size : end]
        turn = table.at(np.arange(length - size, length))
        cache.fill(layer, row, turn(own[:, heads : 2 * heads]), own[:, 2 * heads :], common)
