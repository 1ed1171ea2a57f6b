"""`attend` against attention with every score written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import attention
from models.attention import ALL, CAUSAL, Window, attend, attend_dense

WINDOWS: list[Window] = [CAUSAL, (0, 0), (3, 0), (7, 0), (63, 0), ALL]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.1}
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)


def tensors(cu_q: torch.Tensor, cu_k: torch.Tensor, dtype: torch.dtype, width: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [int(cu[-1]) for cu in (cu_q, cu_k, cu_k)]
    return [torch.randn(n, 2, width, generator=generator).to(dtype).requires_grad_() for n in sizes]


def outcome(how: Any, given: list[torch.Tensor], *rest: Any) -> list[torch.Tensor]:
    """What comes out and the three gradients."""
    out = how(*given, *rest)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, given, slope)]


def same(cu_q: torch.Tensor, cu_k: torch.Tensor, window: Window, dtype: torch.dtype) -> None:
    given = tensors(cu_q, cu_k, dtype)
    most = [max(1, int(cu.diff().max())) for cu in (cu_q, cu_k)]
    got = outcome(attend, given, cu_q, cu_k, *most, window)
    wide = [x.detach().double().requires_grad_() for x in given]
    for a, b in zip(got, outcome(attend_dense, wide, cu_q, cu_k, window), strict=True):
        assert torch.allclose(a.double(), b, atol=TOLERANCES[dtype], rtol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@given(lengths=LENGTHS)
def test_segments_of_any_length(dtype: torch.dtype, window: Window, lengths: list[int]) -> None:
    same(offsets(lengths), offsets(lengths), window, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@given(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=9))
def test_queries_over_other_keys(dtype: torch.dtype, sizes: list[tuple[int, int]]) -> None:
    """As pooling and reading have it; a query without keys gets zeros."""
    cu_q, cu_k = (offsets(list(each)) for each in zip(*sizes, strict=True))
    same(cu_q, cu_k, ALL, dtype)


@pytest.mark.parametrize("lengths", [[600, 20], [300, 300], [257], [511, 500, 90, 85]], ids=str)
def test_sequences_of_several_tiles(lengths: list[int]) -> None:
    same(offsets(lengths), offsets(lengths), CAUSAL, torch.float64)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_gradients_are_those_of_what_is_computed(window: Window) -> None:
    cu = offsets([5, 1, 0, 9])
    given = tensors(cu, cu, torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, cu, cu, 9, 9, window), given)


def test_pairs_are_what_a_gpu_computes_in_float32() -> None:
    cu_q, cu_k = offsets([3, 0, 3, 3, 2]), offsets([4, 2, 1, 9, 0])
    given = tensors(cu_q, cu_k, torch.float64)
    dense = outcome(attend_dense, given, cu_q, cu_k, ALL)
    for a, b in zip(outcome(attention._attend_pairs, given, cu_q, cu_k), dense, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scores_of_any_size_are_finite(window: Window, dtype: torch.dtype) -> None:
    cu = offsets([30, 1, 9])
    given = [(x.detach() * 1e4).requires_grad_() for x in tensors(cu, cu, dtype)]
    assert all(bool(x.isfinite().all()) for x in outcome(attend, given, cu, cu, 30, 30, window))


def test_a_segment_alone_comes_out_as_among_others() -> None:
    cu = offsets([30, 1, 9])
    q, k, v = (x.detach() for x in tensors(cu, cu, torch.float32))
    for window in WINDOWS:
        whole = attend(q, k, v, cu, cu, 30, 30, window)
        alone = attend(q[31:], k[31:], v[31:], offsets([9]), offsets([9]), 9, 9, window)
        assert torch.allclose(whole[31:], alone, atol=1e-6)


@pytest.mark.parametrize("window", [CAUSAL, (3, 0), ALL], ids=str)
def test_torch_finds_the_operator_in_order(window: Window) -> None:
    """Its shapes on meta tensors, its gradient and its tracing (`torch.library.opcheck`)."""
    cu = offsets([5, 1, 9])
    operator = torch.ops.patchbench.attend.default
    torch.library.opcheck(operator, (*tensors(cu, cu, torch.float32), cu, cu, 9, 9, *window))
