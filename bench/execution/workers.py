"""Runs a suite on several worker processes of one machine.

Each worker has its share of the cores, and a GPU of its own where there are any. Who does what is decided by the
results folder (`records.claim`), so several launches, and other machines, may share one. A worker that dies (out of
memory, a crash in somebody's C code) costs the run that it was at, which is recorded as failed, and is replaced.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from bench import records
from bench.execution.run import Listener, Outcome, Run, Work, described
from bench.records.record import Record
from bench.suites.config import Suite, load_suite
from bench.system.memory import free_memory
from bench.system.processes import PARENT, cores, end_with_parent, environment, gpu_of, threads_each, without_main
from bench.system.signals import EXIT_CODE, STOPS_WITHIN, Stopped, heed_sigterm
from bench.training.loop import Progress
from patchers import load_plugin
from patchers.errors import BenchError
from patchers.identity import pinned
from patchers.registry import know, loaded_plugins

SHOWN_EVERY = 0.5
"""Seconds between two reports of a worker's training."""
WORKER_BYTES = 2 * 2**30
"""Memory that a run of the suites that ship takes on a CPU, at most (`patchbench plan` says how much)."""


@dataclass(frozen=True)
class Job:
    """A suite for another process: as the command line has it, to be read again, or itself."""

    suite: str
    overrides: tuple[str, ...]
    plugins: tuple[str, ...]
    results: Path
    itself: Suite | bytes | None = None
    """A suite that is in no file; pickled in another process."""

    @staticmethod
    def of(suite: Suite, results: Path) -> Job:
        """Of a suite that was made in Python, with the classes of its patchers and tasks where those are in no file."""
        return Job(suite.name, (), tuple(loaded_plugins()), results, suite)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent. Raises BenchError where a class of the suite holds what cannot be."""
        state = dict(vars(self))
        suite = self.itself
        if suite is None or isinstance(suite, bytes):
            return state
        kinds = {type(one) for one in (*(row.patcher for row in suite.rows), *suite.tasks) if one is not None}
        try:
            with pinned(kinds):
                return {**state, "itself": cloudpickle.dumps(suite)}
        except Exception as error:  # whatever a class of a notebook refers to
            raise BenchError(
                f"suite {suite.name} cannot be sent to worker processes ({error}): run it with workers=1, or put its "
                "patcher into a file and give that as a plug-in"
            ) from error

    def load(self) -> Suite:
        if self.itself is None:
            return load_suite(self.suite, self.overrides, self.plugins)
        if isinstance(self.itself, Suite):
            return self.itself
        for path in self.plugins:
            load_plugin(path)
        suite: Suite = cloudpickle.loads(self.itself)
        for row in suite.rows:
            if row.patcher is not None:
                know(type(row.patcher))
        return suite

    def arguments(self, only: str | None) -> list[str]:
        """Of the command line, for the whole suite or one run. Raises BenchError for a suite that is in no file."""
        if self.itself is not None:
            raise BenchError(
                f"suite {self.suite} is in no file, and `launch.devices` and `launch.slurm` begin commands that read "
                "one: write it as YAML, its patchers as plug-ins, and give the path"
            )
        plugins = [part for plugin in self.plugins for part in ("--plugin", plugin)]
        one = [] if only is None else ["--only", only]
        return [self.suite, *self.overrides, "--results", str(self.results), *plugins, *one]

    def command(self, only: str) -> list[str]:
        """What does one run, whatever has been done of it, in a process of its own."""
        return [sys.executable, "-m", "bench.cli", "run", *self.arguments(only)]


def run_on_workers(job: Job, suite: Suite, workers: int, listener: Listener, beside: Callable[[], Listener]) -> Outcome:
    """`run_suite` by `workers` processes; `beside` gives each a listener of its own.

    Raises BenchError for what concerns all runs, once the workers have been stopped.
    """
    work = Work.of(suite, job.results, listener)
    work.check()
    todo = deque(run.run_id for run in work.missing)
    held: deque[str] = deque()  # by processes of somebody else: waited for when all else is done
    count = min(workers, len(todo))
    listener.say(f"{len(todo)} runs on {count} workers")
    team = [_Worker.start(job, place, count, beside()) for place in range(count)]
    try:
        while team:
            ready = wait([worker.pipe for worker in team], timeout=1.0)
            for worker in team:
                worker.kill_after(suite.launch.time_limit)
            for worker in [w for w in team if w.pipe in ready]:
                answer = worker.hear()
                if answer is None:
                    if worker.was_stopped:
                        todo.extend([worker.run_id] if worker.run_id is not None else [])
                    else:
                        _bury(worker, work)
                    team.remove(worker)
                    if todo or held:
                        team.append(_Worker.start(job, worker.place, count, worker.listener))
                    continue
                if answer == "held" and worker.run_id is not None:
                    held.append(worker.run_id)
                if answer in ("held", "free"):
                    queue, seconds = (todo, 0.0) if todo else (held, -1.0)
                    if not queue:
                        team.remove(worker)
                    worker.ask(queue.popleft() if queue else None, seconds)
    finally:
        for worker in team:
            worker.process.terminate()
        for worker in team:
            worker.process.join(STOPS_WITHIN)
            worker.process.kill()
    return work.outcome()


def run_on_ranks(job: Job, suite: Suite, listener: Listener, only: str | None = None, restarts: int = 3) -> Outcome:
    """Each run on `launch.devices` ranks that torchrun begins, and begins again when one of them is killed.

    They end with this process: told to, they write their checkpoint; and where this process is killed, they see that
    by themselves. Ctrl-C, which a terminal sends to all that it has begun, reaches this process alone.

    Raises BenchError for what concerns all runs, and where ranks died more often than `restarts`.
    """
    work = Work.of(suite, job.results, listener)
    work = work if only is None else work.of_one(only)
    if not work.missing:
        return work.outcome()
    work.check()
    torchrun = [sys.executable, "-m", "bench.execution.torchrun_agent", "--standalone"]
    torchrun += [f"--nproc-per-node={suite.launch.devices}", f"--max-restarts={restarts}"]
    command = [*torchrun, "-m", "bench.execution.torchrun_entry", *job.arguments(only)]
    with environment(threads_each(suite.launch.devices)):
        process = subprocess.Popen(command, start_new_session=True, env={**os.environ, PARENT: str(os.getpid())})
    try:
        process.wait()
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        raise BenchError(
            f"ranks were begun {restarts + 1} times and died each time, at last with exit code {process.returncode}; "
            "what they said stands above"
        )
    return work.outcome()


def workers_by_default() -> int:
    """One a GPU; where there is none one a core, as far as memory goes."""
    gpus = torch.cuda.device_count()
    return gpus or max(1, min(cores(), free_memory() // WORKER_BYTES))


@dataclass
class _Worker:
    """A worker process as its parent sees it."""

    process: SpawnProcess
    pipe: Connection
    listener: Listener
    place: int
    run_id: str | None = None
    began: float | None = None
    """When it began its run, as `time.monotonic` has it; None while it waits for somebody else's."""

    @staticmethod
    def start(job: Job, place: int, count: int, listener: Listener) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks of torch in any state
        process = context.Process(target=_work, args=(job, theirs), name=f"worker-{place}")
        with environment(threads_each(count), gpu_of(place, torch.cuda.device_count())), without_main():
            process.start()
        theirs.close()  # so that the end of the worker is the end of the pipe
        return _Worker(process, ours, listener, place)

    def ask(self, run_id: str | None, seconds: float) -> None:
        """Do this run, waiting so long for whoever is at it; None: that was all."""
        self.run_id, self.began = run_id, None
        self.pipe.send(None if run_id is None else (run_id, seconds))
        if run_id is None:
            self.process.join()

    def hear(self) -> str | None:
        """Pass on what the worker says; "free" or "held" where it can be asked, None where it has died."""
        try:
            name, *arguments = self.pipe.recv()
        except EOFError:
            return None
        if name == "refused":
            raise BenchError(arguments[0])
        if name in ("free", "held"):
            return str(name)
        if name == "run_begins":
            self.began = time.monotonic()
        getattr(self.listener, name)(*arguments)
        return "busy"

    def kill_after(self, seconds: float | None) -> None:
        """End a worker that hangs where no exception of Python's can reach it."""
        if seconds is not None and self.began is not None and time.monotonic() - self.began > seconds + STOPS_WITHIN:
            self.process.kill()

    @property
    def was_stopped(self) -> bool:
        """Whether somebody has sent it SIGTERM, which is no fault of its run."""
        self.process.join()
        return self.process.exitcode == EXIT_CODE


def _bury(worker: _Worker, work: Work) -> None:
    """Record the run that a worker died of. Raises BenchError when it died before it had one."""
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    if worker.run_id is None:
        raise BenchError(f"a worker ended with {how} before it could begin; run the suite without --workers to see why")
    run = next(r for r in work.runs if r.run_id == worker.run_id)
    limit = work.suite.launch.time_limit
    over = limit is not None and worker.began is not None and time.monotonic() - worker.began > limit
    why = f"; it was over its time limit of {limit:g} seconds" if over else "; out of memory?"
    record_death(work, run, f"its process ended with {how}" + (why if code == -signal.SIGKILL else ""), worker.listener)


def record_death(work: Work, run: Run, message: str, listener: Listener) -> None:
    """Record as failed a run whose process is gone without a record."""
    log = records.log_path(work.results, work.suite.name, run.run_id)
    record: Record = described(work.suite, run, work.data) | {
        "status": "failed",
        "error": {"kind": "died", "message": message, "log": log.name},
    }
    with records.claim(work.results, work.suite.name, run.run_id) as mine:
        if mine and work.needed(run):
            records.write(work.results, record)
            listener.run_ends(record)


# --- in the worker


def _work(job: Job, pipe: Connection) -> None:
    """A worker's life: load the suite once, then do what is asked until nothing more is."""
    end_with_parent()
    heed_sigterm()
    try:
        suite = job.load()
        work = Work.of(suite, job.results, _Remote(pipe, job.results, suite.name))
        runs = {run.run_id: run for run in work.runs}
        pipe.send(("free",))
        while (asked := pipe.recv()) is not None:
            run_id, seconds = asked
            if run_id not in runs:
                raise BenchError(f"the suite or a plug-in was edited while {run_id} waited: run the same command again")
            pipe.send(("free" if work.attempt(runs[run_id], seconds) else "held",))
    except BenchError as error:
        pipe.send(("refused", str(error)))
    except EOFError:  # the parent is gone, and with it whoever wanted the rest
        return
    except Stopped:
        sys.exit(EXIT_CODE)


class _Remote:
    """The listener in a worker: the parent hears what it is told; what is printed goes to the run's log."""

    def __init__(self, pipe: Connection, results: Path, suite: str) -> None:
        self.pipe, self.results, self.suite = pipe, results, suite
        self.shown = -math.inf

    def say(self, message: str) -> None:
        self._send("say", message)

    def run_begins(self, run_id: str, number: int, total: int) -> None:
        path = records.log_path(self.results, self.suite, run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        self._send("run_begins", run_id, number, total)

    def trained(self, progress: Progress, total_bytes: int) -> None:
        if time.monotonic() - self.shown > SHOWN_EVERY:
            self.shown = time.monotonic()
            self._send("trained", replace(progress, curve=progress.curve[-1:]), total_bytes)

    def run_ends(self, record: Record) -> None:
        self._send("run_ends", record)

    def _send(self, *message: Any) -> None:
        try:
            self.pipe.send(message)
        except BrokenPipeError:  # the parent is gone, for which the run that is under way is not to blame
            raise Stopped from None
