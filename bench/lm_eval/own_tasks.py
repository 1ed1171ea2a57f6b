"""Exports our noise and spelling tasks to lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.data.config import Data
from bench.evaluation.multiple_choice import Item, corpus_items
from bench.evaluation.noise import OPERATORS, PAPER
from bench.evaluation.tasks.items import Split, items
from bench.evaluation.tasks.noise_measures import PLACES, noised_item, parted
from bench.evaluation.tasks.operations import OPERATIONS
from bench.evaluation.tasks.spelling import keys
from bench.lm_eval.task_files import Exported, documents, multiple_choice, questions

SHOTS = 4
"""Solved items before each question of spelling, as CUTE has them."""


def noise(data: Data, count: int, seed: int = 0) -> dict[str, Exported]:
    """ "Pick the true continuation" out of the test documents, clean and with each noise of BLT's paper on the prompt,
    the choices or both; and the test documents themselves, clean and with every noise."""
    clean = corpus_items(data.test, count, seed)
    out = {"choice": multiple_choice(clean)}
    for name in PAPER:
        for place, (on_prompt, on_choices) in PLACES.items():
            noisy = [noised_item(item, OPERATORS[name], on_prompt, on_choices, seed) for item in clean]
            out[f"choice_{name}_{place}"] = multiple_choice(noisy)
    texts = [document.text for document in parted(data.test, 256, 256, count)]
    out["text"] = documents(texts)
    for name, operator in OPERATORS.items():
        out[f"text_{name}"] = documents([operator(text, seed=seed).text for text in texts])
    return out


def spelling(data: Data, count: int, seed: int = 0) -> dict[str, Exported]:
    """The fourteen tasks and their twins over random strings, as choices, and the fourteen in writing.

    Before each question stand solved ones over other words. `seed` changes nothing: the items are always the same.
    """
    split = Split.of(data.train.documents, data.test.documents)
    before = {task: "".join(i.text(i.answer) for i in items(task, split.tuning, SHOTS)) for task in OPERATIONS}
    out = {}
    for task, twin in keys():
        asked = items(task, split.test, count, twin)
        name = f"{task}_random" if twin else task
        # with the end of the line, which says that the answer ends
        out[name] = multiple_choice(
            [
                Item(f"{name}-{at}", before[task] + i.prompt, tuple(f"{choice}\n" for choice in i.choices), i.answer)
                for at, i in enumerate(asked)
            ]
        )
        if not twin:
            out[f"{name}_written"] = questions([(before[task] + i.prompt, i.right) for i in asked])
    return out


OWN: Mapping[str, Callable[[Data, int, int], dict[str, Exported]]] = {"noise": noise, "spelling": spelling}
