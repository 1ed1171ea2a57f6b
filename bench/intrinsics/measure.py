"""All numbers of some patchers on one text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.data.cut_corpus import cut
from bench.data.cut_statistics import CutStatistics, cut_statistics
from bench.evaluation.noise import OPERATORS
from bench.evaluation.noise.boundaries import agreement as agreement_through_noise
from bench.evaluation.noise.boundaries import encoded
from bench.intrinsics.aligned import AlignedTexts
from bench.intrinsics.measures import (
    Parity,
    VocabularyNumbers,
    WordNumbers,
    agreement,
    boundaries_of,
    morpheme_f1,
    parity,
    vocabulary_numbers,
    word_numbers,
)
from bench.intrinsics.words import Places, WordedText
from patchers import Patcher
from patchers.errors import BenchError
from patchers.grouping import beginning

NOISE_BYTES = 20_000
"""Of the first documents, which are given every kind of noise: each is cut once a kind."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """A fitted patcher, and what it is called."""

    label: str
    patcher: Patcher
    fit_seconds: float | None = None
    """Of the processor, where it was fitted now; None where there is nothing to fit, or it was in the cache."""


@dataclass(frozen=True)
class Numbers:
    """Of one patcher."""

    label: str
    lengths: CutStatistics
    words: WordNumbers | None
    """None for a text without words."""
    vocabulary: VocabularyNumbers
    used: float | None
    """Share of the ids of its vocabulary that the text has; None without a vocabulary."""
    morphemes: float | None
    """F1 with given morphemes; None without any in the text."""
    stability: float
    """F1 of the boundaries of clean and noisy text, over all kinds of noise at their own levels."""
    parity: Parity | None
    """None without aligned texts."""
    rate: float
    """Bytes cut in a second of the processor."""
    fit_seconds: float | None


@dataclass(frozen=True)
class Intrinsics:
    """Of all patchers, on one text."""

    source: str
    bytes: int
    documents: int
    words: int
    morpheme_words: int | None
    """Words of the text whose morphemes were given; None where none were given."""
    rows: tuple[Numbers, ...]
    agreement: np.ndarray
    """(rows, rows): F1 of their boundaries, each with each."""
    sentences: int | None
    """Of each language; None without aligned texts."""
    reference: str | None
    """The language that the others are compared with."""


def measure(
    contenders: Sequence[Contender],
    docs: Sequence[bytes],
    source: str,
    morphemes: dict[bytes, tuple[int, ...]] | None = None,
    aligned: AlignedTexts | None = None,
    say: Say = lambda message: None,
) -> Intrinsics:
    """Cut `docs` with each and look at the cuts; nothing is trained. Raises BenchError where there is no text."""
    text = WordedText.of(docs)
    if not text.data:
        raise BenchError(f"{source} has no text to cut; give documents that are not empty")
    inside = None if morphemes is None else text.morpheme_boundaries(morphemes)
    noisy = Noisy.of(docs)
    rows, boundaries = [], []
    for one in contenders:
        say(f"cutting with {one.label}")
        made, found = _numbers(one, text, noisy, inside, aligned)
        rows.append(made)
        boundaries.append(found)
    matrix = np.array([[agreement(a, b) for b in boundaries] for a in boundaries])
    return Intrinsics(
        source=source,
        bytes=len(text.data),
        documents=len(docs),
        words=len(text.words),
        morpheme_words=None if inside is None else len(inside[0]),
        rows=tuple(rows),
        agreement=matrix,
        sentences=None if aligned is None else aligned.count,
        reference=None if aligned is None else aligned.reference,
    )


def _numbers(
    one: Contender, text: WordedText, noisy: Noisy, inside: tuple[Places, Places] | None, aligned: AlignedTexts | None
) -> tuple[Numbers, Places]:
    """And the boundaries, (B,)."""
    patcher = one.patcher
    cut(patcher, text.docs[:1])  # what a first call compiles is no part of the rate
    begin = time.process_time()
    starts = cut(patcher, text.docs).starts[:]
    seconds = time.process_time() - begin
    boundaries = boundaries_of(starts, text.offsets)
    numbers = Numbers(
        label=one.label,
        lengths=cut_statistics(text.docs, np.split(starts, text.offsets[1:-1])),
        words=word_numbers(text, boundaries),
        vocabulary=vocabulary_numbers(text.data, starts),
        used=_used(patcher, text.docs),
        morphemes=None if inside is None else morpheme_f1(*inside, boundaries),
        stability=noisy.stability(patcher),
        parity=None if aligned is None else _parity(patcher, aligned),
        rate=len(text.data) / max(seconds, 1e-9),
        fit_seconds=one.fit_seconds,
    )
    return numbers, boundaries


def _used(patcher: Patcher, docs: Sequence[bytes]) -> float | None:
    size = getattr(patcher, "vocab_size", None)
    if size is None or not hasattr(patcher, "encode"):
        return None
    ids = cut(patcher, docs, with_ids=True).ids
    assert ids is not None
    return len(np.unique(ids[:])) / size


def _parity(patcher: Patcher, aligned: AlignedTexts) -> Parity:
    patches = {name: int(cut(patcher, lines).starts[:].sum()) for name, lines in aligned.sentences.items()}
    return parity(patches, aligned.reference)


@dataclass(frozen=True)
class Noisy:
    """Some documents, clean and with each kind of noise."""

    clean: tuple[str, ...]
    noised: tuple[tuple, ...]
    """(kinds, documents) of `Noised`."""

    @staticmethod
    def of(docs: Iterable[bytes], limit: int = NOISE_BYTES) -> Noisy:
        """The first documents up to `limit` bytes, and the beginning of the one that passes it."""
        some = beginning(docs, limit, whole=False)
        clean = [doc.decode(errors="surrogateescape") for doc in some]
        return Noisy(tuple(clean), tuple(tuple(op(text) for text in clean) for op in OPERATORS.values()))

    def stability(self, patcher: Patcher) -> float:
        """F1 of boundaries, over all kinds together; 1 where there are none in any."""
        starts = patcher.segment_many([encoded(text) for text in self.clean])
        both = every = 0.0
        for noised in self.noised:
            cuts = patcher.segment_many([encoded(noisy.text) for noisy in noised])
            for text, clean, noisy, cut_noisy in zip(self.clean, starts, noised, cuts, strict=True):
                shared, of_either = agreement_through_noise(text, clean, noisy, cut_noisy)
                both, every = both + shared, every + of_either
        return both / every if every else 1.0
