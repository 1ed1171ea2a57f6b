"""What a task is: it gets a byte model and documents, and gives sums per document, which one aggregator adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from bench.data import Document
from bench.model import ByteModel


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over documents."""

    unit: str
    documents: list[tuple[str, float, float]]
    """(document id, total, count): the metric is sum(total) / sum(count)."""

    lower_is_better: bool = True

    @property
    def value(self) -> float:
        return sum(d[1] for d in self.documents) / sum(d[2] for d in self.documents)

    def as_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "lower_is_better": self.lower_is_better,
            "documents": [list(d) for d in self.documents],
        }


@dataclass(frozen=True)
class TaskResult:
    metrics: dict[str, Metric]
    values: dict[str, float] = field(default_factory=dict)
    """Single numbers about the run, without an interval."""


class Task(Protocol):
    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the same model would get another number than before."""

    def run(self, model: ByteModel, documents: Sequence[Document]) -> TaskResult: ...
