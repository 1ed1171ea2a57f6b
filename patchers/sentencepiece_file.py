"""A SentencePiece model, from its .model file."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import sentencepiece

from patchers.registry import register
from patchers.vocabularies.alignment import Ints, Library, Places, Spelling
from patchers.vocabularies.from_file import LibraryPatcher

SPACE = "▁"


@register("sentencepiece")
class SentencePieceFile(LibraryPatcher):
    """A start where a piece of a SentencePiece model begins (Kudo and Richardson 2018), unigram or BPE.

    White space that the model takes out of a text belongs to the patch before it. See `patchers.vocabularies.alignment`
    for bytes that are not UTF-8, and for what a token_lm gets from a model that loses something.
    """

    source: ClassVar[str] = "SentencePiece, a model of yours (Kudo and Richardson 2018)"
    wanted: ClassVar[str] = "a .model file of SentencePiece"
    file: str = ""

    def _library(self) -> Library:
        return SentencePiece(self.content)


class SentencePiece(Library):
    """A .model file."""

    def __init__(self, content: bytes) -> None:
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(content)

    def spelling(self) -> Spelling:
        tokens: list[bytes | None] = []
        spaced, single = [], {}
        for i in range(self._processor.get_piece_size()):
            piece = self._processor.id_to_piece(i)
            spaced.append(piece.startswith(SPACE))
            if self._processor.is_byte(i):
                byte = int(piece[3:-1], 16)  # written <0xE2>
                tokens.append(bytes([byte]))
                single[byte] = i
            elif self._processor.is_unknown(i) or self._processor.is_control(i):
                tokens.append(None)
            else:
                tokens.append(piece.replace(SPACE, " ").encode())
        return Spelling(tokens, spaced, single)

    def ids(self, texts: list[str]) -> list[Ints]:
        return self._processor.encode(texts, return_type="numpy")

    def spans(self, texts: list[str]) -> list[tuple[Ints, Places, Places]]:
        out = []
        for one in self._processor.encode([text.encode() for text in texts], return_type="offset_mapping"):
            begins, ends = np.array(one["offsets"], np.int64).reshape(-1, 2).T.copy()
            # Of pieces that stand for one character the last alone has its end.
            _, place = np.unique(begins, return_inverse=True)
            last = np.zeros(len(begins), np.int64)
            np.maximum.at(last, place, ends)
            out.append((np.array(one["ids"], np.int32), begins, last[place]))
        return out
