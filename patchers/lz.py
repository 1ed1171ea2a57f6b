"""LZ78 phrases of the document so far as patches."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from patchers.base import Patcher, Starts, Stream, as_array
from patchers.registry import register


@register("lz")
class LZ(Patcher):
    """A patch is an LZ78 phrase of the document so far (Ziv and Lempel 1978).

    The dictionary is a tree that begins empty with each document. A phrase walks down the tree; the byte that
    leads out of it ends the phrase and becomes a new leaf. So `starts[t]` is known once byte t-1 is read.
    """

    source: ClassVar[str] = "LZ78 (Ziv and Lempel 1978)"

    def segment(self, data: bytes) -> Starts:
        return _LZStream().prime(data)[: len(data)]

    def stream(self) -> Stream:
        return _LZStream()


class _LZStream(Stream):
    """The tree is a hash table from (node, byte) to child that doubles when it is half full."""

    def __init__(self) -> None:
        self._keys, self._children = np.zeros(512, dtype=np.uint64), np.zeros(512, dtype=np.uint32)
        self._node, self._used = 0, 0

    def push(self, byte: int) -> bool:
        return bool(self._walk(bytes([byte]))[0])

    def prime(self, data: bytes) -> Starts:
        return np.append(True, self._walk(data))

    def _walk(self, data: bytes) -> Starts:
        """For each of the next bytes, whether it ends a phrase."""
        ends: Starts
        ends, self._keys, self._children, self._node, self._used = _phrases(
            as_array(data), self._keys, self._children, np.uint64(self._node), self._used
        )
        return ends


@njit(cache=True, nogil=True)
def _phrases(data, keys, children, node, used):  # type: ignore[no-untyped-def]
    """Which bytes end a phrase, and the tree after them; `node` is where the open phrase stands, `used` the leaves."""
    ends = np.zeros(len(data), dtype=np.bool_)
    size = len(keys)
    for t in range(len(data)):
        key = (node << np.uint64(8) | np.uint64(data[t])) + np.uint64(1)
        at = _slot(key, size)
        while keys[at] != 0 and keys[at] != key:
            at = (at + 1) & (size - 1)
        if keys[at] == key:
            node = np.uint64(children[at])
            continue
        used += 1
        keys[at], children[at] = key, used
        node, ends[t] = np.uint64(0), True
        if 2 * used >= size:
            keys, children = _doubled(keys, children)
            size *= 2
    return ends, keys, children, node, used


@njit(cache=True, nogil=True)
def _doubled(keys, children):  # type: ignore[no-untyped-def]
    size = 2 * len(keys)
    more_keys, more_children = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint32)
    for i in range(len(keys)):
        if keys[i] != 0:
            at = _slot(keys[i], size)
            while more_keys[at] != 0:
                at = (at + 1) & (size - 1)
            more_keys[at], more_children[at] = keys[i], children[i]
    return more_keys, more_children


@njit(cache=True, nogil=True, inline="always")
def _slot(key, size):  # type: ignore[no-untyped-def]
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & (size - 1)
