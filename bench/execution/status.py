"""Reports which runs of a suite are done, running, failed or waiting, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from bench import records
from bench.execution.run import Run, Silent, data_of, edited_rows, runs_of, training_checkpoint
from bench.execution.slurm import Task, tasks_of
from bench.suites.config import Suite
from bench.system.files import locked
from patchers.errors import BenchError

State = Literal["done", "running", "failed", "damaged", "waiting"]


@dataclass(frozen=True)
class RunStatus:
    """One run. `what` is the reason of a failure, or how far a training is."""

    run_id: str
    state: State
    what: str
    log: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def status(suite: Suite, results: Path) -> list[RunStatus]:
    """Of each run of a suite, in its order; looks and changes nothing but the cache of its text."""
    tasks = tasks_of(results, suite.name)
    runs = runs_of(suite, data_of(suite, results, Silent()))
    found = [_status(suite, run, results, tasks.get(run.run_id)) for run in runs]
    waiting = [run for run, one in zip(runs, found, strict=True) if one.state == "waiting" and not one.what]
    edited = {run.run_id for run in waiting if run.row.label in edited_rows(suite, results, waiting)}
    other = "its plug-in was edited: results of its other code are kept"
    return [replace(one, what=other) if one.run_id in edited else one for one in found]


def _status(suite: Suite, run: Run, results: Path, task: Task | None) -> RunStatus:
    logs = [records.log_path(results, suite.name, run.run_id), *([] if task is None else [task.log])]
    log = next((str(path) for path in logs if path.exists()), None)
    try:
        record = records.find(results, suite.name, run.run_id)
    except BenchError as error:
        return RunStatus(run.run_id, "damaged", str(error), log)
    if records.done(record):
        return RunStatus(run.run_id, "done", "", log)
    under_way = task is not None and not task.over
    place = [str(task)] if under_way else []
    what = "; ".join([part for part in [_trained(training_checkpoint(results, suite, run))] if part] + place)
    if _is_claimed(results, suite.name, run.run_id) or (task is not None and task.state == "RUNNING"):
        return RunStatus(run.run_id, "running", what, log)
    if under_way:
        return RunStatus(run.run_id, "waiting", what, log)
    if record is not None and record["status"] == "ok":
        return RunStatus(run.run_id, "waiting", f"its task {', '.join(record['again'])} is tried again", log)
    if record is not None:
        why = record["error"]
        return RunStatus(run.run_id, "failed", f"{why['kind']}: {why['message']}", log)
    if task is not None:
        return RunStatus(run.run_id, "failed", f"its {task} before the run was done; run the suite again", log)
    return RunStatus(run.run_id, "waiting", what, log)


def _is_claimed(results: Path, suite: str, run_id: str) -> bool:
    path = results / suite / "locks" / f"{run_id}.lock"
    if not path.exists():
        return False
    with locked(path, wait=0.0) as free:
        return not free


def _trained(checkpoint: Path) -> str:
    """Where a training was when it last wrote a checkpoint."""
    try:
        with safe_open(checkpoint, framework="numpy") as held:
            progress = json.loads((held.metadata() or {})["notes"])
            return f"trained on {progress['bytes']:,} bytes in {progress['step']:,} steps"
    except (OSError, SafetensorError, KeyError, ValueError):
        return ""
