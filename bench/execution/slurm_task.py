"""The entry point of one task of a Slurm job array.

submitit pickles the call of `do` when it submits and unpickles it in the task. That is its way to hand over a
command: a function by its name, two strings and a number, in a folder of ours. No pickle is read as data.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.system.processes import cores, environment
from bench.system.signals import EXIT_CODE


def do(command: list[str], log: str, requeues: int) -> None:
    """Run a command, its output in `log`, and put the task back into the queue when the command was told to stop.

    It may be put back `requeues` times. A task ends well where its run has a record, of success or failure; it
    ends with the command's exit code where the run has none.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    # What Slurm has given us, which the process sees only where Slurm also binds it to its cores.
    given = int(os.environ.get("SLURM_CPUS_ON_NODE", cores()))
    with path.open("ab") as output, environment(min(given, cores())):
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if code in (EXIT_CODE, -signal.SIGTERM):  # Slurm's SIGTERM goes to every process of a task
        again = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if again >= requeues:
            sys.exit(f"put back into the queue {again} times and not done; raise launch.slurm.time or .requeues")
        _requeue(_own_name())
    if code not in (0, 1):
        sys.exit(code if code > 0 else 128 - code)


def _own_name() -> str:
    """This task alone: the job id of one of an array's tasks is that of the whole array, which would be requeued."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _requeue(job: str) -> None:
    """Put the task back, unless Slurm is ending it: a cancelled one would rise again, a pre-empted one does anyway."""
    asked = ["squeue", "--noheader", f"--jobs={job}", "--format=%T"]
    state = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if state == "RUNNING":
        subprocess.run(["scontrol", "requeue", job], check=True)
