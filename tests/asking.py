"""What tests give to tasks beside the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.data import Document
from bench.tasks import Material


def material(
    test: Sequence[Document] = (), domains: Mapping[str, Sequence[Document]] | None = None, **others: Any
) -> Material:
    """Material with these texts; a task that asks for a model of its own gets an AssertionError."""

    def none(*_: Any) -> Any:
        raise AssertionError("this test has no other model")

    given: dict[str, Any] = {
        "train": (), "calibration": (), "seed": 0, "cache": Path("no-cache"), "untrained": none, "tuned": none,
    }  # fmt: skip
    return Material(test=test, domains=domains or {}, **(given | others))
