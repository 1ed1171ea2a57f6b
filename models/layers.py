"""Building blocks that every model here shares: norms, rotary positions, attention, SwiGLU.

Legend: T positions (bytes, patches or tokens in one flat vector), D width, H heads, E head width, W window, B blocks
or rows, S keys.

Everything computes in the dtype of its input; parameters stay float32 and are cast where they are used, so that one
module serves float32 scoring and bfloat16 training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import UNSEEN, BlockAttention, Blocks, SpanAttention, Turns


class Linear(nn.Linear):
    """`nn.Linear` without bias whose weight follows the dtype of the input."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class _RMSNorm(torch.autograd.Function):
    """RMSNorm with a hand-written backward: half the passes over memory of the composite one on CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        w = weight.to(x.dtype)
        scale = torch.rsqrt(torch.linalg.vecdot(x, x).float().div_(x.shape[-1]).add_(eps)).to(x.dtype).unsqueeze(-1)
        unit = x * scale
        ctx.save_for_backward(unit, scale, w)
        return unit * w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        unit, scale, w = ctx.saved_tensors
        flat = (grad * unit).reshape(-1, unit.shape[-1])
        grad_weight = flat.sum(0, dtype=torch.float32)
        g = grad * w
        along = torch.linalg.vecdot(g, unit).unsqueeze(-1).div_(unit.shape[-1])
        return g.addcmul_(unit, along, value=-1).mul_(scale), grad_weight, None


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return out


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up over the two halves of the last axis, the gradient written straight into one tensor."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        active = F.silu(gate)  # kept: on CPU it costs as much as four products
        ctx.save_for_backward(both, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        both, active = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        to_gate, to_up = out.chunk(2, -1)
        torch.mul(grad, active, out=to_up)
        to_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6); the hidden width makes it as large as a 4x MLP."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = hidden or swiglu_hidden(width)
        self.gate_up = Linear(width, 2 * self.hidden)
        self.down = Linear(self.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = _SwiGLU.apply(self.gate_up(x))
        return self.down(hidden)


def swiglu_hidden(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 32 so that matrix kernels stay on their fast path."""
    return -(-8 * width // 96) * 32


class Rope:
    """Rotary tables for given positions (Su et al. 2021, eq. 34), theta 10,000.

    `cos` and `sin` have shape (T, 1, E), laid out for the rotate-half form.
    """

    def __init__(self, head_width: int, positions: Tensor, dtype: torch.dtype) -> None:
        half = head_width // 2
        freqs = 10_000.0 ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = positions.float()[:, None] * freqs
        self.half = half
        cos, sin = angles.cos(), angles.sin()
        self._tables = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
        self.cos, self.sin = self._tables[0].to(dtype), self._tables[1].to(dtype)

    @cached_property
    def turns(self) -> Turns:
        """The tables as `BlockAttention` takes them."""
        scale = (2 * self.half) ** -0.5
        tables = [torch.stack((x * scale, x)).transpose(1, 2).to(self.cos.dtype) for x in self._tables]
        return Turns(tables[0], tables[1], self.half)

    def rotate(self, x: Tensor) -> Tensor:
        """x (T, n, E) turned by its position's angles."""
        out: Tensor = _Rotate.apply(x, self.cos, self.sin, self.half)
        return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.half = half
        return torch.addcmul(x * cos, x.roll(half, -1), sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        cos, sin = ctx.saved_tensors
        return (grad * sin).roll(ctx.half, -1).addcmul_(grad, cos), None, None, None


def wide(logits: Tensor) -> Tensor:
    """Logits as probabilities are taken from them: float32 in training, float64 in scoring, where sums are exact."""
    return logits.float() if torch.is_grad_enabled() else logits.double()


class LocalMask:
    """Which keys a position sees in windowed attention: blocks of a window against themselves and the one before.

    Position i sees j iff they lie in the same sequence and 0 <= i - j < window. O(T * W).
    """

    def __init__(self, sequence: Tensor, window: int, dtype: torch.dtype) -> None:
        """sequence (T,): id of the sequence that a position belongs to; T is a multiple of the window."""
        self.window, self.dtype = window, dtype
        self.own = sequence.view(-1, window)
        self.before = torch.cat((torch.full_like(self.own[:1], -2), self.own[:-1]))

    @cached_property
    def blocks(self) -> Blocks:
        i = torch.arange(self.window, device=self.own.device)
        inside = i[:, None] >= i
        seen = self.own[:, :, None] == torch.where(inside, self.own[:, None], self.before[:, None])
        return Blocks(_bias(seen, self.dtype, UNSEEN), inside.to(self.dtype))

    @cached_property
    def bias(self) -> Tensor:
        """(B, 1, W, 2 W): over the keys of the block before and of the own."""
        keys = torch.cat((self.before, self.own), 1)
        i = torch.arange(self.window, device=keys.device)[:, None] + self.window
        j = torch.arange(2 * self.window, device=keys.device)
        near = (i >= j) & (i - j < self.window)
        return _bias(near & (self.own[:, :, None] == keys[:, None, :]), self.dtype, -math.inf)[:, None]

    def mixed(self, qkv: Tensor, turns: Turns) -> Tensor:
        """The values (T, H * E) that positions take from projections (T, 3 * H, E), in training."""
        out: Tensor = BlockAttention.apply(qkv, turns, self.blocks)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (T, H, E) -> (T, H * E)."""
        t, h, e = q.shape
        blocks = t // self.window

        def keys(x: Tensor) -> Tensor:
            own = x.view(blocks, self.window, h, e)
            before = torch.cat((own.new_zeros(1, self.window, h, e), own[:-1]))
            return torch.cat((before, own), 1).transpose(1, 2)

        q = q.view(blocks, self.window, h, e).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, keys(k), keys(v), attn_mask=self.bias)
        return out.transpose(1, 2).reshape(t, h * e)


class RowMask:
    """Full causal attention within rows of packed sequences: position i sees j <= i of the same sequence."""

    def __init__(self, sequence: Tensor, dtype: torch.dtype) -> None:
        """sequence (R, C): id of the sequence at each place of a row; padding has an id of its own."""
        self.sequence, self.dtype = sequence, dtype

    @cached_property
    def seen(self) -> Tensor:
        i = torch.arange(self.sequence.shape[1], device=self.sequence.device)
        return (i[:, None] >= i) & (self.sequence[:, :, None] == self.sequence[:, None, :])

    @cached_property
    def blocks(self) -> Blocks:
        return Blocks(_bias(self.seen, self.dtype, UNSEEN), None)

    @cached_property
    def bias(self) -> Tensor:
        """(R, 1, C, C)."""
        return _bias(self.seen, self.dtype, -math.inf)[:, None]

    def mixed(self, qkv: Tensor, turns: Turns) -> Tensor:
        """As that of `LocalMask`."""
        out: Tensor = BlockAttention.apply(qkv, turns, self.blocks)
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (R * C, H, E) -> (R * C, H * E)."""
        t, h, e = q.shape
        rows = [x.view(*self.sequence.shape, h, e).transpose(1, 2) for x in (q, k, v)]
        out = F.scaled_dot_product_attention(rows[0], rows[1], rows[2], attn_mask=self.bias)
        return out.transpose(1, 2).reshape(t, h * e)


class SpanMask:
    """Full causal attention within each of some spans of flat positions, for training: position i sees j <= i of its
    span."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self.spans = spans

    def mixed(self, qkv: Tensor, turns: Turns) -> Tensor:
        """As that of `LocalMask`."""
        out: Tensor = SpanAttention.apply(qkv, turns, self.spans)
        return out


def _bias(seen: Tensor, dtype: torch.dtype, unseen: float) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, unseen)


class Attention(nn.Module):
    """Self-attention with rotary positions; which keys are seen is the mask's business."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, rope: Rope, mask: LocalMask | RowMask | SpanMask) -> Tensor:
        t, width = x.shape
        qkv = self.qkv(x).view(t, 3 * self.heads, width // self.heads)
        if isinstance(mask, SpanMask):
            return self.out(mask.mixed(qkv, rope.turns))
        if torch.is_grad_enabled() and not x.is_cuda:
            # SDPA with a mask takes two to three times as long there (bench/perf/step.py has it in the plain step)
            return self.out(mask.mixed(qkv, rope.turns))
        qk, v = qkv.split((2 * self.heads, self.heads), 1)
        q, k = rope.rotate(qk).split(self.heads, 1)
        return self.out(mask.attention(q, k, v))


class Block(nn.Module):
    """Pre-norm transformer block without biases: x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, rope: Rope, mask: LocalMask | RowMask | SpanMask) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, mask)
        return x + self.mlp(self.mlp_norm(x))
