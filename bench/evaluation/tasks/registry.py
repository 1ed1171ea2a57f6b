"""The registry of tasks: a decorator, the built-ins, entry points of `patchbench.tasks`, and plug-in files."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from bench.evaluation.tasks.base import Task
from patchers.errors import BenchError
from patchers.named import Named, where

GROUP = "patchbench.tasks"
T = TypeVar("T", bound=Task)


def _has_defaults(name: str, cls: type[Any]) -> None:
    needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    if needed:
        raise BenchError(f"task '{name}' in {where(cls)}: give {', '.join(needed)} a default (tuples for lists)")


TASKS: Named[Task] = Named("task", Task, GROUP, _has_defaults)
get, names = TASKS.get, TASKS.names


@typing.dataclass_transform(frozen_default=True)
def register_task(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator that makes a Task known as `name`, and a frozen dataclass if it is not one yet."""
    return lambda cls: TASKS.add(name, cls)
