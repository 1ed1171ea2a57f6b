"""Documents as the units of a pretrained model: which bytes each covers, and what is paid for bytes that a tokenizer
loses.

A sum of nats is a claim about raw bytes where these can be read back from the units. So each token is held against the
bytes that it covers. Where it says something else (a tokenizer that lower-cases, normalises, or has unknown tokens),
its bytes are paid for by themselves, in a code that adds up to one with the tokens' probabilities:

- A document whose tokens all say their bytes pays nothing, for a tokenizer that loses nothing in CORNERS either, else
  -ln(1 - 1 / ESCAPE): the other 1 / ESCAPE of the probability is for documents of which something is lost.
- In these each token has a flag, whether it says its bytes, with the probability (1 + flags like it so far) /
  (2 + flags so far) (Laplace's rule of succession), and the bytes of a token that does not are spelled after it in an
  alphabet of 256 bytes and an end, all as probable.
- A document without any token is spelled as it is.

Legend: N bytes of a document, U units (tokens, or bytes).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, Protocol

import numpy as np

from patchers import Starts
from patchers.vocabularies.tokens import byte_letters, spelled

ESCAPE = 1024
"""One document in so many may be of those that lose something, says the code above."""

CORNERS: tuple[str, ...] = (
    *("plain text, with a full stop.", "Upper And LOWER", "  two  spaces ", "tab\tand\r\nlines\n\n\n", "\0\x01\x7f"),
    *("naïve", "nai\u0308ve", "ﬁne ½ ² Å", "ＡＢＣ", "\u200b\ufeff\u00a0\u3000", "▁ \u2581low", "\ufffd"),
    *("👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽", "東京 한국어 日本語", "привет שלום مرحبا हिन्दी ไทย", "ᚠᛇᚻ 𐎀𐎁 𓀀 𝔘𝔫𝔦", "\ue000\U000f0000"),
    *("<|endoftext|> <s></s> [UNK] [CLS] <unk> <pad>", "## a ##b", "1234567890 3.14 1,000", "ĠĊ Â"),
)
"""Texts that tokenizers are known to change."""

_INVALID = re.compile("([\udc80-\udcff]+)")
LN_BYTE, LN_SPELLED = math.log(256), math.log(257)


@dataclass(frozen=True)
class Units:
    """A document as a model reads it."""

    ids: np.ndarray
    """(U,) int64."""

    starts: np.ndarray
    """(U,) int64, none smaller than the one before it: the first byte that each covers, or would, if it covers none."""

    paid: np.ndarray
    """(N,) float64: nats that are paid beside those of the model."""

    lossy: int = 0
    """Units that do not say their bytes."""

    invalid: int = 0
    """Bytes that are no part of valid UTF-8."""


class Vocabulary(Protocol):
    """How a model reads bytes."""

    @property
    def kind(self) -> Literal["bytes", "tokens"]: ...

    @property
    def outputs(self) -> np.ndarray | None:
        """The ids among which the model's probability is shared; None: all that it has an output for."""
        ...

    @property
    def bos(self) -> int | None:
        """What stands before each window."""
        ...

    @property
    def largest(self) -> int:
        """The largest id that may come."""
        ...

    def encode(self, docs: Sequence[bytes]) -> list[Units]: ...

    def describe(self) -> dict[str, Any]:
        """What a record says of it."""
        ...


@dataclass(frozen=True)
class ByteVocabulary:
    """Every byte has an id. All other ids are ruled out, so that the probabilities of the 256 bytes add up to one: a
    document is bytes, and no more is said of its end here than of trained rows."""

    ids: np.ndarray
    """(256,) int64."""

    bos: int | None
    kind: Literal["bytes"] = "bytes"

    @property
    def outputs(self) -> np.ndarray:
        return self.ids

    @property
    def largest(self) -> int:
        return int(max(self.ids.max(), self.bos or 0))

    def encode(self, docs: Sequence[bytes]) -> list[Units]:
        return [Units(self.ids[np.frombuffer(d, np.uint8)], np.arange(len(d)), np.zeros(len(d))) for d in docs]

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "outputs": 256, "bos": self.bos, "lossless": True, "lost": []}


@dataclass(frozen=True)
class TokenVocabulary:
    """A tokenizer of the library `tokenizers`. The model's probability is shared among all of its outputs.

    A document is encoded whole, without special tokens; what looks like one in the text is text. A byte that is no part
    of valid UTF-8 is a token of its own where the vocabulary has all of them, else it is lost.
    """

    backend: Any
    """`tokenizers.Tokenizer`, with neither truncation nor padding."""

    says: Sequence[bytes]
    """The bytes that each id stands for."""

    bos: int | None
    largest: int
    """Of the ids that text may have, and of `bos`."""

    kind: Literal["tokens"] = "tokens"
    outputs: None = None
    spaced: bool = field(init=False)
    """Whether the tokenizer puts a space before a text."""

    def __post_init__(self) -> None:
        encoding = self.backend.encode("a b", add_special_tokens=False)
        object.__setattr__(self, "spaced", b"".join(self.says[i] for i in encoding.ids) == b" a b")

    @cached_property
    def singles(self) -> np.ndarray | None:
        """(256,): the ids of single bytes from 0x80 on, which are no text by themselves; None where one is missing."""
        found = {text[0]: i for i, text in reversed(list(enumerate(self.says))) if len(text) == 1 and text[0] >= 0x80}
        return np.array([found.get(b, 0) for b in range(256)]) if len(found) == 128 else None

    @cached_property
    def lost(self) -> list[str]:
        """Of CORNERS, the texts that cannot be read back."""
        found = self._read([text.encode() for text in CORNERS])
        return [text for text, read in zip(CORNERS, found, strict=True) if not read.says.all()]

    def encode(self, docs: Sequence[bytes]) -> list[Units]:
        return [self._units(doc, read) for doc, read in zip(docs, self._read(docs), strict=True)]

    def describe(self) -> dict[str, Any]:
        whole = not self.lost and self.singles is not None
        return {"kind": self.kind, "bos": self.bos, "lossless": whole, "lost": self.lost[:3]}

    def _read(self, docs: Sequence[bytes]) -> list[_Read]:
        parts = [list(self._parts(doc)) for doc in docs]
        texts = [part.readable for of_doc in parts for part in of_doc if part.readable is not None]
        encoded = iter(self.backend.encode_batch(texts, add_special_tokens=False))
        out = []
        for doc, of_doc in zip(docs, parts, strict=True):
            found, at = [], 0
            for part in of_doc:
                raw = part.text.encode("utf-8", "surrogateescape")
                whole = part.readable is None
                found.append(self._of_bytes(raw, at) if whole else self._of_text(part, raw, next(encoded), at))
                at += len(raw)
            assert at == len(doc), "the parts of a document are all of it"
            out.append(_Read.joined(found))
        return out

    def _parts(self, doc: bytes) -> Iterator[_Part]:
        """Runs of text, and of bytes that are none; one run of both where such bytes have no tokens."""
        text = doc.decode("utf-8", "surrogateescape")
        if self.singles is None:
            if text:
                yield _Part(text, _INVALID.sub(lambda found: "\ufffd" * len(found[0]), text))
            return
        for number, run in enumerate(_INVALID.split(text)):
            if run:
                yield _Part(run, None if number % 2 else run)

    def _of_text(self, part: _Part, raw: bytes, encoding: Any, at: int) -> _Read:
        ids = np.array(encoding.ids, dtype=np.int64)
        said = [self.says[i] for i in encoding.ids]
        if at == 0 and said and self.spaced and said[0][:1] == b" ":
            said[0] = said[0][1:]
        if b"".join(said) == raw:
            ends = np.cumsum([len(text) for text in said], dtype=np.int64)
            return _Read(ids, np.append(0, ends)[: len(ids)] + at, np.ones(len(ids), bool), len(raw), 0)
        # The library tells from which characters a token came; what lies between two tokens goes to the second.
        sizes = [1 if _INVALID.match(c) else len(c.encode()) for c in part.text]
        ends_of = [0, *accumulate(sizes)]
        ends = np.array([ends_of[end] for _, end in encoding.offsets], dtype=np.int64)
        starts = np.maximum.accumulate(np.append(0, ends))[: len(ids)]
        spans = zip(starts.tolist(), [*starts[1:].tolist(), len(raw)], strict=True) if len(ids) else []
        says = [raw[a:b] == text for (a, b), text in zip(spans, said, strict=True)]
        invalid = sum(len(run) for run in _INVALID.findall(part.text))
        return _Read(ids, starts + at, np.array(says, dtype=bool), len(raw), invalid)

    def _of_bytes(self, raw: bytes, at: int) -> _Read:
        assert self.singles is not None
        ids = self.singles[np.frombuffer(raw, np.uint8)]
        return _Read(ids, np.arange(len(raw)) + at, np.ones(len(raw), bool), len(raw), len(raw))

    def _units(self, doc: bytes, read: _Read) -> Units:
        paid = np.zeros(len(doc))
        if read.covered != len(doc) or not read.says.all():
            _pay_for_lost(paid, read)
        elif self.lost or self.singles is None:
            paid[:1] = -math.log1p(-1 / ESCAPE)
        starts = np.minimum(read.starts, max(0, len(doc) - 1))
        return Units(read.ids, starts, paid, int((~read.says).sum()), read.invalid)


@dataclass(frozen=True)
class _Part:
    """A run of a document."""

    text: str
    """With half of a surrogate pair for each byte that is no part of valid UTF-8."""

    readable: str | None
    """What a tokenizer gets, as many characters; None where each byte is a token."""


@dataclass(frozen=True)
class _Read:
    """The tokens of a document."""

    ids: np.ndarray
    starts: np.ndarray
    says: np.ndarray
    """(U,) bool: whether a token says the bytes that it covers."""

    covered: int
    """Bytes that some token covers; none where there is no token."""

    invalid: int

    @staticmethod
    def joined(parts: Sequence[_Read]) -> _Read:
        """Of the parts of one document; those without a token go to the last token before them, or the first after."""
        some = [part for part in parts if len(part.ids)]
        invalid = sum(part.invalid for part in parts)
        if not some:
            nothing = np.zeros(0, np.int64)
            return _Read(nothing, nothing, np.zeros(0, bool), 0, invalid)
        says = np.concatenate([part.says for part in some])
        starts = np.concatenate([part.starts for part in some])
        ends = np.cumsum([len(part.ids) for part in some]) - 1
        begins_late = len(parts[0].ids) == 0
        if begins_late:
            says[0], starts[0] = False, 0
        at = -1
        for part in parts:
            if len(part.ids):
                at += 1
            elif at >= 0:
                says[ends[at]] = False
        ids = np.concatenate([part.ids for part in some])
        return _Read(ids, starts, says, sum(part.covered for part in parts), invalid)


def _pay_for_lost(paid: np.ndarray, read: _Read) -> None:
    """Add to `paid` (N,) what the bytes cost that the tokens of a document do not say."""
    paid[0] += math.log(2 * ESCAPE)
    if not len(read.ids):
        paid += LN_BYTE
        return
    at = np.minimum(read.starts, len(paid) - 1)
    lost = ~read.says
    so_far = np.arange(len(lost))
    lost_before = np.cumsum(lost) - lost
    alike = np.where(lost, lost_before, so_far - lost_before)
    np.add.at(paid, at, np.log(2 + so_far) - np.log(1 + alike))
    sizes = np.diff(read.starts, append=len(paid))
    np.add.at(paid, at[lost], (sizes[lost] + 1) * LN_SPELLED)


# --- from what transformers loads


def starts_of(units: Units, size: int) -> Starts:
    """Where a document of so many bytes is cut; units that cover no byte are not seen."""
    starts = np.zeros(size, bool)
    starts[units.starts] = True
    starts[:1] = True
    return starts


def says_of(backend: Any) -> list[bytes]:
    """The bytes that each id stands for, as the tokenizer's decoder has it."""
    tree = json.loads(backend.to_str())
    decoder = json.dumps(tree["decoder"], ensure_ascii=False)
    kinds = set(re.findall(r'"type": "(\w+)"', decoder))
    added = {token["id"]: token["content"] for token in tree["added_tokens"]}
    underscore = "▁" in decoder
    vocab = backend.get_vocab(with_added_tokens=True)
    out = [b""] * (1 + max(vocab.values()))
    for text, i in vocab.items():
        if "ByteFallback" in kinds and re.fullmatch("<0x[0-9A-F]{2}>", text):
            out[i] = bytes([int(text[3:5], 16)])
        elif i in added:
            out[i] = added[i].encode()
        elif "ByteLevel" in kinds and all(letter in byte_letters() for letter in text):
            out[i] = spelled(text)
        elif "WordPiece" in kinds:
            out[i] = text.removeprefix("##").encode() if text.startswith("##") else b" " + text.encode()
        else:
            out[i] = (text.replace("▁", " ") if underscore else text).encode("utf-8", "surrogatepass")
    return out


def byte_ids(says: Sequence[bytes], special: set[int]) -> np.ndarray | None:
    """(256,): the ids of the bytes, where a vocabulary is these and special tokens; else None."""
    found = {text: i for i, text in enumerate(says) if text and i not in special}
    alone = len(found) == 256 and all(len(text) == 1 for text in found)
    return np.array([found[bytes([b])] for b in range(256)]) if alone else None
