"""Settings of child processes: cores, GPU, and their end with the parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
"""What libraries read, once, when they are imported."""

PARENT = "PATCHBENCH_PARENT"
"""The variable that tells a command the process that has begun it."""
LOOKS_EVERY = 0.5
"""Seconds between two looks at whether the parent is there."""


def cores() -> int:
    """The cores that this process may use, no more than the user allows by OMP_NUM_THREADS."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(there, int(allowed) if allowed.isdecimal() else there))


def threads_each(workers: int) -> int:
    """The cores divided."""
    return max(1, cores() // workers)


def end_with_parent() -> None:
    """Of a process that multiprocessing began: from now on it ends when its parent does, also of `kill -9`, which tells
    nobody. It ends as abruptly, which all that we write allows for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="ends-with-parent", daemon=True).start()


def stop_with_parent(seconds: float) -> None:
    """Of a process that was begun as a command: SIGTERM to itself once its parent is gone, also by `kill -9`, which
    tells nobody; and its abrupt end where `seconds` later it is still there.

    Whoever began it says in the environment which process that is (`PARENT`): it may be gone before this one looks.
    """
    parent = int(os.environ.get(PARENT) or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="stops-with-parent", daemon=True).start()


@contextmanager
def environment(threads: int, gpu: str | None = None) -> Iterator[None]:
    """What processes find that are begun inside the block."""
    before = dict(os.environ)
    os.environ.update({name: str(threads) for name in THREADS})
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def without_main() -> Iterator[None]:
    """Processes of multiprocessing that begin inside the block do not run the user's script again to have its names:
    what is sent to them brings its own."""
    main = sys.modules["__main__"]
    hidden = {name: value for name, value in vars(main).items() if name in ("__file__", "__spec__")}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


def gpu_of(place: int, count: int) -> str | None:
    """The name of the GPU for the place-th process, given how many GPUs there are."""
    if not count:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[place % count] if visible else str(place % count)
