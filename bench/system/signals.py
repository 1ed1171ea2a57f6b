"""SIGTERM handling: stop after a checkpoint; time limits.

The process ends with exit code 75, EX_TEMPFAIL of sysexits.h: "a temporary failure, the user is invited to retry". It
is neither of our own codes (0 done, 1 a run failed, 2 a wrong call) nor one that shells make of signals (128 and more),
and schedulers can be told that it means "put back into the queue" (Slurm: `RequeueExit=75`).

Everything on disk is whole at any moment, so stopping needs care in one place alone: a training stops between two
steps, when it has written its checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75


class Stopped(BaseException):
    """The process was told to stop; no Exception, so that nobody takes it for the failure of a run."""


class TimeLimit(Exception):
    """A run took longer than it may."""


_asked = False
_waiting = 0


def heed_sigterm() -> None:
    """From now on SIGTERM raises Stopped in the main thread, or is put off by `until_asked`."""
    if threading.current_thread() is threading.main_thread():  # elsewhere nobody may
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    if not _waiting:
        raise Stopped


@contextmanager
def put_off() -> Iterator[None]:
    """Inside the block SIGTERM only raises a flag, which `asked` tells; Stopped comes at its end at the latest."""
    global _waiting
    _waiting += 1
    try:
        yield
    finally:
        _waiting -= 1
        if _asked and not _waiting:
            raise Stopped


def asked() -> bool:
    """Whether the process has been told to stop."""
    return _asked


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeLimit where the block is when its time is over, as far as it is in Python then; main thread only."""
    if seconds is None:
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeLimit(f"it took more than {seconds:g} seconds; raise `launch.time_limit`, or see where it hangs")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
