"""Tokenizers as codes for raw bytes: what they keep, what they lose, and that what is lost is paid for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pretrained_models as tiny
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from bench.evaluation.pretrained.config import PretrainedConfig, locate
from bench.evaluation.pretrained.load import load
from bench.evaluation.pretrained.model import PretrainedModel
from bench.evaluation.pretrained.vocabulary import ESCAPE, TokenVocabulary, Units, says_of

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bpe": tiny.bpe,
    "spaced bpe": lambda: tiny.bpe(prefix_space=True),
    "wordpiece": tiny.wordpiece,
    "unigram": tiny.unigram,
    "llama": tiny.llama,
}
CORNERS = [
    *(b"", b"a", b" a", b"  two  spaces ", b"The\r\nEnd\0", "naïve nai\u0308ve".encode(), "👩‍👩‍👧‍👦".encode(), b"\xff"),
    *(b"fox\xfe\xffdog \xe6\x9d", f"a {tiny.END}<s><unk>[UNK][CLS] b".encode(), "▁low ▁".encode()),
    *(b"\n\n", "東京".encode(), b"\x80 "),
]


@cache
def vocabulary(kind: str) -> TokenVocabulary:
    backend = TOKENIZERS[kind]()
    backend.encode_special_tokens = True
    return TokenVocabulary(backend, says_of(backend), None, 0)


def read_back(found: TokenVocabulary, doc: bytes, units: Units) -> bytes:
    """What can be known of a document from its tokens, the flags, and the bytes that are spelled."""
    if not len(units.ids):
        return doc  # spelled as it is
    (read,) = found._read([doc])  # not `units.starts`, which are places of bytes: the last token may say none
    ends = np.append(read.starts[1:], len(doc))
    out = b""
    for at, (i, says) in enumerate(zip(units.ids.tolist(), read.says, strict=True)):
        text = found.says[i]
        if at == 0 and found.spaced and text[:1] == b" ":
            text = text[1:]
        out += text if says else doc[read.starts[at] : ends[at]]
    return out


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(doc=st.one_of(st.binary(max_size=40), st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_can_be_read_back(kind: str, doc: bytes) -> None:
    found = vocabulary(kind)
    for text in (doc, b"The quick " + doc + b" fox"):
        (units,) = found.encode([text])
        assert read_back(found, text, units) == text
        assert len(units.paid) == len(text)
        assert (np.diff(units.starts) >= 0).all()
        assert (units.paid >= 0).all()
        assert (units.lossy > 0) <= (units.paid.sum() > math.log(ESCAPE))


for _doc in CORNERS:
    test_any_bytes_can_be_read_back = example(doc=_doc)(test_any_bytes_can_be_read_back)


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("bpe", []),
        ("spaced bpe", ["  two  spaces "]),
        ("wordpiece", ["Upper And LOWER", "東京"]),
        ("unigram", ["ＡＢＣ", "ﬁne"]),
        ("llama", ["▁ \u2581low"]),
    ],
)
def test_what_a_tokenizer_loses_is_known_by_example(kind: str, lost: list[str]) -> None:
    found = vocabulary(kind)
    assert bool(found.lost) == bool(lost) == (not found.describe()["lossless"])
    for part in lost:
        assert any(part in text for text in found.lost)
    assert found.describe()["lost"] == found.lost[:3]


@pytest.mark.parametrize("kind", ["bpe", "llama"])
def test_where_bytes_have_tokens_invalid_ones_are_kept(kind: str) -> None:
    found, doc = vocabulary(kind), b"fox\xfe\xffdog"
    (units,) = found.encode([doc])
    assert units.invalid == 2
    ids = units.ids[(units.starts == 3) | (units.starts == 4)].tolist()
    assert [found.says[i] for i in ids] == [b"\xfe", b"\xff"]
    assert kind == "llama" or units.lossy == 0


def test_what_looks_like_a_special_token_is_text() -> None:
    found = vocabulary("bpe")
    doc = f"a{tiny.END}b".encode()
    (units,) = found.encode([doc])
    assert 0 not in units.ids
    assert len(units.ids) > 5
    assert read_back(found, doc, units) == doc


def test_tokens_are_the_librarys(tmp_path: Path) -> None:
    found = vocabulary("bpe")
    text = tiny.TEXT * 2
    assert found.encode([text.encode()])[0].ids.tolist() == TOKENIZERS["bpe"]().encode(text).ids


def test_what_is_lost_is_paid_for_by_hand() -> None:
    """One of three tokens is lower-cased: its two bytes are spelled, each as one of 257, with an end."""
    found = vocabulary("wordpiece")
    doc = b"the The fox"
    (units,) = found.encode([doc])
    ids = [found.says[i] for i in units.ids]
    assert ids == [b" the", b" the", b" fox"]
    flags = [1 / 2, 1 / 3, 2 / 4]  # says, loses, says
    spelled = 5 * math.log(257)  # " The" and the end
    assert units.paid.sum() == pytest.approx(math.log(2 * ESCAPE) - sum(map(math.log, flags)) + spelled)
    assert units.lossy == 1
    (kept,) = found.encode([b"the the fox"])
    assert kept.paid.sum() == pytest.approx(-math.log(1 - 1 / ESCAPE))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_probabilities_of_short_documents_add_up_to_one_at_most(tmp_path: Path, kind: str) -> None:
    """All documents of one byte, and all of two or three letters that some tokenizers confuse."""
    torch.manual_seed(0)
    tiny.save_gpt2(tmp_path, TOKENIZERS[kind]())
    model = load(locate(PretrainedConfig(str(tmp_path))), 64, torch.device("cpu"))
    assert mass(model, [bytes([b]) for b in range(256)]) <= 1 + 1e-3
    for size in (2, 3):
        assert mass(model, [bytes(letters) for letters in itertools.product(b"aA \xc3\xa9\n", repeat=size)]) <= 1 + 1e-3


def mass(model: PretrainedModel, docs: list[bytes]) -> float:
    found = float(np.exp([-nats.sum() for nats in model.nats(docs)]).sum())
    assert found > 0
    return found


def test_a_free_ride_would_be_seen(tmp_path: Path) -> None:
    """Without what is paid for lost bytes, upper and lower case would have the probability of one text each."""
    torch.manual_seed(0)
    tiny.save_gpt2(tmp_path, tiny.wordpiece(), bos_token="[CLS]")
    model = load(locate(PretrainedConfig(str(tmp_path))), 64, torch.device("cpu"))
    lower, upper = (model.score([doc]).nats[0].sum() for doc in (b"the quick fox", b"THE QUICK FOX"))
    encoded = model.vocabulary.encode([b"the quick fox", b"THE QUICK FOX"])
    assert encoded[0].ids.tolist() == encoded[1].ids.tolist()
    assert upper > lower + 13 * math.log(257)
