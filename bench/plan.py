"""What a suite would train and what it costs, before anything is trained."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from torch import nn

from bench.allocator import keep_memory
from bench.config import Suite
from bench.cuts import batches, training_spans
from bench.data import load
from bench.matching import expected, prepare_matched
from bench.prepare import Prepared, flops, make_model, parameters, training_flops
from bench.run import best_device
from bench.train import make_optimizer, train_step

PROBE_SECONDS = 2.0
"""How long a row's training step is timed for; the first one is left out."""


@dataclass(frozen=True)
class RowPlan:
    """One row of the plan, all its seeds alike."""

    label: str
    bytes_per_patch: float | None
    parameters: dict[str, int]
    flops_per_byte: dict[str, float]
    train_bytes: int
    train_flops: float
    seconds: float
    """Training on this machine, per seed; scoring and fitting patchers come on top."""


def plan_rows(suite: Suite, cache: Path) -> list[RowPlan]:
    """Fit and calibrate the patchers, count, and time a few steps of each row; the weights are thrown away."""
    keep_memory()
    data = load(suite.data)
    rows = []
    for row in suite.rows:
        prepared = expected(prepare_matched(suite, row, data, cache, lambda message: None)[0])
        row = prepared.row
        model = make_model(row, prepared.patcher, suite.seeds[0])
        per_byte = flops(prepared)
        rows.append(
            RowPlan(
                label=row.label,
                bytes_per_patch=prepared.bytes_per_patch["train"] if prepared.bytes_per_patch else None,
                parameters=parameters(model),
                flops_per_byte=per_byte,
                train_bytes=row.train.bytes,
                train_flops=training_flops(per_byte, row.train.bytes),
                seconds=_seconds_per_byte(model, prepared) * row.train.bytes,
            )
        )
    return rows


def _seconds_per_byte(model: nn.Module, prepared: Prepared) -> float:
    """Of training steps on this machine."""
    config, device = prepared.row.train, best_device()
    model.to(device)
    optimizer = make_optimizer(model, config)
    spans = training_spans(prepared.train.offsets, config.window)
    rates: list[float] = []
    began = time.perf_counter()
    for picked in batches(spans, config.batch_bytes, 1 << 60, seed=0):
        at = time.perf_counter()
        batch = prepared.train.windows(picked).to(device)
        train_step(model, model, optimizer, batch, 0.0, config)
        rates.append((time.perf_counter() - at) / len(batch.data))
        if len(rates) > 1 and time.perf_counter() - began > PROBE_SECONDS:
            break
    return float(np.median(rates[1:]))


def make_plan(suite: Suite) -> Table:
    """The plan as a table for the terminal."""
    with tempfile.TemporaryDirectory() as cache:
        rows = plan_rows(suite, Path(cache))
    total = sum(r.seconds for r in rows) * len(suite.seeds)
    table = Table(
        title=f"{suite.name}: {len(rows)} rows x {len(suite.seeds)} seeds, about {_duration(total)} of training here"
    )
    table.add_column("row")
    for name in ("bytes/patch", "parameters", "non-emb.", "active"):
        table.add_column(name, justify="right")
    parts = list(rows[0].flops_per_byte)
    for part in parts:
        table.add_column(f"{part.replace('_', ' ')} FLOPs/B", justify="right")
    for name in ("train bytes", "train FLOPs", "time"):
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            r.label,
            "" if r.bytes_per_patch is None else f"{r.bytes_per_patch:.2f}",
            *(_short(r.parameters[key]) for key in ("total", "non_embedding", "active")),
            *(_short(r.flops_per_byte[part]) for part in parts),
            _short(r.train_bytes),
            f"{r.train_flops:.2e}",
            _duration(r.seconds),
        )
    return table


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
