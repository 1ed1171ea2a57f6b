"""The fourteen operations of CUTE (Edman, Schmid & Fraser 2024, section 3), with right answers and distractors.

An operation is a question about a text and its units: the letters of a word, or the words of a sentence. Its inputs
stand in the order of CUTE's own files, and its answers are equal to theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from random import Random
from string import ascii_lowercase
from typing import Literal

Inputs = tuple[str, ...]
YES, NO = "Yes", "No"
WORD = re.compile(r"\S+")
SENTENCE = re.compile(r"\S+( \S+)+")
SPELLED = re.compile(r"\S( \S)*")
EITHER = re.compile(f"{YES}|{NO}")


@dataclass(frozen=True)
class Level:
    """Letters of a word, or words of a sentence."""

    name: Literal["char", "word"]
    called: str
    """In a prompt."""

    space: str
    """Between two units."""

    shape: re.Pattern[str]
    """Of a text."""

    def units(self, text: str) -> list[str]:
        return re.findall(r"\w+", text) if self.space else list(text)

    def replaced(self, text: str, unit: str, by: Callable[[str], str], *more: str) -> str:
        """Every occurrence of a unit (or of one of several) made anew."""
        either = "|".join(re.escape(u) for u in (unit, *more))
        pattern = rf"(?<!\w)(?:{either})(?!\w)" if self.space else either
        return re.sub(pattern, lambda match: by(match[0]), text)

    def without(self, text: str, unit: str) -> str:
        """With a word goes the space before it; at the beginning the one behind."""
        if not self.space:
            return text.replace(unit, "")
        word = re.escape(unit)
        return re.sub(rf"^{word}(?!\w) ?| {word}(?!\w)", "", text)


CHAR = Level("char", "letter", "", WORD)
WORDS = Level("word", "word", " ", SENTENCE)


@dataclass(frozen=True)
class Operation:
    """One of CUTE's tasks."""

    name: str
    prompt: str
    """With the inputs as {0}, {1}, {2}."""

    answer: Callable[..., str] | None
    """The right answer to the inputs; None where it is a judgement (`orth` and `sem`)."""

    wrong: Callable[[Inputs, Random], Iterable[str]]
    """Other answers, the most tempting first; some may be right by chance."""

    shape: re.Pattern[str]
    """What an answer looks like; anything else is none."""

    arity: int
    level: Level | None = None
    """Whose units are asked about; None for `orth` and `sem`."""

    def ask(self, inputs: Inputs) -> str:
        return self.prompt.format(*inputs)


# --- what is right


def insert(level: Level, new: str, after: str, text: str) -> str:
    return level.replaced(text, after, lambda unit: unit + level.space + new)


def substitute(level: Level, old: str, new: str, text: str) -> str:
    return level.replaced(text, old, lambda _: new)


def swap(level: Level, one: str, other: str, text: str) -> str:
    return level.replaced(text, one, lambda unit: other if unit == one else one, other)


def contains(level: Level, unit: str, text: str) -> str:
    return YES if level.replaced(text, unit, lambda _: "") != text else NO


def spell(word: str) -> str:
    return " ".join(word)


def join(spelled: str) -> str:
    return spelled.replace(" ", "")


# --- what is wrong


def others(level: Level, text: str, but: Iterable[str], rng: Random) -> list[str]:
    """The other units of a text, each once, in any order."""
    found = sorted(set(level.units(text)) - set(but))
    rng.shuffle(found)
    return found


def misspelled(word: str, rng: Random) -> Iterator[str]:
    """Words of the same length: two neighbours swapped, then one letter changed, and so on."""
    while True:
        at = rng.randrange(len(word) - 1) if len(word) > 1 else 0
        yield word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
        at = rng.randrange(len(word))
        yield word[:at] + rng.choice(ascii_lowercase) + word[at + 1 :]


def inserted_elsewhere(level: Level, inputs: Inputs, rng: Random) -> Iterator[str]:
    new, after, text = inputs
    yield level.replaced(text, after, lambda unit: new + level.space + unit)
    for other in others(level, text, (after,), rng):
        yield insert(level, new, other, text)
        yield level.replaced(text, other, lambda unit: new + level.space + unit)
    yield text


def deleted_elsewhere(level: Level, inputs: Inputs, rng: Random) -> Iterator[str]:
    unit, text = inputs
    for other in others(level, text, (unit,), rng):
        yield level.without(text, other)
    yield text


def substituted_elsewhere(level: Level, inputs: Inputs, rng: Random) -> Iterator[str]:
    old, new, text = inputs
    for other in others(level, text, (old,), rng):
        yield substitute(level, other, new, text)
    yield text


def swapped_elsewhere(level: Level, inputs: Inputs, rng: Random) -> Iterator[str]:
    one, two, text = inputs
    rest = others(level, text, (one, two), rng)
    for other in rest:
        yield swap(level, one, other, text)
        yield swap(level, other, two, text)
    for a, b in permutations(rest, 2):
        yield swap(level, a, b, text)
    yield text


def _no_or_yes(level: Level) -> Callable[[Inputs, Random], Iterable[str]]:
    return lambda inputs, _: [NO if contains(level, *inputs) == YES else YES]


# --- all of them


def _on(level: Level) -> list[Operation]:
    """What is asked about letters and about words alike."""
    kind, called = level.name, level.called

    def operation(
        name: str, prompt: str, right: Callable[..., str], wrong: Callable[[Level, Inputs, Random], Iterable[str]]
    ) -> Operation:
        return Operation(
            f"{name}_{kind}",
            prompt,
            lambda *inputs: right(level, *inputs),
            lambda inputs, rng: wrong(level, inputs, rng),
            level.shape,
            3 if "{2}" in prompt else 2,
            level,
        )

    def deleted(level: Level, unit: str, text: str) -> str:
        return level.without(text, unit)

    return [
        Operation(
            f"contains_{kind}",
            f"{called} {{0}} in {{1}}:",
            lambda *inputs: contains(level, *inputs),
            _no_or_yes(level),
            EITHER,
            2,
            level,
        ),
        operation("ins", f"insert {called} {{0}} after {{1}} in {{2}}:", insert, inserted_elsewhere),
        operation("del", f"delete {called} {{0}} from {{1}}:", deleted, deleted_elsewhere),
        operation("sub", f"replace {called} {{0}} by {{1}} in {{2}}:", substitute, substituted_elsewhere),
        operation("swap", f"swap {called} {{0}} and {{1}} in {{2}}:", swap, swapped_elsewhere),
    ]


def _judgement(name: str, prompt: str) -> Operation:
    return Operation(name, prompt, None, lambda inputs, _: inputs[1:], WORD, 3)


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "spell",
            "spell {0}:",
            spell,
            lambda inputs, rng: (spell(w) for w in misspelled(inputs[0], rng)),
            SPELLED,
            1,
            CHAR,
        ),
        Operation(
            "spell_inverse",
            "join {0}:",
            join,
            lambda inputs, rng: misspelled(join(inputs[0]), rng),
            WORD,
            1,
            CHAR,
        ),
        *_on(CHAR),
        _judgement("orth", "spelled like {0}, {1} or {2}:"),
        _judgement("sem", "means like {0}, {1} or {2}:"),
        *_on(WORDS),
    )
}
