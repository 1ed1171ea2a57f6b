"""Frozen states of a trained model, per byte or per patch of a document: what probes are trained on (DESIGN section 6).

Legend: N bytes of a document, U units (bytes or patches), D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from bench.cuts import CutDocuments, Cuts, batches_of_spans, cut, scoring_spans
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
    where: Place,
    window: int,
    batch_bytes: int,
    device: torch.device,
    with_ids: bool = False,
) -> list[Features]:
    """Run the model over documents as for scoring, with the same windows, in float32.

    A causal cut is taken as it would be if the document went on, so nothing that comes later moves a state. Place
    boundaries come from the whole document, its end closes the last patch.
    """
    corpus = cut_with_end(patcher, docs, with_ids)
    spans = scoring_spans(corpus.offsets, window)
    starts = np.zeros(len(corpus.data), bool)
    states: list[np.ndarray] = [np.zeros(0)] * len(spans)
    with torch.inference_mode():
        for picked in batches_of_spans(spans, batch_bytes):
            batch = corpus.windows(np.array([(spans[i].begin, spans[i].end) for i in picked]))
            hidden = module.hidden(batch.to(device))
            found = hidden.byte if where == "byte" else hidden.patch
            assert found is not None, "the caller has checked that the model has such states"
            at_start = hidden.starts.cpu().numpy()
            stands = np.arange(len(at_start)) if where == "byte" else np.flatnonzero(at_start)  # of each state
            of_batch = found.float().cpu().numpy()
            at = 0
            for i in picked:
                s = spans[i]
                scored = slice(at + s.score - s.begin, at + s.end - s.begin)
                starts[s.score : s.end] = at_start[scored]
                first, last = np.searchsorted(stands, (scored.start, scored.stop))
                states[i] = of_batch[first:last]
                at = scored.stop
    of_document = [[states[i] for i in own] for _, own in groupby(range(len(spans)), lambda i: spans[i].document)]
    offsets = itertools.pairwise(corpus.offsets.tolist())
    return [
        _of_document(np.concatenate(own), starts[a:b], where) for own, (a, b) in zip(of_document, offsets, strict=True)
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
