"""Layers against slow, plain versions of themselves."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny import shaken

from models import packing
from models.layers import LocalMask, RMSNorm, Rope, RowMask, SwiGLU, _SwiGLU
from models.packing import PackedTransformer, pack


def dense_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """q, k, v (T, H, E), seen (T, T) -> (T, H * E), with every score written down."""
    scores = torch.einsum("qhe,khe->hqk", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("hqk,khe->qhe", weights, v).flatten(1)


@pytest.mark.parametrize("grad", [True, False])
def test_windowed_attention_equals_a_dense_mask(grad: bool) -> None:
    sequence = torch.tensor([0] * 5 + [1] * 20 + [2] * 1 + [3] * 6)
    window, t = 8, len(sequence)
    q, k, v = torch.randn(3, t, 2, 4, generator=torch.Generator().manual_seed(0))
    i = torch.arange(t)
    near = (i[:, None] >= i) & (i[:, None] - i < window)
    want = dense_attention(q, k, v, near & (sequence[:, None] == sequence))
    with torch.set_grad_enabled(grad):
        got = LocalMask(sequence, window, torch.float32).attention(q, k, v)
    assert torch.allclose(got, want, atol=1e-6)


def test_row_attention_equals_a_dense_mask() -> None:
    sequence = torch.tensor([[0, 0, 0, 1, 1, -1], [2, 2, 2, 2, 2, 2]])
    q, k, v = torch.randn(3, 12, 2, 4, generator=torch.Generator().manual_seed(0))
    flat, i = sequence.view(-1), torch.arange(12)
    want = dense_attention(q, k, v, (i[:, None] >= i) & (flat[:, None] == flat))
    got = RowMask(sequence, torch.float32).attention(q, k, v)
    assert torch.allclose(got[flat >= 0], want[flat >= 0], atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 16, dtype=torch.float64)

    def score(a: int, b: int) -> float:
        turned = [Rope(16, torch.tensor([p]), torch.float64).rotate(x) for x, p in ((q, a), (k, b))]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(103, 101), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-2)


def test_rotation_is_the_complex_one() -> None:
    x = torch.randn(5, 2, 8)
    positions = torch.tensor([0, 1, 7, 100, 1000])
    freqs = 10_000.0 ** (-torch.arange(4) / 4)
    turn = torch.polar(torch.ones(5, 4), positions[:, None] * freqs)[:, None]
    want = torch.complex(x[..., :4], x[..., 4:]) * turn
    got = Rope(8, positions, torch.float32).rotate(x)
    assert torch.allclose(got, torch.cat((want.real, want.imag), -1), atol=1e-5)


@pytest.mark.parametrize("function", ["norm", "swiglu", "rope"])
def test_hand_written_gradients(function: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 2, 8, dtype=torch.float64, requires_grad=True)
    norm = RMSNorm(8).double()
    rope = Rope(8, torch.arange(6), torch.float64)
    run: Any = {"norm": norm, "swiglu": _SwiGLU.apply, "rope": rope.rotate}[function]
    # the norm keeps its mean square in float32, which bounds how well differences can be taken
    assert torch.autograd.gradcheck(run, (x,), eps=1e-3, atol=1e-4)


def test_norm_equals_torch_and_so_does_its_weight_gradient() -> None:
    x, g = torch.randn(2, 7, 16)
    norm = RMSNorm(16)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(16))
    w = norm.weight.detach().clone().requires_grad_()
    want = F.rms_norm(x, (16,), w, 1e-5)
    want.backward(g)
    got = norm(x)
    got.backward(g)
    assert torch.allclose(got, want, atol=1e-6)
    assert w.grad is not None
    assert norm.weight.grad is not None
    assert torch.allclose(norm.weight.grad, w.grad, atol=1e-5)


def test_swiglu_equals_its_definition() -> None:
    mlp = SwiGLU(16)
    x = torch.randn(5, 16)
    gate, up = mlp.gate_up(x).chunk(2, -1)
    assert torch.allclose(mlp(x), mlp.down(gate * torch.sigmoid(gate) * up), atol=1e-6)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50))
def test_packing_gives_each_position_one_place(lengths: list[int]) -> None:
    rows = pack(np.array(lengths), torch.device("cpu"))
    assert rows.place.unique().numel() == sum(lengths)
    assert torch.equal(rows.source[rows.place], torch.arange(sum(lengths)))
    flat = rows.sequence.view(-1)
    assert int((flat >= 0).sum()) == sum(lengths)
    for s, length in enumerate(lengths):
        at = (flat == s).nonzero()[:, 0]
        assert at.tolist() == list(range(int(at[0]), int(at[0]) + length)), "a sequence lies in one piece"
        assert int(at[0]) // rows.sequence.shape[1] == int(at[-1]) // rows.sequence.shape[1], "and in one row"
        assert rows.position[at].tolist() == list(range(length))


def test_packing_wastes_little_on_batches_like_ours() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = np.clip(rng.lognormal(4.6, 0.5, 36), 10, 230).astype(int)  # patches of Wikipedia's lead sections
        assert pack(lengths, torch.device("cpu")).waste <= 0.10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sequences_that_are_attended_to_one_by_one_come_to_what_rows_of_them_do(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = torch.tensor([200, 3, 0, 90, 71])
    x = torch.randn(370, 32).to(dtype)  # six beyond the last
    wanted = torch.randn(364, 32)
    spans = packing.spans_of(lengths.numpy())
    assert spans == [(0, 200), (200, 203), (203, 293), (293, 364)]
    found = []
    for one_by_one in (True, False):
        if not one_by_one:
            monkeypatch.setattr(packing, "spans_of", lambda lengths: None)
        model = shaken(PackedTransformer(32, 2, 2))
        own = x.clone().requires_grad_()
        out = model(own, lengths)[:364]
        (out.float() * wanted).sum().backward()
        found.append([out, own.grad, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        a, b = one.detach().float(), other.detach().float()
        error = float((a - b).abs().max() / b.abs().max())
        assert error < (1e-5 if dtype == torch.float32 else 4e-2)


def test_sequences_are_attended_to_one_by_one_only_where_that_is_less_work() -> None:
    assert packing.spans_of(np.full(7, 256)) is None, "rows hold them without padding"
    assert packing.spans_of(np.full(500, 4)) is None, "too many"
    assert packing.spans_of(np.zeros(3, int)) is None, "nothing to attend to"
    assert packing.spans_of(np.array([0, 228, 100, 60])) == [(0, 228), (228, 328), (328, 388)]


def test_packed_sequences_do_not_see_each_other() -> None:
    model = shaken(PackedTransformer(32, 2, 2))
    lengths = torch.tensor([5, 9, 1, 30])
    x = torch.randn(45, 32)
    together = model(x, lengths)
    for piece, whole in zip(x.split(lengths.tolist()), together.split(lengths.tolist()), strict=True):
        assert torch.allclose(model(piece, torch.tensor([len(piece)])), whole, atol=1e-5)
