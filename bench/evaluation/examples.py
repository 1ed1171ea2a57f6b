"""Keeps a few short texts in each record: their cuts and the cost of every byte.

They are what the report's viewer shows, so that one can look at a model without having it. All runs on the same data
have the same texts: the beginnings of the first test documents, and one text for everybody.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data.config import Data, Document
from bench.evaluation.byte_model import ByteModel
from patchers import Starts

SIZE = 180
"""Bytes of an example, at most; with three of them a record grows by about 3 KB."""

SHOWN = 2
"""Test documents."""

EVERYBODY = (
    "common",
    'In 2026, Zoë wrote naïve_sum(x) -> 3.14159 + x; "東京, привет?" she asked, misspeling it twice.'.encode(),
)
"""A text that is in no corpus, with something of everything: a name, an identifier, digits, other scripts, a slip."""


@dataclass(frozen=True)
class Example:
    """One text as one model sees it."""

    document: str
    """The id of the test document that it is the beginning of, or `common`."""

    text: bytes
    starts: Starts | None
    """(T,), None where the model has no patches."""

    bits: np.ndarray
    """(T,) float64: what each byte cost, boundaries included."""

    flag_bits: np.ndarray | None = None
    """(T,) float64: the part of `bits` that was paid for boundaries, where they are priced."""

    def as_json(self) -> dict[str, Any]:
        """Costs as whole hundredths of a bit, starts as places; a text that is not UTF-8 as base64."""
        try:
            text = {"text": self.text.decode()}
        except UnicodeDecodeError:
            text = {"base64": base64.b64encode(self.text).decode()}
        return {
            "document": self.document,
            **text,
            "starts": None if self.starts is None else np.flatnonzero(self.starts).tolist(),
            "centibits": _hundredths(self.bits),
            **({} if self.flag_bits is None else {"flag_centibits": _hundredths(self.flag_bits)}),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Example:
        text = base64.b64decode(entry["base64"]) if "base64" in entry else entry["text"].encode()
        starts = None
        if entry["starts"] is not None:
            starts = np.zeros(len(text), np.bool_)
            starts[entry["starts"]] = True
        flags = entry.get("flag_centibits")
        return cls(
            entry["document"],
            text,
            starts,
            np.array(entry["centibits"], np.float64) / 100,
            None if flags is None else np.array(flags, np.float64) / 100,
        )


def examples(model: ByteModel, data: Data) -> list[dict[str, Any]]:
    """What a run's record keeps under `examples`."""
    chosen = chosen_texts(data.test.documents)
    texts = [text for _, text in chosen]
    scores = model.score(texts)
    starts: Sequence[Starts | None] = model.cuts(texts) or [None] * len(texts)
    flags = [None] * len(texts) if scores.flag_nats is None else [f / math.log(2) for f in scores.flag_nats]
    return [
        Example(document, text, cut, nats / math.log(2), flag).as_json()
        for (document, text), cut, nats, flag in zip(chosen, starts, scores.nats, flags, strict=True)
    ]


def chosen_texts(documents: Sequence[Document]) -> list[tuple[str, bytes]]:
    """The beginnings of the first documents that are long enough (of the first, where none is), and the common text."""
    long = [d for d in documents if len(d.data) >= SIZE] or list(documents)
    return [*((d.id, beginning(d.data)) for d in long[:SHOWN]), EVERYBODY]


def beginning(text: bytes, size: int = SIZE) -> bytes:
    """At most so many bytes: up to a space in their second half, else whole characters."""
    if len(text) <= size:
        return text
    space = text.rfind(b" ", size // 2, size + 1)
    if space > 0:
        return text[:space]
    end = size
    while end > size - 4 and 0x80 <= text[end] < 0xC0:
        end -= 1
    return text[:end]


def _hundredths(bits: np.ndarray) -> list[int]:
    return [round(100 * float(b)) for b in bits]
