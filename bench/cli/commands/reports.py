"""The commands `table`, `plot` and `report`: views of existing records; nothing is trained."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.commands.options import DEFAULT_RESULTS, Everything, Overrides, Plugins, Results, names_of, write
from bench.records.selection import select, suites_with_records
from patchers.errors import BenchError

Suites = Annotated[list[str] | None, typer.Argument(metavar="[SUITE]...", help="By default each that has records.")]
Rows = Annotated[str, typer.Option(metavar="A,B", help="These rows, in this order.")]
Reference = Annotated[str | None, typer.Option(metavar="ROW", help="The row to take differences to.")]


Format = StrEnum("Format", ["terminal", "md", "latex", "csv", "html", "json"])
"""How a table is written."""


def table(
    suite: Annotated[str | None, typer.Argument(metavar="[SUITE]", help="By default each that has records.")] = None,
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.terminal,
    rows: Rows = "",
    columns: Annotated[str, typer.Option(metavar="A,B", help="These columns, in this order.")] = "",
    reference: Reference = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="-COLUMN for the largest first.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Rows with the same words together.")] = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="Split each cut's gain over stride: told, placed, both.")
    ] = False,
    everything: Everything = False,
) -> None:
    """Print the tables of records that are there; train nothing.

    Where the suite has records of its present configuration (and of the KEY=VALUEs that are given), the others are
    left out, and a note says how many.
    """
    from bench.reporting.channels import channels_table
    from bench.reporting.table import Comparison, build, render

    for name in _wanted(results, [suite] if suite else None):
        chosen = select(results, name, overrides or [], plugin or [], everything)
        if channels:
            made = channels_table(Comparison(chosen.records, names_of(rows) or chosen.rows))
        else:
            made = build(
                *(chosen.records, names_of(rows) or chosen.rows, names_of(columns), reference, sort),
                group=group,
                preferred=chosen.columns,
            )
        print(render(dataclasses.replace(made, notes=(*chosen.notes, *made.notes)), format.value))


def plot(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A path, or a name.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A .svg, .png or .pdf, or a folder for all kinds."),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="What to show; without -o, see which there are.")
    ] = "differences",
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    rows: Rows = "",
    reference: Reference = None,
    everything: Everything = False,
) -> None:
    """Draw a suite's records; train nothing. Needs the extra `report`.

    The same records give the same file.
    """
    from bench.reporting.plots.catalog import KINDS, drawn, plot
    from bench.reporting.plots.style import write as write_picture
    from bench.reporting.table import Comparison

    if output is None:
        print("\n".join(f"{name:16} {kind.what}" for name, kind in KINDS.items()))
        return
    chosen = select(results, suite, overrides or [], plugin or [], everything)
    compared = Comparison(chosen.records, names_of(rows) or chosen.rows, reference)
    if output.suffix:
        write_picture(plot(compared, kind), output)
        print(f"wrote {output}")
        return
    for name in KINDS:
        figure = drawn(compared, name)
        if figure is not None:
            write_picture(figure, output / f"{name}.svg")
            print(f"wrote {output / name}.svg")


def report(
    suite: Suites = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = Path(
        "report.html"
    ),
    results: Results = DEFAULT_RESULTS,
    reference: Reference = None,
    claims: Annotated[
        str, typer.Option(metavar="CLAIMS", help="Claims to give verdicts on, where they have records here.")
    ] = "paper",
    everything: Everything = False,
) -> None:
    """Write one page about suites: tables, plots, verdicts, texts byte by byte, and all records; it needs no network.

    Needs the extra `report`.
    """
    from bench.claims.config import load_claims
    from bench.claims.verdicts import judge
    from bench.reporting.intrinsics import KEPT, read
    from bench.reporting.report import page

    chosen = [select(results, name, everything=everything) for name in _wanted(results, suite)]
    loaded = load_claims(claims)
    findings = judge(loaded, results)
    has_verdicts = any(one.said != "no records" for one in findings)
    cuts = {selection.suite: read(results / selection.suite / KEPT) for selection in chosen}
    write(output, page(chosen, reference, verdicts=(loaded, findings) if has_verdicts else None, cuts=cuts))


def _wanted(results: Path, suites: list[str] | None) -> list[str]:
    """The suites that are named, else those that have records."""
    found = suites or suites_with_records(results)
    if not found:
        raise BenchError(
            f"no records in {results}, which has records of: no suite; make them with "
            f"`patchbench run quick --results {results}`"
        )
    return found
