"""Audits a trained model's probabilities: no look-ahead, no batch dependence, Kraft sums (DESIGN section 4).

A claim of bits per byte is a claim that the probabilities of all texts sum to at most one, and that nothing was
predicted with knowledge of what came later. Both are checked on the trained model, through the same scoring that the
number came from.

Legend: t the place of a byte in its document.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.data.cut_corpus import cut
from bench.evaluation.byte_model import ByteModel, CutModel, Scores, cut_documents
from bench.system import distributed
from models.decoding.shared_prefix import BRANCHING, Branches, score
from patchers.audit import check_causality

TOLERANCE = 1e-3
"""What float32 may add to a sum of probabilities."""

DRIFT = 1e-4
"""What float32 may move the nats of a byte by, when other bytes share its batch."""


@dataclass(frozen=True)
class Audit:
    """The outcome of one check."""

    passed: bool
    detail: str
    values: dict[str, float]


def drawn_seed() -> int:
    """For what an audit looks at: nobody knows it before, or a plug-in could behave well just there."""
    return distributed.told(secrets.randbits(32))


def audit(model: CutModel, documents: Sequence[bytes], prefixes: int = 16, seed: int | None = None) -> dict[str, Audit]:
    """All checks of a trained model; `documents` is text like the test text, of which a little is used: which, is drawn
    anew each time, and the values of each check have the seed."""
    seed = drawn_seed() if seed is None else seed
    rng = np.random.default_rng(seed)
    some = [documents[i] for i in rng.permutation(len(documents))[:8]]
    outcomes = {
        "future": future(model, some, rng),
        "alone": alone(model, some),
        "kraft_next": kraft_next(model, documents, prefixes, rng),
        "kraft_short": kraft_short(model),
    }
    if model.patcher is not None:
        found = check_causality(model.patcher, some, rng, trials=50)
        outcomes["causality"] = Audit(found.passed, found.detail, {})
    return {name: replace(one, values=one.values | {"seed": float(seed)}) for name, one in outcomes.items()}


def future(model: CutModel, documents: Sequence[bytes], rng: np.random.Generator) -> Audit:
    """Changing the bytes from t on never moves what was predicted for the bytes before t.

    With a causal patcher this holds for the whole of it, cuts included. Other patchers may cut the beginning
    differently, so there the cuts are held still and the bytes alone are changed; what the cuts give away is the
    Kraft checks' business.
    """
    causal = model.patcher is None or model.patcher.causal
    moved, where = [0.0], ["no byte"]
    for number, text in enumerate(documents):
        text = text[: model.window]
        if len(text) < 2:
            continue
        t = int(rng.integers(1, len(text)))
        other = text[:t] + rng.bytes(len(text) - t)
        if causal:
            before, after = (x[:t] for x in model.nats([text, other]))
        else:
            before, after = (x[:t] for x in _with_cuts_of(model, text, other))
        moved.append(float(np.abs(before - after).max()))
        where.append(f"document {number}, bytes from {t} on changed")
    at = int(np.argmax(moved))  # numpy takes NaN for the largest, so that none is lost
    told = f"predictions before the change moved by at most {moved[at]:.1e} nats"
    if moved[at] <= DRIFT:
        return Audit(True, told, {"moved": moved[at]})
    return Audit(False, f"{told} ({where[at]}): the model reads the future", {"moved": moved[at]})


def _with_cuts_of(model: CutModel, text: bytes, other: bytes) -> list[np.ndarray]:
    """Nats of both texts, both cut as the first is.

    Tokens keep the ids of the text that they begin in.
    """
    corpus = cut_documents(model.patcher, [text], model.with_ids)
    spans = np.array([[0, len(text)]])
    batch = corpus.windows(spans)
    changed = replace(batch, data=torch.frombuffer(bytearray(other), dtype=torch.uint8).long())
    if batch.ids is not None:
        t = next(i for i in range(len(text)) if text[i] != other[i]) if text != other else len(text)
        later = batch.starts.nonzero()[:, 0] >= t
        changed = replace(changed, ids=torch.where(later, batch.ids.flip(0), batch.ids))
    with torch.inference_mode():
        return [model.module(b.to(model.device), torch.float32).nats.cpu().numpy() for b in (batch, changed)]


def alone(model: ByteModel, documents: Sequence[bytes], drift: float = DRIFT) -> Audit:
    """A document scores the same alone, among others, and in another order."""
    together = model.nats(documents)
    backwards = model.nats(list(reversed(documents)))[::-1]
    single = [model.nats([d])[0] for d in documents]
    moved = [
        np.abs(a - b).max() for other in (backwards, single) for a, b in zip(together, other, strict=True) if len(a)
    ]
    worst = float(np.max([0.0, *moved]))
    detail = f"a byte's nats moved by at most {worst:.1e} with other documents beside it"
    return Audit(worst <= drift, detail, {"moved": worst})


def kraft_next(model: CutModel, documents: Sequence[bytes], prefixes: int, rng: np.random.Generator) -> Audit:
    """The probabilities of the 256 bytes after a prefix sum to at most 1, and to 1 where nothing is paid for cuts.

    Where the next byte changes how the prefix is cut, each way of cutting it is a case of its own: given the cuts
    before t, what all next bytes with those cuts are claimed to cost together must not exceed 1.
    """
    exact = model.patcher is None or model.patcher.causal
    sums: list[float] = []
    for _ in range(prefixes):
        sums += _sums_after(model, some_prefix(documents, model.window, rng))
    low, high = float(np.min(sums)), float(np.max(sums))
    passed = high <= 1 + TOLERANCE and (not exact or low >= 1 - TOLERANCE)
    wanted = "exactly 1" if exact else "at most 1"
    detail = f"next bytes sum to {low:.4f}..{high:.4f} after {prefixes} prefixes, wanted {wanted}"
    if high > 1 + TOLERANCE:
        detail += ": the cut tells the model something of the byte that it is about to predict, unpaid"
    return Audit(passed, detail, {"low": low, "high": high, "prefixes": float(prefixes)})


def some_prefix(documents: Sequence[bytes], window: int, rng: np.random.Generator) -> bytes:
    """The beginning of a document, which leaves room for a byte in the window."""
    text = documents[int(rng.integers(len(documents)))]
    return text[: int(rng.integers(1, min(len(text), 64, window - 1) + 1))]


def _sums_after(model: CutModel, prefix: bytes) -> list[float]:
    """For each way that the prefix is cut, the summed probability of the next bytes that cut it so."""
    t = len(prefix)
    texts = [prefix + bytes([b]) for b in range(256)]
    scores = model.score(texts)
    cuts = [c[:t] for c in _cuts(model, texts)]
    by_cut: dict[bytes, float] = {}
    for i, c in enumerate(cuts):
        by_cut[c.tobytes()] = by_cut.get(c.tobytes(), 0.0) + float(np.exp(-_cost_of_last(model, scores, i, c)))
    return list(by_cut.values())


def _cuts(model: CutModel, texts: Sequence[bytes]) -> list[np.ndarray]:
    if model.patcher is None or model.patcher.causal:
        return [np.zeros(len(x), bool) for x in texts]  # the same before t whatever comes at t; its own audit says so
    starts = cut(model.patcher, texts).starts[:]
    return np.split(starts, np.cumsum([len(x) for x in texts])[:-1])


def _cost_of_last(model: CutModel, scores: Scores, i: int, cuts_before: np.ndarray) -> float:
    """Nats of the last byte of text i given the bytes before it and their cuts."""
    nats = scores.nats[i]
    if model.with_ids:  # a token's nats stand at its first byte: take the token that byte t may belong to, and byte t
        return float(nats[np.flatnonzero(cuts_before)[-1] :].sum())
    cost = float(nats[-1])
    if scores.flag_nats is not None and getattr(model.module, "price", None) == "end":
        cost += float(scores.flag_nats[i][-2])  # whether byte t starts a patch was paid with the byte before
    return cost


def kraft_short(model: CutModel) -> Audit:
    """All documents of one byte, and all of two, have probabilities that sum to at most 1 (to 1 where nothing is
    paid for cuts)."""
    exact = model.patcher is None or model.patcher.causal
    ones = model.nats([bytes([a]) for a in range(256)])
    sums = [float(np.exp(-nats).sum()) for nats in (np.array([n.sum() for n in ones]), nats_of_pairs(model))]
    passed = bool(np.max(sums) <= 1 + TOLERANCE and (not exact or np.min(sums) >= 1 - TOLERANCE))
    detail = f"all documents of 1 byte sum to {sums[0]:.4f}, all of 2 bytes to {sums[1]:.4f}"
    return Audit(passed, detail, {"one": sums[0], "two": sums[1]})


PAIRS = [bytes([a, b]) for a in range(256) for b in range(256)]


def nats_of_pairs(model: CutModel) -> np.ndarray:
    """(65536,): of every document of two bytes.

    Those that begin alike and are cut alike give the model the same to read, so that one pass gives the probabilities
    of all of them. That it does is checked on some, scored as any text is; where it does not, all of them are.
    """
    if isinstance(model.module, BRANCHING):
        nats = _nats_of_alike(model, PAIRS)
        some = np.random.default_rng(0).choice(len(PAIRS), 256, replace=False)
        scored = np.array([n.sum() for n in model.nats([PAIRS[i] for i in some])])
        if np.abs(scored - nats[some]).max() <= DRIFT:
            return nats
    return np.array([n.sum() for n in model.nats(PAIRS)])


def _nats_of_alike(model: CutModel, pairs: Sequence[bytes]) -> np.ndarray:
    """Of documents of two bytes (J,), from one pass over the first of each kind: a first byte, and a way of cutting."""
    corpus = cut_documents(model.patcher, pairs, model.with_ids)
    kind = 2 * corpus.data[::2].astype(np.int64) + corpus.cuts.starts[:][1::2]
    order = np.argsort(kind, kind="stable")
    texts = corpus.windows(2 * order[:, None] + [0, 2])
    kinds, group = np.unique(kind[order], return_inverse=True)
    scored = score(model.module, Branches(texts, group, np.full(len(kinds), 2)))
    nats = np.empty(len(pairs))
    nats[order] = scored.nats.double().view(-1, 2).sum(1).cpu().numpy()
    return nats
