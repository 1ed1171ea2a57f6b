"""Builds what the tasks of a run get: the trained model as a byte model, texts, and an untrained twin."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.data.config import Data
from bench.data.cut_statistics import cut_statistics
from bench.evaluation.byte_model import ByteModel, CutModel, cut_documents
from bench.evaluation.pretrained.load import untrained as untrained_twin
from bench.evaluation.pretrained.model import PretrainedModel
from bench.evaluation.tasks import Material, TaskNotPossible
from bench.training.loop import train
from bench.training.prepare import DESCRIBED_BYTES, Prepared, make_model
from patchers.errors import BenchError
from patchers.grouping import beginning


def byte_model(prepared: Prepared, module: nn.Module, device: torch.device) -> CutModel:
    """A model that was trained for a row, behind the row's way of cutting."""
    config = prepared.row.train
    patcher = prepared.scoring_patcher
    return CutModel(module, patcher, config.window, device, with_ids=prepared.with_ids)


def material(
    prepared: Prepared, data: Data, module: nn.Module, seed: int, device: torch.device, cache: Path
) -> Material:
    """For the tasks of one run, whose trained model is `module`."""
    row = prepared.row

    def untrained() -> ByteModel:
        fresh = make_model(row, prepared.patcher, seed).eval().to(device)
        return byte_model(prepared, fresh, device)

    def tuned(texts: Sequence[bytes], steps: int) -> ByteModel:
        if steps < 1 or not any(texts):
            raise BenchError(f"tuning needs texts and at least one step, got {len(texts)} texts and {steps} steps")
        corpus = cut_documents(prepared.scoring_patcher, texts, prepared.with_ids)
        config = dataclasses.replace(row.train, bytes=steps * row.train.batch_bytes)
        trained = copy.deepcopy(module)
        train(trained, corpus, config, seed, device)
        return byte_model(prepared, trained, device)

    return _material(data, seed, cache, untrained, tuned)


def pretrained_material(model: PretrainedModel, data: Data, seed: int, cache: Path) -> Material:
    """For the tasks of one pretrained model, which is not trained here."""

    def tuned(texts: Sequence[bytes], steps: int) -> ByteModel:
        raise TaskNotPossible("a pretrained model is not trained further here: set `tune: 0` to ask it as it is")

    return _material(data, seed, cache, lambda: untrained_twin(model, seed), tuned)


def _material(
    data: Data,
    seed: int,
    cache: Path,
    untrained: Callable[[], ByteModel],
    tuned: Callable[[Sequence[bytes], int], ByteModel],
) -> Material:
    return Material(
        test=data.test.documents,
        train=data.train.documents,
        calibration=data.calibration.documents,
        domains={name: texts.documents for name, texts in data.domains.items()},
        seed=seed,
        cache=cache,
        untrained=untrained,
        tuned=tuned,
    )


def cut_of_pretrained(model: PretrainedModel, data: Data) -> dict[str, Any]:
    """What a record says about the cut of a pretrained model: how its tokens cut the test text."""
    some = beginning(data.test.texts, DESCRIBED_BYTES)
    starts = model.cuts(some)
    if starts is None:
        return {"name": None, "priced": None, "leaky": False}
    cut = dataclasses.asdict(cut_statistics(some, starts))
    size = {"test": cut["mean"]}
    return {"name": "tokenizer", "priced": None, "leaky": False, "bytes_per_patch": size, "test_cut": cut}
