"""Texts that begin alike, scored from their shared beginning: what a pass over each whole text says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kinds import KINDS
from tiny import OPTIONS, SMALL, TEXT, harness
from torch import nn

from bench.data.cut_corpus import CutDocuments, cut
from models.byte_lm import ByteLM
from models.decoding.shared_prefix import Branches, common_prefix, ranges, score
from models.harness import Harness
from models.token_lm import TokenLM
from patchers import Patcher, create

Kind = Callable[[], tuple[nn.Module, Patcher | None]]
MADE: dict[str, Kind] = dict(KINDS) | {
    str(options): lambda o=options: (harness(config=dataclasses.replace(SMALL, **o)), create("whitespace"))
    for options in OPTIONS
}


def texts_of(rng: np.random.Generator, groups: int = 3) -> tuple[list[bytes], np.ndarray]:
    """Texts, and the group of each; those of a group begin alike, with nothing at least."""
    letters = np.frombuffer(TEXT, np.uint8)
    texts, group = [], []
    for g in range(groups):
        trunk = bytes(rng.choice(letters, int(rng.integers(0, 60))))
        for _ in range(int(rng.integers(1, 4))):
            texts.append(trunk + bytes(rng.choice(letters, int(rng.integers(1, 30)))))
            group.append(g)
    return texts, np.array(group)


def branches_of(module: nn.Module, patcher: Patcher | None, texts: list[bytes], group: np.ndarray) -> Branches:
    """Each group shares as many positions as may be: position p reads bytes before p and whether byte p is a start."""
    if patcher is None or (isinstance(module, Harness) and module.router is not None):
        corpus = CutDocuments.uncut(texts)
    else:
        corpus = CutDocuments.of(texts, cut(patcher, texts, isinstance(module, TokenLM)))
    starts = np.split(corpus.cuts.starts[:], corpus.offsets[1:-1])
    shared = []
    for g in range(group[-1] + 1):
        own = np.flatnonzero(group == g)
        a = own[0]
        n = min(len(texts[i]) for i in own)
        while any(texts[i][: n - 1] != texts[a][: n - 1] or (starts[i][:n] != starts[a][:n]).any() for i in own):
            n -= 1
        shared.append(n)
    return Branches(corpus.windows(np.stack((corpus.offsets[:-1], corpus.offsets[1:]), 1)), group, np.array(shared))


@pytest.mark.parametrize("kind", MADE)
def test_branches_are_scored_as_whole_texts_are(kind: str) -> None:
    module, patcher = MADE[kind]()
    rng = np.random.default_rng(0)
    saved = 0
    for _ in range(5):
        branches = branches_of(module, patcher, *texts_of(rng))
        # any shorter beginning is shared as well
        for shared in (branches.shared, np.maximum(1, branches.shared // 2), np.ones_like(branches.shared)):
            some = dataclasses.replace(branches, shared=shared)
            with torch.inference_mode():
                want = module(some.texts, torch.float32).nats
            got = score(module, some)
            assert got.nats == pytest.approx(want.double(), abs=3e-5)
            saved += len(some.texts.data) - int(shared.sum()) - len(some.own())
    assert saved > 200, "something is shared"


@pytest.mark.parametrize("kind", ["stride", "router", "byte_lm"])
def test_the_best_byte_is_the_full_forwards(kind: str) -> None:
    module, patcher = KINDS[kind]()
    branches = branches_of(module, patcher, *texts_of(np.random.default_rng(1)))
    texts = branches.texts
    with torch.inference_mode():
        logits = module.logits(texts.data, texts.offsets) if isinstance(module, ByteLM) else module.logits(texts)  # type: ignore[operator]
    best = score(module, branches).best
    assert best is not None
    assert (best == (logits.argmax(1) == texts.data)).all()


@pytest.mark.parametrize("kind", ["end", "start", "token_lm"])
def test_who_predicts_more_than_bytes_names_no_best_one(kind: str) -> None:
    module, patcher = KINDS[kind]()
    assert score(module, branches_of(module, patcher, [b"abc"], np.zeros(1, int))).best is None


def test_a_window_in_the_midst_of_a_token_has_no_nats() -> None:
    module, patcher = KINDS["token_lm"]()
    assert patcher is not None
    cuts = cut(patcher, [b" the"], True)
    cuts.starts[1:].fill(False)
    corpus = CutDocuments.of([b" the"], cuts)
    alone = corpus.windows(np.array([[1, 4]]))
    assert score(module, Branches(alone, np.zeros(1, int), np.array([3]))).nats.tolist() == [0, 0, 0]
    both = corpus.windows(np.array([[0, 3], [1, 4]]))
    got = score(module, Branches(both, np.array([0, 1]), np.array([3, 3]))).nats
    assert got[0] > 0
    assert got[1:].tolist() == [0] * 5


@pytest.mark.parametrize("bad", [[0], [5]])
def test_what_is_shared_is_inside_of_every_text(bad: list[int]) -> None:
    texts = branches_of(*KINDS["byte_lm"](), [b"abcd", b"abc"], np.zeros(2, int)).texts
    with pytest.raises(AssertionError):
        Branches(texts, np.zeros(2, int), np.array(bad))


@given(st.lists(st.tuples(st.integers(-5, 50), st.integers(0, 6)), max_size=6))
def test_ranges(parts: list[tuple[int, int]]) -> None:
    begins, counts = np.array([p[0] for p in parts], int), np.array([p[1] for p in parts], int)
    assert ranges(begins, counts).tolist() == [b + i for b, n in parts for i in range(n)]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_prefix(a: list[int], b: list[int]) -> None:
    n = common_prefix(np.array(a, int), np.array(b, int))
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]
