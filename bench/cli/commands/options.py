"""Options and helpers that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import patchers
from patchers.errors import BenchError

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A path, or the name of a suite that ships.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to change, as train.lr=1e-3.")
]
DEFAULT_RESULTS = Path("results")
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where records are kept.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="A Python file that registers patchers or tasks.")
]
Everything = Annotated[bool, typer.Option("--all", help="Records of other configurations of the suite too.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def names_of(text: str) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def load_plugins(plugins: list[str] | None) -> None:
    for path in plugins or []:
        patchers.load_plugin(path)


def write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; give another file") from error
    print(f"wrote {path}", file=sys.stderr)


def show(table: Table) -> None:
    terminal = Console(highlight=False)
    # A pipe has no width: what reads it gets whole lines.
    (terminal if terminal.is_terminal else Console(width=1000, highlight=False)).print(table)
