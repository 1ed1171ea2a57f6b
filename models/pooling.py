"""Bytes to patches and back, each byte touched once: segment softmax and gather, O(T), no (P, T) mask.

Legend: T byte positions, P patches, D local width, K slots a patch, H heads, E head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import Linear, RMSNorm


def segment_sum(x: Tensor, member: Tensor, count: int) -> Tensor:
    """X (T, D), member (T,) in 0..count, where `count` is dropped -> (count, D)."""
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
    """X (T, D) -> (P, D) by `max`, `mean` or `last`."""
    if how == "last":
        return x.index_select(0, last_of(member, count))
    if how == "mean":
        sizes = torch.bincount(member, minlength=count + 1)[:count, None].clamp(min=1).to(x.dtype)
        return segment_sum(x, member, count) / sizes
    assert how == "max", how
    return segment_max(x, member, count)


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
        """X (T, D), member (T,) -> (P, K, D)."""
        t, d = x.shape
        e = d // self.heads
        slots = self.expand(pool(x, member, count, "max")).view(count, self.slots, d)
        query = self.query(self.query_norm(slots)).view(count, self.slots * d)
        key, value = self.key_value(self.key_norm(x)).view(t, 2, 1, self.heads, e).unbind(1)
        mine = query.index_select(0, member.clamp(max=count - 1)).view(t, self.slots, self.heads, e)
        score = (mine * key).sum(-1).float() * e**-0.5  # (T, K, H)
        # any constant a patch cancels in its softmax: its own maximum keeps exp in range
        flat = score.view(t, -1)
        peak = segment_max(flat.detach(), member, count).index_select(0, member.clamp(max=count - 1))
        weight = (flat - peak).clamp(max=0).exp()
        norm = segment_sum(weight, member, count).clamp(min=1e-30)  # 0 for an empty patch, at least 1 for all others
        mixed = segment_sum((weight.to(x.dtype).view(t, self.slots, self.heads, 1) * value).view(t, -1), member, count)
        mixed = mixed.view(count, self.slots, self.heads, e) / norm.to(x.dtype).view(count, self.slots, self.heads, 1)
        return slots + self.out(mixed.reshape(count, self.slots, d))


class PatchReader(nn.Module):
    """Decoder cross-attention (BLT, section 3.3.1): each byte attends to the K slots of the one patch that it may
    read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.slot_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key_value, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Tensor, slots: Tensor, read: Tensor) -> Tensor:
        """X (T, D), slots (P, K, D), read (T,) -> the addition to x, (T, D)."""
        t, d = x.shape
        p, k, _ = slots.shape
        e = d // self.heads
        query = self.query(self.query_norm(x)).view(t, 1, self.heads, e)
        both = (
            self.key_value(self.slot_norm(slots)).view(p, k * 2 * d).index_select(0, read).view(t, k, 2, self.heads, e)
        )
        key, value = both.unbind(2)
        weight = torch.softmax((query * key).sum(-1) * e**-0.5, 1)  # (T, K, H)
        return self.out((weight.unsqueeze(-1) * value).sum(1).reshape(t, d))
