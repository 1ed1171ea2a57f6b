"""What a model has to know of a batch beside its bytes: all that depends on documents and cuts, as tensors.

It is made on the CPU, outside of the model and, in training, by a worker while the step before is computed; a model is
then a function of tensors whose sizes are few (`padded`), so that it compiles to one graph.

Legend: T positions of all windows and some of padding, n those of windows, W windows, P patches (or tokens) and some of
padding, K slots a patch, G gram sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Patches, Windows, padded


class Tensors:
    """A dataclass of tensors, of such dataclasses, of numbers and of None."""

    def _each(self, change: Any) -> Self:
        changed = {
            field.name: change(value)
            for field in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, field.name), Tensor | Tensors)
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device) -> Self:
        """Without waiting for the copy where memory is pinned."""
        return self._each(lambda x: x.to(device, non_blocking=True) if isinstance(x, Tensor) else x.to(device))

    def pinned(self) -> Self:
        return self._each(lambda x: x.pin_memory() if isinstance(x, Tensor) else x.pinned())

    def even(self) -> Self:
        """With sizes and numbers that are the same for nearly all batches, so that few CUDA graphs are recorded.

        Padding is then predicted too, behind the n bytes that are meant.
        """
        return self._each(lambda x: x if isinstance(x, Tensor) else x.even())


@dataclass(frozen=True)
class Segments(Tensors):
    """Consecutive parts of a flat vector, which they cover."""

    cu: Tensor
    """(N + 1,) int32: segment s is cu[s]..cu[s + 1] - 1; the last ones may be empty."""

    longest: int

    @staticmethod
    def of(cu: Tensor) -> Segments:
        return Segments(cu.int(), max(1, int(cu.diff().max())))

    def even(self) -> Segments:
        """With more empty ones at the end, up to a quarter, and `longest` a power of two; a flash kernel's blocks for
        them end as they begin, and it takes 128 queries at once however few there are."""
        step = max(64, 1 << (len(self.cu).bit_length() - 2))
        cu = F.pad(self.cu, (0, -len(self.cu) % step), value=int(self.cu[-1]))
        return Segments(cu, max(128, 1 << (self.longest - 1).bit_length()))


@dataclass(frozen=True)
class Sequences(Tensors):
    """Segments whose places are counted: windows of bytes, of patches or of tokens."""

    segments: Segments
    position: Tensor
    """Of each place in its segment."""

    @staticmethod
    def of(lengths: Tensor, room: int) -> Sequences:
        """Sequences of `lengths` (W,), none of them longer than `room` places in all; one more is the rest of them."""
        ends = lengths.cumsum(0)
        cu = F.pad(F.pad(ends, (1, 0)), (0, padded(len(ends) + 2) - len(ends) - 1), value=room)
        begin = torch.repeat_interleave(cu[:-1], cu.diff(), output_size=room)
        return Sequences(Segments.of(cu), torch.arange(room) - begin)


@dataclass(frozen=True)
class Members(Tensors):
    """The positions that each patch is pooled from."""

    member: Tensor
    """(T,): the patch of each position, P for those that belong to none; those of a patch stand together."""

    last: Tensor
    """(P,): the last position of each patch; 0 for a patch without any."""

    size: Tensor
    """(P, 1): how many it has."""

    positions: Segments
    """Of keys: those of each patch, and what lies between two patches, of which nothing asks."""

    slots: Segments
    """Of queries, P * K: those that ask in each of these segments."""

    @staticmethod
    def of(member: Tensor, count: int, slots: int) -> Members:
        t = len(member)
        changes = torch.ones(t, dtype=torch.bool)
        changes[1:] = member[1:] != member[:-1]
        begins = changes.nonzero()[:, 0]
        patch = member[begins]
        missing = count - int((patch < count).sum())  # patches without positions: padding
        spare = padded(len(begins) + missing + 1) - len(begins)
        keys = F.pad(begins, (0, spare), value=t)
        asked = F.pad(torch.where(patch < count, slots, 0), (0, missing), value=slots)
        queries = F.pad(F.pad(asked.cumsum(0), (1, 0)), (0, spare - missing - 1), value=count * slots)
        last = member.new_zeros(count + 1)
        last[patch] = keys[1 : len(begins) + 1] - 1
        size = torch.bincount(member, minlength=count + 1)[:count, None]
        return Members(member, last[:count], size, Segments.of(keys), Segments.of(queries))


@dataclass(frozen=True)
class Cut(Tensors):
    """What follows from where patches start."""

    members: Members
    read: Tensor
    """(T,): the patch that each position reads; it never falls."""

    readers: Segments
    """Of positions: those that read each patch."""

    slots: Segments
    """Of the slots that they read, P * K."""

    latent: Sequences
    """The patches of each window."""

    bos: Tensor
    """(P,): the first patch of the same window."""

    @staticmethod
    def of(starts: Tensor, offsets: Tensor, room: int, slots: int, late: bool) -> Cut:
        """starts (n,), true where windows begin; offsets (W + 1,); T is `room`; `late` as `Patches.of` has it."""
        patches = Patches.of(starts, offsets, late)
        count, spare = patches.count, room - len(starts)
        read = F.pad(patches.read, (0, spare), value=count - 1)
        ends = torch.searchsorted(read, torch.arange(count), right=True)
        latent = Sequences.of(patches.first.diff(), count)
        return Cut(
            Members.of(F.pad(patches.member, (0, spare), value=count), count, slots),
            read,
            Segments.of(F.pad(ends, (1, 0))),
            Segments.of(torch.arange(count + 1) * slots),
            latent,
            torch.arange(count) - latent.position,
        )


@dataclass(frozen=True)
class Told(Tensors):
    """What the local model is told of the cut (`PatchStateEmbedding`)."""

    length: Tensor
    """(T,): how many bytes of the open patch have been read, no more than the table has rows for."""

    row: Tensor | None
    """(T,): of the table of open patches."""

    flag: Tensor | None
    """(T,): 1 where the byte to predict starts a patch."""


@dataclass(frozen=True)
class BytePlan(Tensors):
    """Of a model that has a state at each byte."""

    data: Tensor
    """(n,): what is predicted."""

    offsets: Tensor
    """(W + 1,)."""

    previous: Tensor
    """(T,): what position p holds, byte p - 1 of its window or BOS."""

    windows: Sequences
    grams: Tensor | None
    """(T, G): rows of the table of n-grams."""

    def even(self) -> Self:
        spare = len(self.previous) - len(self.data)
        return replace(super().even(), data=F.pad(self.data, (0, spare)))


@dataclass(frozen=True)
class HarnessPlan(BytePlan):
    starts: Tensor
    """(n,) bool: where patches start; true where windows begin."""

    flag: Tensor | None
    """(n,): the flag that is predicted with the byte, -1 where it is summed out; None where boundaries are free."""

    told: Told | None
    """None where nothing is told, or a router will have to cut first; so with `cut`."""

    cut: Cut | None

    def even(self) -> Self:
        spare = len(self.previous) - len(self.data)
        flag = None if self.flag is None else F.pad(self.flag, (0, spare))
        return replace(super().even(), starts=F.pad(self.starts, (0, spare)), flag=flag)


@dataclass(frozen=True)
class TokenPlan(Tensors):
    size: int
    """n."""

    ids: Tensor
    """Of the tokens to predict; fewer than P, or none where windows lie in the midst of one long token."""

    at: Tensor
    """The byte that each of them begins with."""

    previous: Tensor
    """(P,): the token before each place, BOS at the beginning of a window."""

    tokens: Sequences

    def even(self) -> Self:
        """Tokens of padding stand at the last byte of padding."""
        spare, size = len(self.previous) - len(self.ids), padded(self.size + 1)
        at = F.pad(self.at, (0, spare), value=size - 1)
        return replace(super().even(), size=size, ids=F.pad(self.ids, (0, spare)), at=at)


def byte_plan(batch: Windows, grams: Any) -> dict[str, Any]:
    """The fields of a `BytePlan`; `grams` is the model's `NgramEmbedding`, or None."""
    batch = replace(batch, data=batch.data.long())
    data, positions = batch.data, batch.positions()
    room = padded(len(data))
    spare = room - len(data)
    rows = None if grams is None else F.pad(grams.rows_of(data, positions), (0, 0, 0, spare), value=grams.nothing)
    return {
        "data": data,
        "offsets": batch.offsets,
        "previous": F.pad(batch.previous(), (0, spare)),
        "windows": Sequences.of(batch.lengths, room),
        "grams": rows,
    }
