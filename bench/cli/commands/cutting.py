"""The commands `check`, `segment` and `new-patcher`, which concern patchers alone."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.commands.options import DEFAULT_RESULTS, AsJson, Plugins, Results, load_plugins, write
from patchers.errors import BenchError

PATCHER = "NAME[:KEY=VALUE,...]"
PATCHER_HELP = "A patcher with its options, or a folder that has one: results/SUITE/checkpoints/RUN_ID."
PatchSize = Annotated[
    float | None, typer.Option(metavar="X", help="Set the knob of each patcher for that mean size, unless given.")
]


def check(
    patcher: Annotated[str, typer.Argument(metavar="PATCHER", help=PATCHER_HELP)],
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the patcher.")
    ] = None,
    plugin: Plugins = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out large batches, long documents, thousands of calls.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Run the contract on a patcher: exit code 0 if it is sound, 1 if not, with the counter-example.

    One that learns is fitted on a part of wiki-en first.
    """
    from bench.cli import check
    from bench.data.fitted_patchers import asked
    from bench.system.progress import display

    load_plugins(plugin)
    with display() as screen:
        verdict = check.check(asked(patcher, setting or []), screen.say, quick)
    if as_json:
        print(json.dumps(check.as_json(verdict), indent=1))
    else:
        check.show(verdict, Console(highlight=False))
    return 0 if verdict.sound else 1


def segment(
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE|-", help="A file of that name, else the text itself.")],
    patcher: Annotated[list[str], typer.Option("-p", "--patcher", metavar=PATCHER, help=PATCHER_HELP)],
    bytes_per_patch: PatchSize = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page as well.")] = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
) -> None:
    """Show how patchers cut a text, and statistics of their patches.

    What learns is fitted on wiki-en, and kept in the cache of the results folder.
    """
    from bench import api
    from bench.reporting import cut_viewer

    load_plugins(plugin)
    data, source = _text(text)
    views = api.cuts(patcher, data, bytes_per_patch=bytes_per_patch, results=results, progress=True)
    if html is not None:
        write(html, cut_viewer.page(views, source))
    if as_json:
        shown = {"source": source, "bytes": len(data), "views": [cut_viewer.as_json(one) for one in views]}
        print(json.dumps(shown, indent=1))
    else:
        cut_viewer.show(views, source, Console(highlight=False))


def new_patcher(
    name: Annotated[str, typer.Argument(metavar="NAME", help="In lower case, as my-words.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path(),
) -> None:
    """Write a small patcher of your own to start from, with a test beside it that passes."""
    from bench.cli.scaffold import write_patcher

    plugin, test = write_patcher(name, folder)
    print(f"{plugin}\n{test}\n\nNext: patchbench check {name} --plugin {plugin}")
    print(f"      python -m pytest {test}   (pip install pytest, where it is not there)")


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
