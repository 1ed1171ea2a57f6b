"""Audits of a pretrained model's probabilities, as those of trained ones (`bench.evaluation.audit`): no look-ahead, no
dependence on what is scored beside a text, and no sum of probabilities above one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.evaluation.audit import TOLERANCE, Audit, alone, drawn_seed, some_prefix
from bench.evaluation.pretrained.model import PretrainedModel

DRIFT = 1e-3
"""What float32 may move the nats of a unit by, where other texts share its batch: logits of published models are in the
hundreds."""

PREFIXES = 4


def audit(model: PretrainedModel, documents: Sequence[bytes], seed: int | None = None) -> dict[str, Audit]:
    """All checks; `documents` is text like the test text, of which a little is used, drawn anew each time."""
    rng = np.random.default_rng(drawn_seed() if seed is None else seed)
    some = [documents[i][: model.window] for i in rng.permutation(len(documents))[:8]]
    found = {"future": future(model, some, rng), "alone": alone(model, some, DRIFT)}
    if model.vocabulary.kind == "bytes":  # each sum is of one pass's 256 outputs, if no byte moves what comes before it
        return found | {"kraft_next": kraft_next(model, some, rng, prefixes=1)}
    return found | {"kraft_next": kraft_next(model, some, rng), "kraft_short": kraft_short(model)}


def future(model: PretrainedModel, documents: Sequence[bytes], rng: np.random.Generator) -> Audit:
    """Changing the units from some place on never moves what is predicted there or before, whatever comes.

    It is all outputs that are compared: what a model says of the very unit that it has been shown would look the same
    before and after if one asked for that unit alone.
    """
    worst = 0.0
    for units in model.vocabulary.encode(documents):
        ids = units.ids[: model.most_units and model.most_units - 1]
        if len(ids) < 2:
            continue
        t = int(rng.integers(1, len(ids)))
        other = np.append(ids[:t], rng.choice(ids, len(ids) - t))
        other[t] = next((i for i in ids if i != ids[t]), ids[t])
        before, after = (model.outputs_after(row)[: t + 1] for row in (ids, other))
        worst = float(np.maximum(worst, np.abs(before - after).max()))  # numpy's keeps NaN
    told = f"predictions up to a change moved by at most {worst:.1e} nats"
    return Audit(worst <= DRIFT, told if worst <= DRIFT else f"{told}: the model reads the future", {"moved": worst})


def kraft_next(
    model: PretrainedModel, documents: Sequence[bytes], rng: np.random.Generator, prefixes: int = PREFIXES
) -> Audit:
    """The probabilities of the 256 bytes after a prefix sum to at most 1: to 1 for a model over bytes, and for one over
    tokens given the tokens before the one that the next byte is in."""
    sums: list[float] = []
    for _ in range(prefixes):
        sums += _sums_after(model, some_prefix(documents, model.window, rng))
    return _judged(model, sums, f"next bytes after {prefixes} prefix{'es' * (prefixes > 1)}")


def _sums_after(model: PretrainedModel, prefix: bytes) -> list[float]:
    """For each way that the prefix is read, the summed probability of the next bytes for which it is read so."""
    texts = [prefix + bytes([b]) for b in range(256)]
    encoded = model.vocabulary.encode(texts)
    by_reading: dict[bytes, float] = {}
    for units, nats in zip(encoded, model.nats_of_units(texts, encoded), strict=True):
        if units.lossy:  # what is paid for lost bytes is of the whole text; `kraft_short` has such texts
            continue
        last = len(prefix) if model.vocabulary.kind == "bytes" else int(np.searchsorted(units.starts, len(prefix))) - 1
        read = units.ids[:last].tobytes()
        by_reading[read] = by_reading.get(read, 0.0) + float(np.exp(-nats[last:].sum()))
    return list(by_reading.values())


def kraft_short(model: PretrainedModel) -> Audit:
    """All documents of one byte have probabilities that sum to at most 1."""
    ones = model.nats([bytes([a]) for a in range(256)])
    return _judged(model, [float(np.exp([-n.sum() for n in ones]).sum())], "all documents of one byte")


def _judged(model: PretrainedModel, sums: Sequence[float], what: str) -> Audit:
    exact = model.vocabulary.kind == "bytes"
    low, high = float(np.min(sums, initial=np.inf)), float(np.max(sums, initial=0.0))
    passed = high <= 1 + TOLERANCE and (not exact or low >= 1 - TOLERANCE)
    detail = f"{what} sum to {low:.4f}..{high:.4f}, wanted {'exactly 1' if exact else 'at most 1'}"
    return Audit(passed, detail, {"low": low, "high": high})
