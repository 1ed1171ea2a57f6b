"""The patchers that `patchbench intrinsics` compares: fitted, each once, with the time that its fit took."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.config import Corpus, Data
from bench.data.fitted_patchers import Say, asked, fit_cached
from bench.intrinsics.measure import Contender
from patchers import Patcher, get, without_file
from patchers.grouping import beginning

if TYPE_CHECKING:
    from bench.suites.config import Row, Suite


LOOK_BYTES = 2_000_000
"""Of the training split, where no suite says what patchers learn from: all of the registry are fitted in seconds."""


@dataclass(frozen=True)
class Contenders:
    """Who is compared, and who is not."""

    patchers: tuple[Contender, ...]
    in_models: tuple[str, ...] = ()
    """Labels of those that cut only inside of a trained model."""
    twice: tuple[tuple[str, str], ...] = ()
    """Labels of rows that cut as a row before them does, and that row's."""


def for_a_look(data: Data) -> Data:
    """The same with the beginning of its training split alone."""
    some = len(beginning(data.train.texts, LOOK_BYTES))
    return dataclasses.replace(data, train=Corpus(data.train.documents[:some]))


def of_names(texts: Sequence[str], data: Data, size: float | None, cache: Path, say: Say) -> Contenders:
    """As they are written on the command line; all of the registry that need no file where none are."""
    names = texts or without_file()
    in_models = [] if texts else [name for name in names if get(name).kind == "in-model"]
    found = []
    for one in (asked(name) for name in names if name not in in_models):
        wanted = size if one.calibrates else None

        def ready(say: Say, patcher: Patcher = one.patcher, wanted: float | None = wanted) -> Patcher:
            return fit_cached(patcher, data, wanted, cache, say)

        made = _timed(one.label, ready, say) if one.learns or wanted else Contender(one.label, one.patcher)
        found.append(made)
    return Contenders(tuple(found), tuple(in_models))


def of_suite(suite: Suite, data: Data, cache: Path, say: Say) -> Contenders:
    """Those of its rows, fitted and calibrated as a run has them."""
    from bench.training.prepare import fitted  # needs torch

    found: dict[str, Contender] = {}
    in_models, twice = [], []
    for row in suite.rows:
        if row.patcher is None:
            continue
        if row.patcher.kind == "in-model":
            in_models.append(row.label)
            continue

        def ready(say: Say, row: Row = row) -> Patcher:
            return fitted(suite, row, data, cache, say)

        made = _timed(row.label, ready, say)
        before = found.setdefault(made.patcher.fingerprint(), made)
        if before is not made:
            twice.append((row.label, before.label))
    return Contenders(tuple(found.values()), tuple(in_models), tuple(twice))


def _timed(label: str, make: Callable[[Say], Patcher], say: Say) -> Contender:
    """With the seconds of the processor, unless it came from the cache or had nothing to learn."""
    fitting = []

    def heard(message: str) -> None:
        fitting.append(message)
        say(message)

    begin = time.process_time()
    patcher = make(heard)
    seconds = time.process_time() - begin
    learns = type(patcher).fit is not Patcher.fit
    return Contender(label, patcher, seconds if fitting and learns else None)
