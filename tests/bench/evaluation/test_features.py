"""Frozen states: which byte or patch a vector belongs to, and what may move it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_scoring import model_of
from tiny import SMALL, TEXT, documents, shaken
from torch import nn

import patchers
from bench.evaluation.byte_model import CutModel
from models.harness import Harness, HarnessConfig
from models.router import CosineRouter
from models.states import Place

CAUSAL = ["stride", "whitespace", "byte_lm", "routed"]
KINDS = [*CAUSAL, "end", "start", "token_lm"]
ASKED: list[tuple[str, Place]] = [
    (kind, where)
    for kind in KINDS
    for where in ("byte", "patch")
    if (kind, where) not in {("byte_lm", "patch"), ("token_lm", "byte")}
]


def model(kind: str, window: int = 1024) -> CutModel:
    if kind != "routed":
        return model_of(kind, window)
    config = HarnessConfig(**{**vars(SMALL), "pool": "last"})
    return CutModel(shaken(Harness(config, None, CosineRouter(SMALL.local_width, 3.0)), by=0.3), None, window)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_what_it_has(kind: str) -> None:
    assert {where for k, where in ASKED if k == kind} == set(model(kind).has_features)


def test_a_model_without_patches_has_states_of_bytes_alone() -> None:
    uncut = dataclasses.replace(model("stride"), patcher=patchers.create("none"))
    assert uncut.has_features == ("byte",), "its only patch is still open at the end of a document"


@pytest.mark.parametrize(("kind", "where"), ASKED)
def test_shapes(kind: str, where: Place) -> None:
    docs = [*documents(np.random.default_rng(0)), b""]
    width = {"patch": SMALL.latent_width, "byte": SMALL.local_width}[where]
    width = 32 if kind in ("byte_lm", "token_lm") else width
    for doc, found in zip(docs, model(kind).features(docs, (where,))[where], strict=True):
        assert found.vectors.dtype == np.float32
        assert found.vectors.shape[1:] == (width,)
        assert found.unit.shape == (len(doc),)
        assert set(found.unit.tolist()) - {-1} == set(range(len(found.vectors)))
        if where == "byte":
            assert found.unit.tolist() == list(range(len(doc)))


@pytest.mark.parametrize("kind", ["stride", "routed", "end"])
@pytest.mark.parametrize("window", [1024, 16])
def test_both_kinds_of_states_from_one_pass_are_those_of_each_alone(kind: str, window: int) -> None:
    docs, m = documents(np.random.default_rng(2), (70, 3, 33)), model(kind, window)
    both = m.features(docs, ("patch", "byte"))
    for where, found in both.items():
        for one, alone in zip(found, m.features(docs, (where,))[where], strict=True):
            np.testing.assert_array_equal(one.unit, alone.unit)
            np.testing.assert_array_equal(one.vectors, alone.vectors)


@pytest.mark.parametrize(("kind", "where"), ASKED)
@pytest.mark.parametrize("window", [1024, 16])
def test_alone_as_in_a_batch(kind: str, where: Place, window: int) -> None:
    docs = documents(np.random.default_rng(1), (70, 3, 33, 16, 17))
    together = model(kind, window).features(docs, (where,))[where]
    for doc, found in zip(docs, together, strict=True):
        alone = model(kind, window).features([doc], (where,))[where][0]
        np.testing.assert_array_equal(alone.unit, found.unit)
        np.testing.assert_allclose(alone.vectors, found.vectors, atol=1e-4)


@pytest.mark.parametrize(("kind", "where"), [(k, w) for k, w in ASKED if k in CAUSAL])
@pytest.mark.parametrize("window", [1024, 16])
def test_what_comes_later_moves_nothing(kind: str, where: Place, window: int) -> None:
    doc, m = TEXT[:60], model(kind, window)
    whole = m.features([doc], (where,))[where][0]
    for end in (7, 16, 31, 40):
        for other in (doc[:end], doc[:end] + b"zq~" * 6):
            found = m.features([other], (where,))[where][0]
            closed = len(
                m.features([doc[:end]], (where,))[where][0].vectors
            )  # patches that the first bytes close, or bytes
            assert closed
            inside = int((whole.unit[:end] < closed).sum())
            np.testing.assert_array_equal(whole.unit[:inside], found.unit[:inside])
            np.testing.assert_allclose(found.vectors[:closed], whole.vectors[:closed], atol=1e-4)


@pytest.mark.parametrize("kind", ["stride", "whitespace", "byte_lm", "routed", "end", "start"])
def test_the_state_of_a_byte_has_read_it(kind: str) -> None:
    doc = TEXT[:40]
    for t in (0, 20, 39):
        other = doc[:t] + b"x" + doc[t + 1 :]
        a, b = (model(kind).features([d], ("byte",))["byte"][0].vectors for d in (doc, other))
        assert np.abs(a[t] - b[t]).max() > 1e-3
        if kind in CAUSAL:
            np.testing.assert_allclose(a[:t], b[:t], atol=1e-4)


@pytest.mark.parametrize(("kind", "where"), [(k, w) for k, w in ASKED if w == "patch"])
def test_a_patch_has_read_its_last_byte(kind: str, where: Place) -> None:
    doc, m = TEXT[:60], model(kind)
    before = m.features([doc], (where,))[where][0]
    for t in (11, 30):
        other = doc[:t] + b"e" + doc[t + 1 :]
        after = m.features([other], (where,))[where][0]
        mine = before.unit[t]
        same = after.unit[:t].tolist() == before.unit[:t].tolist() and after.unit[t] == mine
        if same:
            assert np.abs(before.vectors[mine] - after.vectors[mine]).max() > 1e-3


def test_patches_are_those_of_the_patcher() -> None:
    doc = TEXT[:50]
    for kind in ("stride", "whitespace"):
        m = model(kind)
        assert m.patcher is not None
        starts = m.patcher.segment(doc + b"\n")
        unit = m.features([doc], ("patch",))["patch"][0].unit
        expected = starts[:-1].cumsum() - 1
        if not starts[-1]:
            expected[expected == expected[-1]] = -1  # open at the end
        np.testing.assert_array_equal(unit, expected)


@pytest.mark.parametrize("kind", ["end", "start", "token_lm"])
def test_the_end_of_a_document_closes_what_the_whole_of_it_cuts(kind: str) -> None:
    m = model(kind)
    assert m.patcher is not None
    docs = [TEXT[:50], b"", TEXT[:7], b"T"]
    for doc, found in zip(docs, m.features(docs, ("patch",))["patch"], strict=True):
        np.testing.assert_array_equal(found.unit, m.patcher.segment(doc).cumsum() - 1)


def test_stride_patches_by_hand() -> None:
    """Stride 3 over 8 bytes: abc def gh, the last still open; over 9 bytes it is closed."""
    unit = model("stride").features([b"abcdefgh", b"abcdefghi"], ("patch",))["patch"]
    assert unit[0].unit.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    assert unit[1].unit.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("kind", ["stride", "whitespace", "routed", "byte_lm", "token_lm"])
def test_the_head_reads_these_states(kind: str) -> None:
    """What has read byte t, or a token, gives the cost of what comes next."""
    m, doc = model(kind), TEXT[:30]
    if isinstance(m.module, Harness) and m.module.latent_head is not None:
        nn.init.zeros_(m.module.latent_head.weight)
    where: Place = "patch" if kind == "token_lm" else "byte"
    found = m.features([doc], (where,))[where][0].vectors
    logits = found.astype(float) @ m.module.head.weight.detach().numpy().T  # type: ignore[union-attr, operator]
    nats = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    if kind == "token_lm":
        symbols, starts = m.patcher.encode(doc)  # type: ignore[union-attr]
    else:
        symbols, starts = np.frombuffer(doc, np.uint8), np.ones(len(doc), bool)
    expected = nats[np.arange(len(symbols) - 1), symbols[1:]]
    np.testing.assert_allclose(m.nats([doc])[0][starts][1:], expected, atol=1e-4)
