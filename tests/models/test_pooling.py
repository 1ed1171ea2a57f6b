"""Segment operations and both cross-attentions against dense, masked ones."""

import math

import pytest
import torch
from tiny import shaken

from models.batch import Patches
from models.pooling import PatchQueries, PatchReader, _Pool, _Read, pool

STARTS = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1], dtype=torch.bool)
OFFSETS = torch.tensor([0, 8, 12])


def test_ids_of_a_hand_worked_example() -> None:
    """Two documents, cut |abc|d|efgh| and |ij|k|l|; patches 0 and 3 are BOS."""
    patches = Patches.of(STARTS, OFFSETS)
    assert patches.count == 6
    assert patches.first.tolist() == [0, 3, 6]
    #                                BOS a  b  c  d  e  f  g   BOS i  j  k
    assert patches.member.tolist() == [0, 1, 1, 1, 2, 6, 6, 6, 3, 4, 4, 5], "6: never complete in its window"
    #                               a  b  c  d  e  f  g  h  i  j  k  l
    assert patches.read.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 5]


def test_without_the_flag_the_decoder_reads_one_patch_less() -> None:
    patches = Patches.of(STARTS, OFFSETS, late=True)
    assert patches.read.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 4]


def test_read_is_the_closed_form_of_the_design() -> None:
    """dec_id[p] = enc_id[p + 1] - 1 within a document."""
    patches = Patches.of(STARTS[:8], torch.tensor([0, 8]))
    enc = torch.cat((torch.zeros(1, dtype=torch.long), STARTS[:8].cumsum(0)))
    assert patches.read.tolist() == (enc[1:] - 1).tolist()


@pytest.mark.parametrize("how", ["max", "mean", "last"])
def test_pooling_equals_a_loop(how: str) -> None:
    patches = Patches.of(STARTS, OFFSETS)
    x = torch.randn(12, 4)
    rows = []
    for p in range(patches.count):
        mine = x[patches.member == p]
        rows.append({"max": mine.amax(0), "mean": mine.mean(0), "last": mine[-1]}[how])
    assert torch.allclose(pool(x, patches.member, patches.count, how), torch.stack(rows), atol=1e-6)


def test_cross_attention_pooling_equals_a_dense_mask() -> None:
    patches = Patches.of(STARTS, OFFSETS)
    module = shaken(PatchQueries(16, 3, 2))
    assert isinstance(module, PatchQueries)
    x = torch.randn(12, 16)
    slots = module.expand(pool(x, patches.member, patches.count, "max")).view(patches.count, 3, 16)
    query = module.query(module.query_norm(slots)).view(patches.count, 3, 2, 8)
    key, value = module.key_value(module.key_norm(x)).view(12, 2, 2, 8).unbind(1)
    scores = torch.einsum("pshe,the->pght".replace("g", "s"), query, key) / math.sqrt(8)
    outside = patches.member[None] != torch.arange(patches.count)[:, None]
    weights = scores.masked_fill(outside[:, None, None], -math.inf).softmax(-1)
    want = slots + module.out(torch.einsum("psht,the->pshe", weights, value).flatten(2))
    assert torch.allclose(module(x, patches.member, patches.count), want, atol=1e-5)


def test_reading_equals_dense_attention_over_all_slots() -> None:
    patches = Patches.of(STARTS, OFFSETS)
    module = shaken(PatchReader(16, 2))
    assert isinstance(module, PatchReader)
    x, slots = torch.randn(12, 16), torch.randn(patches.count, 3, 16)
    query = module.query(module.query_norm(x)).view(12, 2, 8)
    key, value = module.key_value(module.slot_norm(slots)).view(patches.count, 3, 2, 2, 8).unbind(2)
    scores = torch.einsum("the,pshe->thps", query, key) / math.sqrt(8)
    outside = patches.read[:, None] != torch.arange(patches.count)
    weights = scores.masked_fill(outside[:, None, :, None], -math.inf).flatten(2).softmax(-1).view_as(scores)
    want = module.out(torch.einsum("thps,pshe->the", weights, value).flatten(1))
    assert torch.allclose(module(x, slots, patches.read), want, atol=1e-5)


@pytest.mark.parametrize(("slots", "heads"), [(3, 2), (1, 1), (2, 4)])
def test_gradients_are_those_of_what_is_computed(slots: int, heads: int) -> None:
    patches = Patches.of(STARTS, OFFSETS)
    torch.manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, query, both = draw(12, 4), draw(patches.count, slots, 4), draw(patches.count, slots, 2, 4)
    assert torch.autograd.gradcheck(lambda x: pool(x, patches.member, patches.count, "max"), (x,))
    inputs = query, x, draw(12, 4)
    assert torch.autograd.gradcheck(lambda q, k, v: _Pool.apply(q, k, v, patches.member, heads), inputs)
    assert torch.autograd.gradcheck(lambda q, b: _Read.apply(q, b, patches.read, heads), (x, both))


def test_equal_maxima_share_the_gradient() -> None:
    x = torch.tensor([[1.0], [3.0], [3.0], [9.0]], requires_grad=True)
    pool(x, torch.tensor([0, 0, 0, 1]), 1, "max").backward(torch.tensor([[6.0]]))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 3, 3, 0], "and none goes to what belongs to no patch"
