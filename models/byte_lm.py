"""A byte-level transformer without patches: the `byte_lm` baseline, and the entropy model of learned patchers.

Legend: n bytes of all windows in one flat vector, T these and some of padding, W windows, D width, V outputs a
position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import BOS, Windows
from models.harness import Prediction
from models.hash_embeddings import NgramEmbedding
from models.layers import Block, Linear, RMSNorm, Rope, wide
from models.plan import BytePlan, byte_plan
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

    def plan(self, batch: Windows) -> BytePlan:
        return BytePlan(**byte_plan(batch.to("cpu"), self.ngrams))

    def logits(self, data: Tensor, offsets: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """data (n,) integer bytes, offsets (W + 1,): window w is data[offsets[w]:offsets[w + 1]] -> logits (n, V) in
        `dtype`."""
        none = torch.zeros(len(data), dtype=torch.bool)
        return self.head(self._states(Windows(data, offsets, none, none), dtype)[0])[: len(data)]

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        states, plan = self._states(batch, dtype)
        return States(torch.zeros_like(batch.starts), states[: len(plan.data)], None)

    def _states(self, batch: Windows | BytePlan, dtype: torch.dtype) -> tuple[Tensor, BytePlan]:
        """(T, D): what the head reads, with padding: products of a size that has been met are faster."""
        plan = batch if isinstance(batch, BytePlan) else self.plan(batch).to(self.byte.device)
        c = self.config
        x = F.embedding(plan.previous, self.byte).to(dtype)
        if self.ngrams is not None and plan.grams is not None:
            x = x + self.ngrams(plan.grams, dtype)
        rope = Rope(c.width // c.heads, plan.windows.position, dtype)
        for block in self.blocks:
            x = block(x, rope, plan.windows.segments, (c.window - 1, 0))
        return self.norm(x), plan

    def forward(self, batch: Windows | BytePlan, dtype: torch.dtype = torch.float32) -> Prediction:
        states, plan = self._states(batch, dtype)
        data = F.pad(plan.data, (0, len(states) - len(plan.data)))
        return Prediction(F.cross_entropy(wide(self.head(states)), data, reduction="none")[: len(plan.data)])


__all__ = ["BOS", "ByteLM", "ByteLMConfig"]
