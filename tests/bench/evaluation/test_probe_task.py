"""The letter probe: models that know all letters, and models that know none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np
import pytest
from asking import Told, material

from bench.data.config import Document
from bench.evaluation.features import Features
from bench.evaluation.tasks.base import Material, TaskNotPossible, TaskResult
from bench.evaluation.tasks.letters import COUNTED, Target, letter_counts, targets
from bench.evaluation.tasks.probe import AFTER, TEST_SHARE, Probe, Words, others_letters, raw_bytes, unread, vectors
from bench.evaluation.tasks.probing import Projection, Rows, asked, majority, probe
from bench.evaluation.tasks.words import share, spots
from models.states import Place
from patchers.errors import BenchError

SYLLABLES = [a + b for a, b in product("bcdfgklmnprst", "aeiou")]
VOCABULARY = sorted({"".join(Random(i).choices(SYLLABLES, k=2 + i % 3)) for i in range(500)})
SMALL = Probe(test_words=60, train_words=300, places=2, width=40)


def document(seed: int) -> Document:
    words = Random(seed).sample(VOCABULARY, 120)
    return Document(f"{seed:016x}", f"The {' '.join(words)}.{' ' * AFTER}".encode())


TEXTS = [document(seed) for seed in range(14)]


@dataclass
class Seeing(Told):
    """Its patches are three bytes long; a vector is what `see` makes of the text up to the patch's end, and where it
    begins to read."""

    see: Callable[[bytes], np.ndarray] = lambda text: np.zeros(1)
    kinds: tuple[Place, ...] = ("patch", "byte")

    @property
    def has_features(self) -> tuple[Place, ...]:
        return self.kinds

    def features(self, docs: Sequence[bytes], places: Sequence[Place]) -> dict[Place, list[Features]]:
        return {place: self.states(docs, place) for place in places}

    def states(self, docs: Sequence[bytes], where: Place) -> list[Features]:
        out = []
        for doc in docs:
            unit = np.arange(len(doc)) // (3 if where == "patch" else 1)
            ends = [int(np.flatnonzero(unit == u)[-1]) + 1 for u in range(unit[-1] + 1)]
            out.append(Features(np.array([self.see(doc[:end]) for end in ends], np.float32), unit))
        return out


def one_hot(text: bytes) -> np.ndarray:
    """All letters of the last word that has begun, by place."""
    word = text.split()[-1] if text.split() else b""
    out = np.zeros((8, 27))
    out[range(8), 26] = 1
    for at, byte in enumerate(word[:8]):
        if 97 <= byte <= 122:
            out[at] = np.eye(27)[byte - 97]
    return out.ravel()


def noise(text: bytes) -> np.ndarray:
    return np.random.default_rng(len(text)).standard_normal(40)


def words_of(given: Material, options: Probe) -> Words:
    return Words.of(given.test, given.calibration, options)


def run(see: Callable[[bytes], np.ndarray], options: Probe = SMALL, **model: object) -> TaskResult:
    seeing = Seeing(see=see, **model)  # type: ignore[arg-type]
    return options.run(seeing, material(TEXTS, untrained=lambda: Seeing(see=noise)))


# --- words


def test_words_by_hand() -> None:
    texts = [b"A cat, a cat2 sat: cat's mat (cat) d\xc3\xa9cat cat-nap sat" + b"." * 4]
    found = spots(texts, range(2, 4), most=2, after=4)
    assert {w: [(s.begin, s.end) for s in places] for w, places in found.items()} == {
        "mat": [(25, 28)],
        "sat": [(14, 17), (50, 53)],
        "cat": [(2, 5), (30, 33)],
    }
    assert list(found) == sorted(found, key=share)
    assert len(spots(texts, range(2, 4), most=2, after=8)["sat"]) == 1
    assert len(spots(texts, range(2, 4), most=1, after=4)["cat"]) == 1


def test_words_of_training_and_test_are_different_ones() -> None:
    words = words_of(material(TEXTS), SMALL)
    train = {words.names[w] for w in words.word if words.in_training[w]}
    test = {words.names[w] for w in words.word if not words.in_training[w]}
    assert not train & test
    assert all(share(w) >= TEST_SHARE for w in train)
    assert all(share(w) < TEST_SHARE for w in test)
    assert (len(train), len(test)) == (300, 60)
    for spot, w in zip(words.spots, words.word, strict=True):
        assert words.texts[spot.text][spot.begin : spot.end].decode() == words.names[w]
    last = [spot for spot, is_last in zip(words.spots, words.last_place, strict=True) if is_last]
    assert len(last) == len(words.names)


def test_calibration_texts_are_read_where_there_are_few_of_test() -> None:
    whole = words_of(material(TEXTS), SMALL)
    parted = words_of(material(TEXTS[:2], calibration=TEXTS[2:]), SMALL)
    assert (whole.names, whole.texts) == (parted.names, parted.texts)
    few = words_of(material(TEXTS), Probe(max_bytes=8000)).texts
    assert few == [d.data for d in TEXTS[: len(few)]]
    assert 7000 < sum(map(len, few)) <= 8000


def test_too_few_words() -> None:
    with pytest.raises(BenchError, match=r"probe found 0 test words and 0 training words .* give it more text"):
        SMALL.run(Seeing(), material([Document("0", "Слово за слово".encode() * 20)]))


# --- targets


def test_targets_by_hand() -> None:
    by_name = {t.name: t.answers.tolist() for t in targets(["abbey", "eerie"])}
    assert [chr(97 + q) for q, held in enumerate(by_name["letters"][0]) if held] == list("abey")
    assert by_name["first"] == [[0], [4]]
    assert by_name["last"] == [[24], [4]]
    assert by_name["length"] == [[5], [5]]
    assert by_name["count"] == [[1, 1, 0, 0, 0, 0, 0, 0], [2, 0, 0, 1, 0, 0, 1, 0]]
    assert COUNTED.startswith("ea")
    assert by_name["position"] == [[1, 1, 4], [4, 17, 8]]
    assert letter_counts(["abbey"])[0, :5].tolist() == [1, 2, 0, 0, 1]


def test_vectors_of_a_word_by_hand() -> None:
    """In `The badi...` patches of three bytes end at 3, 6 and 9; the word's own bytes are 4..8."""
    told = Seeing(see=lambda text: np.array([len(text), 1.0]))
    words = words_of(material(TEXTS), SMALL)
    sizes: dict[Place, int] = {"patch": 3, "byte": 1}
    for place, size in sizes.items():
        last, mean, pieces = vectors(told.states(words.texts, place), words)
        for row, spot in enumerate(words.spots):
            units = range(spot.begin // size, (spot.end - 1) // size + 1)
            ends = [min((u + 1) * size, len(words.texts[spot.text])) for u in units]
            assert last.vectors[row, 0] == ends[-1]
            assert mean.vectors[row, 0] == pytest.approx(np.mean(ends))
            assert pieces[row] == len(ends)


# --- probes


def rows(vectors: np.ndarray, first: int = 0) -> Rows:
    return Rows(vectors, np.arange(first, first + len(vectors)))


def test_both_answers_weigh_the_same() -> None:
    answers = np.array([[0]] * 50 + [[1]] * 10 + [[0]] * 40 + [[1]] * 10)
    target = Target("letters", answers, balanced=True)
    train, test = rows(np.zeros((60, 1))), rows(np.zeros((50, 1)), 60)
    assert majority(train, test, target).value == pytest.approx(0.5)
    plain = Target("first", answers)
    assert majority(train, test, plain).value == pytest.approx(0.8)


def test_a_probe_reads_what_is_there() -> None:
    answers = np.random.default_rng(0).integers(0, 2, (300, 3))
    train, test = rows(answers[:200] * 2.0 - 1), rows(answers[200:] * 2.0 - 1, 200)
    target = Target("letters", answers, balanced=True)
    assert probe(train, test, target, 1.0).value == 1
    assert probe(train, test, others_letters(target), 1.0).value == pytest.approx(0.5, abs=0.1)


def test_places_of_a_word_count_as_one_word() -> None:
    """A word that stands at three places, right at one of them, is a third right."""
    target = Target("first", np.array([[0], [1], [0]]))
    train = Rows(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    test = Rows(np.array([[-1.0], [1.0], [1.0]]), np.array([2, 2, 2]))
    scored = probe(train, test, target, 10.0)
    assert scored.total.tolist() == pytest.approx([0, 0, 1 / 3])
    assert scored.count.tolist() == [0, 0, 1]


def test_questions_with_too_few_answers_are_not_asked() -> None:
    answers = np.zeros((40, 3), int)
    answers[::2, 0] = 1
    answers[:24:3, 1] = 1  # in training alone
    target = Target("letters", answers, balanced=True)
    train, test = rows(np.zeros((24, 1))), rows(np.zeros((16, 1)), 24)
    assert asked(train, test, target) == [0]
    assert asked(train, test, Target("count", answers)) == [0, 1]


def test_one_vector_a_word() -> None:
    both = Rows(np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]]), np.array([4, 4, 2])).averaged()
    assert both.word.tolist() == [2, 4]
    assert both.vectors.tolist() == [[5, 5], [2, 1]]


def test_one_width_and_one_variance() -> None:
    rng = np.random.default_rng(0)
    wide = Rows(rng.standard_normal((200, 30)) * np.arange(1, 31), np.arange(200))
    seen = Projection.of(wide, 8)(wide).vectors
    np.testing.assert_allclose(np.cov(seen.T), np.eye(8), atol=1e-6)
    flat = Rows(np.repeat(rng.standard_normal((200, 2)), 5, 1), np.arange(200))  # two dimensions in ten
    assert Projection.of(flat, 8)(flat).vectors.shape == (200, 2)


# --- models


def test_a_model_that_knows_its_letters() -> None:
    result = run(one_hot, Probe(test_words=60, train_words=300, places=2, width=216, strength=1.0))
    values = {name: metric.value for name, metric in result.metrics.items()} | result.values
    for name in ("byte_letters", "byte_first", "byte_length"):
        assert values[name] > 0.97, name
    assert values["byte_last"] > 0.85  # at its place in the word, which 300 words show few examples of
    assert values["letters"] > 0.75  # two of three patches end in the next word, and have forgotten this one
    assert values["byte_selectivity"] > 0.4
    assert values["byte_control_letters"] == pytest.approx(0.5, abs=0.06)
    assert values["untrained_letters"] == pytest.approx(0.5, abs=0.06)
    assert values["selectivity"] == pytest.approx(values["letters"] - values["control_letters"], abs=1e-4)
    assert result.values["patches_per_word"] > 1
    assert result.values["letters_bag"] == pytest.approx(1)
    assert result.values["letters_majority"] == pytest.approx(0.5)
    assert not any(metric.lower_is_better for metric in result.metrics.values())
    assert {doc for doc, _, _ in result.metrics["letters"].documents} <= set(VOCABULARY)


def test_a_model_that_knows_nothing() -> None:
    result = run(noise, kinds=("byte",))
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert set(values) == {
        "letters", "first", "last", "length", "count", "position",
        "mean_letters", "mean_first", "untrained_letters", "untrained_first", "selectivity",
        "raw_letters", "raw_first", "over_controls",
    }  # fmt: skip
    for name in ("letters", "mean_letters", "untrained_letters"):
        assert values[name] == pytest.approx(0.5, abs=0.06), name
    assert result.values["control_letters"] == pytest.approx(0.5, abs=0.06)
    for name in ("first", "last", "length", "count", "position"):
        assert values[name] < result.values[f"{name}_majority"] + 0.06, name
    assert abs(values["selectivity"]) < 0.08
    assert result.values["memorised_letters"] == pytest.approx(0.5, abs=0.06)
    assert "patches_per_word" not in result.values


def test_controls_that_are_fair_to_models_over_bytes() -> None:
    """Whoever passes on the bytes that it reads knows no more of letters than these bytes do; one that knows which word
    begins, two letters in, knows letters that it has not read."""
    options = Probe(test_words=60, train_words=300, places=2, width=216, strength=1.0)
    passing = run(one_hot, options)
    values = {name: metric.value for name, metric in passing.metrics.items()} | passing.values
    assert values["raw_letters"] > 0.9
    assert values["raw_first"] > 0.9
    assert values["byte_over_controls"] == pytest.approx(values["byte_letters"] - values["raw_letters"], abs=1e-4)
    assert abs(values["byte_over_controls"]) < 0.08, "it has been given the letters"
    assert values["unread_letters"] < values["raw_letters"] - 0.1, "the last patch has letters of its own"
    assert values["unread_over_controls"] < 0.08

    def foresight(text: bytes) -> np.ndarray:
        """All letters of the word that its place in the text is in, read or not."""
        whole = next(t.data for t in TEXTS if t.data.startswith(text[:40]))
        end = len(text) - 1
        while whole[end : end + 1].isalpha():
            end += 1
        return one_hot(whole[:end])

    foreseen = run(foresight, options)
    assert foreseen.metrics["unread_over_controls"].value > 0.1
    assert foreseen.metrics["unread_letters"].chance == 0.5


def test_what_states_before_the_last_patch_have_read() -> None:
    """In `The badi...` patches of three bytes end at 3, 6 and 9; a word at bytes 4..8 has two bytes read at 6."""
    told = Seeing(see=lambda text: np.array([len(text), 1.0]))
    words = words_of(material(TEXTS), SMALL)
    states, read = unread(told.states(words.texts, "patch"), words)
    for row, spot in enumerate(words.spots):
        before = (spot.end - 1) // 3 * 3
        assert states.vectors[row, 0] == max(3, before)
        assert read[row] == max(0, before - spot.begin)
    nothing = raw_bytes(words, np.zeros(len(words.spots), int))
    assert (nothing.vectors == nothing.vectors[0]).all()
    assert Projection.of(nothing, 8)(nothing).vectors.shape == (len(words.spots), 1)
    first = raw_bytes(words, np.ones(len(words.spots), int)).vectors.reshape(len(words.spots), -1, 27)
    assert (first[:, 0].argmax(1) == [ord(words.names[w][0]) - 97 for w in words.word]).all()
    assert (first[:, 1:, 26] == 1).all()


def test_a_vector_for_each_word_is_memorised_and_tells_no_letters() -> None:
    def name(text: bytes) -> np.ndarray:
        word = text.split()[-1] if text.split() else b""
        return np.random.default_rng(list(word)).standard_normal(150)

    result = run(name, Probe(test_words=60, train_words=100, places=3, width=150, strength=1.0), kinds=("byte",))
    assert result.values["memorised_letters"] > 0.8
    assert result.metrics["letters"].value == pytest.approx(0.5, abs=0.06)
    assert abs(result.metrics["selectivity"].value) < 0.1


def test_a_model_without_states() -> None:
    with pytest.raises(TaskNotPossible, match="needs a model with states"):
        SMALL.run(Told(), material(TEXTS))
