"""Runs the tasks of a suite on one model and collects results and errors."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.data.config import Data, DataConfig, load
from bench.evaluation import tasks
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.tasks import Material, Task
from bench.system.files import CannotWrite, Damaged
from bench.system.signals import TimeLimit
from bench.system.yaml import Place, dataclass_from_mapping
from patchers.errors import BenchError


def read_tasks(given: Sequence[str | Mapping[str, Any]], place: Place) -> tuple[Task, ...]:
    """Tasks with their options; `NAME` is short for `{name: NAME}`. Raises BenchError at the place of what is wrong."""
    out: dict[str, Task] = {}
    for index, one in enumerate(given):
        here = place / index
        options = {"name": one} if isinstance(one, str) else dict(one)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise (here / "name").error(f"wanted a task's name, got {name!r}; see `patchbench list tasks`")
        if name in out:
            raise here.error(f"the task {name} stands here twice; keep one of them")
        try:
            cls = tasks.get(name)
        except BenchError as error:
            raise (here if isinstance(one, str) else here / "name").error(str(error)) from error
        out[name] = dataclass_from_mapping(cls, options, here)
    return tuple(out.values())


def with_domains(data: Data, configs: Mapping[str, DataConfig], read: Callable[[DataConfig], Data] = load) -> Data:
    """The data with the test split of each corpus of `eval:`.

    Raises BenchError for one that cannot be read, and for one with texts that models were trained or calibrated on.
    """
    domains = {}
    for name, config in configs.items():
        domains[name] = read(config).test
        ids = set(domains[name].ids)
        splits = {"training": data.train, "calibration": data.calibration}
        known = [split for split, corpus in splits.items() for one in corpus.ids if one in ids]
        if known:
            raise BenchError(
                f"eval.{name}: of its {len(domains[name])} test documents {len(known)} are in the {known[0]} split "
                f"of {data.name}: give both the same `test` share, or choose another corpus"
            )
    return dataclasses.replace(data, domains=domains)


def run_tasks(asked: Sequence[Task], model: ByteModel, material: Material) -> tuple[dict[str, Any], dict[str, float]]:
    """What each task says of a trained model, as the record has it, and how many seconds each took.

    A task that fails leaves its error in place of its results. Raises CannotWrite, Damaged and TimeLimit, which concern
    the whole run.
    """
    out, seconds = {}, {}
    for task in asked:
        began = time.perf_counter()
        options = task.options()
        said: dict[str, Any] = {"version": task.version, **({"options": options} if options else {})}
        try:
            said |= task.run(model, material).as_json()
        except (CannotWrite, Damaged, TimeLimit):  # not this task's alone
            raise
        except BenchError as error:
            said["error"] = {"kind": type(error).__name__, "message": str(error)}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything; others have their numbers
            kind, trace = type(error).__name__, traceback.format_exc()
            said["error"] = {"kind": kind, "message": str(error), "traceback": trace}
        out[task.name] = said
        seconds[task.name] = round(time.perf_counter() - began, 3)
    return out, seconds
