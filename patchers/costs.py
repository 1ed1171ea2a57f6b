"""Checks the FLOPs per byte that a patcher claims against torch's count and against its processor time.

Comparisons at equal FLOPs believe `Patcher.flops_per_byte`. So it must be a number; where a patcher computes with
torch, torch's own counter must agree; and where a plug-in computes with anything else, the processor's time a byte
bounds what it can have done: at the rate of this machine's matrix products, nothing does more.
"""

from __future__ import annotations

import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from patchers.base import Patcher
from patchers.errors import BenchError
from patchers.grouping import beginning
from patchers.identity import code_identity

AGREES = 0.1
"""How far a claim may be from torch's count."""
TIMES = 10
"""How many times less than its time allows a plug-in may claim: little code runs at the rate of matrix products."""
IMMATERIAL = 50_000.0
"""FLOPs a byte that no comparison turns on: a twentieth of what the smallest models that ship cost."""
LOOKED_AT = 200_000
"""Bytes of documents that are cut for it, at most."""


def claimed(patcher: Patcher) -> float:
    """`flops_per_byte`. Raises BenchError where that, or `training_flops`, is no number that a cost can be, or another
    one at each call."""
    found, again, fitting = patcher.flops_per_byte(), patcher.flops_per_byte(), patcher.training_flops()
    if not _is_cost(found):
        raise BenchError(
            f"patcher '{patcher.name}' says that a byte costs {found!r} FLOPs: flops_per_byte() must give a finite "
            "number of at least 0, what segmenting one byte costs in a forward pass"
        )
    if again != found:
        raise BenchError(
            f"patcher '{patcher.name}' says that a byte costs {found!r} FLOPs, and {again!r} FLOPs when it is asked "
            "again: flops_per_byte() must give one number"
        )
    if not _is_cost(fitting):
        raise BenchError(
            f"patcher '{patcher.name}' says that fitting it has cost {fitting!r} FLOPs: training_flops() must give a "
            "finite number of at least 0"
        )
    return float(found)


def _is_cost(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | np.number) and bool(0 <= value < math.inf)


@dataclass(frozen=True)
class Cost:
    """What was claimed of a byte, and what was seen."""

    claimed: float
    counted: float | None
    """FLOPs a byte by torch's counter; None where torch was not used."""
    seconds_per_megabyte: float
    """Of the processor's time."""
    implied: float
    """FLOPs a byte that this time is enough for."""
    plugin: bool

    @property
    def doubt(self) -> str | None:
        """Why the claim of a plug-in cannot be relied on; None where it can.

        What ours claim is what unpadded text costs, which tests hold to torch's count; on short lines, with padding,
        they do more.
        """
        if not self.plugin:
            return None
        if self.counted is not None:
            if abs(self.counted - self.claimed) > AGREES * max(self.counted, self.claimed, 1.0):
                return (
                    f"cost not verified: it claims {self.claimed:.3g} FLOPs a byte and torch counted "
                    f"{self.counted:.3g}; let flops_per_byte() give what segment does"
                )
            return None
        if self.implied / TIMES > max(self.claimed, IMMATERIAL):
            return (
                f"cost not verified: it claims {self.claimed:.3g} FLOPs a byte and takes "
                f"{self.seconds_per_megabyte:.3g} s of processor time a megabyte, in which this machine does up to "
                f"{self.implied:.2g} a byte"
            )
        return None

    def words(self) -> str:
        seen = "" if self.counted is None else f", torch counted {self.counted:.3g}"
        return f"{self.claimed:.3g} FLOPs a byte{seen}; {self.seconds_per_megabyte:.3g} s a megabyte"


def measured(patcher: Patcher, docs: Sequence[bytes]) -> Cost:
    """Cut some of the documents, counting and timing. Raises BenchError for a claim that is none."""
    says, some = claimed(patcher), beginning(docs, LOOKED_AT, whole=False)
    patcher.segment_many(some[:1])  # what is compiled at the first call is no cost of a byte
    unseen = [_turned(doc) for doc in some]
    begin = _processor_seconds()
    counted = _counted(lambda: patcher.segment_many(unseen))
    seconds = _processor_seconds() - begin
    a_byte = max(1, sum(map(len, some)))
    return Cost(
        claimed=says,
        counted=None if counted is None else counted / a_byte,
        seconds_per_megabyte=seconds / a_byte * 1e6,
        implied=seconds / a_byte * machine_rate(),
        plugin=code_identity(type(patcher)) is not None,
    )


_turns = itertools.count(1)


def _turned(doc: bytes) -> bytes:
    """A document of the same bytes that the patcher has not seen: it may remember what it has cut."""
    at = next(_turns) * 7919 % max(1, len(doc))
    return doc[at:] + doc[:at]


def _processor_seconds() -> float:
    """Of this process, and of those that it has begun and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _counted(work: Callable[[], object]) -> float | None:
    """FLOPs of torch's operations in this; None where there were none."""
    if "torch" not in sys.modules:
        work()
        if "torch" not in sys.modules:
            return None
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as mode:
        work()
    return float(mode.get_total_flops()) or None


_RATE: list[float] = []


def machine_rate() -> float:
    """FLOP/s of processor time in float32 matrix products, measured once a process."""
    if not _RATE:
        a = np.ones((512, 512), np.float32)
        a @ a
        begin = time.process_time()
        for _ in range(20):
            a @ a
        _RATE.append(20 * 2 * 512**3 / max(1e-9, time.process_time() - begin))
    return _RATE[0]
