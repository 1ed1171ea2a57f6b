"""Running a suite: each row at each seed once, whoever runs it, however often it is interrupted."""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from bench import records
from bench.allocator import keep_memory, release_memory
from bench.audit import audit
from bench.checkpoint import save_model
from bench.config import Row, Suite
from bench.data import Data, load
from bench.model import CutModel
from bench.prepare import (
    Prepared,
    after_training,
    flops,
    make_model,
    parameters,
    patcher_summary,
    prepare,
    training_flops,
)
from bench.records import Record
from bench.tasks import TASKS
from bench.train import Progress, TrainingFailed, train


class AuditFailed(RuntimeError):
    """The trained model's bits per byte are not a valid claim, so the run has no number."""


class Listener(Protocol):
    """Who is told how a suite goes; the command line shows it, a script may ignore it."""

    def say(self, message: str) -> None:
        """One line about what is going on."""

    def run_begins(self, run_id: str, number: int, total: int) -> None: ...

    def trained(self, progress: Progress, total_bytes: int) -> None:
        """After each training step."""

    def run_ends(self, record: Record) -> None: ...


class Silent:
    """The listener of scripts."""

    def say(self, message: str) -> None: ...

    def run_begins(self, run_id: str, number: int, total: int) -> None: ...

    def trained(self, progress: Progress, total_bytes: int) -> None: ...

    def run_ends(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Run:
    """One row at one seed."""

    row: Row
    seed: int
    run_id: str
    index: int
    """The row's place in the suite."""


@dataclass(frozen=True)
class Outcome:
    records: list[Record]
    """Of all runs of the suite, in its order."""


def runs_of(suite: Suite, data: Data) -> list[Run]:
    """All runs of a suite, seed by seed, so that a first comparison is there early."""
    versions = {name: TASKS[name].version for name in suite.tasks}
    return [
        Run(row, seed, records.run_id(row.label, seed, suite.run_config(row.label), data.fingerprint, versions), i)
        for seed in suite.seeds
        for i, row in enumerate(suite.rows)
    ]


def run_suite(suite: Suite, results: Path, listener: Listener | None = None) -> Outcome:
    """Do what is missing of a suite and return all its records.

    A run that another process is doing is waited for, not repeated. A run that fails leaves a record that says so,
    and the others go on. Raises BenchError for what concerns all runs: the data, the results folder.
    """
    listener = listener or Silent()
    keep_memory()
    listener.say(f"reading {suite.data.label}")
    data = load(suite.data)
    runs = runs_of(suite, data)
    known = {r.run_id: records.find(results, suite.name, r.run_id) for r in runs}
    missing = [r for r in runs if not records.done(known[r.run_id])]
    for wait in (0.0, -1.0):  # first what nobody else is doing, then what others were doing and may not have finished
        held = []
        for r in missing:
            with records.claim(results, suite.name, r.run_id, wait) as mine:
                if not mine:
                    held.append(r)
                elif records.find(results, suite.name, r.run_id) == known[r.run_id]:  # else another process did it
                    listener.run_begins(r.run_id, runs.index(r) + 1, len(runs))
                    record = run_one(suite, r, data, results, listener)
                    records.write(results, record)
                    checkpoint = training_checkpoint(results, suite, r)
                    for left in checkpoint.parent.glob(f"{checkpoint.name}*"):  # and what a killed process began
                        left.unlink(missing_ok=True)
                    listener.run_ends(record)
        if held and wait == 0.0:
            listener.say(f"waiting for another process at {held[0].run_id}")
        missing = held
    all_records = [records.find(results, suite.name, r.run_id) for r in runs]
    return Outcome([r for r in all_records if r is not None])


def run_one(suite: Suite, run: Run, data: Data, results: Path, listener: Listener) -> Record:
    """Train, score and describe one run; whatever goes wrong becomes a record that says what."""
    record: Record = {
        "run_id": run.run_id,
        "suite": suite.name,
        "row": run.row.label,
        "row_index": run.index,
        "seed": run.seed,
        "config": suite.run_config(run.row.label),
        "data": data.summary(),
        "environment": records.environment(str(best_device())),
    }
    try:
        return record | {"status": "ok", "error": None} | _results_of(suite, run, data, results, listener)
    except TrainingFailed as error:
        problem: dict[str, Any] = {"kind": "diverged", "message": str(error), "step": error.step}
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; this run has failed, the others go on
        problem = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    return record | {"status": "failed", "error": problem}


def _results_of(suite: Suite, run: Run, data: Data, results: Path, listener: Listener) -> Record:
    row = run.row
    device = best_device()
    reset_peak_memory(device)
    prepared = prepare(suite, row, data, results / suite.name / "cache", listener.say)
    model = make_model(row, prepared.patcher, run.seed)
    progress = train(
        model, prepared.train, row.train, run.seed, device, training_checkpoint(results, suite, run), listener.trained
    )
    prepared = after_training(prepared, model, data, listener.say)
    listener.say("scoring")
    began = time.perf_counter()
    byte_model = CutModel(
        model,
        prepared.scoring_patcher,
        row.train.window,
        device,
        row.train.batch_bytes,
        with_ids=prepared.with_ids,
    )
    tasks = run_tasks(suite.tasks, byte_model, data)
    seconds = time.perf_counter() - began
    listener.say("auditing")
    audits = {name: vars(a) for name, a in audit(byte_model, data.test.texts).items()}
    failed = [f"{name}: {a['detail']}" for name, a in audits.items() if not a["passed"]]
    if failed and not row.leaky:
        raise AuditFailed("; ".join(failed))
    save_model(results / suite.name / "checkpoints" / run.run_id, suite, run.row, prepared.patcher, model)
    per_byte = flops(prepared)
    return {
        "patcher": patcher_summary(prepared),
        "parameters": parameters(model),
        "flops": {
            "per_byte": per_byte,
            "train": training_flops(per_byte, progress.bytes),
            "patcher_training": prepared.patcher.training_flops() if prepared.patcher else 0.0,
        },
        "cost": {
            "train_bytes": progress.bytes,
            "train_steps": progress.step,
            "train_seconds": round(progress.seconds, 3),
            "train_bytes_per_second": round(progress.bytes / progress.seconds, 1),
            "train_busy_share": round(progress.busy_seconds / progress.seconds, 4),
            "score_seconds": round(seconds, 3),
            "peak_memory_bytes": peak_memory(device),
        },
        "loss_curve": progress.curve,
        "tasks": tasks,
        "audits": audits,
    }


def run_tasks(names: Sequence[str], model: CutModel, data: Data) -> dict[str, Any]:
    """What each task says of a trained model, as the record has it."""
    out = {}
    for name in names:
        result = TASKS[name]().run(model, data.test.documents)
        metrics = {metric: value.as_json() for metric, value in result.metrics.items()}
        out[name] = {"version": TASKS[name].version, "metrics": metrics, "values": result.values}
    return out


def training_checkpoint(results: Path, suite: Suite, run: Run) -> Path:
    return results / suite.name / "checkpoints" / f"{run.run_id}.training.safetensors"


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, so that a run's peak is its own."""
    release_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator where there is one, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


__all__ = ["Listener", "Outcome", "Prepared", "Run", "Silent", "run_one", "run_suite", "runs_of"]
