"""Word noise: real misspellings from codespell's list.

The list comes with the package `codespell`, of which we read this one file and import nothing (the list is CC BY-SA
3.0, the program GPL). Entries with more than one correction, with reasons, or with anything but letters are left out.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np

from bench.evaluation.noise.base import NONE, Noised, Operator
from patchers.errors import BenchError

_WORD = re.compile(r"[^\W\d_]+")
_ENTRY = re.compile(r"([^\W\d_]+)->([^\W\d_]+)")


@cache
def misspellings() -> dict[str, tuple[str, ...]]:
    """Each right word, in lower case, with the ways in which it is written wrongly, sorted.

    Raises BenchError where the list is not installed.
    """
    spec = importlib.util.find_spec("codespell_lib")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data" / "dictionary.txt"
    if path is None or not path.is_file():
        raise BenchError("the list of misspellings comes with a package that is missing: pip install codespell")
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = _ENTRY.fullmatch(line.strip().lower())
        if entry:
            found.setdefault(entry[2], []).append(entry[1])
    return {right: tuple(sorted(wrong)) for right, wrong in found.items()}


def _misspell(text: str, level: float, rng: np.random.Generator) -> Noised:
    known = misspellings()
    out: list[tuple[str, int]] = []
    end = 0
    for match in _WORD.finditer(text):
        # Two numbers a word, known or not, so that what happens to a word does not depend on the list's other words.
        hit, which = rng.random(2)
        wrong = known.get(match[0].lower())
        if wrong and hit < level:
            out += [(text[i], i) for i in range(end, match.start())]
            out += _aligned(match[0], _cased(wrong[int(which * len(wrong))], match[0]), match.start())
            end = match.end()
    out += [(text[i], i) for i in range(end, len(text))]
    return Noised.of(out)


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _aligned(right: str, wrong: str, at: int) -> list[tuple[str, int]]:
    """The letters of the wrong word, each with the place of the right one's letter that it stands for."""
    out: list[tuple[str, int]] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes():
        places = [at + a + k if tag != "insert" and a + k < b else NONE for k in range(d - c)]
        out += zip(wrong[c:d], places, strict=True)
    return out


OPERATORS = (
    Operator(
        "misspellings",
        "each word that codespell's list knows misspellings of is written as one of them, with a chance of `level`",
        0.2,
        _misspell,
    ),
)
