"""Models compile to one graph that is used for all batches, and say the same compiled."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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

from bench.data.config import Data, DataConfig, load
from bench.data.cut_corpus import CutDocuments, Cuts, batches, cut, training_spans
from bench.suites.config import Compile, TrainConfig
from bench.training.ahead import Even
from bench.training.loop import Recorded, compiled, make_optimizer, train_step
from models.plan import Tensors, TokenPlan
from models.token_lm import LARGE, TokenLM
from patchers import create

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


def evenly(made: Any) -> Even:
    """A plan as CUDA graphs want it."""
    return Even(made.even(), made.size if isinstance(made, TokenPlan) else len(made.data))


def trained(model: nn.Module, steps: int, backend: str | None = None, how: Compile = True) -> list[float]:
    optimizer = make_optimizer(model.train(), CONFIG)
    forward: Any = model if backend is None else compiled(model, how, backend)
    plans = (plan(model, n) for n in range(steps))
    given = (evenly(made) if how == "cuda_graphs" else made for made in plans)
    return [train_step(forward, model, optimizer, made, 1e-3, CONFIG).item() for made in given]


def one_graph(kind: str, steps: int, backend: str, how: Compile = True) -> None:
    losses = trained(MODELS[kind](), steps, backend, how)
    assert counters["stats"]["unique_graphs"] == 1, "compiled once for all sizes"
    assert not counters["graph_break"]
    assert losses == pytest.approx(trained(MODELS[kind](), steps), rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # of torch by torch
@pytest.mark.parametrize("how", [True, "cuda_graphs"])
@pytest.mark.parametrize("kind", QUICK)
def test_one_graph_for_a_few_steps(kind: str, how: Compile) -> None:
    one_graph(kind, 6, "eager", how)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_one_graph_for_fifty_steps(kind: str) -> None:
    one_graph(kind, 50, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch by torch
@pytest.mark.parametrize("how", [True, "cuda_graphs"])
@pytest.mark.parametrize("kind", ["cross_attention cross_attention", "token_lm"])
def test_machine_code_says_the_same(kind: str, how: Compile) -> None:
    one_graph(kind, 50, "inductor", how)


@pytest.mark.filterwarnings("ignore")  # of torch by torch
@pytest.mark.parametrize("kind", MODELS)
def test_padding_of_even_plans_costs_and_teaches_nothing(kind: str) -> None:
    ends = []
    for forward_of in (lambda model: model, Recorded):
        model = MODELS[kind]().train()
        made = plan(model, 5)
        given = made if forward_of is not Recorded else evenly(made)
        nats = forward_of(model)(given, torch.float32).nats
        nats.mean().backward()
        ends.append((nats.detach(), [p.grad for p in model.parameters()]))
    (plain, gradients), (even, others) = ends
    torch.testing.assert_close(even, plain, rtol=1e-5, atol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6)


def sizes(made: Any) -> tuple[Any, ...]:
    """All sizes and numbers that a graph is recorded for."""
    if isinstance(made, torch.Tensor):
        return tuple(made.shape)
    if not isinstance(made, Tensors):
        return (made,)
    # offsets are for scoring and for routers
    return tuple(sizes(value) for name, value in vars(made).items() if name != "offsets")


@functools.cache
def wiki() -> Data:
    return load(DataConfig(corpus="wiki-en"))


@pytest.mark.parametrize("kind", QUICK)
def test_even_plans_have_few_sizes(kind: str) -> None:
    """Of fifty batches of real text, cut at words: graphs are recorded for a few of them and replayed for the rest."""
    model, docs = MODELS[kind](), wiki().train.texts[:500]
    cuts = cut(create("whitespace"), docs)
    corpus = CutDocuments.of(docs, Cuts(cuts.starts, np.zeros(len(cuts.starts), np.int32)))
    plain, even = set(), set()
    for picked in itertools.islice(batches(training_spans(corpus.offsets, 1024), 16384, 1 << 60, seed=0), 50):
        made = model.plan(corpus.windows(picked))
        plain.add(sizes(made))
        even.add(sizes(made.even()))
    assert len(even) <= len(plain) / 4


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
