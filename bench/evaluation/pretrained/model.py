"""A pretrained causal language model as a byte model, scored through the windows of trained rows.

A document is encoded whole. A window scores the units whose first byte lies in its scored part, from the units whose
first byte lies in it, with the model's BOS before them; one that begins before the window is not seen in it. So each
unit is scored once, and none with more context than a trained row has. A model that can take fewer units than a window
holds gets the newest of them, half as many as it can take at least.

Legend: B windows of a batch, L positions, V outputs, N bytes of a document, U units, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.cut_corpus import scoring_spans
from bench.evaluation.byte_model import Scores
from bench.evaluation.features import Features
from bench.evaluation.pretrained.vocabulary import Units, Vocabulary, starts_of
from bench.system import distributed
from models.states import Place
from patchers import Starts
from patchers.errors import BenchError

LOGITS = 2**26
"""Numbers in the logits of a batch, at most (a longer window goes alone): a quarter of a gigabyte."""

NEVER_TOGETHER = {"blt"}
"""Kinds of models (`model_type`) whose answer to a text depends on what is beside it in the batch."""

CANNOT_WRITE = "a pretrained model is asked for probabilities and states alone; use its own library to write with it"


@dataclass(frozen=True)
class Window:
    """Units of one document: units[begin:end], scored from `score` on."""

    document: int
    begin: int
    score: int
    end: int


@dataclass(frozen=True)
class Windows:
    """How documents fall into windows, and what came of it."""

    windows: list[Window]
    straddled: int
    """Windows in the midst of a document whose first byte is inside of a unit, which they do not see."""

    short: int
    """Windows of bytes that hold more units than the model can take."""


@dataclass
class PretrainedModel:
    """A model of `transformers` behind the interface of `bench.evaluation.byte_model.ByteModel`, in float32."""

    module: nn.Module
    vocabulary: Vocabulary
    window: int
    """Bytes of context, at most, as in training and scoring of the other rows."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    has_latent: bool = field(default=False, init=False)
    can_write: bool = field(default=False, init=False)

    @property
    def most_units(self) -> int | None:
        """How many positions the model can take; None where that is not known to end."""
        config = self.config
        found = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
        return next((int(n) for n in found if isinstance(n, int) and n > 0), None)

    @property
    def config(self) -> Any:
        return self._library.config

    @property
    def _library(self) -> Any:
        """The module as one of `transformers`, whose types are not ours to check."""
        return self.module

    @property
    def outputs(self) -> int:
        """V, of which the probability of the first unit without any context is one part."""
        ids = self.vocabulary.outputs
        return self.size if ids is None else len(ids)

    @property
    def size(self) -> int:
        """How many outputs the model has."""
        return len(self.head.weight)

    @property
    def head(self) -> Any:
        """What makes logits of states."""
        found = self._library.get_output_embeddings()
        if found is None:
            raise BenchError(f"{type(self.module).__name__} has no head that gives logits, so it is no language model")
        return found

    @property
    def has_features(self) -> tuple[Place, ...]:
        return ("byte",) if self.vocabulary.kind == "bytes" else ("patch",)

    # --- scores

    def nats(self, docs: Sequence[bytes], alike: Sequence[int] | None = None) -> list[np.ndarray]:
        return self.score(docs).nats

    def score(self, docs: Sequence[bytes], mute_latent: bool = False) -> Scores:
        """Nats of a unit stand at its first byte, 0 at its others."""
        encoded = self.vocabulary.encode(docs)
        of_units = self.nats_of_units(docs, encoded)
        out = []
        for doc, units, nats in zip(docs, encoded, of_units, strict=True):
            of_bytes = units.paid.copy()
            assert len(of_bytes) == len(doc), "what is scored is all bytes of a document"
            np.add.at(of_bytes, units.starts, nats)
            out.append(of_bytes)
        return Scores(out, None)

    def nats_of_units(self, docs: Sequence[bytes], encoded: Sequence[Units]) -> list[np.ndarray]:
        """(U,) float64 of each document: -ln p of each unit after those that its window holds before it."""
        found = [np.zeros(len(units.ids)) for units in encoded]
        times = [np.zeros(len(units.ids), np.uint8) for units in encoded]
        with distributed.failing_alike(), torch.inference_mode():
            for batch in distributed.mine(self._batches(self.windows(docs, encoded).windows)):
                for window, nats in zip(batch, self._nats_of(batch, encoded), strict=True):
                    found[window.document][window.score : window.end] = nats
                    times[window.document][window.score : window.end] += 1
        assert all((distributed.add_up(of_document) == 1).all() for of_document in times), "each unit is scored once"
        return [distributed.add_up(of_document) for of_document in found]

    def windows(self, docs: Sequence[bytes], encoded: Sequence[Units], whole: bool = False) -> Windows:
        """The windows of documents; `whole`: the last unit of each is read as well, not only scored."""
        lengths = [len(d) for d in docs]
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        most = self.most_units
        most = None if most is None else most - (self.vocabulary.bos is not None) + (not whole)
        windows: list[Window] = []
        straddled = short = 0
        for span in scoring_spans(offsets, self.window):
            units, first_byte = encoded[span.document], int(offsets[span.document])
            bounds = np.array([span.begin, span.score, span.end]) - first_byte
            begin, score, end = np.searchsorted(units.starts, bounds).tolist()
            straddled += span.begin > first_byte and bounds[0] not in units.starts[begin : begin + 1]
            short += most is not None and end - begin > most
            windows += [Window(span.document, *w) for w in _parts(begin, score, end, most)]
        return Windows(windows, straddled, short)

    def _batches(self, windows: Sequence[Window]) -> Iterator[list[Window]]:
        """Windows of like length beside each other."""
        together = self.config.model_type not in NEVER_TOGETHER
        batch: list[Window] = []
        for window in sorted(windows, key=lambda w: w.end - w.begin):
            longest = window.end - window.begin + 1
            if batch and (not together or (len(batch) + 1) * longest * self.size > LOGITS):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _nats_of(self, batch: Sequence[Window], encoded: Sequence[Units]) -> list[np.ndarray]:
        bos, ids = self.vocabulary.bos, self.vocabulary.outputs
        read = [encoded[w.document].ids[w.begin : w.end - 1] for w in batch]
        rows = [r if bos is None else np.append(bos, r) for r in read]
        logits = self._forward(rows).logits if any(len(row) for row in rows) else None
        out = []
        for at, window in enumerate(batch):
            wanted = encoded[window.document].ids[window.score : window.end]
            first = window.score - window.begin - (bos is None)  # the position that predicts the first of them
            unseen = [math.log(self.outputs)] if first < 0 else []  # nothing stands before it
            if logits is None or len(wanted) == len(unseen):
                out.append(np.array(unseen))
                continue
            scored, wanted = logits[at, max(0, first) : len(rows[at])].float(), wanted[len(unseen) :]
            if ids is not None:
                order = np.argsort(ids)
                wanted = order[np.searchsorted(ids, wanted, sorter=order)]  # of an id, its place among the outputs
                scored = scored[:, torch.from_numpy(ids).to(scored.device)]
            targets = torch.from_numpy(wanted).to(scored.device)
            nats = nn.functional.cross_entropy(scored, targets, reduction="none")
            out.append(np.append(unseen, nats.double().cpu().numpy()))
        return out

    def outputs_after(self, ids: np.ndarray) -> np.ndarray:
        """(U + 1, V) float32: ln p of every output after the first 0, 1, ... U of these units."""
        before = [] if self.vocabulary.bos is None else [self.vocabulary.bos]
        uniform = np.full((1 - len(before), self.size), -math.log(self.size), np.float32)
        with torch.inference_mode():
            logits = self._forward([np.append(before, ids).astype(np.int64)]).logits[0].float()
            return np.concatenate((uniform, torch.log_softmax(logits, -1).cpu().numpy()))

    def _forward(self, rows: Sequence[np.ndarray]) -> Any:
        """What the model says of rows of ids, padded on the right, where nothing reads on."""
        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.from_numpy(row)
            mask[at, : len(row)] = 1
        padded = {} if bool(mask.all()) else {"attention_mask": mask.to(self.device)}
        return self.module(input_ids=ids.to(self.device), use_cache=False, **padded)

    # --- writing, which no task needs that is for models as they are

    def generate(
        self, prompts: Sequence[bytes], max_bytes: int, until: Sequence[bytes] = (), temperature: float = 0.0
    ) -> list[bytes]:
        raise BenchError(CANNOT_WRITE)

    def stream(self, prompt: bytes, max_bytes: int) -> Iterator[bytes]:
        raise BenchError(CANNOT_WRITE)

    # --- cuts and states

    def cuts(self, docs: Sequence[bytes]) -> list[Starts] | None:
        if self.vocabulary.kind == "bytes":
            return None
        return [starts_of(units, len(doc)) for doc, units in zip(docs, self.vocabulary.encode(docs), strict=True)]

    def features(self, docs: Sequence[bytes], places: Sequence[Place]) -> dict[Place, list[Features]]:
        """What the head reads behind each unit."""
        encoded = self.vocabulary.encode(docs)
        states = [np.zeros((len(units.ids), self.head.weight.shape[1]), np.float32) for units in encoded]
        held: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda module, inputs: held.append(inputs[0]))
        before = [] if self.vocabulary.bos is None else [self.vocabulary.bos]
        try:
            with torch.inference_mode():
                for batch in self._batches(self.windows(docs, encoded, whole=True).windows):
                    rows = [encoded[w.document].ids[w.begin : w.end] for w in batch]
                    self._forward([np.append(before, row).astype(np.int64) for row in rows])
                    of_batch = held.pop().float().cpu().numpy()
                    for at, w in enumerate(batch):
                        here = slice(w.score - w.begin + len(before), w.end - w.begin + len(before))
                        states[w.document][w.score : w.end] = of_batch[at, here]
        finally:
            hook.remove()
        found = [
            Features(vectors, np.searchsorted(units.starts, np.arange(len(doc)), "right") - 1)
            for doc, units, vectors in zip(docs, encoded, states, strict=True)
        ]
        return dict.fromkeys(places, found)

    def describe(self, docs: Sequence[bytes]) -> dict[str, Any]:
        """What a record says of how these documents were read."""
        encoded = self.vocabulary.encode(docs)
        windows = self.windows(docs, encoded)
        paid = sum(float(units.paid.sum()) for units in encoded) / math.log(2)
        return {
            "class": type(self.module).__name__,
            "transformers": version("transformers"),
            "vocabulary": self.vocabulary.describe() | {"outputs": self.outputs},
            "most_units": self.most_units,
            "test": {
                "units": sum(len(units.ids) for units in encoded),
                "invalid_bytes": sum(units.invalid for units in encoded),
                "lossy_units": sum(units.lossy for units in encoded),
                "lossy_documents": sum(units.lossy > 0 for units in encoded),
                "bits_for_lost_bytes": round(paid, 3),
                "windows": len(windows.windows),
                "straddled_windows": windows.straddled,
                "short_windows": windows.short,
            },
        }


def _parts(begin: int, score: int, end: int, most: int | None) -> Iterator[tuple[int, int, int]]:
    """units[begin:end], scored from `score` on, in windows of at most `most` units: (begin, score, end) of each."""
    while score < end:
        if most is None or end - begin <= most:
            yield begin, score, end
            return
        taken = min(most if score == begin else max(1, most // 2), end - score)
        yield max(begin, score + taken - most), score, score + taken
        score += taken
