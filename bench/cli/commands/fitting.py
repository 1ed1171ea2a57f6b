"""The commands `fit` and `agree`: scaling fits of a sweep, and agreement between two suites, from records."""

import json
from typing import Annotated

import typer

from bench.cli.commands.options import DEFAULT_RESULTS, AsJson, Everything, Overrides, Plugins, Results, names_of, show
from patchers.errors import BenchError


def fit(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A path, or a name, of a suite with a sweep.")],
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    rows: Annotated[str, typer.Option(metavar="A,B", help="These rows, as they are called in the suite.")] = "",
    as_json: AsJson = False,
    everything: Everything = False,
) -> None:
    """Fit bits per byte against compute, L = E + A * C^-a, for each row of a sweep, and say where rows cross.

    Intervals are over the documents that were scored, and the seeds. Nothing is claimed beyond the budgets that were
    measured.
    """
    from bench.records.compute_optimal import optima_of
    from bench.records.fits import fits_of
    from bench.records.selection import select
    from bench.reporting.fit_tables import notes, tables

    chosen = select(results, suite, overrides or [], plugin or [], everything)
    found = fits_of(chosen.records, names_of(rows))
    optima = optima_of(chosen.records, found)
    if as_json:
        print(json.dumps({**found.as_json(), "optimum": [o.as_json() for o in optima]}, indent=1, allow_nan=False))
        return
    for table in tables(found, optima):
        show(table)
    for note in (*chosen.notes, *notes(found, optima)):
        print(f"- {note}")


def agree(
    small: Annotated[str, typer.Argument(metavar="A", help="A suite, or SUITE@VALUE of one with a sweep.")],
    large: Annotated[str, typer.Argument(metavar="B", help="The suite whose order counts, likewise.")],
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    as_json: AsJson = False,
    everything: Everything = False,
) -> None:
    """Say how many of the pairs of rows that suite B tells apart suite A orders the same way.

    A pair that A cannot tell counts as half. Of a suite with a sweep the largest value is taken, or the one after @.
    """
    from bench.records.agreement import agreement, at_budget
    from bench.records.selection import select
    from bench.reporting.fit_tables import agreement_table, agreement_text

    chosen = []
    for name in (small, large):
        suite, _, value = name.partition("@")
        try:
            wanted = float(value.replace("_", "")) if value else None
        except ValueError:
            raise BenchError(f"wanted a number after @ in {name!r}, got {value!r}") from None
        chosen.append(at_budget(select(results, suite, (), plugin or [], everything).records, wanted))
    found = agreement(*chosen)
    if as_json:
        print(json.dumps(found.as_json(), indent=1, allow_nan=False))
        return
    show(agreement_table(found, small, large))
    print(agreement_text(found, small, large))
