"""Multiple choice in HellaSwag's form: a context and several endings, one of them right.

From a file (six lines an item, or JSON lines with `ctx`, `endings` and `label`), from the `datasets` library, or made
out of a corpus for models that are too small for anything else: there the right choice is what the text goes on with,
and the wrong ones come from texts on the same topic.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from bench.data.config import Document
from bench.data.sources import DatasetConfig, dataset_rows, opened
from patchers.errors import BenchError

CHOICES = 4
CONTEXT = 100
ENDING = 40
"""Characters of an item made out of a corpus, at most; both end where a word does."""


@dataclass(frozen=True)
class Item:
    """One question. The text of choice i is `context + " " + choices[i]`."""

    id: str
    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class ChoiceSource:
    """Where items come from: a file, or a dataset with `ctx`, `endings` and `label` as HellaSwag has them."""

    file: str | None = None
    dataset: DatasetConfig | None = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.dataset is None):
            raise BenchError("choices come from exactly one of file and dataset; leave both out to make them")

    def read(self, limit: int) -> list[Item]:
        """The first `limit` items. Raises BenchError for a source that is missing, and an item that is not one."""
        if self.file is not None:
            name = self.file.removesuffix(".xz").removesuffix(".bz2").removesuffix(".gz").removesuffix(".zst")
            found = _json_lines(self.file) if name.endswith((".jsonl", ".ndjson")) else _six_lines(self.file)
        else:
            assert self.dataset is not None, "checked when it was made"
            rows = enumerate(dataset_rows(self.dataset))
            found = (_item(row, f"{self.dataset.path}, row {number}") for number, row in rows)
        items = list(islice(found, limit))
        if not items:
            raise BenchError(f"{self.file or 'the dataset'} holds no item; wanted HellaSwag's form")
        return items


def _six_lines(path: str) -> Iterator[Item]:
    with opened(path) as file:
        lines = [line.decode("utf-8", "replace").rstrip("\r\n") for line in file]
    for at in range(0, len(lines), 2 + CHOICES):
        context, *rest = lines[at : at + 2 + CHOICES]
        where = f"{path}, line {at + 1}"
        if len(rest) < 1 + CHOICES:
            raise BenchError(f"{where}: an item has six lines (context, label, four endings), this one {1 + len(rest)}")
        yield _checked(context, rest[1:], rest[0], where)


def _json_lines(path: str) -> Iterator[Item]:
    with opened(path) as file:
        for where, row in json_rows(file, path):
            yield _item(row, where)


def json_rows(lines: Iterable[bytes], name: object) -> Iterator[tuple[str, Any]]:
    """Where each JSON value of a file's lines stands, and the value; empty lines are passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{name}, line {number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                raise BenchError(f"{where} is not one JSON value in UTF-8: {error}") from error


def _item(row: Any, where: str) -> Item:
    if not isinstance(row, Mapping) or not {"ctx", "endings", "label"} <= row.keys():
        has = ", ".join(map(str, row)) if isinstance(row, Mapping) else repr(row)[:40]
        raise BenchError(f"{where}: wanted ctx, endings and label as in HellaSwag, there is {has}")
    activity = f"{row['activity_label']}: " if row.get("activity_label") else ""
    return _checked(activity + row["ctx"], list(row["endings"]), row["label"], where)


def _checked(context: str, choices: Sequence[str], label: Any, where: str) -> Item:
    text = str(label).strip()
    if len(choices) < 2 or not all(choices):
        raise BenchError(f"{where}: wanted two choices or more that are not empty, got {list(choices)}")
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) >= len(choices):
        raise BenchError(f"{where}: no choice is right: the label is {label!r}, wanted 0 to {len(choices) - 1}")
    digest = hashlib.sha256("\0".join([context, *choices]).encode("utf-8", "replace")).hexdigest()
    return Item(digest[:16], context, tuple(choices), int(text))


# --- out of a corpus


def corpus_items(documents: Iterable[Document], limit: int, seed: int = 0) -> list[Item]:
    """ "Pick the true continuation": at most `limit` items, in the order of the documents.

    A document that is long enough gives one item: about `CONTEXT` characters, and about `ENDING` that follow. Wrong
    choices are what follows in three other documents of the same topic (of any, where the topic has too few). Raises
    BenchError where there are not four such documents.
    """
    found = [(document, broken) for document in documents if (broken := _broken(document)) is not None]
    if len(found) < CHOICES:
        raise BenchError(
            f"multiple choice needs at least {CHOICES} test documents of {CONTEXT + ENDING} characters or more, there "
            f"are {len(found)}: give more test documents, or choices of your own (`choices: {{file: ...}}`)"
        )
    by_topic: dict[str | None, list[str]] = {}
    for document, (_, ending) in found:
        by_topic.setdefault(document.topic, []).append(ending)
    everything = [ending for _, (_, ending) in found]
    items = []
    for document, (context, ending) in found[:limit]:
        rng = np.random.default_rng([seed, *bytes.fromhex(document.id)])
        others = sorted({*by_topic[document.topic]} - {ending})
        if len(others) < CHOICES - 1:
            others = sorted({*everything} - {ending})
        choices = [others[i] for i in rng.choice(len(others), CHOICES - 1, replace=False)]
        answer = int(rng.integers(CHOICES))
        choices.insert(answer, ending)
        items.append(Item(document.id, context, tuple(choices), answer))
    return items


def _broken(document: Document) -> tuple[str, str] | None:
    """The beginning of a text and what follows, both whole words; None for a text that is too short."""
    text = " ".join(document.data.decode("utf-8", "replace").split())
    middle = text.rfind(" ", 0, CONTEXT + 1)
    end = text.rfind(" ", 0, middle + 1 + ENDING + 1)
    if len(text) < CONTEXT + ENDING or middle < CONTEXT // 2 or end <= middle + ENDING // 2:
        return None
    return text[:middle], text[middle + 1 : end]


# --- scores


def robustness(noisy: float, clean: float, chance: float = 25.0) -> float:
    """100 * (noisy - chance) / (clean - chance), accuracies in percent (H-Net, arXiv 2507.07955).

    NaN for a model that knows no more than chance. A model that knows little can get any number here, because it has
    little to lose; so read it beside the accuracies.
    """
    return 100 * (noisy - chance) / (clean - chance) if clean > chance else float("nan")
