"""Sets a patcher's knob so that the mean patch has a wanted size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from patchers.base import Patcher
from patchers.errors import BenchError

CLOSE = 0.05  # how far a calibrated size may be from the wanted one; DESIGN 7, `placement`


def total_bytes(docs: Sequence[bytes]) -> int:
    """Bytes in all documents. Raises BenchError where there are none to calibrate on."""
    total = sum(map(len, docs))
    if total == 0:
        raise BenchError("there is no text to calibrate a patch size on: give at least one document that is not empty")
    return total


def check_size(bytes_per_patch: float) -> None:
    if not bytes_per_patch >= 1:
        raise BenchError(f"bytes_per_patch must be at least 1, got {bytes_per_patch}")


def mean_size(patcher: Patcher, docs: Sequence[bytes]) -> float:
    """Realised bytes per patch of `docs`: all bytes over all starts."""
    return total_bytes(docs) / sum(int(np.count_nonzero(starts)) for starts in patcher.segment_many(docs))


def bisect(size: Callable[[int], float], low: int, high: int, wanted: float, label: str) -> int:
    """The whole number in low..high whose `size(number)`, which grows with it, is nearest to `wanted`.

    Raises BenchError when even the nearest is off by more than CLOSE, with the reach of the knob named by
    `label`.
    """
    sizes: dict[int, float] = {}

    def at(number: int) -> float:
        if number not in sizes:
            sizes[number] = size(number)
        return sizes[number]

    bottom, top = low, high
    while high - low > 1 and abs(at(low) / wanted - 1) > 0.002:
        middle = (low + high) // 2 if high < 2 * low else round((low * high) ** 0.5)
        middle = min(max(middle, low + 1), high - 1)
        low, high = (middle, high) if at(middle) <= wanted else (low, middle)
    best = min((low, high), key=lambda number: abs(at(number) - wanted))
    if abs(at(best) / wanted - 1) > CLOSE:
        raise BenchError(
            f"{label} reaches {at(bottom):.2f} to {at(top):.2f} bytes a patch on the calibration text, never "
            f"within {CLOSE:.0%} of {wanted:g}: ask for a size in reach, or set calibrate: false for the row"
        )
    return best
