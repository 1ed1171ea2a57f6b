"""Random search over a suite's sizes and training, the same for every kind of model (Bergstra & Bengio 2012).

A file of its own says what is tried:

    suite: study                  # data, rows, and the values that are not tried
    rows: [entropy, none-grown]   # each is searched for itself
    seed: 0
    flops_per_byte: 1.1e6         # every trial costs this, within `tolerance`
    rounds:
      - {trials: 12, bytes: 4_000_000}
      - {exchange: [train, options.ngram_rows], bytes: 4_000_000}
      - {best: 3, bytes: 16_000_000}     # of the rounds before
    sensitivity: [0.5, 2]         # of train.lr, around the best of the last round,
    sensitivity_bytes: 4_000_000  # or of the rounds on so many bytes
    space:
      train.lr: {low: 1e-3, high: 16e-3}                     # log-uniform
      train.batch_bytes: [4096, 8192]                        # one of these
      local:                                                 # values that go together
        - {options.local_width: 64, options.local_heads: 2}

Keys are those of a row. `only: {ROW: {...}}` gives a row parts of the space of its own, null for one that it has not.
A round with `exchange` tries each row's best trial so far with every other row's best values of these keys (those that
the row has), so that no row owes its place to a lucky draw of what all have in common.

Which values a trial has depends on the seed, the row and the number of the trial alone, so that a search goes on where
it stopped and several processes may take part. The score is bits per byte of calibration text; the test split is never
read.

Every trial is a line of `results/tuning/NAME.jsonl`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field
from scipy.stats import loguniform
from sklearn.model_selection import ParameterSampler

from bench.data.config import Data
from bench.execution.curves import bits_per_byte
from bench.execution.run import best_device
from bench.execution.task_inputs import byte_model
from bench.suites.config import Suite, load_suite
from bench.system.files import locked
from bench.system.yaml import Tree, dataclass_from_mapping, parse_file
from bench.training.loop import TrainingFailed, train
from bench.training.matching import expected, prepare_matched
from bench.training.prepare import Prepared, after_training, flops, make_model, prepare
from patchers.errors import BenchError
from patchers.grouping import beginning
from patchers.named import nearest

Values = dict[str, Any]
"""What a trial changes of a row, by dotted key."""

LOOKED_AT = 300
"""Draws for one trial before the search gives up: with so few that cost what they should, something else is wrong."""

WAIT_SECONDS = 0.2
"""Between two looks at whether other processes have done their trials."""


@dataclass(frozen=True)
class Round:
    """Trials of one length: drawn (the first round), the best of the round before, or those with exchanged values."""

    bytes: Annotated[int, Field(gt=0)]
    trials: Annotated[int, Field(gt=0)] | None = None
    best: Annotated[int, Field(gt=0)] | None = None
    exchange: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Search:
    """A search as it stands in its file."""

    suite: str
    rows: tuple[str, ...]
    rounds: tuple[Round, ...]
    space: dict[str, Any]
    seed: Annotated[int, Field(ge=0)] = 0
    flops_per_byte: Annotated[float, Field(gt=0)] | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    sensitivity: tuple[float, ...] = ()
    sensitivity_bytes: int | None = None
    calibration_bytes: Annotated[int, Field(gt=0)] = 500_000
    only: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By row: what it has in place of parts of `space`; null for a part that it has not."""

    def space_of(self, row: str) -> dict[str, Any]:
        merged = {**self.space, **self.only.get(row, {})}
        return {key: value for key, value in merged.items() if value is not None}


def load_search(path: Path) -> Search:
    """Raises BenchError, naming the place, for what is no search."""
    tree = parse_file(path, str(path))
    search = dataclass_from_mapping(Search, tree.value, tree.at())
    for index, one in enumerate(search.rounds):
        given = {kind for kind in ("trials", "best", "exchange") if getattr(one, kind) is not None}
        if len(given) != 1 or (index == 0) != (given == {"trials"}):
            wanted = "`trials`" if index == 0 else "`best` or `exchange`"
            raise (tree.at("rounds") / index).error(f"the {'first' if index == 0 else 'later'} rounds say {wanted}")
    for name, space in (("space", search.space), *((f"only.{row}", own) for row, own in search.only.items())):
        for key, value in space.items():
            if not _is_choice(value):
                raise tree.at(*name.split(".", 1), key).error(
                    f"wanted {{low: A, high: B}} with 0 < A < B, or a list of values, got {value!r}"
                )
    if not search.rounds:
        raise tree.at("rounds").error("wanted one round at least, as {trials: 8, bytes: 4_000_000}")
    if search.sensitivity_bytes not in (None, *(one.bytes for one in search.rounds)):
        raise tree.at("sensitivity_bytes").error(f"no round trains on {search.sensitivity_bytes} bytes")
    for row in search.only:
        if row not in search.rows:
            raise tree.at("only", row).error(f"no row of this search{nearest(row, list(search.rows))}")
    _check_keys(search, tree)
    return search


def _check_keys(search: Search, tree: Tree) -> None:
    """Raises BenchError for rows that the suite has not, and for keys of which there are no values."""
    known = [row.label for row in load_suite(search.suite, ["sweep={}"]).rows]
    keys: dict[str, set[str]] = {}
    for index, row in enumerate(search.rows):
        if row not in known:
            raise (tree.at("rows") / index).error(f"suite {search.suite} has no row {row!r}{nearest(row, known)}")
        space = search.space_of(row)
        together = [value for part in space.values() for value in part if isinstance(value, Mapping)]
        keys[row] = {*space, *(key for value in together for key in value)}
        if search.sensitivity and "train.lr" not in keys[row]:
            raise tree.at("sensitivity").error(f"is of train.lr, of which row {row!r} has no values in `space`")
    every = sorted(set().union(*keys.values()))
    for index, one in enumerate(search.rounds):
        for number, name in enumerate(one.exchange or ()):
            if not any(among(key, [name]) for key in every):
                place = tree.at("rounds") / index / "exchange" / number
                raise place.error(f"no row has values of {name!r}{nearest(name, every)}, so none could be exchanged")


def _is_choice(value: Any) -> bool:
    """Whether a value of a space can be drawn; null stands for none."""
    if isinstance(value, Mapping):
        ends: list[Any] = [value.get("low"), value.get("high")]
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        return set(value) == {"low", "high"} and numbers and 0 < float(ends[0]) < float(ends[1]) < math.inf
    return value is None or (isinstance(value, list) and bool(value))


def draws(space: Mapping[str, Any], seed: int, row: str) -> Iterator[Values]:
    """Draws, the n-th of which depends on the seed, the row and n alone; each one once where there are only so many,
    endless otherwise."""
    distributions: dict[str, Any] = {}
    for key, value in sorted(space.items()):
        if isinstance(value, Mapping):
            distributions[key] = loguniform(float(value["low"]), float(value["high"]))
        else:
            distributions[key] = list(value)
    digest = hashlib.sha256(f"{seed}:{row}".encode()).digest()
    sampler = ParameterSampler(distributions, n_iter=10**9, random_state=int.from_bytes(digest[:4], "big"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The total space of parameters", UserWarning)
        drawings = iter(sampler)
        first = next(drawings, None)
    for drawn in () if first is None else itertools.chain([first], drawings):
        out: Values = {}
        for key, value in drawn.items():
            if isinstance(value, Mapping):  # values that go together
                out |= value
            else:
                out[key] = float(f"{float(value):.3g}") if isinstance(space[key], Mapping) else value
        yield out


def among(key: str, names: Sequence[str]) -> bool:
    """Whether one of the names is the dotted key, or a section that it is in."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def with_values(search: Search, row: str, values: Values, train_bytes: int) -> Suite:
    """The search's suite, of this row alone, at these values."""
    settings = {**values, "train.bytes": train_bytes}
    changes = [f"rows.{row}.{key}={json.dumps(value)}" for key, value in settings.items()]
    return load_suite(search.suite, [*changes, "sweep={}"])


@dataclass(frozen=True)
class Trial:
    """What is tried, and what came of it."""

    row: str
    stage: str
    """`0`, `1`, ... of the round, or `sensitivity xF`."""
    number: int
    values: Values
    bytes: int
    bpb: float | None = None
    """Bits per byte of calibration text; None where the training diverged."""
    flops_per_byte: float = math.nan
    seconds: float = 0.0
    steps: int = 0

    @property
    def name(self) -> tuple[str, str, int]:
        return self.row, self.stage, self.number


class Tuning:
    """A search on one results folder, as one of possibly many processes sees it."""

    def __init__(self, path: Path, results: Path, say: Any = print) -> None:
        self.search, self.say = load_search(path), say
        self.log = results / "tuning" / f"{path.stem}.jsonl"
        self.cache = results / "cache"
        self.locks = results / "tuning" / "locks"
        self._prepared: dict[str, Prepared] = {}

    def done(self) -> dict[tuple[str, str, int], Trial]:
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        trials = [Trial(**json.loads(line)) for line in lines]
        return {trial.name: trial for trial in trials}

    def run(self, rows: Sequence[str] = ()) -> None:
        """Do what is missing, of these rows alone where some are named.

        Raises BenchError for one that is not searched, and where no such trials can be drawn.
        """
        for row in rows:
            if row not in self.search.rows:
                known = list(self.search.rows)
                raise BenchError(f"no row {row!r} in this search{nearest(row, known)}; it has: {', '.join(known)}")
        for index, one in enumerate(self.search.rounds):
            by_row = [list(self.trials_of(row, index, one)) for row in rows or self.search.rows]
            # so that no row is ahead of the others where a search is stopped
            self._complete([trial for together in zip_longest(*by_row) for trial in together if trial is not None])
        self._complete([trial for row in rows or self.search.rows for trial in self.sensitivity_of(row)])

    def _complete(self, trials: Sequence[Trial]) -> None:
        """Do what is missing, and wait for what other processes are at: the next round begins with the best."""
        while missing := [trial for trial in trials if trial.name not in self.done()]:
            for trial in missing:
                self.attempt(trial)
            time.sleep(WAIT_SECONDS)

    def trials_of(self, row: str, index: int, one: Round) -> Iterator[Trial]:
        if index == 0:
            assert one.trials is not None
            yield from (Trial(row, "0", n, values, one.bytes) for n, values in self._feasible(row, one))
            return
        earlier = self.search.rounds[index - 1].bytes
        ranked = self.ranking(row, earlier, before=index)
        if one.best is not None:
            for rank, before in enumerate(ranked[: one.best]):
                yield Trial(row, str(index), rank, before.values, one.bytes)
        if one.exchange is not None and ranked:
            own = ranked[0].values
            for number, other in enumerate(self.search.rows):
                best = self.ranking(other, earlier, before=index)[:1] if other != row else []
                for trial in best:
                    taken = {k: v for k, v in trial.values.items() if k in own and among(k, one.exchange)}
                    values = {**own, **taken}
                    if self._may_be(row, values):
                        yield Trial(row, str(index), number, values, one.bytes)
                    else:
                        self.say(f"{row} {index} #{number}: left out, as {other}'s values do not fit it")

    def sensitivity_of(self, row: str) -> Iterator[Trial]:
        ranked = self.ranking(row, self.search.sensitivity_bytes or self.search.rounds[-1].bytes)
        for factor in self.search.sensitivity if ranked else ():
            best = ranked[0]
            rate = float(f"{best.values['train.lr'] * factor:.3g}")
            yield Trial(row, f"sensitivity x{factor:g}", 0, {**best.values, "train.lr": rate}, best.bytes)

    def ranking(self, row: str, trained: int, before: int | None = None) -> list[Trial]:
        """The trials of the rounds (before one) on so many bytes that have a number, best first."""
        rounds = [str(index) for index in range(len(self.search.rounds) if before is None else before)]
        found = [t for t in self.done().values() if t.row == row and t.stage in rounds and t.bytes == trained]
        return sorted((t for t in found if t.bpb is not None), key=lambda trial: trial.bpb or math.inf)

    def _feasible(self, row: str, one: Round) -> Iterator[tuple[int, Values]]:
        """The draws that cost what they should; FLOPs depend on sizes and cuts alone, so nothing is trained for it."""
        assert one.trials is not None
        found = looked = 0
        refused = ""
        for values in draws(self.search.space_of(row), self.search.seed, row):
            looked += 1
            if looked > LOOKED_AT * (found + 1):
                break
            try:
                if not self._fits(row, values):
                    continue
            except BenchError as error:  # sizes that do not go together
                refused = f" (the last one that was refused: {error})"
                continue
            yield found, values
            found += 1
            if found == one.trials:
                return
        wanted, within = self.search.flops_per_byte, f"{self.search.tolerance:.0%}"
        cost = "can be trained" if wanted is None else f"cost {wanted:g} FLOPs a byte, within {within}"
        raise BenchError(
            f"of {looked} draws for row {row!r} {found} {cost}, and {one.trials} trials are wanted: widen `space`, "
            f"raise `tolerance`, or want fewer{refused}"
        )

    def _may_be(self, row: str, values: Values) -> bool:
        """Whether sizes go together, and cost what every trial costs."""
        try:
            return self._fits(row, values)
        except BenchError:
            return False

    def _fits(self, row: str, values: Values) -> bool:
        suite = with_values(self.search, row, values, 1_000_000)
        one, wanted = suite.row(row), self.search.flops_per_byte
        if wanted is None:
            return True
        cut = json.dumps([row, one.patcher_options(), one.train.window])  # what FLOPs depend on, beside the sizes
        if cut not in self._prepared:
            self._prepared[cut] = expected(prepare(suite, one, self.data(suite), self.cache, lambda message: None))
        prepared = replace(self._prepared[cut], row=one)
        return abs(flops(prepared)["total"] / wanted - 1) <= self.search.tolerance

    def data(self, suite: Suite) -> Data:
        from bench.data import store

        if not hasattr(self, "_data"):
            self._data = store.load(suite.data, self.cache, lambda message: None)
        return self._data

    def attempt(self, trial: Trial) -> None:
        """Do a trial, unless it is done or another process is at it."""
        slug = "-".join(map(str, trial.name)).replace(" ", "-")
        with locked(self.locks / f"{slug}.lock", 0.0) as mine:
            if not mine or trial.name in self.done():
                return
            found = self.tried(trial)
            with locked(self.locks / "log.lock", -1.0), self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(found)) + "\n")
        bpb = "diverged" if found.bpb is None else f"{found.bpb:.4f} bits/byte"
        self.say(f"{trial.row} {trial.stage} #{trial.number}: {bpb}, {found.seconds:.0f} s, {json.dumps(trial.values)}")

    def tried(self, trial: Trial) -> Trial:
        suite = with_values(self.search, trial.row, trial.values, trial.bytes)
        data, device, seed = self.data(suite), best_device(), suite.seeds[0]
        prepared, _ = prepare_matched(suite, suite.row(trial.row), data, self.cache, lambda message: None)
        model = make_model(prepared.row, prepared.patcher, seed)
        began = time.perf_counter()
        try:
            progress = train(model, prepared.train, prepared.row.train, seed, device)
        except TrainingFailed:
            return replace(trial, seconds=round(time.perf_counter() - began, 1))
        prepared = after_training(prepared, model, data, lambda message: None)
        texts = beginning(data.calibration.texts, self.search.calibration_bytes)
        bpb = bits_per_byte(byte_model(prepared, model, device), texts)
        return replace(
            trial,
            bpb=round(bpb, 5),
            flops_per_byte=round(flops(prepared)["total"]),
            seconds=round(progress.seconds, 1),
            steps=progress.step,
        )


def best_values(tuning: Tuning, row: str) -> Trial | None:
    """The best of the last round that has any."""
    for one in reversed(tuning.search.rounds):
        ranked = tuning.ranking(row, one.bytes)
        if ranked:
            return ranked[0]
    return None


def as_yaml(values: Values) -> str:
    """Values as a row of a suite has them."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return str(yaml.safe_dump(tree, sort_keys=True, default_flow_style=None)).strip()
