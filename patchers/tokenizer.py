"""Any tokenizer of Hugging Face's `tokenizers`, from its tokenizer.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from patchers.errors import BenchError
from patchers.registry import register
from patchers.vocabularies.alignment import Ints, Library, Places, Spelling
from patchers.vocabularies.from_file import LibraryPatcher
from patchers.vocabularies.tokens import byte_letters, spelled

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@register("tokenizer")
class HuggingFaceTokenizer(LibraryPatcher):
    """A start where a token of a tokenizer.json begins (BPE, Unigram, WordPiece or WordLevel, with all that is in it).

    Texts are encoded as the library does, added and special tokens in the text included; what its post-processor would
    put around a text (`[CLS]`), padding, truncation and dropout are left out. Bytes that no token covers belong to the
    patch before them. See `patchers.vocabularies.alignment` for bytes that are not UTF-8, and for what a token_lm gets
    from a tokenizer that loses something.
    """

    source: ClassVar[str] = "tokenizers, a tokenizer.json of yours"
    wanted: ClassVar[str] = "a tokenizer.json of Hugging Face tokenizers"
    file: str = ""

    def _library(self) -> Library:
        return HuggingFace(self.content.decode())


class HuggingFace(Library):
    """A tokenizer.json."""

    def __init__(self, text: str) -> None:
        self._tokenizer = Tokenizer.from_str(text)
        self._tokenizer.post_processor = None  # it may trim offsets, and puts special tokens around a text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if getattr(self._tokenizer.model, "dropout", None):
            self._tokenizer.model.dropout = None
        self._content: dict[str, Any] = json.loads(text)

    def spelling(self) -> Spelling:
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        size = 1 + max(pieces.values(), default=-1)
        tokens: list[bytes | None] = [None] * size
        spaced, single = [False] * size, {}
        added = {token["id"]: token["content"] for token in self._content.get("added_tokens") or ()}
        spell = self._spell()
        for piece, i in pieces.items():
            if i in added:
                tokens[i] = added[i].encode()
                continue
            tokens[i], spaced[i], is_byte = spell(piece)
            if is_byte:
                single[tokens[i][0]] = i  # type: ignore[index]
        unknown = self._unknown(pieces)
        if unknown is not None:
            tokens[unknown] = None
        return Spelling([token or None for token in tokens], spaced, single)

    def _spell(self) -> Callable[[str], tuple[bytes, bool, bool]]:
        """A function from a piece of the vocabulary to its bytes, whether it begins with a space's mark, and whether it
        is a byte of an alphabet of bytes."""
        model, kinds = self._content["model"], set(_kinds(self._content))
        letters = byte_letters()
        prefix = model.get("continuing_subword_prefix") or ""
        suffix = model.get("end_of_word_suffix") or ""
        marked = SPACE in json.dumps(
            [self._content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False
        )

        def of_letters(piece: str) -> tuple[bytes, bool, bool]:
            if not all(letter in letters for letter in piece):
                return piece.encode(), False, False
            data = spelled(piece)
            return data, data[:1] == b" ", len(data) == 1

        def of_text(piece: str) -> tuple[bytes, bool, bool]:
            byte = _BYTE.fullmatch(piece) if model.get("byte_fallback") else None
            if byte:
                return bytes([int(byte[1], 16)]), False, True
            text = piece.removesuffix(suffix)
            text = text.removeprefix(prefix) if prefix and text != prefix else text
            return (text.replace(SPACE, " ") if marked else text).encode(), marked and text[:1] == SPACE, False

        return of_letters if "ByteLevel" in kinds else of_text

    def _unknown(self, pieces: dict[str, int]) -> int | None:
        model = self._content["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        return pieces.get(model.get("unk_token"))

    def ids(self, texts: list[str]) -> list[Ints]:
        found = self._encoded(self._tokenizer.encode_batch_fast, texts)
        return [np.array(one.ids, np.int32) for one in found]

    def spans(self, texts: list[str]) -> list[tuple[Ints, Places, Places]]:
        out = []
        for text, one in zip(texts, self._encoded(self._tokenizer.encode_batch, texts), strict=True):
            in_bytes = _bytes_before(text)[np.array(one.offsets, np.int64).reshape(-1, 2)]
            out.append((np.array(one.ids, np.int32), in_bytes[:, 0], in_bytes[:, 1]))
        return out

    def _encoded(self, encode: Callable[..., list[Any]], texts: list[str]) -> list[Any]:
        try:
            return encode(texts, add_special_tokens=False)
        except Exception as error:
            raise BenchError(
                f"the tokenizer cannot encode every text: {error}; give one that can, say with an unknown token"
            ) from error


def _kinds(content: dict[str, Any]) -> Iterator[str]:
    """The types of all parts of normalizer, pre-tokenizer and decoder."""
    waiting: list[Any] = [content.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                yield node["type"]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _bytes_before(text: str) -> NDArray[np.int64]:
    """How many bytes stand before each character, and before the end: (characters + 1,)."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.concatenate((np.zeros(1, np.int64), sizes.cumsum()))
