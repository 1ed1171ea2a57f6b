"""Identifies the code of a plug-in, so that results of an edited plug-in are told from those of its old code.

Ours carry explicit versions. A plug-in of an installed package is known by the package's name and version; one in a
file (or in a package that is installed for editing) by a hash of its module and of all modules that it imports from its
own folder, and of the files there that their source names. The hash is of the syntax trees without docstrings: comments
and formatting do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

OURS = ("bench", "models", "patchers")


def code_identity(cls: type) -> str | None:
    """`NAME VERSION` of an installed package, or sha256 (hex) of the source; None for our own classes.

    A class that was defined where no file is (at a prompt, in a notebook) is known by its own source where there is
    one, else by its qualified name: then nothing can tell that it was changed.
    """
    module = sys.modules.get(cls.__module__)
    if cls.__module__.partition(".")[0] in OURS:
        return None
    file = getattr(module, "__file__", None)
    if file is None:
        try:
            return _digest({"": _normal(inspect.getsource(cls))})
        except (OSError, TypeError):
            return f"{cls.__module__}.{cls.__qualname__}"
    path = Path(file).resolve()
    return _installed(cls.__module__.partition(".")[0], path) or _of_files(path, path.stat().st_mtime_ns)


def _installed(package: str, path: Path) -> str | None:
    """`NAME VERSION` of the distribution that brought this file; None for files that may be edited."""
    if not any(path.is_relative_to(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")):
        return None
    names = importlib.metadata.packages_distributions().get(package)
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else None


@lru_cache(maxsize=64)
def _of_files(path: Path, modified: int) -> str:
    """A hash of a module and of its neighbours that it imports; `modified` keeps an old answer from being given."""
    found: dict[str, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(path.parent).as_posix()
        if name in found:
            continue
        source = file.read_text(encoding="utf-8", errors="replace")
        found[name] = _normal(source)
        waiting += _neighbours(source, path.parent)
        for named in _named_files(source, path.parent):
            found.setdefault(named.relative_to(path.parent).as_posix(), _content(named))
    return _digest(found)


def _named_files(source: str, folder: Path) -> Iterator[Path]:
    """Files in the folder, other than Python's, that a text in the source names: lists and tables that it reads."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200:
            name = node.value.lstrip("/")
            file = folder / name
            if "\0" not in name and not name.endswith(".py") and file.is_file():
                file = file.resolve()
                if file.is_relative_to(folder):
                    yield file


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _neighbours(source: str, folder: Path) -> Iterator[Path]:
    """Files in the folder that the source imports, at the top or inside of functions."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in filter(None, names):
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
