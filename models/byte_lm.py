"""A byte-level transformer without patches: the `byte_lm` baseline, and the entropy model of learned patchers.

Legend: T byte positions of all windows in one flat vector, W windows, D width, V outputs a position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import BOS, Windows, bucket
from models.harness import Prediction
from models.hash_embeddings import NgramEmbedding
from models.layers import Block, Linear, LocalMask, RMSNorm, Rope, wide
from models.states import Place, States


@dataclass(frozen=True)
class ByteLMConfig:
    """Sizes of a byte transformer with sliding-window attention."""

    width: int = 192
    layers: int = 3
    heads: int = 6
    window: int = 128
    ngrams: tuple[int, ...] = ()
    ngram_rows: int = 32768
    byte_std: float = 0.5
    ngram_std: float = 0.1


class ByteLM(nn.Module):
    """Causal byte transformer: position p predicts byte p from BOS and the bytes before; what it sees ends `layers *
    window` bytes back."""

    state_places: ClassVar[tuple[Place, ...]] = ("byte",)

    def __init__(self, config: ByteLMConfig, n_out: int = 256) -> None:
        super().__init__()
        c = self.config = config
        self.lookup_std = {"byte": c.byte_std}
        self.byte = nn.Parameter(torch.empty(257, c.width))
        self.ngrams = NgramEmbedding(c.ngrams, c.ngram_rows, c.width, c.ngram_std) if c.ngrams else None
        self.blocks = nn.ModuleList(Block(c.width, c.heads) for _ in range(c.layers))
        self.norm = RMSNorm(c.width)
        self.head = Linear(c.width, n_out)

    def logits(self, data: Tensor, offsets: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """data (T,) integer bytes, offsets (W + 1,): window w is data[offsets[w]:offsets[w + 1]] -> logits (T, V) in
        `dtype`."""
        return self.head(self._states(data, offsets, dtype))[: len(data)]

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        states = self._states(batch.data, batch.offsets, dtype)[: len(batch.data)]
        return States(torch.zeros_like(batch.starts), states, None)

    def _states(self, data: Tensor, offsets: Tensor, dtype: torch.dtype) -> Tensor:
        """(T or more, D): what the head reads, with a few rows of padding at the end (`bucket`)."""
        c = self.config
        none = torch.zeros(len(data), dtype=torch.bool, device=data.device)
        batch = Windows(data.long(), offsets, none, none)
        positions = batch.positions()
        x = F.embedding(batch.previous(), self.byte).to(dtype)
        if self.ngrams is not None:
            x = x + self.ngrams(batch.data, positions, dtype)
        spare = bucket(len(x), c.window) - len(x)
        x = F.pad(x, (0, 0, 0, spare))
        rope = Rope(c.width // c.heads, F.pad(positions, (0, spare)), dtype)
        mask = LocalMask(F.pad(batch.window_of(), (0, spare), value=-1), c.window, dtype)
        for block in self.blocks:
            x = block(x, rope, mask)
        return self.norm(x)

    def forward(self, batch: Windows, dtype: torch.dtype = torch.float32) -> Prediction:
        logits = self.logits(batch.data, batch.offsets, dtype)
        return Prediction(F.cross_entropy(wide(logits), batch.data, reduction="none"))


__all__ = ["BOS", "ByteLM", "ByteLMConfig"]
