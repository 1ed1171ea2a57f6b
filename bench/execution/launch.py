"""Does what is missing of a suite in the way that it asks for: here, on worker processes, on ranks or in Slurm."""

from __future__ import annotations

import sys
from typing import Protocol, Self

from bench.execution import run as alone
from bench.execution import slurm, workers
from bench.execution.run import Listener
from bench.execution.workers import Job
from bench.records.record import Record
from bench.suites.config import Suite
from patchers.errors import BenchError


class Screen(Listener, Protocol):
    """A listener that shows several runs at a time, and lines that stay."""

    ran: int
    """Runs that have ended while it listened."""

    def beside(self) -> Self:
        """For the runs of another process."""
        ...

    def line(self, message: str) -> None:
        """Show a line that stays."""


def launch(
    job: Job,
    suite: Suite,
    screen: Screen,
    asked: int | None = None,
    *,
    only: str | None = None,
    wait: bool = True,
    retry_tasks: bool = False,
) -> list[Record] | None:
    """All records of the suite, those of `only` alone, or None where runs were left to Slurm (`wait` is false).

    `asked` is the number of workers, by default the suite's, else one a GPU or core. `retry_tasks` tries tasks that
    failed again, with the models that are there. Raises BenchError for what concerns all runs.
    """
    if retry_tasks:
        for run_id in alone.failed_again(suite, job.results):
            print(f"{run_id}: its failed tasks are tried again", file=sys.stderr)
    count = asked or suite.launch.workers or workers.workers_by_default()
    in_slurm = suite.launch.slurm is not None and only is None  # one run alone is what a task there does
    if not wait and not in_slurm:
        raise BenchError("--no-wait leaves runs to Slurm, and this suite has no `launch: {slurm: ...}`; leave it out")
    if in_slurm:
        found = slurm.run_in_slurm(job, suite, asked or suite.launch.workers, screen, screen.line, wait)
        return None if found is None else found.records
    if suite.launch.devices > 1:
        return workers.run_on_ranks(job, suite, screen, only).records
    if only is not None or count == 1:
        return alone.run_suite(suite, job.results, screen, only).records
    return workers.run_on_workers(job, suite, count, screen, screen.beside).records


def incomplete(suite: Suite, records: list[Record], only: str | None = None) -> bool:
    """Whether some run has no number."""
    wanted = 1 if only is not None else len(suite.rows) * len(suite.seeds) + len(suite.pretrained)
    return sum(record["status"] == "ok" for record in records) != wanted
