"""`patchbench run`, `plan` and `table`: what concerns whole suites."""

from enum import StrEnum
from typing import Annotated

import typer

from bench.commands.options import DEFAULT_RESULTS, Overrides, Plugins, Results, SuiteArgument, check_writable, show
from patchers.errors import BenchError


class Format(StrEnum):
    """How a table is written."""

    terminal = "terminal"
    md = "md"
    latex = "latex"
    csv = "csv"
    html = "html"
    json = "json"


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
    print(render(build(records), Format.terminal.value))
    return 1 if any(record["status"] != "ok" for record in records) else 0


def plan(suite: SuiteArgument, overrides: Overrides = None, plugin: Plugins = None) -> None:
    """Say what would be trained and what it costs; train nothing."""
    from bench.config import load_suite
    from bench.plan import make_plan

    show(make_plan(load_suite(suite, overrides or [], plugin or [])))


def table(
    suite: Annotated[str | None, typer.Argument(metavar="[SUITE]", help="By default each that has records.")] = None,
    results: Results = DEFAULT_RESULTS,
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.terminal,
    rows: Annotated[str, typer.Option(metavar="A,B", help="These rows, in this order.")] = "",
    columns: Annotated[str, typer.Option(metavar="A,B", help="These columns, in this order.")] = "",
    reference: Annotated[str | None, typer.Option(metavar="ROW", help="The row to take differences to.")] = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="-COLUMN for the largest first.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Rows with the same words together.")] = None,
) -> None:
    """Print the tables of records that are there; train nothing."""
    from bench.records import load_all
    from bench.table import build, render

    present = sorted({path.parent.parent.name for path in results.glob("*/runs/*.json")})
    wanted = present if suite is None else [suite]
    if suite not in (None, *present) or not present:
        of = f" of suite {suite!r}" if suite is not None else ""
        raise BenchError(
            f"no records{of} in {results}, which has records of: {', '.join(present) or 'no suite'}; make them with "
            f"`patchbench run {suite or 'quick'} --results {results}`"
        )
    for name in wanted:
        made = build(load_all(results, name), _words(rows), _words(columns), reference, sort, group=group)
        print(render(made, format.value))


def _words(text: str) -> list[str] | None:
    return [word.strip() for word in text.split(",") if word.strip()] or None
