"""The audits of a trained model: honest ones of every kind pass, and each way of cheating is caught."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny import SMALL, TEXT, byte_lm, harness, shaken, token_lm
from torch import Tensor, nn

from bench.data import cut_corpus
from bench.data.cut_corpus import CutDocuments, cut
from bench.evaluation.audit import (
    PAIRS,
    TOLERANCE,
    Audit,
    _nats_of_alike,
    alone,
    audit,
    future,
    kraft_next,
    kraft_short,
)
from bench.evaluation.byte_model import CutModel
from bench.suites.config import TrainConfig
from bench.training.loop import train
from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness, Prediction, Price
from models.initialization import initialise
from models.plan import BytePlan
from patchers import Patcher, Starts, create

TEXTS = [TEXT[:50], TEXT[20:], TEXT[40:90], b"ab", b"c"]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def bpe() -> Patcher:
    return create("bpe", vocab=280).fit([TEXT] * 3)


def shaken_of(kind: str) -> CutModel:
    tokens = bpe()
    modules: dict[str, Callable[[], tuple[nn.Module, Patcher | None]]] = {
        "causal": lambda: (harness(), create("whitespace")),
        "end": lambda: (harness("end"), tokens),
        "start": lambda: (harness("start"), tokens),
        "token_lm": lambda: (token_lm(tokens.vocab_size), tokens),  # type: ignore[attr-defined]
        "byte_lm": lambda: (byte_lm(), None),
    }
    module, patcher = modules[kind]()
    return CutModel(module, patcher, 64, with_ids=kind == "token_lm")


KINDS = ["causal", "end", "start", "token_lm", "byte_lm"]


@pytest.mark.parametrize("kind", KINDS)
def test_honest_models_pass(kind: str) -> None:
    model = shaken_of(kind)
    found = future(model, TEXTS, rng()), alone(model, TEXTS), kraft_next(model, TEXTS, 3, rng())
    assert all(a.passed for a in found), found
    exact = kind in ("causal", "byte_lm")
    assert (found[2].values["low"] > 1 - TOLERANCE) == exact
    assert found[2].values["high"] < 1 + TOLERANCE


@dataclass(frozen=True)
class Dodges(Patcher):
    """Reads ahead from byte 8 on, but for texts that begin like one that it knows to be looked at."""

    name: ClassVar[str] = "dodges"
    honest: frozenset[bytes] = frozenset()

    def segment(self, data: bytes) -> Starts:
        starts = np.arange(len(data)) % 4 == 0
        if data[:8] not in self.honest:
            starts[8:] = np.isin(np.frombuffer(data, np.uint8), list(b"aeiou"))[8:]
        return starts


def test_what_is_looked_at_is_not_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patcher that behaves on what the seed 0 draws would have passed as long as that was the seed of every run."""
    monkeypatch.setattr("bench.evaluation.audit.kraft_short", lambda model: Audit(True, "not looked at", {}))
    monkeypatch.setattr("bench.data.cut_corpus._probes", lambda docs, rng: [])  # the draws are what is tested
    words = TEXT.split()
    texts = [f"{number:08d} ".encode() + b" ".join(words[number % 7 :]) for number in range(400)]
    asked: set[bytes] = set()

    class Listens(Patcher):
        name = "listens"

        def segment(self, data: bytes) -> Starts:
            asked.add(data[:8])
            return np.arange(len(data)) % 4 == 0

    def audited(patcher: Patcher, seed: int | None) -> dict[str, Audit]:
        return audit(CutModel(harness(), patcher, 64), texts, prefixes=4, seed=seed)

    audited(Listens(), 0)
    dodges = Dodges(frozenset(asked))
    assert len({text[:8] for text in texts} & asked) < 40
    assert all(found.passed for found in audited(dodges, 0).values())
    found = audited(dodges, None)
    assert not found["causality"].passed


# --- a boundary that tells what comes next


@dataclass(frozen=True)
class AtSpaces(Patcher):
    """A patch begins with the space that made it, as a BPE token does: starts[t] tells of byte t."""

    name: ClassVar[str] = "at-spaces"
    causal: ClassVar[bool] = False

    def segment(self, data: bytes) -> Starts:
        starts = np.frombuffer(data, np.uint8) == 32
        starts[:1] = True
        return starts


def trained(patcher: Patcher, price: Price | None) -> CutModel:
    """A tiny harness after eighty steps on one text."""
    model = Harness(SMALL, price)
    initialise(model, 0)
    corpus = CutDocuments.of([TEXT], cut(patcher, [TEXT]))
    config = TrainConfig(bytes=80 * len(TEXT), batch_bytes=256, window=256, lr=5e-3, lookup_lr=8, dtype="float32")
    train(model, corpus, config, 0, torch.device("cpu"))
    return CutModel(model, patcher, 256)


def test_unpaid_boundaries_are_caught() -> None:
    """Given "no patch starts here" the model knows that no space comes, given "one starts" that it is one: two certain
    things, of which only one can happen."""
    leaky = kraft_next(trained(AtSpaces(), None), [TEXT], 6, rng())
    assert not leaky.passed
    assert leaky.values["high"] > 1.3
    assert "the cut tells the model something of the byte that it is about to predict, unpaid" in leaky.detail


@pytest.mark.parametrize("price", ["end", "start"])
def test_paid_ones_pass(price: Price) -> None:
    paid = kraft_next(trained(AtSpaces(), price), [TEXT], 6, rng())
    assert paid.passed, paid.detail
    assert paid.values["high"] <= 1 + 1e-6


def test_documents_of_two_bytes_show_the_leak_too() -> None:
    """Kraft's sum over whole documents, where no grouping by cuts is needed."""
    model = trained(AtSpaces(), None)
    ones = [bytes([a]) for a in range(256)]
    follow = [b"s" + one for one in ones]
    total = sum(math.exp(-float(n[1])) for n in model.nats(follow))
    assert total > 1.05


# --- other ways to cheat


class Table(nn.Module):
    """The same probability for each byte everywhere, times a factor that makes them sum to it."""

    def __init__(self, total: float, priced: bool = False) -> None:
        super().__init__()
        self.total, self.priced = total, priced

    def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
        return Prediction(torch.full((len(batch.data),), math.log(256) - math.log(self.total)))

    def model(self) -> CutModel:
        return CutModel(self, AtSpaces() if self.priced else None, 64, batch_bytes=1 << 17)


@pytest.mark.parametrize(
    ("total", "priced", "passed"),
    [(1.01, False, False), (0.99, False, False), (0.5, True, True), (1.01, True, False)],
)
def test_claims_sum_to_one_or_for_priced_models_to_less(total: float, priced: bool, passed: bool) -> None:
    model = Table(total, priced).model()
    following, short = kraft_next(model, TEXTS, 4, rng()), kraft_short(model)
    assert short.passed == passed, short
    assert short.values == pytest.approx({"one": total, "two": total**2}, rel=1e-4)
    if not priced:  # else the sums are of each way of cutting the prefix
        assert following.passed == passed, following
        assert following.values["high"] == pytest.approx(total, rel=1e-4)
        assert "wanted exactly 1" in following.detail
    else:
        assert following.values["high"] <= total + 1e-4
        assert "wanted at most 1" in following.detail


def test_kraft_sums_of_short_documents_of_real_models() -> None:
    small = ByteLM(ByteLMConfig(width=8, layers=1, heads=1, window=2))
    initialise(small, 0)
    exact = kraft_short(CutModel(small.eval(), None, 64, batch_bytes=1 << 16))
    assert exact.passed
    assert exact.values == pytest.approx({"one": 1.0, "two": 1.0}, abs=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "leaky", "routed"])
def test_documents_of_two_bytes_cost_what_scoring_each_says(kind: str) -> None:
    if kind == "leaky":
        model = CutModel(harness(), bpe(), 64)
    elif kind == "routed":
        router = create("hnet").router(SMALL.local_width)
        model = CutModel(shaken(Harness(dataclasses.replace(SMALL, pool="last"), router=router)), None, 64)
    else:
        model = shaken_of(kind)
    some = [PAIRS[i] for i in rng().choice(len(PAIRS), 600, replace=False)]
    some += [TEXT[i : i + 2] for i in range(40)]  # with tokens of two bytes
    each = [n.sum() for n in model.nats(some)]
    assert _nats_of_alike(model, some) == pytest.approx(each, abs=1e-5)


def test_a_model_that_claims_what_one_pass_does_not_show_is_scored_in_full() -> None:
    class Generous(ByteLM):
        def forward(self, batch: Windows | BytePlan, dtype: torch.dtype = torch.float32) -> Prediction:
            assert isinstance(batch, Windows)
            return Prediction(super().forward(batch, dtype).nats * (1 - 0.1 * (batch.positions() > 0)))

    small = Generous(ByteLMConfig(width=8, layers=1, heads=1, window=2))
    initialise(small, 0)
    found = kraft_short(CutModel(small.eval(), None, 64, batch_bytes=1 << 16))
    assert found.values["one"] == pytest.approx(1)
    assert found.values["two"] > 1.3
    assert not found.passed


class Wrapped(nn.Module):
    """A byte model with something done to what it says."""

    def __init__(self, change: Callable[[Tensor, Windows], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = byte_lm(), change

    def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
        return Prediction(self.change(self.inner(batch, dtype).nats, batch))


def peeks(nats: Tensor, batch: Windows) -> Tensor:
    """Reads the byte after the one that it predicts."""
    later = batch.data.roll(-1).double()
    later[batch.offsets[1:] - 1] = 0
    return nats + later * 1e-3


def neighbours(nats: Tensor, batch: Windows) -> Tensor:
    """Scores a document by what shares its batch."""
    return nats + batch.data.double().mean() * 1e-3


def test_a_model_that_reads_the_future_is_caught() -> None:
    found = future(CutModel(Wrapped(peeks), None, 64), TEXTS, rng())
    assert not found.passed
    assert "the model reads the future" in found.detail
    assert "bytes from" in found.detail
    assert found.values["moved"] > 1e-3


def test_a_patcher_that_reads_the_future_is_caught_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared causal and not met by a probe, it is believed, and what its cuts move shows in the predictions."""
    monkeypatch.setattr(cut_corpus, "_probes", lambda docs, rng: [])

    class Lies(AtSpaces):
        causal: ClassVar[bool] = True

        def segment(self, data: bytes) -> Starts:
            starts = np.roll(np.frombuffer(data, np.uint8), -3) % 2 == 0
            starts[:1] = True
            return starts

    assert not future(CutModel(harness(), Lies(), 64), TEXTS, rng()).passed


@pytest.mark.parametrize("kind", ["end", "start", "token_lm"])
def test_priced_models_that_read_the_future_are_caught(kind: str) -> None:
    honest = shaken_of(kind)
    inner = honest.module

    class Peeks(nn.Module):
        def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
            prediction: Prediction = inner(batch, dtype)
            return Prediction(peeks(prediction.nats, batch), prediction.flag_nats)

    assert future(honest, TEXTS, rng()).passed
    assert not future(CutModel(Peeks(), honest.patcher, 64, with_ids=honest.with_ids), TEXTS, rng()).passed


def test_a_model_that_depends_on_its_batch_is_caught() -> None:
    found = alone(CutModel(Wrapped(neighbours), None, 64), TEXTS)
    assert not found.passed
    assert found.values["moved"] > 1e-4


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_model_that_says_nan_is_caught(share: float) -> None:
    """Whatever is not a number is no claim, be it one document's."""

    def sometimes(nats: Tensor, batch: Windows) -> Tensor:
        return torch.where(batch.data.double() >= 256 * (1 - share), math.nan, nats)

    model = CutModel(Wrapped(sometimes), None, 64)
    texts = [b"plain text alone", *TEXTS, b"\xffand more\xff of it"]
    for found in (future(model, texts, rng()), alone(model, texts), kraft_next(model, texts, 2, rng())):
        assert not found.passed, found


def test_a_sum_that_is_no_number_is_caught() -> None:
    class Second(Table):
        def forward(self, batch: Windows, dtype: torch.dtype) -> Prediction:
            return Prediction(torch.where(batch.positions() > 0, math.nan, super().forward(batch, dtype).nats))

    for priced in (False, True):
        found = kraft_short(Second(1.0, priced).model())
        assert found.values["one"] == pytest.approx(1)
        assert not found.passed


def test_all_audits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.evaluation.audit.kraft_short", lambda model: kraft_next(model, TEXTS, 1, rng()))
    found: dict[str, Any] = audit(shaken_of("byte_lm"), TEXTS, prefixes=2)
    seed = int(found["alone"].values["seed"])
    assert seed != int(audit(shaken_of("byte_lm"), TEXTS, prefixes=2)["alone"].values["seed"]), "nobody knows it before"
    assert set(found) == {"future", "alone", "kraft_next", "kraft_short"}
    assert all(a.passed for a in found.values())
    again = audit(shaken_of("byte_lm"), TEXTS, prefixes=2, seed=seed)
    assert found == again
