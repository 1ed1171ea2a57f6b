"""The command `tune`: a random search over sizes and training settings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench.cli.commands.options import DEFAULT_RESULTS, Results, names_of, show


def tune(
    search: Annotated[Path, typer.Argument(metavar="SEARCH", help="A YAML file, as bench/configs/tuning/study.yaml.")],
    results: Results = DEFAULT_RESULTS,
    rows: Annotated[str, typer.Option(metavar="A,B", help="These rows of the search alone.")] = "",
    show_only: Annotated[bool, typer.Option("--show", help="Train nothing; show what there is.")] = False,
) -> None:
    """Search at random over a suite's sizes and training, each row for itself; what is done is not done again.

    Trials are scored on calibration text, never on the test split. Several processes may take part.
    """
    from bench.execution.tuning import Tuning, as_yaml, best_values
    from bench.system.files import check_writable
    from bench.system.memory import keep_memory

    names = names_of(rows)
    tuning = Tuning(search, results)
    if not show_only:
        check_writable(results)
        keep_memory()
        tuning.run(names)
    done = list(tuning.done().values())
    shown = Table(title=f"{search.stem}: bits per byte of calibration text")
    for name in ("row", "stage", "trials", "train bytes", "best", "median", "worst", "FLOPs/byte of the best"):
        shown.add_column(name, justify="left" if name in ("row", "stage") else "right")
    for row in names or tuning.search.rows:
        for stage in dict.fromkeys(t.stage for t in done if t.row == row):
            of_stage = [(t.bpb, t) for t in done if (t.row, t.stage) == (row, stage) and t.bpb is not None]
            ranked = [trial for _, trial in sorted(of_stage, key=lambda pair: pair[0])]
            if not ranked:
                continue
            best, middle, worst = ranked[0], ranked[len(ranked) // 2], ranked[-1]
            shown.add_row(
                *(row, stage, str(len(ranked)), f"{best.bytes:,}", f"{best.bpb:.4f}", f"{middle.bpb:.4f}"),
                *(f"{worst.bpb:.4f}", f"{best.flops_per_byte:.3g}"),
            )
    show(shown)
    for row in names or tuning.search.rows:
        best_trial = best_values(tuning, row)
        if best_trial is not None:
            print(f"{row} (round {best_trial.stage}): {as_yaml(best_trial.values)}")
