"""Writes docs/architecture.md: the rooms, their purposes and the imports between them, read from the code.

`PYTHONPATH=tests python -m pages.architecture` writes `docs/architecture.md`; a test holds that it is up to date.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("models", "patchers")
"""Rooms of their own; those of `bench` are its folders."""


def rooms(root: Path) -> dict[str, Path]:
    """Room -> its folder."""
    inside = sorted(path.parent for path in (root / "bench").glob("*/__init__.py"))
    return {name: root / name for name in PACKAGES} | {folder.name: folder for folder in inside}


def imported(path: Path) -> set[str]:
    """Rooms that a module imports from, imports inside functions counted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "bench":
            names += [f"bench.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package in PACKAGES:
                found.add(package)
            elif package == "bench" and rest:
                found.add(rest.partition(".")[0])
    return found


def arrows(root: Path) -> dict[str, set[str]]:
    """Room -> the other rooms that it imports from, on the lowest floors first."""
    there = rooms(root)
    named = {
        room: {other for path in folder.rglob("*.py") for other in imported(path)} & there.keys() - {room}
        for room, folder in there.items()
    }
    ordered: dict[str, set[str]] = {}
    while len(ordered) < len(named):
        ready = [room for room, below in named.items() if room not in ordered and below <= ordered.keys()]
        assert ready, f"rooms import from each other in a circle: {named.keys() - ordered.keys()}"
        ordered |= {room: named[room] for room in ready}
    return ordered


def purpose(folder: Path) -> str:
    """The first sentence of what the room says of itself."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ")


def needed(below: dict[str, set[str]], room: str) -> set[str]:
    """The arrows of a room that no way over another room implies: few enough to be drawn."""
    through = {deeper for other in below[room] for deeper in _reached(below, other)}
    return below[room] - through


def _reached(below: dict[str, set[str]], room: str) -> set[str]:
    return below[room] | {deeper for other in below[room] for deeper in _reached(below, other)}


def page(root: Path = ROOT) -> str:
    """The map in Markdown, with the picture as a Mermaid graph."""
    below, there = arrows(root), rooms(root)
    lines = [
        "# The rooms of the code",
        "",
        "Made by `PYTHONPATH=tests python -m pages.architecture` from the imports themselves. An arrow leads to a room",
        "that is imported from; what other arrows imply is left out of the picture and stands in the table.",
        "`tests/test_architecture.py` says which arrows are allowed.",
        "",
        "```mermaid",
        "flowchart BT",
    ]
    for room in below:
        lines += [f"    {room} --> {other}" for other in sorted(needed(below, room))]
    lines += ["```", "", "| room | what it is for | modules | imports from |", "|---|---|--:|---|"]
    for room, others in below.items():
        where = room if room in PACKAGES else f"bench/{room}"
        modules = sum(path.name != "__init__.py" for path in there[room].rglob("*.py"))
        lines.append(f"| `{where}/` | {purpose(there[room])} | {modules} | {', '.join(sorted(others)) or '—'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
