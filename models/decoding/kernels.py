"""Numba kernels for one decoding step on CPU, where calling many small operations costs more than they compute.

Weights are read where the modules have them, (outputs, inputs), so nothing has to be prepared or kept in step with
them. What is computed for a position does not depend on what stands beside it, to the last bit.

Legend: N new positions, D width, M outputs, H heads, E head width, L layers, B rows of a cache, S keys, K slots a
patch, R rows of a table, G looked up at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})  # sums in vectors; inf stays inf


@compiled
def product(x, weight):  # type: ignore[no-untyped-def]
    """x (N, D), weight (M, D) -> (N, M)."""
    out = np.empty((len(x), len(weight)), np.float32)
    for m in range(len(weight)):
        for n in range(len(x)):
            total = np.float32(0.0)
            for i in range(x.shape[1]):
                total += x[n, i] * weight[m, i]
            out[n, m] = total
    return out


@compiled
def add(x, y):  # type: ignore[no-untyped-def]
    """x and y (N, D) -> (N, D); a loop, as those below are, since array expressions take seconds to compile."""
    out = np.empty_like(x)
    for n in range(len(x)):
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] + y[n, i]
    return out


@compiled
def normed(x, weight, eps):  # type: ignore[no-untyped-def]
    """`RMSNorm` of x (N, D)."""
    out = np.empty_like(x)
    for n in range(len(x)):
        total = np.float32(0.0)
        for i in range(x.shape[1]):
            total += x[n, i] * x[n, i]
        scale = np.float32(1.0) / np.sqrt(total / np.float32(x.shape[1]) + np.float32(eps))
        for i in range(x.shape[1]):
            out[n, i] = x[n, i] * scale * weight[i]
    return out


@compiled
def row_sums(table, rows, skip):  # type: ignore[no-untyped-def]
    """Sums of rows of a table (R, D), those of rows (N, G), without row `skip` -> (N, D)."""
    out = np.zeros((len(rows), table.shape[1]), np.float32)
    for n in range(len(rows)):
        for row in rows[n]:
            if row != skip:
                for i in range(table.shape[1]):
                    out[n, i] += table[row, i]
    return out


@compiled
def turn(x, cos, sin, out):  # type: ignore[no-untyped-def]
    """x (E,) turned by its position's angles, written into out (E,)."""
    half = len(x) // 2
    for i in range(half):
        out[i] = x[i] * cos[i] + x[half + i] * sin[i]
        out[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i]


@compiled
def mix(q, keys, values, out):  # type: ignore[no-untyped-def]
    """Attention from q (E,) to keys and values (S, E), written into out (E,)."""
    size, width = keys.shape
    weights = np.empty(size, np.float32)
    scale = np.float32(1.0) / np.sqrt(np.float32(width))
    top = np.float32(-np.inf)
    for j in range(size):
        total = np.float32(0.0)
        for i in range(width):
            total += q[i] * keys[j, i]
        weights[j] = total * scale
        top = max(top, weights[j])
    norm = np.float32(0.0)
    for j in range(size):
        weights[j] = np.exp(weights[j] - top)
        norm += weights[j]
    for i in range(width):
        out[i] = np.float32(0.0)
    for j in range(size):
        share = weights[j] / norm
        for i in range(width):
            out[i] += share * values[j, i]


@compiled
def block(x, weights, eps, cos, sin, kv, layer, row, at, low):  # type: ignore[no-untyped-def]
    """`Block` for new positions x (N, D) -> (N, D), which are written into the cache.

    cos and sin (N, 1, E); kv (L, B, 2 H, S, E): position n goes to kv[layer, row[n], :, at[n]] and sees keys from
    low[n] on.
    """
    attention_norm, qkv, out, mlp_norm, gate_up, down = weights
    count, d = x.shape
    heads, width = kv.shape[2] // 2, kv.shape[4]
    three = product(normed(x, attention_norm, eps[0]), qkv).reshape(count, 3, heads, width)
    query = np.empty(width, np.float32)
    mixed = np.empty((count, heads, width), np.float32)
    for n in range(count):
        own = kv[layer, row[n]]
        for h in range(heads):
            turn(three[n, 1, h], cos[n, 0], sin[n, 0], own[h, at[n]])
            for i in range(width):
                own[heads + h, at[n], i] = three[n, 2, h, i]
    for n in range(count):
        own = kv[layer, row[n]]
        for h in range(heads):
            turn(three[n, 0, h], cos[n, 0], sin[n, 0], query)
            mix(query, own[h][low[n] : at[n] + 1], own[heads + h][low[n] : at[n] + 1], mixed[n, h])
    x = add(x, product(mixed.reshape(count, d), out))
    both = product(normed(x, mlp_norm, eps[1]), gate_up)
    hidden = both.shape[1] // 2
    active = np.empty((count, hidden), np.float32)
    for n in range(count):
        for i in range(hidden):
            active[n, i] = both[n, i] / (np.float32(1.0) + np.exp(-both[n, i])) * both[n, hidden + i]
    return add(x, product(active, down))


@compiled
def blocks(x, stacked, eps, cos, sin, kv, row, at, low):  # type: ignore[no-untyped-def]
    """`block` for each of L layers whose weights are stacked, (L, ...) each -> (N, D)."""
    for layer in range(len(stacked[0])):
        norm1, qkv, out, norm2, up, down = stacked
        weights = norm1[layer], qkv[layer], out[layer], norm2[layer], up[layer], down[layer]
        x = block(x, weights, eps, cos, sin, kv, layer, row, at, low)
    return x


@compiled
def read_slots(x, weights, eps, slots):  # type: ignore[no-untyped-def]
    """`PatchReader`, added to x (N, D): position n reads the keys and values slots[n], (K, 2, H, E)."""
    norm, query, out = weights
    heads, width = slots.shape[3:]
    q = product(normed(x, norm, eps), query).reshape(len(x), heads, width)
    mixed = np.empty((len(x), heads, width), np.float32)
    for n in range(len(x)):
        for h in range(heads):
            mix(q[n, h], slots[n, :, 0, h], slots[n, :, 1, h], mixed[n, h])
    return add(x, product(mixed.reshape(x.shape), out))


@compiled
def pool_patch(x, weights, eps, heads):  # type: ignore[no-untyped-def]
    """`PatchQueries` for the bytes x (N, D) of one patch -> (1, K * D)."""
    expand, query_norm, query, key_norm, key_value, out = weights
    count, d = x.shape
    width = d // heads
    top = np.full((1, d), -np.inf, np.float32)
    for n in range(count):
        for i in range(d):
            top[0, i] = max(top[0, i], x[n, i])
    slots = product(top, expand).reshape(-1, d)
    q = product(normed(slots, query_norm, eps[0]), query).reshape(-1, heads, width)
    both = product(normed(x, key_norm, eps[1]), key_value).reshape(count, 2, heads, width)
    mixed = np.empty_like(q)
    for k in range(len(slots)):
        for h in range(heads):
            mix(q[k, h], both[:, 0, h], both[:, 1, h], mixed[k, h])
    return add(slots, product(mixed.reshape(slots.shape), out)).reshape(1, -1)
