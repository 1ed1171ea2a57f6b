"""A patcher that ends a patch after every doubled letter."""

import numpy as np

from patchers import Patcher, register


@register("example_pairs")
class Pairs(Patcher):
    """A start at t iff the two bytes before t are the same, `least` bytes or more after the last start."""

    least: int = 1

    def segment(self, data: bytes) -> np.ndarray:
        starts, begin = np.zeros(len(data), dtype=bool), 0
        for t in range(len(data)):
            if t == 0 or (t >= 2 and data[t - 1] == data[t - 2] and t - begin >= self.least):
                starts[t], begin = True, t
        return starts
