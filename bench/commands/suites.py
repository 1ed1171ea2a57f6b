"""`patchbench run` and `plan`: what concerns whole suites."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import (
    DEFAULT_RESULTS,
    AsJson,
    Overrides,
    Plugins,
    Results,
    SuiteArgument,
    check_writable,
    show,
)


def run(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="So many runs at a time; cores are divided.")] = 1,
) -> int:
    """Train and score what is missing of a suite, then print its table.

    Runs that are done are not repeated, and one that was stopped goes on from its last checkpoint.
    """
    from bench.config import load_suite
    from bench.launch import Job, run_on_workers
    from bench.progress import Display
    from bench.run import run_suite
    from bench.table import build, render

    config = load_suite(suite, overrides or [], plugin or [])
    check_writable(results)
    with Display() as display:
        if workers == 1:
            records = run_suite(config, results, display).records
        else:
            job = Job(suite, tuple(overrides or []), tuple(plugin or []), results)
            records = run_on_workers(job, config, workers, display, display.beside).records
        if display.ran == 0:
            display.line(f"nothing to do: all {len(records)} runs are done (delete a record to repeat its run)")
    print(render(build(records, preferred=config.columns), "terminal"))
    return 1 if any(record["status"] != "ok" for record in records) else 0


def plan(suite: SuiteArgument, overrides: Overrides = None, plugin: Plugins = None, as_json: AsJson = False) -> None:
    """Say what would be trained, what it costs, and what is made equal how closely; train nothing.

    Patchers are fitted, and this machine is timed for ten seconds; nothing is kept.
    """
    from bench.config import load_suite
    from bench.plan import plan_rows, tables

    config = load_suite(suite, overrides or [], plugin or [])
    with tempfile.TemporaryDirectory() as cache:
        rows = plan_rows(config, Path(cache))
    if as_json:
        print(json.dumps([vars(row) for row in rows], indent=1))
        return
    for made in tables(config, rows):
        show(made)
