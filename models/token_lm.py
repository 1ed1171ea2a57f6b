"""The `token_lm` baseline: a causal transformer over token ids.

Legend: T bytes of all windows, P tokens, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Windows, bucket
from models.harness import Prediction
from models.layers import Linear, wide
from models.packing import PackedTransformer
from models.states import Place, States

SCORED_AT_ONCE = 1024
"""Tokens whose logits are in memory together, where no gradient is wanted."""


@dataclass(frozen=True)
class TokenLMConfig:
    """Sizes of the token transformer; its vocabulary is the tokenizer's."""

    width: int = 192
    layers: int = 5
    heads: int = 3
    token_std: float = 0.1
    hidden: int | None = field(default=None, metadata={"identity": "when set"})
    """Width inside the blocks' SwiGLU, by default that of `swiglu_hidden`."""


class TokenLM(nn.Module):
    """Transformer over tokens; input and output embeddings are separate, and symbol V is BOS."""

    state_places: ClassVar[tuple[Place, ...]] = ("patch",)

    def __init__(self, config: TokenLMConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.lookup_std = {"token": config.token_std}
        self.token = nn.Parameter(torch.empty(vocab_size + 1, config.width))
        self.latent = PackedTransformer(config.width, config.layers, config.heads, config.hidden)
        self.head = Linear(config.width, vocab_size)

    def forward(self, batch: Windows, dtype: torch.dtype = torch.float32) -> Prediction:
        """A token's nats stand at its first byte, 0 at its others; `batch.ids` has the token of every start.

        A token that begins in a window belongs to it whole; bytes of a window that lie before its first token were
        predicted in the window where that token began.
        """
        assert batch.ids is not None, "a model over tokens needs token ids"
        if len(batch.ids) == 0:  # windows in the midst of one long token
            return Prediction(self._nothing(batch, dtype))
        states = self._states(batch, batch.ids, dtype)
        # scored in float64, a batch of logits over a whole vocabulary would be the largest tensor there is
        at_once = len(states) if torch.is_grad_enabled() else SCORED_AT_ONCE
        nats = torch.cat(
            [
                F.cross_entropy(wide(self.head(some)), ids, reduction="none")
                for some, ids in zip(states.split(at_once), batch.ids.split(at_once), strict=True)
            ]
        )
        at = batch.starts.nonzero()[:, 0]
        return Prediction(nats.new_zeros(len(batch.data)).index_copy(0, at, nats))

    def _nothing(self, batch: Windows, dtype: torch.dtype) -> Tensor:
        """Zeros (T,) that depend on every weight, so that of the ranks of a training none has less to exchange."""
        start = torch.full((1,), self.vocab_size, device=batch.data.device)
        state = self.latent(F.embedding(start, self.token).to(dtype), torch.ones_like(start))
        return 0 * self.head(state).sum().float() * batch.data

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        """The state at the first byte of a token has read the token before it."""
        assert batch.ids is not None, "a model over tokens needs token ids"
        none = self.head.weight.new_zeros((0, self.config.width))
        return States(batch.starts, None, self._states(batch, batch.ids, dtype) if len(batch.ids) else none)

    def _states(self, batch: Windows, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """(P, D): position i of a window has read its tokens before i."""
        at = batch.starts.nonzero()[:, 0]
        counts = torch.bincount(batch.window_of()[at], minlength=len(batch.offsets) - 1)
        counts = counts[counts > 0]
        first = counts.cumsum(0) - counts
        before = ids.roll(1)
        before[first] = self.vocab_size
        before = F.pad(before, (0, bucket(len(before)) - len(before)))
        return self.latent(F.embedding(before, self.token).to(dtype), counts)[: len(ids)]
