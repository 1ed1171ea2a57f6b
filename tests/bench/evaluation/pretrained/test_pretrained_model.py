"""Scores and states of pretrained models against the library itself, a unit at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretrained_models as tiny
import pytest
import torch
from torch import nn

from bench.evaluation.pretrained.config import PretrainedConfig, locate
from bench.evaluation.pretrained.load import load, untrained
from bench.evaluation.pretrained.model import PretrainedModel

WINDOW = 60
DOCS = [
    (tiny.TEXT * 3).encode(),
    tiny.TEXT[:50].encode(),
    b"",
    b"a",
    b"fox \xff\xfe over \xe6\x9d the\0 lazy\r\n dog" * 4,
    f"in a text {tiny.END} is text".encode(),
]
CPU = torch.device("cpu")
Nats = Callable[[list[int], int], float]
"""-ln p of an id after these."""


def loaded(folder: Path, window: int = WINDOW, **options: Any) -> PretrainedModel:
    return load(locate(PretrainedConfig(str(folder), **options)), window, CPU)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind."""
    torch.manual_seed(0)
    made = {kind: tmp_path_factory.mktemp(kind) for kind in ("tokens", "bytes", "blt")}
    tiny.save_gpt2(made["tokens"])
    tiny.save_byte_llama(made["bytes"])
    tiny.save_blt(made["blt"])
    return made


def begin_of_window(start: int, window: int = WINDOW) -> int:
    """The byte from which on a byte is predicted (DESIGN section 6: half a window of context, at least)."""
    half = window // 2
    return 0 if start < window else window + (start - window) // half * half - half


def directly(module: Any, allowed: Sequence[int]) -> Nats:
    """The library's own answer, one id after another, the probability shared among `allowed`."""

    def nats(context: list[int], wanted: int) -> float:
        with torch.inference_mode():
            logits = module(torch.tensor([context]), use_cache=False).logits[0, -1].double()
        return float(torch.logsumexp(logits[list(allowed)], 0) - logits[wanted])

    return nats


def tokens_of(doc: bytes, tokenizer: Any) -> list[tuple[int, int]]:
    """(id, first byte) of each token of valid UTF-8, as the library tells: by the text that the tokens before say."""
    found = tokenizer(doc.decode(), add_special_tokens=False, split_special_tokens=True).input_ids
    letters = [tokenizer.convert_ids_to_tokens(i) for i in found]
    return [(i, sum(map(len, letters[:at]))) for at, i in enumerate(found)]


def bits_by_hand(units: list[tuple[int, int]], bos: int, nats: Nats) -> float:
    total = 0.0
    for at, (wanted, start) in enumerate(units):
        context = [i for i, first in units[:at] if first >= begin_of_window(start)]
        total += nats([bos, *context], wanted)
    return total / math.log(2)


def test_bits_of_a_model_over_tokens_are_the_librarys(folders: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = loaded(folders["tokens"])
    tokenizer = AutoTokenizer.from_pretrained(folders["tokens"])
    module: Any = AutoModelForCausalLM
    nats = directly(module.from_pretrained(folders["tokens"]), range(320))
    for doc in (DOCS[0], DOCS[1], DOCS[5]):
        units = tokens_of(doc, tokenizer)
        expected = bits_by_hand(units, tokenizer.bos_token_id, nats) / len(doc)
        found = model.score([doc]).nats[0]
        assert len(found) == len(doc)
        assert found.sum() / math.log(2) / len(doc) == pytest.approx(expected, abs=1e-6)
        assert np.flatnonzero(found).tolist() == [start for _, start in units], "nats stand at a token's first byte"


@pytest.mark.parametrize(("kind", "bos", "offset"), [("bytes", 1, 3), ("blt", 1, 4)])
def test_bits_of_a_model_over_bytes_are_the_librarys(
    folders: dict[str, Path], kind: str, bos: int, offset: int
) -> None:
    from transformers import AutoModelForCausalLM

    model = loaded(folders[kind], byte_offset=4) if kind == "blt" else loaded(folders[kind])
    module: Any = AutoModelForCausalLM
    nats = directly(module.from_pretrained(folders[kind]), range(offset, offset + 256))
    for doc in (DOCS[0][:150], DOCS[1], DOCS[4][:100]):
        units = [(b + offset, at) for at, b in enumerate(doc)]
        expected = bits_by_hand(units, bos, nats) / len(doc)
        assert model.score([doc]).nats[0].sum() / math.log(2) / len(doc) == pytest.approx(expected, abs=1e-6)


def test_a_document_within_a_window_costs_what_the_librarys_own_loss_says(folders: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loss_of: Any = AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(folders["tokens"])
    ids = [tokenizer.bos_token_id, *tokenizer(DOCS[1].decode()).input_ids]
    with torch.inference_mode():
        loss = loss_of.from_pretrained(folders["tokens"])(torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert loaded(folders["tokens"]).nats([DOCS[1]])[0].sum() == pytest.approx(float(loss) * (len(ids) - 1), rel=1e-6)


@pytest.mark.parametrize("kind", ["tokens", "bytes", "blt"])
def test_a_document_costs_the_same_alone(folders: dict[str, Path], kind: str) -> None:
    model = loaded(folders[kind], **({"byte_offset": 4} if kind == "blt" else {}))
    together = model.nats(DOCS)
    assert [len(nats) for nats in together] == [len(doc) for doc in DOCS]
    for doc, nats in zip(DOCS, together, strict=True):
        np.testing.assert_allclose(model.nats([doc])[0], nats, atol=1e-5)


# --- uniform models


def test_uniform_weights_over_bytes_cost_eight_bits(folders: dict[str, Path]) -> None:
    """The probability is shared among the 256 bytes, not among the 384 outputs."""
    model = loaded(folders["bytes"])
    nn.init.zeros_(model.head.weight)
    for doc, nats in zip(DOCS, model.nats(DOCS), strict=True):
        np.testing.assert_allclose(nats / math.log(2), np.full(len(doc), 8.0), rtol=1e-6)


def test_uniform_weights_over_tokens_cost_the_vocabulary_a_token(folders: dict[str, Path]) -> None:
    model = loaded(folders["tokens"])
    nn.init.zeros_(model.head.weight)
    cuts = model.cuts(DOCS)
    assert cuts is not None
    for doc, nats, starts in zip(DOCS, model.nats(DOCS), cuts, strict=True):
        assert nats.sum() / math.log(2) == pytest.approx(math.log2(320) * starts.sum(), rel=1e-6)
        if len(doc) > 100:
            bytes_a_token = len(doc) / starts.sum()
            assert bytes_a_token > 1
            assert nats.sum() / math.log(2) / len(doc) == pytest.approx(math.log2(320) / bytes_a_token, rel=1e-6)


# --- what stands before, and how much is seen


def test_without_bos_the_first_unit_is_one_of_all_alike(folders: dict[str, Path]) -> None:
    with_bos, without = loaded(folders["bytes"]), loaded(folders["bytes"], bos="none")
    assert with_bos.vocabulary.describe()["bos"] == 1, "ByT5 has an end of text, and no beginning"
    assert without.vocabulary.describe()["bos"] is None
    doc = DOCS[0]
    assert without.nats([doc])[0][0] == pytest.approx(math.log(256))
    assert with_bos.nats([doc])[0][0] != pytest.approx(math.log(256), rel=1e-3)
    chosen = loaded(folders["bytes"], bos="</s>")
    np.testing.assert_array_equal(chosen.nats([doc])[0], with_bos.nats([doc])[0])


@pytest.mark.parametrize("bos", ["auto", "none"])
def test_a_model_that_takes_less_than_a_window(tmp_path: Path, bos: str) -> None:
    """Each unit is scored once, after at least half of what the model can take."""
    torch.manual_seed(0)
    module = tiny.save_gpt2(tmp_path, positions=16)
    model = loaded(tmp_path, bos=bos)
    doc = DOCS[0]
    (units,) = model.vocabulary.encode([doc])
    read = model.windows([doc], [units])
    assert read.short > 0
    most = 16 if bos == "auto" else 17
    scored = np.concatenate([np.arange(w.score, w.end) for w in read.windows])
    assert sorted(scored.tolist()) == list(range(len(units.ids)))
    assert max(w.end - w.begin for w in read.windows) <= most
    found = model.nats([doc])[0][units.starts]
    nats = directly(module, range(320))
    for w in read.windows:
        of_its_bytes = max(w.begin, int(np.searchsorted(units.starts, begin_of_window(int(units.starts[w.score])))))
        assert w.begin == of_its_bytes
        assert w.score == w.begin or w.score - w.begin >= min(most // 2, w.score - of_its_bytes)
        context = [0] * (bos == "auto") + units.ids[w.begin : w.score].tolist()
        if context:
            assert found[w.score] == pytest.approx(nats(context, int(units.ids[w.score])), abs=1e-5)
    about = model.describe([doc])
    assert about["most_units"] == 16
    assert about["test"]["short_windows"] == read.short


def test_a_token_that_begins_before_a_window_is_not_seen_in_it(folders: dict[str, Path]) -> None:
    model = loaded(folders["tokens"])
    (units,) = model.vocabulary.encode([DOCS[0]])
    begins = [begin_of_window(start) for start in range(0, len(DOCS[0])) if start >= WINDOW]
    inside = {begin for begin in begins if begin not in units.starts}
    assert 0 < len(inside) < len(set(begins))
    assert model.describe([DOCS[0]])["test"]["straddled_windows"] == len(inside)


# --- states


def test_states_are_what_the_librarys_head_reads(folders: dict[str, Path]) -> None:
    model = loaded(folders["tokens"])
    doc = DOCS[1]
    (found,) = model.features([doc], ["patch"])["patch"]
    (units,) = model.vocabulary.encode([doc])
    library: Any = model.module
    with torch.inference_mode():
        states = library(torch.tensor([[0, *units.ids.tolist()]]), output_hidden_states=True).hidden_states[-1]
    np.testing.assert_allclose(found.vectors, states[0, 1:].numpy(), atol=1e-5)
    assert found.unit.tolist() == (np.searchsorted(units.starts, np.arange(len(doc)), "right") - 1).tolist()
    assert len(found.vectors) == len(units.ids) < len(doc)


@pytest.mark.parametrize("kind", ["bytes", "blt"])
def test_states_of_bytes(folders: dict[str, Path], kind: str) -> None:
    model = loaded(folders[kind], **({"byte_offset": 4} if kind == "blt" else {}))
    assert model.has_features == ("byte",)
    for doc, found in zip(DOCS, model.features(DOCS, ["byte"])["byte"], strict=True):
        assert found.vectors.shape == (len(doc), 32)
        assert found.unit.tolist() == list(range(len(doc)))
        assert np.isfinite(found.vectors).all()


def test_a_twin_has_fresh_weights_by_its_seed(folders: dict[str, Path]) -> None:
    model = loaded(folders["tokens"])
    one, same, other = (untrained(model, seed).features(DOCS[:1], ["patch"])["patch"][0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.vectors, same.vectors)
    assert np.abs(one.vectors - other.vectors).max() > 0.1
    assert np.abs(one.vectors - model.features(DOCS[:1], ["patch"])["patch"][0].vectors).max() > 0.1
