"""The outcome of one check of the patcher contract."""

from __future__ import annotations

import dataclasses

from patchers.base import Starts
from patchers.counter_example import CounterExample


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
