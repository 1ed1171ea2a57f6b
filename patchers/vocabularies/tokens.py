"""A token list as two arrays, and helpers that the patchers with a vocabulary share."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

# How cl100k_base cuts text into words before learning, without the possessive marks that only matter for
# speed.
WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+$|\s*[\r\n]|\s+(?!\S)|\s"
)


def pack(tokens: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """All tokens one after another, and the length of each."""
    return np.frombuffer(b"".join(tokens), dtype=np.uint8), np.array([len(t) for t in tokens], dtype=np.int32)


def unpack(flat: NDArray[np.uint8], lengths: NDArray[np.int32]) -> list[bytes]:
    data, ends = flat.tobytes(), np.cumsum(lengths).tolist()
    return [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def words_of_bytes() -> Any:
    """The pre-tokenizer of byte-level vocabularies: words as above, each byte written as one printable letter."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def readable(docs: Iterable[bytes]) -> Iterator[str]:
    """Text to learn from: what is no valid UTF-8 is left out."""
    return (doc.decode(errors="ignore") for doc in docs)


@functools.cache
def byte_letters() -> dict[str, int]:
    """The printable letter that stands for each byte in GPT-2's byte-level vocabularies, to that byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def spelled(letters: str) -> bytes:
    """The bytes that those letters stand for."""
    table = byte_letters()
    return bytes(table[letter] for letter in letters)
