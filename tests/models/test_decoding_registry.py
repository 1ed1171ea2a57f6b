"""Decoding and writing with every patcher of the registry and models of random weights: a new patcher is tested by
existing."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_kinds import uncached, wish
from patcher_cases import built_in
from tiny import OPTIONS, SMALL, TEXT, batch_of, shaken
from tokenizer_files import options_for
from torch import nn

import patchers
from bench.evaluation.generation import continuations
from models.decoding.baselines import TokenLMDecoder
from models.decoding.step import HarnessDecoder
from models.harness import Harness
from models.plan import Sequences
from models.token_lm import TokenLM, TokenLMConfig
from patchers import Patcher

CLOSE = 1e-4
STEPS = 12
FRAGMENTS = [b" ", b"\n", b"\x00", b"\xff", b"\x80", b"\xe2\x82", "é".encode(), b"the ", b"patch", b"aaaa", b", "]
anything = st.binary(max_size=20) | st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join)


def kinds_of(name: str) -> list[str]:
    """How a model can be cut by this patcher: told by it, by a router, with predicted flags; or over tokens."""
    cls = patchers.get(name)
    if cls.kind == "in-model":
        return ["router"]
    return ["told"] if cls.causal else ["end", "start", *(["tokens"] if hasattr(cls, "encode") else [])]


@functools.cache
def learnt(name: str) -> Patcher:
    return patchers.create(name, **options_for(name)).fit([TEXT * 20])


def model_of(name: str, kind: str, options: dict[str, Any] | None = None, seed: int = 0) -> nn.Module:
    patcher = learnt(name)
    if kind == "tokens":
        return shaken(TokenLM(TokenLMConfig(width=32, layers=2, heads=2), patcher.vocab_size), seed)  # type: ignore[attr-defined]
    sizes = dataclasses.replace(SMALL, **(options or {}))
    if kind == "router":
        sizes = dataclasses.replace(sizes, pool="last")
        return shaken(Harness(sizes, router=patcher.router(sizes.local_width)), seed)
    return shaken(Harness(sizes, kind if kind != "told" else None), seed)  # type: ignore[arg-type]


every = pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in built_in() for kind in kinds_of(name)])
harnesses = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in built_in() for kind in kinds_of(name) if kind != "tokens"]
)


@dataclasses.dataclass
class Row:
    """A document of which the first bytes are the prompt, and what the full forward says of it alone."""

    data: bytes
    prompt: int
    starts: np.ndarray
    """One entry more than bytes."""

    want: torch.Tensor
    """(len(data) + 1, V)."""


def row_of(model: Harness, patcher: Patcher, prompt: bytes, rest: bytes) -> Row:
    data = prompt + rest
    starts = np.arange(len(data) + 1) == 0 if model.router is not None else patcher.segment(data + b"\0")
    with torch.no_grad():
        batch = batch_of([data + b"\0"], [starts])
        decoded = model.states(batch, torch.float32)
        want = model.read_out(decoded)
    if decoded.routing is not None:
        starts = decoded.routing.starts.numpy()
    return Row(data, len(prompt), starts, want)


@harnesses
def test_every_step_of_every_row_is_the_full_forwards(name: str, kind: str) -> None:
    """Cached logits, in batches of documents at different places, and as many latent steps as patches."""
    patcher = learnt(name)

    @settings(max_examples=6, derandomize=True, database=None)
    @given(
        st.lists(st.tuples(anything, st.binary(min_size=STEPS, max_size=STEPS)), min_size=1, max_size=3),
        st.sampled_from(OPTIONS),
        st.integers(0, 1000),
    )
    def holds(texts: list[tuple[bytes, bytes]], options: dict[str, Any], seed: int) -> None:
        model = model_of(name, kind, options, seed)
        assert isinstance(model, Harness)
        rows = [row_of(model, patcher, *text) for text in texts]
        prompts = [row.data[: row.prompt] for row in rows]
        streams = [patcher.stream() for _ in rows] if kind == "told" else []
        told: list[np.ndarray] | None = [row.starts[: row.prompt + (kind == "end")] for row in rows]
        if kind == "told":
            told = [stream.prime(prompt) for stream, prompt in zip(streams, prompts, strict=True)]
        decoder = HarnessDecoder(model, prompts, told if kind != "router" else None)
        for step in range(STEPS + 1):
            for i, row in enumerate(rows):
                p = row.prompt + step
                assert torch.allclose(decoder.logits[i], row.want[p], atol=CLOSE), (i, step)
                known = row.starts[: p + (kind != "start")].sum()
                assert decoder.patches[i] == max(1, known), "latent steps are patches"
            if step == STEPS:
                return
            places = [row.prompt + step for row in rows]
            byte = [row.data[p] for row, p in zip(rows, places, strict=True)]
            flags = None
            if kind == "told":
                flags = np.array([stream.push(b) for stream, b in zip(streams, byte, strict=True)])
            elif kind != "router":
                flags = np.array([row.starts[p + (kind == "end")] for row, p in zip(rows, places, strict=True)])
            decoder.step(np.array(byte), flags)

    holds()


@pytest.mark.parametrize("name", [name for name in built_in() if "tokens" in kinds_of(name)])
def test_every_step_over_tokens_is_the_full_forwards(name: str) -> None:
    patcher = learnt(name)

    @settings(max_examples=6, derandomize=True, database=None)
    @given(st.lists(anything, min_size=1, max_size=3), st.integers(0, 1000))
    def holds(prompts: list[bytes], seed: int) -> None:
        model = model_of(name, "tokens", seed=seed)
        assert isinstance(model, TokenLM)
        rng = np.random.default_rng(seed)
        begun = [patcher.encode(prompt)[0].astype(np.int64) for prompt in prompts]  # type: ignore[attr-defined]
        rest = rng.integers(0, model.vocab_size, (STEPS, len(prompts)))
        decoder = TokenLMDecoder(model, begun)
        for step in range(STEPS):
            for i, ids in enumerate(begun):
                before = torch.tensor([model.vocab_size, *ids.tolist(), *rest[:step, i].tolist()])
                tokens = Sequences.of(torch.tensor([len(before)]), len(before))
                with torch.no_grad():
                    states = model.latent(nn.functional.embedding(before, model.token), tokens)
                    assert torch.allclose(decoder.logits[i], model.head(states)[len(before) - 1], atol=CLOSE)
            decoder.step(rest[step])

    holds()


PROMPTS = [b"", b"\xff\xc3(\x80 \xe6\x9d", TEXT[:25]]


@every
def test_greedy_writing_is_the_uncached_one_alone_and_in_a_batch(name: str, kind: str) -> None:
    module, patcher = model_of(name, kind), learnt(name)
    whole = [uncached(module, patcher, prompt, 24) for prompt in PROMPTS]
    assert continuations(module, patcher, PROMPTS, wish(24)) == whole
    assert [continuations(module, patcher, [prompt], wish(24))[0] for prompt in PROMPTS] == whole
    stop = whole[2][5:7]
    ended = [text[: text.find(stop)] if stop in text else text for text in whole]
    assert continuations(module, patcher, PROMPTS, wish(24, until=(stop,))) == ended


@pytest.mark.slow
@every
def test_512_greedy_bytes_are_the_uncached_ones(name: str, kind: str) -> None:
    module, patcher = model_of(name, kind), learnt(name)
    assert continuations(module, patcher, [TEXT[:20]], wish(512))[0] == uncached(module, patcher, TEXT[:20], 512)
