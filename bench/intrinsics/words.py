"""Words of a text, and their morphemes as a file gives them.

Legend: N bytes of all documents laid end to end, D documents, W words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchers.errors import BenchError

Places = NDArray[np.int64]


@dataclass(frozen=True)
class WordedText:
    """Documents laid end to end, and the words in them: the longest runs of letters, marks and digits (Unicode's
    categories L, M and N) inside of a document. Where a script writes no spaces a word is as long as a clause."""

    docs: tuple[bytes, ...]
    offsets: Places
    """(D + 1,)"""
    words: Places
    """(W, 2): the bytes between which each word lies."""

    @staticmethod
    def of(docs: Sequence[bytes]) -> WordedText:
        """Bytes that are not UTF-8 are in no word."""
        texts = [doc.decode(errors="surrogateescape") for doc in docs]
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        invalid = (codes >= 0xDC80) & (codes <= 0xDCFF)
        sizes = np.where(invalid, 1, 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000))
        at = np.concatenate((np.zeros(1, np.int64), sizes.cumsum()))
        distinct, place = np.unique(codes, return_inverse=True)
        wordy = np.array([unicodedata.category(chr(code))[0] in "LMN" for code in distinct.tolist()], bool)
        # A character that is no word's stands between documents, so that no word crosses their ends.
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        inside = np.insert(wordy[place] if len(codes) else np.zeros(0, bool), ends, False)
        change = np.flatnonzero(np.diff(np.concatenate(([False], inside)).astype(np.int8)))
        change -= np.searchsorted(ends + np.arange(len(ends)), change, side="left")
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum([len(doc) for doc in docs], dtype=np.int64)))
        return WordedText(tuple(docs), offsets, at[change].reshape(-1, 2))

    @cached_property
    def data(self) -> bytes:
        """All documents, (N,)."""
        return b"".join(self.docs)

    @cached_property
    def gaps(self) -> Places:
        """What lies between two words of one document: (gaps, 2), from the end of one word to the beginning of the
        next."""
        between = np.stack((self.words[:-1, 1], self.words[1:, 0]), 1)
        document = np.searchsorted(self.offsets, self.words[:, 0], side="right")
        return between[document[:-1] == document[1:]]

    def morpheme_boundaries(self, morphemes: dict[bytes, tuple[int, ...]]) -> tuple[Places, Places]:
        """Of the words that `morphemes` has: where they lie, (words, 2), and the boundaries inside of them."""
        known, boundaries = [], []
        for begin, end in self.words.tolist():
            inside = morphemes.get(self.data[begin:end])
            if inside is not None:
                known.append((begin, end))
                boundaries += [begin + place for place in inside]
        return np.array(known, np.int64).reshape(-1, 2), np.array(boundaries, np.int64)


def read_morphemes(path: Path) -> dict[bytes, tuple[int, ...]]:
    """A file of lines `word<TAB>morpheme morpheme ...`; the morphemes of a word, joined, are the word.

    Returns the boundaries inside of each word, in bytes. Raises BenchError for a file that cannot be read, and for a
    line that is not so.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"cannot read the morphemes in {path}: {error}; give a text file in UTF-8") from error
    found: dict[bytes, tuple[int, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        word, tab, rest = line.partition("\t")
        parts = [part.encode() for part in rest.split()]
        if not tab or b"".join(parts) != word.encode():
            raise BenchError(
                f"{path}, line {number}: wanted a word, a tab, and its morphemes with spaces between them, which "
                f"joined are the word, got {line[:60]!r}"
            )
        found[word.encode()] = tuple(np.cumsum([len(part) for part in parts])[:-1].tolist())
    if not found:
        raise BenchError(f"{path} has no morphemes; wanted lines like unhappily<TAB>un happi ly")
    return found
