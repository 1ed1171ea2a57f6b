"""H-Net's router against the paper's formulas, and the harness that cuts by itself."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SMALL, TEXT, batch_of, documents

import patchers
from models.batch import Windows
from models.harness import Harness
from models.initialization import initialise
from models.router import RATIO_WEIGHT, CosineRouter, Routing, smooth
from patchers.errors import BenchError

ROUTED = dataclasses.replace(SMALL, pool="last")


def model(bytes_per_patch: float = 4.0) -> Harness:
    harness = Harness(ROUTED, router=CosineRouter(SMALL.local_width, bytes_per_patch))
    initialise(harness, 0)
    return harness


def uncut(docs: list[bytes]) -> Windows:
    return batch_of(docs, [np.arange(len(d)) == 0 for d in docs])


def test_an_untrained_router_is_the_cosine_of_neighbours() -> None:
    states = torch.randn(9, 8, dtype=torch.float64)
    begins = torch.zeros(9, dtype=torch.bool)
    begins[[0, 5]] = True
    routing = CosineRouter(8, 4.0)(states, begins)
    for p in range(9):
        a, b = states[p - 1], states[p]
        want = 1.0 if begins[p] else float((1 - a @ b / (a.norm() * b.norm())) / 2)
        assert routing.probability[p].item() == pytest.approx(want)
        assert bool(routing.starts[p]) == (want > 0.5)


def test_ratio_loss_is_one_where_the_share_is_as_wanted() -> None:
    router = CosineRouter(8, 5.0)
    starts = torch.tensor([True, False, False, False, False])
    assert router.ratio_loss(Routing(starts, torch.full((5,), 0.2))).item() == pytest.approx(RATIO_WEIGHT)
    more = float(router.ratio_loss(Routing(torch.tensor([True] * 3 + [False] * 2), torch.full((5,), 0.6))))
    f = 0.6
    assert more == pytest.approx(RATIO_WEIGHT * 5 / 4 * (4 * f * f + (1 - f) ** 2))
    assert more > RATIO_WEIGHT


def test_ratio_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    router = CosineRouter(8, 5.0)
    probability = torch.tensor([0.9, 0.8, 0.7, *torch.linspace(0.1, 0.6, 9).tolist()])
    whole = Routing(probability > 0.5, probability)
    parts = [Routing(whole.starts[part], probability[part]) for part in (slice(0, 3), slice(3, 12))]
    share = whole.starts.float().mean()
    mean = (3 * router.ratio_loss(parts[0], share) + 9 * router.ratio_loss(parts[1], share)) / 12
    assert mean.item() == pytest.approx(router.ratio_loss(whole).item(), rel=1e-6)
    alone = (3 * router.ratio_loss(parts[0]) + 9 * router.ratio_loss(parts[1])) / 12
    assert alone.item() != pytest.approx(mean.item(), rel=1e-2)


@given(st.lists(st.floats(0.500001, 1), min_size=1, max_size=60), st.integers(0, 1000))
def test_smoothing_equals_the_recurrence(probabilities: list[float], seed: int) -> None:
    x = torch.randn(len(probabilities), 3, generator=torch.Generator().manual_seed(seed))
    p = torch.tensor([1.0, *probabilities[1:]])
    want, last = [], torch.zeros(3)
    for k in range(len(p)):
        last = p[k] * x[k] + (1 - p[k]) * last
        want.append(last)
    assert torch.allclose(smooth(x, p), torch.stack(want), atol=1e-5)


def test_the_router_learns_from_the_loss_of_bytes_and_from_the_ratio() -> None:
    harness = model()
    batch = uncut([TEXT])
    prediction = harness(batch)
    assert harness.router is not None
    for loss in (prediction.nats.mean(), prediction.loss):
        grads = torch.autograd.grad(loss, list(harness.router.parameters()), retain_graph=True)
        assert all(float(g.abs().sum()) > 0 for g in grads)


def test_a_later_byte_never_moves_an_earlier_logit_or_cut() -> None:
    harness = model().eval()
    docs = documents(np.random.default_rng(0), (60, 30))
    batch = uncut(docs)
    with torch.no_grad():
        base, cuts = harness.logits(batch), harness.encode(batch, torch.float32).starts
        assert 2 < int(cuts.sum()) < 90
        for t in (0, 7, 33, 59, 75):
            data = batch.data.clone()
            data[t] = (data[t] + 1) % 256
            changed = dataclasses.replace(batch, data=data)
            moved = ((harness.logits(changed) - base).abs().amax(1) > 1e-6).nonzero()[:, 0]
            assert all(m > t for m in moved.tolist())
            other = harness.encode(changed, torch.float32).starts
            assert torch.equal(other[: t + 1], cuts[: t + 1])


def test_the_patcher_cuts_as_the_harness_does() -> None:
    harness = model().eval()
    patcher = patchers.create("hnet", bytes_per_patch=4.0).learned(harness)
    docs = documents(np.random.default_rng(1), (200, 1, 50))
    with torch.no_grad():
        cuts = harness.encode(uncut(docs), torch.float32).starts.split([len(d) for d in docs])
    for doc, cut in zip(docs, cuts, strict=True):
        assert (patcher.segment(doc) == cut.numpy()).all()


def test_long_documents_are_cut_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = patchers.create("hnet").learned(model())
    text = TEXT * 30
    whole = patcher.segment(text)
    monkeypatch.setattr("patchers.hnet.PIECE", 100)
    assert (patcher.segment(text) == whole).all()


def test_an_untrained_patcher_says_so() -> None:
    with pytest.raises(BenchError, match="learnt inside the harness"):
        patchers.create("hnet").segment(b"abc")
    with pytest.raises(BenchError, match="more than 1"):
        patchers.create("hnet", bytes_per_patch=1.0)


def test_its_stream_cuts_as_it_does() -> None:
    patcher = patchers.create("hnet").learned(model())
    stream = patcher.stream()
    assert [stream.push(byte) for byte in TEXT][:-1] == patcher.segment(TEXT)[1:].tolist()


def test_doubtful_places_are_decided_by_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place in doubt the cuts are those of float64 alone, and they are the same ones."""
    patcher = patchers.create("hnet").learned(model())
    text = TEXT * 12
    quick = patcher.segment(text)
    monkeypatch.setattr("patchers.hnet.DOUBT", 2.0)
    assert (patcher.segment(text) == quick).all()


def test_a_trained_one_is_as_it_is() -> None:
    with pytest.raises(BenchError, match="train it anew"):
        patchers.create("hnet").learned(model()).calibrate([TEXT], 5.0)
