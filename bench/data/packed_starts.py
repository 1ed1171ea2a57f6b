"""Starts of a corpus, packed to one bit per byte on disk or computed by a rule.

Legend: N bytes of all documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.data.documents import RUN, Flat

STRIDE = 2**16
"""Bytes between two places where the number of starts so far is known."""


Flags = Flat
"""(N,) bool, in memory or not: `flags[a:b]` is an array."""


@dataclass(frozen=True)
class Bits:
    """Flags at one bit each, as `np.packbits` has them."""

    packed: Flat
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: slice) -> np.ndarray:
        begin, end, _ = index.indices(self.count)
        first = begin // 8
        bits = np.unpackbits(self.packed[first : -(-max(begin, end) // 8)])
        return bits[begin - 8 * first : max(begin, end) - 8 * first].view(bool)


@dataclass(frozen=True)
class EvenStarts:
    """A start at the beginning of every document and, with a size, as often as such patches have them."""

    offsets: np.ndarray
    size: float | None = None

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getitem__(self, index: slice) -> np.ndarray:
        begin, end, _ = index.indices(len(self))
        starts = np.zeros(max(0, end - begin), bool)
        first, last = np.searchsorted(self.offsets, (begin, end))
        starts[self.offsets[first:last] - begin] = True
        return starts if self.size is None else starts | (np.arange(begin, end) % self.size < 1)


def runs(flags: Flags, size: int = RUN) -> Iterator[np.ndarray]:
    """All flags, some at a time."""
    for begin in range(0, len(flags), size):
        yield flags[begin : begin + size]


def count(flags: Flags) -> int:
    return sum(int(np.count_nonzero(run)) for run in runs(flags))


def count_in(flags: Flags, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For spans (W, 2) that are not empty and follow one another: how many flags each has, and whether its first is
    one."""
    counts, begun = np.zeros(len(spans), np.int64), np.zeros(len(spans), bool)
    first = 0
    while first < len(spans):
        begin = int(spans[first, 0])
        last = max(first + 1, int(np.searchsorted(spans[:, 1], begin + RUN, side="right")))
        here = flags[begin : int(spans[last - 1, 1])]
        places = spans[first:last, 0] - begin
        counts[first:last] = np.add.reduceat(here, places, dtype=np.int64)
        begun[first:last] = here[places]
        first = last
    return counts, begun


@dataclass(frozen=True)
class Ranks:
    """How many flags come before a place."""

    flags: Flags

    @cached_property
    def known(self) -> np.ndarray:
        """At every STRIDE-th place."""
        counts = [int(np.count_nonzero(run)) for run in runs(self.flags, STRIDE)]
        return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))

    def before(self, place: int) -> int:
        at = place // STRIDE
        return int(self.known[at]) + int(np.count_nonzero(self.flags[at * STRIDE : place]))
