"""The commands `list` (patchers, tasks, suites, claims, ...) and `schema` (of suites, for editors)."""

import json
from enum import StrEnum
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.cli.commands.options import AsJson, Plugins, load_plugins, show
from bench.cli.listing import LISTS

LONG = ("what", "options", "source")
"""Columns of `list` that are made narrower where the terminal is."""


Listed = StrEnum("Listed", ["patchers", "models", "tasks", "corpora", "suites", "claims", "predicates"])
"""What `list` knows."""


def list_(what: Listed, as_json: AsJson = False, plugin: Plugins = None) -> None:
    """List patchers, models, tasks, corpora, suites, claims or predicates."""
    load_plugins(plugin)
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
    show(shown)


def schema() -> None:
    """Print the JSON Schema of suites, with which an editor completes keys and marks what is misspelt."""
    from bench.suites.schema import schema as made

    print(json.dumps(made(), indent=1))


def _listed(key: str, value: Any) -> Text:
    """A cell of `list`: of a source the beginning is enough, the other long ones are wrapped."""
    return Text(_cell(value), no_wrap=key == "source", overflow="ellipsis" if key == "source" else "fold")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)
