"""Pooling of bytes into patches and reading of patches by bytes: segment softmax and gather, O(T), no (P, T) mask.

Legend: T byte positions, P patches, D local width, K slots a patch, H heads, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Linear, RMSNorm


def segment_sum(x: Tensor, member: Tensor, count: int) -> Tensor:
    """x (T, D), member (T,) in 0..count, where `count` is dropped -> (count, D)."""
    return x.new_zeros(count + 1, *x.shape[1:]).index_add(0, member, x)[:count]


def segment_max(x: Tensor, member: Tensor, count: int) -> Tensor:
    """Per-segment maximum of x (T, D) -> (count, D).

    Zeros for a segment without members.
    """
    index = member[:, None].expand_as(x)
    return x.new_zeros(count + 1, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)[:count]


def last_of(member: Tensor, count: int) -> Tensor:
    """Position of the last member of each segment (count,); members of a segment are consecutive."""
    t = torch.arange(len(member), device=member.device)
    return member.new_zeros(count + 1).scatter_reduce(0, member, t, "amax", include_self=False)[:count]


def pool(x: Tensor, member: Tensor, count: int, how: str) -> Tensor:
    """x (T, D) -> (P, D) by `max`, `mean` or `last`."""
    if how == "last":
        return x.index_select(0, last_of(member, count))
    if how == "mean":
        sizes = torch.bincount(member, minlength=count + 1)[:count, None].clamp(min=1).to(x.dtype)
        return segment_sum(x, member, count) / sizes
    assert how == "max", how
    top: Tensor = _PatchMax.apply(x, member, count)
    return top


class _PatchMax(torch.autograd.Function):
    """`segment_max` whose gradient is shared by equal members, as autograd's is, at half its passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, member: Tensor, count: int) -> Tensor:
        top = segment_max(x, member, count)
        ctx.save_for_backward(x, top, member)
        return top

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        x, top, member = ctx.saved_tensors
        # one more row for what belongs to no patch: nothing equals it
        reached = F.pad(top, (0, 0, 0, 1), value=torch.nan).index_select(0, member).eq_(x)
        shared = grad / segment_sum(reached, member, len(top)).clamp_(min=1)
        return reached.mul_(F.pad(shared, (0, 0, 0, 1)).index_select(0, member)), None, None


def _head_sums(product: Tensor, heads: int) -> Tensor:
    """product (T, K, D) summed over the width of each head -> (T, K, H), at least float32."""
    t, k, d = product.shape
    return product.view(t, k, heads, d // heads).sum(-1, dtype=torch.promote_types(product.dtype, torch.float32))


def _over_heads(x: Tensor, like: Tensor) -> Tensor:
    """x (T, K, H), each repeated over its head's width, (T, K, D) as `like`: a copy is cheaper than to broadcast."""
    t, k, d = like.shape
    h = x.shape[-1]
    spread = x.to(like.dtype).unsqueeze(-1).expand(t, k, h, d // h)
    return spread.clone(memory_format=torch.contiguous_format).view(t, k, d)  # one's own, also where k and h are 1


def _over_slots(weight: Tensor, x: Tensor) -> Tensor:
    """Sum over slots of weight (T, K, D) * x (T, K, D) -> (T, D), in one pass a slot."""
    out = weight[:, 0] * x[:, 0]
    for slot in range(1, weight.shape[1]):
        out.addcmul_(weight[:, slot], x[:, slot])
    return out


class _Pool(torch.autograd.Function):
    """Attention of K queries a patch over the patch's own bytes; a third of the time of what autograd composes."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, member: Tensor, heads: int) -> Tensor:
        """query (P, K, D), key and value (T, D), member (T,) in 0..P, where P is dropped -> (P, K, D)."""
        count, _, d = query.shape
        patch = member.clamp(max=count - 1)
        mine = query.index_select(0, patch)
        score = _head_sums(mine * key[:, None], heads).mul_((d // heads) ** -0.5)
        # any constant a patch cancels in its softmax: its own maximum keeps exp in range
        flat = score.flatten(1)
        weight = flat.sub_(segment_max(flat, member, count).index_select(0, patch)).clamp_(max=0).exp_()
        weight.masked_fill_((member == count)[:, None], 0)
        norm = segment_sum(weight, member, count).clamp_(min=1e-30)  # 0 for an empty patch, at least 1 for all others
        weight = weight.div_(norm.index_select(0, patch)).view_as(score)
        wide = _over_heads(weight, mine)
        ctx.save_for_backward(query, key, value, member, patch, weight)
        return segment_sum(wide.mul_(value[:, None]), member, count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, member, patch, weight = ctx.saved_tensors
        count, heads = len(query), weight.shape[-1]
        grad = grads[0].index_select(0, patch)
        to_value = _over_slots(_over_heads(weight, grad), grad)
        slope = _head_sums(grad.mul_(value[:, None]), heads).mul_(weight)
        inner = segment_sum(slope, member, count).index_select(0, patch)
        slope.addcmul_(weight, inner, value=-1).mul_((query.shape[-1] // heads) ** -0.5)
        wide = _over_heads(slope, grad)
        to_key = _over_slots(wide, query.index_select(0, patch))
        return segment_sum(wide.mul_(key[:, None]), member, count), to_key, to_value, None, None


class _Read(torch.autograd.Function):
    """Attention of each byte over the K slots of one patch; a third of the time of what autograd composes."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, both: Tensor, read: Tensor, heads: int) -> Tensor:
        """query (T, D), both (P, K, 2, D) keys and values, read (T,) -> (T, D)."""
        key, value = both.index_select(0, read).unbind(2)
        score = _head_sums(key * query[:, None], heads).mul_((query.shape[1] // heads) ** -0.5)
        weight = torch.softmax(score, 1)
        ctx.save_for_backward(query, both, read, weight)
        return _over_slots(_over_heads(weight, value), value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grads
        query, both, read, weight = ctx.saved_tensors
        heads = weight.shape[-1]
        given = both.index_select(0, read)
        key, value = given.unbind(2)
        slope = _head_sums(value * grad[:, None], heads).mul_(weight)
        slope.addcmul_(weight, slope.sum(1, keepdim=True), value=-1).mul_((query.shape[1] // heads) ** -0.5)
        wide = _over_heads(slope, key)
        to_query = _over_slots(wide, key)
        torch.mul(wide, query[:, None], out=key)  # what was gathered is not needed any more
        torch.mul(_over_heads(weight, value), grad[:, None], out=value)
        return to_query, torch.zeros_like(both).index_add_(0, read, given), None, None


class PatchQueries(nn.Module):
    """Cross-attention pooling (BLT, section 3.2.2): K queries a patch, made from its max-pooled bytes, attend to its
    own bytes."""

    def __init__(self, width: int, slots: int, heads: int) -> None:
        super().__init__()
        self.slots, self.heads = slots, heads
        self.expand = Linear(width, slots * width)
        self.query_norm, self.key_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key_value, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Tensor, member: Tensor, count: int) -> Tensor:
        """x (T, D), member (T,) -> (P, K, D)."""
        d = x.shape[1]
        slots = self.expand(pool(x, member, count, "max")).view(count, self.slots, d)
        query = self.query(self.query_norm(slots))
        key, value = self.key_value(self.key_norm(x)).chunk(2, -1)
        mixed: Tensor = _Pool.apply(query, key, value, member, self.heads)
        return slots + self.out(mixed)


class PatchReader(nn.Module):
    """Decoder cross-attention (BLT, section 3.3.1): each byte attends to the K slots of the one patch that it may
    read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.slot_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key_value, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Tensor, slots: Tensor, read: Tensor) -> Tensor:
        """x (T, D), slots (P, K, D), read (T,) -> the addition to x, (T, D)."""
        p, k, d = slots.shape
        both = self.key_value(self.slot_norm(slots)).view(p, k, 2, d)
        mixed: Tensor = _Read.apply(self.query(self.query_norm(x)), both, read, self.heads)
        return self.out(mixed)
