"""The command `patchbench`.

What a user can mend is one line on standard error, `patchbench: error: ...`, and exit code 2. Whatever needs
torch is imported by the command that needs it, so that `list` and `--help` answer at once.
"""

import functools
import json
import os
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
from bench.listing import LISTS

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
PATCHER = "NAME[:KEY=VALUE,...]"
PATCHER_HELP = "A patcher with its options, or a folder that has one: results/SUITE/checkpoints/RUN_ID."
LONG = ("what", "options", "source")
"""Columns of `list` that are made narrower where the terminal is."""
FITTED_ON = "wiki-en"
"""The corpus that patchers learn from where no suite names another."""


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


@app.command()
def check(
    patcher: Annotated[str, typer.Argument(metavar="PATCHER", help=PATCHER_HELP)],
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the patcher.")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> int:
    """Run the contract on a patcher: exit code 0 if it is sound, 1 if not, with the counter-example.

    One that learns is fitted on a part of wiki-en first.
    """
    from bench import checking
    from bench.fitting import asked
    from bench.progress import Display

    _load_plugins(plugin)
    with Display() as display:
        verdict = checking.check(asked(patcher, setting or []), display.say)
    if as_json:
        print(json.dumps(checking.as_json(verdict), indent=1))
    else:
        checking.show(verdict, Console(highlight=False))
    return 0 if verdict.sound else 1


@app.command()
def segment(
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE|-", help="A file of that name, else the text itself.")],
    patcher: Annotated[list[str], typer.Option("-p", "--patcher", metavar=PATCHER, help=PATCHER_HELP)],
    bytes_per_patch: Annotated[
        float | None, typer.Option(metavar="X", help="Set the knob of each patcher for that mean size, unless given.")
    ] = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page as well.")] = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
) -> None:
    """Show how patchers cut a text, and statistics of their patches.

    What learns is fitted on wiki-en, and kept in the cache of the results folder.
    """
    from bench import viewing
    from bench.data import Data, DataConfig, load
    from bench.fitting import asked, fit_cached
    from bench.progress import Display

    _load_plugins(plugin)
    wanted = [asked(one) for one in patcher]
    data, source = _text(text)
    views = []
    with Display() as display:

        @functools.cache
        def corpus() -> Data:
            _check_writable(results)
            display.say(f"reading {FITTED_ON}")
            return load(DataConfig(corpus=FITTED_ON))

        for one in wanted:
            size = bytes_per_patch if one.calibrates else None
            ready = one.patcher
            if one.learns or size is not None:
                ready = fit_cached(ready, corpus(), size, results / "cache", display.say)
            views.append(viewing.view(one.label, ready, data))
    if as_json:
        shown = {"source": source, "bytes": len(data), "views": [viewing.as_json(one) for one in views]}
        print(json.dumps(shown, indent=1))
    else:
        viewing.show(views, source, Console(highlight=False))
    if html is not None:
        from bench.viewing_page import page

        _write(html, page(views, source))


@app.command()
def new_patcher(
    name: Annotated[str, typer.Argument(metavar="NAME", help="In lower case, as my-words.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path(),
) -> None:
    """Write a small patcher of your own to start from, with a test beside it that passes."""
    from bench.scaffold import write_patcher

    plugin, test = write_patcher(name, folder)
    print(f"{plugin}\n{test}\n\nNext: python -m pytest {test}\n      patchbench check {name} --plugin {plugin}")


CheckpointArgument = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A folder results/SUITE/checkpoints/RUN_ID.")
]
Prompt = Annotated[str, typer.Option(metavar="TEXT", help="What to go on with.")]
PromptFile = Annotated[Path | None, typer.Option(metavar="FILE|-", help="Take the prompt's bytes from here instead.")]
Temperature = Annotated[float, typer.Option(metavar="X", help="0 takes the most probable byte each time.")]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="N", help="Draw from the N most probable alone.")]
TopP = Annotated[float | None, typer.Option("--top-p", metavar="X", help="Draw from those that make up X.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of what is drawn.")]
Utf8Option = Annotated[bool, typer.Option("--utf8", help="Write valid UTF-8 only.")]


@app.command()
def generate(
    checkpoint: CheckpointArgument,
    prompt: Prompt = "",
    prompt_file: PromptFile = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Write so many bytes at most.")] = 256,
    until: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before it; may be repeated.")] = None,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    utf8: Utf8Option = False,
    draft: Annotated[
        int | None, typer.Option(metavar="N", help="Self-speculation: draft N bytes past a patch's end; same text.")
    ] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Go on with a prompt, byte by byte, with a model that a run has trained."""
    from bench.checkpoint import load_model
    from bench.generate import Screen, Wish, stream
    from models.sampling import Sampling
    from models.writing import Limits

    _load_plugins(plugin)
    ends = tuple(os.fsencode(text) for text in until or [])
    wish = Wish(Limits(max_bytes, ends, utf8), Sampling(temperature, top_k, top_p), seed, draft)
    begins = _prompt(prompt, prompt_file)
    model = load_model(checkpoint)
    written, done, screen = b"", None, Screen(sys.stdout)
    for pieces in stream(model.module, model.patcher, [begins], wish):
        written, done = written + pieces[0].data, pieces[0].done
        if not as_json:
            screen.show(pieces[0].data, final=done is not None)
    if as_json:
        text = {"prompt": begins.decode(errors="replace"), "text": written.decode(errors="replace")}
        print(json.dumps({**text, "hex": written.hex(), "bytes": len(written), "ended_by": done}, indent=1))
    elif sys.stdout.isatty():
        print()


@app.command()
def trace(
    checkpoint: CheckpointArgument,
    prompt: Prompt = "",
    prompt_file: PromptFile = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", help="Write so many bytes after the prompt.")] = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = None,
    seed: Seed = 0,
    utf8: Utf8Option = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it as well: .png, .svg, .pdf (needs matplotlib).")
    ] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Show byte by byte how a model reads a prompt and goes on: how unsure it is, where it cuts, what runs."""
    from bench import trace as tracing
    from bench.checkpoint import load_model
    from bench.generate import Wish
    from models.sampling import Sampling
    from models.writing import Limits

    _load_plugins(plugin)
    wish = Wish(Limits(max_bytes, (), utf8), Sampling(temperature, top_k, top_p), seed)
    model = load_model(checkpoint)
    made = tracing.trace(model.module, model.patcher, _prompt(prompt, prompt_file), wish)
    if picture is not None:
        tracing.draw(made, picture)
    if as_json:
        print(json.dumps(made.as_json(), indent=1))
    else:
        _show(tracing.as_table(made))


@app.command(name="list")
def list_(what: Listed, as_json: AsJson = False, plugin: Plugins = None) -> None:
    """List patchers, models, tasks, corpora or suites."""
    _load_plugins(plugin)
    rows = LISTS[what.value]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    hidden = {"causal", "options"} if what is Listed.patchers else set()
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        if key not in hidden:
            shown.add_column(key, overflow="fold", no_wrap=key not in LONG)
    for row in rows:
        shown.add_row(*(_listed(key, value) for key, value in row.items() if key not in hidden))
    _show(shown)


def _load_plugins(plugins: list[str] | None) -> None:
    for path in plugins or []:
        patchers.load_plugin(path)


def _text(text: str) -> tuple[bytes, str]:
    """The bytes that an argument stands for, and where they are from."""
    if text == "-":
        return sys.stdin.buffer.read(), "from standard input"
    if not os.path.exists(text) or os.path.isdir(text):
        return os.fsencode(text), "from the command line"
    try:
        return Path(text).read_bytes(), f"of {text}"
    except OSError as error:
        raise BenchError(f"cannot read {text}: {error.strerror}") from error


def _prompt(text: str, file: Path | None) -> bytes:
    """A prompt as the bytes that were typed, valid UTF-8 or not."""
    if file is None:
        return os.fsencode(text)
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read the prompt from {file}: {error.strerror}; give a file that is there") from error


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; give another file") from error
    print(f"wrote {path}", file=sys.stderr)


def _show(table: Table) -> None:
    terminal = Console(highlight=False)
    # A pipe has no width: what reads it gets whole lines.
    (terminal if terminal.is_terminal else Console(width=1000, highlight=False)).print(table)


def _listed(key: str, value: Any) -> Text:
    """A cell of `list`: of a source the beginning is enough, the other long ones are wrapped."""
    return Text(_cell(value), no_wrap=key == "source", overflow="ellipsis" if key == "source" else "fold")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)


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
