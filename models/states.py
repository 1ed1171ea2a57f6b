"""The hidden states of a model before its head, in one form for all kinds of models.

Legend: T byte positions of all windows in one flat vector, S starts among them, D and L widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from models.batch import Windows


@dataclass(frozen=True)
class States:
    """Frozen states of a batch of windows."""

    starts: Tensor
    """(T,) bool: where the model took a patch to begin; true at the beginning of a window if it has patches there."""

    byte: Tensor | None
    """(T, D): what the head reads at each position; None where there is no state a byte."""

    patch: Tensor | None
    """(S, L): at each start, in order, the output of the big model for the patch that ends right before it (BOS's at
    the beginning of a window); None where there are no patches."""


Place = Literal["patch", "byte"]


class HasStates(Protocol):
    """What every model here can be asked."""

    state_places: ClassVar[tuple[Place, ...]]
    """Which of the two `hidden` gives."""

    def hidden(self, batch: Windows, dtype: torch.dtype = torch.float32) -> States: ...
