"""Plans a suite before training: parameters, FLOPs, patches, matching, memory and time."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch import nn

from bench.data.config import load
from bench.data.cut_corpus import batches, training_spans
from bench.evaluation.pretrained import costs
from bench.evaluation.pretrained.load import load as load_pretrained
from bench.evaluation.run_tasks import with_domains
from bench.execution.run import COUNTED_BYTES, best_device, check_tasks, engine_of, peak_memory, reset_peak_memory
from bench.execution.task_inputs import cut_of_pretrained
from bench.suites.config import Suite
from bench.system.memory import keep_memory
from bench.training.matching import expected, prepare_matched
from bench.training.prepare import (
    Prepared,
    check_disk,
    flops,
    make_model,
    paper_flops,
    parameters,
    shapes_of,
    training_flops,
)
from patchers.grouping import beginning

CALIBRATION_SECONDS = 10.0
"""How long this machine is timed for: real training steps of each model, the first one left out."""


@dataclass(frozen=True)
class RowPlan:
    """One row of the plan, all its seeds alike."""

    label: str
    bytes_per_patch: float | None
    parameters: dict[str, int]
    flops_per_byte: dict[str, float]
    paper_flops_per_byte: float
    """By the formulas of BLT's paper."""
    train_bytes: int
    patches: int | None
    """Latent steps of the training, or tokens; None for a model without any."""
    train_flops: float
    matched: dict[str, Any]
    """What is made equal and how closely, as the record will have it."""
    memory: int
    """Bytes at the peak of a training step, the process with its data included."""
    seconds: float
    """Training on this machine, per seed; scoring and fitting patchers come on top."""


@dataclass(frozen=True)
class PretrainedPlan:
    """A row that is scored and not trained."""

    label: str
    bytes_per_patch: float | None
    """Of the test text; None for a model over bytes."""
    parameters: dict[str, int]
    flops_per_byte: dict[str, float]


@dataclass(frozen=True)
class Pace:
    """A model's training on this machine."""

    seconds_per_byte: float
    memory: int


def plan_rows(suite: Suite, cache: Path, results: Path | None = None) -> list[RowPlan]:
    """Fit and calibrate the patchers, count, and time a few steps of each model; the weights are thrown away.

    Raises BenchError where a run would: texts that are missing or too few for a task, a row that cannot be matched as
    the suite says, a model that does not fit into memory, or whose checkpoints do not fit on the disk of `results`.
    """
    keep_memory()
    data = with_domains(load(suite.data), suite.eval)
    check_tasks(suite, data)
    ready = [prepare_matched(suite, row, data, cache, lambda message: None) for row in suite.rows]
    for prepared, _ in ready:
        check_disk(prepared.row, prepared.patcher, results or cache)
    models = {_model_of(suite, prepared) for prepared, _ in ready}
    paces: dict[str, Pace] = {}
    rows = []
    for before, goal in ready:
        prepared = expected(before)
        row = prepared.row
        model = make_model(row, prepared.patcher, suite.seeds[0])
        per_byte, shapes = flops(prepared), shapes_of(prepared)
        name = _model_of(suite, before)
        if name not in paces:
            paces[name] = _pace(suite, model, prepared, CALIBRATION_SECONDS / len(models))
        rows.append(
            RowPlan(
                label=row.label,
                bytes_per_patch=prepared.bytes_per_patch["train"] if prepared.bytes_per_patch else None,
                parameters=parameters(model),
                flops_per_byte=per_byte,
                paper_flops_per_byte=paper_flops(prepared),
                train_bytes=row.train.bytes,
                patches=round(shapes.patches.sum() / shapes.bytes * row.train.bytes) if prepared.patcher else None,
                train_flops=training_flops(per_byte, row.train.bytes),
                matched=goal.compare(prepared, row.train.bytes),
                memory=paces[name].memory,
                seconds=paces[name].seconds_per_byte * row.train.bytes,
            )
        )
    return rows


def plan_pretrained(suite: Suite) -> list[PretrainedPlan]:
    """Load each pretrained model and count. Raises BenchError for one that cannot be loaded."""
    if not suite.pretrained:
        return []
    data = load(suite.data)
    out = []
    for row in suite.pretrained:
        model = load_pretrained(row.files, row.window, best_device())
        per_byte, _ = costs.flops(model, beginning(data.train.texts, COUNTED_BYTES))
        size = cut_of_pretrained(model, data).get("bytes_per_patch")
        out.append(PretrainedPlan(row.label, size and size["test"], costs.parameters(model), per_byte))
    return out


def _model_of(suite: Suite, prepared: Prepared) -> str:
    """The same for rows that train the same model on the same cut, as the budgets of a sweep do."""
    row = prepared.row
    train = dataclasses.replace(row.train, bytes=1)
    what = (row.sizes, row.price, train, prepared.patcher and prepared.patcher.fingerprint())
    return json.dumps(what, default=str)


def _pace(suite: Suite, model: nn.Module, prepared: Prepared, budget: float) -> Pace:
    """Of training steps on this machine, two at least and as many as go into `budget` seconds."""
    config, device = prepared.row.train, best_device()
    reset_peak_memory(device)
    engine = engine_of(suite)(model.train().to(device), config, device)
    spans = training_spans(prepared.train.offsets, config.window)
    rates: list[float] = []
    began = time.perf_counter()
    for picked in batches(spans, config.batch_bytes, 1 << 60, seed=0):
        at = time.perf_counter()
        engine.step(engine.make(prepared.train, picked), 0.0).item()
        rates.append((time.perf_counter() - at) / int((picked[:, 1] - picked[:, 0]).sum()))
        if len(rates) > 1 and time.perf_counter() - began > budget:
            break
    return Pace(float(np.median(rates[1:])), peak_memory(device))


# --- for the terminal


def tables(suite: Suite, rows: list[RowPlan], pretrained: Sequence[PretrainedPlan] = ()) -> list[Table]:
    """What is trained, where the FLOPs of a byte go, and what is scored as it is."""
    of_training = [_training(suite, rows), _parts(rows)] if rows else []
    return of_training + ([_pretrained(pretrained)] if pretrained else [])


def _pretrained(rows: Sequence[PretrainedPlan]) -> Table:
    table = Table(title="pretrained rows, scored as they are, once whatever the seeds")
    table.add_column("row")
    for name in ("bytes/patch", "parameters", "non-emb.", "FLOPs/byte"):
        table.add_column(name, justify="right")
    for r in rows:
        size = "" if r.bytes_per_patch is None else f"{r.bytes_per_patch:.2f}"
        counts = (short(r.parameters[key]) for key in ("total", "non_embedding"))
        table.add_row(r.label, size, *counts, short(r.flops_per_byte["total"]))
    return table


def _training(suite: Suite, rows: list[RowPlan]) -> Table:
    seeds = len(suite.seeds)
    total = sum(r.seconds for r in rows) * seeds
    table = Table(
        title=f"{suite.name}: {len(rows)} rows x {seeds} seeds, about {duration(total)} of training here, one at a time"
    )
    table.add_column("row")
    for name in (
        *("bytes/patch", "parameters", "non-emb.", "active", "train bytes", "patches", "train FLOPs"),
        *(f"matched: {rows[0].matched['quantity'].replace('_', ' ')}", "memory", "time"),
    ):
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            r.label,
            "" if r.bytes_per_patch is None else f"{r.bytes_per_patch:.2f}",
            *(short(r.parameters[key]) for key in ("total", "non_embedding", "active")),
            short(r.train_bytes),
            "" if r.patches is None else short(r.patches),
            f"{r.train_flops:.2e}",
            _closeness(r.matched),
            f"{short(r.memory)}B",
            duration(r.seconds),
        )
    return table


def _closeness(matched: dict[str, Any]) -> str:
    """How near a row comes to what it is matched to, and what was changed for that."""
    if matched["deviation"] is None:
        return "free"
    changed = ", ".join(f"{name} {value}" for name, value in matched["set"].items() if name != "bytes")
    elsewhere = "".join(f", {off:+.1%} on {text}" for text, off in matched["elsewhere"].items())
    return f"{matched['deviation']:+.1%}{elsewhere}" + (f" ({changed})" if changed else "")


def _parts(rows: list[RowPlan]) -> Table:
    table = Table(title="forward FLOPs a byte, by part (once for the budgets of a sweep)")
    table.add_column("row")
    parts = list(rows[0].flops_per_byte)
    for part in parts:
        table.add_column(part.replace("_", " "), justify="right")
    table.add_column("by the paper's formula", justify="right")
    told = set()
    for r in rows:
        costs = [*(short(r.flops_per_byte[part]) for part in parts), short(r.paper_flops_per_byte)]
        alike = (r.label.partition("@")[0], *costs)  # the budgets of a sweep cost the same a byte
        if alike not in told:
            told.add(alike)
            table.add_row(r.label, *costs)
    return table


def short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
