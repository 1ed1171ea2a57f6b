"""The registry of patchers: a decorator, the built-ins, entry points of `patchbench.patchers`, and plug-in files."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from patchers.base import Patcher, read_header
from patchers.errors import BenchError

GROUP = "patchbench.patchers"
_classes: dict[str, type[Patcher]] = {}
P = TypeVar("P", bound=Patcher)


@typing.dataclass_transform(frozen_default=True)
def register(name: str) -> Callable[[type[P]], type[P]]:
    """Class decorator that makes a Patcher known as `name`, and a frozen dataclass if it is not one yet."""

    def add(cls: type[P]) -> type[P]:
        other = _classes.get(name)
        if other is not None and (_where(other), other.__qualname__) != (_where(cls), cls.__qualname__):
            raise BenchError(f"patcher '{name}' is defined twice, in {_where(other)} and in {_where(cls)}: rename one")
        if "__dataclass_params__" not in cls.__dict__:
            cls = dataclasses.dataclass(frozen=True)(cls)
        cls.name = name
        _classes[name] = cls
        return cls

    return add


def get(name: str) -> type[Patcher]:
    """The class registered as `name`. A plug-in that fails to import raises its own exception here."""
    installed = [point for point in importlib.metadata.entry_points(group=GROUP) if point.name == name]
    modules = {point.module for point in installed}
    if name in _classes:
        modules.add(_classes[name].__module__)
    if len({module.partition(".")[0] for module in modules}) > 1:
        raise BenchError(f"patcher '{name}' is defined twice, in {' and in '.join(sorted(modules))}: uninstall one")
    if name not in _classes and installed:
        installed[0].load()
        if name not in _classes:
            raise BenchError(f"the entry point '{name}' loads {installed[0].value}, which registers no such patcher")
    if name not in _classes:
        raise BenchError(f"unknown patcher '{name}'{nearest(name, names())}; there are: {', '.join(names())}")
    return _classes[name]


def names() -> list[str]:
    """Every name that can be asked for, sorted; entry points are listed without being imported."""
    return sorted({*_classes, *(point.name for point in importlib.metadata.entry_points(group=GROUP))})


def create(name: str, **options: Any) -> Patcher:
    """A patcher with these options. Raises BenchError for an unknown name or option, or a wrong type."""
    cls = get(name)
    fields = {f.name: f for f in dataclasses.fields(cls) if not f.name.startswith("_")}
    hints = typing.get_type_hints(cls)
    for key, value in options.items():
        if key not in fields:
            has = f"it has: {', '.join(fields)}" if fields else "it has none"
            raise BenchError(f"patcher '{name}' has no option '{key}'{nearest(key, list(fields))}; {has}")
        if not _fits(value, hints[key]):
            raise BenchError(f"option '{key}' of patcher '{name}' must be {_words(hints[key])}, got {value!r}")
    return cls(**options)


def load(folder: str | Path) -> Patcher:
    """The patcher that `Patcher.save` wrote to `folder`, whichever it is."""
    return get(read_header(folder)["name"]).load(folder)


def load_plugin(path: str | Path) -> types.ModuleType:
    """Import a Python file that registers patchers; a file that is loaded already is not run again."""
    file = Path(os.path.expanduser(path))
    if not os.path.isfile(file):  # pathlib's own raises for a name that is too long
        raise BenchError(f"no plug-in file at {path}: give the path of a Python file that registers a patcher")
    file = file.resolve()
    module_name = f"patchbench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise BenchError(f"{path} is no Python file: give the path of a .py file that registers a patcher")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def loaded_plugins() -> list[str]:
    """The files that `load_plugin` has imported, for another process to import."""
    return [str(m.__file__) for name, m in sys.modules.items() if name.startswith("patchbench_plugin_")]


def nearest(name: str, known: list[str]) -> str:
    """', did you mean 'x'?' for the closest of the known names, '' where none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def _where(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, origin or hint)


def _words(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " | ".join(str(value) for value in typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_words(part) for part in typing.get_args(hint))
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return plain.get(hint, str(hint))
