"""Self-attention with a hand-written gradient for training on CPU: from projections of all heads to mixed values.

Legend: T positions in one flat vector, H heads, E head width, B blocks (or rows) of S positions, N = H * B.

What autograd composes for it copies keys and values to pair each block with the one before, and pads, casts and
transposes on the way. Here heads come first in memory, so blocks are plain views, and a block before is the same
view one step earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SHORT = 64
"""A softmax over fewer scores than this is two to three times faster in float32 than in bfloat16 (CPU)."""

UNSEEN = -1e30
"""Added to the score of a key that is not seen; finite, so that it may be multiplied by zero."""


@dataclass(frozen=True)
class Turns:
    """Rotary tables for queries and keys, heads first; those of queries carry the scale of scores."""

    cos: Tensor
    """(2, 1, T, E)."""

    sin: Tensor
    half: int

    def turn(self, x: Tensor) -> None:
        """x (2, H, T, E), queries and keys, in place."""
        rolled = x.roll(self.half, -1)
        x.mul_(self.cos).addcmul_(rolled, self.sin)

    def back(self, grad: Tensor) -> Tensor:
        """The gradient of `turn`."""
        return (grad * self.sin).roll(self.half, -1).addcmul_(grad, self.cos)


@dataclass(frozen=True)
class Blocks:
    """Which keys a block of S positions sees, one score a slot.

    With `own` (S, S) slot j of query i is key j of the block itself where `own` is 1 and key j of the block before
    where it is 0: a window of S keys has one key for each slot, so no score is computed only to be masked by it.
    Without `own` there is no block before.
    """

    bias: Tensor
    """(B, S, S): 0 where the key in a slot is seen, `UNSEEN` elsewhere."""

    own: Tensor | None


def _turned_heads(qkv: Tensor, turns: Turns) -> Tensor:
    """qkv (T, 3 * H, E) -> (3, H, T, E), queries and keys turned."""
    t, n, e = qkv.shape
    heads = qkv.transpose(0, 1).contiguous().view(3, n // 3, t, e)
    turns.turn(heads[:2])
    return heads


def _turned_back(heads: Tensor, turns: Turns) -> Tensor:
    """The gradient of `_turned_heads`: (3, H, T, E) -> (T, 3 * H, E)."""
    _, h, t, e = heads.shape
    back = heads.new_empty(t, 3, h, e)
    back[:, :2] = turns.back(heads[:2]).permute(2, 0, 1, 3)
    back[:, 2] = heads[2].transpose(0, 1)
    return back.view(t, 3 * h, e)


class BlockAttention(torch.autograd.Function):
    """Rotation and softmax attention within blocks; three fifths of the time of what autograd composes (CPU)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, turns: Turns, blocks: Blocks) -> Tensor:
        """qkv (T, 3 * H, E) -> (T, H * E)."""
        t, n, e = qkv.shape
        h, size = n // 3, blocks.bias.shape[-1]
        q, k, v = _turned_heads(qkv, turns).view(3, -1, size, e)
        score = torch.bmm(q, k.mT)
        own = blocks.own
        if own is not None:
            score.mul_(own)[1:].addcmul_(torch.bmm(q[1:], k[:-1].mT), 1 - own)
        score.view(h, -1, size, size).add_(blocks.bias)
        if size < SHORT:
            score = score.to(torch.promote_types(score.dtype, torch.float32))
        weight = torch.softmax(score, -1).to(q.dtype)
        if own is None:
            out = torch.bmm(weight, v)
            weights = [weight]
        else:
            weights = [weight * own, weight[1:] * (1 - own)]
            out = torch.bmm(weights[0], v)
            out[1:].baddbmm_(weights[1], v[:-1])
        ctx.save_for_backward(q, k, v, out, *weights)
        ctx.turns, ctx.heads = turns, h
        return out.view(h, t, e).transpose(0, 1).reshape(t, h * e)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, out, *weights = ctx.saved_tensors
        h, e = ctx.heads, q.shape[-1]
        t = len(grads[0])
        grad = grads[0].view(t, h, e).transpose(0, 1).reshape(q.shape)
        along = torch.linalg.vecdot(grad, out).neg_().unsqueeze(-1)
        heads = q.new_empty(3, *q.shape)
        # the score's gradient is weight * (grad . v - grad . out): no pass over scores for the softmax's sums
        slope = torch.baddbmm(along, grad, v.mT).mul_(weights[0])
        torch.bmm(slope, k, out=heads[0])
        torch.bmm(slope.mT, q, out=heads[1])
        torch.bmm(weights[0].mT, grad, out=heads[2])
        if len(weights) > 1:
            slope = torch.baddbmm(along[1:], grad[1:], v[:-1].mT).mul_(weights[1])
            heads[0, 1:].baddbmm_(slope, k[:-1])
            heads[1, :-1].baddbmm_(slope.mT, q[1:])
            heads[2, :-1].baddbmm_(weights[1].mT, grad[1:])
        return _turned_back(heads.view(3, h, t, e), ctx.turns), None, None


SPAN = 4000
"""What a sequence costs beside its scores when each is attended to alone, in scores (CPU, forward and backward)."""


class SpanAttention(torch.autograd.Function):
    """Full causal attention within each of some spans of the positions, span by span: no score between two sequences
    that share a row is computed only to be masked. Places outside of all spans come out as zero."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, turns: Turns, spans: Sequence[tuple[int, int]]) -> Tensor:
        """qkv (T, 3 * H, E) -> (T, H * E); spans [a, b) that do not overlap."""
        q, k, v = _turned_heads(qkv, turns)
        h, t, e = q.shape
        longest = max(b - a for a, b in spans)
        causal = torch.full((longest, longest), UNSEEN, dtype=qkv.dtype, device=qkv.device).triu_(1)
        out = torch.zeros_like(q)
        weights = []
        for a, b in spans:
            score = torch.bmm(q[:, a:b], k[:, a:b].mT).add_(causal[: b - a, : b - a])
            if b - a < SHORT:
                score = score.to(torch.promote_types(score.dtype, torch.float32))
            weights.append(torch.softmax(score, -1).to(q.dtype))
            out[:, a:b] = torch.bmm(weights[-1], v[:, a:b])
        ctx.save_for_backward(q, k, v, out, *weights)
        ctx.turns, ctx.spans = turns, spans
        return out.transpose(0, 1).reshape(t, h * e)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, out, *weights = ctx.saved_tensors
        h, t, e = q.shape
        grad = grads[0].view(t, h, e).transpose(0, 1).contiguous()
        along = torch.linalg.vecdot(grad, out).neg_().unsqueeze(-1)
        heads = q.new_zeros(3, h, t, e)
        for (a, b), weight in zip(ctx.spans, weights, strict=True):
            own = grad[:, a:b]
            slope = torch.baddbmm(along[:, a:b], own, v[:, a:b].mT).mul_(weight)
            heads[0, :, a:b] = torch.bmm(slope, k[:, a:b])
            heads[1, :, a:b] = torch.bmm(slope.mT, q[:, a:b])
            heads[2, :, a:b] = torch.bmm(weight.mT, own)
        return _turned_back(heads, ctx.turns), None, None
