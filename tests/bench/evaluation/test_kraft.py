"""Kraft's inequality for every patcher of the registry, on a model that has been trained a little."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from patcher_cases import built_in, fitted, texts
from tiny import SMALL

from bench.data.cut_corpus import CutDocuments, cut
from bench.evaluation.audit import PAIRS, TOLERANCE, kraft_next, kraft_short, nats_of_pairs
from bench.evaluation.byte_model import CutModel
from bench.suites.config import TrainConfig
from bench.training.loop import train
from models.harness import Harness, Price
from models.initialization import initialise

PREFIXES = 64
NAMES = built_in()


def trained(case: int, price: Price | None) -> CutModel:
    """A tiny harness after forty steps on real text with the patcher's cuts."""
    patcher, docs = fitted(case), texts()[0]
    routed = patcher.kind == "in-model"
    sizes = dataclasses.replace(SMALL, pool="last") if routed else SMALL
    model = Harness(sizes, price, patcher.router(SMALL.local_width) if routed else None)
    initialise(model, 0)
    corpus = CutDocuments.uncut(docs) if routed else CutDocuments.of(docs, cut(patcher, docs))
    config = TrainConfig(bytes=160_000, batch_bytes=4096, window=512, dtype="float32")
    train(model, corpus, config, 0, torch.device("cpu"))
    return CutModel(model, None if routed else patcher, 512)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_claims_sum_to_at_most_one(name: str) -> None:
    case = NAMES.index(name)
    prices: tuple[Price | None, ...] = (None,) if fitted(case).causal else ("end", "start")
    for price in prices:
        model = trained(case, price)
        following = kraft_next(model, texts()[1], PREFIXES, np.random.default_rng(0))
        short = kraft_short(model)
        assert following.passed, following.detail
        assert short.passed, short.detail
        assert following.values["prefixes"] == PREFIXES
        assert nats_of_pairs(model) == pytest.approx([n.sum() for n in model.nats(PAIRS)], abs=1e-5)
        if price is None:
            assert following.values["low"] == pytest.approx(1, abs=TOLERANCE)
            assert following.values["high"] == pytest.approx(1, abs=TOLERANCE)
            assert [short.values["one"], short.values["two"]] == pytest.approx([1, 1], abs=TOLERANCE)
        else:
            assert max(following.values["high"], short.values["one"], short.values["two"]) <= 1 + TOLERANCE
