"""Parts compute what the modules compute whose weights they read, compiled and by torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import shaken
from torch import Tensor

from models.decoding import modules
from models.decoding.caches import KVCache, RotaryTable
from models.decoding.modules import Layer, Lookup, NormedLinear, Pooler, Reader, rms
from models.layers import Block, Linear, RMSNorm
from models.plan import Cut
from models.pooling import PatchQueries, PatchReader

WIDTH, HEADS, SLOTS = 16, 2, 3
WAYS = {"compiled": modules.NARROW, "torch": 0}
"""Widths up to which parts run compiled."""


@pytest.fixture(params=WAYS, autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "NARROW", WAYS[request.param])


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def same(have: Tensor, want: Tensor) -> bool:
    return have.shape == want.shape and torch.allclose(have, want, atol=1e-5)


def alone_too(part: Callable[[Tensor], Tensor], x: Tensor, want: Tensor) -> None:
    """A compiled part gives each row what it gives it alone, to the last bit."""
    have = part(x)
    assert same(have, want)
    if modules.NARROW:
        assert torch.equal(have, torch.cat([part(row) for row in x.split(1)]))


@torch.inference_mode()
def test_norms_products_and_tables() -> None:
    norm, linear, x = shaken(RMSNorm(WIDTH)), Linear(WIDTH, 7), normal(4, WIDTH)
    assert isinstance(norm, RMSNorm)
    alone_too(NormedLinear(norm, linear), x, linear(norm(x)))
    assert same(rms(norm, x), norm(x))
    table, rows = normal(9, WIDTH), np.array([[0, 3, 8], [8, 8, 8], [1, 1, 2]])
    assert same(Lookup(table)(rows), table[rows].sum(1))
    assert same(Lookup(table, skip=8)(rows), torch.stack((table[0] + table[3], 0 * table[0], 2 * table[1] + table[2])))
    assert same(Lookup(table)(rows[:, 0]), table[rows[:, 0]])


@torch.inference_mode()
def test_readers() -> None:
    module, x, slots = shaken(PatchReader(WIDTH, HEADS)), normal(4, WIDTH), normal(4, SLOTS, WIDTH)
    assert isinstance(module, PatchReader)
    reader = Reader(module)
    projected = reader.project(slots)
    assert projected.shape == (4, SLOTS, 2, HEADS, WIDTH // HEADS)
    cut = Cut.of(torch.ones(4, dtype=torch.bool), torch.tensor([0, 4]), 4, SLOTS, late=False)
    want = x + module(x, torch.cat((slots, slots)), cut)
    alone_too(lambda some: reader.read(some, projected[: len(some)]), x[:1], want[:1])
    assert same(reader.read(x, projected), want)


@torch.inference_mode()
def test_pooling_of_patches_of_any_length() -> None:
    module = shaken(PatchQueries(WIDTH, SLOTS, HEADS))
    assert isinstance(module, PatchQueries)
    for sizes in ((1,), (5, 1, 9), (4 * modules.FEW + 1,)):
        members = normal(sum(sizes), WIDTH).split(list(sizes))
        want = [module(own, modules.members_of([len(own)], SLOTS)).view(1, -1) for own in members]
        assert same(Pooler(module).pool(members), torch.cat(want))


@torch.inference_mode()
@pytest.mark.parametrize("rows", [2, modules.FEW + 1])
def test_layers_in_a_window_that_is_moved(rows: int) -> None:
    """Rows that differ in where they begin, against each row's own last positions."""
    module = shaken(Block(WIDTH, HEADS))
    assert isinstance(module, Block)
    layer, width = Layer(module), WIDTH // HEADS
    table, every = RotaryTable(width, torch.device("cpu")), np.arange(rows)
    cache = KVCache(1, rows, HEADS, width, 5, torch.device("cpu"))
    cache.begin[1] = 2
    cache.end[:] = 2
    whole = KVCache(1, rows, HEADS, width, None, torch.device("cpu"))
    for step in range(100):
        x = normal(rows, 1, WIDTH)[:, 0] + step / 50
        turn = table.at(np.array([step + 2, *[step] * (rows - 1)]))
        have = layer.step(0, x, turn, cache.enter(every))
        place = whole.enter(every)
        seen = np.maximum(place.at - 4, 0)
        want = layer.advance(0, x, turn, type(place)(place.kv, place.row, place.at, seen))
        if step >= 5:
            assert same(have, want), step
