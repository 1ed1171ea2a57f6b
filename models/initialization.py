"""Initial weights as a function of the seed and the parameter's name, so that all segmenters start from the same
model."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

SMALL = (".out.weight", ".down.weight", "latent_head.weight")
"""Products that begin at a tenth of their scale."""


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every matrix of the model anew.

    Products have a standard deviation of 1 / sqrt(inputs), and a tenth of that where they write to a residual
    stream, or to logits beside the head. What is looked up has the one that the module gives as `lookup_std`, by
    parameter name; a lookup without one keeps its zeros, as what is known of the cut does (DESIGN section 5).
    """
    stds = {
        f"{path}.{name}" if path else name: std
        for path, module in model.named_modules()
        for name, std in getattr(module, "lookup_std", {}).items()
    }
    products = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, parameter in model.named_parameters():
        if name in products:
            std = parameter.shape[1] ** -0.5 * (0.1 if name.endswith(SMALL) else 1.0)
        elif name in stds:
            std = stds[name]
        else:
            continue
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
