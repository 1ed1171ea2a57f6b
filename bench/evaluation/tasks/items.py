"""Items of the spelling task, generated from words and clauses or read from CUTE's files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import islice
from pathlib import Path
from random import Random
from string import ascii_lowercase

from bench.data.config import Document
from bench.evaluation.tasks.operations import (
    CHAR,
    NO,
    OPERATIONS,
    WORDS,
    YES,
    Inputs,
    Level,
    Operation,
    contains,
    spell,
)
from bench.evaluation.tasks.words import clauses, common_words, share
from patchers.errors import BenchError

CHOICES = 4
"""Answers to choose from, where a question has so many."""

LENGTHS = range(4, 10)
"""Letters of a word that is asked about."""

CLAUSE_WORDS = range(4, 9)
CLAUSE_BYTES = 48
TEST_SHARE = 0.5
"""Of all words, by hash: the others are for tuning. A half, since both words of a pair must be on the same side."""

MOST_WORDS = 3000
TWINS = tuple(name for name, operation in OPERATIONS.items() if operation.level is CHAR)
"""The tasks that have a twin over random strings, in which nothing helps but the letters."""


@dataclass(frozen=True)
class Item:
    """A question with answers to choose from."""

    task: str
    prompt: str
    """Ends with a colon; the answer follows after a space, and a line end after it."""

    choices: tuple[str, ...]
    answer: int
    """Which choice is right."""

    twin: bool = False
    """Over a random string."""

    @property
    def right(self) -> str:
        return self.choices[self.answer]

    def text(self, choice: int) -> str:
        return f"{self.prompt} {self.choices[choice]}\n"


def make_item(task: str, inputs: Inputs, right: str, twin: bool, rng: Random, where: str = "") -> Item:
    """Raises BenchError for inputs to which there is no right answer, or no wrong one."""
    operation = OPERATIONS[task]
    if not operation.shape.fullmatch(right):
        raise BenchError(f"{where}{task} of {inputs}: {right!r} is no answer; wanted one such as CUTE's files have")
    if operation.answer is None and right not in inputs[1:]:
        raise BenchError(f"{where}{task} of {inputs}: {right!r} is none of the two words to choose from")
    tempting = islice(operation.wrong(inputs, rng), 50)
    wrong = [w for w in dict.fromkeys(tempting) if w != right and operation.shape.fullmatch(w)][: CHOICES - 1]
    if not wrong:
        raise BenchError(f"{where}{task} of {inputs}: no answer is wrong; wanted a text with more units")
    choices = [right, *wrong]
    rng.shuffle(choices)
    return Item(task, operation.ask(inputs), tuple(choices), choices.index(right), twin)


# --- made anew


@dataclass(frozen=True)
class Material:
    """What items are made of: words of one side of the split, clauses and pairs of like meaning."""

    words: list[str]
    clauses: list[str]
    pairs: list[tuple[str, str]]

    @cached_property
    def triples(self) -> list[tuple[str, str, str]]:
        """A word, one of like meaning, and the one of all words of this side that is spelled most like it."""
        out = []
        for word, meant in self.pairs:
            distance, spelled = nearest(word, [w for w in self.words if w not in (word, meant)])
            if distance < edit_distance(word, meant):
                out.append((word, meant, spelled))
        return out

    @cached_property
    def letters(self) -> str:
        """Letters as often as they stand in the words."""
        return "".join(self.words)


@dataclass(frozen=True)
class Split:
    """Words for tuning and words for the test, by the hash of each; clauses by the documents they are from."""

    tuning: Material
    test: Material

    @staticmethod
    def of(train: Sequence[Document], test: Sequence[Document], without: frozenset[str] = frozenset()) -> Split:
        """The most frequent words of the training documents; clauses of test documents are for the test.

        `without` names words that must not be tuned on. Raises BenchError where there are too few.
        """
        words = [w for w in common_words((d.data for d in train), LENGTHS, MOST_WORDS) if len(set(w)) >= CHOICES]
        asked = _side(words, test, lambda w: share(w) < TEST_SHARE)
        tuning = _side(words, train, lambda w: share(w) >= TEST_SHARE and w not in without)
        both = {*asked.clauses}
        tuning = Material(tuning.words, [c for c in tuning.clauses if c not in both], tuning.pairs)
        for name, side in (("tuning", tuning), ("the test", asked)):
            if len(side.words) < 20 or len(side.clauses) < 5:
                raise BenchError(
                    f"spelling found {len(side.words)} words and {len(side.clauses)} clauses (a-z) for {name}; it "
                    "needs 20 and 5: give it more text, text in an alphabet that has them, or CUTE's files"
                )
        return Split(tuning, asked)


def _side(words: Sequence[str], documents: Sequence[Document], mine: Callable[[str], bool]) -> Material:
    found = clauses((d.data for d in documents), CLAUSE_WORDS, CLAUSE_BYTES)
    pairs = sorted((p for p in synonyms() if mine(p[0]) and mine(p[1])), key=lambda p: share(" ".join(p)))
    return Material([w for w in words if mine(w)], [c for c in found if len(set(c.split())) >= CHOICES], pairs)


def synonyms() -> list[tuple[str, str]]:
    """Pairs of like meaning, each written down for this project and no copy of another list."""
    lines = (files("bench.evaluation.tasks") / "synonyms.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [(one, other) for one, other in pairs]


def items(task: str, material: Material, count: int, twin: bool = False) -> list[Item]:
    """Up to `count` items of one task (of pairs there may be fewer); always the same ones.

    Twins ask the same of random strings of the same lengths, letter by letter.
    """
    rng = Random(f"{task} {twin}")  # of a string: the same in every process
    made: dict[str, Item] = {}
    for inputs, right in islice(_inputs(task, material, twin, rng), 4 * count):
        item = make_item(task, inputs, right, twin, rng)
        made.setdefault(item.prompt, item)
        if len(made) == count:
            break
    return list(made.values())


def _inputs(task: str, material: Material, twin: bool, rng: Random) -> Iterator[tuple[Inputs, str]]:
    """Inputs and right answers without end, or as many as there are pairs."""
    operation = OPERATIONS[task]
    if operation.level is None:
        yield from _judged(task, material, rng)
        return
    words = material.words if operation.level is CHAR else material.clauses
    assert operation.answer is not None
    while True:
        for text in rng.sample(words, len(words)):
            chosen = _MAKERS[task](operation.level, random_string(text, rng) if twin else text, material, rng)
            yield chosen, operation.answer(*chosen)


def random_string(word: str, rng: Random) -> str:
    """As many letters, all different."""
    return "".join(rng.sample(ascii_lowercase, len(word)))


def _new(level: Level, text: str, material: Material, rng: Random) -> str:
    """A unit that the text does not have."""
    while True:
        unit = rng.choice(material.letters if level is CHAR else material.words)
        if contains(level, unit, text) == NO:
            return unit


def _old(level: Level, text: str, rng: Random, count: int = 1) -> list[str]:
    return rng.sample(sorted(set(level.units(text))), count)


def _maybe(level: Level, text: str, material: Material, rng: Random) -> Inputs:
    there = rng.random() < 0.5
    return (_old(level, text, rng)[0] if there else _new(level, text, material, rng), text)


_Maker = Callable[[Level, str, Material, Random], Inputs]
_BOTH: dict[str, _Maker] = {
    "contains": _maybe,
    "ins": lambda level, text, m, rng: (_new(level, text, m, rng), *_old(level, text, rng), text),
    "del": lambda level, text, m, rng: (*_old(level, text, rng), text),
    "sub": lambda level, text, m, rng: (*_old(level, text, rng), _new(level, text, m, rng), text),
    "swap": lambda level, text, m, rng: (*_old(level, text, rng, 2), text),
}
_MAKERS: dict[str, _Maker] = {
    "spell": lambda level, text, m, rng: (text,),
    "spell_inverse": lambda level, text, m, rng: (spell(text),),
    **{f"{name}_{level.name}": make for name, make in _BOTH.items() for level in (CHAR, WORDS)},
}


def _judged(task: str, material: Material, rng: Random) -> Iterator[tuple[Inputs, str]]:
    for word, meant, spelled in material.triples:
        yield (word, *rng.sample([meant, spelled], 2)), meant if task == "sem" else spelled


def nearest(word: str, words: Sequence[str]) -> tuple[int, str]:
    """The word with the smallest edit distance, and that; of several the first by length and alphabet."""
    best = (len(word) + 1, "")
    for other in sorted(words, key=lambda w: (abs(len(w) - len(word)), w)):
        if abs(len(other) - len(word)) >= best[0]:
            break  # a distance is at least the difference of the lengths
        best = min(best, (edit_distance(word, other), other), key=lambda found: found[0])
    return best


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's: letters to insert, delete or change."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


# --- CUTE's files


def read_cute(folder: Path, count: int) -> dict[tuple[str, bool], list[Item]]:
    """Items of each of CUTE's 21 files, by task and whether it is the twin: `count` rows, evenly spaced (they stand
    in the order of their frequency).

    Raises BenchError for a file that is missing or not as CUTE's are, with the line.
    """
    out = {}
    for task, twin in [*((t, False) for t in OPERATIONS), *((t, True) for t in TWINS)]:
        path = folder / f"{task}{'_rand' if twin else ''}.tsv"
        rows = _rows(path)
        step = max(1, len(rows) // count)
        rng = Random(f"{task} {twin}")
        out[task, twin] = [
            _from_row(path, line, row, OPERATIONS[task], twin, rng) for line, row in rows[::step][:count]
        ]
    return out


def _rows(path: Path) -> Sequence[tuple[int, Mapping[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(
            f"cannot read {path} ({error}); spelling.cute wants the folder with CUTE's 21 tsv files"
        ) from error
    if not rows:
        raise BenchError(f"{path} has no rows; wanted a line of names and lines of values, separated by tabs")
    return rows


def _from_row(path: Path, line: int, row: Mapping[str, str], operation: Operation, twin: bool, rng: Random) -> Item:
    where = f"{path.name}, line {line}: "
    names = [f"input{i + 1}" for i in range(operation.arity)]
    missing = [name for name in [*names, "label"] if not row.get(name)]
    if missing:
        raise BenchError(f"{where}no value for {missing[0]}; wanted {', '.join(names)} and label, all with a value")
    return make_item(operation.name, tuple(row[name] for name in names), row["label"], twin, rng, where)


def parsed(task: str, written: str, choices: Sequence[str] = ()) -> str | None:
    """The answer in what a model wrote up to the end of the line; None if that is no answer to such a question."""
    answer = written.strip(" ")
    if OPERATIONS[task].level is None and answer not in choices:
        return None
    return answer if OPERATIONS[task].shape.fullmatch(answer) else None


__all__ = ["YES", "Item", "Split", "items", "parsed", "read_cute"]
