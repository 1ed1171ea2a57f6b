"""Patchers that break one rule of the contract each. The audit must catch every one, in the right words."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
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


def _every(data: bytes, stride: int) -> Starts:
    return np.arange(len(data)) % stride == 0


@register("broken_crowd")
class Crowd(Patcher):
    """Cuts otherwise where it is given more than 60 documents at once."""

    def segment(self, data: bytes) -> Starts:
        return _every(data, 4)

    def segment_many(self, docs: Sequence[bytes]) -> list[Starts]:
        return [_every(doc, 4 if len(docs) <= 60 else 2) for doc in docs]


@register("broken_far")
class Far(Patcher):
    """Reads ahead after byte 2,100 of a document."""

    def segment(self, data: bytes) -> Starts:
        starts = _every(data, 4)
        ahead = np.isin(as_array(data), list(b"aeiou"))
        starts[2100:] = ahead[2100:]
        return starts


@register("broken_negative")
class Negative(Patcher):
    """Is paid for being used."""

    def segment(self, data: bytes) -> Starts:
        return _every(data, 4)

    def flops_per_byte(self) -> float:
        return -1e6


@register("broken_nan")
class NotANumber(Negative):
    """Costs no number."""

    def flops_per_byte(self) -> float:
        return float("nan")


@register("broken_modest")
class Modest(Negative):
    """Multiplies matrices with torch, and says that it costs next to nothing."""

    def segment(self, data: bytes) -> Starts:
        import torch

        rows = torch.ones(len(data), 16)
        rows @ torch.ones(16, 64)
        return _every(data, 4)

    def flops_per_byte(self) -> float:
        return 1.0


_seen = itertools.count()


@register("broken_tired")
class Tired(Patcher):
    """Changes after its 3,000th call."""

    def segment(self, data: bytes) -> Starts:
        return _every(data, 4 if next(_seen) < 3000 else 5)


@register("broken_long_alone")
class LongAlone(Patcher):
    """Cuts a document of more than a hundred kilobytes by its length."""

    def segment(self, data: bytes) -> Starts:
        return _every(data, 4 if len(data) <= 100_000 else 4 + len(data) % 3)


@register("broken_learns_by_itself")
class LearnsByItself(Patcher):
    """Keeps what it has seen in the process, where no file has it: another process cuts otherwise."""

    def segment(self, data: bytes) -> Starts:
        return _every(data, 4 if os.environ.get("BROKEN_PATCHERS_PARENT") == str(os.getpid()) else 5)


_buffer = np.zeros(2**21, bool)


@register("broken_buffer")
class OneBuffer(Patcher):
    """Gives the same memory each time: what it gave before is the cut of another document then."""

    def segment(self, data: bytes) -> Starts:
        starts = _buffer[: len(data)]
        starts[:] = False
        starts[1:] = _spaces(data)[:-1]
        starts[:1] = True
        return starts


@functools.cache
def _costly(data: bytes) -> None:
    import torch

    torch.ones(len(data), 16) @ torch.ones(16, 64)


@register("broken_remembers")
class Remembers(Negative):
    """Computes with torch once a document: whoever counts when it has been cut before counts nothing."""

    def segment(self, data: bytes) -> Starts:
        _costly(data)
        return _every(data, 4)

    def flops_per_byte(self) -> float:
        return 0.0


@register("broken_fickle_cost")
class FickleCost(Negative):
    """Costs something where it is asked first, and nothing later."""

    def flops_per_byte(self) -> float:
        return 0.0 if next(_asked) % 2 else 1e4


_asked = itertools.count()


@register("broken_training_cost")
class TrainingCost(Negative):
    """Gives FLOPs back when it is fitted."""

    def flops_per_byte(self) -> float:
        return 0.0

    def training_flops(self) -> float:
        return -1e15


_memory: dict[bytes, list[tuple[bytes, Starts]]] = {}


@register("broken_memory")
class Memory(Patcher):
    """Reads ahead from its 12th byte on, and gives what begins like a text that it has seen the cut that it gave then:
    whoever changes the future of a text in the same process finds that nothing moves."""

    def segment(self, data: bytes) -> Starts:
        starts = np.isin(as_array(data), list(b"aeiou"))
        starts[:12] = np.arange(len(data))[:12] % 4 == 0
        seen = _memory.setdefault(data[:12], [])
        shared = [_shared(data, text) for text, _ in seen]
        if shared:  # with the longest beginning, and of these one that went on
            best = int(np.argmax([2 * n + (len(text) > n) for n, (text, _) in zip(shared, seen, strict=True)]))
            known = seen[best][1][: shared[best] + 1][: len(data)]
            starts[: len(known)] = known
        if not shared or max(shared) < len(data):
            seen.append((data, starts.copy()))
        return starts


def _shared(one: bytes, two: bytes) -> int:
    """How many bytes two texts begin with alike."""
    size = min(len(one), len(two))
    apart = np.flatnonzero(as_array(one)[:size] != as_array(two)[:size])
    return int(apart[0]) if len(apart) else size


CAUGHT = {
    "broken_memory": ("fresh process", "a later byte moves a start, where the patcher has not seen both texts"),
    "broken_buffer": ("determinism", "an answer changed when other documents were cut"),
    "broken_remembers": ("costs", "cost not verified: it claims 0 FLOPs a byte and torch counted"),
    "broken_fickle_cost": ("costs", "FLOPs when it is asked again"),
    "broken_training_cost": ("costs", "says that fitting it has cost -1000000000000000.0 FLOPs"),
    "broken_crowd": ("large batches", "depends on the batch: among 70 documents"),
    "broken_far": ("long documents", "in a document of 10000 bytes a later byte moves a start"),
    "broken_negative": ("costs", "must give a finite number of at least 0"),
    "broken_nan": ("costs", "a byte costs nan FLOPs"),
    "broken_modest": ("costs", "cost not verified: it claims 1 FLOPs a byte and torch counted"),
    "broken_tired": ("many calls", "changes with the calls"),
    "broken_long_alone": ("long documents", "in a document of 1000000 bytes a later byte moves a start"),
    "broken_learns_by_itself": ("fresh process", "in a process of its own it cut"),
    "broken_reads_next": ("causality", "a later byte moves a start"),
    "broken_starts_at_space": ("causality", "a later byte moves a start"),
    "broken_batch": ("batch", "depends on the batch"),
    "broken_nondeterministic": ("determinism", "not deterministic"),
    "broken_length": ("shape", "one start a byte"),
    "broken_mutates": ("input", "changed its input"),
}
"""Which check catches each patcher, and the words it must say."""
