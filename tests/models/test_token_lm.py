"""The loss over a large vocabulary, whose logits are never all in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models import token_lm as module
from models.token_lm import gradients_in_chunks, nats_in_chunks

VOCAB, PLACES, CHUNK = 37, 22, 5


def given(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 8, generator=generator, dtype=dtype) for n in (PLACES, VOCAB))
    return states, weight, torch.randint(VOCAB, (PLACES,), generator=generator)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", CHUNK)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_chunks_cost_what_all_logits_do(dtype: torch.dtype, close: float) -> None:
    states, weight, ids = given(dtype)
    found: list[list[Tensor]] = []
    for chunked in (True, False):
        x, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        if chunked:
            nats = torch.ops.patchbench.chunked_nats(x, w, ids)
        else:
            nats = F.cross_entropy((x @ w.mT).float(), ids, reduction="none")
        (nats * torch.linspace(0, 2, PLACES)).sum().backward()
        assert x.grad is not None
        assert w.grad is not None
        found.append([nats.detach(), x.grad.float(), w.grad.float()])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=close, rtol=close)


def test_the_operator_is_one_that_compiles() -> None:
    states, weight, ids = given(torch.float32)
    arguments = (states.requires_grad_(), weight.requires_grad_(), ids)
    torch.library.opcheck(torch.ops.patchbench.chunked_nats.default, arguments)


def test_no_tensor_is_larger_than_the_logits_of_a_chunk() -> None:
    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                self.largest = max(self.largest, made.numel())
            return made

    states, weight, ids = given(torch.float32)
    with Sizes() as sizes:
        nats_in_chunks(states, weight, ids)
        gradients_in_chunks(torch.ones(PLACES), states, weight, ids)
    assert sizes.largest == max(CHUNK * VOCAB, weight.numel()) < PLACES * VOCAB
