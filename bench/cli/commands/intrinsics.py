"""The command `intrinsics`: numbers of cuts that need no model and no training."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.commands.cutting import PATCHER, PATCHER_HELP, PatchSize
from bench.cli.commands.options import DEFAULT_RESULTS, Overrides, Plugins, Results, load_plugins, names_of, write
from bench.cli.commands.reports import Format
from patchers.errors import BenchError


def intrinsics(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="Its patchers and its text; by default all, on wiki-en.")
    ] = None,
    overrides: Overrides = None,
    patcher: Annotated[
        list[str] | None, typer.Option("-p", "--patcher", metavar=PATCHER, help=f"{PATCHER_HELP} Instead of all.")
    ] = None,
    bytes_per_patch: PatchSize = None,
    aligned: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The same sentences in languages: a folder or tar of .txt, one a language."),
    ] = None,
    reference: Annotated[str, typer.Option(metavar="LANGUAGE", help="The one that others are compared with.")] = "eng",
    sentences: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first of each language.")] = None,
    morphemes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Lines of a word, a tab, and its morphemes with spaces between.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(metavar="N", min=1, help="How much of the test split is cut.")] = 1_000_000,
    format: Annotated[Format, typer.Option(help="How to write the tables.")] = Format.terminal,
    columns: Annotated[str, typer.Option(metavar="A,B", help="These columns, in this order.")] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Draw the agreement as well: a .svg, .png or .pdf."),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    plugin: Plugins = None,
) -> None:
    """Compare patchers by their cuts alone, in seconds: patches, words, efficiency, noise, languages; train no model.

    What learns is fitted on the training split (without a suite on its first two megabytes), and kept in the cache of
    the results folder; what is cut is of the test split. The report of a suite has the tables that were made last.
    """
    from bench.cli.contenders import for_a_look, of_names, of_suite
    from bench.data.config import DataConfig, load
    from bench.data.fitted_patchers import FITTED_ON
    from bench.intrinsics.aligned import read_aligned
    from bench.intrinsics.measure import measure
    from bench.intrinsics.words import read_morphemes
    from bench.reporting.intrinsics import KEPT, agreement_table, check_columns, kept, rendered, tables
    from bench.system.files import check_writable
    from bench.system.progress import Display
    from patchers.grouping import beginning

    load_plugins(plugin)
    if suite is None and overrides:
        raise BenchError(f"{overrides[0]!r} changes a suite, and none is given; name one before it")
    if suite is not None and not patcher and bytes_per_patch is not None:
        raise BenchError(f"a suite says what its rows are calibrated to; write bytes_per_patch={bytes_per_patch:g}")
    known = None if morphemes is None else read_morphemes(morphemes)
    texts = None if aligned is None else read_aligned(aligned, reference, sentences)
    chosen = names_of(columns)
    check_columns(chosen)
    check_writable(results)
    cache, own = results / "cache", ""
    with Display() as display:
        display.say("reading the text")
        if suite is None:
            data = for_a_look(load(DataConfig(corpus=FITTED_ON)))
            contenders = of_names(patcher or [], data, bytes_per_patch, cache, display.say)
        else:
            from bench.data import store
            from bench.suites.config import load_suite

            config = load_suite(suite, overrides or [], plugin or [])
            data = store.load(config.data, cache, display.say)
            if patcher:
                contenders = of_names(patcher, data, bytes_per_patch, cache, display.say)
            else:
                contenders = of_suite(config, data, cache, display.say)
                own = config.name
        if not contenders.patchers:
            raise BenchError(f"suite {suite} has no row with a patcher that cuts without a model; name some with -p")
        docs = beginning(data.test.texts, max_bytes)
        found = measure(contenders.patchers, docs, f"the test split of {data.name}", known, texts, display.say)
    made = tables(found, chosen, contenders.in_models, contenders.twice)
    if own:
        check_writable(results / own)
        write(results / own / KEPT, kept(made))
    if output is not None:
        from bench.reporting.plots.heat_map import AGREEMENT, heat_map
        from bench.reporting.plots.style import styled
        from bench.reporting.plots.style import write as write_picture

        with styled():
            write_picture(heat_map(agreement_table(found), AGREEMENT), output)
        print(f"wrote {output}", file=sys.stderr)
    print(rendered(made, format.value))
