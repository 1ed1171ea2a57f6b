"""Nats per byte through windows, batches and vocabularies, and the task that makes bits per byte of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from asking import Told, material
from tiny import SMALL, TEXT, byte_lm, documents, harness, silence, token_lm
from torch import nn

from bench.data.config import Document
from bench.evaluation import tasks
from bench.evaluation.byte_model import CutModel, Scores
from bench.evaluation.tasks import bpb
from bench.evaluation.tasks.bpb import LATENT_GAIN_BYTES, BitsPerByte
from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness, Prediction, Price
from models.initialization import initialise
from models.plan import Sequences
from models.token_lm import TokenLM
from patchers import Patcher, create

LONG = TEXT * 3  # three windows and more


def bpe() -> Patcher:
    return create("bpe", vocab=280).fit([TEXT] * 3)


def model_of(kind: str, window: int = 1024, batch_bytes: int = 16384) -> CutModel:
    tokens = bpe()
    modules: dict[str, Any] = {
        "stride": lambda: (harness(), create("stride", stride=3)),
        "whitespace": lambda: (harness(), create("whitespace")),
        "end": lambda: (harness("end"), tokens),
        "start": lambda: (harness("start"), tokens),
        "token_lm": lambda: (token_lm(tokens.vocab_size), tokens),  # type: ignore[attr-defined]
        "byte_lm": lambda: (byte_lm(), None),
    }
    module, patcher = modules[kind]()
    return CutModel(module, patcher, window, batch_bytes=batch_bytes, with_ids=kind == "token_lm")


KINDS = ["stride", "whitespace", "end", "start", "token_lm", "byte_lm"]


def as_documents(texts: Sequence[bytes]) -> list[Document]:
    return [Document(f"{i:016x}", text) for i, text in enumerate(texts)]


# --- a model that knows nothing


def uniform(kind: str) -> CutModel:
    model = model_of(kind)
    silence(model.module)
    return model


@pytest.mark.parametrize("kind", ["stride", "whitespace", "byte_lm"])
def test_a_uniform_model_scores_exactly_eight_bits_per_byte(kind: str) -> None:
    texts = [TEXT, b"x", LONG, TEXT[5:77]]
    model = uniform(kind)
    result = BitsPerByte().run(model, material(as_documents(texts)))
    for text, (_, bits, count) in zip(texts, result.metrics["bpb"].documents, strict=True):
        assert count == len(text)
        assert bits == pytest.approx(8 * count, rel=1e-15)
    assert result.metrics["bpb"].value == pytest.approx(8.0, rel=1e-15)
    assert all((nats == math.log(256)).all() for nats in model.nats(texts))


@pytest.mark.parametrize("kind", ["end", "start"])
def test_a_uniform_priced_model_pays_a_bit_for_each_flag(kind: str) -> None:
    scores = uniform(kind).score([TEXT])
    assert scores.flag_nats is not None
    paid = np.full(len(TEXT), 1.0)
    if kind == "end":
        paid[-1] = 0.0  # nothing tells whether a patch ends where its document does
    assert scores.flag_nats[0] / math.log(2) == pytest.approx(paid, abs=1e-12)
    assert scores.nats[0] / math.log(2) == pytest.approx(8 + paid, abs=1e-12)


def test_a_uniform_token_model_pays_for_tokens() -> None:
    model = uniform("token_lm")
    tokens = bpe()
    ids = tokens.encode(LONG)[0]  # type: ignore[attr-defined]
    (nats,) = model.nats([LONG])
    assert nats.sum() == pytest.approx(len(ids) * math.log(tokens.vocab_size))  # type: ignore[attr-defined]


# --- windows


class Where(nn.Module):
    """Nats that say where in its window a byte was predicted."""

    def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
        assert dtype == torch.float32
        assert not torch.is_grad_enabled()
        return Prediction(batch.positions().float())


@pytest.mark.parametrize("window", [2, 7, 64])
@pytest.mark.parametrize("batch_bytes", [1, 100, 16384])
def test_every_byte_is_predicted_once_from_half_a_window_at_least(window: int, batch_bytes: int) -> None:
    sizes = [0, 1, window - 1, window, window + 1, 5 * window + 3, 0]
    model = CutModel(Where(), None, window, batch_bytes=batch_bytes)
    half = window // 2
    for size, got in zip(sizes, model.nats([bytes(size) for size in sizes]), strict=True):
        want = [t if t < window else half + (t - window) % half for t in range(size)]
        assert got.tolist() == want
        assert got.dtype == np.float64


def test_a_long_document_is_as_good_as_its_windows() -> None:
    """Scored by hand: each window alone, and of each the part that counts."""
    model = model_of("byte_lm", window=64)
    text = LONG[:200]
    (got,) = model.nats([text])
    for begin, score, end in (
        (0, 0, 64),
        (32, 64, 96),
        (64, 96, 128),
        (96, 128, 160),
        (128, 160, 192),
        (160, 192, 200),
    ):
        (alone,) = model.nats([text[begin:end]])
        assert got[score:end] == pytest.approx(alone[score - begin :], abs=1e-5)


def test_a_cut_runs_through_windows() -> None:
    """A window inside of a document is cut as the document is, not anew from its own beginning."""
    seen: list[tuple[list[int], list[bool]]] = []

    class Looks(nn.Module):
        def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
            for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
                seen.append((batch.data[a:b].tolist(), batch.starts[a:b].tolist()))
            return Prediction(torch.zeros(len(batch.data)))

    text = bytes(range(100))
    CutModel(Looks(), create("stride", stride=7), 20).nats([text])
    assert len(seen) == 9
    for data, starts in seen:
        assert starts == [t % 7 == 0 for t in data]


def test_empty_documents_cost_nothing() -> None:
    for kind in ("stride", "end", "token_lm", "byte_lm"):
        model = model_of(kind)
        assert [len(n) for n in model.nats([b"", TEXT[:5], b"", b""])] == [0, 5, 0, 0]
        assert [len(n) for n in model.nats([b""])] == [0]
        assert model.nats([]) == []


# --- alone, batched, reordered


def exact(model: CutModel) -> CutModel:
    """Computed in float64: float32's sums have an order that depends on their sizes and on the CPU."""
    forward = model.module.forward
    model.module.forward = lambda batch, dtype, **more: forward(batch, torch.float64, **more)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_scores_the_same_alone_batched_and_reordered(kind: str) -> None:
    texts = [*documents(np.random.default_rng(0)), TEXT, LONG, b"", TEXT[9:]]
    model = exact(model_of(kind, window=100))
    together = model.nats(texts)
    order = np.random.default_rng(1).permutation(len(texts))
    reordered = dict(zip(order.tolist(), model.nats([texts[i] for i in order]), strict=True))
    small = exact(model_of(kind, window=100, batch_bytes=130)).nats(texts)
    for i, text in enumerate(texts):
        assert together[i].shape == (len(text),)
        for other in (model.nats([text])[0], reordered[i], small[i]):
            assert other == pytest.approx(together[i], rel=0, abs=1e-6)


# --- tokens


def test_a_token_model_scores_its_tokens() -> None:
    """The nats of a document are those of its canonical tokens, each at its first byte; by hand for one window."""
    tokens = bpe()
    module = token_lm(tokens.vocab_size)  # type: ignore[attr-defined]
    assert isinstance(module, TokenLM)
    ids, starts = tokens.encode(TEXT)  # type: ignore[attr-defined]
    assert len(ids) < len(TEXT)
    (got,) = CutModel(module, tokens, 1024, with_ids=True).nats([TEXT])
    before = torch.tensor([tokens.vocab_size, *ids[:-1].tolist()])  # type: ignore[attr-defined]
    with torch.no_grad():
        states = module.latent(module.token[before], Sequences.of(torch.tensor([len(ids)]), len(ids)))
        log_p = module.head(states).double().log_softmax(-1)
    want = -log_p[torch.arange(len(ids)), torch.from_numpy(ids.astype(np.int64))].numpy()
    assert got[starts] == pytest.approx(want, abs=1e-5)
    assert (got[~starts] == 0).all()


class CountsTokens(nn.Module):
    """A nat for each token of a window."""

    def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
        assert batch.ids is not None
        assert len(batch.ids) == int(batch.starts.sum())
        return Prediction(batch.starts.float())


def test_each_token_of_a_long_document_is_scored_once() -> None:
    tokens = bpe()
    for window in (6, 17, 64):
        got = CutModel(CountsTokens(), tokens, window, with_ids=True).nats([LONG, TEXT, b"e"])
        for text, nats in zip([LONG, TEXT, b"e"], got, strict=True):
            assert nats.sum() == len(tokens.encode(text)[0])  # type: ignore[attr-defined]


def test_windows_inside_a_token_are_no_trouble() -> None:
    """A token longer than half a window leaves a window without any token of its own."""
    text = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, " * 4
    tokens = create("bpe", vocab=400).fit([text] * 9)
    assert len(tokens.encode(text)[0]) < len(text) / 8  # type: ignore[attr-defined]
    module = token_lm(tokens.vocab_size)  # type: ignore[attr-defined]
    for batch_bytes in (1, 1000):
        (nats,) = CutModel(module, tokens, 8, batch_bytes=batch_bytes, with_ids=True).nats([text])
        assert np.isfinite(nats).all()
        assert (nats > 0).sum() == len(tokens.encode(text)[0])  # type: ignore[attr-defined]


# --- the task


def test_sums_are_per_document_and_over_raw_bytes() -> None:
    docs = as_documents([b"abcd", "été".encode(), b"\xff\xfe\x80"])
    result = BitsPerByte().run(Told(), material(docs))
    ids, bits, counts = zip(*result.metrics["bpb"].documents, strict=True)
    assert ids == tuple(d.id for d in docs)
    assert bits == pytest.approx((4, 5, 3))
    assert counts == (4, 5, 3)
    assert result.metrics["bpb"].unit == "bits/byte"
    assert result.metrics["bpb"].lower_is_better
    assert result.values == {}


def test_the_value_is_a_ratio_of_sums() -> None:
    class Varied(Told):
        def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
            return Scores([np.arange(len(d)) * math.log(2) for d in docs], None)

    metric = BitsPerByte().run(Varied(), material(as_documents([b"abcd", b"xy"]))).metrics["bpb"]
    assert metric.value == pytest.approx((0 + 1 + 2 + 3 + 0 + 1) / 6)


def test_bits_per_character_stand_beside_text_that_is_not_ascii() -> None:
    ascii_only = BitsPerByte().run(Told(), material(as_documents([b"plain", b"text"])))
    assert set(ascii_only.metrics) == {"bpb"}
    result = BitsPerByte().run(Told(), material(as_documents([b"plain", "été 東京".encode()])))
    assert set(result.metrics) == {"bpb", "bpc"}
    _, bits, characters = result.metrics["bpc"].documents[1]
    assert bits == pytest.approx(12)
    assert characters == 6
    assert result.metrics["bpc"].value == pytest.approx(17 / 11)
    assert result.metrics["bpc"].unit == "bits/character"


def test_the_share_of_flags() -> None:
    result = BitsPerByte().run(Told(per_byte=2.0, flag=0.5), material(as_documents([b"abc", b"de"])))
    assert result.values == {"flag_bits_share": pytest.approx(0.25)}


def test_documents_are_scored_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that of a large test split no byte's cost is held, and the sums are the same."""
    texts = as_documents([b"abc", b"", "été".encode(), b"d" * 9, b"ef"])
    together = BitsPerByte().run(Told(flag=0.1, gain=0.2), material(texts))
    asked: list[int] = []

    class Counts(Told):
        def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
            asked.append(len(docs))
            return super().score(docs, mute_latent)

    monkeypatch.setattr(bpb, "TOGETHER", 6)
    found = BitsPerByte().run(Counts(flag=0.1, gain=0.2), material(texts))
    assert asked == [3, 1, 1, 5], "the last is what latent_gain asks"
    assert found.as_json() == together.as_json()
    assert set(found.metrics) == {"bpb", "bpc"}
    assert 0 < found.values["flag_bits_share"] < 1


def test_latent_gain_is_what_muting_costs_on_the_first_documents() -> None:
    model = Told(gain=0.3 * math.log(2))
    size = LATENT_GAIN_BYTES // 4
    result = BitsPerByte().run(model, material(as_documents([bytes([i]) * size for i in range(9)])))
    assert result.values["latent_gain"] == pytest.approx(0.3)
    assert model.muted_bytes == LATENT_GAIN_BYTES
    few = Told(gain=math.log(2))
    assert BitsPerByte().run(few, material(as_documents([b"ab", b"c"]))).values["latent_gain"] == pytest.approx(1)
    assert few.muted_bytes == 3


@pytest.mark.parametrize(("kind", "price"), [("stride", None), ("start", "start")])
def test_a_latent_model_that_is_used_has_a_gain(kind: str, price: Price | None) -> None:
    model = model_of(kind)
    assert model.has_latent
    values = BitsPerByte().run(model, material(as_documents([TEXT]))).values
    assert values["latent_gain"] != 0
    assert ("flag_bits_share" in values) == (price is not None)
    assert "latent_gain" not in BitsPerByte().run(model_of("byte_lm"), material(as_documents([TEXT]))).values


def test_scores_do_not_depend_on_the_dtype_that_was_trained_in() -> None:
    """Scores are float32 products with float64 sums: a document's bits are those of its probabilities."""
    model = ByteLM(ByteLMConfig(width=32, layers=1, heads=2, window=8))
    initialise(model, 0)
    (nats,) = CutModel(model.eval(), None, 1024).nats([TEXT])
    with torch.no_grad():
        logits = model.logits(torch.tensor(list(TEXT)), torch.tensor([0, len(TEXT)]))
    log_p = logits.double().log_softmax(-1)[torch.arange(len(TEXT)), torch.tensor(list(TEXT))]
    assert nats == pytest.approx(-log_p.numpy(), abs=1e-6)


def test_an_untrained_model_is_near_eight() -> None:
    module = Harness(SMALL)
    initialise(module, 0)
    model = CutModel(module.eval(), create("stride"), 1024)
    assert BitsPerByte().run(model, material(as_documents([LONG]))).metrics["bpb"].value == pytest.approx(8, abs=1)


def test_the_task_is_found_by_its_name() -> None:
    assert tasks.get("bpb") is BitsPerByte
