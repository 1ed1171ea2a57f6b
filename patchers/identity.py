"""Identifies the code of a plug-in, so that results of an edited plug-in are told from those of its old code.

Ours carry explicit versions. A plug-in of an installed package is known by the package's name and version; one in a
file (or in a package that is installed for editing) by a hash of its module and of all modules that it imports from its
own folder, and of the files there that their source names. One that was defined in a notebook, a script or at a prompt
is known by its own source and that of whatever it uses from there. The hash is of the syntax trees without docstrings:
comments and formatting do not count.

What counts is the code that runs: a module that was imported is what its files were then, whatever they are now.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
import linecache
import re
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS = ("bench", "models", "patchers")

PINNED = "_patchbench_code"
"""The attribute of a class that holds its identity, once it was asked for or where its source is in another process;
and of a module's spec (which `importlib.reload` makes anew) that of its files when it was imported."""

PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set, frozenset, re.Pattern, type(None))
"""What is known by how it is written."""


def code_identity(cls: type) -> str | None:
    """`NAME VERSION` of an installed package, or sha256 (hex) of the source; None for our own classes."""
    if PINNED in cls.__dict__:
        return str(cls.__dict__[PINNED])
    if cls.__module__.partition(".")[0] in OURS:
        return None
    file = _file_of(cls)
    if file is None:
        return _digest(_live_sources(cls))
    code = _installed(cls.__module__.partition(".")[0], file) or of_module(sys.modules[cls.__module__], file)
    setattr(cls, PINNED, code)  # its module may be imported again
    return code


def of_module(module: types.ModuleType, file: Path) -> str:
    """The identity of an imported module, as its files were when this was first asked; `load_plugin` asks at once."""
    if not hasattr(module.__spec__, PINNED):
        setattr(module.__spec__, PINNED, of_files(file))
    return str(getattr(module.__spec__, PINNED))


@contextmanager
def pinned(classes: Iterable[type]) -> Iterator[None]:
    """Inside the block classes that are in no file carry their identities with them, when they are pickled."""
    live = {cls: code_identity(cls) for cls in classes if is_live(cls)}
    for cls, code in live.items():
        setattr(cls, PINNED, code)
    try:
        yield
    finally:
        for cls in live:
            delattr(cls, PINNED)


def is_live(cls: type) -> bool:
    """Whether a class was defined where no other process can import it from: in a notebook, a script, at a prompt."""
    return PINNED not in cls.__dict__ and _file_of(cls) is None


def _file_of(thing: Any) -> Path | None:
    """The file of the module that defines something; None in a notebook, a script (which no one imports), a prompt."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    return None if file is None or name == "__main__" else Path(file).resolve()


def _live_sources(cls: type) -> dict[str, str]:
    """The sources of a class that is in no file, and of all that it uses: functions and classes beside it, values of
    plain types, and modules in files that may be edited."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(cls.__qualname__, cls)]
    while waiting:
        name, thing = waiting.pop()
        thing = getattr(thing, "py_func", thing)  # what numba has compiled
        if name in found:
            continue
        if isinstance(thing, type | types.FunctionType | types.ModuleType):
            file = _file_of(thing)
            if file is None and not isinstance(thing, types.ModuleType):
                found[name] = _live_source(thing)
                waiting += _used_by(thing)
            elif file is not None and _may_be_edited(file):
                module = thing if isinstance(thing, types.ModuleType) else sys.modules[thing.__module__]
                found[name] = of_module(module, file)
        elif isinstance(thing, PLAIN):
            found[name] = repr(sorted(map(repr, thing)) if isinstance(thing, set | frozenset) else thing)
        elif hasattr(thing, "tobytes"):  # an array
            found[name] = hashlib.sha256(repr((thing.shape, thing.dtype)).encode() + thing.tobytes()).hexdigest()
    return found


def _live_source(thing: Any) -> str:
    """As it was typed; the compiled code where that is not kept, as of a class that `exec` has made."""
    with_code = [thing] if isinstance(thing, types.FunctionType) else list(_functions(thing))
    for function in with_code:
        lines = linecache.getlines(function.__code__.co_filename)
        at = function.__code__.co_firstlineno
        for node in ast.walk(_parsed("".join(lines))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == thing.__name__:
                begin = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if begin <= at <= (node.end_lineno or begin):
                    return _normal(ast.unparse(node))
    plain = {name: value for name, value in vars(thing).items() if isinstance(value, PLAIN)}
    values = {name: repr(value) for name, value in plain.items() if not name.startswith("__")}
    return repr([values, *(_of_code(function.__code__) for function in with_code)])


def _of_code(code: types.CodeType) -> Any:
    constants = [_of_code(one) if isinstance(one, types.CodeType) else one for one in code.co_consts]
    return [code.co_code.hex(), constants, code.co_names]


def _functions(cls: type) -> Iterator[types.FunctionType]:
    """Those of the class body, as they were written."""
    for value in vars(cls).values():
        around = ("__func__", "fget", "func")  # of class methods, properties, cached properties
        inner = next((getattr(value, name) for name in around if getattr(value, name, None)), value)
        inner = inspect.unwrap(inner) if callable(inner) else inner
        if isinstance(inner, types.FunctionType) and inner.__qualname__.startswith(cls.__qualname__):
            yield inner


def _used_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """What the code of a class or function names of the module around it, and the bases of a class."""
    if isinstance(thing, type):
        yield from ((base.__qualname__, base) for base in thing.__bases__ if base is not object)
    for function in [thing] if isinstance(thing, types.FunctionType) else _functions(thing):
        names, codes = set(), [function.__code__]
        while codes:
            code = codes.pop()
            names |= set(code.co_names)
            codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
        yield from ((name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        yield from ((name, cell.cell_contents) for name, cell in cells if name != "__class__")


def _may_be_edited(file: Path) -> bool:
    """Whether a module is neither Python's, nor installed, nor ours."""
    fixed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    ours = Path(__file__).resolve().parents[1]
    return not any(file.is_relative_to(folder) for folder in (*fixed, *(ours / name for name in OURS)))


def _installed(package: str, path: Path) -> str | None:
    """`NAME VERSION` of the distribution that brought this file; None for files that may be edited."""
    if not any(path.is_relative_to(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")):
        return None
    names = importlib.metadata.packages_distributions().get(package)
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else None


def of_files(path: Path) -> str:
    """A hash of a module's file, of its neighbours that it imports, and of the files there that they name."""
    found: dict[str, str] = {}
    for file, source in _imported(path).items():
        found[file.relative_to(path.parent).as_posix()] = _normal(source)
        for named in _named_files(source, path.parent):
            found.setdefault(named.relative_to(path.parent).as_posix(), _content(named))
    return _digest(found)


def forget(path: Path) -> None:
    """Have a module and its neighbours that it imports read anew when they are next imported."""
    files = _imported(path)
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and Path(file).resolve() in files:
            del sys.modules[name]


def _imported(path: Path) -> dict[Path, str]:
    """The sources of a module and of its neighbours that it imports, and these in turn."""
    found: dict[Path, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = file.read_text(encoding="utf-8", errors="replace")
            waiting += _neighbours(found[file], path.parent)
    return found


def _named_files(source: str, folder: Path) -> Iterator[Path]:
    """Files in the folder, other than Python's, that a text in the source names: lists and tables that it reads."""
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200:
            name = node.value.lstrip("/")
            file = folder / name
            if "\0" not in name and not name.endswith(".py") and file.is_file():
                file = file.resolve()
                if file.is_relative_to(folder):
                    yield file


def _parsed(source: str) -> ast.Module:
    """Nothing for what does not parse, such as a cell with the notebook's own commands."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _neighbours(source: str, folder: Path) -> Iterator[Path]:
    """Files in the folder that the source imports, at the top or inside of functions."""
    for node in ast.walk(_parsed(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            if not name or name.partition(".")[0] in OURS:
                continue
            place = folder.joinpath(*name.split("."))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    yield file.resolve()


def _normal(source: str) -> str:
    """The syntax tree as text, without docstrings; the source itself where it does not parse."""
    try:
        tree = ast.parse(inspect.cleandoc(source) if source[:1].isspace() else source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _digest(sources: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
