"""The command `data build`: stores a suite's corpora on disk."""

from typing import Annotated

import typer
from rich.table import Table

from bench.cli.commands.options import DEFAULT_RESULTS, Overrides, Plugins, Results, SuiteArgument, show

data = typer.Typer(help="Corpora on disk.")


@data.command()
def build(
    suite: SuiteArgument,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    cut: Annotated[bool, typer.Option("--cut", help="Fit the patchers too, and cut with them.")] = False,
) -> None:
    """Read, split and store a suite's corpora, as `run` does by itself; print what they hold."""
    from bench.data import store
    from bench.suites.config import load_suite
    from bench.system.files import check_writable
    from bench.system.progress import Display
    from bench.training.prepare import prepare

    config = load_suite(suite, overrides or [], plugin or [])
    check_writable(results)
    cache = results / "cache"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("corpus", "split", "documents", "bytes", "fingerprint"):
        table.add_column(name, justify="right" if name in ("documents", "bytes") else "left", no_wrap=True)
    with Display() as display:
        for corpus in {config.data: None, **dict.fromkeys(config.eval.values())}:
            summary = store.load(corpus, cache, display.say).summary()
            for split, held in summary["splits"].items():
                sizes = (f"{held['documents']:,}", f"{held['bytes']:,}")
                table.add_row(summary["name"], split, *sizes, held["fingerprint"][:12])
        if cut:
            for row in config.rows:
                prepare(config, row, store.load(config.data, cache, display.say), cache, display.say)
                display.line(f"{row.label}: cut")
    show(table)
