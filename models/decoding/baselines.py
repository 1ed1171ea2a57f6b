"""Incremental decoding of the byte LM and the token LM: one step per new byte or token.

Legend: B rows (documents), V outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from models.byte_lm import ByteLM
from models.decoding.caches import KVCache, RotaryTable, recorded
from models.decoding.modules import Lookup, NormedLinear
from models.decoding.prefill import LatentCache, layers_of, lengthened
from models.decoding.running_hashes import Grams
from models.plan import Sequences
from models.token_lm import TokenLM


class ByteLMDecoder:
    """A byte transformer without patches."""

    def __init__(self, model: ByteLM, prompts: Sequence[bytes]) -> None:
        with torch.inference_mode():
            self._begin(model, prompts)

    def _begin(self, model: ByteLM, prompts: Sequence[bytes]) -> None:
        c = model.config
        self._device = model.byte.device
        blocks = layers_of(model.blocks)
        batch = lengthened(prompts, [np.zeros(len(p) + 1, bool) for p in prompts], self._device)
        with recorded({f"{i}": block.projection for i, block in enumerate(blocks)}) as seen:
            logits = model.logits(batch.data, batch.offsets)
        self._table = RotaryTable(c.width // c.heads, self._device)
        self._cache = KVCache(len(blocks), len(prompts), c.heads, c.width // c.heads, c.window, self._device)
        for i in range(len(blocks)):
            self._cache.fill(i, seen[f"{i}"][1], batch.offsets, self._table)
        self._byte = Lookup(model.byte)
        self._blocks, self._head = blocks, NormedLinear(model.norm, model.head)
        self._grams = Grams(model.ngrams, prompts) if model.ngrams is not None else None
        self.positions = np.array([len(p) for p in prompts])
        self.logits = logits[batch.offsets[1:] - 1]

    @torch.inference_mode()
    def step(self, data: np.ndarray) -> None:
        """data (B,): the next byte of each document."""
        self.positions = self.positions + 1
        x = self._byte(data)
        if self._grams is not None:
            x = x + self._grams.push(data, self.positions)
        turn, place = self._table.at(self.positions), self._cache.enter(np.arange(len(data)))
        for i, block in enumerate(self._blocks):
            x = block.step(i, x, turn, place)
        self.logits = self._head(x)

    def keep(self, rows: Sequence[int]) -> None:
        host, index = np.array(rows), torch.tensor(rows, device=self._device)
        self.positions, self.logits = self.positions[host], self.logits[index]
        self._cache.keep(index)
        if self._grams is not None:
            self._grams.keep(host)


class TokenLMDecoder:
    """A transformer over tokens; a step is a token."""

    def __init__(self, model: TokenLM, prompts: Sequence[np.ndarray]) -> None:
        """`prompts`: token ids of each document."""
        with torch.inference_mode():
            self._begin(model, prompts)

    def _begin(self, model: TokenLM, prompts: Sequence[np.ndarray]) -> None:
        self._model, self._device = model, model.token.device
        ids = [torch.tensor([model.vocab_size, *p.tolist()], device=self._device) for p in prompts]
        self._latent = LatentCache(model.latent, len(prompts), self._device)
        with self._latent.filling():
            lengths = torch.tensor([len(i) for i in ids])
            tokens = Sequences.of(lengths, int(lengths.sum())).to(self._device)
            states = model.latent(F.embedding(torch.cat(ids), model.token), tokens)
        last = lengths.to(self._device).cumsum(0) - 1
        self.logits = model.head(states[last])

    @torch.inference_mode()
    def step(self, tokens: np.ndarray) -> None:
        """tokens (B,): the next token of each document."""
        x = F.embedding(torch.from_numpy(tokens).to(self._device), self._model.token)
        self.logits = self._model.head(self._latent.step(x, np.arange(len(x))))

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self._device)
        self.logits = self.logits[index]
        self._latent.keep(index)
