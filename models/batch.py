"""The input of models: windows of documents in one flat vector, and the patch ids that follow from their starts.

Legend: T bytes of all windows together, W windows, P patches (or tokens).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BOS = 256
"""Input symbol of position 0: no byte has been read yet."""


def padded(n: int) -> int:
    """The next of a few sizes that is at least n and at least 8: steps of a sixteenth of a power of two.

    Batches fill up to a limit, so their sizes differ a little each time; matrix kernels are prepared and kept for each
    size that they meet, which would cost memory and time without end. (A graph is compiled anew for sizes of 0 and 1.)
    """
    step = 1 << max(0, (n - 1).bit_length() - 5)
    return max(8, -(-n // step) * step)


@dataclass(frozen=True)
class Windows:
    """Windows of documents, one after another without padding.

    Position p of a window predicts its byte p from BOS and the bytes before (DESIGN section 3).
    """

    data: Tensor
    """(T,) int64: the bytes to predict, 0..255."""

    offsets: Tensor
    """(W + 1,) int64: window w is data[offsets[w]:offsets[w + 1]]; no window is empty."""

    starts: Tensor
    """(T,) bool: the byte begins a patch, as the whole document was cut (a window may begin inside a patch)."""

    ends: Tensor
    """(T,) int8: 1 where the byte is the last of its patch, 0 where not, -1 at the end of a document, where no byte
    has told it."""

    ids: Tensor | None = None
    """(P,) int64: the token at each start, for models over tokens."""

    def to(self, device: torch.device | str) -> Windows:
        return Windows(**{k: v.to(device) for k, v in vars(self).items() if v is not None})

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def window_of(self) -> Tensor:
        """(T,): the window of each byte."""
        return torch.repeat_interleave(
            torch.arange(len(self.offsets) - 1, device=self.data.device), self.lengths, output_size=len(self.data)
        )

    def positions(self) -> Tensor:
        """(T,): the place of each byte in its window."""
        return torch.arange(len(self.data), device=self.data.device) - self.offsets[:-1][self.window_of()]

    def previous(self) -> Tensor:
        """(T,): what position p holds: byte p - 1 of its window, BOS at its beginning."""
        before = torch.cat((self.data.new_full((1,), BOS), self.data[:-1]))
        before[self.offsets[:-1]] = BOS
        return before


@dataclass(frozen=True)
class Patches:
    """The index convention of DESIGN section 3, in one place; starts are true at the beginning of every window.

    Patch ids count over all windows: patch `first[w]` is BOS of window w, and a window with n starts has n patches that
    anybody reads (the patch that is still open at the end of a window is read by no position, so it is not made).
    """

    read: Tensor
    """(T,): the newest patch that position p may read: the one that ends at byte p - 1 if p starts a patch, else the
    one before the open one.
    """
    member: Tensor
    """(T,): the patch that position p (holding byte p - 1) belongs to; `count` where that patch is never complete."""

    first: Tensor
    """(W + 1,): patches of window w are first[w]..first[w + 1] - 1."""

    count: int
    """How many patches tensors have room for: `first[-1]` and a few that are empty (`padded`)."""

    @staticmethod
    def of(starts: Tensor, offsets: Tensor, late: bool = False) -> Patches:
        """Derive all ids from starts (T,).

        `late`: the decoder does not know `starts[p]` when it predicts byte p (`price: start`), so it reads the last
        patch that is complete by `starts[:p]`.
        """
        total = starts.cumsum(0)
        count = padded(int(total[-1]))
        first = torch.cat((total.new_zeros(1), total[offsets[1:] - 1]))
        read = total - 1
        member = read + (~starts).long()
        open_at_end = first[1:].repeat_interleave(offsets.diff(), output_size=len(starts))
        if late:
            # cumsum(starts)[p - 1] - 1, and BOS where p is 0 or 1: never the patch that starts[p] has just closed
            begin = first[:-1].repeat_interleave(offsets.diff(), output_size=len(starts))
            read = torch.maximum(member - 1, begin)
        return Patches(read, torch.where(member < open_at_end, member, count), first, count)
