"""Examples of a record: they say what the model says, fit into few bytes, and are read as they were written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TEXT, byte_lm, harness

from bench.data.config import Corpus, Data, Document
from bench.evaluation.byte_model import CutModel
from bench.evaluation.examples import EVERYBODY, SHOWN, SIZE, Example, beginning, chosen_texts, examples
from patchers import create


@pytest.fixture(scope="module")
def data() -> Data:
    corpus = Corpus(tuple(Document(f"{i}", TEXT * i) for i in range(1, 5)))
    return Data("made up", corpus, corpus, corpus)


def test_bits_and_starts_are_the_models(data: Data) -> None:
    patcher = create("stride", stride=5)
    model = CutModel(harness(), patcher, 64)
    made = [Example.from_json(entry) for entry in json.loads(json.dumps(examples(model, data)))]
    assert len(made) == SHOWN + 1
    for example in made:
        assert example.starts is not None
        np.testing.assert_array_equal(example.starts, patcher.segment(example.text))
        np.testing.assert_allclose(example.bits, model.nats([example.text])[0] / math.log(2), atol=0.0051)
        assert example.flag_bits is None


def test_what_boundaries_cost_is_kept_where_it_is_paid(data: Data) -> None:
    patcher = create("stride", stride=3)
    for example in map(Example.from_json, examples(CutModel(harness("start"), patcher, 64), data)):
        assert example.flag_bits is not None
        assert (example.flag_bits <= example.bits + 0.01).all()
        assert example.flag_bits.sum() > 0


def test_a_model_without_patches_has_no_starts(data: Data) -> None:
    for entry in examples(CutModel(byte_lm(), None, 64), data):
        assert entry["starts"] is None
        assert len(entry["centibits"]) == len(entry["text"].encode())


def test_a_record_grows_by_little() -> None:
    long = tuple(Document(str(i), b"a word or two " * 40) for i in range(5))
    corpus = Data("x", Corpus(long), Corpus(long), Corpus(long))
    patcher = create("stride", stride=4)
    entries = examples(CutModel(harness("start"), patcher, 64), corpus)
    assert len(json.dumps(entries, ensure_ascii=False)) < 6000
    entries = examples(CutModel(harness(), patcher, 64), corpus)
    assert len(json.dumps(entries, ensure_ascii=False)) < 4000


def test_the_same_texts_for_every_run_and_one_for_everybody() -> None:
    documents = [
        Document("short", b"no"),
        Document("a", b"x" * 300),
        Document("b", b"y" * 300),
        Document("c", b"z" * 300),
    ]
    assert [name for name, _ in chosen_texts(documents)] == ["a", "b", "common"]
    assert [name for name, _ in chosen_texts(documents[:1])] == ["short", "common"]
    assert chosen_texts([]) == [EVERYBODY]
    assert len(EVERYBODY[1]) <= SIZE


@given(st.text(max_size=400).map(str.encode) | st.binary(max_size=400))
def test_a_beginning_is_short_and_never_cuts_a_character(text: bytes) -> None:
    begun = beginning(text)
    assert text.startswith(begun)
    assert len(begun) <= SIZE
    assert len(begun) > SIZE // 2 - 1 or begun == text
    try:
        text.decode()
    except UnicodeDecodeError:
        return
    begun.decode()


@pytest.mark.parametrize("text", [b"", b"\xff\x00 no utf-8 \x80", "naïve".encode()], ids=["empty", "bytes", "utf-8"])
def test_any_text_is_read_as_it_was_written(text: bytes) -> None:
    starts = create("stride", stride=2).segment(text)
    example = Example("id", text, starts, np.arange(len(text)) / 100, np.zeros(len(text)))
    again = Example.from_json(json.loads(json.dumps(example.as_json())))
    assert again.text == text
    assert again.starts is not None
    assert again.flag_bits is not None
    np.testing.assert_array_equal(again.starts, starts)
    np.testing.assert_array_equal(again.bits, example.bits)
