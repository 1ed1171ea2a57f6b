"""Likelihoods of continuations: the chain rule for every kind of model, and each context read once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from model_kinds import KINDS, WINDOW, model_of
from tiny import TEXT, silence
from torch import nn

from bench.evaluation import continuations
from bench.evaluation.byte_model import CutModel
from bench.evaluation.likelihood import Likelihood, is_byte_by_byte, likelihoods, total
from models.decoding.shared_prefix import Branches, Scored, score
from patchers import create


def random_text(rng: np.random.Generator, most: int) -> bytes:
    return bytes(rng.choice(np.frombuffer(TEXT, np.uint8), int(rng.integers(0, most))))


def some_pairs(seed: int = 0) -> list[tuple[bytes, bytes]]:
    """Contexts up to more than two windows long, with four continuations each, and one that is asked twice."""
    rng = np.random.default_rng(seed)
    pairs = [(b"", b""), (b"", b"a"), (b"a", b""), (TEXT[:20], TEXT[20:60])]
    for _ in range(4):
        context = random_text(rng, 150)
        pairs += [(context, random_text(rng, 90)) for _ in range(3)] + [(context, b"e")]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    return [*pairs, pairs[0]]


def joint(model: CutModel, text: bytes) -> float:
    return -total(model.nats([text])[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_continuation_is_what_the_joint_is_more_than_the_context(kind: str) -> None:
    model = model_of(kind)
    pairs = some_pairs()
    found = likelihoods(model, pairs)
    for (context, continuation), one in zip(pairs, found, strict=True):
        assert one.log == pytest.approx(joint(model, context + continuation) - joint(model, context), abs=1e-4)
    assert found[0] == found[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_pair_gets_what_it_gets_alone(kind: str) -> None:
    model = model_of(kind)
    pairs = some_pairs(1)
    for pair, together in zip(pairs, likelihoods(model, pairs), strict=True):
        alone = likelihoods(model, [pair])[0]
        assert together.log == pytest.approx(alone.log, abs=1e-4)
        assert together.greedy == alone.greedy


@pytest.mark.parametrize("kind", KINDS)
def test_choices_that_change_the_cut_of_their_context(kind: str) -> None:
    """What follows decides where the context's last tokens are; wherever a text that was learnt is broken."""
    model = model_of(kind, window=1024)
    pairs = [(TEXT[:i], c) for i in range(24, 36) for c in (TEXT[i : i + 8], b" zz", b"qqqq", TEXT[i : i + 3] + b"!")]
    for (context, continuation), one in zip(pairs, likelihoods(model, pairs), strict=True):
        assert one.log == pytest.approx(joint(model, context + continuation) - joint(model, context), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_document_add_up_to_it(kind: str) -> None:
    """To 1e-6 bits a byte, through windows, wherever it is broken."""
    model = model_of(kind)
    document = TEXT * 3
    rng = np.random.default_rng(0)
    for count in (1, 2, 7):
        at = [0, *sorted(rng.integers(0, len(document), count).tolist()), len(document)]
        pieces = [(document[:a], document[a:b]) for a, b in itertools.pairwise(at)]
        whole = math.fsum(one.log for one in likelihoods(model, pieces))
        assert abs(whole - joint(model, document)) / math.log(2) / len(document) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_the_model_writes(kind: str) -> None:
    model = model_of(kind, window=1024)
    for context in (b"", b"T", TEXT[:30]):
        written = model.generate([context], 8)[0]
        wrong = written[:5] + bytes([written[5] ^ 1]) + written[6:]
        found = likelihoods(model, [(context, c) for c in (written, written[:3], wrong, wrong[:5], b"", written[1:])])
        agrees = [written.startswith(c) for c in (written, written[:3], wrong, wrong[:5], b"", written[1:])]
        assert [one.greedy for one in found] == agrees
        assert agrees[:5] == [True, True, False, True, True]


def test_a_model_that_cannot_write_has_likelihoods_and_no_greedy_text() -> None:
    module, patcher = KINDS["stride"]()[0], KINDS["end"]()[1]  # told boundaries that it does not pay for
    model = CutModel(module, patcher, WINDOW)
    assert not is_byte_by_byte(model)
    one, none = likelihoods(model, [(TEXT[:20], TEXT[20:40]), (b"a", b"")])
    assert one.log == pytest.approx(joint(model, TEXT[:40]) - joint(model, TEXT[:20]), abs=1e-4)
    assert one.greedy is None
    assert none == Likelihood(0.0, None)


@pytest.mark.parametrize("kind", ["stride", "byte_lm", "router"])
def test_a_uniform_model_gives_every_continuation_its_length(kind: str) -> None:
    model = model_of(kind)
    silence(model.module)
    for (_, continuation), one in zip(some_pairs(), likelihoods(model, some_pairs()), strict=True):
        assert one.log == pytest.approx(-math.log(256) * len(continuation), rel=1e-15)


# --- each context once


@pytest.mark.parametrize("kind", KINDS)
def test_choices_share_their_context(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Branches] = []

    def spy(module: nn.Module, branches: Branches) -> Scored:
        seen.append(branches)
        return score(module, branches)

    monkeypatch.setattr(continuations, "score", spy)
    context, choices = TEXT[:50], (b" one", b" two", b" three.", b" fo")
    likelihoods(model_of(kind, window=1024), [(context, choice) for choice in choices])
    (branches,) = seen
    assert len(branches.shared) == 1
    assert branches.shared[0] >= len(context) - 3, "the last patch or token may be another with each choice"
    assert len(branches.own()) < 40


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_that_begin_alike_cost_what_each_costs_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also groups that are no such thing: texts longer than a window, empty ones, and those with nothing in common."""
    read = 0

    def spy(module: nn.Module, branches: Branches) -> Scored:
        nonlocal read
        read += int(branches.shared.sum()) + len(branches.own())
        return score(module, branches)

    monkeypatch.setattr(continuations, "score", spy)
    model = model_of(kind, window=128)
    docs = [*(TEXT[:70] + choice for choice in (b" one", b" two.", b"")), TEXT * 2, b"", b"xy", TEXT[:60]]
    whole = model.nats(docs)
    for one, other in zip(whole, model.nats(docs, [3, 3, 1]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    anew = read
    model.nats(docs, [1] * len(docs))
    assert anew < read - anew - 100, "what three have in common is read once"


def test_long_texts_are_read_from_where_their_continuation_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a context of many windows the last two or three are read, not all of them."""
    read = 0

    def spy(module: nn.Module, branches: Branches) -> Scored:
        nonlocal read
        read += len(branches.texts.data)
        return score(module, branches)

    monkeypatch.setattr(continuations, "score", spy)
    model = model_of("stride")
    context = TEXT * 20
    found = likelihoods(model, [(context, b" and so on")])[0]
    assert read <= 2 * WINDOW
    assert found.log == pytest.approx(joint(model, context + b" and so on") - joint(model, context), abs=1e-3)


def test_batches_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(module: nn.Module, branches: Branches) -> Scored:
        sizes.append(int(branches.shared.sum()) + len(branches.own()))
        return score(module, branches)

    monkeypatch.setattr(continuations, "score", spy)
    likelihoods(model_of("stride", batch_bytes=300), some_pairs())
    assert len(sizes) > 2
    assert max(sizes) <= 300


def test_a_causal_cut_is_asked_of_every_byte_and_others_of_the_whole() -> None:
    by_byte = {kind: is_byte_by_byte(model_of(kind)) for kind in KINDS}
    assert {kind for kind, so in by_byte.items() if not so} == {"end", "start", "token_lm"}
    assert is_byte_by_byte(CutModel(KINDS["stride"]()[0], create("stride"), 8))
