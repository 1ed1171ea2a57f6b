"""What must hold for every model, whatever its sizes and cuts."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import OPTIONS, SMALL, TEXT, batch_of, byte_lm, documents, harness, random_starts, silence, token_lm
from torch import nn

from models.batch import Windows
from models.harness import Harness, HarnessConfig, Price
from models.initialization import initialise
from models.token_lm import TokenLM, TokenLMConfig

PRICES: list[Price | None] = [None, "end", "start"]


def nats(model: nn.Module, batch: Windows) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(batch).nats
    return out


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_later_byte_never_moves_an_earlier_logit(price: Price | None, options: dict[str, object]) -> None:
    rng = np.random.default_rng(1)
    model = harness(price, dataclasses.replace(SMALL, **options))  # type: ignore[arg-type]
    docs = documents(rng)
    batch = batch_of(docs, [random_starts(len(d), rng) for d in docs])
    with torch.no_grad():
        base = model.logits(batch)
        for t in (0, 5, 39, 40, 41, 58, 90):
            data = batch.data.clone()
            data[t] = (data[t] + 1) % 256
            moved = ((model.logits(dataclasses.replace(batch, data=data)) - base).abs().amax(1) > 1e-6).nonzero()[:, 0]
            begin, end = (int(batch.offsets[batch.window_of()[t] + i]) for i in (0, 1))
            assert all(t < m < end for m in moved.tolist()), "only later positions of the same document move"
            if t + 1 < end:
                assert t + 1 in moved.tolist(), "and the next one does"
            assert begin <= t


@pytest.mark.parametrize("price", PRICES)
def test_when_a_start_is_known(price: Price | None) -> None:
    """Whether byte p starts a patch moves the prediction of byte p, unless it is predicted together with it."""
    rng = np.random.default_rng(2)
    model = harness(price)
    batch = batch_of([TEXT[:60]], [random_starts(60, rng)])
    with torch.no_grad():
        base = model.logits(batch)
        for p in (3, 17, 44):
            starts = batch.starts.clone()
            starts[p] = ~starts[p]
            moved = (model.logits(dataclasses.replace(batch, starts=starts)) - base).abs().amax(1) > 1e-6
            assert int(moved.nonzero()[0, 0]) == (p + 1 if price == "start" else p)


@pytest.mark.parametrize("kind", ["harness", "priced", "byte_lm", "token_lm"])
def test_a_document_scores_the_same_alone_batched_and_reordered(kind: str) -> None:
    rng = np.random.default_rng(3)
    docs = documents(rng)
    starts = [random_starts(len(d), rng) for d in docs]
    model: nn.Module = {
        "harness": harness, "priced": lambda: harness("end"), "byte_lm": byte_lm, "token_lm": lambda: token_lm(300)
    }[kind]()  # fmt: skip
    ids = [torch.from_numpy(rng.integers(0, 300, int(s.sum()))) for s in starts]

    def score(order: list[int]) -> list[torch.Tensor]:
        batch = batch_of([docs[i] for i in order], [starts[i] for i in order])
        batch = dataclasses.replace(batch, ids=torch.cat([ids[i] for i in order]))
        out = nats(model, batch).split([len(docs[i]) for i in order])
        return [out[order.index(i)] for i in sorted(order)]

    together = score([0, 1, 2, 3, 4])
    for other in (score([4, 2, 0, 1, 3]), [score([i])[0] for i in range(5)]):
        for a, b in zip(together, other, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_logits_of_zero_are_exactly_eight_bits_per_byte() -> None:
    rng = np.random.default_rng(4)
    docs = documents(rng)
    starts = [random_starts(len(d), rng) for d in docs]
    model = Harness(SMALL)
    initialise(model, 0)
    silence(model)
    assert (nats(model, batch_of(docs, starts)) / math.log(2) == 8.0).all()


def test_an_untrained_model_knows_nothing() -> None:
    model = Harness(HarnessConfig())
    initialise(model, 0)
    starts = np.arange(len(TEXT)) % 4 == 0
    assert float(nats(model, batch_of([TEXT], [starts])).mean()) / math.log(2) == pytest.approx(8, abs=1.5)


@pytest.mark.parametrize("price", ["end", "start"])
def test_priced_nats_are_those_of_the_pair(price: Price) -> None:
    rng = np.random.default_rng(5)
    model = harness(price)
    batch = batch_of([TEXT[:30], TEXT[30:31]], [random_starts(30, rng), random_starts(1, rng)])
    with torch.inference_mode():
        log_p = model.logits(batch).double().log_softmax(-1).view(31, 2, 256)
        got = model(batch)
    for t in range(31):
        byte = int(batch.data[t])
        with_flag, without = log_p[t, 1, byte], log_p[t, 0, byte]
        either = torch.logaddexp(with_flag, without)
        if price == "start":
            want = with_flag if batch.starts[t] else without
        elif t in (29, 30):  # nothing tells whether a patch ends where its document does
            want = either
        else:
            want = with_flag if batch.starts[t + 1] else without
        assert float(got.nats[t]) == pytest.approx(-float(want), abs=1e-9)
        assert float(got.flag_nats[t]) == pytest.approx(float(either - want), abs=1e-9)


@pytest.mark.parametrize("price", PRICES)
def test_all_next_bytes_sum_to_one(price: Price | None) -> None:
    rng = np.random.default_rng(6)
    model = harness(price)
    prefix, starts = TEXT[:20], random_starts(21, rng)
    total = 0.0
    for flag in (False, True) if price == "start" else (False,):
        starts[20] = flag
        docs = [prefix + bytes([b]) for b in range(256)]
        cost = nats(model, batch_of(docs, [starts] * 256)).view(256, 21)[:, -1]
        total += float(torch.exp(-cost).sum())
    assert total == pytest.approx(1, abs=1e-6)


def test_muting_the_latent_model_leaves_first_patches_alone() -> None:
    model = harness()
    batch = batch_of([TEXT[:40]], [np.arange(40) % 4 == 0])
    with torch.inference_mode():
        whole, muted = (model.logits(batch, mute_latent=m) for m in (False, True))
    assert torch.allclose(whole[:4], muted[:4], atol=1e-6), "the first patch reads BOS anyhow"
    assert (whole[4:] - muted[4:]).abs().amax(1).min() > 1e-4


def test_initial_weights_depend_on_the_seed_and_the_name_alone() -> None:
    a, b, c = Harness(SMALL), Harness(SMALL, "end"), Harness(SMALL)
    for model, seed in ((a, 0), (b, 0), (c, 1)):
        initialise(model, seed)
    weights, priced = dict(a.named_parameters()), dict(b.named_parameters())
    for name, w in weights.items():
        assert torch.equal(priced[name][: len(w)], w), name
    assert not torch.equal(dict(c.named_parameters())["byte"], weights["byte"])


def test_a_token_belongs_to_its_first_byte() -> None:
    model = TokenLM(TokenLMConfig(width=32, layers=1, heads=2), 50)
    initialise(model, 0)
    starts = np.array([1, 0, 0, 1, 0, 1], dtype=bool)
    batch = dataclasses.replace(batch_of([b"abcdef"], [starts]), ids=torch.tensor([7, 8, 9]))
    assert ((nats(model, batch) > 0).numpy() == starts).all()


@pytest.mark.parametrize("price", PRICES)
def test_a_tiny_model_learns_one_batch_by_heart(price: Price | None) -> None:
    model = Harness(SMALL, price)
    initialise(model, 0)
    batch = batch_of([TEXT], [random_starts(len(TEXT), np.random.default_rng(0), 4.0)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(batch).nats.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() / math.log(2) < 0.1


def test_bfloat16_says_about_what_float32_says() -> None:
    rng = np.random.default_rng(7)
    docs = documents(rng)
    batch = batch_of(docs, [random_starts(len(d), rng) for d in docs])
    model = Harness(SMALL)
    initialise(model, 0)
    with torch.inference_mode():
        a, b = model(batch).nats.mean(), model(batch, torch.bfloat16).nats.mean()
    assert float(a) == pytest.approx(float(b), rel=0.02)


def test_without_boundary_inputs_the_cut_reaches_local_states_by_pooling_and_reading_alone() -> None:
    """Where what is read is held, other starts move nothing: neither what the encoder says nor the decoder."""
    rng = np.random.default_rng(7)
    model = harness(config=dataclasses.replace(SMALL, boundary_inputs="none"))
    doc = [TEXT[:60]]
    one, other = (batch_of(doc, [random_starts(60, rng, mean)]) for mean in (3.0, 9.0))
    assert not torch.equal(one.starts, other.starts)
    with torch.no_grad():
        # in float64: float32's sums have an order that depends on their sizes and on the CPU
        assert torch.equal(model.encode(one, torch.float64).x, model.encode(other, torch.float64).x)
        # muted, every position reads the same patch, BOS's, whatever the cut
        held = [model.states(batch, torch.float64, mute_latent=True).x[:60] for batch in (one, other)]
        assert torch.allclose(held[0], held[1], rtol=0, atol=1e-9)
        free = [model.states(batch, torch.float32).x[:60] for batch in (one, other)]
        assert not torch.allclose(free[0], free[1], atol=1e-3), "what is read depends on the cut"
    told = harness(config=dataclasses.replace(SMALL, boundary_inputs="flag"))
    with torch.no_grad():
        assert not torch.equal(told.encode(one, torch.float32).x, told.encode(other, torch.float32).x)


def test_without_latent_steps_the_cut_acts_by_what_it_tells() -> None:
    rng = np.random.default_rng(8)
    one, other = (batch_of([TEXT[:60]], [random_starts(60, rng, mean)]) for mean in (3.0, 9.0))
    with torch.no_grad():
        untold = harness(config=dataclasses.replace(SMALL, boundary_inputs="none", latent_patches="document"))
        assert torch.equal(untold.logits(one), untold.logits(other)), "told nothing, and no step after BOS"
        told = harness(config=dataclasses.replace(SMALL, boundary_inputs="prefix", latent_patches="document"))
        assert not torch.equal(told.logits(one), told.logits(other))
        # one patch a document is what no patches are
        whole = np.zeros(60, bool)
        whole[0] = True
        plain = harness(config=dataclasses.replace(SMALL, boundary_inputs="none"))
        assert torch.equal(plain.logits(batch_of([TEXT[:60]], [whole])), untold.logits(one))


def test_latent_logits_are_added_once_a_patch() -> None:
    rng = np.random.default_rng(9)
    model = harness()
    batch = batch_of([TEXT[:60]], [random_starts(60, rng)])
    assert model.latent_head is not None
    with torch.no_grad():
        decoded = model.states(batch, torch.float32)
        read = decoded.read[:60]
        want = model.head(model.norm(decoded.x))[:60] + model.latent_head(decoded.latent)[read]
        assert torch.allclose(model.logits(batch), want, atol=1e-6)
    assert Harness(dataclasses.replace(SMALL, latent_logits=False)).latent_head is None
