"""The command `verdict`: what records say of published claims."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.commands.options import DEFAULT_RESULTS, Plugins, Results

Format = StrEnum("Format", ["terminal", "md", "latex", "html", "json", "yaml"])
"""How verdicts are written; `yaml` is what --expect reads."""
CHANGED = 1
"""The exit code where a verdict is not the one that was expected."""


def verdict(
    claims: Annotated[
        str, typer.Argument(metavar="[CLAIMS]", help="A file of claims, or the name of one that ships.")
    ] = "paper",
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    format: Annotated[Format, typer.Option(help="How to write it; yaml is what --expect reads.")] = Format.terminal,
    expect: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fail (exit code 1) where a verdict is not the one in FILE.")
    ] = None,
) -> int:
    """Say of each claim whether records support it, refute it, or leave it undecided at this scale.

    Each with its estimate and interval, the published figure, the records it rests on, and what would decide it.
    Nothing is trained; a claim without records says which command makes them.
    """
    from bench.claims.config import load_claims
    from bench.claims.expectations import changed, read_expected
    from bench.claims.verdicts import judge
    from bench.reporting.formats import render
    from bench.reporting.verdicts import expectations, verdicts_json, verdicts_table

    wanted = None if expect is None else read_expected(expect)
    loaded = load_claims(claims, plugin or [])
    findings = judge(loaded, results, plugin or [])
    if format is Format.json:
        print(verdicts_json(loaded, findings))
    elif format is Format.yaml:
        print(expectations(loaded, findings))
    else:
        print(render(verdicts_table(loaded, findings), format.value))
    differing = [] if wanted is None else changed(findings, wanted)
    for sentence in differing:
        print(f"patchbench: {sentence}", file=sys.stderr)
    return CHANGED if differing else 0
