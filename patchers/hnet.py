"""H-Net's learnt chunking (Hwang, Wang & Gu 2025): the cut is trained inside the harness, from its encoder's states."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from patchers.base import Kind, Patcher, Starts, Stream, state
from patchers.errors import BenchError
from patchers.grouping import grouped
from patchers.registry import register

if TYPE_CHECKING:  # imported where it is used: torch takes seconds to load, which a list of patchers need not wait for
    from models.harness import Harness
    from models.router import CosineRouter
    from patchers.scores.hnet_stream import Weights

PIECE = 1024
"""Bytes of a document that are cut as one window, with what an encoder state sees before them."""
BATCH = 32
DOUBT = 1e-3
"""A probability nearer to a half than this is computed again in float64, from the bytes that it depends on alone. What
float32 moves it by, in other company or at another place, is less than a hundredth of that."""
PARTS = ("byte", "ngrams.", "encoder.", "router.")
"""What of a trained harness decides the cut."""


@register("hnet")
class HNet(Patcher):
    """A start where the cosine router fires: one level of H-Net, with the harness's own encoder below it.

    The paper's boundary after byte t is `starts[t + 1]` here. `bytes_per_patch` is the N of its ratio loss. The
    harness trains the router and hands it back through `learned`; until then there is nothing to cut with. A document
    is cut alike alone, in a batch and in a stream: see DOUBT.
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
        """Sets the wanted size; how near training comes to it is in the record.

        Raises BenchError once it is trained: its size is then a fact.
        """
        if self._weights is not None:
            raise BenchError("patcher 'hnet' has been trained, and its patches are as long as they are: train it anew")
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
        reach = self.reach
        wanted: dict[bytes, list[tuple[int, int]]] = {}  # a piece with its reach -> where it stands: once for all
        for at in range(0, len(data), PIECE):
            end = min(at + PIECE, len(data))
            wanted.setdefault(data[max(0, at - reach) : end], []).append((at, end))
        probability = np.empty(len(data))
        for some in grouped(wanted, lambda piece: 1, BATCH):
            for piece, found in zip(some, self._probabilities(some, exact=False), strict=True):
                for at, end in wanted[piece]:
                    probability[at:end] = found[len(piece) - (end - at) :]
        near = np.flatnonzero(np.abs(probability - 0.5) < DOUBT)
        contexts = [data[max(0, t - reach) : t] for t in near.tolist()]
        exact: dict[bytes, float] = {}
        for some in grouped(dict.fromkeys(contexts), lambda context: 1, 4 * BATCH):
            exact |= zip(some, self.exact(some), strict=True)
        probability[near] = [exact[context] for context in contexts]
        starts = probability > 0.5
        starts[:1] = True
        return starts

    def stream(self) -> Stream:
        from patchers.scores.hnet_stream import HNetStream

        return HNetStream(self, self._harness, self._stepping, DOUBT)

    @cached_property
    def _stepping(self) -> Weights:
        from patchers.scores.hnet_stream import Weights

        return Weights(self._harness)

    @property
    def reach(self) -> int:
        """How many bytes back the state of a position sees, and one more for the state before it."""
        sizes = self._harness.config
        return sizes.encoder_layers * sizes.local_window + max(sizes.ngrams, default=0) + 1

    def exact(self, contexts: Sequence[bytes]) -> list[float]:
        """The probability that a patch starts after each context, in float64; the last `reach` bytes decide it."""
        return [float(p[-1]) for p in self._probabilities([context + b"\0" for context in contexts], exact=True)]

    def _probabilities(self, pieces: Sequence[bytes], exact: bool) -> list[np.ndarray]:
        """The router's probability of a start at each byte of each piece, as if nothing stood before the piece."""
        import torch

        from models.batch import Windows

        text = torch.from_numpy(np.frombuffer(b"".join(pieces), np.uint8).astype(np.int64))
        none = torch.zeros(len(text), dtype=torch.bool)
        ends = torch.tensor([0, *map(len, pieces)]).cumsum(0)
        with torch.inference_mode():
            dtype = torch.float64 if exact else torch.float32
            routing = self._harness.encode(Windows(text, ends, none, none), dtype).routing
        assert routing is not None
        return [p.numpy() for p in routing.probability.double().split([len(piece) for piece in pieces])]
