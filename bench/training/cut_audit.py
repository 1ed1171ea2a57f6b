"""Cuts a sample of documents again, alone, and compares with the cuts that were used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.config import Data
from bench.data.cut_corpus import CutDocuments, cut
from bench.data.segment import cut_cached
from bench.evaluation.audit import Audit
from bench.system import distributed
from bench.training.prepare import Prepared
from patchers.audit_apart import check_fresh_process
from patchers.identity import code_identity

SAMPLED = 12
"""Random documents of a split, beside its longest."""
LONGEST = 2_000_000
"""Bytes of a document that is still cut again."""


def audit_cuts(prepared: Prepared, data: Data, cache: Path, seed: int) -> Audit | None:
    """Whether what the cache, the batches and several processes gave is what the patcher gives now, document by
    document; and what a plug-in gives in processes of their own, where it remembers nothing. None for rows whose model
    cuts by itself or not at all."""
    patcher = prepared.scoring_patcher
    if patcher is None:
        return None
    test = cut_cached(patcher, data.test.texts, data.test.fingerprint, cache, prepared.with_ids, lambda message: None)
    corpora = {"training": prepared.train, "test": CutDocuments.of(data.test.texts, test)}
    texts = {"training": data.train.texts, "test": data.test.texts}
    looked_at = size = 0
    for split, corpus in corpora.items():
        for number in _sample(corpus.offsets, seed):
            begin, end = int(corpus.offsets[number]), int(corpus.offsets[number + 1])
            used = corpus.cuts.starts[begin:end]
            # Of a tokenizer that loses something a token_lm has more tokens than `segment` has patches.
            alone = cut(patcher, [texts[split][number]], prepared.with_ids).starts[:]
            moved = np.flatnonzero(used != alone)
            if len(moved):
                return Audit(
                    False,
                    f"the cut that was used is not the one that {patcher.name} gives now: {split} document {number} of "
                    f"{end - begin} bytes, cut alone, differs in {len(moved)} places, first at byte {int(moved[0])}",
                    {"documents": looked_at, "bytes": size},
                )
            looked_at, size = looked_at + 1, size + end - begin
    if code_identity(type(patcher)) is not None:
        with distributed.failing_alike():
            found = check_fresh_process(patcher, data.test.texts, np.random.default_rng(seed))
        if not found.passed:
            return Audit(False, f"{patcher.name}: {found.detail}", {"documents": looked_at, "bytes": size})
    detail = f"{looked_at} documents of the training and test text, cut again alone, were cut as they had been"
    return Audit(True, detail, {"documents": looked_at, "bytes": size})


def _sample(offsets: np.ndarray, seed: int) -> list[int]:
    """The longest document, and some at random."""
    sizes = np.diff(offsets)
    fit = np.flatnonzero(sizes <= LONGEST)
    if len(fit) == 0:
        return []
    drawn = np.random.default_rng([seed, len(sizes)]).permutation(fit)[:SAMPLED]
    return list(dict.fromkeys([int(fit[sizes[fit].argmax()]), *map(int, drawn)]))
