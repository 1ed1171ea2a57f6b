"""The commands `run`, `status` and `plan`, which concern whole suites."""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from bench.cli.commands.options import (
    DEFAULT_RESULTS,
    AsJson,
    Overrides,
    Plugins,
    Results,
    SuiteArgument,
    check_writable,
    show,
)
from patchers.errors import BenchError


def run(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="So many runs at a time; cores are divided.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Whether to look on until runs in Slurm are done.")
    ] = True,
    retry_tasks: Annotated[
        bool, typer.Option("--retry-tasks", help="Try tasks that failed again, with the models that are there.")
    ] = False,
    only: Annotated[str | None, typer.Option(metavar="RUN_ID", hidden=True)] = None,
) -> int:
    """Train and score what is missing of a suite, then print its table.

    Runs that are done are not repeated, and one that was stopped goes on from its last checkpoint.
    """
    from bench.execution.run import failed_again, run_suite
    from bench.execution.slurm import run_in_slurm
    from bench.execution.workers import Job, run_on_ranks, run_on_workers, workers_by_default
    from bench.reporting.table import build, check_columns, render
    from bench.suites.config import load_suite
    from bench.system.progress import Display
    from bench.system.signals import heed_sigterm

    config = load_suite(suite, overrides or [], plugin or [])
    check_columns(config.columns, {task.name for task in config.tasks})
    check_writable(results)
    heed_sigterm()
    if retry_tasks:
        for run_id in failed_again(config, results):
            print(f"{run_id}: its failed tasks are tried again", file=sys.stderr)
    job = Job(suite, tuple(overrides or []), tuple(plugin or []), results)
    count = workers or config.launch.workers or workers_by_default()
    in_slurm = config.launch.slurm is not None and only is None  # one run alone is what a task there does
    if not wait and not in_slurm:
        raise BenchError("--no-wait leaves runs to Slurm, and this suite has no `launch: {slurm: ...}`; leave it out")
    with Display() as display:
        if in_slurm:
            found = run_in_slurm(job, config, workers or config.launch.workers, display, display.line, wait)
            if found is None:
                return 0
            records = found.records
        elif config.launch.devices > 1:
            records = run_on_ranks(job, config, display, only).records
        elif only is not None or count == 1:
            records = run_suite(config, results, display, only).records
        else:
            records = run_on_workers(job, config, count, display, display.beside).records
        wanted = 1 if only is not None else len(config.rows) * len(config.seeds) + len(config.pretrained)
        all_done = sum(record["status"] == "ok" for record in records) == wanted
        if all_done and display.ran == 0 and only is None and config.launch.devices == 1:
            display.line(f"nothing to do: all {len(records)} runs are done (delete a record to repeat its run)")
    if only is None:
        print(render(build(records, preferred=config.columns), "terminal"))
    return 0 if all_done else 1


def status(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show which runs of a suite are done, running, failed or waiting, why, and where their output is."""
    from bench.execution import status as looking
    from bench.suites.config import load_suite

    config = load_suite(suite, overrides or [], plugin or [])
    check_writable(results)
    runs = looking.status(config, results)
    if as_json:
        print(json.dumps([run.as_json() for run in runs], indent=1))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", "what", "log"):
        shown.add_column(name, overflow="fold", no_wrap=name in ("run", "state"))
    for run in runs:
        shown.add_row(run.run_id, run.state, Text(run.what), run.log or "")
    show(shown)
    counts = Counter(run.state for run in runs)
    print(f"\n{len(runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items()))


def plan(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Say what would be trained, what it costs, and what is made equal how closely; train nothing.

    Patchers are fitted, and this machine is timed for ten seconds; nothing is kept. What would keep `run` from its end
    is said: texts that are missing or too few for a task, and no room for a model, or for its checkpoints in --results.
    """
    from bench.execution.plan import plan_pretrained, plan_rows, tables
    from bench.reporting.table import check_columns
    from bench.suites.config import load_suite

    config = load_suite(suite, overrides or [], plugin or [])
    check_columns(config.columns, {task.name for task in config.tasks})
    with tempfile.TemporaryDirectory() as cache:
        pretrained = plan_pretrained(config)
        rows = plan_rows(config, Path(cache), results)
    if as_json:
        print(json.dumps([vars(row) for row in (*rows, *pretrained)], indent=1))
        return
    for made in tables(config, rows, pretrained):
        show(made)
