"""The `token_lm` baseline: a causal transformer over token ids.

Legend: T bytes of all windows, P tokens, V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Windows, padded
from models.harness import Prediction
from models.layers import Linear, Transformer, wide
from models.plan import Sequences, TokenPlan
from models.states import Place, States

AT_ONCE = 1024
"""Tokens whose logits are in memory together in scoring, and in training with a `LARGE` vocabulary."""

LARGE = 16384
"""From so many tokens on the logits of all places at once would be the largest tensor of a training."""


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
        self.latent = Transformer(config.width, config.layers, config.heads, config.hidden)
        self.head = Linear(config.width, vocab_size)

    def plan(self, batch: Windows) -> TokenPlan:
        """Without `batch.ids`, the token of every start, there is none."""
        assert batch.ids is not None, "a model over tokens needs token ids"
        batch = batch.to("cpu")
        assert batch.ids is not None
        at = batch.starts.nonzero()[:, 0]
        counts = torch.bincount(batch.window_of()[at], minlength=len(batch.lengths))
        room = padded(len(batch.ids))
        before = batch.ids.new_zeros(room)
        before[1 : len(batch.ids)] = batch.ids[:-1]
        tokens = Sequences.of(counts, room)
        begins = tokens.segments.cu[:-1].long()
        before[begins[begins < room]] = self.vocab_size  # empty segments begin behind the last place
        return TokenPlan(len(batch.data), batch.ids, at, before, tokens)

    def forward(self, batch: Windows | TokenPlan, dtype: torch.dtype = torch.float32) -> Prediction:
        """A token's nats stand at its first byte, 0 at its others.

        A token that begins in a window belongs to it whole; bytes of a window that lie before its first token were
        predicted in the window where that token began.
        """
        plan = self._planned(batch)
        states = self._states(plan, dtype)
        # padding is predicted too: a product of a size that has not been met takes half as long again
        ids = F.pad(plan.ids, (0, len(states) - len(plan.ids)))
        if torch.is_grad_enabled() and self.vocab_size < LARGE:
            nats = F.cross_entropy(wide(self.head(states)), ids, reduction="none")
        elif torch.is_grad_enabled():
            nats = torch.ops.patchbench.chunked_nats(states, self.head.weight.to(dtype), ids)
        else:
            nats = torch.cat(
                [
                    F.cross_entropy(wide(self.head(some)), own, reduction="none")
                    for some, own in zip(states.split(AT_ONCE), ids.split(AT_ONCE), strict=True)
                ]
            )
        return Prediction(nats.new_zeros(plan.size).index_copy(0, plan.at, nats[: len(plan.ids)]))

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States:
        """The state at the first byte of a token has read the token before it."""
        plan = self._planned(batch)
        return States(batch.starts, None, self._states(plan, dtype)[: len(plan.ids)])

    def _planned(self, batch: Windows | TokenPlan) -> TokenPlan:
        return batch if isinstance(batch, TokenPlan) else self.plan(batch).to(self.token.device)

    def _states(self, plan: TokenPlan, dtype: torch.dtype) -> Tensor:
        """(P, D): position i of a window has read its tokens before i."""
        return self.latent(F.embedding(plan.previous, self.token).to(dtype), plan.tokens)


def nats_in_chunks(states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """-ln p (P,) float32 of ids (P,) under logits states (P, D) times weight (V, D), never all of them in memory.

    An operator, and not torch's `linear_cross_entropy`, of which `torch.compile` makes a graph for each P (2.13).
    """
    parts = zip(states.split(AT_ONCE), ids.split(AT_ONCE), strict=True)
    return torch.cat([F.cross_entropy(F.linear(x, weight).float(), y, reduction="none") for x, y in parts])


def gradients_in_chunks(grad: Tensor, states: Tensor, weight: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of states and weight; the logits are made again."""
    to_states, to_weight = torch.empty_like(states), torch.zeros_like(weight, dtype=torch.float32)
    for g, x, y, to_x in zip(*(t.split(AT_ONCE) for t in (grad, states, ids, to_states)), strict=True):
        slope = F.linear(x, weight).float().softmax(-1)
        slope.scatter_add_(1, y[:, None], slope.new_full((len(y), 1), -1))
        slope = slope.mul_(g[:, None]).to(weight.dtype)
        to_x.copy_(slope @ weight)
        to_weight += slope.mT @ x
    return to_states, to_weight.to(weight.dtype)


_nats = torch.library.custom_op("patchbench::chunked_nats", nats_in_chunks, mutates_args=())
_nats.register_fake(lambda states, weight, ids: ids.new_empty(ids.shape, dtype=torch.float32))
_gradients = torch.library.custom_op("patchbench::chunked_nats_backward", gradients_in_chunks, mutates_args=())
_gradients.register_fake(lambda grad, states, weight, ids: (torch.empty_like(states), torch.empty_like(weight)))
_nats.register_autograd(
    lambda ctx, grad: (*torch.ops.patchbench.chunked_nats_backward(grad, *ctx.saved_tensors), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
