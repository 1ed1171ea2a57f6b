"""Layers against slow, plain versions of themselves."""

import pytest
import torch
import torch.nn.functional as F
from tiny import shaken

from models.layers import RMSNorm, Rope, SwiGLU, Transformer
from models.plan import Sequences


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
    got = Rope(8, positions, torch.float32).rotate(x.transpose(0, 1)).transpose(0, 1)
    assert torch.allclose(got, torch.cat((want.real, want.imag), -1), atol=1e-5)


def test_the_gradient_of_the_norm() -> None:
    x = torch.randn(6, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(RMSNorm(8).double(), (x,))


def test_the_norm_of_training_on_a_cpu_is_as_exact_as_torchs() -> None:
    x, norm = torch.randn(500, 64).bfloat16(), RMSNorm(64)
    exact = F.rms_norm(x.double(), (64,), norm.weight.detach().double(), norm.eps)
    with torch.no_grad():
        torchs = float((norm(x) - exact).abs().mean())
    assert float((norm(x).detach() - exact).abs().mean()) < 1.5 * torchs


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


def test_sequences_do_not_see_each_other() -> None:
    model = shaken(Transformer(32, 2, 2))
    lengths = torch.tensor([5, 9, 1, 30])
    x = torch.randn(50, 32)  # five beyond the last
    together = model(x, Sequences.of(lengths, 50))[:45]
    for piece, whole in zip(x[:45].split(lengths.tolist()), together.split(lengths.tolist()), strict=True):
        assert torch.allclose(model(piece, Sequences.of(torch.tensor([len(piece)]), len(piece))), whole, atol=1e-5)
