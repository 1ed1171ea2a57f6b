"""The task `spelling`: CUTE's character tasks, by likelihood and by generation (DESIGN section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.data.config import Data, Document
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.tasks.base import Material, Metric, Task, TaskResult
from bench.evaluation.tasks.items import LENGTHS, TWINS, Item, Split, items, parsed, read_cute
from bench.evaluation.tasks.operations import CHAR, OPERATIONS, WORDS
from bench.evaluation.tasks.registry import register_task

LINES = 4
"""Solved items that make one text to tune on."""

GROUPS = {
    "characters": [name for name, operation in OPERATIONS.items() if operation.level is CHAR],
    "words": [name for name, operation in OPERATIONS.items() if operation.level is WORDS],
    "similarity": [name for name, operation in OPERATIONS.items() if operation.level is None],
}


@register_task("spelling")
@dataclass(frozen=True)
class Spelling(Task):
    """CUTE's fourteen tasks over words of the training texts, and clauses of the test texts.

    A small model cannot follow prompts, so it is first trained `tune` steps further on solved items over other words;
    0 leaves it as it is, and `shots` solved items then stand before each question. An item's answer is the choice that
    costs the fewest nats (a tie counts its share). Accuracy over all tasks about letters (`characters`), about words
    (`words`) and about likeness (`similarity`), over the twins of the first, which ask the same of random strings
    (`characters_random`), and by task; by twin as values (`..._random`). `exact` is the share of items that the model,
    asked to write, answers to the letter, and `unparsable` the share where what it writes is no answer at all; a
    model that cannot write has neither.
    """

    items: Annotated[int, Field(ge=1, le=1000)] = 60
    """Of each task."""

    written: Annotated[int, Field(ge=0, le=1000)] = 6
    """Of them, how many are answered in writing as well."""

    tune: Annotated[int, Field(ge=0)] = 120
    """Steps of training on solved items."""

    tune_items: Annotated[int, Field(ge=1)] = 800
    """Solved items of each task to tune on."""

    shots: Annotated[int, Field(ge=0, le=16)] = 0
    cute: str | None = None
    """A folder with CUTE's own 21 tsv files, which then are the test."""

    def check(self, data: Data) -> None:
        self._asked_of(data.train.documents, data.test.documents)

    def _asked_of(
        self, train: Sequence[Document], test: Sequence[Document]
    ) -> tuple[dict[tuple[str, bool], list[Item]], Split]:
        """Items, and what is left to tune on. Raises BenchError where there is too little."""
        if self.cute is None:
            split = Split.of(train, test)
            return {key: items(key[0], split.test, self.items, key[1]) for key in keys()}, split
        asked = read_cute(Path(self.cute), self.items)
        return asked, Split.of(train, test, words_of(asked))

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        asked, split = self._asked_of(material.train, material.test)
        solved = {task: items(task, split.tuning, self.tune_items) for task in OPERATIONS}
        if self.tune:
            model = material.tuned(tuning_texts(solved), self.tune)
        before = {task: "".join(i.text(i.answer) for i in solved[task][: self.shots]) for task in OPERATIONS}
        result = choices_scored(model, asked, before)
        result.values["chance"] = chance_of([i for (_, twin), of_task in asked.items() for i in of_task if not twin])
        result.notes["items"] = {task: len(asked[task, False]) for task in OPERATIONS}
        if model.can_write and self.written:
            result.metrics.update(written_metrics(model, asked, before, self.written))
        return result


Key = tuple[str, bool]
"""A task, and whether it is the twin."""


def keys() -> list[Key]:
    """Every task, and every twin: (name, whether it is the twin)."""
    return [*((task, False) for task in OPERATIONS), *((task, True) for task in TWINS)]


def words_of(asked: Mapping[tuple[str, bool], Sequence[Item]]) -> frozenset[str]:
    """All that looks like a word in items: these must not be tuned on."""
    texts = [text for of_task in asked.values() for i in of_task for text in (i.prompt, *i.choices)]
    parts = {part.strip(".,:;?!\"'") for text in texts for part in text.split()}
    joined = {text.replace(" ", "") for text in texts}
    return frozenset(w for w in parts | joined if len(w) in LENGTHS)


def tuning_texts(solved: Mapping[str, Sequence[Item]]) -> list[bytes]:
    """Solved items in any order, a few in each text."""
    lines = [item.text(item.answer) for task in solved for item in solved[task]]
    Random(0).shuffle(lines)
    return ["".join(lines[at : at + LINES]).encode() for at in range(0, len(lines), LINES)]


def choices_scored(
    model: ByteModel, asked: Mapping[tuple[str, bool], Sequence[Item]], before: Mapping[str, str]
) -> TaskResult:
    """Accuracy by group of tasks (a row: the i-th item of each of its tasks), by task (a row an item), and of each
    twin as a number."""
    right = iter(chosen(model, [item for of_task in asked.values() for item in of_task], before))
    rows = {
        (task, twin): [(f"{task}-{i}", next(right), 1.0) for i in range(len(of_task))]
        for (task, twin), of_task in asked.items()
    }
    groups = {group: [(task, False) for task in tasks] for group, tasks in GROUPS.items()}
    groups["characters_random"] = [(task, True) for task in TWINS]
    metrics = {group: _together(group, rows, keys, asked) for group, keys in groups.items()}
    metrics |= {t: Metric("accuracy", rows[t, False], False, chance_of(asked[t, False])) for t in OPERATIONS}
    twins = {f"{task}_random": float(np.mean([r[1] for r in rows[task, True]])) for task in TWINS}
    return TaskResult(metrics, twins)


def _together(
    name: str,
    rows: Mapping[Key, list[tuple[str, float, float]]],
    keys: Sequence[Key],
    asked: Mapping[Key, Sequence[Item]],
) -> Metric:
    together = []
    for i in range(max(len(rows[key]) for key in keys)):
        of_item = [rows[key][i] for key in keys if i < len(rows[key])]
        together.append((f"{name}-{i}", round(sum(r[1] for r in of_item), 6), float(len(of_item))))
    return Metric("accuracy", together, False, chance_of([item for key in keys for item in asked[key]]))


def chance_of(items: Sequence[Item]) -> float:
    """What guessing among their choices comes to."""
    return round(float(np.mean([1 / len(item.choices) for item in items])), 6)


def chosen(model: ByteModel, asked: Sequence[Item], before: Mapping[str, str]) -> list[float]:
    """1 where the right answer costs the least, 0 where it does not, its share where several cost the least.

    What is compared is the cost of the whole text, question and answer, so it does not matter where the answer's
    first patch begins.
    """
    texts = [(before[item.task] + item.text(c)).encode() for item in asked for c in range(len(item.choices))]
    costs = iter([float(nats.sum()) for nats in model.nats(texts, [len(item.choices) for item in asked])])
    out = []
    for item in asked:
        cost = [next(costs) for _ in item.choices]
        least = [c <= min(cost) + 1e-9 for c in cost]
        out.append(least[item.answer] / sum(least))
    return out


def written_metrics(
    model: ByteModel, asked: Mapping[tuple[str, bool], Sequence[Item]], before: Mapping[str, str], most: int
) -> dict[str, Metric]:
    """Share of answers that are written as they should be, and of those that are none."""
    chosen_items = [(f"{t}-{i}", item) for t in OPERATIONS for i, item in enumerate(asked[t, False][:most])]
    prompts = [(before[item.task] + item.prompt).encode() for _, item in chosen_items]
    longest = max(len(choice.encode()) for _, item in chosen_items for choice in item.choices)
    written = model.generate(prompts, longest + 2, until=[b"\n"])
    exact, unparsable = [], []
    for (name, item), data in zip(chosen_items, written, strict=True):
        answer = parsed(item.task, data.decode(errors="replace"), item.choices)
        exact.append((name, float(answer == item.right), 1.0))
        unparsable.append((name, float(answer is None), 1.0))
    return {"exact": Metric("accuracy", exact, lower_is_better=False), "unparsable": Metric("share", unparsable)}
