"""Segment operations and both cross-attentions against dense, masked ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import shaken

from models.attention import segment_of
from models.batch import Patches
from models.plan import Cut, Members
from models.pooling import PatchQueries, PatchReader, pool

STARTS = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1], dtype=torch.bool)
OFFSETS = torch.tensor([0, 8, 12])


def test_ids_of_a_hand_worked_example() -> None:
    """Two documents, cut |abc|d|efgh| and |ij|k|l|; patches 0 and 3 are BOS."""
    patches = Patches.of(STARTS, OFFSETS)
    assert patches.count == 8, "room for two more than there are"
    assert patches.first.tolist() == [0, 3, 6]
    #                                BOS a  b  c  d  e  f  g   BOS i  j  k
    assert patches.member.tolist() == [0, 1, 1, 1, 2, 8, 8, 8, 3, 4, 4, 5], "8: never complete in its window"
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


def test_a_plan_of_the_hand_worked_example() -> None:
    cut = Cut.of(STARTS, OFFSETS, room=16, slots=3, late=False)
    assert cut.members.last[:6].tolist() == [0, 3, 4, 8, 10, 11]
    assert cut.members.size[:, 0].tolist() == [1, 3, 1, 1, 2, 1, 0, 0]
    keys, queries = cut.members.positions.cu.tolist(), cut.members.slots.cu.tolist()
    #                   BOS a-c d  e-g BOS ij k  and padding, of which two patches without positions are a part
    assert keys[:9] == [0, 1, 4, 5, 8, 9, 11, 12, 16]
    assert queries[:11] == [0, 3, 6, 9, 9, 12, 15, 18, 18, 21, 24]
    assert (keys[-1], queries[-1], len(keys)) == (16, 24, len(queries))
    assert cut.readers.cu.tolist() == [0, 3, 4, 8, 10, 11, 12, 12, 16], "what pads reads the last"
    assert cut.latent.segments.cu[:4].tolist() == [0, 3, 6, 8]
    assert cut.bos.tolist() == [0, 0, 0, 3, 3, 3, 6, 6]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 99), st.booleans())
def test_plans_cover_all_places(lengths: list[int], seed: int, late: bool) -> None:
    """Each patch's positions and readers, against the ids that they come from."""
    rng = np.random.default_rng(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    n = int(offsets[-1])
    starts = torch.from_numpy(rng.random(n) < 0.3).index_fill(0, offsets[:-1], True)
    cut, patches = Cut.of(starts, offsets, n + 5, 2, late), Patches.of(starts, offsets, late)
    of_key = segment_of(cut.members.positions.cu, n + 5)
    of_slot = segment_of(cut.members.slots.cu, 2 * patches.count)
    for patch in range(patches.count):
        asked = of_slot[2 * patch]
        assert asked == of_slot[2 * patch + 1]
        wanted = (patches.member == patch).nonzero()[:, 0].tolist()
        assert (of_key == asked).nonzero()[:, 0].tolist() == wanted
    assert torch.equal(segment_of(cut.readers.cu, n + 5)[:n], patches.read)


@pytest.mark.parametrize("how", ["max", "mean", "last"])
def test_pooling_equals_a_loop(how: str) -> None:
    members = Cut.of(STARTS, OFFSETS, 12, 1, False).members
    x = torch.randn(12, 4)
    rows = []
    for p in range(6):
        mine = x[members.member == p]
        rows.append({"max": mine.amax(0), "mean": mine.mean(0), "last": mine[-1]}[how])
    assert torch.allclose(pool(x, members, how)[:6], torch.stack(rows), atol=1e-6)


def test_cross_attention_pooling_equals_a_dense_mask() -> None:
    members = Cut.of(STARTS, OFFSETS, 12, 3, False).members
    module = shaken(PatchQueries(16, 3, 2))
    assert isinstance(module, PatchQueries)
    x = torch.randn(12, 16)
    slots = module.expand(pool(x, members, "max")).view(8, 3, 16)[:6]
    query = module.query(module.query_norm(slots)).view(6, 3, 2, 8)
    key, value = module.key_value(module.key_norm(x)).view(12, 2, 2, 8).unbind(1)
    scores = torch.einsum("pshe,the->psht", query, key) / math.sqrt(8)
    outside = members.member[None] != torch.arange(6)[:, None]
    weights = scores.masked_fill(outside[:, None, None], -math.inf).softmax(-1)
    want = slots + module.out(torch.einsum("psht,the->pshe", weights, value).flatten(2))
    assert torch.allclose(module(x, members).view(-1, 3, 16)[:6], want, atol=1e-5)


def test_reading_equals_dense_attention_over_all_slots() -> None:
    cut = Cut.of(STARTS, OFFSETS, 12, 3, False)
    module = shaken(PatchReader(16, 2))
    assert isinstance(module, PatchReader)
    x, slots = torch.randn(12, 16), torch.randn(8, 3, 16)
    query = module.query(module.query_norm(x)).view(12, 2, 8)
    key, value = module.key_value(module.slot_norm(slots)).view(8, 3, 2, 2, 8).unbind(2)
    scores = torch.einsum("the,pshe->thps", query, key) / math.sqrt(8)
    outside = cut.read[:, None] != torch.arange(8)
    weights = scores.masked_fill(outside[:, None, :, None], -math.inf).flatten(2).softmax(-1).view_as(scores)
    want = module.out(torch.einsum("thps,pshe->the", weights, value).flatten(1))
    assert torch.allclose(module(x, slots, cut), want, atol=1e-5)


def test_equal_maxima_share_the_gradient() -> None:
    x = torch.tensor([[1.0], [3.0], [3.0], [9.0]], requires_grad=True)
    pool(x, Members.of(torch.tensor([0, 0, 0, 1]), 1, 1), "max").backward(torch.tensor([[6.0]]))
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 3, 3, 0], "and none goes to what belongs to no patch"
