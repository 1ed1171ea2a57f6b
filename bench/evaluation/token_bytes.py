"""Holds a vocabulary to what its ids stand for: one id, one string of bytes.

A model over tokens pays for ids, and its bits are said to be those of the text. That is so where the ids tell the text.
A vocabulary whose id 0 is any word would cost nothing and tell nothing.

Legend: N bytes of all documents, P tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.data.cut_corpus import CutDocuments
from patchers.errors import BenchError

TOGETHER = 2**16
"""Tokens that are compared at a time."""


@dataclass
class TokenBytes:
    """What each id has stood for so far."""

    known: dict[int, bytes] = field(default_factory=dict)

    def check(self, corpus: CutDocuments) -> None:
        """Raises BenchError for an id that stands for other bytes than it did before, here or in an earlier call.

        The first token of a document is left out: SentencePiece's have a space there that the text has not.
        """
        assert corpus.cuts.ids is not None, "a model over tokens has their ids"
        starts = np.flatnonzero(corpus.cuts.starts[:])
        ends = np.append(starts[1:], len(corpus.data))
        inner = np.flatnonzero(~np.isin(starts, corpus.offsets))
        ids = corpus.cuts.ids[:]
        for at in range(0, len(inner), TOGETHER):
            some = inner[at : at + TOGETHER]
            self._check(corpus, ids[some], starts[some], ends[some])

    def _check(self, corpus: CutDocuments, ids: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        first_byte = int(starts[0])
        data = corpus.data[first_byte : int(ends[-1])]
        begins, sizes = starts - first_byte, ends - starts
        found, first, which = np.unique(ids, return_index=True, return_inverse=True)
        for i, at in zip(found.tolist(), first.tolist(), strict=True):
            self._is(i, data[begins[at] : begins[at] + sizes[at]].tobytes())
        like = first[which]
        other = sizes != sizes[like]
        same = np.flatnonzero(~other)
        counts = sizes[same]
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        differs = data[np.repeat(begins[same], counts) + within] != data[np.repeat(begins[like[same]], counts) + within]
        other[np.repeat(same, counts)[differs]] = True
        for at in np.flatnonzero(other)[:1].tolist():
            self._is(int(ids[at]), data[begins[at] : begins[at] + sizes[at]].tobytes())

    def _is(self, i: int, text: bytes) -> None:
        known = self.known.setdefault(i, text)
        if known != text:
            raise BenchError(
                f"the token {i} stands for {known!r} in one place and for {text!r} in another, so the ids do not tell "
                "the text and their bits are not its bits: give every string of bytes that is a token an id of its own"
            )
