"""The commands `run`, `status` and `plan`, which concern whole suites."""

import json
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
    show,
)


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
    from bench.execution.launch import incomplete, launch
    from bench.execution.workers import Job
    from bench.reporting.table import build, check_columns, render
    from bench.suites.config import load_suite
    from bench.system.files import check_writable
    from bench.system.progress import Display
    from bench.system.signals import heed_sigterm

    config = load_suite(suite, overrides or [], plugin or [])
    check_columns(config.columns, {task.name for task in config.tasks})
    check_writable(results)
    heed_sigterm()
    job = Job(suite, tuple(overrides or []), tuple(plugin or []), results)
    with Display() as display:
        records = launch(job, config, display, workers, only=only, wait=wait, retry_tasks=retry_tasks)
        if records is None:
            return 0
        all_done = not incomplete(config, records, only)
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
    from bench.system.files import check_writable

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

    Patchers are fitted (those in the cache of --results are taken from there), and this machine is timed for ten
    seconds. What would keep `run` from its end is said: texts that are missing or too few for a task, and no room for a
    model, or for its checkpoints in --results.
    """
    from bench.execution.plan import plan_pretrained, plan_rows, tables
    from bench.reporting.table import check_columns
    from bench.suites.config import load_suite

    config = load_suite(suite, overrides or [], plugin or [])
    check_columns(config.columns, {task.name for task in config.tasks})
    with tempfile.TemporaryDirectory() as scratch:
        kept = results / "cache"
        pretrained = plan_pretrained(config)
        rows = plan_rows(config, kept if kept.is_dir() else Path(scratch), results)
    if as_json:
        print(json.dumps([vars(row) for row in (*rows, *pretrained)], indent=1))
        return
    for made in tables(config, rows, pretrained):
        show(made)
