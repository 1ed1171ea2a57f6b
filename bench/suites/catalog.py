"""Finds suites: by path, or by the name of one that ships."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from patchers.errors import BenchError
from patchers.named import unknown


def shipped_suites() -> dict[str, Path]:
    """The suites that come with patchbench, by name."""
    folder = Path(str(resources.files("bench") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_suite(name: str) -> Path:
    """A file of that name, else the suite that ships under it. Raises BenchError for neither."""
    return find("suite", name, shipped_suites())


def find(what: str, name: str, shipped: Mapping[str, Path]) -> Path:
    """A file of that name, else what ships under it. Raises BenchError for neither; `what` is what it should be."""
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):  # pathlib's own raises for a name that is too long to be a file's
        return path
    if name in shipped:
        return shipped[name]
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise BenchError(f"no {what} at {name} (from {Path.cwd()}); check the path")
    raise unknown(what, name, shipped)


def folder_of(path: Path) -> str | None:
    """Where the relative paths of a suite begin: where it lies; None, the working directory, for those that ship."""
    folder = path.resolve().parent
    return None if folder == Path(str(resources.files("bench") / "configs")).resolve() else str(folder)


def purpose(path: Path) -> str:
    """What a suite says of itself: the comment that it begins with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)
