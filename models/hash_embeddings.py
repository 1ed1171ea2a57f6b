"""Hash embeddings: of the last n bytes (BLT, section 3.2.1, eq. 2-4) and of the open patch so far.

Legend: T positions in one flat vector, G gram sizes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.plan import Told

_MULTIPLIER = 6_364_136_223_846_793_005  # Knuth's MMIX; odd, so that no power of it loses the low bits
_MASK = (1 << 63) - 1


def prime_below(n: int) -> int:
    """The largest prime that is at most n (n >= 2)."""
    while any(n % d == 0 for d in range(2, int(n**0.5) + 1)):
        n -= 1
    return n


def gram_rows(data: Tensor, positions: Tensor, sizes: Sequence[int], rows: int) -> Tensor:
    """Row of the table for each position and gram size.

    data (T,) int64: the byte that each position predicts; positions (T,): its place in its window. Position p holds
    bytes 0..p-1 of its window, so an n-gram fits iff p >= n. -> (T, G) int64, rows g * rows..(g + 1) * rows - 1 for
    size g, and G * rows (padding) where the gram does not fit.
    """
    out = torch.empty(len(data), len(sizes), dtype=torch.int64, device=data.device)
    value = torch.zeros_like(data)
    power = 1
    done = 0
    for column, n in enumerate(sizes):
        for back in range(
            done + 1, n + 1
        ):  # the hash of n bytes is that of n - 1 with one older byte in front: sum of byte * a^(back-1)
            older = data.roll(back)
            value = value + (older + 1) * power
            power = (power * _MULTIPLIER) & _MASK
        done = n
        row = (value & _MASK) % rows + column * rows
        out[:, column] = torch.where(positions >= n, row, len(sizes) * rows)
    return out


class _Lookup(torch.autograd.Function):
    """Sum of rows of a table; a fifth of `embedding_bag`'s time forward and half of it backward (CPU)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, skip: int | None) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape, ctx.skip, ctx.kept = table.shape, skip, getattr(table, "kept", None)
        found = table.index_select(0, rows.flatten())
        if skip is not None:
            found.index_fill_(0, (rows.flatten() == skip).nonzero()[:, 0], 0)
        return found.view(*rows.shape, -1).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (grad,) = grads
        (rows,) = ctx.saved_tensors
        out = grad.new_zeros(ctx.shape) if ctx.kept is None else ctx.kept.gradient
        for column in rows.unbind(1):
            out.index_add_(0, column, grad)
        if ctx.skip is not None:
            out[ctx.skip] = 0
        if ctx.kept is None:
            return out, None, None
        ctx.kept.rows.append(rows.flatten())
        return None, None, None


@dataclass
class _Kept:
    """Of a table."""

    gradient: Tensor
    rows: list[Tensor] = field(default_factory=list)
    """Those that may be other than zero."""

    def clear(self) -> None:
        if 2 * sum(len(rows) for rows in self.rows) > len(self.gradient):
            self.gradient.zero_()
        else:
            for rows in self.rows:
                self.gradient.index_fill_(0, rows, 0)
        self.rows.clear()


class KeptGradients:
    """Gradients of a model's large tables that stay where they are from step to step: lookups add to them.

    A new table of zeros for each step comes from the system page by page, which takes as long as half an update of it.
    For a training in one process; what averages gradients over several wants to be handed them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tables = [getattr(m, name) for m in model.modules() for name in getattr(m, "large_tables", ())]
        for table in self._tables:
            table.kept = _Kept(torch.zeros_like(table))

    def show(self) -> None:
        """To clipping and the optimizer, after the way back."""
        for table in self._tables:
            table.grad = table.kept.gradient

    def clear(self) -> None:
        for table in self._tables:
            table.kept.clear()

    def let_go(self) -> None:
        for table in self._tables:
            del table.kept


def look_up(table: Tensor, rows: Tensor, skip: int | None = None) -> Tensor:
    """table (N, D), rows (T, G) -> (T, D): the sum of the rows of each position, without row `skip`."""
    if table.device.type != "cpu" or torch.compiler.is_compiling():
        if rows.shape[1] == 1 and skip is None:
            return F.embedding(rows[:, 0], table)
        return F.embedding_bag(rows, table, mode="sum", padding_idx=skip)
    found: Tensor = _Lookup.apply(table, rows, skip)
    return found


class NgramEmbedding(nn.Module):
    """Sum of one embedding per gram size; grams that do not fit in the window are left out.

    Tables have a prime number of rows.
    """

    def __init__(self, sizes: Sequence[int], rows: int, width: int, std: float) -> None:
        super().__init__()
        self.lookup_std = {"table": std}
        self.large_tables = ("table",)
        self.sizes = tuple(sorted(sizes))
        self.rows = prime_below(rows)
        self.table = nn.Parameter(torch.zeros(len(self.sizes) * self.rows + 1, width))

        self.nothing = len(self.sizes) * self.rows
        """The row of grams that do not fit."""

    def rows_of(self, data: Tensor, positions: Tensor) -> Tensor:
        """data (T,), positions (T,) -> (T, G)."""
        return gram_rows(data, positions, self.sizes, self.rows)

    def forward(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """rows (T, G) -> (T, D)."""
        return look_up(self.table, rows, self.nothing).to(dtype)


def open_patch_lengths(starts: Tensor, positions: Tensor) -> Tensor:
    """(T,): how many bytes of the patch of the newest byte have been read at each position, 0 where nothing has been.

    starts (T,) true at each window's beginning, positions (T,). Position p has read bytes up to p - 1; its open patch
    runs from the last start before p to byte p - 1.
    """
    t = torch.arange(len(starts), device=starts.device)
    last = torch.where(starts, t, 0).cummax(0).values  # start of the patch of byte p
    begin = torch.cat((last[:1], last[:-1]))  # start of the patch of byte p - 1
    return torch.where(positions == 0, 0, t - begin)


def open_patch_rows(data: Tensor, starts: Tensor, positions: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The patch of the newest byte at each position: its length so far (`open_patch_lengths`), and a hash of its bytes.

    data (T,), starts (T,), positions (T,) -> (length (T,), row (T,)), both 0 at position 0 of a window, where nothing
    has been read.
    """
    t = torch.arange(len(data), device=data.device)
    length = open_patch_lengths(starts, positions)
    # prefix[p] = sum over bytes j < p of (byte + 1) * a^j modulo 2^64 (int64 wraps); a patch's hash is the
    # difference, shifted to exponent 0
    powers, inverses = _powers(len(data) + 1, data.device)
    prefix = F.pad(((data + 1) * powers[:-1]).cumsum(0), (1, 0))
    value = (prefix[t] - prefix[t - length]) * inverses[t - length]
    mixed = value ^ ((value >> 29) & 0x7FFFFFFFF)
    return length, torch.where(length > 0, (mixed & _MASK) % (rows - 1) + 1, 0)


_POWERS: dict[torch.device, tuple[Tensor, Tensor]] = {}


def _powers(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """a^0..a^(n-1) and their inverses modulo 2^64, as wrapping int64; grown on demand and kept, since every batch
    asks for them."""
    have = _POWERS.get(device)
    if have is None or len(have[0]) < n:
        size = max(n, 1 << 15)

        def table(a: int) -> Tensor:
            values, x = [], 1
            for _ in range(size):
                values.append(x - (1 << 64) if x >> 63 else x)
                x = x * a & ((1 << 64) - 1)
            return torch.tensor(values, device=device)

        _POWERS[device] = have = table(_MULTIPLIER), table(pow(_MULTIPLIER, -1, 1 << 64))
    return have[0][:n], have[1][:n]


class PatchStateEmbedding(nn.Module):
    """What the local model is told of the cut (DESIGN section 5, "telling"): the start flag and the place in the patch,
    and with `rows` also a hash of the open patch's bytes.

    With the hash the decoder can know that "ation" is a whole token. All tables start at zero, so that an untrained
    model does not depend on the cut.
    """

    max_length = 24

    def __init__(self, rows: int | None, width: int, knows_flag: bool) -> None:
        """`rows` of the table of open patches, None for no such table."""
        super().__init__()
        self.lookup_std = {"flag": 0.0, "length": 0.0}
        self.large_tables: tuple[str, ...] = ()
        self.knows_flag = knows_flag
        self.rows = None if rows is None else prime_below(rows)
        self.flag = nn.Parameter(torch.zeros(2, width), requires_grad=knows_flag)
        self.length = nn.Parameter(torch.zeros(self.max_length + 1, width))
        self.patch: nn.Parameter | None = None
        if self.rows is not None:
            self.lookup_std["patch"] = 0.0
            self.large_tables = ("patch",)
            self.patch = nn.Parameter(torch.zeros(self.rows, width))

    def told(self, data: Tensor, starts: Tensor, positions: Tensor, room: int) -> Told:
        """data, starts, positions (n,) of windows -> what is looked up, for `room` positions.

        `starts[p]` itself is in it only if the model knows it before it predicts byte p.
        """
        row = None
        if self.rows is None:
            length = open_patch_lengths(starts, positions)
        else:
            length, row = open_patch_rows(data, starts, positions, self.rows)
        spare = (0, room - len(data))
        return Told(
            F.pad(length.clamp(max=self.max_length), spare),
            None if row is None else F.pad(row, spare),
            F.pad(starts.long(), spare) if self.knows_flag else None,
        )

    def forward(self, told: Told, dtype: torch.dtype) -> Tensor:
        """-> (T, D)."""
        x = F.embedding(told.length, self.length)
        if told.row is not None and self.patch is not None:
            x = x + look_up(self.patch, told.row[:, None])
        if told.flag is not None:
            x = x + F.embedding(told.flag, self.flag)
        return x.to(dtype)
