"""Aligns a library's tokens with the bytes of a text, and spells in bytes what the tokens do not give back.

Legend: N bytes of a text, K tokens that a library gives, P tokens of ours, V ids of its vocabulary.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from patchers.base import Starts, as_array
from patchers.errors import BenchError
from patchers.grouping import grouped
from patchers.losses import OTHER, Loss, Losses, kind_of
from patchers.vocabularies.tokens import pack

AT_ONCE = 2**22
"""Bytes of texts that a library is given in one call, so that its answers for a corpus are not all in memory."""
TOGETHER = 64
"""Bytes of neighbouring stretches that are looked at together, to tell what became of them."""
PROBES = 40
_INVALID = re.compile("([\udc80-\udcff]+)")
Ints = NDArray[np.int32]
Places = NDArray[np.int64]
AT_0: Places = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Spelling:
    """The tokens of a library, by id."""

    tokens: list[bytes | None]
    """(V,) the bytes that each spells, None where it spells nothing (an unknown token, a gap in the ids)."""
    spaced: list[bool]
    """(V,) whether it begins with the library's mark for a space; its first byte is a space then."""
    single: dict[int, int]
    """The ids of tokens that spell one byte, by byte."""


class Library(ABC):
    """A tokenizer of some library, for valid text."""

    @abstractmethod
    def spelling(self) -> Spelling:
        """All of its tokens."""

    @abstractmethod
    def ids(self, texts: list[str]) -> list[Ints]:
        """Ids of each text, (K,)."""

    @abstractmethod
    def spans(self, texts: list[str]) -> list[tuple[Ints, Places, Places]]:
        """Ids of each text, and the bytes between which the library says that each token lies: (K,) each."""


@dataclass(frozen=True)
class Aligned:
    """The tokens of a text, in their order; a byte that is not UTF-8 is one of them, with the id of that byte."""

    data: bytes
    ids: Ints
    at: Places
    """(K,) the byte at which each begins, not falling; N for one that begins after the end."""
    sizes: Ints
    """(K,) how many of the bytes from there on the token spells; 0 for a token that stands for none (the mark of a
    word's beginning that no space made), -1 where it says something else than the text."""
    runs: Places
    """Where runs of valid text, or of bytes that are not UTF-8, begin."""


class ByteAligned:
    """A library's tokenizer as a patcher and a token_lm want it, for any bytes.

    Bytes that are not valid UTF-8 are tokens of their own, and the text between them is given to the library run by
    run. A token begins where the library's offsets say; inside of a character, which offsets do not tell apart, where
    the bytes of the token before it end.

    `encode` gives ids from which every byte can be told. What the library's tokens do not give back (words in lower
    case, unknown tokens, dropped white space) is spelled in tokens for single bytes: the tokenizer's own where it has
    all 256, else 256 more after its last id.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        spelling = library.spelling()
        self.spelled, single = spelling.tokens, spelling.single
        # Many tokenizers put a space before a text, and take it away when they decode.
        self.marks = np.array(spelling.spaced, bool) & self._puts_a_space_before()
        own = len(single) == 256 and not self.marks[single[0x20]]
        self.byte_ids = np.array([single[b] if own else len(self.spelled) + b for b in range(256)], np.int32)
        self.tokens = [token or b"" for token in self.spelled] + ([] if own else [bytes([b]) for b in range(256)])
        self._flat, lengths = pack(self.tokens)
        self._offsets = np.concatenate(([0], lengths.cumsum())).astype(np.int64)
        self._lengths = np.where(lengths > 0, lengths, -1)

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def _puts_a_space_before(self) -> bool:
        """Whether words of its own vocabulary, given alone, come back with a space."""
        words = [t for t in self.spelled if t and t.strip().isalpha()]
        spaced = [t[1:] for t in words if t[:1] == b" "]
        probes = list(dict.fromkeys(t.decode() for t in [*spaced[:PROBES], *words[:PROBES]]))  # ASCII, as isalpha says
        for probe in probes:
            with suppress(BenchError):  # a piece of words need not be a word that it can encode
                ids = self.library.ids([probe])[0].tolist()
                if b"".join(self.spelled[i] or b"" for i in ids) == b" " + probe.encode():
                    return True
        return False

    def starts(self, docs: Sequence[bytes]) -> list[Starts]:
        """Of each document, bool (N,): true at byte 0, at and after bytes that are not UTF-8, and where the library
        says that a token begins."""
        out = []
        for aligned in self.aligned(docs):
            starts = np.zeros(len(aligned.data) + 1, bool)
            starts[aligned.at[aligned.sizes != 0]] = True
            starts[aligned.runs] = True
            out.append(starts[:-1])
        return out

    def encode(self, docs: Sequence[bytes]) -> list[tuple[Ints, Starts]]:
        """Of each document the ids, (P,), and their starts, bool (N,) with P true."""
        return [_spell(as_array(a.data), a.ids, a.at, a.sizes, self.byte_ids) for a in self.aligned(docs)]

    def decode(self, ids: Ints) -> bytes:
        """The document that `encode` gives these ids for."""
        data = b"".join(self.tokens[i] for i in ids.tolist())
        return data[1:] if len(ids) and ids[0] < len(self.marks) and self.marks[ids[0]] else data

    # --- losses

    def losses(self, docs: Sequence[bytes]) -> Losses:
        """What the library's tokens do not give back of these documents."""
        sizes: dict[str, int] = {}
        examples: dict[str, tuple[bytes, bytes | None]] = {}

        def add(kind: str, text: bytes, token: bytes | None) -> None:
            sizes[kind] = sizes.get(kind, 0) + len(text)
            if kind not in examples or len(text) < len(examples[kind][0]):  # a short one is clearer
                examples[kind] = text, token

        for aligned in self.aligned(docs):
            open_text, open_token, end = b"", b"", -1  # stretches on end may say together what one does not say alone
            for at, text, token, unknown in [*self._lost(aligned), (-2, b"", None, False)]:
                if open_text and (at != end or unknown or token is None):
                    add(kind_of(open_text, open_token, False), open_text, open_token)
                    open_text, open_token = b"", b""
                kind = kind_of(open_text + text, None if token is None else open_token + token, unknown)
                if token is not None and not unknown and kind == OTHER and len(open_text) < TOGETHER:
                    open_text, open_token, end = open_text + text, open_token + token, at + len(text)
                elif text:
                    add(kind, open_text + text, None if token is None or unknown else open_token + token)
                    open_text, open_token = b"", b""
        return Losses(sum(map(len, docs)), {kind: Loss(size, *examples[kind]) for kind, size in sizes.items()})

    def _lost(self, aligned: Aligned) -> Iterator[tuple[int, bytes, bytes | None, bool]]:
        """What tokens do not give back: its place, the text, what the tokens there say (None: nothing), and whether one
        of them is unknown. It is what `_spell` spells in bytes, but for tokens that say their text where a token_lm
        could not tell them from others (a space before a text that begins with one)."""
        data, n = aligned.data, len(aligned.data)
        standing = aligned.sizes != 0
        ids, at, sizes = (each[standing].tolist() for each in (aligned.ids, aligned.at, aligned.sizes))
        at.append(n)
        if at[0] > 0:
            yield 0, data[: at[0]], None, False
        k = 0
        while k < len(ids) and at[k] < n:
            last = k
            while at[last + 1] == at[k]:
                last += 1
            text, exact = data[at[k] : at[last + 1]], sizes[k] if last == k else -1
            if ids[k] >= len(self.spelled):
                yield at[k], text, None, False
            elif exact < 0:
                said = [self.spelled[i] for i in ids[k : last + 1]]
                joined = b"".join(token or b"" for token in said)
                # The space of a mark at the beginning is the text's own where a token before it stands for no byte.
                is_own = at[k] > 0 or not standing[0] or not self.marks[ids[k]]
                if joined != text or None in said or not is_own:
                    yield at[k], text, joined, None in said
            elif exact < len(text):
                yield at[k] + exact, text[exact:], None, False
            k = last + 1

    # --- alignment

    def aligned(self, docs: Sequence[bytes]) -> Iterator[Aligned]:
        """The tokens of each document."""
        for group in grouped(docs, len, AT_ONCE):
            yield from self._of_group(group)

    def _of_group(self, docs: Sequence[bytes]) -> Iterator[Aligned]:
        split = [_runs(doc) for doc in docs]
        texts = [(run, number == 0) for runs in split for number, run in enumerate(runs) if number % 2 == 0 and run]
        found = self._of_texts([text for text, _ in texts], [first for _, first in texts])
        for doc, runs in zip(docs, split, strict=True):
            parts: list[Aligned] = []
            for number, run in enumerate(runs):
                if number % 2:
                    raw = as_array(run.encode(errors="surrogateescape"))
                    ones = np.ones(len(raw), np.int32)
                    parts.append(Aligned(raw.tobytes(), self.byte_ids[raw], np.arange(len(raw)), ones, AT_0))
                elif run:
                    parts.append(next(found))
            yield parts[0] if len(parts) == 1 else _joined(doc, parts)

    def _of_texts(self, texts: list[str], first: list[bool]) -> Iterator[Aligned]:
        """Valid texts; `first`: whether a document begins with it, so that a space may have been put before it."""
        known: dict[int, Aligned] = {}
        for i, ids in enumerate(self.library.ids(texts)):
            data, sizes = texts[i].encode(), self._lengths[ids]
            if first[i] and len(ids) and self.marks[ids[0]]:
                sizes[0] -= 1
            if sizes.sum() == len(data) and (len(sizes) == 0 or sizes.min() > 0):
                spelled = b"".join(map(self.tokens.__getitem__, ids.tolist()))
                if spelled.endswith(data):
                    known[i] = Aligned(data, ids, np.cumsum(sizes, dtype=np.int64) - sizes, sizes, AT_0)
        others = [i for i in range(len(texts)) if i not in known]
        for i, (ids, begins, ends) in zip(others, self.library.spans([texts[i] for i in others]), strict=True):
            data = texts[i].encode()
            marks = self.marks if first[i] else np.zeros(len(self.marks), bool)
            at, sizes = _place(as_array(data), ids, begins, ends, self._flat, self._offsets, self._lengths, marks)
            known[i] = Aligned(data, ids, at, sizes, AT_0)
        return (known[i] for i in range(len(texts)))


def _runs(data: bytes) -> list[str]:
    """Valid text and bytes that are not UTF-8 (as surrogates), in turns, beginning with text that may be empty."""
    try:
        return [data.decode()]
    except UnicodeDecodeError:
        return _INVALID.split(data.decode(errors="surrogateescape"))


def _joined(data: bytes, parts: list[Aligned]) -> Aligned:
    offsets = np.concatenate(([0], np.cumsum([len(part.data) for part in parts]))).astype(np.int64)
    return Aligned(
        data,
        np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.at + o for part, o in zip(parts, offsets, strict=False))]),
        np.concatenate([np.zeros(0, np.int32), *(part.sizes for part in parts)]),
        np.unique(offsets),
    )


@njit(cache=True, nogil=True)
def _place(data, ids, begins, ends, flat, offsets, lengths, marks):  # type: ignore[no-untyped-def]
    """Where each token begins and how many bytes it spells there, (K,) and (K,); see `Aligned`.

    `marks`: ids whose first byte, a space, is not in the text where they begin it.
    """
    n, last, end = len(data), 0, 0
    at, sizes = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int32)
    for k in range(len(ids)):
        begin = min(max(begins[k], last), n)
        token = offsets[ids[k]]
        length = lengths[ids[k]]
        place = max(begin, end)  # the token before may end in the midst of a character, where this one goes on
        if place == 0 and marks[ids[k]]:
            token, length = token + 1, length - 1
        exact = length >= 0 and place + length <= ends[k]
        for i in range(length):
            if not exact or data[place + i] != flat[token + i]:
                exact = False
                break
        if exact:
            at[k], sizes[k] = place, length
            end = place + length
        else:
            at[k], sizes[k] = (begin if begin >= end else last), -1
        last = at[k]
    return at, sizes


@njit(cache=True, nogil=True)
def _spell(data, ids, at, sizes, byte_ids):  # type: ignore[no-untyped-def]
    """The tokens that say what the text says, and bytes for the rest of it: ids (P,) and starts (N,)."""
    n = len(data)
    out, starts = np.zeros(n, np.int32), np.zeros(n, np.bool_)
    count, done, k = 0, 0, 0
    while done < n:
        while k < len(ids) and (at[k] < done or sizes[k] == 0):
            k += 1
        if k < len(ids) and at[k] == done:
            alone = k
            k += 1
            while k < len(ids) and (at[k] == done or sizes[k] == 0):
                if sizes[k] != 0:
                    alone = -1
                k += 1
            if alone >= 0 and sizes[alone] > 0:
                out[count], starts[done] = ids[alone], True
                count += 1
                done += sizes[alone]
        until = min(at[k], n) if k < len(ids) else n
        while done < until:
            out[count], starts[done] = byte_ids[data[done]], True
            count += 1
            done += 1
    return out[:count].copy(), starts
