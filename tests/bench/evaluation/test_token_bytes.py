"""Tokens of a vocabulary tell the text: one id, one string of bytes, wherever it stands."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from patcher_cases import CASES, LABELS, fitted, texts
from tiny import TEXT, token_lm

from bench.data.cut_corpus import CutDocuments, Cuts, cut
from bench.evaluation.audit import alone, future, kraft_next, kraft_short
from bench.evaluation.byte_model import CutModel
from bench.evaluation.token_bytes import TokenBytes
from patchers import Patcher, Starts, get
from patchers.errors import BenchError

DOCS = [TEXT * 3, TEXT[7:] * 2, b"", b"a", TEXT[50:] * 4]
WITH_VOCABULARY = [number for number, (name, _) in enumerate(CASES) if hasattr(get(name), "encode")]


class SaysNothing(Patcher):
    """Bytes to byte 64 of a document, where audits of probabilities look; then eight bytes a token, all of them 256."""

    name = "says-nothing"
    causal: ClassVar[bool] = False
    vocab_size = 257

    def segment(self, data: bytes) -> Starts:
        return self.encode(data)[1]

    def encode(self, data: bytes) -> tuple[Any, Starts]:
        starts = np.arange(len(data)) % 8 == 0
        starts[:64] = True
        head = np.frombuffer(data[:64], np.uint8).astype(np.int32)
        return np.append(head, np.full(int(starts[64:].sum()), 256, np.int32)), starts


def test_tokens_that_tell_nothing_have_no_bits() -> None:
    model = CutModel(token_lm(257), SaysNothing(), 256, with_ids=True)
    with pytest.raises(BenchError, match=r"the token 256 stands for b'.*' in one place and for b'.*' in another"):
        model.nats(DOCS)
    assert len(model.nats([TEXT[:60]])[0]) == 60, "as far as they tell the text they are scored"


def test_audits_of_probabilities_would_not_have_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """They look at the beginnings of documents."""
    monkeypatch.setattr(TokenBytes, "check", lambda self, corpus: None)
    model = CutModel(token_lm(257), SaysNothing(), 256, with_ids=True)
    docs = [doc for doc in DOCS if doc]
    rng = np.random.default_rng(0)
    found = future(model, docs, rng), alone(model, docs), kraft_next(model, docs, 4, rng), kraft_short(model)
    assert all(one.passed for one in found), found
    every_token = model.nats(docs[:1])[0][64:]
    assert np.count_nonzero(every_token) <= len(every_token) / 8 + 1, "seven of eight bytes cost nothing"


@pytest.mark.parametrize("case", WITH_VOCABULARY, ids=[LABELS[number] for number in WITH_VOCABULARY])
def test_every_vocabulary_of_ours_tells_the_text(case: int) -> None:
    patcher, seen = fitted(case), TokenBytes()
    edges = [b"", b"a", b" a", b"\xff\xfe", "é東🙂 naïve".encode(), b"The THE the\r\n\0", bytes(range(256))]
    for docs in (texts()[1][:20], edges, [TEXT] * 3):
        seen.check(CutDocuments.of(docs, cut(patcher, docs, with_ids=True)))
    assert len(seen.known) > 20


@pytest.mark.parametrize("at", [1, 5, 70_000, 140_000])
def test_one_token_that_says_something_else_is_found(at: int) -> None:
    """Among more than are compared at a time."""
    data = np.tile(np.frombuffer(b"abcd", np.uint8), 40_000)
    data[at] = ord("x")
    ids = np.tile(np.arange(4, dtype=np.int32), 40_000)
    corpus = CutDocuments(data, np.array([0, len(data)]), Cuts(np.ones(len(data), bool), ids))
    with pytest.raises(BenchError, match=rf"the token {at % 4} stands for b'[{'abcd'[at % 4]}x]' in one place"):
        TokenBytes().check(corpus)


def test_other_lengths_and_other_calls_are_compared() -> None:
    def corpus(text: bytes, starts: list[int], ids: list[int]) -> CutDocuments:
        flags = np.zeros(len(text), bool)
        flags[starts] = True
        return CutDocuments.of([text], Cuts(flags, np.array(ids, np.int32)))

    with pytest.raises(BenchError, match="the token 1 stands for b'b' in one place and for b'bb' in another"):
        TokenBytes().check(corpus(b"abcbb", [0, 1, 2, 3], [0, 1, 2, 1]))
    seen = TokenBytes()
    seen.check(corpus(b"ab", [0, 1], [0, 1]))
    seen.check(corpus(b"cab", [0, 1, 2], [1, 0, 1]))  # the first of a document is left out
    with pytest.raises(BenchError, match="the token 1 stands for b'b' in one place and for b'c' in another"):
        seen.check(corpus(b"ac", [0, 1], [0, 1]))
