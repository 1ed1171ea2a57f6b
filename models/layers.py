"""Building blocks that every model here shares: norms, rotary positions, attention, SwiGLU.

Legend: T positions (bytes, patches or tokens in one flat vector), D width, H heads, E head width, W window, B blocks
or rows, S keys.

Everything computes in the dtype of its input; parameters stay float32 and are cast where they are used, so that one
module serves float32 scoring and bfloat16 training.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019, eq.

    4).
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return out


class _SwiGLU(torch.autograd.Function):
    """Silu(gate) * up over the two halves of the last axis, the gradient written straight into one tensor."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        to_gate, to_up = out.chunk(2, -1)
        torch.mul(grad, F.silu(gate), out=to_up)
        to_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out


class SwiGLU(nn.Module):
    """Down(silu(gate(x)) * up(x)) (Shazeer 2020, eq.

    6); the hidden width makes it as large as a 4x MLP.
    """

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
    """Rotary tables for given positions (Su et al.

    2021, eq. 34), theta 10,000.     `rope(positions (T,), dtype)` gives cos and sin of shape (T, 1, E), laid out for
    the rotate-half form.
    """

    def __init__(self, head_width: int, positions: Tensor, dtype: torch.dtype) -> None:
        half = head_width // 2
        freqs = 10_000.0 ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = positions.float()[:, None] * freqs
        self.half = half
        self.cos = torch.cat((angles.cos(), angles.cos()), -1)[:, None].to(dtype)
        self.sin = torch.cat((-angles.sin(), angles.sin()), -1)[:, None].to(dtype)

    def rotate(self, x: Tensor) -> Tensor:
        """X (T, n, E) turned by its position's angles."""
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


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention under an additive bias.

    q (B, H, L, E), k and v (B, H, S, E), bias (B, 1, L, S) with 0 where a key is seen and -inf elsewhere -> (B, H,
    L, E). On a GPU this is SDPA. On a CPU three plain products are two to three times faster forward and backward
    than SDPA with a mask (bench/perf/step.py has SDPA in the plain step that it compares with).
    """
    if q.is_cuda or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(scores.add_(bias), -1) @ v


def wide(logits: Tensor) -> Tensor:
    """Logits as probabilities are taken from them: float32 in training, float64 in scoring, where sums are exact."""
    return logits.float() if torch.is_grad_enabled() else logits.double()


class LocalMask:
    """Which keys a position sees in windowed attention: blocks of a window against themselves and the one before.

    Position i sees j iff they lie in the same sequence and 0 <= i - j < window. O(T * W).
    """

    def __init__(self, sequence: Tensor, window: int, dtype: torch.dtype) -> None:
        """Sequence (T,): id of the sequence that a position belongs to; T is a multiple of the window."""
        self.window = window
        own = sequence.view(-1, window)
        before = torch.cat((torch.full_like(own[:1], -2), own[:-1]))
        keys = torch.cat((before, own), 1)
        i = torch.arange(window, device=sequence.device)[:, None] + window
        j = torch.arange(2 * window, device=sequence.device)
        near = (i >= j) & (i - j < window)
        seen = near & (own[:, :, None] == keys[:, None, :])
        self.bias = torch.zeros(seen.shape, dtype=dtype, device=sequence.device).masked_fill_(~seen, -math.inf)[:, None]

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q, k, v (T, H, E) -> (T, H * E)."""
        t, h, e = q.shape
        blocks = t // self.window

        def keys(x: Tensor) -> Tensor:
            own = x.view(blocks, self.window, h, e)
            before = torch.cat((own.new_zeros(1, self.window, h, e), own[:-1]))
            return torch.cat((before, own), 1).transpose(1, 2)

        out = attend(q.view(blocks, self.window, h, e).transpose(1, 2), keys(k), keys(v), self.bias)
        return out.transpose(1, 2).reshape(t, h * e)


class RowMask:
    """Full causal attention within rows of packed sequences: position i sees j <= i of the same sequence."""

    def __init__(self, sequence: Tensor, dtype: torch.dtype) -> None:
        """Sequence (R, C): id of the sequence at each place of a row; padding has an id of its own."""
        self.rows, self.length = sequence.shape
        causal = torch.ones(self.length, self.length, dtype=torch.bool, device=sequence.device).tril()
        seen = causal & (sequence[:, :, None] == sequence[:, None, :])
        self.bias = torch.zeros(seen.shape, dtype=dtype, device=sequence.device).masked_fill_(~seen, -math.inf)[:, None]

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q, k, v (R * C, H, E) -> (R * C, H * E)."""
        t, h, e = q.shape
        rows = [x.view(self.rows, self.length, h, e).transpose(1, 2) for x in (q, k, v)]
        return attend(rows[0], rows[1], rows[2], self.bias).transpose(1, 2).reshape(t, h * e)


class Attention(nn.Module):
    """Self-attention with rotary positions; which keys are seen is the mask's business."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, rope: Rope, mask: LocalMask | RowMask) -> Tensor:
        t, width = x.shape
        qkv = self.qkv(x).view(t, 3 * self.heads, width // self.heads)
        qk, v = qkv.split((2 * self.heads, self.heads), 1)
        q, k = rope.rotate(qk).split(self.heads, 1)
        return self.out(mask.attention(q, k, v))


class Block(nn.Module):
    """Pre-norm transformer block without biases: x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def forward(self, x: Tensor, rope: Rope, mask: LocalMask | RowMask) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, mask)
        return x + self.mlp(self.mlp_norm(x))
