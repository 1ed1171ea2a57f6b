"""Self-attention of training with a gradient of its own: from the projections of all heads to the mixed values.

Legend: T positions in one flat vector, H heads, E head width, B blocks (or rows) of S positions, N = H * B.

What autograd composes for it copies keys and values to pair each block with the one before, and pads, casts and
transposes on the way. Here heads come first in memory, so blocks are plain views, and a block before is the same
view one step earlier.
"""

from __future__ import annotations

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


class BlockAttention(torch.autograd.Function):
    """Rotation and softmax attention within blocks; three fifths of the time of what autograd composes (CPU)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, turns: Turns, blocks: Blocks) -> Tensor:
        """qkv (T, 3 * H, E) -> (T, H * E)."""
        t, n, e = qkv.shape
        h, size = n // 3, blocks.bias.shape[-1]
        heads = qkv.transpose(0, 1).contiguous().view(3, h, t, e)
        turns.turn(heads[:2])
        q, k, v = heads.view(3, -1, size, e)
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
        heads = heads.view(3, h, t, e)
        back = q.new_empty(t, 3, h, e)
        back[:, :2] = ctx.turns.back(heads[:2]).permute(2, 0, 1, 3)
        back[:, 2] = heads[2].transpose(0, 1)
        return back.view(t, 3 * h, e), None, None
