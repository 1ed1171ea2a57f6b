"""Extracts frozen hidden states per byte or per patch for probes (DESIGN section 6).

Legend: N bytes of a document, U units (bytes or patches), D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from bench.data.cut_corpus import CutDocuments, Cuts, ScoringSpan, batches_of_spans, cut, scoring_spans
from models.states import HasStates, Place
from patchers import Patcher

AFTER = b"\n"
"""Stands behind a document, because the position that has read byte t is the one that predicts byte t + 1."""


@dataclass(frozen=True)
class Features:
    """States of one document.

    `byte`: unit t is the local decoder's state at the position that has read byte t (position t + 1, DESIGN section
    3). `patch`: unit j is the latent output of the j-th patch, or the state of a token model that has read the j-th
    token.
    """

    vectors: np.ndarray
    """(U, D) float32."""

    unit: np.ndarray
    """(N,) int64: the unit that covers each byte, -1 for bytes of a patch that is still open at the document's end."""


def features(
    module: HasStates,
    patcher: Patcher | None,
    docs: Sequence[bytes],
    places: Sequence[Place],
    window: int,
    batch_bytes: int,
    device: torch.device,
    with_ids: bool = False,
) -> dict[Place, list[Features]]:
    """Run the model once over documents as for scoring, with the same windows, in float32; each kind of states of each.

    A causal cut is taken as it would be if the document went on, so nothing that comes later moves a state. Place
    boundaries come from the whole document, its end closes the last patch.
    """
    corpus = cut_with_end(patcher, docs, with_ids)
    spans = scoring_spans(corpus.offsets, window)
    starts = np.zeros(len(corpus.data), bool)
    states: dict[Place, list[np.ndarray]] = {place: [np.zeros(0)] * len(spans) for place in places}
    with torch.inference_mode():
        for picked in batches_of_spans(spans, batch_bytes):
            batch = corpus.windows(np.array([(spans[i].begin, spans[i].end) for i in picked]))
            hidden = module.hidden(batch.to(device))
            at_start = hidden.starts.cpu().numpy()
            ends = np.cumsum([spans[i].end - spans[i].begin for i in picked])
            scored = [slice(end - (spans[i].end - spans[i].score), end) for i, end in zip(picked, ends, strict=True)]
            for i, here in zip(picked, scored, strict=True):
                starts[spans[i].score : spans[i].end] = at_start[here]
            for place in places:
                found = hidden.byte if place == "byte" else hidden.patch
                assert found is not None, "the caller has checked that the model has such states"
                of_batch = found.float().cpu().numpy()
                stands = np.arange(len(at_start)) if place == "byte" else np.flatnonzero(at_start)  # of each state
                for i, here in zip(picked, scored, strict=True):
                    first, last = np.searchsorted(stands, (here.start, here.stop))
                    states[place][i] = of_batch[first:last]
    return {place: _by_document(place, found, spans, starts, corpus.offsets) for place, found in states.items()}


def _by_document(
    place: Place, states: Sequence[np.ndarray], spans: Sequence[ScoringSpan], starts: np.ndarray, offsets: np.ndarray
) -> list[Features]:
    """From the states of each window, and where patches begin (all positions of all documents)."""
    of_document = [[states[i] for i in own] for _, own in groupby(range(len(spans)), lambda i: spans[i].document)]
    positions = itertools.pairwise(offsets.tolist())
    return [
        _of_document(np.concatenate(own), starts[a:b], place)
        for own, (a, b) in zip(of_document, positions, strict=True)
    ]


def _of_document(vectors: np.ndarray, starts: np.ndarray, where: Place) -> Features:
    """Features from the states of a document's N + 1 positions, position 0 being BOS's; starts (N + 1,)."""
    vectors = vectors[1:]
    if where == "byte":
        return Features(vectors, np.arange(len(starts) - 1))
    unit = np.concatenate(([0], starts[1:].cumsum()))[:-1]
    return Features(vectors, np.where(unit < len(vectors), unit, -1))


def cut_with_end(patcher: Patcher | None, docs: Sequence[bytes], with_ids: bool) -> CutDocuments:
    """Documents, each with `AFTER` behind it, and their cuts."""
    longer = [d + AFTER for d in docs]
    if patcher is None:
        return CutDocuments.uncut(longer)
    if patcher.causal and not with_ids:
        return CutDocuments.of(longer, cut(patcher, longer))
    cuts = cut(patcher, docs, with_ids)
    ends = np.cumsum([len(d) for d in docs], dtype=np.int64)
    starts = cuts.starts[:]
    tokens = np.concatenate(([0], starts.cumsum()))[ends]
    ids = None if cuts.ids is None else np.insert(cuts.ids[:], tokens, 0)
    return CutDocuments.of(longer, Cuts(np.insert(starts, ends, True), ids))
