"""Tiny models and texts that several test files share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from bench.data.cut_corpus import CutDocuments, Cuts
from models.batch import Windows
from models.byte_lm import ByteLM, ByteLMConfig
from models.harness import Harness, HarnessConfig, Price
from models.initialization import initialise
from models.token_lm import TokenLM, TokenLMConfig

TEXT = "The harness reads bytes; été, naïve, 東京. It pools them into patches; a patch gets a latent step.\n".encode()
SMALL = HarnessConfig(
    local_width=32, local_heads=2, encoder_layers=1, decoder_layers=2, local_window=8, latent_width=64, latent_heads=2,
    latent_layers=2, ngrams=(3, 4), ngram_rows=97, patch_rows=101, boundary_inputs="prefix",
)  # fmt: skip


def shaken(model: nn.Module, seed: int = 0, by: float = 0.15) -> nn.Module:
    """Initial weights with noise on every one of them, so that no part is silent."""
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return model.eval()


def harness(price: Price | None = None, config: HarnessConfig = SMALL) -> Harness:
    model = shaken(Harness(config, price))
    assert isinstance(model, Harness)
    return model


def byte_lm() -> nn.Module:
    return shaken(ByteLM(ByteLMConfig(width=32, layers=2, heads=2, window=8)))


def token_lm(vocab: int) -> nn.Module:
    return shaken(TokenLM(TokenLMConfig(width=32, layers=2, heads=2), vocab))


def random_starts(size: int, rng: np.random.Generator, mean: float = 3.0) -> np.ndarray:
    starts = rng.random(size) < 1 / mean
    starts[:1] = True
    return starts


def documents(rng: np.random.Generator, lengths: tuple[int, ...] = (40, 1, 17, 2, 60)) -> list[bytes]:
    return [bytes(rng.choice(np.frombuffer(TEXT, np.uint8), n)) for n in lengths]


def batch_of(docs: list[bytes], starts: list[np.ndarray]) -> Windows:
    corpus = CutDocuments.of(docs, Cuts(np.concatenate(starts)))
    return corpus.windows(np.stack((corpus.offsets[:-1], corpus.offsets[1:]), 1))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"pool": "max", "inject": "add"},
    {"pool": "mean", "slots": 1},
    {"pool": "last", "inject": "add", "ngrams": ()},
    {"slots": 3, "encoder_layers": 2, "decoder_layers": 1},
    {"boundary_inputs": "none"},
    {"boundary_inputs": "flag"},
    {"latent_patches": "document"},
]


def silence(model: nn.Module) -> None:
    """Zero what makes logits, so that every symbol is as probable as any other."""
    for name in ("head", "latent_head"):
        layer = getattr(model, name, None)
        if layer is not None:
            nn.init.zeros_(layer.weight)
