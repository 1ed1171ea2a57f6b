"""Linear probes on word vectors, with controls.

Legend: R rows of vectors, W words, D width, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.evaluation.tasks.letters import Target

Predictor = Callable[[np.ndarray], np.ndarray]
"""Vectors (R, D) to answers (R,)."""

FEWEST = 5
"""Words on either side that must answer a yes-or-no question each way, or it is not asked."""


@dataclass(frozen=True)
class Rows:
    """Vectors of words; a word may have several, one for each place where it stands."""

    vectors: np.ndarray
    """(R, D)."""

    word: np.ndarray
    """(R,) int64: whose vector it is."""

    def pick(self, chosen: np.ndarray) -> Rows:
        """Those where `chosen` (R,) is true."""
        return Rows(self.vectors[chosen], self.word[chosen])

    def averaged(self) -> Rows:
        """One row a word: the mean of its own."""
        words, own, times = np.unique(self.word, return_inverse=True, return_counts=True)
        total = np.zeros((len(words), self.vectors.shape[1]))
        np.add.at(total, own, self.vectors)
        return Rows(total / times[:, None], words)


@dataclass(frozen=True)
class Projection:
    """Vectors of any width to one width, each direction with variance 1 over the rows it was made from."""

    mean: np.ndarray
    to: np.ndarray

    @staticmethod
    def of(rows: Rows, width: int) -> Projection:
        """The `width` main directions, fewer where there are fewer."""
        from sklearn.decomposition import PCA  # here: it takes a second to import, which no other command should

        vectors = rows.vectors.astype(np.float64)
        if (vectors == vectors[0]).all():  # nothing to tell words apart by
            return Projection(vectors[0], np.zeros((vectors.shape[1], 1)))
        pca = PCA(min(width, *rows.vectors.shape), svd_solver="covariance_eigh").fit(vectors)
        scale = np.sqrt(pca.explained_variance_)
        kept = scale > 1e-6 * scale[0]  # states may lie in fewer dimensions than they have
        return Projection(pca.mean_, pca.components_[kept].T / scale[kept])

    def __call__(self, rows: Rows) -> Rows:
        return Rows((rows.vectors - self.mean) @ self.to, rows.word)


@dataclass(frozen=True)
class Scored:
    """How a probe did, per word: (total, count) add up over words to the share of right answers."""

    total: np.ndarray
    """(W,) float64, 0 for words that were not tested."""

    count: np.ndarray
    """(W,) float64."""

    asked: list[int]
    """The questions."""

    @property
    def value(self) -> float:
        return float(self.total.sum() / self.count.sum())


def probe(train: Rows, test: Rows, target: Target, strength: float) -> Scored:
    """Train one L2 logistic regression a question on `train` and score it on `test`.

    `strength` is scikit-learn's C. A question counts the same as every other; of a question with weighed answers both
    answers do.
    """
    return _score(test, target, {q: _fitted(train, target, q, strength) for q in asked(train, test, target)})


def majority(train: Rows, test: Rows, target: Target) -> Scored:
    """The most frequent answer of the training words to everything."""

    def most(question: int) -> Predictor:
        answers = target.answers[np.unique(train.word), question]
        return lambda vectors: np.full(len(vectors), np.bincount(answers).argmax())

    return _score(test, target, {q: most(q) for q in asked(train, test, target)})


def asked(train: Rows, test: Rows, target: Target) -> list[int]:
    """The questions that can be learnt and scored: several answers in training; where answers are weighed, enough
    words for each."""
    sides = [target.answers[np.unique(rows.word)] for rows in (train, test)]
    out = []
    for q in range(target.answers.shape[1]):
        if len(np.unique(sides[0][:, q])) < 2:
            continue
        if not target.balanced or min(np.bincount(side[:, q], minlength=2).min() for side in sides) >= FEWEST:
            out.append(q)
    return out


def _fitted(train: Rows, target: Target, question: int, strength: float) -> Predictor:
    from sklearn.linear_model import LogisticRegression

    answers = target.answers[train.word, question]
    # a Newton step solves a system as large as classes times width: quick for yes or no, not for 26 letters
    solver = "newton-cholesky" if len(np.unique(answers)) == 2 else "lbfgs"
    weights = "balanced" if target.balanced else None
    model = LogisticRegression(C=strength, class_weight=weights, solver=solver, max_iter=1000, tol=1e-3)
    predict: Predictor = model.fit(train.vectors, answers).predict
    return predict


def _score(test: Rows, target: Target, predictors: dict[int, Predictor]) -> Scored:
    words = len(target.answers)
    times = np.bincount(test.word, minlength=words)
    tested = times > 0
    total, count = np.zeros(words), np.zeros(words)
    for q, predict in predictors.items():
        right = predict(test.vectors) == target.answers[test.word, q]
        share = np.bincount(test.word, weights=right, minlength=words) / np.maximum(times, 1)
        weight = tested.astype(float)
        if target.balanced:
            size = np.bincount(target.answers[tested, q], minlength=2)
            weight *= tested.sum() / (2 * size[np.minimum(target.answers[:, q], 1)])
        total += share * weight / len(predictors)
        count += weight / len(predictors)
    return Scored(total, count, list(predictors))
