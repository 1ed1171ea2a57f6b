"""One tiny model of every kind, with what cuts its text, that several test files share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tiny import SMALL, TEXT, batch_of, byte_lm, harness, shaken, token_lm
from torch import nn

import patchers
from bench.evaluation.byte_model import CutModel
from bench.evaluation.generation import Wish
from models.byte_lm import ByteLM
from models.decoding.generate import Limits
from models.decoding.sampling import Sampling
from models.harness import Harness
from models.plan import Sequences
from models.router import CosineRouter
from models.token_lm import TokenLM
from patchers import Patcher

WINDOW = 64


@functools.cache
def learnt(name: str) -> Patcher:
    options = {"vocab": 300} if name == "bpe" else {}
    return patchers.create(name, **options).fit([TEXT * 20])


def routed() -> Harness:
    config = dataclasses.replace(SMALL, pool="last")
    model = shaken(Harness(config, router=CosineRouter(config.local_width, 4.0)))
    assert isinstance(model, Harness)
    return model


KINDS: dict[str, Callable[[], tuple[nn.Module, Patcher | None]]] = {
    "stride": lambda: (harness(), patchers.create("stride")),
    "entropy": lambda: (harness(config=dataclasses.replace(SMALL, pool="max", inject="add")), learnt("entropy")),
    "end": lambda: (harness("end"), learnt("bpe")),
    "start": lambda: (harness("start"), learnt("bpe")),
    "router": lambda: (routed(), patchers.create("hnet")),
    "byte_lm": lambda: (byte_lm(), None),
    "token_lm": lambda: (token_lm(learnt("bpe").vocab_size), learnt("bpe")),  # type: ignore[attr-defined]
}


def wish(size: int = 40, seed: int = 0, until: tuple[bytes, ...] = (), utf8: bool = False, **sampling: Any) -> Wish:
    return Wish(Limits(size, until, utf8), Sampling(**sampling), seed)


def uncached(module: nn.Module, patcher: Patcher | None, prompt: bytes, size: int) -> bytes:
    """Greedy writing by the full forward alone, all of it again for each byte."""
    data = prompt
    ids = list(patcher.encode(prompt)[0]) if isinstance(module, TokenLM) else []  # type: ignore[union-attr]
    starts = patcher.segment(prompt) if isinstance(module, Harness) and module.price and patcher else np.zeros(0, bool)
    while len(data) < len(prompt) + size:
        with torch.no_grad():
            if isinstance(module, ByteLM):
                logits = module.logits(torch.tensor(list(data + b"\0")), torch.tensor([0, len(data) + 1]))[-1]
                data += bytes([int(logits.argmax())])
            elif isinstance(module, TokenLM):
                before = torch.tensor([module.vocab_size, *ids])
                tokens = Sequences.of(torch.tensor([len(before)]), len(before))
                states = module.latent(torch.nn.functional.embedding(before, module.token), tokens)
                ids.append(int(module.head(states)[-1].argmax()))
                assert patcher is not None
                data += patcher.tokens()[ids[-1]]  # type: ignore[attr-defined]
            elif isinstance(module, Harness) and module.price is None:
                assert patcher is not None
                cut = np.zeros(len(data) + 1, bool) if module.router else patcher.segment(data + b"\0")
                data += bytes([int(module.logits(batch_of([data + b"\0"], [cut]))[-1].argmax())])
            else:
                assert isinstance(module, Harness)
                if module.price == "end" and len(starts) == len(data):
                    if len(data) == 0:
                        starts = np.array([True])
                    else:
                        starts = np.append(starts, uncached_end(module, data, starts))
                known = starts if module.price == "end" else np.append(starts, False)
                pair = module.logits(batch_of([data + b"\0"], [known]))[-1].double().view(2, 256)
                if module.price == "start" and not data:
                    pair[0] = -torch.inf
                byte = int(pair.logsumexp(0).argmax())
                data += bytes([byte])
                starts = np.append(starts, bool(pair[1, byte] > pair[0, byte]))
    return data[len(prompt) : len(prompt) + size]


def uncached_end(module: Harness, prompt: bytes, starts: np.ndarray) -> bool:
    """Whether the model finds that a prompt's last byte ends its patch."""
    pair = module.logits(batch_of([prompt], [starts]))[-1].view(2, 256)[:, prompt[-1]]
    return bool(pair[1] > pair[0])


def model_of(kind: str, window: int = WINDOW, batch_bytes: int = 400) -> CutModel:
    module, patcher = KINDS[kind]()
    if patcher is not None and patcher.kind == "in-model":
        patcher = None  # the model cuts by itself
    return CutModel(module, patcher, window, batch_bytes=batch_bytes, with_ids=kind == "token_lm")
