"""A cut corpus as one flat vector of bytes with starts, and the windows and batches made of it.

Legend: N bytes of all documents, D documents, P patches or tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench.data.documents import Flat, FlatTexts
from bench.data.packed_starts import EvenStarts, Flags, Ranks, count
from bench.system import distributed
from patchers import Patcher
from patchers.errors import BenchError
from patchers.identity import code_identity

if TYPE_CHECKING:
    from models.batch import Windows


@dataclass(frozen=True)
class Cuts:
    """Where a patcher cuts documents; `ids` has one token a start where the patcher has a vocabulary and the model
    wants it."""

    starts: Flags
    """(N,) bool."""

    ids: Flat | None = None
    """(P,) int32, in the order of the starts."""


@dataclass(frozen=True)
class CutDocuments:
    """Documents laid end to end with their cuts; in memory, or on disk."""

    data: Flat
    """(N,) uint8."""

    offsets: np.ndarray
    """(D + 1,) int64."""

    cuts: Cuts

    @staticmethod
    def of(docs: Sequence[bytes], cuts: Cuts) -> CutDocuments:
        texts = FlatTexts.of(docs)
        assert len(cuts.starts) == len(texts.flat), (len(cuts.starts), len(texts.flat))
        return CutDocuments(texts.flat, texts.offsets, cuts)

    @staticmethod
    def uncut(docs: Sequence[bytes]) -> CutDocuments:
        """Documents of one patch each, for models that look at no cut."""
        texts = FlatTexts.of(docs)
        starts = EvenStarts(texts.offsets)
        return CutDocuments.of(texts, Cuts(starts if texts is docs else starts[:]))

    @property
    def bytes_per_patch(self) -> float:
        return len(self.data) / max(1, count(self.cuts.starts))

    @cached_property
    def ranks(self) -> Ranks:
        """Which tokens lie in a window: those whose starts do."""
        return Ranks(self.cuts.starts)

    def windows(self, spans: np.ndarray) -> Windows:
        """spans (W, 2) of begin and end in the flat vector, none across a document's end -> one batch."""
        import torch  # which processes that only cut have no use for, and a quarter of a gigabyte

        from models.batch import Windows

        places = spans.tolist()
        data = np.concatenate([self.data[a:b] for a, b in places])
        lengths, last = spans[:, 1] - spans[:, 0], (spans[:, 1] - spans[:, 0]).cumsum() - 1
        with_next = [self.cuts.starts[a : b + 1] for a, b in places]
        starts = np.concatenate([s[: b - a] for s, (a, b) in zip(with_next, places, strict=True)])
        ends = np.empty(len(data), np.int8)
        ends[:-1] = starts[1:]
        at_document_end = self.offsets[np.searchsorted(self.offsets, spans[:, 1])] == spans[:, 1]
        ends[last] = np.where(at_document_end, -1, [s[-1] for s in with_next])
        ids = None
        if self.cuts.ids is not None:
            tokens = [self.cuts.ids[self.ranks.before(a) : self.ranks.before(b)] for a, b in places]
            ids = torch.from_numpy(np.concatenate(tokens).astype(np.int64))
        return Windows(
            data=torch.from_numpy(data.astype(np.int64)),
            offsets=torch.from_numpy(np.concatenate(([0], lengths.cumsum()))),
            starts=torch.from_numpy(starts),
            ends=torch.from_numpy(ends),
            ids=ids,
        )


def cut(patcher: Patcher, docs: Sequence[bytes], with_ids: bool = False) -> Cuts:
    """Segment documents; raises BenchError if a patcher answers with the wrong shape or type.

    Among the documents of a plug-in that says it is causal are probes, each before its document: texts that begin like
    it and go on otherwise. They are cut by the call whose cuts are used, so that nothing tells a patcher when it is
    looked at. Raises BenchError where a later byte has moved a start.
    """
    if not patcher.causal or code_identity(type(patcher)) is None:
        return _cut(patcher, docs, with_ids)
    probes = _probes(docs, np.random.default_rng())  # which nobody can know beforehand
    mixed: list[bytes] = []
    of, own = np.zeros(len(docs), np.int64), np.zeros(len(docs) + len(probes), bool)
    for number, doc in enumerate(docs):
        mixed += [probe.text for probe in probes if probe.before == number]
        of[number], own[len(mixed)] = len(mixed), True
        mixed.append(doc)
    cuts = _cut(patcher, mixed, with_ids)
    ends = np.cumsum([len(text) for text in mixed], dtype=np.int64)
    for probe, at in zip(probes, np.flatnonzero(~own).tolist(), strict=True):
        first, second = int(ends[at]) - len(probe.text), int(ends[of[probe.document]]) - len(docs[probe.document])
        seen = min(probe.shared + 1, len(probe.text))
        moved = np.flatnonzero(cuts.starts[first : first + seen] != cuts.starts[second : second + seen])
        if len(moved):
            raise BenchError(
                f"patcher {patcher.name!r} says that it is causal, and of two texts that share their first "
                f"{probe.shared} bytes, cut in one call, it cuts only one at byte {int(moved[0])}: `patchbench check "
                f"{patcher.name}` looks at it closely; where what follows moves a start, declare causal = False"
            )
    kept = np.repeat(own, np.diff(ends, prepend=0))
    starts = cuts.starts[:]
    ids = None if cuts.ids is None else cuts.ids[:][kept[np.flatnonzero(starts)]]
    return Cuts(starts[kept], ids)


PROBES = 8
"""Texts with another future in one call, at most; and at most one to so many documents."""
LONGEST_PROBE = 100_000
"""Bytes of a document that is cut twice for it."""


@dataclass(frozen=True)
class _Probe:
    """The first `shared` bytes of a document, and another text after them."""

    document: int
    shared: int
    text: bytes
    before: int
    """The document that it is cut before, at most its own: whoever remembers what it has cut, and keeps to it, cuts the
    document then by what does not follow in it."""


def _probes(docs: Sequence[bytes], rng: np.random.Generator) -> list[_Probe]:
    """Of documents at random, in the order in which they are cut."""
    some = [number for number, doc in enumerate(docs) if 1 < len(doc) <= LONGEST_PROBE]
    count = min(PROBES, int(len(some) / PROBES + rng.random()))
    found = []
    for number in rng.permutation(some)[:count].tolist():
        shared = int(rng.integers(1, len(docs[number])))
        foreign = docs[int(rng.choice(some))]
        future = bytes([rng.integers(256)]) + foreign[int(rng.integers(len(foreign))) :]
        found.append(_Probe(number, shared, docs[number][:shared] + future, int(rng.integers(number + 1))))
    return sorted(found, key=lambda probe: probe.before)


def _cut(patcher: Patcher, docs: Sequence[bytes], with_ids: bool) -> Cuts:
    if with_ids:
        encode = getattr(patcher, "encode", None)
        if encode is None:
            raise BenchError(
                f"patcher {patcher.name!r} has no vocabulary; a token_lm row needs one that has, such as bpe"
            )
        encode_many = getattr(patcher, "encode_many", None)
        pairs = [encode(d) for d in docs] if encode_many is None else encode_many(docs)
        ids = np.concatenate([p[0] for p in pairs]) if pairs else np.zeros(0, np.int32)
        each = [p[1] for p in pairs]
    else:
        pairs, ids, each = [], None, patcher.segment_many(docs)
    if len(each) != len(docs):
        raise BenchError(
            f"patcher {patcher.name!r} gave the starts of {len(each)} documents, wanted those of {len(docs)}"
        )
    for doc, starts in zip(docs, each, strict=True):
        if not isinstance(starts, np.ndarray) or starts.dtype != np.bool_ or starts.shape != (len(doc),):
            given = f"{getattr(starts, 'dtype', type(starts).__name__)} of shape {getattr(starts, 'shape', '?')}"
            raise BenchError(
                f"patcher {patcher.name!r} gave {given} for a document of {len(doc)} bytes; "
                f"wanted a bool array of shape ({len(doc)},)"
            )
        if len(doc) and not starts[0]:
            raise BenchError(f"patcher {patcher.name!r} gave a document whose first byte starts no patch")
    for tokens, starts in pairs:
        if len(tokens) != starts.sum():
            raise BenchError(
                f"patcher {patcher.name!r} gave {len(tokens)} token ids for {starts.sum()} starts; wanted one a start"
            )
    return Cuts(np.concatenate(each) if each else np.zeros(0, bool), ids)


PIECE = 2**20
"""Bytes of documents that a rank cuts at a time."""


def cut_together(patcher: Patcher, docs: Sequence[bytes], with_ids: bool = False) -> Cuts:
    """`cut`, of which each rank does a part."""
    texts = FlatTexts.of(docs)
    runs = list(texts.runs(PIECE))
    if distributed.count() == 1 or not runs:
        return cut(patcher, docs, with_ids)
    with distributed.failing_alike():
        own = [cut(patcher, texts.run(*run), with_ids) for run in distributed.mine(runs)]
    each = distributed.gathered(own)
    found = [each[number % len(each)][number // len(each)] for number in range(len(runs))]
    ids = [cuts.ids[:] for cuts in found if cuts.ids is not None]
    return Cuts(np.concatenate([cuts.starts[:] for cuts in found]), np.concatenate(ids) if with_ids else None)


def training_spans(offsets: np.ndarray, window: int) -> np.ndarray:
    """Every document in pieces of at most `window` bytes: (W, 2)."""
    counts = -(-np.diff(offsets) // window)
    document = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(document)) - np.repeat(counts.cumsum() - counts, counts)
    begins = offsets[document] + number * window
    return np.stack((begins, np.minimum(begins + window, offsets[document + 1])), 1)


def batches(spans: np.ndarray, batch_bytes: int, total_bytes: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of up to `batch_bytes` until `total_bytes` are read, the last with no window more than that takes; each
    epoch is shuffled by (seed, epoch).

    What a batch holds depends on the lengths of the windows alone, so every segmenter reads the same bytes in the
    same order.
    """
    lengths = spans[:, 1] - spans[:, 0]
    read, held, epoch = 0, 0, 0
    batch: list[int] = []
    while True:
        for i in np.random.default_rng([seed, epoch]).permutation(len(spans)):
            if batch and held + lengths[i] > batch_bytes:
                while len(batch) > 1 and read + held - lengths[batch[-1]] >= total_bytes:
                    held -= int(lengths[batch.pop()])
                yield spans[batch]
                read += held
                batch, held = [], 0
                if read >= total_bytes:
                    return
            batch.append(int(i))
            held += int(lengths[i])
        epoch += 1


@dataclass(frozen=True)
class ScoringSpan:
    """A window of a document and which of its bytes it scores: data[begin:end], from `score` on."""

    document: int
    begin: int
    score: int
    end: int


def scoring_spans(offsets: np.ndarray, window: int) -> list[ScoringSpan]:
    """Windows that score every byte once, with half a window of context where a document is longer than a window."""
    spans = []
    half = window // 2
    for d, (a, b) in enumerate(itertools.pairwise(offsets.tolist())):
        if a < b:
            spans.append(ScoringSpan(d, a, a, min(a + window, b)))
        for score in range(a + window, b, half):
            spans.append(ScoringSpan(d, score - half, score, min(score + half, b)))
    return spans


def batches_of_spans(spans: Sequence[ScoringSpan], limit: int) -> list[list[int]]:
    """Indices of spans in batches of at most `limit` bytes (a longer one goes alone).

    Windows of like length lie beside each other: less padding where a model pads.
    """
    out: list[list[int]] = []
    held = limit
    for i in sorted(range(len(spans)), key=lambda i: spans[i].end - spans[i].begin):
        length = spans[i].end - spans[i].begin
        if held + length > limit:
            out.append([])
            held = 0
        out[-1].append(i)
        held += length
    return out
