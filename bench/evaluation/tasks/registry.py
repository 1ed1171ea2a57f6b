"""The registry of tasks: a decorator, the built-ins, entry points of `patchbench.tasks`, and plug-in files."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
import typing
from collections.abc import Callable
from typing import TypeVar

from bench.evaluation.tasks.base import Task
from patchers.errors import BenchError
from patchers.registry import nearest

GROUP = "patchbench.tasks"
_classes: dict[str, type[Task]] = {}
T = TypeVar("T", bound=Task)


@typing.dataclass_transform(frozen_default=True)
def register_task(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator that makes a Task known as `name`, and a frozen dataclass if it is not one yet."""

    def add(cls: type[T]) -> type[T]:
        other = _classes.get(name)
        if other is not None and (_where(other), other.__qualname__) != (_where(cls), cls.__qualname__):
            raise BenchError(f"task '{name}' is defined twice, in {_where(other)} and in {_where(cls)}: rename one")
        if "__dataclass_params__" not in cls.__dict__:
            cls = dataclasses.dataclass(frozen=True)(cls)
        needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        if needed:
            raise BenchError(f"task '{name}' in {_where(cls)}: give {', '.join(needed)} a default (tuples for lists)")
        cls.name = name
        _classes[name] = cls
        return cls

    return add


def get(name: str) -> type[Task]:
    """The class registered as `name`. A plug-in that fails to import raises its own exception here."""
    installed = [point for point in importlib.metadata.entry_points(group=GROUP) if point.name == name]
    modules = {point.module for point in installed}
    if name in _classes:
        modules.add(_classes[name].__module__)
    if len({module.partition(".")[0] for module in modules}) > 1:
        raise BenchError(f"task '{name}' is defined twice, in {' and in '.join(sorted(modules))}: uninstall one")
    if name not in _classes and installed:
        installed[0].load()
        if name not in _classes:
            raise BenchError(f"the entry point '{name}' loads {installed[0].value}, which registers no such task")
    if name not in _classes:
        raise BenchError(f"unknown task {name!r}{nearest(name, names())}; there are: {', '.join(names())}")
    return _classes[name]


def names() -> list[str]:
    """Every name that can be asked for, sorted; entry points are listed without being imported."""
    return sorted({*_classes, *(point.name for point in importlib.metadata.entry_points(group=GROUP))})


def _where(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
