"""How probable a text is after another one: what multiple choice, and the field's own harness, ask of a model.

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

Legend: T bytes of a batch of texts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.cuts import CutDocuments, ScoringSpan, scoring_spans
from bench.generate import begin
from bench.model import CutModel, cut_documents
from models.branches import Branches, common_prefix, score
from models.sampling import Sampling

OWN = 256
"""How many positions of its own a text may have to be advanced beside others; a longer one is read by itself."""

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
    for pair, nats, best in _scored(model, texts):
        assert best is not None, "such a model says which byte is best"
        out[pair] = Likelihood(-total(nats), bool(best.all()))
    return out


def _by_difference(model: CutModel, asked: Sequence[Asked]) -> Found:
    texts = [
        [(b"", text) for text in dict.fromkeys((a.context, *(a.context + c for c in a.continuations)))] for a in asked
    ]
    log_p = {pair[1]: -total(nats) for pair, nats, _ in _scored(model, texts)}
    written = _written(model, asked) if model.can_write else None
    return {
        (a.context, c): Likelihood(
            log_p[a.context + c] - log_p[a.context], None if written is None else written[a.context].startswith(c)
        )
        for a in asked
        for c in a.continuations
    }


@dataclass(frozen=True)
class _Group:
    """Windows that are scored in one go: several texts that share a beginning, or one window of one text."""

    spans: tuple[ScoringSpan, ...]
    shared: int
    """Positions that they share, at least 1; all of them where there is one."""

    @property
    def size(self) -> int:
        return self.shared + sum(self.own)

    @property
    def own(self) -> list[int]:
        return [s.end - s.begin - self.shared for s in self.spans]


def _scored(
    model: CutModel, groups: Sequence[Sequence[tuple[bytes, bytes]]]
) -> Iterator[tuple[tuple[bytes, bytes], np.ndarray, np.ndarray | None]]:
    """Each pair of context and continuation with the nats of the continuation's bytes, and which of them are the
    most probable ones; the contexts of a group's pairs may begin alike."""
    pairs = [pair for group in groups for pair in group]
    corpus = cut_documents(model.patcher, [a + b for a, b in pairs], model.with_ids)
    wanted = corpus.offsets[:-1] + [len(a) for a, _ in pairs]
    nats = np.full(len(corpus.data), np.nan)
    best: np.ndarray | None = np.zeros(len(corpus.data), bool)
    windows = _windows(model, corpus, wanted)
    planned = _plan(corpus, [len(group) for group in groups], windows)
    for batch in _batches(planned, model.batch_bytes):
        spans = [span for group in batch for span in group.spans]
        of_group = np.repeat(np.arange(len(batch)), [len(group.spans) for group in batch])
        texts = corpus.windows(np.array([(s.begin, s.end) for s in spans]))
        scored = score(model.module, Branches(texts, of_group, np.array([group.shared for group in batch])))
        of_batch = scored.nats.double().cpu().numpy()
        at_best = None if scored.best is None else scored.best.cpu().numpy()
        at = 0
        for s in spans:
            here = slice(at + s.score - s.begin, at + s.end - s.begin)
            nats[s.score : s.end] = of_batch[here]
            if at_best is not None and best is not None:
                best[s.score : s.end] = at_best[here]
            else:
                best = None
            at += s.end - s.begin
    for pair, a, b in zip(pairs, wanted.tolist(), corpus.offsets[1:].tolist(), strict=True):
        assert not np.isnan(nats[a:b]).any(), "every byte of a continuation is scored"
        yield pair, nats[a:b], None if best is None else best[a:b]


def _windows(model: CutModel, corpus: CutDocuments, wanted: np.ndarray) -> list[list[ScoringSpan]]:
    """The windows of each text that score something of its continuation."""
    out: list[list[ScoringSpan]] = [[] for _ in wanted]
    for span in scoring_spans(corpus.offsets, model.window):
        if span.end > wanted[span.document]:
            out[span.document].append(span)
    return out


def _plan(corpus: CutDocuments, sizes: Sequence[int], windows: Sequence[list[ScoringSpan]]) -> Iterator[_Group]:
    """Texts of one group share what they can, where that saves anything; other windows are on their own."""
    ends = list(itertools.accumulate(sizes))
    for end, size in zip(ends, sizes, strict=True):
        whole = [w[0] for w in windows[end - size : end] if len(w) == 1 and w[0].begin == w[0].score]
        shared = _shared(corpus, whole) if len(whole) > 1 else 0
        group = _Group(tuple(whole), shared)
        together = shared > 1 and max(group.own) <= OWN
        if together:
            yield group
        taken = {span.document for span in whole} if together else set()
        for span in (s for w in windows[end - size : end] for s in w if s.document not in taken):
            yield _Group((span,), span.end - span.begin)


def _shared(corpus: CutDocuments, spans: Sequence[ScoringSpan]) -> int:
    """How many positions see the same in all of these windows: position p reads bytes up to p - 1 and, at most, whether
    byte p starts a patch."""
    first, data, starts = spans[0], corpus.data, corpus.cuts.starts
    shared = min(s.end - s.begin for s in spans)
    for s in spans[1:]:
        alike = common_prefix(data[first.begin : first.begin + shared], data[s.begin : s.begin + shared])
        cut = common_prefix(starts[first.begin : first.begin + shared], starts[s.begin : s.begin + shared])
        shared = min(shared, alike + 1, cut)
    return shared


def _batches(groups: Iterable[_Group], limit: int) -> Iterator[list[_Group]]:
    """Groups that are alike beside each other, in batches of at most `limit` bytes (a larger one goes alone)."""
    batch: list[_Group] = []
    held = 0
    for group in sorted(groups, key=lambda g: (len(g.spans) > 1, max(g.own), g.shared)):
        if batch and held + group.size > limit:
            yield batch
            batch, held = [], 0
        batch.append(group)
        held += group.size
    if batch:
        yield batch


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
