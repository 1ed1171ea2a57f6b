"""Building blocks that every model here shares: norms, rotary positions, attention, SwiGLU.

Legend: T positions (bytes, patches or tokens in one flat vector), D width, H heads, E head width.

Everything computes in the dtype of its input; parameters stay float32 and are cast where they are used, so that one
module serves float32 scoring and bfloat16 training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import CAUSAL, Window, attend
from models.plan import Segments, Sequences


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
        square = torch.linalg.vecdot(x, x).to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(square.div_(x.shape[-1]).add_(eps)).to(x.dtype).unsqueeze(-1)
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
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
        return out


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6); the hidden width makes it as large as a 4x MLP."""

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = hidden or swiglu_hidden(width)
        self.gate_up = Linear(width, 2 * self.hidden)
        self.down = Linear(self.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


def swiglu_hidden(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 32 so that matrix kernels stay on their fast path."""
    return -(-8 * width // 96) * 32


class Rope:
    """Rotary tables for given positions (Su et al. 2021, eq. 34), theta 10,000.

    `cos` and `sin` have shape (T, E), laid out for the rotate-half form.
    """

    def __init__(self, head_width: int, positions: Tensor, dtype: torch.dtype) -> None:
        half = head_width // 2
        freqs = 10_000.0 ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = positions.float()[:, None] * freqs
        cos, sin = angles.cos(), angles.sin()
        self.half = half
        self.cos = torch.cat((cos, cos), -1).to(dtype)
        self.sin = torch.cat((-sin, sin), -1).to(dtype)

    def rotate(self, x: Tensor) -> Tensor:
        """x (n, T, E) turned by its position's angles."""
        return torch.addcmul(x * self.cos, x.roll(self.half, -1), self.sin)


def wide(logits: Tensor) -> Tensor:
    """Logits as probabilities are taken from them: float32 in training, float64 in scoring, where sums are exact."""
    return logits.float() if torch.is_grad_enabled() else logits.double()


class Attention(nn.Module):
    """Self-attention with rotary positions: each position sees those before it in its segment, or the last of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor, rope: Rope, seen: Segments, window: Window) -> Tensor:
        t, width = x.shape
        heads = self.qkv(x).view(t, 3 * self.heads, width // self.heads).transpose(0, 1)
        if x.device.type == "cpu":  # where attention, products of each head, wants it so
            heads = heads.contiguous()
        q, k, v = heads.split(self.heads)
        q, k, v = (each.transpose(0, 1) for each in (rope.rotate(q), rope.rotate(k), v))
        mixed = attend(q, k, v, seen.cu, seen.cu, seen.longest, seen.longest, window)
        return self.out(mixed.reshape(t, width))


class Block(nn.Module):
    """Pre-norm transformer block without biases: x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, rope: Rope, seen: Segments, window: Window) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, seen, window)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Causal transformer over each of many flat sequences, ending in a norm."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """x (P, D) -> (P, D): position i of a sequence has seen positions 0..i of it."""
        rope = Rope(x.shape[-1] // self.heads, sequences.position, x.dtype)
        for block in self.blocks:
            x = block(x, rope, sequences.segments, CAUSAL)
        return self.norm(x)
