"""The command `patchbench`.

What a user can mend is one line on standard error, `patchbench: error: ...`, and exit code 2. Whatever needs
torch is imported by the command that needs it, so that `list` and `--help` answer at once.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import patchers
from bench import BenchError, __version__
from bench.sources import CORPORA
from bench.suites import purpose, shipped_suites

app = typer.Typer(
    name="patchbench",
    help="Given the same bytes, the same compute and the same model, which way of cutting text into units is best?",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A path, or the name of a suite that ships.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change, as train.lr=1e-3.")
]
DEFAULT_RESULTS = Path("results")
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where records are kept.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="A Python file that registers a patcher.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


class Format(StrEnum):
    """How a table is written."""

    terminal = "terminal"
    md = "md"
    latex = "latex"
    csv = "csv"
    html = "html"
    json = "json"


class Listed(StrEnum):
    """What `list` knows."""

    patchers = "patchers"
    models = "models"
    tasks = "tasks"
    corpora = "corpora"
    suites = "suites"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. A BenchError or a wrong call is one line and 2."""
    try:
        code = app(args=args, prog_name="patchbench", standalone_mode=False)
    except BenchError as error:
        return _fail(str(error))
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "patchbench"
        message = error.format_message().replace("Value error, ", "")
        return _fail(f"{message} See {command} --help.")
    except typer.Abort:
        return _fail("stopped")
    if code == 130:
        return _fail("stopped by the keyboard; the same command goes on from here", 130)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int = 2) -> int:
    print(f"patchbench: error: {' '.join(message.split())}", file=sys.stderr)
    return code


@app.callback(invoke_without_command=True)
def patchbench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"patchbench {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    suite: SuiteArgument, overrides: Overrides = None, results: Results = DEFAULT_RESULTS, plugin: Plugins = None
) -> int:
    """Train and score what is missing of a suite, then print its table.

    Runs that are done are not repeated, and one that was stopped goes on from its last checkpoint.
    """
    from bench.config import load_suite
    from bench.progress import Display
    from bench.run import run_suite
    from bench.table import build, render

    config = load_suite(suite, overrides or [], plugin or [])
    _check_writable(results)
    with Display() as display:
        records = run_suite(config, results, display).records
        if display.ran == 0:
            display.line(f"nothing to do: all {len(records)} runs are done (delete a record to repeat its run)")
    print(render(build(records), Format.terminal.value))
    return 1 if display.failed else 0


@app.command()
def plan(suite: SuiteArgument, overrides: Overrides = None, plugin: Plugins = None) -> None:
    """Say what would be trained and what it costs; train nothing."""
    from bench.config import load_suite
    from bench.plan import make_plan

    _show(make_plan(load_suite(suite, overrides or [], plugin or [])))


@app.command()
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


@app.command(name="list")
def list_(what: Listed, as_json: AsJson = False, plugin: Plugins = None) -> None:
    """List patchers, models, tasks, corpora or suites."""
    for path in plugin or []:
        patchers.load_plugin(path)
    makers = {
        Listed.patchers: _patchers,
        Listed.models: _models,
        Listed.tasks: _tasks,
        Listed.corpora: _corpora,
        Listed.suites: _suites,
    }
    rows = makers[what]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        shown.add_column(key, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_cell(value)) for value in row.values()))
    _show(shown)


def _show(table: Table) -> None:
    terminal = Console(highlight=False)
    # A pipe has no width: what reads it gets whole lines.
    (terminal if terminal.is_terminal else Console(width=1000, highlight=False)).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)


def _patchers() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": cls.kind,
            "causal": cls.causal,
            "knob": cls.knob,
            "options": {f.name: _default(f) for f in dataclasses.fields(cls) if not f.name.startswith("_")},
            "source": cls.source,
        }
        for name, cls in ((name, patchers.get(name)) for name in patchers.names())
    ]


def _models() -> list[dict[str, Any]]:
    from bench.config import MODELS

    return [
        {
            "name": name,
            "what": (cls.__doc__ or "").strip().splitlines()[0],
            "options": {f.name: _default(f) for f in dataclasses.fields(cls)},
        }
        for name, cls in MODELS.items()
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _tasks() -> list[dict[str, Any]]:
    from bench.tasks import TASKS

    return [
        {"name": name, "version": task.version, "what": (task.__doc__ or "").strip().splitlines()[0]}
        for name, task in TASKS.items()
    ]


def _corpora() -> list[dict[str, Any]]:
    return [{"name": name, "what": source.description, "licence": source.licence} for name, source in CORPORA.items()]


def _suites() -> list[dict[str, Any]]:
    return [{"name": name, "what": purpose(path)} for name, path in shipped_suites().items()]


def _words(text: str) -> list[str] | None:
    return [word.strip() for word in text.split(",") if word.strip()] or None


def _check_writable(folder: Path) -> None:
    """Now, and not after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchError(
            f"cannot write to the results folder {folder}: {error.strerror}; choose another with --results DIR"
        ) from error
