"""Runs a suite: each row at each seed once, in any number of processes, resumable."""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from bench import records
from bench.data import store
from bench.data.config import Data
from bench.evaluation.audit import audit, drawn_seed
from bench.evaluation.byte_model import ByteModel
from bench.evaluation.examples import examples
from bench.evaluation.pretrained.config import check_installed
from bench.evaluation.run_tasks import run_tasks, with_domains
from bench.evaluation.tasks import Material
from bench.execution import curves
from bench.execution.curves import Curves
from bench.execution.task_inputs import byte_model, cut_of_pretrained, material, pretrained_material
from bench.records.record import Record
from bench.records.selection import without_code
from bench.suites.config import PretrainedRow, Row, Suite
from bench.system import distributed
from bench.system.files import CannotWrite, remove, warn
from bench.system.memory import keep_memory, release_memory
from bench.system.signals import TimeLimit, time_limit
from bench.training.checkpoint import save_model
from bench.training.cut_audit import audit_cuts
from bench.training.loop import Alone, MakeEngine, Progress, Report, TrainingFailed, train
from bench.training.matching import prepare_matched
from bench.training.prepare import (
    DESCRIBED_BYTES,
    Prepared,
    after_training,
    check_disk,
    cost_of,
    flops,
    make_model,
    paper_flops,
    parameters,
    patcher_summary,
    training_flops,
)
from bench.training.reuse import (
    TRAINING_VERSION,
    audits_beside,
    find_trained,
    source_of,
    take_over,
    training_header,
    training_id,
)
from patchers.errors import BenchError
from patchers.grouping import beginning

COUNTED_BYTES = 2**18
"""Of the training text that a pretrained model's FLOPs are counted on, as those of trained rows are on all of it."""


class AuditFailed(RuntimeError):
    """The trained model's bits per byte are not a valid claim, so the run has no number."""


class Listener(Protocol):
    """Who is told how a suite goes; the command line shows it, a script may ignore it."""

    def say(self, message: str) -> None:
        """One line about what is going on."""

    def run_begins(self, run_id: str, number: int, total: int) -> None: ...

    def trained(self, progress: Progress, total_bytes: int) -> None:
        """After each training step."""

    def run_ends(self, record: Record) -> None: ...


class Silent:
    """The listener of scripts."""

    def say(self, message: str) -> None: ...

    def run_begins(self, run_id: str, number: int, total: int) -> None: ...

    def trained(self, progress: Progress, total_bytes: int) -> None: ...

    def run_ends(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Run:
    """One row at one seed."""

    row: Row | PretrainedRow
    seed: int
    run_id: str
    index: int
    """The row's place in the suite."""


@dataclass(frozen=True)
class Outcome:
    records: list[Record]
    """Of all runs of the suite, in its order."""


def data_of(suite: Suite, results: Path, listener: Listener) -> Data:
    """A suite's texts, from the cache of its results."""
    listener.say(f"reading {suite.data.label}")
    read = partial(store.load, cache=results / "cache", say=listener.say)
    return with_domains(read(suite.data), suite.eval, read)


def runs_of(suite: Suite, data: Data) -> list[Run]:
    """All runs of a suite: one of each pretrained row, which takes no training, so that what is wrong with it shows at
    once; then of the others seed by seed, so that a first comparison is there early."""
    tasks = {task.name: task.identity() for task in suite.tasks}
    domains = {name: texts.fingerprint for name, texts in data.domains.items()}

    def name(row: Row | PretrainedRow, seed: int) -> str:
        return records.run_id(row.label, seed, suite.run_config(row.label), data.fingerprint, tasks, domains)

    trained = [Run(row, seed, name(row, seed), i) for seed in suite.seeds for i, row in enumerate(suite.rows)]
    seed = suite.seeds[0]  # nothing of a pretrained model depends on it
    others = [Run(row, seed, name(row, seed), len(suite.rows) + i) for i, row in enumerate(suite.pretrained)]
    return others + trained


def edited_rows(suite: Suite, results: Path, missing: list[Run]) -> list[str]:
    """Rows without a record that have one of other code of their plug-in."""
    rows = [run.row for run in missing if isinstance(run.row, Row)]
    plugged = {row.label for row in rows if "code" in (row.patcher_options() or {})}
    if not plugged:
        return []
    wanted = {label: without_code(suite.run_config(label)) for label in plugged}
    found = records.load_all(results, suite.name)
    return sorted({r["row"] for r in found if r["row"] in plugged and without_code(r["config"]) == wanted[r["row"]]})


def check_tasks(suite: Suite, data: Data) -> None:
    """Raises BenchError for a task that the texts, or the files that it names, are not enough for."""
    for task in suite.tasks:
        try:
            task.check(data)
        except BenchError:
            raise
        except Exception as error:  # a plug-in may raise anything
            raise BenchError(f"task {task.name} cannot check its texts: {type(error).__name__}: {error}") from error


def failed_again(suite: Suite, results: Path) -> list[str]:
    """Mark the failed tasks of a suite's runs to be tried again; the runs that have some."""
    ids = [run.run_id for run in runs_of(suite, data_of(suite, results, Silent()))]
    return [run_id for run_id in ids if records.ask_again(results, suite.name, run_id)]


@dataclass(frozen=True)
class Work:
    """A suite on one results folder, as one of possibly many processes sees it."""

    suite: Suite
    data: Data
    results: Path
    listener: Listener
    runs: list[Run]
    known: dict[str, Record | None]
    """What had been recorded of each run when this process began."""

    @staticmethod
    def of(suite: Suite, results: Path, listener: Listener) -> Work:
        """Raises BenchError for what concerns all runs: the data, the results folder, a damaged record."""
        if suite.log is not None:
            curves.check_installed()
        keep_memory()
        if suite.pretrained:
            check_installed()
        data = data_of(suite, results, listener)
        runs = runs_of(suite, data)
        known = {r.run_id: records.find(results, suite.name, r.run_id) for r in runs}
        work = Work(suite, data, results, listener, runs, known)
        for row in edited_rows(suite, results, work.missing):
            warn(f"the plug-in of row {row} was edited: its old results are kept, and it runs anew")
        work.tidy()
        return work

    def of_one(self, run_id: str) -> Work:
        """The work on one run alone."""
        if run_id not in self.known:
            raise BenchError(f"no run {run_id} in suite {self.suite.name}; `patchbench status` lists what there is")
        return replace(self, runs=[run for run in self.runs if run.run_id == run_id])

    def check(self) -> None:
        """Raises BenchError for what would be found out only after the training: of a suite that has something to
        train, once for all its runs."""
        if self.missing:
            check_tasks(self.suite, self.data)

    @property
    def missing(self) -> list[Run]:
        """What was not done when this process began; failed runs are tried again."""
        return [r for r in self.runs if not records.done(self.known[r.run_id])]

    def attempt(self, run: Run, wait: float = 0.0) -> bool:
        """Do a run, unless another process has finished it meanwhile; False where one is still at it after `wait`
        seconds (-1: for ever)."""
        with self._claimed(run, wait) as mine:
            if mine and distributed.told(self.needed(run)):
                self.listener.run_begins(run.run_id, self.runs.index(run) + 1, len(self.runs))
                record = run_one(self.suite, run, self.data, self.results, self.listener)
                if distributed.is_first():
                    records.write(self.results, record)
                    if records.dig(record, "error.kind") != TimeLimit.__name__:  # with more time it goes on from there
                        self.remove_checkpoint(run)
                distributed.wait_for_all()
                self.listener.run_ends(record)
        return mine

    def tidy(self) -> None:
        """Remove the training checkpoints of processes that were killed when they had just written their record."""
        if distributed.is_first():
            for run in self.runs:
                if records.done(self.known[run.run_id]) and self.checkpoints(run):
                    with records.claim(self.results, self.suite.name, run.run_id) as mine:
                        if mine:
                            self.remove_checkpoint(run)

    def checkpoints(self, run: Run) -> list[Path]:
        """What there is to go on from with its training, or was begun to be."""
        path = training_checkpoint(self.results, self.suite, run)
        return sorted(path.parent.glob(f"{path.name}*"))

    def remove_checkpoint(self, run: Run) -> None:
        for path in self.checkpoints(run):
            remove(path)

    @contextmanager
    def _claimed(self, run: Run, wait: float) -> Iterator[bool]:
        """Of the ranks of one run the first claims it for all."""
        if not distributed.is_first():
            yield distributed.told(False)
            return
        with records.claim(self.results, self.suite.name, run.run_id, wait) as mine:
            yield distributed.told(mine)

    def needed(self, run: Run) -> bool:
        """Whether nobody has finished a run, or failed at it, since this process began."""
        found = records.find(self.results, self.suite.name, run.run_id)
        return not records.done(found) and found == self.known[run.run_id]

    def outcome(self) -> Outcome:
        found = [records.find(self.results, self.suite.name, r.run_id) for r in self.runs]
        return Outcome([r for r in found if r is not None])


def run_suite(suite: Suite, results: Path, listener: Listener | None = None, only: str | None = None) -> Outcome:
    """Do what is missing of a suite, or `only` one run of it, and return all its records, or that one's.

    A run that another process is doing is waited for, not repeated. A run that fails leaves a record that says so,
    and the others go on. Raises BenchError for what concerns all runs: the data, the results folder.
    """
    work = Work.of(suite, results, listener or Silent())
    if only is not None:
        work = work.of_one(only)
    elif not distributed.are_there():  # whoever began the ranks has looked
        work.check()
    held = [run for run in work.missing if not work.attempt(run)]  # first what nobody else is doing
    if held:  # then what others were doing and may not have finished
        work.listener.say(f"waiting for another process at {held[0].run_id}")
    for run in held:
        work.attempt(run, wait=-1.0)
    return work.outcome()


def run_one(suite: Suite, run: Run, data: Data, results: Path, listener: Listener) -> Record:
    """Train, score and describe one run; whatever goes wrong becomes a record that says what."""
    record = described(suite, run, data)
    try:
        with time_limit(suite.launch.time_limit):
            found = record | {"status": "ok", "error": None} | _results_of(suite, run, data, results, listener)
        return records.checked(found)
    except CannotWrite:  # of no use to try the next run
        raise
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; the other runs go on
        if not distributed.all_failed():  # what another rank died of is no failure of the run
            raise
        if isinstance(error, TrainingFailed):
            problem: dict[str, Any] = {"kind": "diverged", "message": str(error), "step": error.step}
        else:
            problem = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            records.log(results, suite.name, run.run_id, problem["traceback"])
    return record | {"status": "failed", "error": problem}


def described(suite: Suite, run: Run, data: Data) -> Record:
    """What is known of a run before it has begun."""
    return {
        "run_id": run.run_id,
        "suite": suite.name,
        "row": run.row.label,
        "row_index": run.index,
        "seed": run.seed,
        "config": suite.run_config(run.row.label),
        "data": data.summary(),
        "environment": records.environment(str(best_device())) | {"training_version": TRAINING_VERSION},
    }


def _results_of(suite: Suite, run: Run, data: Data, results: Path, listener: Listener) -> Record:
    device = best_device()
    reset_peak_memory(device)
    if isinstance(run.row, PretrainedRow):
        return _results_of_pretrained(suite, run, run.row, data, device, results, listener)
    prepared, goal = prepare_matched(suite, run.row, data, results / "cache", listener.say)
    row = prepared.row  # its bytes and sizes are now those that match
    check_disk(row, prepared.patcher, results)
    cost = cost_of(prepared.scoring_patcher, data.test.texts)
    cuts = audit_cuts(prepared, data, results / "cache", drawn_seed())
    if cuts is not None and not cuts.passed:
        raise AuditFailed(cuts.detail)
    model = make_model(row, prepared.patcher, run.seed)
    wanted = training_id(suite, row, data, run.seed)
    trained = distributed.told(find_trained(results, wanted) if distributed.is_first() else None)
    if trained is None:
        checkpoint = training_checkpoint(results, suite, run)
        with hearing(suite, run, prepared, model, data, results, listener.trained) as told:
            progress = train(model, prepared.train, row.train, run.seed, device, checkpoint, told, engine_of(suite))
    else:
        listener.say(f"taking over the model of {source_of(trained)}")
        progress = take_over(trained, model, device)
    prepared = after_training(prepared, model, data, listener.say)
    matched = goal.compare(prepared, progress.bytes)
    seen = byte_model(prepared, model, device)
    asked = material(prepared, data, model, run.seed, device, results / "cache")
    tasks, scoring = _asked(suite, run, seen, asked, results, listener)
    if trained is None:
        listener.say("auditing")
        audits = {name: vars(a) for name, a in audit(seen, data.test.texts).items()}
    else:
        audits = audits_beside(trained)
    if cuts is not None:
        audits["cuts"] = vars(cuts)
    if not row.leaky:
        _check_audits(audits)
    folder = results / suite.name / "checkpoints" / run.run_id
    if distributed.is_first():
        save_model(folder, suite, row, prepared.patcher, model, training_header(wanted, progress))
    per_byte = flops(prepared)
    return {
        "matched": matched,
        "patcher": patcher_summary(prepared),
        "parameters": parameters(model),
        "flops": {
            "per_byte": per_byte,
            "paper_per_byte": paper_flops(prepared),
            "train": training_flops(per_byte, progress.bytes),
            "patcher_training": prepared.patcher.training_flops() if prepared.patcher else 0.0,
        },
        "cost": {
            "trained_by": f"{suite.name}/{run.run_id}" if trained is None else source_of(trained),
            "train_bytes": progress.bytes,
            "train_steps": progress.step,
            "train_seconds": round(progress.seconds, 3),
            "train_bytes_per_second": round(progress.bytes / progress.seconds, 1),
            "train_busy_share": round(progress.busy_seconds / progress.seconds, 4),
            **scoring,
            "peak_memory_bytes": peak_memory(device),
            "cutting": cost,
        },
        "loss_curve": progress.curve,
        "tasks": tasks,
        "audits": audits,
        "examples": examples(seen, data),
    }


def _asked(
    suite: Suite, run: Run, model: ByteModel, asked: Material, results: Path, listener: Listener
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the suite's tasks say of a model, and how long that took, as the record has both."""
    listener.say("scoring")
    began = time.perf_counter()
    tasks, seconds = run_tasks(suite.tasks, model, asked)
    taken = {"score_seconds": round(time.perf_counter() - began, 3), "task_seconds": seconds}
    for name, said in tasks.items():
        if "traceback" in said.get("error", {}):
            records.log(results, suite.name, run.run_id, f"task {name}: {said['error']['traceback']}")
    return tasks, taken


def _check_audits(audits: dict[str, Any]) -> None:
    failed = [f"{name}: {a['detail']}" for name, a in audits.items() if not a["passed"]]
    if failed:
        raise AuditFailed("; ".join(failed))


def _results_of_pretrained(
    suite: Suite, run: Run, row: PretrainedRow, data: Data, device: torch.device, results: Path, listener: Listener
) -> Record:
    from bench.evaluation.pretrained import audit as auditing
    from bench.evaluation.pretrained import costs
    from bench.evaluation.pretrained.load import load

    listener.say(f"loading {row.files.config.hf}")
    model = load(row.files, row.window, device)
    tasks, scoring = _asked(
        suite, run, model, pretrained_material(model, data, run.seed, results / "cache"), results, listener
    )
    listener.say("auditing")
    audits = {name: vars(a) for name, a in auditing.audit(model, data.test.texts).items()}
    _check_audits(audits)
    per_byte, counted_by = costs.flops(model, beginning(data.train.texts, COUNTED_BYTES))
    return {
        "patcher": cut_of_pretrained(model, data),
        "pretrained": model.describe(beginning(data.test.texts, DESCRIBED_BYTES)),
        "parameters": costs.parameters(model),
        "flops": {"per_byte": per_byte, "counted_by": counted_by},
        "cost": {**scoring, "peak_memory_bytes": peak_memory(device)},
        "tasks": tasks,
        "audits": audits,
        "examples": examples(model, data),
    }


@contextmanager
def hearing(
    suite: Suite, run: Run, prepared: Prepared, model: nn.Module, data: Data, results: Path, told: Report
) -> Iterator[Report]:
    """Who hears of a training: the listener, and behind it the curves of `log: tensorboard`, from one rank of many."""
    if suite.log is None or not distributed.is_first():
        yield told
        return
    alone = not distributed.are_there()  # several ranks hold the model in parts
    asked = byte_model(prepared, model, best_device()) if alone else None
    folder = results / suite.name / "tensorboard" / run.run_id
    with Curves(folder, told, asked, beginning(data.calibration.texts, curves.SCORED_BYTES, whole=False)) as heard:
        yield heard


def engine_of(suite: Suite) -> MakeEngine:
    """What takes the steps of a training: this process, in whole batches or in parts, or the ranks that torchrun
    began."""
    launch = suite.launch
    if not distributed.are_there() and launch.micro_bytes is None and not launch.recompute:
        return Alone
    from bench.training.parallel import Parallel  # and torch's machinery, which takes a second

    return Parallel(launch.parallel, launch.micro_bytes, launch.recompute)


def training_checkpoint(results: Path, suite: Suite, run: Run) -> Path:
    return results / suite.name / "checkpoints" / f"{run.run_id}.training.safetensors"


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, so that a run's peak is its own."""
    release_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # Linux; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator where there is one, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


__all__ = ["Listener", "Outcome", "Prepared", "Run", "Silent", "run_one", "run_suite", "runs_of"]
