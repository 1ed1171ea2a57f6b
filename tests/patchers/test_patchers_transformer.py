"""The byte transformer as a score model: what it learns, and that no arithmetic decides a cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from patcher_cases import TINY, texts
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import patchers
from models.byte_lm import ByteLM
from patchers.entropy import Entropy
from patchers.scores.byte_models import ModelOptions
from patchers.scores.scored import ScorePatcher
from patchers.scores.transformer import PIECE, TOLERANCE, TransformerModel, batched, config, flops, schedule, spans_of


@pytest.fixture(scope="module")
def entropy() -> Entropy:
    patcher = patchers.create("entropy", **{**TINY, "train_bytes": 200_000}).fit(texts()[0])
    patcher = patcher.calibrate(texts()[1][:40], 4.0)
    assert isinstance(patcher, Entropy)
    return patcher


def model_of(patcher: ScorePatcher) -> TransformerModel:
    assert isinstance(patcher._model, TransformerModel)
    return patcher._model


def test_scores_are_entropies_of_the_model_on_the_whole_document(entropy: Entropy) -> None:
    """Pieces with their reach say what one run over the document says."""
    model, doc = model_of(entropy), b" ".join(texts()[1])[: 2 * PIECE + 100]
    data = torch.from_numpy(np.frombuffer(doc, dtype=np.uint8).copy())
    with torch.inference_mode():
        logits = model._model.logits(data, torch.tensor([0, len(doc)]), torch.float64)
    p = logits.softmax(-1).numpy()
    assert np.allclose(model.scores([doc])[0], -(p * np.log(p)).sum(-1), atol=2e-4)


def test_the_reach_is_all_that_counts(entropy: Entropy) -> None:
    model = model_of(entropy)
    assert model.reach == 2 * 7 + 1
    past = b" ".join(texts()[1])[:200]
    near = model.exact([past[-model.reach :], past[-model.reach - 1 :], past])
    short = model.exact([past[-model.reach + 1 :]])
    assert np.ptp(near) < 1e-6  # rotary angles are reckoned in float32
    assert abs(short[0] - near[0]) > 1e-6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tolerances_are_wide_enough(entropy: Entropy, dtype: str) -> None:
    """On real text the fast scores are off by less than a third of what is allowed for."""
    patcher = dataclasses.replace(entropy, dtype=dtype)  # type: ignore[arg-type]
    model, doc = model_of(patcher), b" ".join(texts()[1])[:6000]
    fast = model.scores([doc])[0]
    exact = model.refine(doc, fast, np.ones(len(doc), dtype=bool), len(model.tolerances) - 1)
    assert np.abs(fast - exact).max() < TOLERANCE[dtype] / 3
    stream = model.stream()
    pushed = np.array([stream.first] + [stream.push(byte) for byte in doc[:1500]])[:1500]
    assert np.abs(pushed - exact[:1500]).max() < TOLERANCE["float32"] / 3


def test_cuts_are_the_same_in_every_arithmetic(entropy: Entropy) -> None:
    """Thresholds that lie on top of scores, where the last bit would decide."""
    doc = b" ".join(texts()[1])[:3000]
    scores = model_of(entropy).scores([doc])[0]
    for threshold in np.sort(scores)[[300, 1500, 2700]].tolist():
        exact = dataclasses.replace(entropy, threshold=threshold)
        half = dataclasses.replace(entropy, threshold=threshold, dtype="bfloat16")
        stream = exact.stream()
        cuts = exact.segment(doc)
        assert np.array_equal(cuts, half.segment(doc))
        assert np.array_equal(cuts, exact.segment_many([b"other", doc, doc[:10]])[1])
        assert cuts[1:].tolist() == [stream.push(byte) for byte in doc][:-1]


def test_refining_changes_cuts_that_rounding_would_decide(entropy: Entropy) -> None:
    """The test above tests something: bfloat16 by itself cuts otherwise."""
    doc = b" ".join(texts()[1])[:3000]
    half = model_of(dataclasses.replace(entropy, dtype="bfloat16")).scores([doc])[0]
    assert (entropy.segment(doc)[1:] != (half > entropy.threshold)[1:]).any()


def test_training_lowers_the_loss(entropy: Entropy) -> None:
    docs = texts()[1][:20]
    data = torch.from_numpy(np.frombuffer(b"".join(docs), dtype=np.uint8).copy())
    offsets = torch.tensor([0, *map(len, docs)]).cumsum(0)
    with torch.inference_mode():
        logits = model_of(entropy)._model.logits(data, offsets)
        nats = torch.nn.functional.cross_entropy(logits, data.long())
    assert nats / np.log(2) < 4.6  # bits per byte; uniform has 8, letter frequencies alone about 4.6
    assert model_of(entropy).scores(docs)[0].mean() / np.log(2) < 4.6


def test_training_is_seeded() -> None:
    options = ModelOptions(**{**TINY, "train_bytes": 3000})  # type: ignore[arg-type]
    first, again = (TransformerModel.fit(texts()[0][:20], options, 1) for _ in range(2))
    other = TransformerModel.fit(texts()[0][:20], options, 2)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_batches_hold_all_text_once_a_round() -> None:
    docs = [b"a" * 2500, b"b" * 10, b"", b"c\nd\ne" * 3]
    spans = spans_of(docs, by_line=False)
    assert spans.tolist() == [[0, 1024], [1024, 2048], [2048, 2500], [2500, 2510], [2510, 2525]]
    lines = spans_of([b"c\nd\n", b"e"], by_line=True)
    assert lines.tolist() == [[0, 2], [2, 4], [4, 5]]
    batches = batched(spans, 505, np.random.default_rng(0))
    for _ in range(20):
        assert sum(end - begin for begin, end in next(batches)) == 505
    assert [round(schedule(step, 100), 3) for step in (0, 4, 9, 10, 100)] == [0.1, 0.5, 1.0, 1.0, 0.1]


def test_flops_are_within_a_percent_of_torchs_count() -> None:
    """With a window so short that attention, which runs in blocks of two windows, is a small part."""
    options, size = ModelOptions(width=64, layers=2, heads=2, window=2), 4096
    model = ByteLM(config(options)).requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
        model.logits(torch.zeros(size, dtype=torch.long), torch.tensor([0, size]))
    assert flops(options, 256) * size == pytest.approx(mode.get_total_flops(), rel=0.01)


def test_flops_are_those_of_the_products() -> None:
    options = ModelOptions(width=16, layers=2, heads=2, window=8)
    products = sum(
        2 * parameter.numel()
        for name, parameter in ByteLM(config(options)).named_parameters()
        if parameter.ndim == 2 and name != "byte"
    )
    attention = 2 * 4 * 16 * 8  # layers, two products of two, width, keys
    assert flops(options, 256) == pytest.approx(products + attention, rel=1e-3)
