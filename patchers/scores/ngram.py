"""An n-gram byte model by interpolated counts that stores one number per context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from patchers.base import Starts, as_array
from patchers.scores.byte_models import ModelOptions, Scores

STEPS = 1024  # scores are kept in steps of 2^-10
DISCOUNT = 0.75
PRIOR = 2.0  # positions' worth of belief in what the shorter context says of a start
LONGEST = 6  # bytes of context that a packed entry has room for
_VALUE_BITS = 13  # 2^13 steps > ln 256 / 2^-10
_BLOCK = 512


class NgramModel:
    """A hash table from a context, the last k <= order bytes, to the score of the byte after it.

    The longest context that is known counts. With `reset: newline` none that holds a newline was learnt, so none
    reaches back across one.
    """

    grid = 1 / STEPS
    tolerances: tuple[float, ...] = ()
    flops_per_byte = 0.0  # it looks up; nothing is multiplied
    training_flops = 0.0

    def __init__(self, learnt: Mapping[str, NDArray[Any]], options: ModelOptions) -> None:
        self._slots = build_table(learnt["entries"])
        self._order = options.order

    @staticmethod
    def fit(
        docs: Sequence[bytes], options: ModelOptions, seed: int, starts: Sequence[Starts] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Entropies of the next byte, or, given `starts`, probabilities that the next byte starts a patch."""
        text, age = _joined(docs, options.reset == "newline")
        if starts is None:
            return {"entries": entropy_entries(text, age, options.order, options.least)}
        return {"entries": start_entries(text, age, options.order, options.least, np.concatenate(starts))}

    def scores(self, docs: Sequence[bytes]) -> list[Scores]:
        return [_scores(as_array(doc), self._slots, self._order) for doc in docs]

    def refine(self, doc: bytes, scores: Scores, wanted: NDArray[np.bool_], round_: int) -> Scores:
        raise AssertionError("counts are exact")

    def stream(self) -> NgramStream:
        return NgramStream(self._slots, self._order)


class NgramStream:
    """The same scores byte by byte: `push(byte)` gives that of the byte after it."""

    def __init__(self, slots: NDArray[np.uint64], order: int) -> None:
        self._slots, self._order = slots, order
        self._context, self._known = 0, 0
        self.first = float(_look_up(np.uint64(0), 0, slots))

    def push(self, byte: int) -> float:
        self._context = (self._context << 8 | byte) & ((1 << 8 * self._order) - 1)
        self._known = min(self._known + 1, self._order)
        return float(_look_up(np.uint64(self._context), self._known, self._slots))

    def prime(self, data: bytes, count: int) -> Scores:
        begin = max(0, len(data) + 1 - count)
        self._known = min(begin, self._order)
        self._context = int.from_bytes(data[begin - self._known : begin], "big")
        here = float(_look_up(np.uint64(self._context), self._known, self._slots))
        return np.array([here, *(self.push(byte) for byte in data[begin:])])

    def exact(self, count: int) -> Any:
        raise AssertionError("counts are exact")


def entropy_entries(text: NDArray[np.uint8], age: NDArray[np.int64], order: int, least: int) -> NDArray[np.uint64]:
    """All contexts of up to `order` bytes that occur at least `least` times, each packed with its entropy.

    Absolute discounting, interpolated with the next shorter context down to the uniform distribution (Ney,
    Essen, Kneser 1994): p(x|c) = (max(n(c,x) - D, 0) + D T(c) p(x|c')) / n(c), T(c) the number of distinct
    bytes after c. The entropy needs p of the seen bytes only: the unseen ones share a = D T(c) / n(c) of the
    shorter context's p.
    """
    lower_grams = np.arange(256, dtype=np.uint64)  # the uniform distribution, as an order below zero
    lower_p = np.full(256, 1 / 256)
    lower_contexts, lower_entropy = np.zeros(1, dtype=np.uint64), np.array([np.log(256)])
    entries = []
    for k in range(order + 1):
        grams, counts = np.unique(_grams(text, k)[age[k:] >= k], return_counts=True)
        first = np.flatnonzero(np.diff(grams >> np.uint64(8), prepend=np.uint64(1) << np.uint64(63)))
        total = np.add.reduceat(counts, first)
        kinds = np.diff(first, append=len(grams))
        keep = total >= (least if k else 1)
        chosen = np.repeat(keep, kinds)
        grams, counts = grams[chosen], counts[chosen]
        total, kinds = total[keep], kinds[keep]
        if len(total) == 0:
            break
        first = np.concatenate(([0], np.cumsum(kinds)[:-1]))
        contexts = grams[first] >> np.uint64(8)
        shorter = np.uint64((1 << 8 * max(k - 1, 0)) - 1)
        below = lower_p[np.searchsorted(lower_grams, grams & (shorter << np.uint64(8) | np.uint64(255)))]
        base = lower_entropy[np.searchsorted(lower_contexts, contexts & shorter)]
        share = DISCOUNT * kinds / total
        p = (counts - DISCOUNT) / np.repeat(total, kinds) + np.repeat(share, kinds) * below
        seen = np.add.reduceat(-p * np.log(p), first)
        rest_p = 1 - np.add.reduceat(below, first)
        rest_h = base - np.add.reduceat(-below * np.log(below), first)
        entropy = seen + share * np.maximum(rest_h, 0) - share * np.log(share) * np.maximum(rest_p, 0)
        entries.append(_packed(contexts, k, entropy))
        lower_grams, lower_p, lower_contexts, lower_entropy = grams, p, contexts, entropy
    return np.concatenate(entries)


def start_entries(
    text: NDArray[np.uint8], age: NDArray[np.int64], order: int, least: int, starts: Starts
) -> NDArray[np.uint64]:
    """All contexts as above, each packed with the probability that the byte after it starts a patch.

    p(c) = (starts after c + PRIOR p(c')) / (n(c) + PRIOR), from the shorter context c' down to one half. Byte
    0 of a document starts a patch without being asked, so it is not counted.
    """
    lower_contexts, lower_p = np.zeros(1, dtype=np.uint64), np.array([0.5])
    entries = [_packed(lower_contexts, 0, lower_p)]
    for k in range(order + 1):
        counted = age[k:] >= max(k, 1)
        contexts, which, total = np.unique(
            _grams(text, k)[counted] >> np.uint64(8), return_inverse=True, return_counts=True
        )
        begun = np.bincount(which, weights=starts[k:][counted], minlength=len(contexts))
        keep = total >= (least if k else 1)
        contexts, total, begun = contexts[keep], total[keep], begun[keep]
        if len(contexts) == 0:
            break
        shorter = np.uint64((1 << 8 * max(k - 1, 0)) - 1)
        below = lower_p[np.searchsorted(lower_contexts, contexts & shorter)]
        lower_contexts, lower_p = contexts, (begun + PRIOR * below) / (total + PRIOR)
        entries = [*(entries if k else []), _packed(contexts, k, lower_p)]
    return np.concatenate(entries)


def _packed(contexts: NDArray[np.uint64], k: int, scores: NDArray[np.float64]) -> NDArray[np.uint64]:
    keys = contexts | np.uint64(k + 1) << np.uint64(8 * LONGEST)
    return keys << np.uint64(_VALUE_BITS) | np.rint(scores * STEPS).astype(np.uint64)


def _joined(docs: Sequence[bytes], reset: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All text, and for each byte how many bytes before it belong to its context."""
    text = np.frombuffer(b"".join(docs), dtype=np.uint8)
    begins = np.zeros(len(text) + 1, dtype=bool)
    begins[np.cumsum([0, *map(len, docs)])] = True
    if reset:
        begins[1:] |= text == 10
    places = np.flatnonzero(begins[:-1])
    position = np.arange(len(text))
    return text, position - places[np.searchsorted(places, position, side="right") - 1]


def _grams(text: NDArray[np.uint8], k: int) -> NDArray[np.uint64]:
    """Each run of k + 1 bytes as a number, first byte highest, for the bytes from k on as the last one."""
    grams = np.zeros(max(len(text) - k, 0), dtype=np.uint64)
    for i in range(k + 1):
        grams = grams << np.uint64(8) | text[i : len(text) - k + i]
    return grams


def build_table(entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An open-addressing table at most half full; an empty slot is 0, which is no entry."""
    slots = np.zeros(1 << int(2 * len(entries)).bit_length(), dtype=np.uint64)
    _insert(entries, slots)
    return slots


@njit(cache=True, nogil=True, inline="always")
def _key(context, known):  # type: ignore[no-untyped-def]
    """The last `known` bytes of the context and their number: the upper 51 bits of an entry, shifted down."""
    kept = context & ((np.uint64(1) << np.uint64(8 * known)) - np.uint64(1))
    return kept | (np.uint64(known + 1) << np.uint64(8 * LONGEST))


@njit(cache=True, nogil=True, inline="always")
def _slot(key, size):  # type: ignore[no-untyped-def]
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & (size - 1)


@njit(cache=True, nogil=True, inline="always")
def _value(entry):  # type: ignore[no-untyped-def]
    return np.float64(entry & np.uint64((1 << _VALUE_BITS) - 1)) / STEPS


@njit(cache=True, nogil=True)
def _insert(entries, slots):  # type: ignore[no-untyped-def]
    for i in range(len(entries)):
        at = _slot(entries[i] >> np.uint64(_VALUE_BITS), len(slots))
        while slots[at] != 0:
            at = (at + 1) & (len(slots) - 1)
        slots[at] = entries[i]


@njit(cache=True, nogil=True)
def _look_up(context, known, slots):  # type: ignore[no-untyped-def]
    """The score of the longest context that is in the table; the empty one always is."""
    while True:
        key = _key(context, known)
        at = _slot(key, len(slots))
        while slots[at] != 0:
            if slots[at] >> np.uint64(_VALUE_BITS) == key:
                return _value(slots[at])
            at = (at + 1) & (len(slots) - 1)
        known -= 1


@njit(cache=True, nogil=True)
def _scores(data, slots, order):  # type: ignore[no-untyped-def]
    """Block by block: the first loop only loads, so that many cache misses are under way at once."""
    out = np.empty(len(data), dtype=np.float64)
    contexts, lengths = np.empty(_BLOCK, dtype=np.uint64), np.empty(_BLOCK, dtype=np.int64)
    loaded = np.empty(_BLOCK, dtype=np.uint64)
    context, known = np.uint64(0), 0
    for begin in range(0, len(data), _BLOCK):
        count = min(_BLOCK, len(data) - begin)
        for i in range(count):
            contexts[i], lengths[i] = context, known
            loaded[i] = slots[_slot(_key(context, known), len(slots))]
            context = (context << np.uint64(8)) | np.uint64(data[begin + i])
            known = min(known + 1, order)
        for i in range(count):
            if loaded[i] >> np.uint64(_VALUE_BITS) == _key(contexts[i], lengths[i]):
                out[begin + i] = _value(loaded[i])
            else:
                out[begin + i] = _look_up(contexts[i], lengths[i], slots)
    return out
