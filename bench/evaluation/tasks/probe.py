"""The task `probe`: predicts letters of words from frozen states (DESIGN section 6).

Legend: W words, R rows (a row for each place where a word stands), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from bench.data.config import Data, Document
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.features import Features
from bench.evaluation.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.evaluation.tasks.letters import LENGTHS, Target, letter_counts, targets
from bench.evaluation.tasks.probing import Projection, Rows, Scored, majority, probe
from bench.evaluation.tasks.registry import register_task
from bench.evaluation.tasks.words import Spot, share, spots
from models.states import Place
from patchers.errors import BenchError

TEST_SHARE = 0.2
"""Of all word types, by hash."""

WITH_ROWS = (
    *("letters", "first", "mean_letters", "untrained_letters", "untrained_first", "over_controls", "selectivity"),
    *("unread_letters", "unread_raw_letters", "unread_over_controls"),
)
"""What of a model's second kind of states is recorded word by word; of the first kind all but controls are. The rest
are single numbers: records stay small."""

AFTER = 32
"""Bytes of text behind a word, so that its last patch is closed in the text."""


@register_task("probe")
@dataclass(frozen=True)
class Probe(Task):
    """Linear probes on a word's vector for its letters; the words of training and test are different words.

    A word's vector is the state of the last patch that covers it, in texts that the model was not trained on, averaged
    over a few places where it stands; `mean_...` takes the mean over all patches of the word, and what begins with
    `byte_` the local states instead (a model without patches has those alone, without the prefix). All vectors are
    brought to one width by PCA and each direction to the same variance. Targets: `letters` (does the word hold it, 26
    probes, both answers weighed alike, so that knowing nothing is right half the time), `first`, `last`, `length`,
    `count` (of a frequent letter: none, one, more), `position` (second, third, fourth letter).

    Controls. `untrained_...` is the same probe on the model before its training: a model that reads bytes passes them
    on even then, so what it has learnt is what it has more, or less. `raw_...` is the same probe on the raw bytes of
    the word (each at its place), which a model over bytes is given. `over_controls` is `letters` less the better of
    the two: above zero the states tell more of the letters than what was put in. `unread_...` are the states at the
    word's end that had not yet read the word's last patch (of a word that is one patch, the state before it); their
    controls are `unread_raw_...`, the raw bytes of the part of the word that had been read, `untrained_unread_letters`,
    and `unread_over_controls`, what these states tell of letters still to come. `selectivity` (Hewitt & Liang 2019) is
    `letters` less the same probe for the letters of other words, dealt out to word types at random: on new words that
    one can only guess, unless training and test share what they should not. As values: `memorised_letters`, the
    random labels asked for at another place of the words that they were learnt on, which tells how well vectors tell
    words apart; the bag of the word's bytes in place of its vector (`..._bag`, a ceiling for what asks for no order);
    the most frequent answer (`..._majority`); and `patches_per_word`.
    """

    version: ClassVar[int] = 3

    test_words: Annotated[int, Field(ge=20)] = 250
    train_words: Annotated[int, Field(ge=50)] = 1000
    places: Annotated[int, Field(ge=2)] = 3
    """At most, of each word; there are two at least."""

    width: Annotated[int, Field(ge=1)] = 64
    strength: Annotated[float, Field(gt=0)] = 0.05
    """scikit-learn's C, the inverse of the L2 penalty."""

    max_bytes: Annotated[int, Field(ge=1000)] = 100_000
    """Of text that is read: test documents, then calibration documents."""

    def check(self, data: Data) -> None:
        Words.of(data.test.documents, data.calibration.documents, self)

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        if not model.has_features:
            raise TaskNotPossible("probe needs a model with states that can be read; this one has none")
        words = Words.of(material.test, material.calibration, self)
        result = TaskResult({}, {"words": float(len(words.names))})
        asked = targets(words.names)
        self._without_model(words, asked, result)
        read = View.of(words, raw_bytes(words, words.lengths), self.width)
        raw = {f"raw_{target.name}": self._scored(read, target) for target in asked[:2]}
        result.metrics.update({name: metric(scored, words.names) for name, scored in raw.items()})
        places = model.has_features
        states, before = model.features(words.texts, places), material.untrained().features(words.texts, places)
        for place in places:
            prefix = "" if place == places[0] else f"{place}_"
            self._of_place(words, asked, place, (states[place], before[place]), raw["raw_letters"], result, prefix)
        return result

    def _of_place(
        self,
        words: Words,
        asked: Sequence[Target],
        place: Place,
        states: tuple[Sequence[Features], Sequence[Features]],
        raw: Scored,
        result: TaskResult,
        prefix: str,
    ) -> None:
        """All probes on one kind of states, of the model and of the same before its training."""
        last, mean, pieces = vectors(states[0], words)
        view, of_mean = View.of(words, last, self.width), View.of(words, mean, self.width)
        untrained = View.of(words, vectors(states[1], words)[0], self.width)
        control = others_letters(asked[0])
        scores = {target.name: self._scored(view, target) for target in asked}
        scores |= {f"mean_{target.name}": self._scored(of_mean, target) for target in asked[:2]}
        controls = {f"untrained_{target.name}": self._scored(untrained, target) for target in asked}
        scores |= controls
        scores["over_controls"] = over(scores["letters"], scores["untrained_letters"], raw)
        if place == "patch":
            scores |= self._unread(words, asked, states)
        guessed = self._scored(view, control)
        scores["selectivity"] = difference(scores["letters"], guessed)
        for name, scored in scores.items():
            if name in WITH_ROWS or not (prefix or name in controls):
                # answers to `letters` weigh alike, so that guessing is right half the time
                guessing = 0.5 if name.endswith("letters") else None
                result.metrics[prefix + name] = metric(scored, words.names, guessing)
            else:
                result.values[prefix + name] = scored.value
        result.values[f"{prefix}control_letters"] = guessed.value
        result.values[f"{prefix}memorised_letters"] = self._memorised(words, last, control)
        if place == "patch":
            result.values["patches_per_word"] = float(pieces.mean())
            result.notes["letters_by_patches"] = by_pieces(scores["letters"], words, pieces)

    def _unread(
        self, words: Words, asked: Sequence[Target], states: tuple[Sequence[Features], Sequence[Features]]
    ) -> dict[str, Scored]:
        """Probes on the states before a word's last patch, and on what of the word these had read."""
        rows, read = unread(states[0], words)
        of_states, of_bytes = View.of(words, rows, self.width), View.of(words, raw_bytes(words, read), self.width)
        found = {f"unread_{target.name}": self._scored(of_states, target) for target in asked[:2]}
        found |= {f"unread_raw_{target.name}": self._scored(of_bytes, target) for target in asked[:2]}
        before = self._scored(View.of(words, unread(states[1], words)[0], self.width), asked[0])
        letters = found["unread_letters"]
        over_both = over(letters, before, found["unread_raw_letters"])
        return {**found, "untrained_unread_letters": before, "unread_over_controls": over_both}

    def _scored(self, view: View, target: Target) -> Scored:
        return probe(view.train, view.test, target, self.strength)

    def _memorised(self, words: Words, rows: Rows, target: Target) -> float:
        """Learnt at all places of a training word but its last, asked for there."""
        seen = words.in_training[rows.word]
        train, test = rows.pick(seen & ~words.last_place).averaged(), rows.pick(seen & words.last_place)
        project = Projection.of(train, self.width)
        return probe(project(train), project(test), target, self.strength).value

    def _without_model(self, words: Words, asked: Sequence[Target], result: TaskResult) -> None:
        """The bag of bytes and the most frequent answer."""
        bag = Rows(letter_counts(words.names), np.arange(len(words.names)))
        view = View(bag.pick(words.in_training), bag.pick(~words.in_training))
        for target in asked:
            result.values[f"{target.name}_bag"] = probe(view.train, view.test, target, strength=10.0).value
            guess = majority(view.train, view.test, target)
            result.values[f"{target.name}_majority"] = guess.value
            if target.balanced:
                result.notes[target.name] = "".join(chr(ord("a") + q) for q in guess.asked)


@dataclass(frozen=True)
class Words:
    """The words of a probe and where they stand; the same for every model and every seed."""

    names: list[str]
    texts: list[bytes]
    spots: list[Spot]
    """(R,), word by word."""

    word: np.ndarray
    """(R,): which word stands there."""

    in_training: np.ndarray
    """(W,) bool."""

    last_place: np.ndarray
    """(R,) bool: the last of a word's places."""

    @property
    def lengths(self) -> np.ndarray:
        """(R,) bytes of the word that stands there."""
        return np.array([spot.end - spot.begin for spot in self.spots])

    @staticmethod
    def of(test_texts: Sequence[Document], calibration: Sequence[Document], options: Probe) -> Words:
        """Raises BenchError where the texts hold too few words."""
        texts = first_bytes([*test_texts, *calibration], options.max_bytes)
        found = {w: s for w, s in spots(texts, LENGTHS, options.places, AFTER).items() if len(s) >= 2}
        test = [w for w in found if share(w) < TEST_SHARE][: options.test_words]
        train = [w for w in found if share(w) >= TEST_SHARE][: options.train_words]
        if len(test) < 20 or len(train) < 50:
            raise BenchError(
                f"probe found {len(test)} test words and {len(train)} training words (of {LENGTHS[0]} to {LENGTHS[-1]} "
                f"letters a-z, at two places or more) in {sum(map(len, texts)):,} bytes; it needs 20 and 50: give it "
                "more text, or text in an alphabet that has them"
            )
        names = test + train
        places = [(spot, index) for index, name in enumerate(names) for spot in found[name]]
        word = np.array([index for _, index in places])
        return Words(
            names=names,
            texts=texts,
            spots=[spot for spot, _ in places],
            word=word,
            in_training=np.arange(len(names)) >= len(test),
            last_place=np.append(word[1:] != word[:-1], True),
        )


@dataclass(frozen=True)
class View:
    """Vectors of training words and of test words."""

    train: Rows
    test: Rows

    @staticmethod
    def of(words: Words, rows: Rows, width: int) -> View:
        """One vector a word, brought to one width by what is seen in training."""
        rows = rows.averaged()
        seen = words.in_training[rows.word]
        project = Projection.of(rows.pick(seen), width)
        return View(project(rows.pick(seen)), project(rows.pick(~seen)))


def first_bytes(documents: Sequence[Document], most: int) -> list[bytes]:
    """The first whole texts of at most so many bytes together, one at least."""
    sizes = np.cumsum([len(d.data) for d in documents])
    return [d.data for d in documents[: max(1, int(np.searchsorted(sizes, most, "right")))]]


def vectors(found: Sequence[Features], words: Words) -> tuple[Rows, Rows, np.ndarray]:
    """The last unit's vector and the mean over a word's units, and how many units it has (R,); from the states of each
    text."""
    last, mean, pieces = [], [], []
    for spot in words.spots:
        features = found[spot.text]
        # of a patch that is still open at the end of its text there is no vector: then the newest one before
        last_unit = int(features.unit[: spot.end].max())
        units = np.unique(features.unit[spot.begin : spot.end])
        units = units[units >= 0] if (units >= 0).any() else np.array([last_unit])
        last.append(features.vectors[last_unit])
        mean.append(features.vectors[units].mean(0))
        pieces.append(len(units))
    return Rows(np.array(last), words.word), Rows(np.array(mean), words.word), np.array(pieces)


def unread(found: Sequence[Features], words: Words) -> tuple[Rows, np.ndarray]:
    """The state before each word's last patch, and how many bytes of the word it has read (R,)."""
    states, read = [], []
    for spot in words.spots:
        features = found[spot.text]
        last_unit = int(features.unit[: spot.end].max())
        states.append(features.vectors[max(0, last_unit - 1)])
        own = features.unit[spot.begin : spot.end]
        read.append(int(((own >= 0) & (own < last_unit)).sum()))
    return Rows(np.array(states), words.word), np.array(read)


def raw_bytes(words: Words, read: np.ndarray) -> Rows:
    """The first bytes of each word, `read` (R,) of them, each a one-hot at its place; a constant stands for none."""
    vectors = np.zeros((len(words.spots), LENGTHS[-1], 27))
    for row, (index, count) in enumerate(zip(words.word, read, strict=True)):
        vectors[row, count:, 26] = 1
        for place, letter in enumerate(words.names[index][:count]):
            vectors[row, place, ord(letter) - ord("a")] = 1
    return Rows(vectors.reshape(len(vectors), -1), words.word)


def over(letters: Scored, *controls: Scored) -> Scored:
    """What a probe has more than the better of its controls."""
    return difference(letters, max(controls, key=lambda control: control.value))


def others_letters(target: Target) -> Target:
    """The same answers, dealt out to other words at random."""
    order = np.random.default_rng(0).permutation(len(target.answers))
    return Target(target.name, target.answers[order], target.balanced)


def difference(one: Scored, other: Scored) -> Scored:
    """What `one` has more, word by word; in both the counts add up to the number of words tested."""
    tested = (one.count > 0).astype(float)
    return Scored(one.total - other.total, tested, one.asked)


def metric(scored: Scored, names: Sequence[str], chance: float | None = None) -> Metric:
    """Of the words that were tested, a row each."""
    tested = np.flatnonzero(scored.count).tolist()
    rows = [(names[w], float(f"{scored.total[w]:.5g}"), float(f"{scored.count[w]:.5g}")) for w in tested]
    return Metric("accuracy", rows, lower_is_better=False, chance=chance)


def by_pieces(scored: Scored, words: Words, pieces: np.ndarray) -> dict[str, Any]:
    """`letters` apart for test words of one, two, three and more patches (their mean, rounded): [accuracy, words]."""
    mean = np.bincount(words.word, pieces) / np.bincount(words.word)
    group = np.clip(np.rint(mean), 1, 4).astype(int)
    out = {}
    for size in range(1, 5):
        of_size = (group == size) & ~words.in_training
        if of_size.any():
            share_right = scored.total[of_size].sum() / scored.count[of_size].sum()
            out[f"{size}" if size < 4 else "4+"] = [round(float(share_right), 4), int(of_size.sum())]
    return out
