"""Docstrings are as they were written: no formatter has cut a sentence after "eq." or capitalised a parameter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ABBREVIATED = re.compile(r"\b(eq|al|sec|vol|cf|e\.g|i\.e)\.$")


def faults(docstring: str, parameters: set[str]) -> list[str]:
    """What a formatter has done to a docstring."""
    text = docstring.strip()
    summary = text.split("\n\n")[0]
    found = []
    if ABBREVIATED.search(summary):
        found.append("its first sentence ends after an abbreviation")
    halfopen = re.sub(r"\[[^\[\]()]*\)", "", summary)  # [0, 1) is whole
    if halfopen.count("(") != halfopen.count(")"):
        found.append("a blank line cuts a parenthesis")
    first = re.match(r"([A-Z]\w*)(,| \()", text)
    if first and first[1][0].lower() + first[1][1:] in parameters:
        found.append(f"the parameter {first[1].lower()} is capitalised")
    if re.search(r"[.,;] {3,}\S", text):
        found.append("lines were run together")
    return found


def docstrings(source: str) -> Iterator[tuple[str, str, set[str]]]:
    """(name, docstring, parameters) of a module, its classes and functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            found = ast.get_docstring(node)
            arguments = node.args if isinstance(node, ast.FunctionDef) else None
            names = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)} if arguments else set()
            if found:
                yield getattr(node, "name", "the module"), found, names


@pytest.mark.parametrize("package", ["models", "patchers", "bench"])
def test_no_docstring_was_broken_by_a_formatter(package: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {name}: {fault}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, text, parameters in docstrings(path.read_text())
        for fault in faults(text, parameters)
    ]
    assert not broken


@pytest.mark.parametrize(
    ("text", "parameters", "fault"),
    [
        ("Root-mean-square norm (Zhang & Sennrich 2019, eq.\n\n4).", set(), "its first sentence ends"),
        ("Rotary tables (Su et al.\n\n2021, eq. 34).", set(), "a blank line cuts a parenthesis"),
        ("X (T, n, E) turned by its position's angles.", {"x"}, "the parameter x is capitalised"),
        ("Rotary tables, theta 10,000.     `rope(positions)` gives cos.", set(), "lines were run together"),
    ],
)
def test_what_is_found(text: str, parameters: set[str], fault: str) -> None:
    assert any(one.startswith(fault) for one in faults(text, parameters))


@pytest.mark.parametrize("text", ["A place in [0, 1), from its hash.", "Sizes (B,) of it (BLT, eq. 2).", "X marks it."])
def test_what_is_not(text: str) -> None:
    assert faults(text, {"x"}) == []
