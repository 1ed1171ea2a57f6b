"""Multiple choice: where items come from, and what is wrong with those that are none."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from typing import Any

import pytest

from bench.data.config import Document
from bench.data.sources import DatasetConfig
from bench.evaluation.multiple_choice import CHOICES, CONTEXT, ENDING, ChoiceSource, corpus_items, robustness
from patchers.errors import BenchError

LINES = """\
Roofing: A man is on a roof. he
3
wraps a pair of skis.
rips tiles off.
holds a cube.
starts pulling up roofing.
Swimming: She dives
0
into the water.
into the sky.
into the wall.
into the past.
"""
ROW = {"activity_label": "Roofing", "ctx": "A man is on a roof. he", "endings": ["a", "b", "c", "d"], "label": "2"}


def test_six_lines_an_item(tmp_path: Path) -> None:
    path = tmp_path / "val.txt.bz2"
    path.write_bytes(bz2.compress(LINES.encode()))
    first, second = ChoiceSource(file=str(path)).read(10)
    assert (first.context, first.answer) == ("Roofing: A man is on a roof. he", 3)
    assert first.choices[3] == "starts pulling up roofing."
    assert (second.choices[second.answer], first.id != second.id) == ("into the water.", True)
    assert ChoiceSource(file=str(path)).read(1) == [first]


def test_json_lines_and_datasets_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "activity_label": "", "label": 1}) + "\n")
    first, second = ChoiceSource(file=str(path)).read(10)
    assert (first.context, first.choices, first.answer) == ("Roofing: A man is on a roof. he", ("a", "b", "c", "d"), 2)
    assert (second.context, second.answer) == ("A man is on a roof. he", 1)


@pytest.mark.slow
def test_datasets(tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    found = ChoiceSource(dataset=DatasetConfig(str(path))).read(5)
    assert found == ChoiceSource(file=str(path)).read(5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINES.replace("\n3\n", "\n4\n"), r"line 1: no choice is right: the label is '4', wanted 0 to 3"),
        (LINES.replace("\n0\n", "\n-1\n"), r"line 7: no choice is right: the label is '-1', wanted 0 to 3"),
        (LINES.replace("\n3\n", "\n\n"), r"line 1: no choice is right: the label is ''"),
        (LINES.rpartition("into")[0], r"line 7: wanted two choices or more that are not empty|six lines"),
        (LINES + "one more\n", r"line 13: an item has six lines \(context, label, four endings\), this one 1"),
        ("", "holds no item; wanted HellaSwag's form"),
    ],
)
def test_what_is_no_item_is_said_in_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "val.txt"
    path.write_text(content)
    with pytest.raises(BenchError, match=message):
        ChoiceSource(file=str(path)).read(10)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "label": ""}, "line 1: no choice is right: the label is ''"),
        ({**ROW, "endings": ["a"]}, "wanted two choices or more"),
        ({"text": "x"}, "wanted ctx, endings and label as in HellaSwag, there is text"),
        ([1, 2], r"there is \[1, 2\]"),
    ],
)
def test_what_is_no_row_is_said_in_one_sentence(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(BenchError, match=message):
        ChoiceSource(file=str(path)).read(10)


def test_sources_that_are_missing_or_two(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"cannot read .*none\.txt: .*No such file"):
        ChoiceSource(file=str(tmp_path / "none.txt")).read(1)
    for file, dataset in ((None, None), ("x", DatasetConfig("y"))):
        with pytest.raises(BenchError, match="exactly one of file and dataset"):
            ChoiceSource(file, dataset)


# --- out of a corpus


def texts(count: int, topics: int = 2) -> list[Document]:
    def words(n: int) -> bytes:
        return " ".join(f"word{n}x{i}" for i in range(40)).encode()

    return [Document(f"{n:016x}", words(n), topic=f"topic {n % topics}") for n in range(count)]


def test_items_out_of_a_corpus() -> None:
    documents = texts(12)
    items = corpus_items(documents, 10)
    assert [item.id for item in items] == [document.id for document in documents[:10]]
    by_id = {document.id: document for document in documents}
    for item in items:
        number = int(item.id, 16)
        text = by_id[item.id].data.decode()
        assert len(item.choices) == len(set(item.choices)) == CHOICES
        assert text.startswith(f"{item.context} {item.choices[item.answer]} "), "whole words, and what really follows"
        assert CONTEXT // 2 < len(item.context) <= CONTEXT
        assert all(ENDING // 2 < len(choice) <= ENDING for choice in item.choices)
        sources = {int(choice.split("x")[0].removeprefix("word")) for choice in item.choices}
        assert {source % 2 for source in sources} == {number % 2}, "wrong choices are of the same topic"
    assert corpus_items(documents, 10) == items
    assert corpus_items(documents, 10, seed=1) != items
    assert corpus_items(documents, 4) == items[:4]
    assert len({item.answer for item in items}) > 1


def test_a_topic_with_few_texts_takes_others_and_short_texts_give_none() -> None:
    items = corpus_items([*texts(6, topics=6), Document("f" * 16, b"short " * 5)], 10)
    assert len(items) == 6
    with pytest.raises(BenchError, match=r"at least 4 test documents of 140 characters or more, there are 3"):
        corpus_items(texts(3), 10)


# --- the score


@pytest.mark.parametrize(
    ("clean", "noisy", "score"),
    [(60.0, 60.0, 100.0), (60.0, 25.0, 0.0), (60.0, 42.5, 50.0), (45.0, 20.0, -25.0), (26.0, 28.0, 300.0)],
)
def test_robustness_of_a_small_table_of_accuracies(clean: float, noisy: float, score: float) -> None:
    assert robustness(noisy, clean) == pytest.approx(score)


def test_robustness_of_who_knows_nothing_is_no_number() -> None:
    assert robustness(30.0, 25.0) != robustness(30.0, 25.0)
    assert robustness(50.0, 75.0, chance=50.0) == pytest.approx(0.0)
