"""Hash embeddings against plain Python integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.hash_embeddings import (
    KeptGradients,
    NgramEmbedding,
    PatchStateEmbedding,
    gram_rows,
    look_up,
    open_patch_rows,
    prime_below,
)

A = 6_364_136_223_846_793_005
DOCS = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5)


def flat(docs: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    data = torch.tensor(list(b"".join(docs)))
    return data, torch.cat([torch.arange(len(d)) for d in docs])


def looked_up(table: NgramEmbedding, data: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = table(table.rows_of(data, positions), torch.float32)
    return out


def signed(x: int) -> int:
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x


@given(DOCS)
def test_gram_rows_equal_a_plain_loop(docs: list[bytes]) -> None:
    sizes, rows = (1, 3, 4), 97
    got = gram_rows(*flat(docs), sizes, rows)
    want = []
    for doc in docs:
        for p in range(len(doc)):
            line = []
            for g, n in enumerate(sizes):
                value = sum((doc[p - back] + 1) * pow(A, back - 1, 1 << 63) for back in range(1, n + 1) if p >= back)
                line.append((value & ((1 << 63) - 1)) % rows + g * rows if p >= n else len(sizes) * rows)
            want.append(line)
    assert got.tolist() == want


@given(DOCS, st.integers(0, 2**32 - 1))
def test_open_patch_rows_equal_a_plain_loop(docs: list[bytes], seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = [np.concatenate(([True], rng.random(len(d) - 1) < 0.3)) for d in docs]
    data, positions = flat(docs)
    length, row = open_patch_rows(data, torch.from_numpy(np.concatenate(starts)), positions, 101)
    want = []
    for doc, s in zip(docs, starts, strict=True):
        for p in range(len(doc)):
            begin = max((i for i in range(p) if s[i]), default=0)
            value = signed(sum((doc[j] + 1) * A ** (j - begin) for j in range(begin, p)))
            mixed = value ^ ((value >> 29) & 0x7FFFFFFFF)
            want.append((p - begin, (mixed & ((1 << 63) - 1)) % 100 + 1 if p > begin else 0))
    assert list(zip(length.tolist(), row.tolist(), strict=True)) == want


def test_a_gram_that_does_not_fit_adds_nothing() -> None:
    table = NgramEmbedding((3, 5), 50, 8, std=0.1)
    torch.nn.init.normal_(table.table)
    out = looked_up(table, *flat([b"abcdefg"]))
    assert (out[:3] == 0).all()
    assert (out[3:] != 0).any(1).all()
    two = looked_up(table, *flat([b"zzzz", b"abcdefg"]))
    assert torch.equal(two[4:], out), "grams never reach into the document before"


def test_tables_have_a_prime_number_of_rows() -> None:
    assert [prime_below(n) for n in (2, 3, 4, 10, 100, 32768)] == [2, 3, 3, 7, 97, 32749]
    assert NgramEmbedding((3, 4), 100, 8, std=0.1).table.shape == (2 * 97 + 1, 8)


def test_the_flag_is_not_read_where_it_is_not_known() -> None:
    data, positions = flat([b"abcdef"])
    starts = torch.tensor([True, False, False, True, False, False])
    for knows in (True, False):
        state = PatchStateEmbedding(50, 4, knows_flag=knows)
        for parameter in state.parameters():
            torch.nn.init.normal_(parameter)
        base = state(state.told(data, starts, positions, 6), torch.float32)
        flipped = starts.clone()
        flipped[3] = False
        moved = (state(state.told(data, flipped, positions, 6), torch.float32) != base).any(1).nonzero()[:, 0].tolist()
        assert moved[0] == (3 if knows else 4)


def test_the_gradient_of_a_lookup_is_that_of_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 8, (20, 3), generator=generator)
    table = torch.randn(8, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: look_up(t, rows, 7), (table,))
    want = torch.nn.functional.embedding_bag(rows, table, mode="sum", padding_idx=7)
    assert torch.allclose(look_up(table, rows, 7), want)
    assert torch.allclose(look_up(table, rows[:, :1]), table[rows[:, 0]])


@pytest.mark.parametrize("rows", [50, 5000], ids=["most rows are looked up", "few rows are looked up"])
def test_gradients_that_are_kept_are_those_that_would_be_made_anew(rows: int) -> None:
    torch.manual_seed(0)
    apart, kept_one = (NgramEmbedding((3, 4), rows, 8, 0.1) for _ in range(2))
    torch.nn.init.normal_(apart.table)
    kept_one.load_state_dict(apart.state_dict())
    kept = KeptGradients(kept_one)
    for step in range(2):  # the second finds nothing of the first
        data = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(step))
        slope = torch.randn(40, 8)
        for module in (apart, kept_one):
            module.table.grad = None
            for _ in range(2):  # two looks into one table add up
                (looked_up(module, data, torch.arange(40)) * slope).sum().backward()
        kept.show()
        assert apart.table.grad is not None
        assert kept_one.table.grad is not None
        assert torch.allclose(kept_one.table.grad, apart.table.grad, atol=1e-5)  # sums of sums, and sums
        assert apart.table.grad.any()
        kept.clear()
        assert not kept_one.table.grad.any(), "what was added is zero again"
    kept.let_go()
    (looked_up(kept_one, data, torch.arange(40)) * slope).sum().backward()
    assert kept_one.table.grad is not None
    assert kept_one.table.grad.any()
