"""Parameters and forward FLOPs of a pretrained model.

FLOPs are counted as for trained rows (DESIGN section 7), a multiply-add as two: every weight that is no lookup once a
unit, attention over the keys that are seen, and the head. Whether that describes the model is held against torch's own
count of one forward pass; where it does not (experts of which a few are used, models with parts of their own, such as
BLT's), torch counts a sample of the windows.

Legend: W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.data.cut_corpus import training_spans
from bench.evaluation.pretrained.model import PretrainedModel
from models.flops import COMPONENTS, seen_keys

AGREES = 0.01
"""How far torch's count may be from ours."""

PROBED = 32
"""Units of the pass that is counted both ways."""

SAMPLED = 16
"""Windows that torch counts."""


def parameters(model: PretrainedModel) -> dict[str, int]:
    """`total`; `non_embedding`, without what is looked up alone (a table that is the head as well is not); `active`,
    with the row of each table that a unit looks up."""
    total = sum(p.numel() for p in model.module.parameters())
    tables = [m for m in model.module.modules() if isinstance(m, nn.Embedding) and m.weight is not model.head.weight]
    looked_up = sum(table.weight.numel() for table in tables)
    rows = sum(table.embedding_dim for table in tables)
    return {"total": total, "non_embedding": total - looked_up, "active": total - looked_up + rows}


def flops(model: PretrainedModel, texts: Sequence[bytes]) -> tuple[dict[str, float], Literal["formula", "torch"]]:
    """Forward FLOPs a byte of these texts, in windows beside one another, by part with their total; and who counted."""
    windows = _windows(model, texts)
    probe = min(PROBED, model.most_units or PROBED)
    ours = _by_formula(model, np.array([probe]), masked=False)
    if ours is not None and abs(sum(ours.values()) / _counted(model, np.zeros(probe, np.int64)) - 1) <= AGREES:
        parts = _by_formula(model, np.array([len(ids) for ids, _ in windows]), masked=True)
        assert parts is not None
        per_byte = {name: value / max(1, sum(map(len, texts))) for name, value in parts.items()}
        return per_byte | {"total": sum(per_byte.values())}, "formula"
    some = [windows[i] for i in np.linspace(0, len(windows) - 1, min(SAMPLED, len(windows))).astype(int)]
    return {"total": sum(_counted(model, ids) for ids, _ in some) / max(1, sum(size for _, size in some))}, "torch"


def _windows(model: PretrainedModel, texts: Sequence[bytes]) -> list[tuple[np.ndarray, int]]:
    """The units of each window, as many as the model can take, and how many bytes they cover."""
    out = []
    for text, units in zip(texts, model.vocabulary.encode(texts), strict=True):
        ends = np.append(units.starts, len(text))
        for begin, end in training_spans(np.array([0, len(text)]), model.window):
            first, last = np.searchsorted(units.starts, (begin, end)).tolist()
            step = model.most_units or max(1, last - first)
            for at in range(first, last, step):
                until = min(at + step, last)
                out.append((units.ids[at:until], int(ends[until] - ends[at])))
    return out


def _by_formula(model: PretrainedModel, lengths: np.ndarray, masked: bool) -> dict[str, float] | None:
    """Of windows of so many units (W,); `masked`: attention over the keys that are seen, else over all, as torch
    counts. None where the config does not say how large attention is, or where it reaches less far than a window."""
    config, head = model.config, model.head.weight
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    size = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // (heads or 1)
    near = getattr(config, "sliding_window", None)
    if not isinstance(layers, int) or not isinstance(heads, int) or not size:
        return None
    if near is not None and near < lengths.max(initial=0):
        return None
    tables = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)} | {id(head)}
    multiplied = sum(p.numel() for p in model.module.parameters() if p.ndim > 1 and id(p) not in tables)
    units, pairs = int(lengths.sum()), seen_keys(lengths) if masked else int((lengths.astype(np.int64) ** 2).sum())
    blocks = "local_decoder" if model.vocabulary.kind == "bytes" else "latent"
    return dict.fromkeys(COMPONENTS, 0.0) | {
        blocks: 2.0 * multiplied * units + 4.0 * layers * heads * size * pairs,
        "head": 2.0 * head.numel() * units,
    }


def _counted(model: PretrainedModel, ids: np.ndarray) -> int:
    """FLOPs of a forward pass over these units, as torch counts them."""
    read = torch.from_numpy(ids)[None].to(model.device)
    plain = sdpa_kernel(SDPBackend.MATH)  # attention as matrix products: of the CPU's own kernel torch counts nothing
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        model.module(input_ids=read, use_cache=False)
    return int(counter.get_total_flops())
