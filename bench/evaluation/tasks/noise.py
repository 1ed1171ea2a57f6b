"""The task `noise`: robustness in bits, in accuracy and in the stability of cuts (DESIGN section 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from bench.data.config import Data, Document
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.multiple_choice import ChoiceSource, Item, corpus_items
from bench.evaluation.noise import OPERATORS, PAPER, Operator
from bench.evaluation.tasks.base import Material, Task, TaskNotPossible, TaskResult
from bench.evaluation.tasks.noise_measures import LEAST, Parted, Score, after, choice, cut, has_boundaries, on, parted
from bench.evaluation.tasks.registry import register_task
from patchers.errors import BenchError
from patchers.named import unknown

Measure = Literal["after", "on", "choice", "cut"]


def _known_operator(name: str) -> str:
    if name not in OPERATORS:
        raise unknown("noise", name, OPERATORS)
    return name


OperatorName = Annotated[str, AfterValidator(_known_operator)]
Level = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@register_task("noise")
@dataclass(frozen=True)
class Noise(Task):
    """What noise costs: on clean text after it (a), on noisy text (b), in multiple choice (c), in stable cuts (d).

    (a) `after`: the extra bits per byte of clean text when what stands before it, the beginning of a test document, is
    noisy. `after_OPERATOR` for each, at the level that the operator's description names; `after` over all of them.
    (b) `on_LEVEL`: bits of noisy text per byte of the clean text, LEVEL in percent, over all operators that have
    levels; 0 is the clean text. Values `on_OPERATOR_LEVEL`, and `..._noisy` per byte of the noisy text.
    (c) `choice`: accuracy on clean items, `choice_PLACE` with noise on the prompt, the choices or both, over the five
    operators of BLT's paper. Values for each of the 15 variants: accuracy in percent, the difference to clean, and
    H-Net's robustness score, which flatters weak models.
    (d) `cut`: boundary F1 between the cuts of clean and noisy text, aligned through the edit; `cut_OPERATOR`.

    All models and seeds see the same noise; `seed` gives another one.
    """

    version: ClassVar[int] = 2

    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = ("after", "on", "choice", "cut")
    operators: Annotated[tuple[OperatorName, ...], Field(min_length=1)] = tuple(OPERATORS)
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0.05, 0.1, 0.2)
    documents: Count = 200  # for (a) and (d)
    level_documents: Count = 32  # for (b), which reads each of them once a level and operator
    first: Annotated[int, Field(ge=LEAST)] = 128  # characters of a document that may be noisy in (a), at most
    second: Annotated[int, Field(ge=LEAST)] = 64  # and of what follows: nearly all of the cost is there
    items: Count = 80
    choices: ChoiceSource | None = None  # by default made out of the test documents
    score: Score | None = None  # by default per_byte for choices that are read, gain for those that are made
    seed: Annotated[int, Field(ge=0)] = 0

    def check(self, data: Data) -> None:
        self._asked_of(data.test.documents)

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        items, texts = self._asked_of(material.test)
        asked = list(dict.fromkeys(self.measures))
        if "cut" in asked and not has_boundaries(model, texts):
            asked.remove("cut")
        if not asked:
            raise TaskNotPossible("this model cuts nothing, so there is no cut to be stable")
        operators = [OPERATORS[name] for name in self.operators]
        score: Score = self.score or ("gain" if self.choices is None else "per_byte")
        run: dict[Measure, Callable[[], TaskResult]] = {
            "after": lambda: after(model, texts, operators, self.seed),
            "on": lambda: on(model, texts[: self.level_documents], operators, self.levels, self.seed),
            "choice": lambda: choice(model, items, self._of_the_paper(), score, self.seed),
            "cut": lambda: cut(model, texts, operators, self.seed),
        }
        found = [run[measure]() for measure in asked]
        return TaskResult(
            {name: metric for result in found for name, metric in result.metrics.items()},
            {name: value for result in found for name, value in result.values.items()},
            self._notes(texts, items),
        )

    def _of_the_paper(self) -> list[Operator]:
        """Of the operators asked for, those of the paper; all of them where none is."""
        return [OPERATORS[n] for n in [n for n in PAPER if n in self.operators] or self.operators]

    def _asked_of(self, test: Sequence[Document]) -> tuple[list[Item], list[Parted]]:
        """Items and texts. Raises BenchError where there are too few, before anything is scored."""
        items: list[Item] = []
        if "choice" in self.measures:
            source = self.choices
            items = corpus_items(test, self.items, self.seed) if source is None else source.read(self.items)
        texts = parted(test, self.first, self.second, self.documents)
        if not texts:
            least = 2 * LEAST
            raise BenchError(f"noise needs test documents of about {least} characters or more; there is none")
        return items, texts

    def _notes(self, texts: list[Parted], items: list[Item]) -> dict[str, Any]:
        operators = [OPERATORS[name] for name in self.operators]
        return {
            "operators": {o.name: o.what + ("" if o.level is None else f"; {o.level:g} in tables") for o in operators},
            "documents": len(texts),
            "characters": sum(len(t.text) for t in texts),
            "items": len(items),
        }
