"""Bits per byte of held-out documents (DESIGN section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.data.config import Document
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.tasks.base import Material, Metric, Task, TaskResult
from bench.evaluation.tasks.registry import register_task
from patchers.grouping import beginning, grouped

LATENT_GAIN_BYTES = 65_536
"""How much text `latent_gain` is measured on; it needs no interval."""
TOGETHER = 2**24
"""Bytes of documents that are scored at a time; of each document its sum is kept, and not what each byte cost."""


@dataclass
class Costs:
    """Documents, and what they cost a model."""

    ids: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    characters: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    flag_nats: list[float] | None = None
    """Of `nats`, what boundaries cost, where they are priced."""
    ascii: bool = True

    def add(self, model: ByteModel, documents: Sequence[Document]) -> None:
        scores = model.score([d.data for d in documents])
        assert all(len(n) == len(d.data) for n, d in zip(scores.nats, documents, strict=True))
        self.ids += [d.id for d in documents]
        self.sizes += [len(d.data) for d in documents]
        self.characters += [sum((byte & 0xC0) != 0x80 for byte in d.data) for d in documents]
        self.nats += [float(n.sum()) for n in scores.nats]
        if scores.flag_nats is not None:
            self.flag_nats = (self.flag_nats or []) + [float(f.sum()) for f in scores.flag_nats]
        self.ascii = self.ascii and all(d.data.isascii() for d in documents)

    def metrics(self, per_byte: str, per_character: str) -> dict[str, Metric]:
        bits = [n / math.log(2) for n in self.nats]
        out = {per_byte: Metric("bits/byte", list(zip(self.ids, bits, self.sizes, strict=True)))}
        if not self.ascii:
            out[per_character] = Metric("bits/character", list(zip(self.ids, bits, self.characters, strict=True)))
        return out


@register_task("bpb")
class BitsPerByte(Task):
    """Sum of -log2 p over all documents / their raw bytes; and per character, for text that is not ASCII.

    The same for each corpus of `eval:`, under its name (`bpc_NAME` per character), with `penalty_NAME`, the bits per
    byte that it costs more than the text of the kind that was trained on. Beside it `flag_bits_share`, the share of
    the bits that is spent on boundaries where these are priced, and `latent_gain`, the bits per byte lost when every
    latent output is replaced by BOS's: near zero means that the big model is not used.
    """

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        costs = costs_of(model, material.test)
        metrics = costs.metrics("bpb", "bpc")
        values = {}
        for name, texts in material.domains.items():
            metrics |= costs_of(model, texts).metrics(name, f"bpc_{name}")
            values[f"penalty_{name}"] = metrics[name].value - metrics["bpb"].value
        if costs.flag_nats is not None:
            values["flag_bits_share"] = sum(costs.flag_nats) / sum(costs.nats)
        if model.has_latent:
            values["latent_gain"] = latent_gain(model, material.test, costs.nats)
        return TaskResult(metrics, values)


def costs_of(model: ByteModel, documents: Sequence[Document]) -> Costs:
    costs = Costs()
    for some in grouped(documents, lambda document: len(document.data), TOGETHER):
        costs.add(model, some)
    return costs


def latent_gain(model: ByteModel, documents: Sequence[Document], nats: Sequence[float]) -> float:
    """Bits per byte lost on the first documents, which cost `nats`, when the latent model tells nothing."""
    some = beginning((document.data for document in documents), LATENT_GAIN_BYTES)
    muted = model.score(some, mute_latent=True).nats
    lost = sum(float(m.sum()) - n for m, n in zip(muted, nats[: len(some)], strict=True))
    return lost / math.log(2) / sum(map(len, some))
