"""Models compile to one graph that is used for all batches, and say the same compiled."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny import SMALL, batch_of, byte_lm, documents, harness, random_starts, token_lm
from torch import nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from bench.suites.config import TrainConfig
from bench.training.loop import compiled, make_optimizer, train_step
from models.token_lm import LARGE, TokenLM

POOLS = ["cross_attention", "max", "mean", "last"]
VOCAB = 300
MODELS: dict[str, Any] = {
    f"{pool} {inject}": lambda pool=pool, inject=inject: harness(
        config=dataclasses.replace(SMALL, pool=pool, inject=inject, latent_layers=1)
    )
    for pool, inject in [*((pool, "cross_attention") for pool in POOLS), *((pool, "add") for pool in POOLS)]
}
MODELS |= {
    "priced": lambda: harness("end", dataclasses.replace(SMALL, latent_layers=1)),
    "told late": lambda: harness("start", dataclasses.replace(SMALL, latent_layers=1, boundary_inputs="flag")),
    "byte_lm": byte_lm,
    "token_lm": lambda: token_lm(VOCAB),
    "token_lm in chunks": lambda: token_lm(LARGE),
}
QUICK = ["cross_attention cross_attention", "max add", "byte_lm", "token_lm"]
CONFIG = TrainConfig(bytes=1, batch_bytes=1 << 20, window=1000, dtype="float32", compile=True)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)  # pytest keeps every line of it
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def plan(model: nn.Module, seed: int) -> Any:
    """Of other documents, other cuts and another number of both, for each seed; two at least, since torch makes another
    graph for what there is one of."""
    rng = np.random.default_rng(seed)
    docs = documents(rng, tuple(int(n) for n in rng.integers(1, 120, int(rng.integers(2, 8)))))
    batch = batch_of(docs, [random_starts(len(doc), rng, float(rng.uniform(1.5, 12))) for doc in docs])
    ids = torch.from_numpy(rng.integers(0, VOCAB, int(batch.starts.sum())))
    return model.plan(dataclasses.replace(batch, ids=ids))  # type: ignore[operator]


def trained(model: nn.Module, steps: int, backend: str | None = None) -> list[float]:
    optimizer = make_optimizer(model.train(), CONFIG)
    forward: Any = model if backend is None else compiled(model, backend)
    return [train_step(forward, model, optimizer, plan(model, n), 1e-3, CONFIG).item() for n in range(steps)]


def one_graph(kind: str, steps: int, backend: str) -> None:
    losses = trained(MODELS[kind](), steps, backend)
    assert counters["stats"]["unique_graphs"] == 1, "compiled once for all sizes"
    assert not counters["graph_break"]
    assert losses == pytest.approx(trained(MODELS[kind](), steps), rel=1e-5)


@pytest.mark.parametrize("kind", QUICK)
def test_one_graph_for_a_few_steps(kind: str) -> None:
    one_graph(kind, 6, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_one_graph_for_fifty_steps(kind: str) -> None:
    one_graph(kind, 50, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch by torch
@pytest.mark.parametrize("kind", ["cross_attention cross_attention", "token_lm"])
def test_machine_code_says_the_same(kind: str) -> None:
    one_graph(kind, 50, "inductor")


def test_a_plan_that_is_moved_is_the_same_plan() -> None:
    made = plan(harness("end"), 0)
    moved = made.to(torch.device("meta"))
    assert moved.cut.members.positions.cu.device.type == moved.told.flag.device.type == "meta"
    assert moved.cut.members.positions.longest == made.cut.members.positions.longest


@pytest.mark.parametrize("kind", [*QUICK, "priced"])
def test_a_model_is_a_function_of_tensors(kind: str) -> None:
    """On meta tensors, which have sizes and no values: nothing of a batch is read on the way, forward or backward."""
    model = MODELS[kind]()
    made = plan(model, 1)
    size = made.size if isinstance(model, TokenLM) else len(made.data)
    meta = torch.device("meta")
    prediction = model.to(meta).train()(made.to(meta), torch.bfloat16)
    assert prediction.nats.shape == (size,)
    assert prediction.nats.dtype == torch.float32


@pytest.mark.parametrize("kind", [*QUICK, "priced"])
def test_products_have_the_sizes_of_the_plan(kind: str) -> None:
    """Not that of the batch, which differs each time: a product of a size that is new takes half as long again."""

    class Products(TorchDispatchMode):
        sizes: ClassVar[set[int]] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.mm.default:
                self.sizes.update(size for tensor in args for size in tensor.shape)
            return func(*args, **(kwargs or {}))

    model = MODELS[kind]().train()
    made = plan(model, 3)
    with Products() as products:
        model(made, torch.float32).nats.mean().backward()
    count = len(made.ids) if isinstance(model, TokenLM) else len(made.data)
    assert count != len(made.previous), "there is padding"
    assert len(made.previous) in products.sizes
    assert count not in products.sizes
