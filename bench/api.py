"""patchbench from Python: `import bench` has all of this.

The command line is a thin layer over the same functions. Wherever a patcher is asked for, it may be named as on the
command line (`"stride:stride=6"`, or the folder of a trained model), or given as a class or an object, which may have
been defined in a notebook. Relative paths begin in the working directory, those inside a suite's file in its folder.
Everything that a user can mend is a `BenchError`, in one sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import patchers
from bench.cli.check import Verdict
from bench.cli.check import check as check_patcher
from bench.data.config import Data, DataConfig, load
from bench.data.fitted_patchers import FITTED_ON, Asked, asked, fit_cached, wanted
from bench.records.selection import select
from bench.reporting.cut_viewer import Cut, view
from bench.reporting.results import Results
from bench.reporting.table import check_columns
from bench.system.files import check_writable
from bench.system.progress import display
from bench.system.yaml import Tree
from patchers.errors import BenchError
from patchers.registry import know

if TYPE_CHECKING:  # suites and runs need torch, which takes a second, and are imported by the functions that do
    from bench.suites.config import Suite

    AnySuite = str | os.PathLike[str] | Mapping[str, Any] | Suite
    """A suite by name or path, as the mapping that its YAML would be, or loaded."""

__all__ = ["Cut", "Results", "Verdict", "check", "cut", "load_suite", "results", "run"]

AnyPatcher = str | type[patchers.Patcher] | patchers.Patcher
"""A patcher by name (with options as on the command line) or folder, a class, or an object."""
Overrides = Sequence[str] | Mapping[str, Any]
"""`["train.lr=1e-3"]`, or `{"train.lr": 1e-3}`."""


def load_suite(suite: AnySuite, overrides: Overrides = (), plugins: Sequence[str] = ()) -> Suite:
    """Read and check a suite; nothing is trained.

    Args:
        suite: The name of one that ships (`"quick"`), a path, or a mapping with the keys of a suite's YAML. In a
            mapping a patcher may be a class or an object: `{"rows": {"mine": {"patcher": Mine}}, ...}`.
        overrides: Values to change, as `{"train.bytes": 200_000}` or `["train.bytes=200_000"]`.
        plugins: Python files that register patchers or tasks.

    Returns:
        The suite, frozen: `suite.rows`, `suite.seeds`, `suite.resolved()` (all of it as JSON, defaults filled in).

    Raises:
        BenchError: With the dotted path of what is wrong, and the nearest name where one is not known.
    """
    from bench.suites import config

    changes = _changes(overrides)
    if isinstance(suite, config.Suite):
        if changes or plugins:
            raise BenchError("a suite that is loaded takes no overrides and plug-ins; give them when it is loaded")
        return suite
    if isinstance(suite, Mapping):
        tree = Tree("the suite", _plain(suite, ()))
        return config.suite_from_tree(tree, "notebook", changes, plugins)
    return config.load_suite(os.fspath(suite), changes, plugins)


def run(
    suite: AnySuite,
    overrides: Overrides = (),
    *,
    results: str | os.PathLike[str] = "results",
    plugins: Sequence[str] = (),
    workers: int | None = None,
    retry_tasks: bool = False,
    progress: bool = True,
) -> Results:
    """Train and score what is missing of a suite, and return its results: what `patchbench run` does.

    Runs that are done are not repeated, and one that was stopped goes on from its last checkpoint. A run that fails
    leaves a record that says why (`frame()` has it in the column `error`), and the others go on.

    Args:
        suite: As for `load_suite`. One without a name is called `notebook`.
        overrides: As for `load_suite`.
        results: The folder of records and trained models.
        plugins: As for `load_suite`.
        workers: Runs at a time, each in a process of its own; by default one a GPU, or a core as memory allows. With 1
            runs are in this process. Worker processes get patchers and tasks of a notebook by their code (cloudpickle);
            what these hold on to and cannot be sent (an open file, a lock) needs `workers=1`. `launch.devices` and
            `launch.slurm` start other commands: they take a suite from a file alone.
        retry_tasks: Try tasks that failed once more, with the models that are there.
        progress: Show it: bars in a terminal, a table in a notebook, else a line every 30 seconds on standard error.

    Raises:
        BenchError: For what concerns all runs: the suite, the data, the results folder.
    """
    from bench.execution.launch import launch
    from bench.execution.workers import Job

    config = load_suite(suite, overrides, plugins)
    check_columns(config.columns, {task.name for task in config.tasks})
    folder = Path(results)
    check_writable(folder)
    by_commands = config.launch.devices > 1 or config.launch.slurm is not None  # which read the suite themselves
    if by_commands and isinstance(suite, str | os.PathLike):
        job = Job(os.fspath(suite), tuple(_changes(overrides)), tuple(plugins), folder)
    else:
        job = Job.of(config, folder)
    with display(quiet=not progress) as screen:
        launch(job, config, screen, workers, retry_tasks=retry_tasks)
    return Results(select(folder, config))


def results(
    suite: AnySuite,
    overrides: Overrides = (),
    *,
    results: str | os.PathLike[str] = "results",
    plugins: Sequence[str] = (),
    everything: bool = False,
) -> Results:
    """The records of a suite that are there; nothing is trained.

    Args:
        suite: As for `load_suite`; a name may also be that of a folder in `results`.
        overrides: As for `load_suite`: the records of this configuration.
        results: The folder of records.
        plugins: As for `load_suite`.
        everything: Records of other configurations of the suite too.

    Raises:
        BenchError: Where there are no records.
    """
    named = os.fspath(suite) if isinstance(suite, str | os.PathLike) else load_suite(suite, overrides, plugins)
    changes = _changes(overrides) if isinstance(named, str) else ()
    return Results(select(Path(results), named, changes, plugins if isinstance(named, str) else (), everything))


def cut(
    patcher: AnyPatcher,
    text: str | bytes,
    *,
    bytes_per_patch: float | None = None,
    results: str | os.PathLike[str] = "results",
    progress: bool = False,
) -> Cut:
    """How a patcher cuts a text.

    Args:
        patcher: What learns is fitted on wiki-en first, and kept in the cache of the results folder; an object that
            has learnt is taken as it is.
        text: Text is taken as its UTF-8 bytes.
        bytes_per_patch: Set the patcher's knob for that mean size, unless it is given.
        results: The folder whose cache is used.
        progress: Say what is going on.

    Returns:
        `starts` (bool, shape (bytes,)), `patches` (a list of bytes), `lengths` (bytes, shape (patches,)), `scores`
        (shape (bytes,), or None), `statistics`. A notebook shows it in colours.
    """
    data = text.encode() if isinstance(text, str) else bytes(text)
    return cuts([patcher], data, bytes_per_patch=bytes_per_patch, results=results, progress=progress)[0]


def cuts(
    several: Sequence[AnyPatcher],
    text: bytes,
    *,
    bytes_per_patch: float | None,
    results: str | os.PathLike[str],
    progress: bool,
) -> list[Cut]:
    """The same for several patchers, which learn from the same text."""
    found = []
    with display(quiet=not progress) as screen:
        for one in [_asked(patcher) for patcher in several]:
            ready, size = one.patcher, bytes_per_patch if one.calibrates else None
            if one.learns or size is not None:
                check_writable(Path(results))
                screen.say(f"reading {FITTED_ON}")
                ready = fit_cached(ready, _corpus(), size, Path(results) / "cache", screen.say)
            found.append(view(one.label, ready, text))
    return found


def check(patcher: AnyPatcher, *, quick: bool = False, progress: bool = True) -> Verdict:
    """Run the contract on a patcher, as `patchbench check` does. One that learns is fitted on a part of wiki-en first.

    Args:
        patcher: A name, a class or an object.
        quick: Leave out large batches, long documents and thousands of calls.
        progress: Say which rule is looked at.

    Returns:
        `sound`, `findings` (a rule each, with the counter-example where it is broken), `statistics` and `rate` (bytes a
        second). Printed, it is a line a rule.
    """
    with display(quiet=not progress) as screen:
        return check_patcher(_asked(patcher), screen.say, quick)


@functools.cache
def _corpus() -> Data:
    return load(DataConfig(corpus=FITTED_ON))


def _asked(patcher: AnyPatcher) -> Asked:
    if isinstance(patcher, str):
        return asked(patcher)
    made = _object(patcher)
    # Options of an object are all given, those of a class are its defaults.
    return wanted(made.name, made, made.options() if isinstance(patcher, patchers.Patcher) else ())


def _object(patcher: type[patchers.Patcher] | patchers.Patcher) -> patchers.Patcher:
    """An object of a registered class. Raises BenchError for what is no patcher."""
    cls = patcher if isinstance(patcher, type) else type(patcher)
    if not issubclass(cls, patchers.Patcher):
        raise BenchError(f"wanted a name, a subclass of patchers.Patcher or an object of one, got {patcher!r}")
    name = know(cls)
    return patchers.create(name) if isinstance(patcher, type) else patcher


def _changes(overrides: Overrides) -> list[str]:
    if isinstance(overrides, str):
        raise BenchError(f"overrides are a list or a mapping, got {overrides!r}; write [{overrides!r}]")
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(_plain(value, (key,)))}" for key, value in overrides.items()]
    return list(overrides)


def _plain(value: Any, path: tuple[str, ...]) -> Any:
    """A suite's values as YAML would have them; patchers become their names and options."""
    if isinstance(value, Mapping):
        found = {str(key): _plain(item, (*path, str(key))) for key, item in value.items()}
        named = found.get("name")
        if isinstance(named, dict):  # {"name": Mine, "size": 8}
            found = {**named, **found, "name": named["name"]}
        return found
    if isinstance(value, list | tuple):
        return [_plain(item, path) for item in value]
    if isinstance(value, type):
        return {"name": _object(value).name}
    if isinstance(value, patchers.Patcher):
        fields = dataclasses.fields(value)
        learns = type(value).fit is not patchers.Patcher.fit
        if learns and any(field.name.startswith("_") and getattr(value, field.name) is not None for field in fields):
            raise BenchError(
                f"{'.'.join(path)}: this {value.name} has learnt already, and a suite's rows learn from its own "
                "training split; give it as it was before `fit`"
            )
        defaults = {field.name: field.default for field in fields}
        changed = {name: given for name, given in value.options().items() if given != defaults[name]}
        return {"name": _object(value).name, **changed}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BenchError(f"{'.'.join(path)}: a suite has numbers, texts, lists and patchers, got {value!r}")
