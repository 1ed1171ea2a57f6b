"""`ByteModel`, the interface that tasks use: nats per byte for any patcher or vocabulary.

Legend: T bytes of a batch of windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn

from bench.data.cut_corpus import CutDocuments, batches_of_spans, cut_together, scoring_spans
from bench.evaluation.continuations import Scored, scored
from bench.evaluation.features import Features, features
from bench.evaluation.generation import Wish, can_write, continuations, stream
from bench.evaluation.token_bytes import TokenBytes
from bench.system import distributed
from models.decoding.generate import Limits
from models.decoding.sampling import Sampling
from models.harness import Harness
from models.states import HasStates, Place
from patchers import Patcher, Starts
from patchers.rules import NoPatches


@dataclass(frozen=True)
class Scores:
    """Per document, per byte."""

    nats: list[np.ndarray]
    """-ln p of each byte, boundary cost included, float64."""

    flag_nats: list[np.ndarray] | None
    """The part of it that is spent on boundaries, where they are priced."""


class ByteModel(Protocol):
    """What tasks are written against."""

    def nats(self, docs: Sequence[bytes], alike: Sequence[int] | None = None) -> list[np.ndarray]:
        """-ln p per byte of each document, float64, boundary cost included; context never crosses documents.

        `alike`, sizes of groups of neighbours that begin alike, changes nothing but the time it takes: what a group
        has in common is read once.
        """
        ...

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        """`nats` with the cost of boundaries apart; `mute_latent` replaces every latent output by BOS's."""
        ...

    def cuts(self, docs: Sequence[bytes]) -> list[Starts] | None:
        """Where each document is cut, however the model comes by it; None for a model that cuts nothing."""
        ...

    @property
    def has_latent(self) -> bool:
        """Whether `mute_latent` means anything."""
        ...

    @property
    def has_features(self) -> tuple[Place, ...]:
        """What `features` can be asked for."""
        ...

    def features(self, docs: Sequence[bytes], places: Sequence[Place]) -> dict[Place, list[Features]]:
        """Frozen states of each document, one a patch or one a byte, or both from one pass; float32."""
        ...

    @property
    def can_write(self) -> bool:
        """Whether it can cut a text that is still being written, so that `generate` and `stream` work."""
        ...

    def generate(
        self, prompts: Sequence[bytes], max_bytes: int, until: Sequence[bytes] = (), temperature: float = 0.0
    ) -> list[bytes]:
        """What each prompt goes on with, up to the first of `until`; a temperature of 0 is greedy."""
        ...

    def stream(self, prompt: bytes, max_bytes: int) -> Iterator[bytes]:
        """The greedy continuation as it comes: a byte, or a token, at a time."""
        ...


@dataclass
class CutModel:
    """A trained model with the patcher that cuts its text.

    Scores are computed in float32 whatever it was trained in, so that a document's score does not depend on its
    neighbours.
    """

    module: nn.Module
    patcher: Patcher | None
    """None where the model needs no cut (byte_lm)."""

    window: int
    """Bytes of context a window has, at most."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_bytes: int = 16384
    with_ids: bool = False
    """Whether the model is over the patcher's tokens."""

    token_bytes: TokenBytes = field(default_factory=TokenBytes, init=False, repr=False)
    """What these have stood for in all that was scored."""

    @property
    def has_latent(self) -> bool:
        return isinstance(self.module, Harness)

    @property
    def has_features(self) -> tuple[Place, ...]:
        places = cast(HasStates, self.module).state_places
        if isinstance(self.patcher, NoPatches):  # no patch of a document ever ends, so none has a state
            return tuple(place for place in places if place != "patch")
        return places

    def features(self, docs: Sequence[bytes], places: Sequence[Place]) -> dict[Place, list[Features]]:
        module = cast(HasStates, self.module)
        return features(module, self.patcher, docs, places, self.window, self.batch_bytes, self.device, self.with_ids)

    @property
    def can_write(self) -> bool:
        return can_write(self.module, self.patcher)

    def generate(
        self, prompts: Sequence[bytes], max_bytes: int, until: Sequence[bytes] = (), temperature: float = 0.0
    ) -> list[bytes]:
        wish = Wish(Limits(max_bytes, tuple(until)), Sampling(temperature))
        return continuations(self.module, self.patcher, prompts, wish)

    def stream(self, prompt: bytes, max_bytes: int) -> Iterator[bytes]:
        for pieces in stream(self.module, self.patcher, [prompt], Wish(Limits(max_bytes))):
            yield pieces[0].data

    def cuts(self, docs: Sequence[bytes]) -> list[Starts] | None:
        if self.with_ids:  # tokens, of which a tokenizer that loses something has more than patches
            tokens = cut_documents(self.patcher, docs, True)
            return [tokens.cuts.starts[a:b] for a, b in itertools.pairwise(tokens.offsets.tolist())]
        if self.patcher is not None:
            return self.patcher.segment_many(docs)
        if getattr(self.module, "router", None) is None:
            return None
        corpus = CutDocuments.uncut(docs)
        starts = np.zeros(len(corpus.data), bool)
        with torch.inference_mode():
            for s in scoring_spans(corpus.offsets, self.window):
                batch = corpus.windows(np.array([(s.begin, s.end)])).to(self.device)
                found = cast(Harness, self.module).cut(batch, torch.float32)
                starts[s.score : s.end] = found[s.score - s.begin : s.end - s.begin].cpu().numpy()
        return [starts[a:b] for a, b in itertools.pairwise(corpus.offsets)]

    def nats(self, docs: Sequence[bytes], alike: Sequence[int] | None = None) -> list[np.ndarray]:
        if alike is None:
            return self.score(docs).nats
        rest = iter(docs)
        return [found.nats for found in self.continued([[(b"", next(rest)) for _ in range(n)] for n in alike])]

    def continued(self, groups: Sequence[Sequence[tuple[bytes, bytes]]]) -> list[Scored]:
        """The bytes of each continuation after its context, group by group; what a group's texts have in common at
        their beginning is read once."""
        pairs = list(itertools.chain.from_iterable(groups))
        corpus = self._cut([context + text for context, text in pairs])
        begins = corpus.offsets[:-1] + [len(context) for context, _ in pairs]
        return scored(self.module, corpus, begins, [len(group) for group in groups], self.window, self.batch_bytes)

    def _cut(self, docs: Sequence[bytes]) -> CutDocuments:
        """Raises BenchError for tokens that do not tell the text."""
        corpus = cut_documents(self.patcher, docs, self.with_ids)
        if self.with_ids:
            self.token_bytes.check(corpus)
        return corpus

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        corpus = self._cut(docs)
        spans = scoring_spans(corpus.offsets, self.window)
        nats = np.zeros(len(corpus.data))
        flags = np.zeros(len(corpus.data))
        seen = np.zeros(len(corpus.data), np.uint8)
        priced = False
        arguments = {"mute_latent": True} if mute_latent else {}
        with distributed.failing_alike(), torch.inference_mode():
            for picked in distributed.mine(batches_of_spans(spans, self.batch_bytes)):
                batch = corpus.windows(np.array([(spans[i].begin, spans[i].end) for i in picked]))
                prediction = self.module(batch.to(self.device), torch.float32, **arguments)
                of_batch = prediction.nats.double().cpu().numpy()
                of_flags = None if prediction.flag_nats is None else prediction.flag_nats.double().cpu().numpy()
                at = 0
                for i in picked:
                    s = spans[i]
                    here = slice(at + s.score - s.begin, at + s.end - s.begin)
                    nats[s.score : s.end] = of_batch[here]
                    seen[s.score : s.end] += 1
                    if of_flags is not None:
                        priced = True
                        flags[s.score : s.end] = of_flags[here]
                    at += s.end - s.begin
        priced = distributed.any_of(priced)
        assert (distributed.add_up(seen) == 1).all(), "every byte is scored exactly once"
        nats, flags = distributed.add_up(nats), distributed.add_up(flags) if priced else flags
        each = [slice(a, b) for a, b in itertools.pairwise(corpus.offsets)]
        return Scores([nats[x] for x in each], [flags[x] for x in each] if priced else None)


def cut_documents(patcher: Patcher | None, docs: Sequence[bytes], with_ids: bool) -> CutDocuments:
    """Documents with their cuts; without a patcher every document is one patch, which no such model looks at."""
    if patcher is not None:
        return CutDocuments.of(docs, cut_together(patcher, docs, with_ids))
    return CutDocuments.uncut(docs)
