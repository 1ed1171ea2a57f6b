"""What a suite makes equal: made so before training, and checked after it (DESIGN section 7).

Each way to match has a quantity, a value that it should have, and a tolerance. `train_flops` solves for the bytes
that a row reads. What the value is depends on the reference row's patcher, which is fitted (or found in the cache)
first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.config import Match, Row, Suite
from bench.cuts import CutDocuments, Cuts
from bench.data import Data
from bench.fitting import Say
from bench.prepare import Prepared, flops, prepare, training_flops, wanted_size
from patchers.errors import BenchError

TOLERANCE = 0.01
SIZE_TOLERANCE = 0.05
"""Of the mean patch: knobs are set on the calibration split, and texts differ."""
LEARNT_TOLERANCE = 0.15
"""Where the cut is learnt inside the model, its size is known only after training."""
LEARNT_REMEDY = "train it longer, until its cut has settled, or ask for another size"


class NotMatched(BenchError):
    """What should be equal is not, so that the run cannot be compared as its suite says."""


@dataclass(frozen=True)
class Measure:
    """What a way to match compares."""

    quantity: str
    of: Callable[[Prepared, int], float | None]
    """Of a row that is cut and reads so many bytes; None where it has no such thing."""
    tolerance: float
    remedy: str


def _patch_size(prepared: Prepared, train_bytes: int) -> float | None:
    return prepared.bytes_per_patch["train"] if prepared.bytes_per_patch else None


MEASURES: dict[Match, Measure] = {
    "placement": Measure(
        "bytes_per_patch",
        _patch_size,
        SIZE_TOLERANCE,
        "give the calibration split more text, or the row `calibrate: false` if its size is to be its own",
    ),
    "train_flops": Measure(
        "train_flops",
        lambda prepared, train_bytes: training_flops(flops(prepared), train_bytes),
        TOLERANCE,
        "a window of train.window bytes is too much of so small a budget; raise it, or lower train.window",
    ),
    "bytes": Measure(
        "train_bytes",
        lambda prepared, train_bytes: float(train_bytes),
        TOLERANCE,
        "a window of train.window bytes is too much of so few; raise train.bytes, or lower train.window",
    ),
}


@dataclass(frozen=True)
class Goal:
    """What a row's matched quantity should come to."""

    measure: Measure
    value: float | None
    """None where the row has nothing that could be set."""
    to: str | None
    """The row that the value is from, where it is from one."""
    tolerance: float

    def compare(self, prepared: Prepared, train_bytes: int) -> dict[str, Any]:
        """How closely a row meets the goal, as the record has it.

        Raises NotMatched where it is further off than the tolerance.
        """
        found = self.measure.of(prepared, train_bytes)
        deviation = None if found is None or self.value is None else found / self.value - 1
        if deviation is not None and abs(deviation) > self.tolerance:
            raise NotMatched(
                f"{self.measure.quantity} of row {prepared.row.label!r} is {found:.6g}, {deviation:+.1%} from the "
                f"{self.value:.6g} that it is matched to, wanted within {self.tolerance:.0%}: "
                f"{LEARNT_REMEDY if self.tolerance == LEARNT_TOLERANCE else self.measure.remedy}"
            )
        return {
            "quantity": self.measure.quantity,
            "reference": self.value,
            "row": self.to,
            "value": found,
            "deviation": deviation,
            "tolerance": self.tolerance,
        }


def prepare_matched(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> tuple[Prepared, Goal]:
    """`prepare`, with the row's bytes as matching wants them, and what is to be checked after training.

    Raises NotMatched at once where no training can mend it.
    """
    measure = MEASURES[suite.match]
    prepared = prepare(suite, row, data, cache, say)
    learnt = prepared.patcher is not None and prepared.patcher.kind == "in-model"
    tolerance = LEARNT_TOLERANCE if learnt else measure.tolerance
    if suite.match == "train_flops":
        wanted = _wanted_flops(suite, row, data, cache, say)
        per_byte = training_flops(flops(expected(prepared)), 1)
        train = dataclasses.replace(row.train, bytes=max(1, round(wanted / per_byte)))
        prepared = dataclasses.replace(prepared, row=dataclasses.replace(row, train=train))
        goal = Goal(measure, wanted, row.match_to if isinstance(row.match_to, str) else None, tolerance)
    elif suite.match == "placement":
        other = row.bytes_per_patch if isinstance(row.bytes_per_patch, str) else None
        goal = Goal(measure, wanted_size(suite, row, data, cache, say), other, tolerance)
    else:
        goal = Goal(measure, float(row.train.bytes), None, tolerance)
    goal.compare(expected(prepared), prepared.row.train.bytes)
    return prepared, goal


def _wanted_flops(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> float:
    """All that a row's training may cost: a number, or what the reference row spends on its bytes."""
    if isinstance(row.match_to, float):
        return row.match_to
    assert row.match_to is not None, "the config has named the first row where nothing else was"
    reference = suite.row(row.match_to)
    per_byte = flops(expected(prepare(suite, reference, data, cache, say)))
    return training_flops(per_byte, reference.train.bytes)


def expected(prepared: Prepared) -> Prepared:
    """With an in-model patcher, whose cuts training will make: as many as it is asked for, evenly placed."""
    patcher = prepared.patcher
    if patcher is None or patcher.kind != "in-model" or patcher.knob is None or prepared.bytes_per_patch is not None:
        return prepared
    size = float(getattr(patcher, patcher.knob))
    corpus = prepared.train
    starts = corpus.cuts.starts | (np.arange(len(corpus.data)) % size < 1)
    even = CutDocuments(corpus.data, corpus.offsets, Cuts(starts))
    return dataclasses.replace(prepared, train=even, bytes_per_patch={"train": size})
