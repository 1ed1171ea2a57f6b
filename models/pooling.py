"""Pooling of bytes into patches and reading of patches by bytes.

Legend: T byte positions, P patches, D local width, K slots a patch.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.attention import attend
from models.layers import Linear, RMSNorm
from models.plan import Cut, Members


def segment_sum(x: Tensor, member: Tensor, count: int) -> Tensor:
    """x (T, D), member (T,) in 0..count, where `count` is dropped -> (count, D)."""
    return x.new_zeros(count + 1, *x.shape[1:]).index_add(0, member, x)[:count]


def segment_max(x: Tensor, member: Tensor, count: int) -> Tensor:
    """Per-segment maximum of x (T, D) -> (count, D).

    Zeros for a segment without members.
    """
    index = member[:, None].expand_as(x)
    return x.new_zeros(count + 1, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)[:count]


def pool(x: Tensor, members: Members, how: str) -> Tensor:
    """x (T, D) -> (P, D) by `max`, `mean` or `last`; zeros for a patch without positions, but not by `last`."""
    count = len(members.last)
    if how == "last":
        return x.index_select(0, members.last)
    if how == "mean":
        return segment_sum(x, members.member, count) / members.size.clamp(min=1).to(x.dtype)
    assert how == "max", how
    return segment_max(x, members.member, count)


class PatchQueries(nn.Module):
    """Cross-attention pooling (BLT, section 3.2.2): K queries a patch, made from its max-pooled bytes, attend to its
    own bytes."""

    def __init__(self, width: int, slots: int, heads: int) -> None:
        super().__init__()
        self.slots, self.heads = slots, heads
        self.expand = Linear(width, slots * width)
        self.query_norm, self.key_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key_value, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Tensor, members: Members) -> Tensor:
        """x (T, D) -> (P * K, D)."""
        d = x.shape[1]
        slots = self.expand(pool(x, members, "max")).view(-1, d)
        query = self.query(self.query_norm(slots)).view(-1, self.heads, d // self.heads)
        both = self.key_value(self.key_norm(x)).view(-1, 2 * self.heads, d // self.heads)
        key, value = both.split(self.heads, 1)
        asking, asked = members.slots, members.positions
        mixed = attend(query, key, value, asking.cu, asked.cu, asking.longest, asked.longest)
        return slots + self.out(mixed.view(-1, d))


class PatchReader(nn.Module):
    """Decoder cross-attention (BLT, section 3.3.1): each byte attends to the K slots of the one patch that it may
    read."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.slot_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key_value, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def forward(self, x: Tensor, slots: Tensor, cut: Cut) -> Tensor:
        """x (T, D), slots (P, K, D) -> the addition to x, (T, D)."""
        d = x.shape[1]
        query = self.query(self.query_norm(x)).view(-1, self.heads, d // self.heads)
        both = self.key_value(self.slot_norm(slots)).view(-1, 2 * self.heads, d // self.heads)
        key, value = both.split(self.heads, 1)
        asking, asked = cut.readers, cut.slots
        mixed = attend(query, key, value, asking.cu, asked.cu, asking.longest, asked.longest)
        return self.out(mixed.view(-1, d))
