"""`patchbench fit`: what a sweep over budgets says, from records that are there; nothing is trained."""

import json
from typing import Annotated

import typer

from bench.cli.commands.options import DEFAULT_RESULTS, AsJson, Overrides, Plugins, Results, show


def fit(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A path, or a name, of a suite with a sweep.")],
    overrides: Overrides = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
    rows: Annotated[str, typer.Option(metavar="A,B", help="These rows, as they are called in the suite.")] = "",
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Records of other configurations of the suite too.")
    ] = False,
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
    names = [name.strip() for name in rows.split(",") if name.strip()] or None
    found = fits_of(chosen.records, names)
    optima = optima_of(chosen.records, found)
    if as_json:
        print(json.dumps({**found.as_json(), "optimum": [o.as_json() for o in optima]}, indent=1, allow_nan=False))
        return
    for table in tables(found, optima):
        show(table)
    for note in (*chosen.notes, *notes(found, optima)):
        print(f"- {note}")
