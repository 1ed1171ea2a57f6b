"""The attention of training against what autograd composes from the plain one."""

import pytest
import torch

from models.layers import LocalMask, Rope, RowMask, SpanMask

WIDTH, HEADS = 4, 2
LOCAL = torch.tensor([0] * 5 + [1] * 20 + [2] * 1 + [3] * 6)
ROWS = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, 2, 2, 2]])
SPANS = [(6, 12), (0, 3), (3, 5)]
KINDS = ["local", "rows", "spans"]


def case(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, Rope, LocalMask | RowMask]:
    """With the mask whose plain attention is the reference."""
    mask = LocalMask(LOCAL, 8, dtype) if kind == "local" else RowMask(ROWS, dtype)
    size = LOCAL.numel() if kind == "local" else ROWS.numel()
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(size, 3 * HEADS, WIDTH, generator=generator, dtype=dtype)
    return qkv.requires_grad_(), Rope(WIDTH, torch.arange(size) % 7, dtype), mask


def plain(qkv: torch.Tensor, rope: Rope, mask: LocalMask | RowMask) -> torch.Tensor:
    q, k, v = qkv.split(HEADS, 1)
    return mask.attention(rope.rotate(q), rope.rotate(k), v)


def mixed(kind: str, qkv: torch.Tensor, rope: Rope, mask: LocalMask | RowMask) -> torch.Tensor:
    return (SpanMask(SPANS) if kind == "spans" else mask).mixed(qkv, rope.turns)


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_rotation_and_attention_apart(kind: str) -> None:
    qkv, rope, mask = case(kind, torch.float64)
    want, got = plain(qkv, rope, mask), mixed(kind, qkv, rope, mask)
    slope = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if kind == "spans":  # in none of which position 5 is
        assert not got[5].any()
        want = want.index_fill(0, torch.tensor([5]), 0)
    assert torch.allclose(got, want, atol=1e-6)  # the tables are float32
    (want_grad,) = torch.autograd.grad(want, qkv, slope)
    (got_grad,) = torch.autograd.grad(got, qkv, slope)
    assert torch.allclose(got_grad, want_grad, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_is_that_of_what_it_computes(kind: str) -> None:
    qkv, rope, mask = case(kind, torch.float64)
    assert torch.autograd.gradcheck(lambda x: mixed(kind, x, rope, mask), (qkv,))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_any_size_are_finite(kind: str) -> None:
    qkv, rope, mask = case(kind, torch.float32)
    out = mixed(kind, (qkv * 1e4).requires_grad_(), rope, mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert qkv.grad is not None
    assert qkv.grad.isfinite().all()
