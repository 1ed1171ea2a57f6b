"""All numbers of patchers together, and the tables and the picture of them."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from tokenizer_files import by_hand_tokenizer

import patchers
from bench.evaluation.noise import OPERATORS
from bench.intrinsics.aligned import AlignedTexts
from bench.intrinsics.measure import Contender, Intrinsics, Noisy, measure
from bench.reporting.formats import FORMATS
from bench.reporting.intrinsics import COLUMNS, agreement_table, check_columns, languages_table, rendered, tables
from bench.reporting.plots.heat_map import heat_map
from patchers.errors import BenchError

DOCS = [b"the cats sat there", b"", b"the other \xff tower"]
SENTENCES = {"eng": (b"the cat", b"ab"), "deu": (b"die Katze", b"abcd"), "ell": ("γάτα".encode(), b"")}
ALIGNED = AlignedTexts(SENTENCES, "eng")
NAMES = ("bytes", "stride", "whitespace", "none")


@pytest.fixture(scope="module")
def found() -> Intrinsics:
    contenders = [Contender(name, patchers.create(name)) for name in NAMES]
    tokenizer = patchers.create("tokenizer", file=str(by_hand_tokenizer()))
    contenders.append(Contender("mine", tokenizer, fit_seconds=1.5))
    return measure(contenders, DOCS, "some texts", {b"cats": (3,), b"tower": (3,), b"tree": (2,)}, ALIGNED)


def test_what_was_cut_is_said(found: Intrinsics) -> None:
    assert (found.bytes, found.documents, found.words, found.morpheme_words) == (35, 3, 7, 2)
    assert [row.label for row in found.rows] == [*NAMES, "mine"]
    assert (found.sentences, found.reference) == (2, "eng")


def test_bytes_by_hand(found: Intrinsics) -> None:
    """A patch a byte: 7 words of 28 letters in 35 bytes; of 33 boundaries 21 are inside of a word."""
    row = found.rows[0]
    assert row.words is not None
    assert row.words.fertility == pytest.approx((3 + 4 + 3 + 5 + 3 + 5 + 5) / 7)
    assert row.words.whole == 0
    assert row.words.recall == 1
    assert row.words.precision == pytest.approx(1 - (28 - 7) / (35 - 2))
    assert (row.lengths.mean, row.lengths.median, row.lengths.p95, row.lengths.variation) == (1, 1, 1, 0)
    assert row.vocabulary.types == len(set(b"".join(DOCS)))
    assert row.morphemes == pytest.approx(2 * 2 / (3 + 4 + 2))
    assert row.parity is not None
    assert row.parity.premiums == {"deu": 13 / 9, "ell": 8 / 9}
    assert row.used is None
    assert row.rate > 0


def test_no_patches_cost_a_patch_a_document(found: Intrinsics) -> None:
    row = found.rows[3]
    assert row.parity is not None
    assert row.parity.premiums == {"deu": 1.0, "ell": 0.5}, "an empty sentence has no patch"
    assert row.stability == 1
    assert row.morphemes == 0


def test_use_of_a_vocabulary_is_counted_in_ids(found: Intrinsics) -> None:
    mine = patchers.create("tokenizer", file=str(by_hand_tokenizer()))
    seen = {i for doc in DOCS for i in mine.encode(doc)[0].tolist()}  # type: ignore[attr-defined]
    assert found.rows[4].used == len(seen) / mine.vocab_size  # type: ignore[attr-defined]
    assert found.rows[4].fit_seconds == 1.5


def test_agreement_is_a_matrix(found: Intrinsics) -> None:
    matrix = found.agreement
    assert matrix.shape == (5, 5)
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()
    assert matrix[0, 3] == 0
    strides = sum((len(doc) - 1) // 4 for doc in DOCS if doc)
    assert matrix[0, 1] == pytest.approx(2 * strides / (strides + 35 - 2))


def test_stability_is_over_all_kinds_of_noise() -> None:
    """A patch at every byte loses only the boundaries of bytes that noise takes out or puts in."""
    noisy = Noisy.of([b"the cats sat", b"never read"], limit=8)
    assert noisy.clean == ("the cats",)
    assert len(noisy.noised) == len(OPERATORS)
    assert 0.5 < noisy.stability(patchers.create("bytes")) < 1
    assert noisy.stability(patchers.create("none")) == 1


def test_nothing_to_cut_is_refused() -> None:
    with pytest.raises(BenchError, match="nowhere has no text to cut"):
        measure([Contender("bytes", patchers.create("bytes"))], [b""], "nowhere")


# --- tables


@pytest.mark.parametrize("format", FORMATS)
def test_tables_in_every_format(found: Intrinsics, format: str) -> None:
    text = rendered(tables(found, in_models=["hnet"], twice=[("token_lm", "bpe")]), format)
    for label in NAMES:
        assert label in text
    if format == "json":
        first, second, third = json.loads(text)
        assert [row["label"] for row in first["rows"]] == [*NAMES, "mine"]
        assert first["rows"][0]["cells"]["renyi"] == pytest.approx(found.rows[0].vocabulary.renyi)
        assert second["rows"][0]["cells"]["bytes"] == 1.0
        assert [row["label"] for row in third["rows"]] == ["deu", "ell", "mean", "Gini"]
        assert "Cut alike: token_lm as bpe." in first["notes"]
        assert any("alone: hnet." in note for note in first["notes"])
    if format == "csv":
        lines = list(csv.DictReader(io.StringIO(text.split("\n\n")[0])))
        assert float(lines[0]["fertility"]) == found.rows[0].words.fertility  # type: ignore[union-attr]


def test_columns_can_be_chosen(found: Intrinsics) -> None:
    assert [c.id for c in tables(found, ["word_recall", "p50"])[0].columns] == ["row", "word_recall", "p50"]
    usual = [c.id for c in tables(found)[0].columns]
    assert set(usual) == {"row", *COLUMNS} - {"word_precision", "word_recall"}
    bare = measure([Contender("bytes", patchers.create("bytes"))], DOCS, "x")
    assert {"morpheme_f1", "parity_gini", "used", "fit_seconds"} & {c.id for c in tables(bare)[0].columns} == set()
    assert languages_table(bare) is None
    with pytest.raises(BenchError, match="unknown column 'renyj', did you mean 'renyi'"):
        check_columns(["renyj"])


def test_the_dearest_language_comes_first(found: Intrinsics) -> None:
    table = languages_table(found)
    assert table is not None
    assert table.cell("mean", "bytes").value == pytest.approx((13 / 9 + 8 / 9) / 2)


def test_the_heat_map_shows_every_number(found: Intrinsics) -> None:
    figure = heat_map(agreement_table(found), "Agreement")
    (axes,) = figure.axes
    said = [text.get_text() for text in axes.texts]
    assert len(said) == 25
    assert said[0] == "1.00"
    assert said[1] == f"{found.agreement[0, 1]:.2f}".removeprefix("0")
    assert [label.get_text() for label in axes.get_xticklabels()] == [*NAMES, "mine"]
