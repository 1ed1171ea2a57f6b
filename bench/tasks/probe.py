"""What can be read off a word's frozen states about its letters (DESIGN section 6).

Legend: W words, R rows (a row for each place where a word stands), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from bench.data import Document
from bench.model import ByteModel
from bench.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.tasks.letters import LENGTHS, Target, letter_counts, targets
from bench.tasks.probing import Projection, Rows, Scored, majority, probe
from bench.tasks.registry import register_task
from bench.tasks.words import Spot, share, spots
from models.states import Place
from patchers.errors import BenchError

TEST_SHARE = 0.2
"""Of all word types, by hash."""

AFTER = 32
"""Bytes of text behind a word, so that its last patch is closed in the text."""


@register_task("probe")
@dataclass(frozen=True)
class Probe(Task):
    """Linear probes on a word's vector for its letters; the words of training and test are different words.

    A word's vector is the state of the last patch that covers it, in the context where it stands in a text that the
    model was not trained on; `mean_letters` takes the mean over its patches, and what begins with `byte_` the local
    states instead (a model without patches has those alone, without the prefix). All vectors are brought to one
    width by PCA and each direction to the same variance. Targets: `letters` (does the word hold it, 26 probes, both
    answers weighed alike, so that knowing nothing is right half the time), `first`, `last`, `length`, `count` (of a
    frequent letter: none, one, more), `position` (second, third, fourth letter).

    Controls, for `letters`: `control_letters` (Hewitt & Liang 2019): every word type gets the letters of another
    type, drawn at random, and the probe is scored at other places of the words that it was trained on, since on new
    words it could only guess; `selectivity` is `letters` less that. `untrained_letters` is the same probe on the
    model before its training. As values: the bag of the word's bytes in place of its vector (`..._bag`, a ceiling for
    what asks for no order), the most frequent answer (`..._majority`), and `patches_per_word`.
    """

    test_words: Annotated[int, Field(ge=20)] = 200
    train_words: Annotated[int, Field(ge=50)] = 1000
    places: Annotated[int, Field(ge=2)] = 3
    """At most, of each word."""

    width: Annotated[int, Field(ge=1)] = 64
    strength: Annotated[float, Field(gt=0)] = 0.1
    """scikit-learn's C, the inverse of the L2 penalty."""

    max_bytes: Annotated[int, Field(ge=1000)] = 300_000
    """Of text that is read: test documents, then calibration documents."""

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        if not model.has_features:
            raise TaskNotPossible("probe needs a model with states that can be read; this one has none")
        words = Words.of(material, self)
        result = TaskResult({}, {"words": float(len(words.names))}, {})
        asked = targets(words.names)
        self._without_model(words, asked, result)
        untrained = material.untrained()
        for place in model.has_features:
            prefix = "" if place == model.has_features[0] else f"{place}_"
            last, mean, pieces = vectors(model, words, place)
            views = View.of(words, last, self.width)
            scores = {target.name: self._scored(views, target) for target in asked}
            scores["mean_letters"] = self._scored(View.of(words, mean, self.width), asked[0])
            before = View.of(words, vectors(untrained, words, place)[0], self.width)
            scores["untrained_letters"] = self._scored(before, asked[0])
            control = self._control(words, last, asked[0])
            for name, scored in scores.items():
                result.metrics[prefix + name] = metric(scored, words.names)
            result.metrics[f"{prefix}control_letters"] = metric(control, words.names, self.test_words)
            result.values[f"{prefix}selectivity"] = scores["letters"].value - control.value
            if place == "patch":
                result.values["patches_per_word"] = float(pieces.mean())
                result.notes["letters_by_patches"] = by_pieces(scores["letters"], words, pieces)
        return result

    def _scored(self, view: View, target: Target) -> Scored:
        return probe(view.train, view.test, target, self.strength)

    def _control(self, words: Words, rows: Rows, target: Target) -> Scored:
        """Letters of other words, learnt at all places of a training word but its last, asked for there."""
        seen = words.in_training[rows.word]
        held_out = seen & words.last_place
        train, test = rows.pick(seen & ~held_out), rows.pick(held_out)
        project = Projection.of(train, self.width)
        own = np.flatnonzero(words.in_training)
        answers = target.answers.copy()
        answers[own] = answers[np.random.default_rng(len(own)).permutation(own)]
        shuffled = Target(target.name, answers, target.balanced)
        return probe(project(train), project(test), shuffled, self.strength)

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

    @staticmethod
    def of(material: Material, options: Probe) -> Words:
        """Raises BenchError where the texts hold too few words."""
        texts = first_bytes([*material.test, *material.calibration], options.max_bytes)
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
        """Brought to one width by what is seen in training."""
        seen = words.in_training[rows.word]
        project = Projection.of(rows.pick(seen), width)
        return View(project(rows.pick(seen)), project(rows.pick(~seen)))


def first_bytes(documents: Sequence[Document], most: int) -> list[bytes]:
    """The first whole texts of at most so many bytes together, one at least."""
    sizes = np.cumsum([len(d.data) for d in documents])
    return [d.data for d in documents[: max(1, int(np.searchsorted(sizes, most, "right")))]]


def vectors(model: ByteModel, words: Words, place: Place) -> tuple[Rows, Rows, np.ndarray]:
    """The last unit's vector and the mean over a word's units, and how many units it has (R,)."""
    found = model.features(words.texts, place)
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


def metric(scored: Scored, names: Sequence[str], most: int | None = None) -> Metric:
    """Of the words that were tested (the first `most` of them), a row each."""
    tested = np.flatnonzero(scored.count)[:most]
    rows = [(names[w], float(f"{scored.total[w]:.6g}"), float(f"{scored.count[w]:.6g}")) for w in tested]
    return Metric("accuracy", rows, lower_is_better=False)


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
