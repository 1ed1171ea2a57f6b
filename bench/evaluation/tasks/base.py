"""The interface of tasks: a byte model and texts in, sums per document out."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bench.data.config import Data, Document
from bench.evaluation.byte_model import ByteModel
from patchers.errors import BenchError
from patchers.identity import code_identity


class TaskNotPossible(BenchError):
    """This model cannot do what the task asks of it; the record keeps the sentence, and the run its other tasks."""


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over documents."""

    unit: str
    documents: list[tuple[str, float, float]]
    """(document id, total, count): the metric is sum(total) / sum(count)."""

    lower_is_better: bool = True
    chance: float | None = None
    """What guessing comes to, where that is known: a table says which rows are not told from it."""

    @property
    def value(self) -> float:
        return sum(d[1] for d in self.documents) / sum(d[2] for d in self.documents)

    def as_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "lower_is_better": self.lower_is_better,
            **({} if self.chance is None else {"chance": self.chance}),
            "documents": [list(d) for d in self.documents],
        }


@dataclass(frozen=True)
class TaskResult:
    metrics: dict[str, Metric]
    """By name, without dots: a table asks for `TASK.METRIC`."""

    values: dict[str, float] = field(default_factory=dict)
    """Single numbers about the run, without an interval."""

    notes: dict[str, Any] = field(default_factory=dict)
    """What a record should say of how the numbers came about, as JSON."""

    def as_json(self) -> dict[str, Any]:
        notes = {"notes": self.notes} if self.notes else {}
        return {"metrics": {name: m.as_json() for name, m in self.metrics.items()}, "values": self.values, **notes}


@dataclass(frozen=True)
class Material:
    """What a task may use besides the model."""

    test: Sequence[Document]
    train: Sequence[Document]
    calibration: Sequence[Document]
    domains: Mapping[str, Sequence[Document]]
    """Other texts to be scored, by the name that `eval:` gives them."""

    seed: int
    """The run's. What is to be equal for all seeds of a row (which letters are changed) must not depend on it."""

    cache: Path
    """A folder for what is costly to make and depends on no model."""

    untrained: Callable[[], ByteModel]
    """The same sizes and the same cuts, with the initial weights of the seed."""

    tuned: Callable[[Sequence[bytes], int], ByteModel]
    """A copy of the model after so many more steps on these texts, trained as the row was; the model stays as it is."""


@dataclass(frozen=True)
class Task(ABC):
    """One question to a model. A frozen dataclass whose fields are its YAML options (types as pydantic checks them)."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Raised when the same model would get another number than before."""

    def check(self, data: Data) -> None:  # noqa: B027 - most tasks can be asked of any text
        """Raises BenchError where these texts, or the files that its options name, are not enough for the task. It is
        asked before anything is trained, with the texts that `run` will get."""

    @abstractmethod
    def run(self, model: ByteModel, material: Material) -> TaskResult:
        """Ask. Raises TaskNotPossible for a model that cannot do it, BenchError for what the user can mend; with
        these, or any other exception, the record keeps what was wrong, and the results of the other tasks."""

    def options(self) -> dict[str, Any]:
        """The fields, as they would stand in a YAML."""
        return dataclasses.asdict(self)

    def identity(self) -> Any:
        """What of the task a run's numbers depend on: its version, the options where they are not the defaults, and the
        code of a plug-in.

        So an option that is added later, with a default that changes nothing, leaves runs what they were.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        changed = {name: value for name, value in self.options().items() if value != defaults[name]}
        code = code_identity(type(self))
        more = ({"options": changed} if changed else {}) | ({} if code is None else {"code": code})
        return {"version": self.version, **more} if more else self.version

    def as_config(self) -> Any:
        """As a suite names it."""
        options = self.options()
        return {"name": self.name, **options} if options else self.name
