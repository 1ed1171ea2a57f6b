"""Counts forward FLOPs from model sizes and realised patches; a multiply-add is two (DESIGN section 7).

What counts are matrix products and attention over the keys that are seen; lookups, norms and other pointwise work
count as zero.

Legend: N bytes of a window, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.byte_lm import ByteLMConfig
from models.harness import HarnessConfig
from models.layers import swiglu_hidden
from models.token_lm import TokenLMConfig

COMPONENTS = ("latent", "local_encoder", "local_decoder", "cross_attention", "head")


@dataclass(frozen=True)
class Shapes:
    """What a data set's windows look like to a model."""

    lengths: np.ndarray
    """(W,) bytes of each window."""

    patches: np.ndarray
    """(W,) latent steps of each window (tokens, for a model over tokens)."""

    @property
    def bytes(self) -> int:
        return int(self.lengths.sum())


def seen_keys(lengths: np.ndarray, window: int | None = None) -> int:
    """Pairs of query and key in causal attention over sequences of `lengths`, each query seeing at most `window`
    keys."""
    n = lengths.astype(np.int64)
    if window is None:
        return int((n * (n + 1) // 2).sum())
    short = np.minimum(n, window)
    return int((short * (short + 1) // 2 + (n - short) * window).sum())


def block_flops(width: int, layers: int, positions: int, pairs: int, hidden: int | None = None) -> float:
    """Transformer blocks: four attention products and three of SwiGLU a position, scores and mixing a pair."""
    per_position = 2 * (4 * width * width + 3 * width * (hidden or swiglu_hidden(width)))
    return float(layers * (per_position * positions + 4 * width * pairs))


def harness_flops(config: HarnessConfig, outputs: int, shapes: Shapes, routed: bool = False) -> dict[str, float]:
    """Forward FLOPs of the harness over all windows together, by component; `outputs` is 256, or 512 where
    boundaries are priced."""
    c, d, k = config, config.local_width, config.n_slots
    patches = shapes.patches if c.latent_patches == "cut" else np.ones_like(shapes.patches)
    n, p = shapes.bytes, int(patches.sum())
    local = seen_keys(shapes.lengths, c.local_window)
    cross = 0.0
    pooled, given = d, d
    if c.pool == "cross_attention":
        pooled = k * d
        cross += 2 * p * k * d * (d + d + d)  # the queries' expansion, their projection, and the one on the way out
        cross += (
            2 * n * d * 2 * d + 4 * n * k * d
        )  # keys and values of each byte; scores and mixing with its patch's slots
    if c.inject == "cross_attention":
        given = k * d
        cross += c.decoder_layers * (2 * n * d * 2 * d + 2 * p * k * d * 2 * d + 4 * n * k * d)
    bridges = sum(2 * p * w * c.latent_width for w in (pooled, given) if w != c.latent_width)
    return {
        "latent": block_flops(c.latent_width, c.latent_layers, p, seen_keys(patches), c.latent_hidden) + bridges,
        "local_encoder": block_flops(d, c.encoder_layers, n, local, c.local_hidden) + (4 * n * d * d if routed else 0),
        "local_decoder": block_flops(d, c.decoder_layers, n, local, c.local_hidden),
        "cross_attention": float(cross),
        "head": 2.0 * outputs * (n * d + (p * c.latent_width if c.latent_logits else 0)),
    }


def byte_lm_flops(config: ByteLMConfig, outputs: int, shapes: Shapes) -> dict[str, float]:
    """Forward FLOPs of a byte transformer; it counts as a local decoder, since it runs at each byte."""
    pairs = seen_keys(shapes.lengths, config.window)
    return _only(
        local_decoder=block_flops(config.width, config.layers, shapes.bytes, pairs),
        head=2.0 * shapes.bytes * config.width * outputs,
    )


def token_lm_flops(config: TokenLMConfig, vocab_size: int, shapes: Shapes) -> dict[str, float]:
    """Forward FLOPs of a transformer over tokens: all latent, and a head as wide as the vocabulary."""
    tokens = int(shapes.patches.sum())
    return _only(
        latent=block_flops(config.width, config.layers, tokens, seen_keys(shapes.patches), config.hidden),
        head=2.0 * tokens * config.width * vocab_size,
    )


# --- the paper's own formulas (BLT, appendix "FLOPs equations"), which count the entropy model as nothing


def paper_transformer_flops(layers: int, width: int, keys: float, vocab: int = 0, hidden: int | None = None) -> float:
    """Forward FLOPs a position of a transformer where a position sees half of `keys` others on average: attention, its
    four projections, feed-forward (of four times the width, or a SwiGLU `hidden` wide), and the way out to `vocab`."""
    attention = 4 * layers * width * (keys + 1) / 2
    feed_forward = layers * (16 * width**2 if hidden is None else 6 * width * hidden)
    return attention + _paper_projections(layers, width, 1) + feed_forward + 2 * width * vocab


def paper_token_flops(
    layers: int, width: int, vocab: int, bytes_per_token: float, context: int, hidden: int | None = None
) -> float:
    """Forward FLOPs a byte of a transformer over tokens, with a context of so many bytes."""
    return paper_transformer_flops(layers, width, context / bytes_per_token, vocab, hidden) / bytes_per_token


def paper_byte_flops(config: ByteLMConfig, context: int) -> float:
    """Forward FLOPs a byte of a transformer over bytes."""
    return paper_transformer_flops(config.layers, config.width, min(context, config.window), 256)


def paper_harness_flops(config: HarnessConfig, bytes_per_patch: float, context: int, outputs: int = 256) -> float:
    """Forward FLOPs a byte of a harness: the latent model once a patch, the local ones at each byte, and where they are
    cross-attention the encoder's pooling once a slot and the decoder's reading at each byte."""
    c, p, k = config, bytes_per_patch, config.n_slots
    near = min(context, c.local_window)
    total = paper_transformer_flops(c.latent_layers, c.latent_width, context / p, 0, c.latent_hidden) / p
    total += paper_transformer_flops(c.encoder_layers, c.local_width, near, 0, c.local_hidden)
    total += paper_transformer_flops(c.decoder_layers, c.local_width, near, outputs, c.local_hidden)
    if c.pool == "cross_attention":
        total += _paper_cross_attention(1, c.local_width, keys=p, ratio=p / k) * k / p
    if c.inject == "cross_attention":
        total += _paper_cross_attention(c.decoder_layers, c.local_width, keys=k, ratio=k / p)
    return total


def _paper_projections(layers: int, width: int, ratio: float) -> float:
    """Queries and outputs, and `ratio` keys and values a query."""
    return (2 * ratio + 2) * 2 * layers * width**2


def _paper_cross_attention(layers: int, width: int, keys: float, ratio: float) -> float:
    return 4 * layers * width * (keys + 1) / 2 + _paper_projections(layers, width, ratio)


def _only(**parts: float) -> dict[str, float]:
    return {name: parts.get(name, 0.0) for name in COMPONENTS}
