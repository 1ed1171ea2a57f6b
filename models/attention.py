"""One attention for all of a model: `attend`, over consecutive segments of flat vectors.

Legend: Q queries, K keys (of all segments, each in one flat vector), N segments, H heads, E head width, W window.

The latent transformer, the local windows, pooling and reading are all this: query i of a segment sees keys of the same
segment alone. On CUDA in half precision it is torch's variable-length attention (flash attention); elsewhere the
operator `patchbench::attend`, which is products of blocks where attention is causal, and compiled loops where a few
queries meet a few keys. `attend_dense` is what both are tested against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

Window = tuple[int, int]
"""How many keys a query sees before and after its own place, as torch has it; -1 is all of the segment."""

ALL: Window = (-1, -1)
CAUSAL: Window = (-1, 0)

HALF: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16)
"""What flash attention computes in."""

SHORT = 64
"""A softmax over fewer scores than this is two to three times faster in float32 than in bfloat16 (CPU)."""

ROWS = 256
"""Queries of a long sequence that are taken together, so that half of the scores of later keys are never computed."""

APART = 32000
"""What it costs to attend to another group of segments beside its scores, in scores (CPU, forward and backward)."""

UNSEEN = -1e30
"""Added to the score of a key that is not seen; finite, so that it may be multiplied by zero."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, window: Window = ALL
) -> Tensor:
    """q (Q, H, E), k and v (K, H, E) -> (Q, H, E): softmax(q k / sqrt(E)) v within each segment.

    Segment n is queries cu_q[n]..cu_q[n + 1] - 1 and keys cu_k[n]..cu_k[n + 1] - 1, cu (N + 1,) int32; `max_q` and
    `max_k` are at least as large as any segment. A query of a segment without keys gets zeros. `window` is `ALL`,
    `CAUSAL`, or (W - 1, 0) for the last W keys; the last two want cu_q and cu_k to be equal.
    """
    if q.device.type != "cpu" and q.dtype in HALF and q.shape[-1] % 8 == 0:
        from torch.nn.attention.varlen import varlen_attn  # here: it loads torch's compiler, which takes 1.5 s

        flash = varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, window_size=window)
        assert isinstance(flash, Tensor)
        return flash
    if q.device.type != "cpu" and window == ALL:
        return _attend_pairs(q, k, v, cu_q, cu_k)
    out: Tensor = torch.ops.patchbench.attend(q, k, v, cu_q, cu_k, max_q, max_k, *window)[0]
    return out


def attend_dense(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, window: Window = ALL) -> Tensor:
    """`attend` with every score written down: what the others are tested against."""
    of_q, of_k = segment_of(cu_q, len(q)), segment_of(cu_k, len(k))
    seen = of_q[:, None] == of_k
    if window[1] == 0:
        behind = torch.arange(len(q), device=q.device)[:, None] - torch.arange(len(k), device=q.device)
        seen &= (behind >= 0) & ((behind <= window[0]) if window[0] >= 0 else True)
    score = torch.einsum("qhe,khe->hqk", q, k) * q.shape[-1] ** -0.5
    weight = torch.softmax(score.masked_fill(~seen, UNSEEN), -1) * seen
    return torch.einsum("hqk,khe->qhe", weight, v)


def segment_of(cu: Tensor, count: int) -> Tensor:
    """(count,): the segment of each place."""
    sizes = cu.diff()
    return torch.repeat_interleave(torch.arange(len(sizes), device=cu.device), sizes, output_size=count)


def _attend_pairs(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor) -> Tensor:
    """`ALL`, pair by pair of query and key, for what flash attention does not take (float32 on CUDA)."""
    sizes = cu_k.diff()[segment_of(cu_q, len(q))]
    query = torch.repeat_interleave(torch.arange(len(q), device=q.device), sizes)
    first = cu_k[:-1][segment_of(cu_q, len(q))] - (sizes.cumsum(0) - sizes)
    key = torch.arange(len(query), device=q.device) + first[query]
    score = (q[query] * k[key]).sum(-1) * q.shape[-1] ** -0.5
    index = query[:, None].expand_as(score)
    top = score.new_zeros(len(q), q.shape[1]).scatter_reduce(0, index, score.detach(), "amax", include_self=False)
    weight = (score - top[query]).exp()
    norm = weight.new_zeros(top.shape).index_add(0, query, weight)
    return torch.zeros_like(q).index_add(0, query, (weight / norm[query])[..., None] * v[key])


def _forward(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, left: int, right: int
) -> tuple[Tensor, Tensor]:
    """The outcome, and in one flat vector what the way back needs of it: weights, or logarithms of their sums."""
    if right < 0:
        wide = [_array(x) for x in (q, k, v)]
        mixed, log_sums = np.zeros_like(wide[0]), np.zeros(q.shape[:2], wide[0].dtype)
        _loops(*wide, cu_q.cpu().numpy(), cu_k.cpu().numpy(), max_k, mixed, log_sums)
        return _like(mixed, q), torch.from_numpy(log_sums).flatten()
    blocks = _blocks(q, cu_k, max_k, left)
    out, kept = blocks.forward(*(_heads_first(x, blocks.room) for x in (q, k, v)))
    return _places_first(out, len(q)), kept


_attend = torch.library.custom_op("patchbench::attend", _forward, mutates_args=())


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, left: int, right: int
) -> tuple[Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    return _as_made(q, right), q.new_empty(kept, dtype=_accumulated(q.dtype) if right < 0 else q.dtype)


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    kept: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_k: int,
    left: int,
    right: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    if right < 0:
        wide = [_array(x) for x in (grad, q, k, v, out)]
        grads = [np.zeros_like(x) for x in wide[1:4]]
        _loops_backward(*wide, kept.view(q.shape[:2]).numpy(), cu_q.cpu().numpy(), cu_k.cpu().numpy(), *grads)
        return _like(grads[0], q), _like(grads[1], k), _like(grads[2], v)
    blocks = _blocks(q, cu_k, max_k, left)
    found = blocks.backward(kept, *(_heads_first(x, blocks.room) for x in (q, k, v, out, grad)))
    to_q, to_k, to_v = (_places_first(x, len(q)) for x in found)
    return to_q, to_k, to_v


_attend_backward = torch.library.custom_op("patchbench::attend_backward", _backward, mutates_args=())


@_attend_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    kept: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_k: int,
    left: int,
    right: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return _as_made(q, right), _as_made(k, right), _as_made(v, right)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_q, cu_k, _, max_k, left, right = inputs
    ctx.save_for_backward(q, k, v, *output, cu_q, cu_k)
    ctx.rest = max_k, left, right
    ctx.set_materialize_grads(False)  # else zeros as large as `kept` are made for what has no gradient


def _gradient(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    if grads[0] is None:
        return (None,) * 9
    found = torch.ops.patchbench.attend_backward(grads[0], *ctx.saved_tensors, *ctx.rest)
    return *found, None, None, None, None, None, None


_attend.register_autograd(_gradient, setup_context=_remember)


# --- causal: products of blocks, heads first in memory


def _as_made(x: Tensor, right: int) -> Tensor:
    """A tensor like x (T, H, E), laid out as the outcomes below are."""
    t, h, e = x.shape
    return x.new_empty(x.shape) if right < 0 else x.new_empty(h, t, e).transpose(0, 1)


def _heads_first(x: Tensor, room: int | None) -> Tensor:
    """x (T, H, E) -> (H, T, E), or (H, room, E) with zeros beyond T; x itself where it lies so in memory."""
    heads = x.transpose(0, 1)
    spare = 0 if room is None else room - len(x)
    return F.pad(heads, (0, 0, 0, spare)) if spare else heads.contiguous()


def _places_first(x: Tensor, t: int) -> Tensor:
    """(H, room, E) -> (T, H, E), heads still first in memory."""
    return x[:, :t].contiguous().transpose(0, 1)


def _blocks(q: Tensor, cu: Tensor, longest: int, left: int) -> _Band | _Spans:
    """How segments are laid out, kept with `cu`: all layers ask for the same, forward and backward."""
    window = left + 1 if 0 <= left < longest - 1 else 0
    held: dict[Any, _Band | _Spans] = cu.__dict__.setdefault("blocks", {})
    if (window, q.dtype) not in held:
        held[window, q.dtype] = _Band(len(q), cu, window, q.dtype) if window else _Spans(cu)
    return held[window, q.dtype]


def _softmax(score: Tensor, out: Tensor) -> Tensor:
    if score.shape[-1] < SHORT and score.dtype == torch.bfloat16:
        return out.copy_(torch.softmax(score.float(), -1))
    return torch.softmax(score, -1, out=out)


class _Band:
    """A window: blocks of W positions, B a head, against themselves and the block before.

    Slot j of query i is key j of the own block where j <= i, and of the block before where j > i: a window of W keys
    has one key for each slot, so no score is computed only to be masked by it.
    """

    def __init__(self, t: int, cu: Tensor, window: int, dtype: torch.dtype) -> None:
        self.window, self.room = window, -(-t // window) * window
        own = F.pad(segment_of(cu, t), (0, self.room - t), value=len(cu)).view(-1, window)
        before = torch.cat((torch.full_like(own[:1], -1), own[:-1]))
        inside = torch.ones(window, window, dtype=torch.bool, device=cu.device).tril_()
        seen = own[:, :, None] == torch.where(inside, own[:, None], before[:, None])
        self.own, self.other = inside.to(dtype), (~inside).to(dtype)
        self.bias = torch.zeros(seen.shape, dtype=dtype, device=cu.device).masked_fill_(~seen, UNSEEN)
        """(B, W, W)."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h, _, e = q.shape
        q, k, v = (x.view(-1, self.window, e) for x in (q * e**-0.5, k, v))
        score = torch.bmm(q, k.mT).mul_(self.own)
        score[1:].addcmul_(torch.bmm(q[1:], k[:-1].mT), self.other)
        score.view(h, *self.bias.shape).add_(self.bias)
        weight = _softmax(score, score)
        here, back = kept = weight.new_empty(2, *weight.shape)
        torch.mul(weight, self.own, out=here)
        torch.mul(weight, self.other, out=back)
        out = torch.bmm(here, v)
        out[1:].baddbmm_(back[1:], v[:-1])
        return out.view(h, self.room, e), kept.flatten()

    def backward(self, kept: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q, k, v, out, grad = (x.view(-1, self.window, shape[-1]) for x in (q * scale, k, v, out, grad))
        here, back = kept.view(2, -1, self.window, self.window)
        along = torch.linalg.vecdot(grad, out).neg_().unsqueeze(-1)
        # the score's gradient is weight * (grad . v - grad . out): no pass over scores for the softmax's sums
        slope = torch.baddbmm(along, grad, v.mT).mul_(here)
        to_q, to_k, to_v = torch.bmm(slope, k), torch.bmm(slope.mT, q), torch.bmm(here.mT, grad)
        slope = torch.baddbmm(along[1:], grad[1:], v[:-1].mT).mul_(back[1:])
        to_q[1:].baddbmm_(slope, k[:-1])
        to_k[:-1].baddbmm_(slope.mT, q[1:])
        to_v[:-1].baddbmm_(back[1:].mT, grad[1:])
        return to_q.mul_(scale).view(shape), to_k.view(shape), to_v.view(shape)


@dataclass(frozen=True)
class _Group:
    """Segments that are computed together, all of them padded to the longest."""

    place: Tensor
    """(G, S): where each of their positions lies; where there is none, the last of the segment."""

    real: Tensor
    """(G, S) bool."""

    @cached_property
    def kept(self) -> tuple[Tensor, Tensor]:
        """Which of G * S places are real, and where those lie."""
        return self.real.flatten().nonzero()[:, 0], self.place[self.real]

    def take(self, x: Tensor) -> Tensor:
        """x (H, T, E) -> (H * G, S, E)."""
        return x.index_select(1, self.place.flatten()).view(-1, self.place.shape[1], x.shape[-1])

    def put(self, x: Tensor, new: Tensor) -> None:
        """The opposite, but for what is not real."""
        real, place = self.kept
        x.index_copy_(1, place, new.view(len(x), -1, new.shape[-1]).index_select(1, real))


class _Alone:
    """A segment, or several of one length that make up all positions."""

    def __init__(self, begin: int, end: int, size: int) -> None:
        self.begin, self.end, self.size = begin, end, size

    def take(self, x: Tensor) -> Tensor:
        return x[:, self.begin : self.end].reshape(-1, self.size, x.shape[-1])

    def put(self, x: Tensor, new: Tensor) -> None:
        x[:, self.begin : self.end] = new.view(len(x), -1, new.shape[-1])


class _Spans:
    """All earlier keys of the segment: segments of about a length together, `ROWS` queries at a time."""

    room = None

    def __init__(self, cu: Tensor) -> None:
        bounds = cu.cpu().numpy().astype(np.int64)
        sizes, begins = np.diff(bounds), bounds[:-1]
        order = np.argsort(-sizes, kind="stable")
        order = order[sizes[order] > 0]
        self.groups: list[_Group | _Alone] = []
        while len(order):
            longest, left = sizes[order[0]], np.arange(len(order), 0, -1)
            apart = (longest**2 - sizes[order] ** 2) * left > APART
            count = int(apart.argmax()) if apart.any() else len(order)
            own, order = np.sort(order[:count]), order[count:]
            n, begin = sizes[own], begins[own]
            if count == 1 or ((n[0] == n).all() and (np.diff(begin) == longest).all()):
                self.groups.append(_Alone(int(begin[0]), int(begin[-1] + longest), int(longest)))
                continue
            place = np.arange(longest)
            index = begin[:, None] + np.minimum(place, n[:, None] - 1)
            self.groups.append(_Group(*(torch.from_numpy(x).to(cu.device) for x in (index, place < n[:, None]))))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        q, out = q * q.shape[-1] ** -0.5, torch.empty_like(q)
        taken = [[group.take(x) for x in (q, k, v)] for group in self.groups]
        kept = q.new_empty(sum(len(x) * (b - a) * b for x, _, _ in taken for a, b in _tiles(x.shape[1])))
        later = torch.full((ROWS, ROWS), UNSEEN, dtype=q.dtype, device=q.device).triu_(1)
        at = 0
        for group, (query, key, value) in zip(self.groups, taken, strict=True):
            news = []
            for a, b in _tiles(query.shape[1]):
                score = torch.bmm(query[:, a:b], key[:, :b].mT)
                score[:, :, a:].add_(later[: b - a, : b - a])
                weight = _softmax(score, kept[at : at + score.numel()].view_as(score))
                at += weight.numel()
                news.append(torch.bmm(weight, value[:, :b]))
            group.put(out, _joined(news))
        return out, kept

    def backward(self, kept: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        scale, grads = q.shape[-1] ** -0.5, [torch.empty_like(x) for x in (q, k, v)]
        q = q * scale
        along = torch.linalg.vecdot(grad, out).neg_().unsqueeze(-1)
        at = 0
        for group in self.groups:
            query, key, value, given, shift = (group.take(x) for x in (q, k, v, grad, along))
            if isinstance(group, _Group):
                shape = len(q), *group.real.shape, 1
                for x in (given, shift):
                    x.view(*shape[:3], -1).mul_(group.real[..., None])
            tiles, to_q = list(_tiles(query.shape[1])), []
            if len(tiles) > 1:  # sums over tiles
                to_k, to_v = torch.zeros_like(key), torch.zeros_like(value)
            for a, b in tiles:
                weight = kept[at : at + len(query) * (b - a) * b].view(len(query), b - a, b)
                at += weight.numel()
                own = given[:, a:b]
                slope = torch.baddbmm(shift[:, a:b], own, value[:, :b].mT).mul_(weight)
                to_q.append(torch.bmm(slope, key[:, :b]))
                if len(tiles) == 1:
                    to_k, to_v = torch.bmm(slope.mT, query), torch.bmm(weight.mT, own)
                else:
                    to_k[:, :b].baddbmm_(slope.mT, query[:, a:b])
                    to_v[:, :b].baddbmm_(weight.mT, own)
            for x, new in zip(grads, (_joined(to_q).mul_(scale), to_k, to_v), strict=True):
                group.put(x, new)
        return tuple(grads)


def _joined(tiles: Sequence[Tensor]) -> Tensor:
    """Along positions."""
    return tiles[0] if len(tiles) == 1 else torch.cat(list(tiles), 1)


def _tiles(size: int) -> Iterator[tuple[int, int]]:
    for a in range(0, size, ROWS):
        yield a, min(a + ROWS, size)


# --- a few queries against a few keys: loops over segments


def _accumulated(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().to("cpu", _accumulated(x.dtype)).contiguous().numpy()


def _like(x: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(x).to(tensor)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _loops(q, k, v, cu_q, cu_k, longest, out, log_sums):  # type: ignore[no-untyped-def]
    """out (Q, H, E) and log_sums (Q, H), zeros so far, are written."""
    heads, width = q.shape[1:]
    scale = q.dtype.type(width**-0.5)
    weights = np.empty(longest, q.dtype)
    for n in range(len(cu_q) - 1):
        first, last = cu_k[n], cu_k[n + 1]
        if first == last:
            continue
        for i in range(cu_q[n], cu_q[n + 1]):
            for h in range(heads):
                top = -np.inf
                for j in range(first, last):
                    total = q.dtype.type(0)
                    for e in range(width):
                        total += q[i, h, e] * k[j, h, e]
                    weights[j - first] = total * scale
                    top = max(top, weights[j - first])
                norm = q.dtype.type(0)
                for j in range(last - first):
                    weights[j] = np.exp(weights[j] - top)
                    norm += weights[j]
                log_sums[i, h] = top + np.log(norm)
                for j in range(first, last):
                    share = weights[j - first] / norm
                    for e in range(width):
                        out[i, h, e] += share * v[j, h, e]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _loops_backward(grad, q, k, v, out, log_sums, cu_q, cu_k, to_q, to_k, to_v):  # type: ignore[no-untyped-def]
    """to_q, to_k and to_v, zeros so far, are written."""
    heads, width = q.shape[1:]
    scale = q.dtype.type(width**-0.5)
    for n in range(len(cu_q) - 1):
        for i in range(cu_q[n], cu_q[n + 1]):
            for h in range(heads):
                along = q.dtype.type(0)
                for e in range(width):
                    along += grad[i, h, e] * out[i, h, e]
                for j in range(cu_k[n], cu_k[n + 1]):
                    score, slope = q.dtype.type(0), q.dtype.type(0)
                    for e in range(width):
                        score += q[i, h, e] * k[j, h, e]
                        slope += grad[i, h, e] * v[j, h, e]
                    weight = np.exp(score * scale - log_sums[i, h])
                    slope = weight * (slope - along) * scale
                    for e in range(width):
                        to_q[i, h, e] += slope * k[j, h, e]
                        to_k[j, h, e] += slope * q[i, h, e]
                        to_v[j, h, e] += weight * grad[i, h, e]
