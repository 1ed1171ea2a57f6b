"""H-Net's learnt chunking (Hwang, Wang & Gu 2025): the cut is trained inside the harness, from its encoder's states."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from patchers.base import Kind, Patcher, Starts, as_array, state
from patchers.errors import BenchError
from patchers.registry import register

if TYPE_CHECKING:  # imported where it is used: torch takes seconds to load, which a list of patchers need not wait for
    from models.harness import Harness
    from models.router import CosineRouter

PIECE = 16_384
"""Bytes that are cut at once; the pieces of a document begin at multiples of it, whatever follows."""
PARTS = ("byte", "ngrams.", "encoder.", "router.")
"""What of a trained harness decides the cut."""


@register("hnet")
class HNet(Patcher):
    """A start where the cosine router fires: one level of H-Net, with the harness's own encoder below it.

    The paper's boundary after byte t is `starts[t + 1]` here. `bytes_per_patch` is the N of its ratio loss. The
    harness trains the router and hands it back through `learned`; until then there is nothing to cut with. Cuts are
    computed in float64, so that a document is cut alike alone, in a batch and in a stream.
    """

    kind: ClassVar[Kind] = "in-model"
    knob: ClassVar[str | None] = "bytes_per_patch"
    source: ClassVar[str] = "H-Net (Hwang, Wang & Gu 2025), section 2.2"
    bytes_per_patch: float = 4.5
    _sizes: dict[str, object] | None = state()
    _weights: dict[str, np.ndarray] | None = state()

    def __post_init__(self) -> None:
        if not self.bytes_per_patch > 1:
            raise BenchError(
                f"option 'bytes_per_patch' of patcher 'hnet' is {self.bytes_per_patch}, wanted more than 1"
            )

    def router(self, width: int) -> CosineRouter:
        from models.router import CosineRouter

        return CosineRouter(width, self.bytes_per_patch)

    def calibrate(self, docs: Sequence[bytes], bytes_per_patch: float) -> Self:
        """Sets the wanted size; how near training comes to it is in the record."""
        return dataclasses.replace(self, bytes_per_patch=float(bytes_per_patch))

    def learned(self, module: Harness) -> Self:
        """The patcher that a trained harness holds."""
        weights = {
            name: tensor.detach().float().cpu().numpy()
            for name, tensor in module.state_dict().items()
            if name.startswith(PARTS)
        }
        return dataclasses.replace(self, _sizes=dataclasses.asdict(module.config), _weights=weights)

    @cached_property
    def _harness(self) -> Harness:
        if self._sizes is None or self._weights is None:
            raise BenchError("patcher 'hnet' is learnt inside the harness: train it with `patchbench run`, then cut")
        import torch

        from models.harness import Harness, HarnessConfig

        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in self._sizes.items()}
        config = HarnessConfig(**sizes)  # type: ignore[arg-type]
        model = Harness(config, router=self.router(config.local_width))
        model.load_state_dict({name: torch.from_numpy(array) for name, array in self._weights.items()}, strict=False)
        return model.eval()

    def segment(self, data: bytes) -> Starts:
        model = self._harness
        import torch

        from models.batch import Windows

        sizes = model.config
        reach = sizes.encoder_layers * sizes.local_window + max(sizes.ngrams, default=0) + 1
        out = np.zeros(len(data), bool)
        for begin in range(0, len(data), PIECE):
            left, end = max(0, begin - reach), min(begin + PIECE, len(data))
            text = torch.from_numpy(as_array(data[left:end]).astype(np.int64))
            none = torch.zeros(len(text), dtype=torch.bool)
            window = Windows(text, torch.tensor([0, len(text)]), none, none)
            with torch.inference_mode():
                out[begin:end] = model.encode(window, torch.float64).starts.numpy()[begin - left :]
        return out
