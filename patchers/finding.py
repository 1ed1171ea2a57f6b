"""The outcome of one check of the patcher contract, with the texts and cuts that show which rule is broken."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from patchers.base import Starts


@dataclasses.dataclass(frozen=True)
class CounterExample:
    """Two texts that should be cut alike up to a place, or one text that was cut in two ways; or a text alone."""

    texts: tuple[bytes, ...]
    cuts: tuple[Starts, ...] = ()
    position: int | None = None
    """The first byte at which the cuts differ."""

    @staticmethod
    def of(texts: tuple[bytes, bytes], cuts: tuple[Starts, Starts]) -> CounterExample:
        shared = min(map(len, cuts))
        moved = np.flatnonzero(cuts[0][:shared] != cuts[1][:shared])
        return CounterExample(texts, cuts, int(moved[0]) if len(moved) else None)

    def words(self) -> str:
        """'A and then B', around the first place where two cuts of a text differ."""
        (text, _), (first, second) = self.texts, self.cuts
        if self.position is None:
            return f"{shown(text)} into {len(first)} flags and then into {len(second)}"
        cuts = [barred(text, starts, max(0, self.position - 20), self.position + 12) for starts in self.cuts]
        return f"{cuts[0]} and then {cuts[1]} (position {self.position})"

    def as_json(self) -> dict[str, Any]:
        """Texts as characters and as hexadecimal bytes, which are exact; cuts as the places of their starts."""
        return {
            "position": self.position,
            "texts": [{"text": text.decode(errors="replace"), "hex": text.hex()} for text in self.texts],
            "cuts": [np.flatnonzero(starts).tolist() for starts in self.cuts],
        }


def barred(text: bytes, starts: Starts, begin: int, end: int) -> str:
    """A stretch of text with a bar before each start."""
    end = min(end, len(text))
    places = [begin, *(p for p in range(begin + 1, end) if starts[p]), end]
    parts = [repr(text[a:b])[2:-1] for a, b in itertools.pairwise(places)]
    lead = "|" if begin < len(starts) and starts[begin] else ""
    return f"{'…' if begin else ''}'{lead}{'|'.join(parts)}'{'…' if end < len(text) else ''}"


def shown(text: bytes) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}… ({len(text)} bytes)"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check, in words for a person."""

    name: str
    passed: bool
    detail: str
    trace: str = ""  # of the exception, where the patcher raised one
    example: CounterExample | None = None  # what broke the rule, where it is about cuts


def differing(name: str, said: str, text: bytes, first: Starts, second: Starts) -> Finding:
    """One text that was cut in two ways."""
    example = CounterExample.of((text, text), (first, second))
    return Finding(name, False, f"{said} {example.words()}", example=example)


def leaking(
    name: str, said: str, texts: tuple[bytes, bytes], cuts: tuple[Starts, Starts], at: int, near: int
) -> Finding:
    """Two texts that begin alike and are cut differently there, first at byte `at`; `near` is the place to look at."""
    first, second = (barred(text, cut, max(0, near - 20), near + 12) for text, cut in zip(texts, cuts, strict=True))
    detail = (
        f"declared causal, but {said}; {first} and {second}. Cut after what has been read, or declare causal = False "
        "and let the model pay for the boundaries"
    )
    return Finding(name, False, detail, example=CounterExample(texts, cuts, at))
