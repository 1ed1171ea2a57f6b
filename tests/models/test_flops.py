"""FLOPs: by hand for a small model, against torch's own counter, and against plain loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import batch_of
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.flops import (
    COMPONENTS,
    Shapes,
    byte_lm_flops,
    harness_flops,
    paper_byte_flops,
    paper_harness_flops,
    paper_token_flops,
    seen_keys,
    token_lm_flops,
)
from models.harness import Harness, HarnessConfig, Price
from models.initialization import initialise
from models.router import CosineRouter
from models.token_lm import TokenLM, TokenLMConfig

HAND = HarnessConfig(
    local_width=4, local_heads=1, encoder_layers=1, decoder_layers=1, local_window=2, latent_width=8, latent_heads=1,
    latent_layers=1, ngrams=(), ngram_rows=7, patch_rows=7, latent_logits=False,
)  # fmt: skip


# --- by hand


def test_a_small_harness_by_hand() -> None:
    """Six bytes in three patches, two slots of width 4 a patch, SwiGLU 32 wide.

    A local block costs 2 * (4 * 4 * 4 + 3 * 4 * 32) = 896 a byte; 11 pairs are seen (1 + 5 * 2), 16 each. A latent
    block costs 2 * (4 * 8 * 8 + 3 * 8 * 32) = 2048 a patch; 6 pairs, 32 each.
    """
    parts = harness_flops(HAND, 256, Shapes(np.array([6]), np.array([3])))
    pooling = 3 * 2 * 4 * 8 + 3 * 2 * 2 * (2 * 4 * 4) + 6 * 2 * 4 * 8 + 6 * 2 * 4 * 4  # expand, query and out, k and v
    reading = 6 * 2 * (2 * 4 * 4) + 3 * 2 * 2 * 4 * 8 + 6 * 2 * 4 * 4  # query and out, k and v of slots, scores and mix
    assert parts == {
        "latent": 3 * 2048 + 6 * 32,
        "local_encoder": 6 * 896 + 11 * 16,
        "local_decoder": 6 * 896 + 11 * 16,
        "cross_attention": pooling + reading,
        "head": 6 * 2 * 4 * 256,
    }
    assert (pooling, reading, sum(parts.values())) == (1152, 960, 31_840)


@pytest.mark.parametrize(
    ("options", "outputs", "routed", "more"),
    [
        ({}, 512, False, {"head": 12_288}),  # boundaries are priced: twice the symbols
        ({"pool": "max"}, 256, False, {"cross_attention": -1152, "latent": 3 * 2 * 4 * 8}),  # 4 wide, so widened
        ({"pool": "mean"}, 256, False, {"cross_attention": -1152, "latent": 3 * 2 * 4 * 8}),
        ({"inject": "add"}, 256, False, {"cross_attention": -960, "latent": 3 * 2 * 8 * 4}),
        ({"encoder_layers": 3}, 256, False, {"local_encoder": 2 * 5552}),
        ({"decoder_layers": 2}, 256, False, {"local_decoder": 5552, "cross_attention": 960}),
        ({"latent_layers": 2}, 256, False, {"latent": 6336}),
        ({"latent_logits": True}, 256, False, {"head": 3 * 2 * 8 * 256}),
        ({"local_window": 6}, 256, False, {"local_encoder": 160, "local_decoder": 160}),  # 21 pairs, not 11
        ({"ngrams": (3, 4), "ngram_rows": 1000}, 256, False, {}),  # lookups cost nothing
        ({"pool": "last"}, 256, True, {"cross_attention": -1152, "latent": 192, "local_encoder": 6 * 2 * 2 * 16}),
    ],
    ids=str,
)
def test_what_each_option_adds(options: dict[str, Any], outputs: int, routed: bool, more: dict[str, float]) -> None:
    shapes = Shapes(np.array([6]), np.array([3]))
    base = harness_flops(HAND, 256, shapes)
    parts = harness_flops(dataclasses.replace(HAND, **options), outputs, shapes, routed)
    assert {name: parts[name] - base[name] for name in parts if parts[name] != base[name]} == more


def test_without_latent_steps_every_window_has_one_patch() -> None:
    told = dataclasses.replace(HAND, latent_patches="document")
    assert harness_flops(told, 256, Shapes(np.array([6]), np.array([3]))) == harness_flops(
        HAND, 256, Shapes(np.array([6]), np.array([1]))
    )


def test_baselines_by_hand() -> None:
    shapes = Shapes(np.array([6, 1]), np.array([3, 1]))
    lm = byte_lm_flops(ByteLMConfig(width=4, layers=2, heads=1, window=2), 256, shapes)
    assert lm == {**dict.fromkeys(COMPONENTS, 0.0), "local_decoder": 2 * (7 * 896 + 12 * 16), "head": 7 * 2 * 4 * 256}
    tokens = token_lm_flops(TokenLMConfig(width=8, layers=2, heads=1), 1000, shapes)
    assert tokens == {**dict.fromkeys(COMPONENTS, 0.0), "latent": 2 * (4 * 2048 + 7 * 32), "head": 4 * 2 * 8 * 1000}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(1, 25))
def test_seen_keys_are_those_of_a_plain_loop(lengths: list[int], window: int) -> None:
    near = sum(1 for n in lengths for i in range(n) for j in range(i + 1) if i - j < window)
    every = sum(1 for n in lengths for i in range(n) for j in range(i + 1))
    assert seen_keys(np.array(lengths), window) == near
    assert seen_keys(np.array(lengths)) == every


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=2, max_size=6))
def test_windows_add_up(windows: list[tuple[int, int]]) -> None:
    lengths, patches = (np.array(x) for x in zip(*windows, strict=True))
    together = harness_flops(HAND, 256, Shapes(lengths, patches))
    each = [harness_flops(HAND, 256, Shapes(lengths[i : i + 1], patches[i : i + 1])) for i in range(len(windows))]
    assert together == {name: sum(e[name] for e in each) for name in COMPONENTS}


# --- the paper's formulas


@pytest.mark.parametrize(("layers", "width", "golden"), [(24, 1280, "3.14e+08"), (32, 3072, "2.13e+09")])
def test_golden_values_of_the_papers_formula(layers: int, width: int, golden: str) -> None:
    """DESIGN 7, forward and per byte: a vocabulary of 32,000, 3.7 bytes a token, a context of 8192 bytes."""
    assert f"{paper_token_flops(layers, width, 32_000, 3.7, 8192):.2e}" == golden


def test_over_tokens_our_count_is_the_papers() -> None:
    """Where SwiGLU is exactly as large as a fourfold feed-forward, and every window is full."""
    config = TokenLMConfig(width=192, layers=3, heads=3)
    ours = token_lm_flops(config, 4096, Shapes(np.full(5, 1024), np.full(5, 256)))
    assert sum(ours.values()) / (5 * 1024) == pytest.approx(paper_token_flops(3, 192, 4096, 4.0, 1024), rel=1e-12)


def test_over_bytes_our_count_is_the_papers() -> None:
    """Where every window is full, and seen whole."""
    config = ByteLMConfig(width=192, layers=3, heads=3, window=1024)
    ours = byte_lm_flops(config, 256, Shapes(np.full(5, 1024), np.full(5, 1)))
    assert sum(ours.values()) / (5 * 1024) == pytest.approx(paper_byte_flops(config, 1024), rel=1e-12)
    assert paper_byte_flops(config, 4096) == paper_byte_flops(config, 1024), "no byte sees more than the window"


@pytest.mark.parametrize(
    ("options", "less"),
    [
        ({"pool": "max"}, (2 * 4 * (3 + 1) + (2 * 3 / 2 + 2) * 2 * 16) * 2 / 3),  # two slots read three bytes
        ({"inject": "add"}, 2 * 4 * (2 + 1) + (2 * 2 / 3 + 2) * 2 * 16),  # a byte reads two slots
        ({"latent_hidden": 8}, 6 * 8 * (64 / 3 - 8) / 3),  # of 64 / 3, which four times the width comes to
    ],
    ids=str,
)
def test_the_papers_formula_goes_with_the_options(options: dict[str, Any], less: float) -> None:
    """Of `HAND`, cut every three bytes."""
    before, after = (paper_harness_flops(c, 3.0, 12) for c in (HAND, dataclasses.replace(HAND, **options)))
    assert before - after == pytest.approx(less, rel=1e-12)


def test_of_a_blt_our_count_is_the_papers_but_for_what_it_leaves_out() -> None:
    """Sizes of the paper's 400M model (its table of sizes), patches of 4.5 bytes, windows of 512 bytes.

    Ours is larger by what the paper does not write down: the bridge between the two widths and the expansion of the
    queries. It sees the keys of a sliding window all, where the paper takes half of them.
    """
    config = HarnessConfig(
        local_width=768, local_heads=12, encoder_layers=1, decoder_layers=7, local_window=512, latent_width=1536,
        latent_heads=12, latent_layers=24,
    )  # fmt: skip
    windows, length = 2, 8192
    patches = round(length / 4.5)
    ours = sum(harness_flops(config, 256, Shapes(np.full(windows, length), np.full(windows, patches))).values())
    papers = paper_harness_flops(config, length / patches, length)
    assert ours / (windows * length) == pytest.approx(papers, rel=0.05)


# --- against torch's counter

W, N, P = 4, 64, 16  # windows of N bytes in P patches: sizes that no bucket pads and that fill their rows
CONFIG = HarnessConfig(
    local_width=32, local_heads=2, encoder_layers=1, decoder_layers=2, local_window=16, latent_width=64, latent_heads=2,
    latent_layers=2, ngrams=(3,), ngram_rows=50, patch_rows=50,
)  # fmt: skip
COMPONENT_OF = {
    "latent": ("latent", "to_latent", "from_latent"),
    "local_encoder": ("encoder", "router"),
    "local_decoder": ("decoder", "blocks"),
    "cross_attention": ("queries", "readers"),
    "head": ("head", "latent_head"),
}


def windows(patches: int = P, size: int = N, count: int = W) -> Windows:
    starts = np.arange(size) % (size // patches) == 0
    batch = batch_of([bytes(i % 251 for i in range(size))] * count, [starts] * count)
    return dataclasses.replace(batch, ids=torch.arange(patches * count) % 50)


def counted(model: nn.Module, batch: Windows) -> dict[str, float]:
    """What FlopCounterMode counts, by component. It sees matrix products alone, so attention runs as products."""
    initialise(model, 0)
    # as in scoring, with the kernel that is products: what training runs instead on CPU multiplies less
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
        model(batch)
    modules = {name: sum(of.values()) for name, of in mode.get_flop_counts().items()}
    parts = dict.fromkeys(COMPONENTS, 0.0)
    for component, names in COMPONENT_OF.items():
        for name in names:
            module = getattr(model, name, None)
            each = [f"{name}.{i}" for i in range(len(module))] if isinstance(module, nn.ModuleList) else [name]
            parts[component] += sum(modules.get(f"{type(model).__name__}.{path}", 0) for path in each)
    assert sum(parts.values()) == mode.get_total_flops(), "every product belongs to a component"
    return parts


CASES: list[tuple[dict[str, Any], Price | None, bool]] = [
    ({}, None, False),
    ({"pool": "max", "inject": "add"}, None, False),
    ({"pool": "last", "slots": 3}, "end", False),
    ({"slots": 1, "encoder_layers": 2, "decoder_layers": 1}, "start", False),
    ({"pool": "last", "inject": "add"}, None, True),
]


@pytest.mark.parametrize(("options", "price", "routed"), CASES, ids=str)
def test_products_of_the_harness_are_those_that_torch_counts(
    options: dict[str, Any], price: Price | None, routed: bool
) -> None:
    """Exactly, but for attention: torch's counter cannot see into the operator that computes it."""
    config = dataclasses.replace(CONFIG, **options)
    batch = windows()
    model = Harness(config, price, CosineRouter(32, 4.0) if routed else None)
    patches = P
    if routed:  # the router cuts by itself: here everywhere, so that no row is padded
        assert model.router is not None
        model.router.forward = cut_everywhere(model.router)  # type: ignore[method-assign]
        patches = N
    shapes = Shapes(np.full(W, N), np.full(W, patches))
    got = counted(model, batch)
    want = harness_flops(config, 512 if price else 256, shapes, routed)
    d, k, n = config.local_width, config.n_slots, shapes.bytes
    local = 4 * d * seen_keys(shapes.lengths, config.local_window)
    want["local_encoder"] -= config.encoder_layers * local
    want["local_decoder"] -= config.decoder_layers * local
    want["latent"] -= config.latent_layers * 4 * config.latent_width * seen_keys(shapes.patches)
    inside = (config.pool == "cross_attention") + config.decoder_layers * (config.inject == "cross_attention")
    want["cross_attention"] -= inside * 4 * n * k * d
    assert got == want


def cut_everywhere(router: CosineRouter) -> Any:
    decide = router.forward

    def forward(x: torch.Tensor, begins: torch.Tensor) -> Any:
        return dataclasses.replace(decide(x, begins), starts=torch.ones_like(begins))

    return forward


def test_products_of_the_baselines_are_those_that_torch_counts() -> None:
    shapes = Shapes(np.full(W, N), np.full(W, P))
    small = ByteLMConfig(width=32, layers=2, heads=2, window=16)
    want = byte_lm_flops(small, 256, shapes)
    want["local_decoder"] -= 2 * 4 * 32 * seen_keys(shapes.lengths, 16)
    assert counted(ByteLM(small), windows()) == want
    tokens = TokenLMConfig(width=32, layers=2, heads=2)
    want = token_lm_flops(tokens, 50, shapes)
    want["latent"] -= 2 * 4 * 32 * seen_keys(shapes.patches)
    assert counted(TokenLM(tokens, 50), windows()) == want


WHOLE: list[tuple[dict[str, Any], Price | None, bool]] = [
    ({}, None, False),
    ({"pool": "max", "inject": "add", "ngrams": ()}, None, False),
    ({"pool": "mean", "slots": 3, "latent_hidden": 96}, "end", False),
    ({"slots": 1, "encoder_layers": 2, "decoder_layers": 1}, "start", False),
    ({"pool": "last", "inject": "add", "latent_layers": 1}, None, True),
]


@pytest.mark.parametrize(("options", "price", "routed"), WHOLE, ids=str)
def test_the_whole_is_within_a_percent_of_torchs_count(
    options: dict[str, Any], price: Price | None, routed: bool
) -> None:
    """As it is, nothing replaced, where windows are so short that attention is a small part; every option is there."""
    config = dataclasses.replace(CONFIG, **{"local_width": 64, "latent_width": 128, "local_window": 2, **options})
    model = Harness(config, price, CosineRouter(64, 4.0) if routed else None)
    if model.router is not None:
        model.router.forward = cut_everywhere(model.router)  # type: ignore[method-assign]
    length, patches = (8, 8) if routed else (32, 8)  # where every byte is a patch, a row is short to be a small part
    shapes = Shapes(np.full(128, length), np.full(128, patches))
    parts = harness_flops(config, 512 if price else 256, shapes, routed)
    got = counted(model, windows(patches, length, 128))
    assert sum(parts.values()) == pytest.approx(sum(got.values()), rel=0.01)
    assert set(parts) == set(COMPONENTS)


def test_the_baselines_are_within_a_percent_of_torchs_count() -> None:
    shapes = Shapes(np.full(128, 32), np.full(128, 8))
    small = ByteLMConfig(width=64, layers=2, heads=2, window=2)
    got = sum(counted(ByteLM(small), windows(8, 32, 128)).values())
    assert sum(byte_lm_flops(small, 256, shapes).values()) == pytest.approx(got, rel=0.01)
    tokens = TokenLMConfig(width=128, layers=2, heads=2, hidden=192)
    got = sum(counted(TokenLM(tokens, 50), windows(8, 32, 128)).values())
    assert sum(token_lm_flops(tokens, 50, shapes).values()) == pytest.approx(got, rel=0.01)
