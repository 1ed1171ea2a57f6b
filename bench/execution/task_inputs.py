"""Builds what the tasks of a run get: the trained model as a byte model, texts, and an untrained twin."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from bench.data.config import Data
from bench.evaluation.byte_model import ByteModel, CutModel, cut_documents
from bench.evaluation.tasks import Material
from bench.training.loop import train
from bench.training.prepare import Prepared, make_model
from patchers.errors import BenchError


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
