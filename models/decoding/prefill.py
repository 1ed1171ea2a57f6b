"""Prefill: runs the parallel forward pass over prompts and fills the caches for the steps that follow.

Legend: B rows (documents), N rows of one step, T positions of all prompts, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import Windows
from models.decoding.caches import KVCache, RotaryTable, recorded
from models.decoding.modules import Layer, rms
from models.layers import Block, Transformer


class LatentCache:
    """A `Transformer` that remembers its sequences and takes their next positions."""

    def __init__(self, model: Transformer, rows: int, device: torch.device) -> None:
        self._model, self._blocks = model, layers_of(model.blocks)
        width = self._blocks[0].width[0] // model.heads
        self._table = RotaryTable(width, device)
        self.cache = KVCache(len(self._blocks), rows, model.heads, width, None, device)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While the model runs over all rows' sequences, which are remembered."""
        parts: dict[str, nn.Module] = {f"{i}": block.projection for i, block in enumerate(self._blocks)}
        with recorded(parts | {"all": self._model}) as seen:
            yield
        (_, sequences), _ = seen["all"]
        cu = sequences.segments.cu[: len(self.cache.end) + 1]
        for i in range(len(self._blocks)):
            self.cache.fill(i, seen[f"{i}"][1], cu, self._table)

    def step(self, x: Tensor, rows: np.ndarray) -> Tensor:
        """x (N, D): the next position of each of `rows` (N,) -> (N, D)."""
        place = self.cache.enter(rows)
        turn = self._table.at(place.at)
        for i, block in enumerate(self._blocks):
            x = block.step(i, x, turn, place)
        return rms(self._model.norm, x)

    def keep(self, rows: Tensor) -> None:
        self.cache.keep(rows)


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
