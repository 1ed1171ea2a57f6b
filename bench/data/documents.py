"""Sequences of documents stored end to end, in memory or in mapped files.

Legend: N bytes of all documents, D documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np

from bench.system.files import MappedFile

RUN = 2**24
"""Bytes that are looked at together where a corpus is gone through."""


class Flat(Protocol):
    """What a numpy vector and a file on disk have in common: a length, and runs of values."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class Part:
    """A run of a mapped file, from its own 0 on."""

    file: MappedFile
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, index: slice) -> np.ndarray:
        begin, end, _ = index.indices(len(self))
        found: np.ndarray = self.file[self.begin + begin : self.begin + max(begin, end)]
        return found


@dataclass(frozen=True)
class Integers:
    """A mapped file of int32."""

    file: MappedFile

    def __len__(self) -> int:
        return len(self.file) // 4

    def __getitem__(self, index: slice) -> np.ndarray:
        begin, end, _ = index.indices(len(self))
        found: np.ndarray = self.file[4 * begin : 4 * max(begin, end)].view("<i4")
        return found


@dataclass(frozen=True)
class FlatTexts(Sequence[bytes]):
    """Documents as one vector: the i-th is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Flat
    """(N,) uint8."""

    offsets: np.ndarray
    """(D + 1,) int64, from 0 to N."""

    @staticmethod
    def of(docs: Sequence[bytes]) -> FlatTexts:
        """Documents that are in memory, joined; those that are flat stay where they are."""
        if isinstance(docs, FlatTexts):
            return docs
        sizes = np.fromiter((len(doc) for doc in docs), np.int64, len(docs))
        return FlatTexts(np.frombuffer(b"".join(docs), np.uint8), np.concatenate(([0], sizes.cumsum())))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self.flat[int(self.offsets[number]) : int(self.offsets[number + 1])].tobytes()

    def runs(self, size: int = RUN) -> Iterator[tuple[int, int]]:
        """All documents in runs first..last - 1 of about `size` bytes; a longer document goes alone."""
        first = 0
        while first < len(self):
            reach = int(np.searchsorted(self.offsets, self.offsets[first] + size, side="right")) - 1
            last = min(max(reach, first + 1), len(self))
            yield first, last
            first = last

    def run(self, first: int, last: int) -> list[bytes]:
        """Documents first..last - 1, read at one go."""
        begin = int(self.offsets[first])
        whole = self.flat[begin : int(self.offsets[last])].tobytes()
        places = (self.offsets[first : last + 1] - begin).tolist()
        return [whole[a:b] for a, b in itertools.pairwise(places)]

    def __iter__(self) -> Iterator[bytes]:
        for first, last in self.runs():
            yield from self.run(first, last)
