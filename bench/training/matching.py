"""Makes rows equal in patch size, FLOPs or bytes before training, and checks it after (DESIGN section 7).

Each way to match has a quantity, a value that it should have, and a tolerance. `train_flops` solves for the bytes
that a row reads, `inference_flops` for the sizes of its latent model. What the value is depends on the reference row's
patcher, which is fitted (or found in the cache) first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.config import Data
from bench.data.cut_corpus import CutDocuments, Cuts
from bench.data.fitted_patchers import Say
from bench.data.packed_starts import EvenStarts
from bench.suites.config import BY_FLOPS, Match, Row, Sizes, Suite
from bench.training.prepare import Prepared, check_memory, flops, prepare, training_flops, wanted_size
from bench.training.sizing import NotMatched, grown
from patchers.costs import measured
from patchers.identity import code_identity

TOLERANCE = 0.01
DRIFT = 0.05
"""How far the mean patch of the training text may be from what it is on the calibration text, where the knob is set:
a patcher that has been fitted on the training text cuts it less often than any other."""
LEARNT_TOLERANCE = 0.15
"""Where the cut is learnt inside the model, its size is known only after training."""
LEARNT_REMEDY = "train it longer, until its cut has settled, or ask for another size"


@dataclass(frozen=True)
class Measure:
    """What a way to match compares."""

    quantity: str
    of: Callable[[Prepared, int], float | None]
    """Of a row that is cut and reads so many bytes; None where it has no such thing."""
    tolerance: float
    remedy: str
    elsewhere: Callable[[Prepared], dict[str, float]] = lambda prepared: {}
    """The same of other text, by its name, which may be further off: by DRIFT."""


def _patch_size(prepared: Prepared, train_bytes: int) -> float | None:
    return prepared.bytes_per_patch["calibration"] if prepared.bytes_per_patch else None


def _patch_size_elsewhere(prepared: Prepared) -> dict[str, float]:
    return {"train": prepared.bytes_per_patch["train"]} if prepared.bytes_per_patch else {}


MEASURES: dict[Match, Measure] = {
    "placement": Measure(
        "bytes_per_patch",
        _patch_size,
        TOLERANCE,
        "give the calibration split more text, or the row `calibrate: false` if its size is to be its own",
        _patch_size_elsewhere,
    ),
    "train_flops": Measure(
        "train_flops",
        lambda prepared, train_bytes: training_flops(flops(prepared), train_bytes),
        TOLERANCE,
        "a window of train.window bytes is too much of so small a budget; raise it, or lower train.window",
    ),
    "inference_flops": Measure(
        "flops_per_byte",
        lambda prepared, train_bytes: flops(prepared)["total"],
        TOLERANCE,
        "give its latent model other sizes to begin with",
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
    set: Mapping[str, Any]
    """What was changed of the row to get there."""

    def compare(self, prepared: Prepared, train_bytes: int) -> dict[str, Any]:
        """How closely a row meets the goal, as the record has it.

        Raises NotMatched where it is further off than the tolerance.
        """
        found = self.measure.of(prepared, train_bytes)
        there = self.measure.elsewhere(prepared)
        deviation = self._deviation(prepared, found, self.tolerance)
        drift = {
            text: self._deviation(prepared, value, max(self.tolerance, DRIFT), f" on the {text} split")
            for text, value in there.items()
        }
        return {
            "quantity": self.measure.quantity,
            "reference": self.value,
            "row": self.to,
            "value": found,
            "deviation": deviation,
            "tolerance": self.tolerance,
            "elsewhere": {} if self.value is None else drift,
            "set": dict(self.set),
        }

    def _deviation(self, prepared: Prepared, found: float | None, tolerance: float, where: str = "") -> float | None:
        deviation = None if found is None or self.value is None else found / self.value - 1
        if deviation is not None and abs(deviation) > tolerance:
            raise NotMatched(
                f"{self.measure.quantity} of row {prepared.row.label!r}{where} is {found:.6g}, {deviation:+.1%} from "
                f"the {self.value:.6g} that it is matched to, wanted within {tolerance:.0%}: "
                f"{LEARNT_REMEDY if self.tolerance == LEARNT_TOLERANCE else self.measure.remedy}"
            )
        return deviation


def prepare_matched(suite: Suite, row: Row, data: Data, cache: Path, say: Say) -> tuple[Prepared, Goal]:
    """`prepare`, with the row's bytes or sizes as matching wants them, and what is to be checked after training.

    Raises NotMatched at once where no training can mend it.
    """
    measure = MEASURES[suite.match]
    prepared = prepare(suite, row, data, cache, say)
    before = row.sizes
    if row.grow_to is not None:
        other = expected(prepare(suite, suite.row(row.grow_to), data, cache, say))
        row = dataclasses.replace(row, sizes=grown(prepared, flops(other)["total"], "local"))
        prepared = dataclasses.replace(prepared, row=row)
    learnt = prepared.patcher is not None and prepared.patcher.kind == "in-model"
    tolerance = LEARNT_TOLERANCE if learnt else measure.tolerance
    wanted: float | None
    to: float | str | None
    if suite.match in BY_FLOPS:
        budget, to = _wanted_flops(suite, row, measure, data, cache, say)
        wanted = budget
        if suite.match == "train_flops":
            _check_cost(prepared, data)
            read = max(1, round(budget / training_flops(flops(expected(prepared)), 1)))
            changed, row = {"bytes": read}, dataclasses.replace(row, train=dataclasses.replace(row.train, bytes=read))
        else:
            there = to == row.label or row.grow_to is not None
            sizes = row.sizes if there else grown(expected(prepared), budget)
            changed, row = changes(row.sizes, sizes), dataclasses.replace(row, sizes=sizes)
        prepared = dataclasses.replace(prepared, row=row)
    elif suite.match == "placement":
        wanted, to, changed = wanted_size(suite, row, data, cache, say), row.bytes_per_patch, {}
    else:
        wanted, to, changed = float(row.train.bytes), None, {}
    if row.grow_to is not None:
        changed = changed | changes(before, row.sizes)
    goal = Goal(measure, wanted, to if isinstance(to, str) else None, tolerance, changed)
    goal.compare(expected(prepared), row.train.bytes)
    if suite.launch.devices == 1:  # over several a model may be spread
        check_memory(prepared.row, prepared.patcher)
    return prepared, goal


def _check_cost(prepared: Prepared, data: Data) -> None:
    """Raises NotMatched for a plug-in whose cost is not what it says: FLOPs that are not known cannot be made equal."""
    patcher = prepared.scoring_patcher
    if patcher is None or code_identity(type(patcher)) is None:
        return
    doubt = measured(patcher, data.test.texts).doubt
    if doubt is not None:
        raise NotMatched(f"row {prepared.row.label!r} cannot take part in match: train_flops: {doubt}")


def changes(before: Sizes, after: Sizes) -> dict[str, Any]:
    """The fields that differ, as they are after."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    return {name: value for name, value in new.items() if value != old[name]}


def _wanted_flops(
    suite: Suite, row: Row, measure: Measure, data: Data, cache: Path, say: Say
) -> tuple[float, str | None]:
    """What a row's FLOPs should come to: a number, or those of the reference row, which is named."""
    if not isinstance(row.match_to, str):
        assert row.match_to is not None, "the config has named the first row where nothing else was"
        return float(row.match_to), None
    reference = suite.row(row.match_to)
    wanted = measure.of(expected(prepare(suite, reference, data, cache, say)), reference.train.bytes)
    assert wanted is not None, "FLOPs are of every row"
    return wanted, reference.label


def expected(prepared: Prepared) -> Prepared:
    """With an in-model patcher, whose cuts training will make: as many as it is asked for, evenly placed."""
    patcher = prepared.patcher
    if patcher is None or patcher.kind != "in-model" or patcher.knob is None or prepared.bytes_per_patch is not None:
        return prepared
    size = float(getattr(patcher, patcher.knob))
    corpus = prepared.train
    even = CutDocuments(corpus.data, corpus.offsets, Cuts(EvenStarts(corpus.offsets, size)))
    return dataclasses.replace(prepared, train=even, bytes_per_patch={"calibration": size, "train": size})
