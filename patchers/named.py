"""A registry of classes by name: a decorator, and entry points of installed packages."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from patchers.errors import BenchError

T = TypeVar("T")


class Named(Generic[T]):
    """Classes of one kind (patchers, tasks) by name."""

    def __init__(
        self,
        kind: str,
        base: type,
        group: str,
        check: Callable[[str, type[Any]], None] = lambda name, cls: None,
        built_in: Callable[[], None] = lambda: None,
    ) -> None:
        """`kind` is what messages call a class, `base` what all of them are, `group` the entry points' group; `check`
        may refuse a class.

        `built_in` imports the modules that add our own; it is called once, before anybody else's class is added or any
        is asked for.
        """
        self.kind, self.base, self.group, self.check = kind, base, group, check
        self.classes: dict[str, type[T]] = {}
        self._built_in: Callable[[], None] | None = built_in

    def _with_built_in(self) -> None:
        if self._built_in is not None:
            built_in, self._built_in = self._built_in, None
            built_in()

    def add(self, name: str, cls: Any) -> Any:
        """Make a class known by a name, and a frozen dataclass if it is not one yet.

        Raises BenchError for a class that is none of the kind or lacks its methods, where another has the name, and
        what `check` raises.
        """
        if not name or not isinstance(name, str):
            raise BenchError(f"{self.kind} {name!r} in {where(cls)} needs a name: a text that is not empty")
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            what = getattr(cls, "__qualname__", repr(cls))
            raise BenchError(
                f"{what} in {where(cls)} is registered as {self.kind} '{name}' and is no "
                f"{self.base.__name__}: write class {what}({self.base.__name__})"
            )
        if cls.__module__.partition(".")[0] != "patchers":
            self._with_built_in()
        other = self.classes.get(name)
        if other is not None and (where(other), other.__qualname__) != (where(cls), cls.__qualname__):
            both = f"{where(other)} and in {where(cls)}"
            raise BenchError(f"{self.kind} '{name}' is defined twice, in {both}: rename one")
        if "__dataclass_params__" not in cls.__dict__:
            cls = dataclasses.dataclass(frozen=True)(cls)
        self._check_methods(name, cls)
        self.check(name, cls)
        cls.name = name
        self.classes[name] = cls
        return cls

    def _check_methods(self, name: str, cls: type) -> None:
        """Raises BenchError where a method that each of the kind has is not there, or takes other arguments."""
        for method in sorted(getattr(cls, "__abstractmethods__", ())):
            raise BenchError(f"{self.kind} '{name}' in {where(cls)} has no method {method}, which each {self.kind} has")
        for method in sorted(getattr(self.base, "__abstractmethods__", ())):
            given, wanted = inspect.getattr_static(cls, method), inspect.signature(getattr(self.base, method))
            if not isinstance(given, types.FunctionType):
                continue
            try:
                inspect.signature(given).bind(*wanted.parameters)
            except TypeError:
                raise BenchError(
                    f"{self.kind} '{name}' in {where(cls)} has {method}{inspect.signature(given)}, wanted "
                    f"{method}({', '.join(wanted.parameters)})"
                ) from None

    def get(self, name: str) -> type[T]:
        """The class of a name. A plug-in that fails to import raises its own exception here."""
        self._with_built_in()
        installed = [point for point in entry_points(self.group) if point.name == name]
        modules = {point.module for point in installed}
        if name in self.classes:
            modules.add(self.classes[name].__module__)
        if len({module.partition(".")[0] for module in modules}) > 1:
            both = " and in ".join(sorted(modules))
            raise BenchError(f"{self.kind} '{name}' is defined twice, in {both}: uninstall one")
        if name not in self.classes and installed:
            installed[0].load()
            if name not in self.classes:
                raise BenchError(
                    f"the entry point '{name}' loads {installed[0].value}, which registers no such {self.kind}"
                )
        if name not in self.classes:
            raise unknown(self.kind, name, self.names())
        return self.classes[name]

    def names(self) -> list[str]:
        """Every name that can be asked for, sorted; entry points are listed without being imported."""
        self._with_built_in()
        return sorted({*self.classes, *(point.name for point in entry_points(self.group))})


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Those of installed packages, read again when a package was added or removed: to read them takes as long as most
    commands do otherwise, and a suite asks for each row."""
    folders = []
    for path in sys.path:
        with suppress(OSError):
            folders.append((path, os.stat(path or ".").st_mtime_ns))
    return _entry_points(group, tuple(folders))


@lru_cache(maxsize=8)
def _entry_points(group: str, folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=group))


def nearest(name: str, known: list[str]) -> str:
    """', did you mean 'x'?' for the closest of the known names, '' where none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def unknown(what: str, name: str, known: Iterable[str]) -> BenchError:
    """For a name that is none of the known ones."""
    there = list(known)
    return BenchError(f"unknown {what} {name!r}{nearest(name, there)}; there are: {', '.join(there)}")


def where(cls: Any) -> str:
    """The file, or the module, that defines a class."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
