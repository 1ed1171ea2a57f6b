"""A hash of (seed, position): pseudo-random numbers that do not depend on batch, stream or machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_RAMP = np.arange(8192, dtype=np.uint64) * np.uint64(_GAMMA)  # one block of it stays in the first-level cache
BLOCK = len(_RAMP)


def position_hash(begin: int, end: int, seed: int) -> NDArray[np.uint64]:
    """64 random bits for each position in begin..end-1, shape (end - begin,).

    SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), read at
    any place: the state at position p is a mix of the seed plus p + 1 steps of the golden gamma.
    """
    z = np.empty(end - begin, dtype=np.uint64)
    for at in range(0, len(z), BLOCK):
        block = z[at : at + BLOCK]
        np.add(_RAMP[: len(block)], np.uint64((_origin(seed) + (begin + at) * _GAMMA) & _MASK), out=block)
        _finish(block)
    return z


def hash_at(positions: NDArray[np.integer], seed: int) -> NDArray[np.uint64]:
    """The same 64 bits for some positions only, shape (len(positions),)."""
    z = positions.astype(np.uint64) * np.uint64(_GAMMA) + np.uint64(_origin(seed))
    _finish(z)
    return z


def _origin(seed: int) -> int:
    return mix(seed * _GAMMA + 0x5851F42D4C957F2D) + _GAMMA & _MASK


def _finish(z: NDArray[np.uint64]) -> None:
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(z, np.uint64(27), out=shifted)
    z ^= shifted
    z *= np.uint64(0x94D049BB133111EB)
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted


def mix(value: int) -> int:
    """The same finishing steps on one Python number."""
    z = value & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)
