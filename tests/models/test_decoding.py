"""Decoding step by step says what the full forward says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OPTIONS, SMALL, TEXT, batch_of, harness, random_starts, shaken

from models.byte_lm import ByteLM, ByteLMConfig
from models.decoding import modules
from models.decoding.baselines import ByteLMDecoder, TokenLMDecoder
from models.decoding.step import HarnessDecoder
from models.harness import Harness, Price
from models.router import CosineRouter
from models.token_lm import TokenLM, TokenLMConfig

WAYS = {"compiled": modules.NARROW, "torch": 0}
"""Widths up to which parts run compiled."""

PRICES: list[Price | None] = [None, "end", "start"]
CLOSE = 1e-4


@pytest.fixture(params=WAYS)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "NARROW", WAYS[request.param])


both_ways = pytest.mark.usefixtures("_way")


def bytes_like_text(size: int, rng: np.random.Generator) -> bytes:
    return bytes(rng.choice(np.frombuffer(TEXT, np.uint8), size))


def full_logits(model: Harness, data: bytes, starts: np.ndarray) -> torch.Tensor:
    """(len(data) + 1, V): the last one predicts the byte after the data; starts has an entry for it."""
    with torch.no_grad():
        return model.logits(batch_of([data + b"\0"], [starts]))


def told(model: Harness, starts: np.ndarray, p: int) -> np.ndarray:
    """The flag that goes with byte p."""
    return np.array([starts[p] if model.price == "start" else starts[p + 1]])


def begin(model: Harness, data: bytes, starts: np.ndarray, n: int) -> HarnessDecoder:
    return HarnessDecoder(model, [data[:n]], [starts[: n if model.price == "start" else n + 1]])


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cached_logits_are_those_of_the_full_forward(price: Price | None, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    model = harness(price, dataclasses.replace(SMALL, **options))
    for n in (0, 1, 2, 7, 30):
        data, starts = bytes_like_text(70, rng), random_starts(71, rng)
        want = full_logits(model, data, starts)
        decoder = begin(model, data, starts, n)
        for p in range(n, 71):
            assert torch.allclose(decoder.logits[0], want[p], atol=CLOSE), p
            known = starts[: p + 1].sum() if price != "start" else max(1, starts[:p].sum())
            if model.config.latent_patches == "cut":
                assert decoder.patches[0] == known, "latent steps are patches"
            else:
                assert decoder.patches[0] == 1, "BOS's, and no other"
            if p < 70:
                decoder.step(np.array([data[p]]), told(model, starts, p))


@pytest.mark.parametrize("way", WAYS)
def test_any_batch_of_any_prompts(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of different lengths, cut differently, give what each gives in the full forward."""
    monkeypatch.setattr(modules, "NARROW", WAYS[way])
    settings(max_examples=15)(given(st.data())(any_batch))()


def any_batch(draw: st.DataObject) -> None:
    price = draw.draw(st.sampled_from(PRICES))
    options: dict[str, Any] = draw.draw(st.sampled_from(OPTIONS))
    model = harness(price, dataclasses.replace(SMALL, **options))
    lengths = draw.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**31)))
    steps = 25
    data = [bytes(rng.integers(0, 256, n + steps, dtype=np.uint8)) for n in lengths]
    starts = [random_starts(len(d) + 1, rng, 1 + 4 * rng.random()) for d in data]
    want = [full_logits(model, d, s) for d, s in zip(data, starts, strict=True)]
    decoder = HarnessDecoder(
        model,
        [d[:n] for d, n in zip(data, lengths, strict=True)],
        [s[: n if price == "start" else n + 1] for s, n in zip(starts, lengths, strict=True)],
    )
    rows = list(range(len(lengths)))
    for i in range(steps):
        for row, r in enumerate(rows):
            assert torch.allclose(decoder.logits[row], want[r][lengths[r] + i], atol=CLOSE)
        if i == 10 and len(rows) > 1:
            kept = [int(x) for x in rng.permutation(len(rows))[: len(rows) - 1]]
            decoder.keep(kept)
            rows = [rows[k] for k in kept]
        flags = np.concatenate([told(model, starts[r], lengths[r] + i) for r in rows])
        decoder.step(np.array([data[r][lengths[r] + i] for r in rows]), flags)


@both_ways
def test_rows_of_different_lengths_far_beyond_the_window() -> None:
    """What a window remembers is moved to the front now and then; who has a short past keeps it."""
    rng = np.random.default_rng(6)
    model = harness()
    data, starts = [bytes_like_text(n + 120, rng) for n in (0, 77)], [random_starts(n + 121, rng) for n in (0, 77)]
    want = [full_logits(model, d, s) for d, s in zip(data, starts, strict=True)]
    decoder = HarnessDecoder(model, [data[0][:0], data[1][:77]], [starts[0][:1], starts[1][:78]])
    for i in range(120):
        for row, n in enumerate((0, 77)):
            assert torch.allclose(decoder.logits[row], want[row][n + i], atol=CLOSE), i
        flags = np.array([starts[0][i + 1], starts[1][78 + i]])
        decoder.step(np.array([data[0][i], data[1][77 + i]]), flags)


@both_ways
def test_a_router_cuts_while_it_writes() -> None:
    rng = np.random.default_rng(2)
    for inject in ("add", "cross_attention"):
        config = dataclasses.replace(SMALL, pool="last", inject=inject)
        model = shaken(Harness(config, router=CosineRouter(config.local_width, 4.0)))
        assert isinstance(model, Harness)
        with torch.no_grad():
            model.router.key.copy_(torch.eye(config.local_width) + 0.1)  # type: ignore[union-attr]
        data = [bytes_like_text(90, rng), bytes_like_text(70, rng)]
        want, cuts = [], []
        for d in data:
            with torch.no_grad():
                batch = batch_of([d + b"\0"], [np.arange(len(d) + 1) == 0])
                decoded = model.states(batch, torch.float32)
                want.append(model.read_out(decoded))
                assert decoded.routing is not None
                cuts.append(decoded.routing.starts)
        assert 0.05 < float(cuts[0].float().mean()) < 0.95
        decoder = HarnessDecoder(model, [data[0][:30], data[1][:10]], None)
        for i in range(60):
            for row, n in enumerate((30, 10)):
                assert torch.allclose(decoder.logits[row], want[row][n + i], atol=CLOSE)
                assert decoder.starts[row] == cuts[row][n + i]
                assert decoder.patches[row] == cuts[row][: n + i + 1].sum()
            decoder.step(np.array([data[0][30 + i], data[1][10 + i]]))


@both_ways
@pytest.mark.parametrize("ngrams", [(), (3, 5)])
def test_a_byte_model_without_patches(ngrams: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    model = shaken(ByteLM(ByteLMConfig(width=32, layers=2, heads=2, window=8, ngrams=ngrams, ngram_rows=97)))
    assert isinstance(model, ByteLM)
    data, lengths = [bytes_like_text(n + 40, rng) for n in (0, 3, 25)], (0, 3, 25)
    with torch.no_grad():
        want = [model.logits(torch.tensor(list(d + b"\0")), torch.tensor([0, len(d) + 1])) for d in data]
    decoder = ByteLMDecoder(model, [d[:n] for d, n in zip(data, lengths, strict=True)])
    for i in range(40):
        for row, n in enumerate(lengths):
            assert torch.allclose(decoder.logits[row], want[row][n + i], atol=CLOSE)
        decoder.step(np.array([d[n + i] for d, n in zip(data, lengths, strict=True)]))


@both_ways
def test_a_token_model() -> None:
    rng = np.random.default_rng(4)
    model = shaken(TokenLM(TokenLMConfig(width=32, layers=2, heads=2), 50))
    assert isinstance(model, TokenLM)
    lengths = (0, 1, 20)
    ids = [rng.integers(0, 50, n + 70) for n in lengths]
    decoder = TokenLMDecoder(model, [i[:n] for i, n in zip(ids, lengths, strict=True)])
    told: list[list[float]] = [[], [], []]
    for i in range(70):
        log_p = decoder.logits.double().log_softmax(-1)
        for row, n in enumerate(lengths):
            told[row].append(-float(log_p[row, ids[row][n + i]]))
        decoder.step(np.array([own[n + i] for own, n in zip(ids, lengths, strict=True)]))
    for own, nats, n in zip(ids, told, lengths, strict=True):
        batch = batch_of([bytes(len(own))], [np.ones(len(own), bool)])
        with torch.inference_mode():
            want = model(dataclasses.replace(batch, ids=torch.from_numpy(own))).nats
        assert np.allclose(nats, want[n:].numpy(), atol=CLOSE)


def test_far_beyond_the_window_a_step_still_says_what_the_forward_says() -> None:
    rng = np.random.default_rng(5)
    model = harness("end")
    data, starts = bytes_like_text(600, rng), random_starts(601, rng)
    want = full_logits(model, data, starts)
    decoder = begin(model, data, starts, 3)
    for p in range(3, 600):
        decoder.step(np.array([data[p]]), told(model, starts, p))
        assert torch.allclose(decoder.logits[0], want[p + 1], atol=CLOSE), p
