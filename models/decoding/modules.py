"""Modules of the models applied to a few new positions, with their weights at hand as arrays.

On a CPU they run compiled, elsewhere, or where there is much to compute, as torch operations.

Legend: N new positions, D width, M outputs, H heads, E head width, K slots a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.decoding import kernels
from models.decoding.caches import CachePlace, Place, Turn
from models.layers import Block, RMSNorm
from models.plan import Members
from models.pooling import PatchQueries, PatchReader

FEW = 16
"""With more new positions than these, torch's products of matrices are as fast."""

NARROW = 512
"""So are its products with vectors in wider models, and more so with several threads."""

Arrays = tuple[np.ndarray, ...]


def arrays(weights: Sequence[Tensor]) -> Arrays | None:
    """Weights as compiled code takes them; None where torch is to be used."""
    if weights[0].device.type != "cpu" or weights[0].shape[-1] > NARROW:
        return None
    return tuple(weight.detach().numpy() for weight in weights)


def rms(norm: RMSNorm, x: Tensor) -> Tensor:
    """`RMSNorm` without what its gradient needs, of x (N, D)."""
    own = arrays((norm.weight,))
    if own is not None and len(x) <= FEW:
        (weight,) = own
        return torch.from_numpy(kernels.normed(x.numpy(), weight, norm.eps))
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps)


class Layer:
    """A `Block`."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.attention, block.mlp
        self.heads, self.width = attention.heads, (attention.qkv.in_features,)
        self.attention_norm, self.mlp_norm = block.attention_norm.weight, block.mlp_norm.weight
        self.eps = block.attention_norm.eps, block.mlp_norm.eps
        self.qkv, self.out = attention.qkv.weight, attention.out.weight
        self.gate_up, self.down = mlp.gate_up.weight, mlp.down.weight
        self.projection = attention.qkv
        self._arrays = arrays((self.attention_norm, self.qkv, self.out, self.mlp_norm, self.gate_up, self.down))

    def advance(self, layer: int, x: Tensor, turn: Turn, place: Place) -> Tensor:
        """The block for new positions x (N, D), as `Block.forward` would give them among all others."""
        h = self.heads
        normed = F.rms_norm(x, self.width, self.attention_norm, self.eps[0])
        qkv = F.linear(normed, self.qkv).view(len(x), 3 * h, -1)
        turned = turn(qkv[:, : 2 * h])
        mixed = place.attend(layer, turned[:, :h], turned[:, h:], qkv[:, 2 * h :])
        x = x + F.linear(mixed, self.out)
        normed = F.rms_norm(x, self.width, self.mlp_norm, self.eps[1])
        gate, up = F.linear(normed, self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)

    def step(self, layer: int, x: Tensor, turn: Turn, place: CachePlace) -> Tensor:
        """The same where they go into a cache."""
        if self._arrays is None or len(x) > FEW:
            return self.advance(layer, x, turn, place)
        kv, row, at, low = place.arrays
        return torch.from_numpy(kernels.block(x.numpy(), self._arrays, self.eps, *turn.arrays, kv, layer, row, at, low))


class Reader:
    """A `PatchReader`."""

    def __init__(self, module: PatchReader) -> None:
        self._heads = module.heads
        self._norm, self._query, self._out = module.query_norm, module.query.weight, module.out.weight
        self._arrays = arrays((self._norm.weight, self._query, self._out))
        self._given = NormedLinear(module.slot_norm, module.key_value)

    def project(self, slots: Tensor) -> Tensor:
        """Slots of patches (N, K, D) -> their keys and values (N, K, 2, H, E)."""
        n, k, d = slots.shape
        return self._given(slots.reshape(n * k, d)).view(n, k, 2, self._heads, -1)

    def read(self, x: Tensor, slots: Tensor) -> Tensor:
        """x (N, D) and what it reads in slots (N, K, 2, H, E), one patch each -> (N, D)."""
        if self._arrays is not None and len(x) <= FEW:
            return torch.from_numpy(kernels.read_slots(x.numpy(), self._arrays, self._norm.eps, slots.numpy()))
        query = F.linear(rms(self._norm, x), self._query).view(len(x), self._heads, 1, -1)
        key, value = slots.permute(2, 0, 3, 1, 4)
        return x + F.linear(F.scaled_dot_product_attention(query, key, value).flatten(1), self._out)


class NormedLinear:
    """A norm, and the product that follows it."""

    def __init__(self, norm: RMSNorm, linear: nn.Linear) -> None:
        self._norm, self._weight = norm, linear.weight
        self._arrays = arrays((norm.weight, linear.weight))

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, M)."""
        if self._arrays is None or len(x) > FEW:
            return F.linear(rms(self._norm, x), self._weight)
        norm, weight = self._arrays
        return torch.from_numpy(kernels.product(kernels.normed(x.numpy(), norm, self._norm.eps), weight))


class BareLinear:
    """A product."""

    def __init__(self, linear: nn.Linear) -> None:
        self._weight = linear.weight
        self._arrays = arrays((linear.weight,))

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, M)."""
        if self._arrays is None or len(x) > FEW:
            return F.linear(x, self._weight)
        (weight,) = self._arrays
        return torch.from_numpy(kernels.product(x.numpy(), weight))


class Lookup:
    """A table that rows are looked up in and summed."""

    def __init__(self, table: Tensor, skip: int = -1) -> None:
        """`skip`: the row that counts as zeros."""
        self._table, self._skip = table, skip
        self._arrays = arrays((table,))

    def __call__(self, rows: np.ndarray) -> Tensor:
        """rows (N, G), or (N,) -> (N, D)."""
        rows = rows if rows.ndim == 2 else rows[:, None]
        if self._arrays is not None:
            (table,) = self._arrays
            return torch.from_numpy(kernels.row_sums(table, rows, self._skip))
        index = torch.from_numpy(rows).to(self._table.device)
        skip = self._skip if self._skip >= 0 else None
        return F.embedding_bag(index, self._table, mode="sum", padding_idx=skip)


class Pooler:
    """A `PatchQueries`."""

    def __init__(self, module: PatchQueries) -> None:
        self._module = module
        self._eps = module.query_norm.eps, module.key_norm.eps
        query, key = (module.query_norm.weight, module.query.weight), (module.key_norm.weight, module.key_value.weight)
        self._arrays = arrays((module.expand.weight, *query, *key, module.out.weight))

    def pool(self, members: Sequence[Tensor]) -> Tensor:
        """The encoder states of each patch (bytes, D) -> (N, K * D)."""
        sizes = [len(own) for own in members]
        if self._arrays is not None and sum(sizes) <= 4 * FEW:
            heads = self._module.heads
            made = [kernels.pool_patch(own.numpy(), self._arrays, self._eps, heads) for own in members]
            return torch.from_numpy(made[0] if len(made) == 1 else np.concatenate(made))
        x = torch.cat(list(members))
        pooled: Tensor = self._module(x, members_of(sizes, self._module.slots).to(x.device))
        return pooled.view(len(members), -1)


def members_of(sizes: Sequence[int], slots: int = 1) -> Members:
    """Patches of so many positions, one after another."""
    return Members.of(torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), len(sizes), slots)
