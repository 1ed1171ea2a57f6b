"""Bits per byte of held-out documents (DESIGN section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.data import Document
from bench.model import ByteModel
from bench.tasks.base import Material, Metric, Task, TaskResult
from bench.tasks.registry import register_task

LATENT_GAIN_BYTES = 65_536
"""How much text `latent_gain` is measured on; it needs no interval."""


@register_task("bpb")
class BitsPerByte(Task):
    """Sum of -log2 p over all documents / their raw bytes; and per character, for text that is not ASCII.

    The same for each corpus of `eval:`, under its name (`bpc_NAME` per character), with `penalty_NAME`, the bits per
    byte that it costs more than the text of the kind that was trained on. Beside it `flag_bits_share`, the share of
    the bits that is spent on boundaries where these are priced, and `latent_gain`, the bits per byte lost when every
    latent output is replaced by BOS's: near zero means that the big model is not used.
    """

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        documents = material.test
        scores = model.score([d.data for d in documents])
        metrics = _metrics("bpb", "bpc", documents, scores.nats)
        values = {}
        for name, texts in material.domains.items():
            metrics |= _metrics(name, f"bpc_{name}", texts, model.nats([d.data for d in texts]))
            values[f"penalty_{name}"] = metrics[name].value - metrics["bpb"].value
        if scores.flag_nats is not None:
            values["flag_bits_share"] = float(
                sum(f.sum() for f in scores.flag_nats) / sum(n.sum() for n in scores.nats)
            )
        if model.has_latent:
            values["latent_gain"] = latent_gain(model, documents, scores.nats)
        return TaskResult(metrics, values)


def _metrics(
    per_byte: str, per_character: str, documents: Sequence[Document], nats: Sequence[np.ndarray]
) -> dict[str, Metric]:
    assert all(len(n) == len(d.data) for n, d in zip(nats, documents, strict=True))
    ids, bits = [d.id for d in documents], [float(n.sum()) / math.log(2) for n in nats]
    sizes: list[float] = [len(d.data) for d in documents]
    out = {per_byte: Metric("bits/byte", list(zip(ids, bits, sizes, strict=True)))}
    if not all(d.data.isascii() for d in documents):
        characters: list[float] = [sum((byte & 0xC0) != 0x80 for byte in d.data) for d in documents]
        out[per_character] = Metric("bits/character", list(zip(ids, bits, characters, strict=True)))
    return out


def latent_gain(model: ByteModel, documents: Sequence[Document], nats: Sequence[np.ndarray]) -> float:
    """Bits per byte lost on the first documents when the latent model tells nothing."""
    count = 1 + int(np.searchsorted(np.cumsum([len(d.data) for d in documents]), LATENT_GAIN_BYTES))
    some = [d.data for d in documents[:count]]
    muted = model.score(some, mute_latent=True).nats
    lost = sum(float(m.sum() - n.sum()) for m, n in zip(muted, nats[:count], strict=True))
    return lost / math.log(2) / sum(map(len, some))
