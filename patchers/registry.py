"""The registry of patchers: a decorator, the built-ins, entry points of `patchbench.patchers`, and plug-in files."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from patchers.base import Patcher, read_header
from patchers.errors import BenchError
from patchers.identity import forget, of_files, of_module
from patchers.named import Named, nearest

GROUP = "patchbench.patchers"
BUILT_IN = (
    *("rules", "entropy", "bpe", "bpe_predicted", "unigram", "lz", "hnet"),
    *("tokenizer", "sentencepiece_file", "tiktoken_file"),
)
"""The modules that register our own, imported when a patcher is first asked for or added: numba alone takes a quarter
of a second, which `--help` need not pay."""


def _import_built_in() -> None:
    for name in BUILT_IN:
        importlib.import_module(f"patchers.{name}")


PATCHERS: Named[Patcher] = Named("patcher", Patcher, GROUP, built_in=_import_built_in)
get, names = PATCHERS.get, PATCHERS.names
P = TypeVar("P", bound=Patcher)


@typing.dataclass_transform(frozen_default=True)
def register(name: str) -> Callable[[type[P]], type[P]]:
    """Class decorator that makes a Patcher known as `name`, and a frozen dataclass if it is not one yet."""
    return lambda cls: PATCHERS.add(name, cls)


def without_file() -> list[str]:
    """Names of patchers that need no file of the user's, sorted."""
    return [name for name in names() if get(name).file_option is None]


def know(cls: type[Patcher]) -> str:
    """The name of a patcher's class, which is registered if it is not yet, by its own name in lower case.

    Raises BenchError where another class has that name.
    """
    if cls.__dict__.get("name") and PATCHERS.classes.get(cls.name) is cls:
        return cls.name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    return PATCHERS.add(str(cls.__dict__.get("name") or words), cls).name


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


PLUGIN = "patchbench_plugin_"
"""What names of modules begin with that are plug-in files."""


def load_plugin(path: str | Path) -> types.ModuleType:
    """Import a Python file that registers patchers; one that is loaded already is run again only where it was edited.

    Raises BenchError for what is no Python, and whatever the file itself raises.
    """
    file = Path(os.path.expanduser(path))
    if not os.path.isfile(file):  # pathlib's own raises for a name that is too long
        raise BenchError(f"no plug-in file at {path}: give the path of a Python file that registers a patcher")
    file = file.resolve()
    module_name = f"{PLUGIN}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        if of_files(file) == of_module(sys.modules[module_name], file):
            return sys.modules[module_name]
        forget(file)
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise BenchError(f"{path} is no Python file: give the path of a .py file that registers a patcher")
    try:
        spec.loader.get_code(module_name)  # type: ignore[attr-defined]  # what has a source has it
    except (SyntaxError, ValueError) as error:  # the latter for what is no text
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else error
        raise BenchError(f"plug-in {path}{line}: {type(error).__name__}: {why}") from error
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        of_module(module, file)
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def loaded_plugins() -> list[str]:
    """The files that `load_plugin` has imported, for another process to import."""
    return [str(m.__file__) for name, m in sys.modules.items() if name.startswith(PLUGIN)]


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
