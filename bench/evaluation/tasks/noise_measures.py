"""The four measures of the task `noise`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.config import Document
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.multiple_choice import Item, robustness
from bench.evaluation.noise import Operator
from bench.evaluation.noise.boundaries import agreement, encoded
from bench.evaluation.tasks.base import Metric, TaskResult

Score = Literal["per_byte", "gain"]
"""How choices are compared: by their bits per byte after the context (the field's acc_norm), or by how many bits fewer
they take after the context than alone, which leaves out how probable a choice is in itself."""

PLACES = {"prompt": (True, False), "choices": (False, True), "both": (True, True)}
"""Where noise is put -> whether on the prompt, and whether on the choices."""


@dataclass(frozen=True)
class Parted:
    """The beginning of a document and what follows, which begins with the space before a word."""

    id: str
    first: str
    second: str

    @property
    def text(self) -> str:
        return self.first + self.second


LEAST = 32
"""Characters that each part has, at least."""


def parted(documents: Iterable[Document], first: int, second: int, limit: int) -> list[Parted]:
    """Of the first `limit` documents that are long enough, a first and a second part of at most so many characters."""
    out: list[Parted] = []
    for document in documents:
        text = document.data.decode("utf-8", "surrogateescape")
        at = _before_word(text, min(first, max(len(text) // 2, len(text) - second)))
        found = Parted(document.id, text[:at], text[at : at + second])
        if min(len(found.first), len(found.second)) >= LEAST:
            out.append(found)
        if len(out) == limit:
            break
    return out


def _before_word(text: str, middle: int) -> int:
    """The last place up to `middle` where a single space is followed by a letter or digit; `middle` without one."""
    at = middle
    while (at := text.rfind(" ", 1, at)) > LEAST:
        if not text[at - 1].isspace() and text[at + 1 : at + 2].isalnum():
            return at
    return middle


def bits_after(model: ByteModel, texts: Sequence[tuple[str, str]], alike: Sequence[int] | None = None) -> list[float]:
    """Bits of each second part after the first; `alike` as `ByteModel.nats` has it."""
    nats = model.nats([encoded(first) + encoded(second) for first, second in texts], alike)
    return [float(n[len(encoded(first)) :].sum()) / math.log(2) for n, (first, _) in zip(nats, texts, strict=True)]


def six_digits(number: float) -> float:
    """As many digits as a record needs: a document's bits to a thousandth."""
    return float(f"{number:.6g}")


def metric(
    ids: Sequence[str],
    totals: NDArray[np.float64],
    counts: NDArray[np.float64],
    unit: str,
    chance: float | None = None,
) -> Metric:
    rows = [(i, six_digits(t), six_digits(c)) for i, t, c in zip(ids, totals, counts, strict=True)]
    return Metric(unit, rows, unit not in ("accuracy", "F1"), chance)


# --- (a)


def after(model: ByteModel, texts: Sequence[Parted], operators: Sequence[Operator], seed: int) -> TaskResult:
    """Extra bits per byte of clean text when what stands before it is noisy."""
    ids = [t.id for t in texts]
    counts = np.array([len(encoded(t.second)) for t in texts], dtype=np.float64)
    clean = np.array(bits_after(model, [(t.first, t.second) for t in texts]))
    extra: dict[str, NDArray[np.float64]] = {}
    for operator in operators:
        noisy = [(operator(t.first, seed=seed).text, t.second) for t in texts]
        extra[operator.name] = np.array(bits_after(model, noisy)) - clean
    metrics = {f"after_{name}": metric(ids, bits, counts, "extra bits/byte") for name, bits in extra.items()}
    together = metric(ids, np.sum(list(extra.values()), 0), counts * len(operators), "extra bits/byte")
    return TaskResult({"after": together, **metrics})


# --- (b)


def percent(level: float) -> str:
    """A level as names have it, which hold no dots: 5, 10, 2_5."""
    return f"{100 * level:g}".replace(".", "_")


def on(
    model: ByteModel, texts: Sequence[Parted], operators: Sequence[Operator], levels: Sequence[float], seed: int
) -> TaskResult:
    """Bits of noisy text, per byte of the clean text and per byte of its own."""
    ids = [t.id for t in texts]
    clean_bytes = np.array([len(encoded(t.text)) for t in texts], dtype=np.float64)
    values: dict[str, float] = {}

    def bits(noisy: Sequence[str], name: str) -> NDArray[np.float64]:
        found = np.array(bits_after(model, [("", text) for text in noisy]))
        values[f"on_{name}"] = six_digits(found.sum() / clean_bytes.sum())
        values[f"on_{name}_noisy"] = six_digits(found.sum() / max(1, sum(len(encoded(text)) for text in noisy)))
        return found

    clean = np.array(bits_after(model, [("", t.text) for t in texts]))
    metrics = {"on_0": metric(ids, clean, clean_bytes, "bits/byte")}
    for operator in operators:
        if operator.level is None:
            bits([operator(t.text, seed=seed).text for t in texts], operator.name)
    leveled = [operator for operator in operators if operator.level is not None]
    for level in sorted(levels) if leveled else ():
        found = [bits([o(t.text, level, seed).text for t in texts], f"{o.name}_{percent(level)}") for o in leveled]
        metrics[f"on_{percent(level)}"] = metric(ids, np.sum(found, 0), clean_bytes * len(leveled), "bits/byte")
    return TaskResult(metrics, values)


# --- (c)


def choice(
    model: ByteModel, items: Sequence[Item], operators: Sequence[Operator], score: Score, seed: int
) -> TaskResult:
    """Accuracy, clean and with each noise on the prompt, the choices or both."""
    ids = [item.id for item in items]
    ones = np.ones(len(items))
    right = Chooser(model, score).right
    clean = right(items)
    guessing = six_digits(float(np.mean([1 / len(item.choices) for item in items])))
    metrics = {"choice": metric(ids, clean, ones, "accuracy", guessing)}
    values: dict[str, float] = {}
    chance = 100 * guessing
    accuracies: list[float] = []
    for place, (on_prompt, on_choices) in PLACES.items():
        found = []
        for operator in operators:
            noisy = [noised_item(item, operator, on_prompt, on_choices, seed) for item in items]
            found.append(right(noisy))
            accuracies.append(100 * float(found[-1].mean()))
            name = f"{operator.name}_{place}"
            values[f"choice_{name}"] = six_digits(accuracies[-1])
            values[f"change_{name}"] = six_digits(accuracies[-1] - 100 * float(clean.mean()))
            values[f"robustness_{name}"] = robustness(accuracies[-1], 100 * float(clean.mean()), chance)
        metrics[f"choice_{place}"] = metric(ids, np.sum(found, 0), ones * len(operators), "accuracy", guessing)
    values["robustness"] = robustness(float(np.mean(accuracies)), 100 * float(clean.mean()), chance)
    return TaskResult(metrics, {name: value for name, value in values.items() if math.isfinite(value)})


def noised_item(item: Item, operator: Operator, on_prompt: bool, on_choices: bool, seed: int) -> Item:
    context = operator(item.context, seed=seed).text if on_prompt else item.context
    choices = [operator(c, seed=seed).text for c in item.choices] if on_choices else item.choices
    return Item(item.id, context, tuple(choices), item.answer)


class Chooser:
    """What a model takes for the right choice."""

    def __init__(self, model: ByteModel, score: Score) -> None:
        self.model, self.score = model, score
        self.alone: dict[str, float] = {}  # bits of choices without a context, which many variants share

    def right(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """1 where the choice with the lowest score is the right one, (items,); the first wins a draw."""
        texts = [(item.context, f" {choice}") for item in items for choice in item.choices]
        bits = np.array(bits_after(self.model, texts, [len(item.choices) for item in items]))
        if self.score == "gain":
            scores = bits - self._alone([ending for _, ending in texts])
        else:
            scores = bits / [len(encoded(ending)) for _, ending in texts]
        out, at = [], 0
        for item in items:
            out.append(float(int(scores[at : at + len(item.choices)].argmin()) == item.answer))
            at += len(item.choices)
        return np.array(out)

    def _alone(self, endings: Sequence[str]) -> NDArray[np.float64]:
        new = [ending for ending in dict.fromkeys(endings) if ending not in self.alone]
        self.alone |= zip(new, bits_after(self.model, [("", ending) for ending in new]) if new else [], strict=True)
        return np.array([self.alone[ending] for ending in endings])


# --- (d)


def has_boundaries(model: ByteModel, texts: Sequence[Parted]) -> bool:
    """Whether the model cuts any of the texts behind its beginning: without a boundary F1 is nought over nought."""
    starts = model.cuts([encoded(t.text) for t in texts])
    return starts is not None and any(s[1:].any() for s in starts)


def cut(model: ByteModel, texts: Sequence[Parted], operators: Sequence[Operator], seed: int) -> TaskResult:
    """Boundary F1 between the cuts of clean and noisy text."""
    starts = model.cuts([encoded(t.text) for t in texts])
    assert starts is not None, "the caller has checked that the model cuts"
    together = np.zeros((len(texts), 2))
    values = {}
    for operator in operators:
        noisy = [operator(t.text, seed=seed) for t in texts]
        cuts = model.cuts([encoded(n.text) for n in noisy])
        assert cuts is not None, "it has a cut"
        sums = np.array([agreement(t.text, s, n, c) for t, s, n, c in zip(texts, starts, noisy, cuts, strict=True)])
        values[f"cut_{operator.name}"] = six_digits(sums[:, 0].sum() / max(1, sums[:, 1].sum()))
        together += sums
    return TaskResult({"cut": metric([t.id for t in texts], together[:, 0], together[:, 1], "F1")}, values)
