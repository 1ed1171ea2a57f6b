"""The spelling task: its fourteen operations by hand and against CUTE's files, its items, how answers are scored."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from asking import Told, material
from hypothesis import given
from hypothesis import strategies as st

from bench.data.config import Document
from bench.evaluation.byte_model import ByteModel, Scores
from bench.evaluation.tasks.base import Material as Given
from bench.evaluation.tasks.items import (
    TEST_SHARE,
    TWINS,
    Split,
    edit_distance,
    items,
    make_item,
    parsed,
    random_string,
    read_cute,
    synonyms,
)
from bench.evaluation.tasks.operations import OPERATIONS, WORDS, misspelled
from bench.evaluation.tasks.spelling import GROUPS, Spelling, keys, tuning_texts, words_of
from bench.evaluation.tasks.words import clauses, common_words, share
from bench.records.comparison import BEFORE_CHANCE
from patchers.errors import BenchError

CUTE = Path(__file__).resolve().parents[3].parent / "shared/data/benchmarks/cute.tar.xz"
BY_HAND: dict[str, tuple[tuple[str, ...], str, str]] = {
    # inputs, the right answer, a tempting one
    "spell": (("house",), "h o u s e", "h u o s e"),
    "spell_inverse": (("h o u s e",), "house", "huose"),
    "contains_char": (("u", "house"), "Yes", "No"),
    "ins_char": (("x", "e", "there"), "thexrex", "thxerxe"),
    "del_char": (("e", "there"), "thr", "here"),
    "sub_char": (("e", "a", "there"), "thara", "ahere"),
    "swap_char": (("t", "e", "there"), "ehtrt", "here"),
    "orth": (("house", "horse", "home"), "horse", "home"),
    "sem": (("house", "horse", "home"), "home", "horse"),
    "contains_word": (("cat", "the cat sat"), "Yes", "No"),
    "ins_word": (("big", "the", "the cat and the dog"), "the big cat and the big dog", "big the cat and big the dog"),
    "del_word": (("the", "the cat and the dog"), "cat and dog", "the and the dog"),
    "sub_word": (("the", "a", "the cat and the dog"), "a cat and a dog", "the a and the dog"),
    "swap_word": (("cat", "dog", "the cat and the dog"), "the dog and the cat", "dog cat and dog the"),
}


def test_there_are_fourteen() -> None:
    assert list(OPERATIONS) == list(BY_HAND)
    assert sorted(len(tasks) for tasks in GROUPS.values()) == [2, 5, 7]
    assert len(keys()) == 21


@pytest.mark.parametrize("task", BY_HAND)
def test_by_hand(task: str) -> None:
    inputs, right, wrong = BY_HAND[task]
    operation = OPERATIONS[task]
    if operation.answer is not None:
        assert operation.answer(*inputs) == right
    assert wrong in islice(operation.wrong(inputs, Random(0)), 200) or task == "swap_char"
    assert operation.shape.fullmatch(right)
    item = make_item(task, inputs, right, False, Random(0))
    assert item.right == right
    assert item.prompt.endswith(":")
    assert len(set(item.choices)) == len(item.choices) >= 2
    assert parsed(task, f" {right}", item.choices) == right


def test_a_word_is_not_a_part_of_one() -> None:
    replace, contains, delete = (OPERATIONS[f"{name}_word"].answer for name in ("sub", "contains", "del"))
    assert replace is not None
    assert contains is not None
    assert delete is not None
    assert replace("the", "a", "Then the other, the.") == "Then a other, a."
    assert contains("the", "Then other") == "No"
    assert delete("The", "The cat, then The.") == "cat, then."


@given(st.text("abcdef", min_size=1, max_size=8), st.sampled_from("abcdef"), st.sampled_from("xyz"))
def test_letters_come_back(word: str, old: str, new: str) -> None:
    answer = {name: operation.answer for name, operation in OPERATIONS.items()}
    spell, join, sub, swap, delete, insert = (
        answer[n] for n in ("spell", "spell_inverse", "sub_char", "swap_char", "del_char", "ins_char")
    )
    assert spell is not None and join is not None and sub is not None  # noqa: PT018 - for the type checker
    assert swap is not None and delete is not None and insert is not None  # noqa: PT018
    assert join(spell(word)) == word
    assert sub(new, old, sub(old, new, word)) == word
    assert swap(old, "b", swap(old, "b", word)) == word
    assert delete(new, insert(new, old, word)) == word
    assert len(delete(old, word)) == len(word) - word.count(old)


def test_misspelled_words_are_as_long() -> None:
    for word in ("ab", "a", "letters"):
        assert {len(w) for w in islice(misspelled(word, Random(0)), 30)} == {len(word)}


# --- CUTE's own files


@pytest.fixture(scope="module")
def cute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not CUTE.exists():
        pytest.skip("CUTE's files (benchmarks/cute.tar.xz) are not here")
    folder = tmp_path_factory.mktemp("cute")
    with tarfile.open(CUTE) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.rglob("spell.tsv")).parent


@pytest.mark.parametrize("task", [name for name, o in OPERATIONS.items() if o.answer is not None])
def test_answers_are_those_of_cute(cute: Path, task: str) -> None:
    """Of letters all of them; of words all but a few sentences whose marks stand oddly (`Billy 's`, `home,she`)."""
    operation = OPERATIONS[task]
    assert operation.answer is not None
    for path in (cute / f"{task}.tsv", cute / f"{task}_rand.tsv"):
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
            assert len(rows) == 1000
            agree = sum(operation.answer(*(v for k, v in r.items() if k != "label")) == r["label"] for r in rows)
            assert agree >= 990 if operation.level is WORDS else agree == 1000


def test_reading_cute(cute: Path) -> None:
    read = read_cute(cute, 20)
    assert list(read) == keys()
    assert {len(of_task) for of_task in read.values()} == {20}
    assert read["spell", False][0].right == "t h e"
    assert all(item.task == task and item.twin == twin for (task, twin), of in read.items() for item in of)
    tuned_on = Split.of(TRAIN, TEST, words_of(read)).tuning.words
    asked = " ".join(i.prompt for of_task in read.values() for i in of_task)
    assert not {w for w in tuned_on if f" {w} " in asked.replace(":", " ")}


def cute_folder(tmp_path: Path, **changed: str) -> Path:
    for task, twin in keys():
        inputs, right, _ = BY_HAND[task]
        name = f"{task}{'_rand' if twin else ''}"
        header = "\t".join([*(f"input{i + 1}" for i in range(len(inputs))), "label"])
        text = changed.get(name, f"{header}\n" + "\t".join([*inputs, right]) + "\n")
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    return tmp_path


def test_cute_files_that_are_not(tmp_path: Path) -> None:
    folder = cute_folder(tmp_path)
    assert len(read_cute(folder, 5)) == 21
    for name, text, message in [
        ("spell", "input1\tlabel\nthe\t\n", r"spell.tsv, line 2: no value for label"),
        ("del_char", "input1\tinput2\tlabel\nt\tthe\the\na\n", r"del_char.tsv, line 3: no value for input2"),
        ("sem", "input1\tinput2\tinput3\tlabel\na\tb\tc\td\n", r"sem.tsv, line 2: .*'d' is none of the two words"),
        ("contains_char", "input1\tinput2\tlabel\na\tb\tMaybe\n", r"contains_char.tsv, line 2: .*'Maybe' is no answer"),
        ("orth", "input1\tlabel\n", "orth.tsv has no rows"),
    ]:
        cute_folder(tmp_path, **{name: text})
        with pytest.raises(BenchError, match=message):
            read_cute(folder, 5)
    cute_folder(tmp_path)
    (folder / "swap_word.tsv").unlink()
    with pytest.raises(BenchError, match=r"cannot read .*swap_word.tsv .*the folder with CUTE's 21 tsv files"):
        read_cute(folder, 5)


# --- items made anew

VOCABULARY = sorted({w for pair in synonyms() for w in pair})


def document(seed: int) -> Document:
    rng = Random(seed)
    sentences = [
        f"So, {' '.join(rng.sample(VOCABULARY, 5))}. {' '.join(rng.sample(VOCABULARY, 4))}; " for _ in range(20)
    ]
    return Document(f"{seed:016x}", "".join(sentences).encode())


TRAIN, TEST = [document(n) for n in range(30)], [document(n) for n in range(30, 40)]


@cache
def split() -> Split:
    return Split.of(TRAIN, TEST)


def test_words_and_clauses_by_hand() -> None:
    texts = [
        b"The sea, a calm and wide sea; the sea was wide. Not This one, or a (b) c.",
        b"Is it, a calm and wide sea;",
    ]
    assert common_words(texts, range(3, 5), 3) == ["sea", "and", "calm"] or common_words(texts, range(3, 5), 1) == [
        "sea"
    ]
    assert clauses(texts, range(4, 6), 40) == sorted({"a calm and wide sea", "the sea was wide"}, key=share)
    assert clauses(texts, range(4, 6), 16) == ["the sea was wide"]


def test_the_words_of_the_test_are_not_tuned_on() -> None:
    assert all(share(w) >= TEST_SHARE for w in split().tuning.words)
    assert all(share(w) < TEST_SHARE for w in split().test.words)
    assert not {*split().tuning.clauses} & {*split().test.clauses}
    assert not {w for p in split().tuning.pairs for w in p} & {w for p in split().test.pairs for w in p}
    tuned = " ".join(
        i.text(i.answer)
        for task in OPERATIONS
        if task.endswith(("char", "spell"))
        for i in items(task, split().tuning, 50)
    )
    asked = {i.right.replace(" ", "") for i in items("spell", split().test, 50)}
    assert asked
    assert not asked & set(tuned.replace(":", " ").split())
    assert not set(Split.of(TRAIN, TEST, frozenset({"river", "house"})).tuning.words) & {"river", "house"}


@pytest.mark.parametrize(("task", "twin"), keys())
def test_items_are_sound(task: str, twin: bool) -> None:
    made = items(task, split().test, 15, twin)
    assert made == items(task, Split.of(TRAIN, TEST).test, 15, twin)
    assert len({i.prompt for i in made}) == len(made) > 5
    for item in made:
        assert (item.task, item.twin) == (task, twin)
        assert len(set(item.choices)) == len(item.choices)
        assert all(parsed(task, c, item.choices) == c for c in item.choices)
        assert item.text(item.answer) == f"{item.prompt} {item.right}\n"
    if len(made) == 15:
        assert len({i.answer for i in made}) > 1


def test_twins_have_nothing_but_letters() -> None:
    assert len(TWINS) == 7
    known = {*split().test.words, *split().tuning.words}
    prompts = " ".join(operation.prompt for operation in OPERATIONS.values()).split()
    for task in TWINS:
        for item in items(task, split().test, 10, True):
            assert not known & {*item.prompt.replace(":", " ").split()} - {*prompts}
    assert len(set(random_string("letters", Random(0)))) == 7


def test_words_of_like_meaning_and_of_like_spelling() -> None:
    assert len(synonyms()) > 300
    assert len({*synonyms()}) == len(synonyms())
    for word, meant, spelled in split().test.triples:
        assert edit_distance(word, spelled) < edit_distance(word, meant)
    sem, orth = (items(task, split().test, 5) for task in ("sem", "orth"))
    assert {i.right for i in sem}.isdisjoint(i.right for i in orth)
    assert all({*i.choices} == {*j.choices} for i in sem for j in orth if i.prompt.split()[2] == j.prompt.split()[2])


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_too_few_words() -> None:
    with pytest.raises(BenchError, match=r"spelling found 0 words and 0 clauses .* CUTE's files"):
        Spelling().run(Told(), material([Document("0", b"123")], train=[Document("1", b"456")]))


# --- scoring


@dataclass
class Answering(Told):
    """Prefers texts that end with one of its lines, and writes those."""

    lines: frozenset[str] = frozenset()
    says: str = ""

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        known = [d.decode() in self.lines for d in docs]
        return Scores([np.full(len(d), (1.0 if k else 9.0) / len(d)) for d, k in zip(docs, known, strict=True)], None)

    @property
    def can_write(self) -> bool:
        return True

    def generate(
        self, prompts: Sequence[bytes], max_bytes: int, until: Sequence[bytes] = (), temperature: float = 0.0
    ) -> list[bytes]:
        found = {line.partition(":")[0]: line.partition(":")[2].rstrip("\n") for line in self.lines}
        return [(self.says or found[p.decode().rstrip(":")]).encode() for p in prompts]


def answering(lines: Iterable[str], **others: Any) -> ByteModel:
    return Answering(lines=frozenset(lines), **others)


def solved(choice: int) -> list[str]:
    """All test items answered: 0 is right, 1 is wrong."""
    test = split().test
    made = [i for task, twin in keys() for i in items(task, test, 5, twin)]
    return [i.text((i.answer + choice) % len(i.choices)) for i in made]


def given_texts(**others: Any) -> Given:
    return material(TEST, train=TRAIN, **others)


UNTUNED = Spelling(items=5, written=3, tune=0, tune_items=5)


def test_a_model_that_knows_all_answers() -> None:
    result = UNTUNED.run(answering(solved(0)), given_texts())
    assert {*result.metrics} == {
        *OPERATIONS, *GROUPS, "characters_random", "exact", "unparsable",
    }  # fmt: skip
    assert {name: m.value for name, m in result.metrics.items() if name != "unparsable"} == {
        name: 1.0 for name in result.metrics if name != "unparsable"
    }
    assert {result.values[f"{task}_random"] for task in TWINS} == {1.0}
    assert result.metrics["unparsable"].value == 0
    assert result.metrics["unparsable"].lower_is_better
    assert len(result.metrics["characters"].documents) == 5
    assert result.metrics["characters"].documents[0][2] == 7


def test_a_model_that_knows_wrong_answers() -> None:
    result = UNTUNED.run(answering(solved(1)), given_texts())
    assert {m.value for m in result.metrics.values()} == {0.0}


def test_a_model_that_knows_nothing_is_at_chance() -> None:
    """Equal costs: every choice gets its share, whatever the order."""
    result = UNTUNED.run(answering([], says="?"), given_texts())
    assert result.metrics["contains_char"].value == 0.5
    assert result.metrics["spell"].value == 0.25
    assert 0.25 <= result.values["chance"] <= 0.5
    assert result.metrics["exact"].value == 0
    assert result.metrics["unparsable"].value < 1  # for some questions a single sign has the form of an answer


def test_a_model_that_cannot_write_chooses() -> None:
    result = UNTUNED.run(Told(), given_texts())
    assert "exact" not in result.metrics
    assert "spell" in result.metrics


def test_tuning_comes_first() -> None:
    asked: list[tuple[Sequence[bytes], int]] = []

    def tuned(texts: Sequence[bytes], steps: int) -> ByteModel:
        asked.append((texts, steps))
        return answering(solved(0))

    result = Spelling(items=5, written=0, tune=7, tune_items=4).run(Told(), given_texts(tuned=tuned))
    assert result.metrics["spell"].value == 1
    [(texts, steps)] = asked
    assert steps == 7
    lines = b"".join(texts).decode().splitlines(keepends=True)
    assert not {*lines} & {*solved(0)}
    assert len(lines) > 14 * 2


def test_shots_stand_before_the_question() -> None:
    seen: list[bytes] = []

    class Listening(Told):
        def nats(self, docs: Sequence[bytes], alike: Sequence[int] | None = None) -> list[np.ndarray]:
            seen.extend(docs)
            return super().nats(docs, alike)

    Spelling(items=2, written=0, tune=0, tune_items=5, shots=2).run(Listening(), given_texts())
    assert {doc.count(b"\n") for doc in seen} == {3}
    for doc in seen:
        assert len({line.split()[0] for line in doc.decode().splitlines()}) == 1


@pytest.mark.parametrize(
    ("task", "written", "answer"),
    [
        ("spell", " h o u s e", "h o u s e"),
        ("spell", "house", None),
        ("spell_inverse", "house ", "house"),
        ("spell_inverse", "h o", None),
        ("contains_char", "Yes", "Yes"),
        ("contains_char", "yes, it does", None),
        ("sem", "home", "home"),
        ("sem", "horses", None),
        ("del_word", "cat", None),
        ("del_word", "", None),
    ],
)
def test_what_is_an_answer(task: str, written: str, answer: str | None) -> None:
    assert parsed(task, written, ("horse", "home")) == answer


def test_tuning_texts_hold_every_line_once() -> None:
    lines = {task: items(task, split().tuning, 6) for task in OPERATIONS}
    texts = tuning_texts(lines)
    assert sorted(b"".join(texts).decode().splitlines()) == sorted(
        i.text(i.answer).rstrip("\n") for of_task in lines.values() for i in of_task
    )
    assert texts == tuning_texts(lines)


def test_what_guessing_comes_to_is_what_old_records_are_taken_to_have() -> None:
    result = Spelling(items=12, tune=0, written=0).run(Told(), given_texts())
    for name, metric in result.metrics.items():
        assert metric.chance == pytest.approx(BEFORE_CHANCE[f"spelling.{name}"], abs=1e-6), name
    assert {name.partition(".")[2] for name in BEFORE_CHANCE if name.startswith("spelling.")} == set(result.metrics)
