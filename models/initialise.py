"""Initial weights that depend on the seed and on a parameter's name alone, so that every segmenter starts from the same model."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

BYTE_STD = 0.5
NGRAM_STD = 0.1


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every matrix of the model anew.

    Products have a standard deviation of 1 / sqrt(inputs), products that write to a residual stream start at a tenth of it, byte and hash
    embeddings have those that the tuning sweep chose, and what is known of the cut starts at zero (DESIGN section 5).
    """
    for name, parameter in model.named_parameters():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        std = _std(name, parameter)
        if std is not None:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def _std(name: str, parameter: nn.Parameter) -> float | None:
    if parameter.ndim < 2 or "patch_state" in name:
        return None
    if name in ("byte", "token"):
        return BYTE_STD
    if name.startswith("ngrams."):
        return NGRAM_STD
    fan_in = parameter.shape[1] ** -0.5
    if name.endswith((".out.weight", ".down.weight")):
        return 0.1 * fan_in
    return fan_in
