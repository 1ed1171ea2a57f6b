"""The command `patchbench` with an accident: python tests/campaigns/fault_driver.py run SUITE --results DIR

What goes wrong stands in the environment, as JSON in PATCHBENCH_FAULT:
    report     a file to which every phase adds a line when it ends, and the accident one when it happens
    phase, nth the accident happens in the nth phase of this name (PHASES)
    after      so many seconds after its beginning the process is killed, as by `kill -9`; or
    operation  it is killed just before the so-manieth of its operations on files; or
    fill       when the phase begins this folder's disk is filled, but for `leave` bytes
    child      whether it is a child process that this happens to
    parallel   texts of more bytes than this are cut in several processes

Texts are read, and cut, in small parts, so that small ones take the roads of large ones. Audits are left out: they have
tests of their own and cost more than all the rest.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from bench.cli.main import main
from bench.data import config as data
from bench.data import documents, segment, store
from bench.execution import run
from bench.system.progress import Display
from bench.training import loop, prepare

PHASES = ("data build", "fitting", "segmentation", "training", "scoring", "record writing")
FILLER = "filler"
FAULT: dict[str, Any] = {}
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.fsync")
"""What the interpreter tells of before it does it, but for os.fsync."""


class Watch:
    """Which phase the process is in, and when its accident is."""

    def __init__(self) -> None:
        self.phase: str | None = None
        self.begun: Counter[str] = Counter()
        self.began = 0.0
        self.operations = 0
        self.armed = False
        self.concerned = FAULT.get("child", False) == (multiprocessing.parent_process() is not None)

    def enter(self, phase: str) -> None:
        self.phase, self.operations, self.began = phase, 0, time.perf_counter()
        self.begun[phase] += 1
        if self.concerned and FAULT.get("phase") == phase and FAULT["nth"] == self.begun[phase]:
            if "fill" in FAULT:
                tell({"full": phase, "files": hashes(Path(FAULT["fill"]))})
                fill(Path(FAULT["fill"]), FAULT["leave"])
            elif "after" in FAULT:
                threading.Timer(FAULT["after"], self.kill, ("the time had come",)).start()
            else:
                self.armed = True

    def leave(self) -> None:
        if self.phase is not None:
            seconds = time.perf_counter() - self.began
            nth = self.begun[self.phase]
            tell({"phase": self.phase, "nth": nth, "seconds": seconds, "operations": self.operations})
            self.phase, self.armed = None, False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.phase is None or event not in OPERATIONS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        self.operations += 1
        if self.armed and self.operations == FAULT["operation"]:
            names = [Path(a).name for a in arguments if isinstance(a, str | Path) and len(str(a)) > 2]
            self.kill(" ".join(("before", event, *names)))

    def kill(self, why: str) -> NoReturn:
        tell({"killed in": self.phase, "why": why})
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody comes back")


def tell(line: dict[str, Any]) -> None:
    if "report" in FAULT:
        handle = os.open(FAULT["report"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, json.dumps(line).encode() + b"\n")
        os.close(handle)


def hashes(folder: Path) -> dict[str, str]:
    """Of the files that are finished."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(mark in str(path) for mark in (".part", ".tmp", ".lock", ".training.", FILLER))
    }


def fill(folder: Path, leave: int) -> None:
    with open(folder / FILLER, "wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)) == 2**16:
                pass
        except OSError:  # full
            pass
        file.truncate(max(0, file.tell() - leave))


watch = Watch()


def begin(fault: dict[str, Any]) -> None:
    """From now on this process is to have an accident."""
    global watch
    FAULT.clear()
    FAULT.update(fault)
    segment.PARALLEL_FROM = fault.get("parallel", 2**25)
    watch = Watch()


def before(real: Callable[..., Any], happens: Callable[[], None]) -> Callable[..., Any]:
    def instead(*arguments: Any, **named: Any) -> Any:
        happens()
        return real(*arguments, **named)

    return instead


def after(real: Callable[..., Any], happens: Callable[[], None]) -> Callable[..., Any]:
    def instead(*arguments: Any, **named: Any) -> Any:
        try:
            return real(*arguments, **named)
        finally:
            happens()

    return instead


def phase(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that is this phase."""
    return lambda real: after(before(real, lambda: watch.enter(name)), lambda: watch.leave())


def put(module: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Something else in the place of what a module has."""
    setattr(module, name, make(getattr(module, name)))


def install() -> None:
    torch.set_num_threads(1)  # also where OMP_NUM_THREADS allows two processes to cut
    put(data, "UNIT_BYTES", lambda real: 1)
    put(documents.FlatTexts.runs, "__defaults__", lambda real: (3000,))
    put(run, "audit", lambda real: lambda model, some: {})
    put(store, "build", phase("data build"))
    put(prepare, "fit_cached", phase("fitting"))
    put(segment, "_cut_into", phase("segmentation"))
    # Training begins with its first step, and ends with its last checkpoint.
    put(loop, "_steps", lambda real: before(real, lambda: watch.enter("training")))
    put(run, "train", lambda real: after(real, lambda: watch.leave()))
    put(run, "run_tasks", phase("scoring"))
    # Writing down what was found begins with the model, and ends when the run is told of.
    put(run, "save_model", lambda real: before(real, lambda: watch.enter("record writing")))
    put(Display, "run_ends", lambda real: before(real, lambda: watch.leave()))
    put(os, "fsync", lambda real: before(real, lambda: watch.hear("os.fsync", ())))
    sys.addaudithook(lambda event, arguments: watch.hear(event, arguments))


install()
begin(json.loads(os.environ.get("PATCHBENCH_FAULT", "{}")))

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
