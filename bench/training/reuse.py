"""Finds a trained model that another suite of the results folder has already made.

Suites that differ in their tasks, their evaluation data or what they compare find the model that another one has
trained and only score it. A model is found by its training id; a run's own id says what was scored as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.data.config import Data
from bench.records.record import Record, digest, find
from bench.suites.config import Row, Suite, identity, plain
from bench.system.files import Damaged, warn
from bench.training.checkpoint import check_model, load_weights, read_header
from bench.training.loop import Progress
from patchers.errors import BenchError

TRAINING_VERSION = 3
"""Raised when the same config, data and seed would train another model than before, or the same one to other bits:
3 is one attention for all devices, whose sums run in another order (trained weights differ by rounding)."""

NOT_OF_TRAINING = ("data", "match", "match_to", "sweep")
"""Parts of a run's config that do not move its weights: data is taken by its splits, the others say why, not what."""


def training_id(suite: Suite, row: Row, data: Data, seed: int) -> str:
    """SHA-256 of everything that the trained weights depend on, 16 hex digits; the row as it is matched."""
    config = {k: v for k, v in suite.run_config(row.label).items() if k not in NOT_OF_TRAINING}
    what = {
        "version": TRAINING_VERSION,
        "config": config | plain({"train": identity(row.train), "model": {"kind": row.model, **identity(row.sizes)}}),
        "seed": seed,
        "train": data.train.fingerprint,
        "calibration": data.calibration.fingerprint,
    }
    return digest(what)[:16]


def find_trained(results: Path, wanted: str) -> Path | None:
    """The folder of a model with this training id in `results/*/checkpoints/*`, None where there is none.

    A model counts beside the record of the run that left it: who deletes the record wants the run repeated.
    """
    for path in sorted(results.glob("*/checkpoints/*/model.json")):
        folder = path.parent
        try:
            header = read_header(folder)
            if header.get("training", {}).get("id") != wanted:
                continue
            if _has_numbers(find(results, folder.parts[-3], folder.name)):
                check_model(folder)
                return folder
        except Damaged as error:
            warn(f"{error}; training another one")
        except BenchError:  # whatever lies there is no model, or no record, of this version
            continue
    return None


def _has_numbers(record: Record | None) -> bool:
    return record is not None and record["status"] == "ok"


def source_of(folder: Path) -> str:
    """SUITE/RUN_ID of the run that left this model."""
    return f"{folder.parent.parent.name}/{folder.name}"


def take_over(folder: Path, model: nn.Module, device: torch.device) -> Progress:
    """Put the weights that lie in `folder` into a model of the same sizes; how it was trained."""
    load_weights(folder, model)
    model.eval().to(device)
    return Progress(**read_header(folder)["training"]["progress"])


def audits_beside(folder: Path) -> dict[str, Any]:
    """What the audits of this model said when it was trained: they are of the model and its cuts, not of a suite."""
    record = find(folder.parents[2], folder.parts[-3], folder.name)
    assert record is not None, "a model counts beside its record alone"
    return dict(record["audits"])


def training_header(training: str, progress: Progress) -> dict[str, Any]:
    """What a checkpoint says of its training."""
    header: dict[str, Any] = json.loads(json.dumps({"id": training, "progress": vars(progress)}))
    return header
