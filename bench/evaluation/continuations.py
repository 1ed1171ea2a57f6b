"""Scores continuations of contexts; shared prefixes are computed once.

Legend: T bytes of a batch of texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bench.data.cut_corpus import CutDocuments, ScoringSpan, scoring_spans
from bench.system import distributed
from models.decoding.shared_prefix import Branches, common_prefix, score

OWN = 256
"""How many positions of its own a text may have to be advanced beside others; a longer one is read by itself."""


@dataclass(frozen=True)
class Scored:
    """A continuation's bytes."""

    nats: np.ndarray
    """-ln p of each, float64, boundary cost included, as a document has it that is the context and the continuation."""

    best: np.ndarray | None
    """Whether no other byte is more probable; None where the model predicts more, or less, than a byte at a time."""


def scored(
    module: nn.Module, corpus: CutDocuments, begins: np.ndarray, sizes: Sequence[int], window: int, batch_bytes: int
) -> list[Scored]:
    """The bytes of each document from `begins` on, a place in all of them together.

    Documents come in groups of these sizes, those of one beside each other; what a group's documents have in common at
    their beginning is read once. What a document gets does not depend on the others, up to the rounding of float32.
    """
    nats = np.zeros(len(corpus.data))
    best = np.zeros(len(corpus.data), np.uint8)
    seen = np.zeros(len(corpus.data), np.uint8)
    knows_best = True
    planned = _plan(corpus, sizes, _windows(corpus, begins, window))
    for batch in distributed.mine(_batches(planned, batch_bytes)):
        spans = [span for group in batch for span in group.spans]
        of_group = np.repeat(np.arange(len(batch)), [len(group.spans) for group in batch])
        texts = corpus.windows(np.array([(s.begin, s.end) for s in spans]))
        found = score(module, Branches(texts, of_group, np.array([group.shared for group in batch])))
        of_batch = found.nats.double().cpu().numpy()
        knows_best = knows_best and found.best is not None
        at_best = np.zeros(len(of_batch), bool) if found.best is None else found.best.cpu().numpy()
        at = 0
        for s in spans:
            here = slice(at + s.score - s.begin, at + s.end - s.begin)
            nats[s.score : s.end], best[s.score : s.end] = of_batch[here], at_best[here]
            seen[s.score : s.end] += 1
            at += s.end - s.begin
    nats, best, seen = distributed.add_up(nats), distributed.add_up(best), distributed.add_up(seen)
    knows_best = not distributed.any_of(not knows_best)
    each = [slice(a, b) for a, b in zip(begins.tolist(), corpus.offsets[1:].tolist(), strict=True)]
    assert all((seen[x] == 1).all() for x in each), "every byte of a continuation is scored exactly once"
    return [Scored(nats[x], best[x] > 0 if knows_best else None) for x in each]


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


def _windows(corpus: CutDocuments, begins: np.ndarray, window: int) -> list[list[ScoringSpan]]:
    """The windows of each document that score something of its continuation."""
    out: list[list[ScoringSpan]] = [[] for _ in begins]
    for span in scoring_spans(corpus.offsets, window):
        if span.end > begins[span.document]:
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
