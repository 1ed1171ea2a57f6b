"""H-Net's router (Hwang, Wang & Gu 2025, section 2.2): learns where patches end, inside the harness.

Legend: T byte positions of all windows in one flat vector, P patches, D width.

In the convention of this project position p holds byte p - 1, so the paper's boundary after byte t is `starts[t + 1]`:
a patch ends where the router fires, and is pooled from its last position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATIO_WEIGHT = 0.03
"""Weight of the ratio loss (section 2.3.1)."""


@dataclass(frozen=True)
class Routing:
    """What a router says of the positions that it was given."""

    starts: Tensor
    """(T,) bool: position p starts a patch, as decided from bytes before p."""

    probability: Tensor
    """(T,) float32: of that; 1 at the beginning of a window."""

    @property
    def gate(self) -> Tensor:
        """(T,): 1, with the gradient of the probability of what was chosen (eq. 7-8, straight-through)."""
        chosen = torch.where(self.starts, self.probability, 1 - self.probability)
        return 1 + chosen - chosen.detach()


class CosineRouter(nn.Module):
    """p = (1 - cos(W_q h_(t-1), W_k h_t)) / 2 over encoder states; a start where it exceeds a half (eq. 4).

    Both matrices begin as the identity, as in the paper, so that an untrained router fires where states change most.
    """

    def __init__(self, width: int, bytes_per_patch: float) -> None:
        super().__init__()
        self.bytes_per_patch = bytes_per_patch
        self.query = nn.Parameter(torch.eye(width))
        self.key = nn.Parameter(torch.eye(width))

    def forward(self, states: Tensor, begins: Tensor) -> Routing:
        """states (T, D) of the encoder, begins (T,) bool: position 0 of a window."""
        h = states if states.dtype == torch.float64 else states.float()
        before = F.linear(h.roll(1, 0), self.query.to(h.dtype))
        probability = 0.5 * (1 - F.cosine_similarity(before, F.linear(h, self.key.to(h.dtype)), dim=-1))
        probability = probability.clamp(0, 1).masked_fill(begins, 1.0)
        return Routing(probability > 0.5, probability)

    def ratio_loss(self, routing: Routing, share: Tensor | None = None) -> Tensor:
        """N / (N - 1) * ((N - 1) F G + (1 - F)(1 - G)), F the share of starts, G the mean probability (eq. 10).

        It is least, 1, where F = G = 1 / N; gradient reaches it through G alone. `share` is F where these positions
        are a part of a batch: the loss of the whole is then the mean of the parts', by their bytes.
        """
        n, mean = self.bytes_per_patch, routing.probability.mean()
        if share is None:
            share = routing.starts.float().mean()
        return RATIO_WEIGHT * n / (n - 1) * ((n - 1) * share * mean + (1 - share) * (1 - mean))


def smooth(x: Tensor, probability: Tensor) -> Tensor:
    """z_k = P_k x_k + (1 - P_k) z_(k-1) over patches (eq. 5), x (P, D), probability (P,).

    A patch is there because its probability exceeds a half, so what is left of patch k - j is below 2^-j: five
    doublings reach 32 back, to the last bit of float32. BOS has probability 1, so nothing passes between windows.
    """
    keep = (1 - probability).to(x.dtype)[:, None]
    out = x * (1 - keep)
    for shift in (1, 2, 4, 8, 16):
        out = out + keep * F.pad(out, (0, 0, shift, 0))[: len(out)]
        keep = keep * F.pad(keep, (0, 0, shift, 0))[: len(keep)]
    return out
