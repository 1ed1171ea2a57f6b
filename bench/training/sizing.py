"""Resizes a model so that its FLOPs per byte equal another row's (BLT, section 5.3).

The latent model is grown, or shrunk, in depth as long as its shape stays within a factor of two, else in width as
well; what is then missing is made up by the hidden width of its SwiGLU. The local models stay as they are, but for the
slots of a patch, which go with the latent width unless the row says how many.

The control without patches has no use for a latent model: of a row that says `grow_to`, the local model is grown
instead, in the same way (its decoder's depth; attention heads keep their width).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal

from bench.suites.config import Sizes
from bench.training.prepare import Prepared, flops_per_byte, shapes_of
from models.harness import HarnessConfig
from models.layers import swiglu_hidden
from models.token_lm import TokenLMConfig
from patchers.errors import BenchError

HIDDEN_STEP = 4
LARGEST = 64
"""Times the width that a row has to begin with: further is not looked."""


class NotMatched(BenchError):
    """What should be equal is not, so that the run cannot be compared as its suite says."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The part of a row's model that grows: its sizes, and what they are called in its config."""

    width: int
    layers: int
    step: int
    """Widths are multiples of this, so that heads, their rotary halves and the slots of a patch stay whole."""
    names: tuple[str, str, str]
    """Of width, layers and hidden width."""
    head: tuple[str, int] | None = None
    """What the number of heads is called, and the width of each, where their number grows with the width."""

    @staticmethod
    def of(sizes: Sizes) -> Shape | None:
        """The latent model; None for a model without one."""
        if isinstance(sizes, HarnessConfig):
            whole = sizes.slots is None and sizes.latent_width % sizes.local_width == 0
            step = math.lcm(2 * sizes.latent_heads, sizes.local_width if whole else 1)
            names = "latent_width", "latent_layers", "latent_hidden"
            return Shape(sizes.latent_width, sizes.latent_layers, step, names)
        if isinstance(sizes, TokenLMConfig):
            return Shape(sizes.width, sizes.layers, 2 * sizes.heads, ("width", "layers", "hidden"))
        return None

    @staticmethod
    def local(sizes: HarnessConfig) -> Shape:
        """The local model."""
        head = sizes.local_width // sizes.local_heads
        names = "local_width", "decoder_layers", "local_hidden"
        return Shape(sizes.local_width, sizes.decoder_layers, head, names, ("local_heads", head))

    def sizes(self, base: Any, width: int, layers: int, hidden: int) -> Any:
        named = dict(zip(self.names, (width, layers, hidden), strict=True))
        if self.head is not None:
            name, head = self.head
            named[name] = width // head
        return dataclasses.replace(base, **named)


def grown(prepared: Prepared, wanted: float, part: Literal["latent", "local"] = "latent") -> Sizes:
    """Sizes of the row's model at which its forward pass costs `wanted` FLOPs a byte, nearly.

    Raises NotMatched where no such model costs that: the row has none, or what else it has is dearer already.
    """
    row, patcher, windows = prepared.row, prepared.patcher, shapes_of(prepared)
    if part == "local":
        assert isinstance(row.sizes, HarnessConfig), "the config has checked that a harness has a local model"
        shape: Shape | None = Shape.local(row.sizes)
    else:
        shape = Shape.of(row.sizes)
    if shape is None:
        raise NotMatched(f"row {row.label!r} has no latent model that could grow; leave it out of this suite")

    def cost(sizes: Sizes) -> float:
        return flops_per_byte(dataclasses.replace(row, sizes=sizes), patcher, windows)["total"]

    best: tuple[float, Sizes] | None = None
    for width in _widths(shape):
        usual = swiglu_hidden(width)
        for layers in range(max(1, math.ceil(shape.layers / 2)), 2 * shape.layers + 1):
            one, two = (cost(shape.sizes(row.sizes, width, layers, n * HIDDEN_STEP)) for n in (1, 2))
            steps = max(1, 1 + round((wanted - one) / (two - one)))  # the cost is linear in the hidden width
            sizes = shape.sizes(row.sizes, width, layers, steps * HIDDEN_STEP)
            apart = abs(math.log(steps * HIDDEN_STEP / usual))
            if abs(cost(sizes) / wanted - 1) < 0.005 and (best is None or apart < best[0]):
                best = apart, sizes
        if best is not None and best[0] < math.log(1.5):
            return best[1]
    if best is None:
        least = cost(shape.sizes(row.sizes, shape.step, 1, HIDDEN_STEP))
        raise NotMatched(
            f"row {row.label!r} should cost {wanted:.4g} FLOPs a byte, and costs {least:.4g} with the smallest {part} "
            "model: match to a row that costs more, or leave this one out"
        )
    return best[1]


def _widths(shape: Shape) -> Iterator[int]:
    """The width that is there, then further and further ones."""
    yield shape.width
    for n in range(1, LARGEST * shape.width // shape.step):
        for width in (shape.width + n * shape.step, shape.width - n * shape.step):
            if width > 0:
                yield width
