"""Patchers that break one rule of the contract each. The audit must catch every one, in the right words."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence

import numpy as np

from patchers import Patcher, Starts
from patchers.base import as_array
from patchers.registry import register


def _spaces(data: bytes) -> Starts:
    return as_array(data) == 0x20


@register("broken_reads_next")
class ReadsNext(Patcher):
    """Ends a patch before each vowel: the start flag tells the model what the byte is."""

    def segment(self, data: bytes) -> Starts:
        starts = np.isin(as_array(data), list(b"aeiou"))
        starts[:1] = True
        return starts


@register("broken_starts_at_space")
class StartsAtSpace(Patcher):
    """Words with their space in front. Passes segment(x[:t]) == segment(x)[:t], and leaks every space."""

    def segment(self, data: bytes) -> Starts:
        starts = _spaces(data)
        starts[:1] = True
        return starts


@register("broken_batch")
class BatchDependent(Patcher):
    """Cuts by the longest document of the batch."""

    def segment(self, data: bytes) -> Starts:
        return self.segment_many([data])[0]

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        stride = 3 + max(map(len, docs), default=0) % 5
        return [np.arange(len(doc)) % stride == 0 for doc in docs]


_calls = itertools.count()


@register("broken_nondeterministic")
class NonDeterministic(Patcher):
    """Cuts otherwise each time it is asked."""

    def segment(self, data: bytes) -> Starts:
        starts = np.random.default_rng(next(_calls)).random(len(data)) < 0.3
        starts[:1] = True
        return starts


@register("broken_length")
class WrongLength(Patcher):
    """One flag a patch in place of one a byte."""

    def segment(self, data: bytes) -> Starts:
        return np.ones(len(data.split(b" ")), dtype=bool)


@register("broken_mutates")
class Mutates(Patcher):
    """Lower-cases the caller's own bytes."""

    def segment(self, data: bytes) -> Starts:
        lowered = data.lower()
        if lowered != data:
            header = bytes.__basicsize__ - 1  # where CPython keeps the bytes of a bytes object
            ctypes.memmove(id(data) + header, lowered, len(data))
        starts = np.zeros(len(data), dtype=bool)
        starts[::4] = True
        return starts


CAUGHT = {
    "broken_reads_next": ("causality", "a later byte moves a start"),
    "broken_starts_at_space": ("causality", "a later byte moves a start"),
    "broken_batch": ("batch", "depends on the batch"),
    "broken_nondeterministic": ("determinism", "not deterministic"),
    "broken_length": ("shape", "one start a byte"),
    "broken_mutates": ("input", "changed its input"),
}
"""Which check catches each patcher, and the words it must say."""
