"""Submits the missing runs of a suite as a Slurm job array.

submitit writes the array and submits it. Who does what is decided by the results folder, as everywhere
(`records.claim`); all nodes must see the same one. A task that is told to stop, because its time is over or somebody
needs its node, writes its checkpoint, goes back into the queue and goes on from there (`bench.execution.slurm_task`).
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import records
from bench.execution.run import Listener, Outcome, Work
from bench.execution.slurm_task import do
from bench.execution.workers import Job, record_death
from bench.suites.config import Suite
from bench.suites.launch_config import SlurmConfig
from bench.system.files import read_header, write_header
from patchers.errors import BenchError

SETTLES = 30.0
"""Seconds after the end of a task in which its record may still be on its way through a shared file system."""

FAULTS = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "DEADLINE")
"""States in which a task ends by nobody's wish."""
OVER = ("COMPLETED", "CANCELLED", "FORGOTTEN", *FAULTS)
"""States in which a task stays; whatever else Slurm says, it may yet run."""


@dataclass(frozen=True)
class Task:
    """Where in Slurm a run is."""

    name: str
    """As Slurm has it: 12_3, or 12 where that was all."""
    state: str
    """Slurm's word; FORGOTTEN of a task that ended long ago, UNKNOWN where Slurm cannot be asked."""
    reason: str
    """Why it waits, or empty."""
    log: Path
    """Its output around that of the run."""

    @property
    def over(self) -> bool:
        return self.state in OVER

    def __str__(self) -> str:
        return f"Slurm task {self.name}, {self.state}" + (f" ({self.reason})" if self.reason else "")


def run_in_slurm(
    job: Job, suite: Suite, at_a_time: int | None, listener: Listener, tell: Callable[[str], None], wait: bool = True
) -> Outcome | None:
    """`run_suite` by a job array, so many runs `at_a_time`; None where it is not waited for. `tell` gets lines to keep.

    Raises BenchError for what concerns all runs, and as `submit` does.
    """
    work = Work.of(suite, job.results, listener)
    work.check()
    name = submit(job, work, at_a_time)
    if name is not None:
        tell(f"Slurm has the runs as job {name}, which goes on without this command; `scancel {name}` ends it")
    if not wait:
        return None
    for line in follow(work, listener):
        tell(line)
    return work.outcome()


# --- submitting


def submit(job: Job, work: Work, at_a_time: int | None) -> str | None:
    """Submit an array with a task for each missing run that has none; its name, or None where none was needed.

    Raises BenchError where there is no submitit or no Slurm, and for what Slurm refuses.
    """
    settings = work.suite.launch.slurm
    assert settings is not None
    tasks = tasks_of(work.results, work.suite.name)
    todo = [run for run in work.missing if run.run_id not in tasks or tasks[run.run_id].over]
    if not todo:
        return None
    if importlib.util.find_spec("submitit") is None:
        raise BenchError("`launch: {slurm: ...}` needs submitit: pip install 'patchbench[slurm]'")
    if shutil.which("sbatch") is None:
        raise BenchError("there is no sbatch here; run this where Slurm takes jobs, or here with launch.slurm=null")
    import submitit

    folder = _folder(work.results, work.suite.name)
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**parameters(settings, work.suite.name, at_a_time or len(todo)))
    commands = [job.command(run.run_id) for run in todo]
    logs = [str(records.log_path(work.results.absolute(), work.suite.name, run.run_id)) for run in todo]
    try:
        with redirect_stderr(io.StringIO()):  # which repeats what is raised
            made = executor.map_array(do, commands, logs, [settings.requeues] * len(todo))
    except submitit.core.utils.UncompletedJobError as error:  # of sbatch
        said = str(error).splitlines()[-1:] or ["sbatch gave no reason"]
        raise BenchError(f"Slurm does not take the runs: {said[0]}; see launch.slurm in the suite") from error
    name = str(made[0].job_id).partition("_")[0]
    named = {one.job_id: run.run_id for one, run in zip(made, todo, strict=True)}
    write_header(folder / f"{name}.json", {"tasks": named})
    return name


def parameters(settings: SlurmConfig, suite: str, at_a_time: int) -> dict[str, Any]:
    """What submitit is given for an array of runs."""
    mine: dict[str, Any] = {
        "job_name": _job_name(suite),
        "array_parallelism": at_a_time,
        "stderr_to_stdout": True,
        "wckey": None,  # which would be submitit, and need not exist
        "time": settings.time,
        "partition": settings.partition,
        "gres": settings.gres,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "setup": list(settings.setup),
        # SIGTERM and not submitit's SIGUSR2: torchrun, its ranks and a lone process all write their checkpoints at it.
        "additional_parameters": {"requeue": True, "signal": f"TERM@{settings.notice}", **settings.options},
    }
    if settings.cpus is not None:
        mine |= {"cpus_per_task": settings.cpus, "srun_args": [f"--cpus-per-task={settings.cpus}"]}  # srun has its own
    if settings.memory_gb is not None:
        mine["mem"] = f"{round(settings.memory_gb * 1024)}M"
    return mine


# --- looking


def follow(work: Work, listener: Listener) -> list[str]:
    """Look on until every missing run has ended, or its task has; what is to be said of runs that have no record.

    A run whose task ended by a fault (a crash, no memory, a dead node) is recorded as failed, as that of a dead worker
    is. Of one that was cancelled nothing is known, and the same command submits it again.
    """
    left = {run.run_id: run for run in work.missing}
    over_since: dict[str, float] = {}
    lost = []
    began = time.monotonic()
    while left:
        tasks = tasks_of(work.results, work.suite.name)  # before the records, which are there when their tasks end
        for run in list(left.values()):
            task = tasks[run.run_id]
            found = records.find(work.results, work.suite.name, run.run_id)
            if found is not None and (found != work.known[run.run_id] or task.state == "COMPLETED"):
                listener.run_begins(run.run_id, work.runs.index(run) + 1, len(work.runs))
                listener.run_ends(found)
                del left[run.run_id]
            elif not task.over:
                over_since.pop(run.run_id, None)
            elif time.monotonic() - over_since.setdefault(run.run_id, time.monotonic()) > SETTLES:
                if task.state in FAULTS:
                    listener.run_begins(run.run_id, work.runs.index(run) + 1, len(work.runs))
                    record_death(work, run, f"its {task}", listener)
                else:
                    lost.append(f"{run.run_id} is not done: its {task}; the same command submits it again")
                del left[run.run_id]
        if left:
            counts = Counter(tasks[run_id].state.lower() for run_id in left)
            listener.say("Slurm: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
            time.sleep(min(15.0, max(1.0, (time.monotonic() - began) / 20)))
    return lost


def tasks_of(results: Path, suite: str) -> dict[str, Task]:
    """The latest task of each run that was ever submitted."""
    folder = _folder(results, suite)
    submissions = sorted(folder.glob("[0-9]*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not submissions:
        return {}
    states = _ask(suite)
    found = {}
    for path in submissions:
        for name, run_id in read_header(path)["tasks"].items():
            state, reason = ("UNKNOWN", "") if states is None else states.get(name, ("FORGOTTEN", ""))
            found[run_id] = Task(name, state, reason, folder / f"{name}_0_log.out")
    return found


def _ask(suite: str) -> dict[str, tuple[str, str]] | None:
    """State and reason of each task of a suite's that Slurm knows; None where it cannot be asked."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={_job_name(suite)}", "--format=%i|%T|%r"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.split("|") for line in told.splitlines())
    return {name: (state, "" if reason == "None" else reason) for name, state, reason in rows}


def _job_name(suite: str) -> str:
    return f"patchbench-{suite}"


def _folder(results: Path, suite: str) -> Path:
    return results.absolute() / suite / "slurm"
