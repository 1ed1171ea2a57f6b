"""Prepares a row: fitted patcher, cut corpus, model, and their costs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.data.config import Corpus, Data
from bench.data.cut_corpus import CutDocuments, Cuts, cut, cut_together, training_spans
from bench.data.cut_statistics import cut_statistics
from bench.data.documents import FlatTexts
from bench.data.fitted_patchers import CALIBRATION_BYTES, FIT_BYTES, Say, fit_cached
from bench.data.packed_starts import count_in
from bench.data.segment import cut_cached
from bench.suites.config import Row, Suite
from bench.system.files import CannotWrite
from bench.system.memory import free_memory
from models.byte_lm import ByteLM, ByteLMConfig
from models.flops import (
    Shapes,
    byte_lm_flops,
    harness_flops,
    paper_byte_flops,
    paper_harness_flops,
    paper_token_flops,
    token_lm_flops,
)
from models.harness import Harness, HarnessConfig
from models.hash_embeddings import NgramEmbedding, PatchStateEmbedding
from models.initialization import initialise
from models.token_lm import TokenLM, TokenLMConfig
from patchers import BenchError, Patcher
from patchers.costs import claimed, measured
from patchers.grouping import beginning

TRAINED_BYTES = 16
"""Of a parameter in training: weight, gradient and Adam's two moments."""
KEPT_BYTES = 28
"""Of a parameter on the disk, at most: weight and moments twice, while a checkpoint takes another's place, and the
weight of the trained model."""

LOSSES_BYTES = 2**22
"""How much of the test split is asked what a tokenizer loses of it."""

DESCRIBED_BYTES = 2**24
"""How much of the test split `test_cut` describes, and of each split an in-model patcher cuts: the first documents,
whose order is that of their hashes, so that they are a random sample."""


@dataclass(frozen=True)
class Prepared:
    """A row ready to train."""

    row: Row
    patcher: Patcher | None
    train: CutDocuments
    bytes_per_patch: dict[str, float] | None
    """Realised mean patch of each split; None without a patcher, and before an in-model one is trained."""
    test_cut: dict[str, float | None] | None = None
    """How the test split was cut (`bench.data.cut_statistics`)."""
    learnt_from: dict[str, int] | None = None
    """Bytes of the training split that the patcher was fitted on, of the calibration split for its calibration."""
    losses: dict[str, Any] | None = None
    """What its tokens do not give back of the beginning of the test split; None where they give back every byte of any
    text."""

    @property
    def scoring_patcher(self) -> Patcher | None:
        """What cuts text for the trained model; None where the model does it by itself."""
        return None if self.patcher is None or self.patcher.kind == "in-model" else self.patcher

    @property
    def with_ids(self) -> bool:
        return self.row.model == "token_lm"


def prepare(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> Prepared:
    """Fit and calibrate the row's patcher and cut the corpus with it, or find both in the cache."""
    if row.patcher is None:
        return Prepared(row, None, CutDocuments.uncut(data.train.texts), None)
    patcher = fitted(suite, row, data, cache, say)
    claimed(patcher)  # a cost that is no number would be found out only after the training
    if patcher.kind == "in-model":
        return Prepared(row, patcher, CutDocuments.uncut(data.train.texts), None)
    with_ids = row.model == "token_lm"

    def cuts(split: Corpus) -> Cuts:
        return cut_cached(patcher, split.texts, split.fingerprint, cache, with_ids, say)

    say(f"cutting with {patcher.name}")
    splits = {"train": data.train, "calibration": data.calibration, "test": data.test}
    return _cut(row, patcher, {name: CutDocuments.of(split.texts, cuts(split)) for name, split in splits.items()}, data)


def after_training(prepared: Prepared, model: nn.Module, data: Data, say: Say) -> Prepared:
    """The same with an in-model patcher as training left it, and with its cuts of the beginning of each split, which
    say how it cuts; other rows are as they were."""
    patcher = prepared.patcher
    if patcher is None or patcher.kind != "in-model":
        return prepared
    say(f"cutting with {patcher.name}")
    learned = patcher.learned(model)
    splits = {"train": data.train, "calibration": data.calibration, "test": data.test}
    some = {name: beginning(split.texts, DESCRIBED_BYTES) for name, split in splits.items()}
    corpora = {name: CutDocuments.of(texts, cut_together(learned, texts)) for name, texts in some.items()}
    return _cut(prepared.row, learned, corpora, data)


def _cut(row: Row, patcher: Patcher, corpora: dict[str, CutDocuments], data: Data) -> Prepared:
    sizes = {name: corpus.bytes_per_patch for name, corpus in corpora.items()}
    some = beginning(data.test.texts, DESCRIBED_BYTES)
    offsets = FlatTexts.of(some).offsets
    starts = corpora["test"].cuts.starts[: int(offsets[-1])]
    statistics = cut_statistics(some, np.split(starts, offsets[1:-1]))
    described = dataclasses.asdict(statistics)
    losses = patcher.losses(beginning(data.test.texts, LOSSES_BYTES))
    lost = None if losses is None else losses.as_json()
    return Prepared(row, patcher, corpora["train"], sizes, described, learnt_from(row, patcher, data), lost)


def learnt_from(row: Row, patcher: Patcher, data: Data) -> dict[str, int]:
    """`Prepared.learnt_from`; without a split that it did not look at."""
    if patcher.kind == "in-model":
        return {}
    looked_at = {}
    if type(patcher).fit is not Patcher.fit:
        looked_at["train"] = beginning(data.train.texts, FIT_BYTES)
    if row.bytes_per_patch is not None:
        looked_at["calibration"] = beginning(data.calibration.texts, CALIBRATION_BYTES)
    return {split: sum(map(len, texts)) for split, texts in looked_at.items()}


def fitted(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> Patcher:
    """The row's patcher, fitted on the training split and calibrated on the calibration split."""
    assert row.patcher is not None
    return fit_cached(row.patcher, data, wanted_size(suite, row, data, cache, say), cache, say)


def wanted_size(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> float | None:
    """The mean patch that a row is calibrated to: a number, another row's on the calibration split, or None."""
    if not isinstance(row.bytes_per_patch, str):
        return row.bytes_per_patch
    other = fitted(suite, suite.row(row.bytes_per_patch), data, cache, say)
    texts = beginning(data.calibration.texts, CALIBRATION_BYTES)
    return CutDocuments.of(texts, cut(other, texts)).bytes_per_patch


def make_model(row: Row, patcher: Patcher | None, seed: int) -> nn.Module:
    """The row's model with its initial weights, which depend on the seed and the sizes alone."""
    model = _module(row, patcher)
    initialise(model, seed)
    return model


def check_memory(row: Row, patcher: Patcher | None) -> None:
    """Raises BenchError for a model whose training cannot fit into the free memory of this process's device.

    Weights, gradients and Adam's two moments are four bytes each; activations come on top and depend on the batch.
    """
    with torch.device("meta"):  # nothing is allocated
        count = sum(p.numel() for p in _module(row, patcher).parameters())
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else free_memory()
    if TRAINED_BYTES * count > free:
        raise BenchError(
            f"row {row.label!r} has {count / 1e6:,.0f} M parameters, which take "
            f"{TRAINED_BYTES * count / 2**30:,.1f} GiB to train, and {free / 2**30:,.1f} GiB are free here: choose "
            "smaller sizes, or spread it with `launch: {devices: N, parallel: fsdp}`"
        )


def check_disk(row: Row, patcher: Patcher | None, folder: Path) -> None:
    """Raises CannotWrite where the disk has no room for what a row's training leaves: a checkpoint, the one that takes
    its place, and the trained weights."""
    with torch.device("meta"):
        count = sum(p.numel() for p in _module(row, patcher).parameters())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if KEPT_BYTES * count > free:
        raise CannotWrite(
            f"row {row.label!r} has {count / 1e6:,.0f} M parameters, whose checkpoints take up to "
            f"{KEPT_BYTES * count / 2**30:,.1f} GiB, and the disk of {folder} has {free / 2**30:,.1f} GiB free: make "
            "room, choose another folder with --results, or smaller sizes"
        )


def _module(row: Row, patcher: Patcher | None) -> nn.Module:
    model: nn.Module
    if isinstance(row.sizes, HarnessConfig):
        routed = row.patcher is not None and row.patcher.kind == "in-model"
        model = Harness(row.sizes, row.price, patcher.router(row.sizes.local_width) if patcher and routed else None)
    elif isinstance(row.sizes, TokenLMConfig):
        model = TokenLM(row.sizes, vocab_size(patcher))
    else:
        model = ByteLM(row.sizes)
    return model


def vocab_size(patcher: Patcher | None) -> int:
    size = getattr(patcher, "vocab_size", None)
    assert isinstance(size, int), "the config has checked that a token_lm's patcher has a vocabulary"
    return size


def parameters(model: nn.Module) -> dict[str, int]:
    """`total`; `non_embedding`, without what is looked up; `active`, with the rows that one byte looks up."""
    total = sum(p.numel() for p in model.parameters())
    looked_up, rows = 0, 0
    for name, module in model.named_modules():
        if isinstance(module, NgramEmbedding):
            looked_up += module.table.numel()
            rows += len(module.sizes) * module.table.shape[1]
        elif isinstance(module, PatchStateEmbedding):
            tables = list(module.parameters())
            looked_up += sum(p.numel() for p in tables)
            rows += sum(p.shape[1] for p in tables)
        elif name == "":
            own = list(module.parameters(recurse=False))
            looked_up += sum(p.numel() for p in own)
            rows += sum(p.shape[1] for p in own)
    return {"total": total, "non_embedding": total - looked_up, "active": total - looked_up + rows}


def flops(prepared: Prepared) -> dict[str, float]:
    """Forward FLOPs per byte of training text by component, the patcher's included, and their total."""
    return flops_per_byte(prepared.row, prepared.patcher, shapes_of(prepared))


def shapes_of(prepared: Prepared) -> Shapes:
    """The windows of the training text, with the patches that its cut makes of each."""
    row, corpus = prepared.row, prepared.train
    spans = training_spans(corpus.offsets, row.train.window)
    inside, begun = count_in(corpus.cuts.starts, spans)
    forced = 0 if row.model == "token_lm" else ~begun
    return Shapes(spans[:, 1] - spans[:, 0], inside + forced)


def flops_per_byte(row: Row, patcher: Patcher | None, shapes: Shapes) -> dict[str, float]:
    """`flops` of a row's model, whatever its sizes, over these windows."""
    parts: dict[str, float]
    if isinstance(row.sizes, HarnessConfig):
        routed = row.patcher is not None and row.patcher.kind == "in-model"
        parts = harness_flops(row.sizes, 512 if row.price else 256, shapes, routed)
    elif isinstance(row.sizes, TokenLMConfig):
        parts = token_lm_flops(row.sizes, vocab_size(patcher), shapes)
    else:
        assert isinstance(row.sizes, ByteLMConfig)
        parts = byte_lm_flops(row.sizes, 256, shapes)
    per_byte = {name: value / shapes.bytes for name, value in parts.items()}
    per_byte["patcher"] = patcher.flops_per_byte() if patcher else 0.0
    return per_byte | {"total": sum(per_byte.values())}


def paper_flops(prepared: Prepared) -> float:
    """Forward FLOPs per byte by the formulas of BLT's paper, beside our count of what runs: every window is full, and
    segmenting, which the paper counts as nothing, is not in it."""
    row, context = prepared.row, prepared.row.train.window
    if isinstance(row.sizes, ByteLMConfig):
        return paper_byte_flops(row.sizes, context)
    shapes = shapes_of(prepared)
    size = shapes.bytes / int(shapes.patches.sum())
    if isinstance(row.sizes, HarnessConfig):
        return paper_harness_flops(row.sizes, size, context, 512 if row.price else 256)
    vocab = vocab_size(prepared.patcher)
    return paper_token_flops(row.sizes.layers, row.sizes.width, vocab, size, context, row.sizes.hidden)


def training_flops(per_byte: dict[str, float], train_bytes: int) -> float:
    """Three times the forward pass for what is trained, once for what only segments (DESIGN section 7)."""
    return (3 * (per_byte["total"] - per_byte["patcher"]) + per_byte["patcher"]) * train_bytes


def cost_of(patcher: Patcher | None, texts: Sequence[bytes]) -> dict[str, Any] | None:
    """What a byte costs to cut, as the patcher says and as it was seen, for a record; None where nothing cuts."""
    if patcher is None:
        return None
    cost = measured(patcher, texts)
    return {
        "claimed": cost.claimed,
        "counted": cost.counted,
        "seconds_per_megabyte": round(cost.seconds_per_megabyte, 4),
        "doubt": cost.doubt,
    }


def patcher_summary(prepared: Prepared) -> dict[str, Any]:
    """What a record says about the cut."""
    patcher, row = prepared.patcher, prepared.row
    if patcher is None:
        return {"name": None, "causal": True, "priced": None, "leaky": False, "fingerprint": None, "options": {}}
    return {
        "name": patcher.name,
        "kind": patcher.kind,
        "causal": patcher.causal,
        "priced": row.price,
        "leaky": row.leaky,
        "fingerprint": patcher.fingerprint(),
        "options": patcher.options(),
        "bytes_per_patch": prepared.bytes_per_patch,
        "test_cut": prepared.test_cut,
        "learnt_from": prepared.learnt_from,
        **({} if prepared.losses is None else {"losses": prepared.losses}),
    }
