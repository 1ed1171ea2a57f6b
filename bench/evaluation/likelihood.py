"""Log-likelihoods of continuations, for multiple choice and for lm-evaluation-harness.

The chain rule is the definition: ln p(continuation | context) = ln p(context + continuation) - ln p(context), both
scored as documents are, from BOS and through windows. So the pieces of a document add up to what it costs as a whole,
for every kind of model:

- Where what is said of a byte depends on the bytes before it alone (a causal cut, the model's own cut, no cut), the
  difference is the sum over the continuation's bytes, and that is what is computed.
- Where the cut of the context depends on what follows (boundaries that are priced, tokens), both are computed. The
  continuation then pays for what it makes of the context's last patch or token, and is paid back if that becomes
  cheaper; so choices after one context are ranked by the probability of the whole text, however it is cut.

Nothing is cut off a context. One that is longer than the window is read as a document of that length is: the
continuation is scored with at least half a window of context, in the windows that a document would have there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.evaluation.byte_model import CutModel
from bench.evaluation.generation import begin
from models.decoding.sampling import Sampling

SIDE_BY_SIDE = 64
"""Contexts that are continued together."""


@dataclass(frozen=True)
class Likelihood:
    """Of a continuation, given its context."""

    log: float
    """In nats."""

    greedy: bool | None
    """Whether it is what the model writes, taking the most probable byte (or token) each time; None for a model that
    cannot write."""


@dataclass(frozen=True)
class Asked:
    """A context, and what may follow it."""

    context: bytes
    continuations: tuple[bytes, ...]


def total(nats: np.ndarray) -> float:
    """Their sum, without rounding on the way."""
    return math.fsum(nats.tolist())


def likelihoods(model: CutModel, pairs: Sequence[tuple[bytes, bytes]]) -> list[Likelihood]:
    """Of each continuation given its context; `pairs` of these, in any order.

    Each context is read once for all that may follow it. What a pair gets does not depend on the others, up to the
    rounding of float32.
    """
    by_context: dict[bytes, dict[bytes, None]] = {}
    for context, continuation in pairs:
        by_context.setdefault(context, {})[continuation] = None
    asked = [Asked(context, tuple(found)) for context, found in by_context.items()]
    found = _byte_by_byte(model, asked) if is_byte_by_byte(model) else _by_difference(model, asked)
    return [found[pair] for pair in pairs]


def is_byte_by_byte(model: CutModel) -> bool:
    """Whether what is said of a byte depends on the bytes before it alone."""
    return not model.with_ids and not _is_priced(model) and (model.patcher is None or model.patcher.causal)


def is_leaky(model: CutModel) -> bool:
    """Whether it is told boundaries that depend on what follows, and does not pay for them."""
    return not model.with_ids and not _is_priced(model) and model.patcher is not None and not model.patcher.causal


def _is_priced(model: CutModel) -> bool:
    return getattr(model.module, "price", None) is not None


Found = dict[tuple[bytes, bytes], Likelihood]


def _byte_by_byte(model: CutModel, asked: Sequence[Asked]) -> Found:
    texts = [[(a.context, c) for c in a.continuations] for a in asked]
    out: Found = {}
    for pair, scored in zip(itertools.chain.from_iterable(texts), model.continued(texts), strict=True):
        assert scored.best is not None, "such a model says which byte is best"
        out[pair] = Likelihood(-total(scored.nats), bool(scored.best.all()))
    return out


def _by_difference(model: CutModel, asked: Sequence[Asked]) -> Found:
    texts = [
        [(b"", text) for text in dict.fromkeys((a.context, *(a.context + c for c in a.continuations)))] for a in asked
    ]
    every = itertools.chain.from_iterable(texts)
    log_p = {text: -total(scored.nats) for (_, text), scored in zip(every, model.continued(texts), strict=True)}
    written = _written(model, asked) if model.can_write else None
    return {
        (a.context, c): Likelihood(
            log_p[a.context + c] - log_p[a.context], None if written is None else written[a.context].startswith(c)
        )
        for a in asked
        for c in a.continuations
    }


def _written(model: CutModel, asked: Sequence[Asked]) -> dict[bytes, bytes]:
    """What the model writes after each context, as far as one of the continuations agrees with it."""
    out: dict[bytes, bytes] = {}
    for at in range(0, len(asked), SIDE_BY_SIDE):
        some = list(asked[at : at + SIDE_BY_SIDE])
        writer = begin(model.module, model.patcher, [a.context for a in some])
        texts = {a.context: b"" for a in some}
        while some:
            units = Sampling().draw(writer.logits, np.zeros(len(some)))
            going = []
            for row, (a, unit) in enumerate(zip(some, units.tolist(), strict=True)):
                texts[a.context] = text = texts[a.context] + writer.units[unit]
                if any(len(c) > len(text) and c.startswith(text) for c in a.continuations):
                    going.append(row)
            some = [some[row] for row in going]
            if some:
                writer.keep(going)
                writer.write(units[going], np.zeros(len(some)))
        out |= texts
    return out
