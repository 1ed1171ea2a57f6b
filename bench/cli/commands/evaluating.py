"""The commands `lm-eval` and `lm-eval-tasks`: trained models in lm-evaluation-harness, and our tasks for it."""

import dataclasses
import json
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench.cli.commands.options import AsJson, Plugins, load_plugins, names_of, show
from bench.cli.commands.writing import CheckpointArgument

TasksOption = Annotated[str, typer.Option("--tasks", metavar="A,B", help="Names of tasks or groups.")]
IncludePath = Annotated[
    Path | None, typer.Option("--include-path", metavar="DIR", help="Where tasks of your own are (.yaml).")
]
Shots = Annotated[int | None, typer.Option("--num-fewshot", metavar="N", help="Examples before each item.")]


def lm_eval(
    checkpoint: CheckpointArgument,
    tasks: TasksOption,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="The first items of each task alone.")] = None,
    num_fewshot: Shots = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> int:
    """Score a model that a run has trained on tasks of lm-evaluation-harness, exactly over bytes."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval shows its progress; tqdm reads this when it is imported
    from bench.evaluation.likelihood import is_leaky
    from bench.lm_eval.adapter import evaluate
    from bench.training.checkpoint import load_model

    load_plugins(plugin)
    model = load_model(checkpoint)
    if is_leaky(model):
        print("patchbench: warning: this model is leaky (told boundaries that it does not pay for):", file=sys.stderr)
        print("patchbench: warning: what it says is no likelihood, and compares with no other model's", file=sys.stderr)
    scores = evaluate(model, names_of(tasks), include_path, limit, num_fewshot)
    if as_json:
        print(json.dumps({score.task: score.as_json() for score in scores}, indent=1))
    else:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("task", "metric", "value", "95 % interval", "items"):
            shown.add_column(name, justify="right" if name in ("value", "items") else "left", overflow="fold")
        for score in scores:
            if score.error is not None:
                shown.add_row(score.task, f"failed: {score.error}")
            for metric, e in score.metrics.items():
                interval = "" if math.isnan(e.low) else f"{e.low:.4f} to {e.high:.4f}"
                shown.add_row(score.task, metric, f"{e.value:.4f}", interval, str(score.items))
        show(shown)
    return 1 if any(score.error is not None for score in scores) else 0


def lm_eval_tasks(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Items or texts, one task a file.")
    ] = None,
    corpus: Annotated[str, typer.Option(metavar="NAME", help="What our own tasks are made of.")] = "wiki-en",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Items of each of our own, at most.")] = 200,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what our own leave to chance.")] = 0,
) -> None:
    """Make tasks for lm-eval: of files in HellaSwag's, ARC's, PIQA's or LAMBADA's form or of texts; without a file our
    own, noise and spelling."""
    from bench.lm_eval.task_files import task_of_file, write_task

    made = [task_of_file(file) for file in files or []]
    if not made:
        from bench.data.config import DataConfig, load
        from bench.lm_eval.own_tasks import OWN

        data = load(DataConfig(corpus=corpus))
        made = [
            (f"patchbench_{kind}_{name}", dataclasses.replace(task, tag=f"patchbench_{kind}"))
            for kind, tasks in OWN.items()
            for name, task in tasks(data, limit, seed).items()
        ]
    for name, task in made:
        print(f"{name}: {len(task.rows)} items in {write_task(folder, name, task)}")
    names = ",".join(dict.fromkeys(task.tag or name for name, task in made))
    print(f"patchbench lm-eval CHECKPOINT --include-path {shlex.quote(str(folder))} --tasks {names}", file=sys.stderr)
