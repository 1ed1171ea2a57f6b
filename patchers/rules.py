"""Patchers without parameters to learn: none, bytes, stride, random, whitespace, words, codepoint (DESIGN 4)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Self, TypeVar

import numpy as np

from patchers.base import ClockStream, Patcher, RecentStream, Starts, Stream
from patchers.calibration import bisect, check_size, mean_size
from patchers.errors import BenchError
from patchers.hashing import BLOCK, position_hash
from patchers.registry import register

P = TypeVar("P", bound=Patcher)
_ALNUM = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _table(flags: list[int]) -> bytes:
    """A table for bytes.translate, by far the quickest map of 256 values in CPython."""
    return bytes(flags)


_SPACELIKE = _table([b not in _ALNUM and not 0x80 <= b < 0xC0 for b in range(256)])
_WHITE = _table([b in b" \t\n\v\f\r" for b in range(256)])
_CONTINUES = _table([0x80 <= b < 0xC0 for b in range(256)])
_FOLLOWERS = _table([(b >= 0xC0) + (b >= 0xE0) + (b >= 0xF0) if b < 0xF8 else 0 for b in range(256)])


@dataclasses.dataclass(frozen=True)
class ByPosition(Patcher):
    """A rule that reads the position of a byte and nothing of the text. A knob is the mean size itself."""

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        return self if self.knob is None else _turned(self, docs, bytes_per_patch)

    def stream(self) -> Stream:
        return ClockStream(self)


@register("none")
class NoPatches(ByPosition):
    """One patch a document: no latent step after the first. The control that says what patches are worth."""

    source: ClassVar[str] = "control; the harness without its latent model"

    def segment(self, data: bytes) -> Starts:
        starts = np.zeros(len(data), dtype=bool)
        starts[:1] = True
        return starts


@register("bytes")
class Bytes(ByPosition):
    """Every byte is a patch."""

    source: ClassVar[str] = "the byte-level baseline (ByT5, Xue et al. 2022)"

    def segment(self, data: bytes) -> Starts:
        return np.ones(len(data), dtype=bool)


@register("stride")
class Stride(ByPosition):
    """A start every `stride` bytes (MegaByte, Yu et al. 2023, section 2).

    A stride that is no whole number starts a patch wherever floor(t / stride) changes, reckoned in whole
    numbers from the decimals as written, so that no rounding ever moves a start.
    """

    knob: ClassVar[str | None] = "stride"
    source: ClassVar[str] = "MegaByte (Yu et al. 2023)"
    stride: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.stride < 2**31:
            raise BenchError(f"stride must be at least 1, got {self.stride}")

    @functools.cached_property
    def _ratio(self) -> Fraction:
        return Fraction(str(self.stride)).limit_denominator(1_000_000)

    def segment(self, data: bytes) -> Starts:
        starts = np.zeros(len(data), dtype=bool)
        ratio = self._ratio
        if ratio.denominator == 1:
            starts[:: ratio.numerator] = True
            return starts
        steps = np.arange(len(data) * ratio.denominator // ratio.numerator + 1, dtype=np.int64)
        places = -(-steps * ratio.numerator // ratio.denominator)  # the first t with t / stride >= step
        starts[places[: np.searchsorted(places, len(data))]] = True
        return starts


@register("random")
class Random(ByPosition):
    """A start with probability 1/size, from a hash of (seed, position): the control for every placement."""

    knob: ClassVar[str | None] = "size"
    source: ClassVar[str] = "control; SplitMix64 of (seed, position)"
    size: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.size >= 1:
            raise BenchError(f"size must be at least 1, got {self.size}")

    def segment(self, data: bytes) -> Starts:
        starts = np.empty(len(data), dtype=bool)
        highest = np.uint64(min(int(2**64 / self.size), 2**64 - 1))
        for begin in range(0, len(data), BLOCK):
            end = min(begin + BLOCK, len(data))
            np.less_equal(position_hash(begin, end, self.seed), highest, out=starts[begin:end])
        starts[:1] = True
        return starts


@register("whitespace")
class Whitespace(Patcher):
    """SpaceByte: a patch starts after the first of a run of space-like bytes.

    spacelike(b) = not [0-9A-Za-z] and not 0x80..0xBF, so that UTF-8 lead bytes count (Slagle 2024, section
    3).
    """

    source: ClassVar[str] = "SpaceByte (Slagle 2024)"

    def segment(self, data: bytes) -> Starts:
        return _after_first(data, _SPACELIKE)

    def stream(self) -> Stream:
        return RecentStream(self, reach=2)


@register("words")
class Words(Patcher):
    """A patch is a word and the first whitespace byte after it; `every: n` keeps each n-th start.

    AU-Net (Videau et al. 2025, section 2): its deeper stages pool every 2 or 4 words. Whitespace is ASCII's.
    """

    source: ClassVar[str] = "AU-Net (Videau et al. 2025)"
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BenchError(f"every must be at least 1, got {self.every}")

    def segment(self, data: bytes) -> Starts:
        starts = _after_first(data, _WHITE)
        if self.every > 1:
            places = np.flatnonzero(starts)
            starts[:] = False
            starts[places[:: self.every]] = True
        return starts

    def stream(self) -> Stream:
        return _EveryNth(RecentStream(dataclasses.replace(self, every=1), reach=2), self.every)


class _EveryNth(Stream):
    """Keeps each n-th start of another stream; start 0 is the one at byte 0."""

    def __init__(self, inner: Stream, every: int) -> None:
        self._inner, self._every, self._count = inner, every, 0

    def push(self, byte: int) -> bool:
        if not self._inner.push(byte):
            return False
        self._count += 1
        return self._count % self._every == 0

    def prime(self, data: bytes) -> Starts:
        starts = self._inner.prime(data)
        places = np.flatnonzero(starts)
        self._count = len(places) - 1
        starts[:] = False
        starts[places[:: self._every]] = True
        return starts


@register("space_words")
class SpaceWords(Patcher):
    """A patch is a word with the whitespace before it, as the pre-tokenizers of most BPE vocabularies cut.

    The start stands at the first whitespace byte of a run, so it is decided by the very byte that it begins with: the
    flag says that a space comes. The cut passes the plain prefix test and is not causal; boundaries are paid for.
    """

    causal: ClassVar[bool] = False
    source: ClassVar[str] = "GPT-2's pre-tokenizer (Radford et al. 2019), its rule for spaces"

    def segment(self, data: bytes) -> Starts:
        starts = np.zeros(len(data), bool)
        white = np.frombuffer(data.translate(_WHITE), bool)
        starts[1:] = white[1:] & ~white[:-1]
        starts[:1] = True
        return starts


@register("codepoint")
class Codepoint(Patcher):
    """A start wherever data[:t] ends on a complete UTF-8 sequence, decided from the lead byte seen.

    0xC0.., 0xE0.. and 0xF0..0xF7 announce one, two and three more bytes. In invalid UTF-8 a continuation byte
    that nothing announced, and 0xF8..0xFF, are complete by themselves; a sequence broken by another lead runs
    on into it.
    """

    source: ClassVar[str] = "UTF-8 (RFC 3629)"

    def segment(self, data: bytes) -> Starts:
        starts = np.ones(len(data), dtype=bool)
        if data.isascii():
            return starts
        follow = np.frombuffer(data.translate(_FOLLOWERS), dtype=np.uint8)
        inside = np.frombuffer(data.translate(_CONTINUES), dtype=bool)
        open_ = follow > 0
        open_[1:] |= inside[1:] & (follow[:-1] > 1)
        open_[2:] |= inside[2:] & inside[1:-1] & (follow[:-2] > 2)
        np.logical_not(open_[:-1], out=starts[1:])
        return starts

    def stream(self) -> Stream:
        return RecentStream(self, reach=3)


def _after_first(data: bytes, table: bytes) -> Starts:
    """A start at t where table holds for data[t-1] and not for data[t-2]; it does not before byte 0."""
    starts = np.empty(len(data), dtype=bool)
    starts[:1] = True
    if len(data) > 1:
        holds = np.frombuffer(data.translate(table), dtype=bool)
        starts[1] = holds[0]
        np.greater(holds[1:-1], holds[:-2], out=starts[2:])
    return starts


def _turned(patcher: P, docs: Sequence[bytes], wanted: float) -> P:
    """The patcher with its knob at the wanted size; beyond it where short documents cut last patches short.

    A size that comes out within 1 % of what was asked is left as asked, so that "stride 4" stays 4.
    """
    check_size(wanted)

    def at(thousandths: int) -> P:
        return dataclasses.replace(patcher, **{str(patcher.knob): thousandths / 1000})

    plain = at(round(1000 * wanted))
    if abs(mean_size(plain, docs) / wanted - 1) < 0.01:
        return plain
    top = 4000 * max(map(len, docs)) + 2000
    return at(bisect(lambda number: mean_size(at(number), docs), 1000, top, wanted, f"'{patcher.name}'"))
