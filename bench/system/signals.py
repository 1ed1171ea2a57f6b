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
STOPS_WITHIN = 30.0
"""Seconds that a process has to write its checkpoint, or to notice that its time is over."""
GRACE = 20.0
"""Seconds after its time limit in which a training may end its step and write its checkpoint."""


class Stopped(BaseException):
    """The process was told to stop; no Exception, so that nobody takes it for the failure of a run."""


class TimeLimit(Exception):
    """A run took longer than it may."""

    @staticmethod
    def now() -> TimeLimit:
        """Of the limit that there is."""
        return TimeLimit(f"it took more than {_limit:g} seconds; raise `launch.time_limit`, or see where it hangs")


_asked = False
_waiting = 0
_limit = 0.0
_over = False


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
    """Inside the block SIGTERM only raises a flag, which `asked` tells; Stopped comes at its end at the latest. The end
    of a time limit does so as well (`out_of_time`), for GRACE seconds."""
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


def out_of_time() -> bool:
    """Whether a time limit was over inside of `put_off`."""
    return _over


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeLimit where the block is when its time is over, as far as it is in Python then; main thread only.

    Inside of `put_off` whoever is there has GRACE seconds more, so that it can raise TimeLimit where it suits.
    """
    global _limit, _over
    if seconds is None:
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        global _over
        if _over or not _waiting:
            raise TimeLimit.now()
        _over = True
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    _limit, _over = seconds, False
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _over = False
