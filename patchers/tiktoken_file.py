"""A vocabulary in tiktoken's format: a file of ranks, and the pattern that cuts text into words."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import ClassVar

import tiktoken

from patchers.base import Starts
from patchers.errors import BenchError
from patchers.registry import register
from patchers.vocabularies.alignment import Ints
from patchers.vocabularies.encodings import CL100K_PATTERN, GPT2_PATTERN, O200K_PATTERN, Encoder
from patchers.vocabularies.from_file import FilePatcher

HIGHEST_RANK = 2**24
"""Far above any vocabulary; ids are places in a list."""
PROBE = b"A word, l\xc3\xa9tters 12 3.\t \r\n\n  \0 \xe6\x9d\xb1_\xf0\x9f\x99\x82"
"""Letters, digits, signs and white space, so that a pattern that leaves some of them out is found at once."""

PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k_base": CL100K_PATTERN, "o200k_base": O200K_PATTERN}


@register("tiktoken")
class TiktokenFile(FilePatcher):
    """A start at each token of byte-level BPE with the ranks of a .tiktoken file (a line a token: base64, rank).

    Such a file does not say how text is cut into words before any merge: `pattern` does, one of gpt2, cl100k_base and
    o200k_base, or a regular expression. Special tokens in a text are read as text. It gives back every byte.
    """

    source: ClassVar[str] = "tiktoken, ranks of yours"
    file_option: ClassVar[str | None] = "ranks"
    wanted: ClassVar[str] = "a file of tiktoken's ranks"
    ranks: str = ""
    pattern: str = "cl100k_base"

    def _open(self) -> Encoder:
        return self._encoder

    @functools.cached_property
    def _encoder(self) -> Encoder:
        try:
            lines = [line.split() for line in self.content.splitlines() if line.strip()]
            ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
        except ValueError as error:
            raise self._unusable(f"a line is not a token in base64 and its rank ({error})") from error
        missing = [b for b in range(256) if bytes([b]) not in ranks]
        if missing:
            raise self._unusable(f"{len(missing)} of the 256 single bytes have no rank, the first is {missing[0]:#04x}")
        if min(ranks.values()) < 0 or len(set(ranks.values())) < len(ranks):
            raise self._unusable("a rank is below 0 or there twice")
        if max(ranks.values()) >= HIGHEST_RANK:
            raise self._unusable(f"a rank is {max(ranks.values())}, and ranks are below {HIGHEST_RANK}")
        try:
            pattern = PATTERNS.get(self.pattern, self.pattern)
            encoding = tiktoken.Encoding("yours", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError as error:
            raise BenchError(
                f"pattern {self.pattern!r} is neither of {', '.join(PATTERNS)} nor a regular expression: {error}"
            ) from error
        encoder = Encoder(encoding, ranks)
        try:
            encoder.encode(PROBE)
        except BenchError as error:
            raise BenchError(f"pattern {self.pattern!r} is of no use: {error}") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of tiktoken's Rust, which no module exports
                raise
            raise BenchError(
                f"pattern {self.pattern!r} matches where there is nothing, which tiktoken cannot take: let every "
                "alternative match a character at least"
            ) from error
        return encoder

    def segment(self, data: bytes) -> Starts:
        return self.encode(data)[1]

    def encode(self, data: bytes) -> tuple[Ints, Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),): one start a token."""
        return self._encoder.encode(data)

    @property
    def vocab_size(self) -> int:
        """One more than the highest rank."""
        return self._encoder.vocab_size

    def tokens(self) -> Sequence[bytes]:
        """The bytes of each rank; b"" for one that is no token."""
        return self._encoder.tokens
