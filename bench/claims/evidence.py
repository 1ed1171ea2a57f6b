"""The records that claims are judged by, read once a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.claims.numbers import Spread, Term
from bench.records.comparison import Runs, check_comparable, metrics_of, rows_of, scores_of, task_failures
from bench.records.record import Record, dig
from bench.records.selection import select
from bench.records.statistics import Scores
from bench.suites.config import load_suite
from patchers.errors import BenchError
from patchers.named import nearest


class NoRecords(BenchError):
    """What a claim needs has not been run; the message says which command runs it."""


@dataclass
class Evidence:
    """Records in a folder of results, as predicates ask for them (`bench.claims.numbers.Source`)."""

    results: Path
    spread_suites: Sequence[str] = ()
    plugins: Sequence[str] = ()
    used: dict[str, Record] = field(default_factory=dict)
    """By run id, the records that were looked at since this was emptied."""

    _suites: dict[str, dict[str, Runs]] = field(default_factory=dict)
    _labels: dict[str, list[str]] = field(default_factory=dict)
    _tasks: dict[str, set[str]] = field(default_factory=dict)
    _spreads: dict[tuple[str, str], Spread | None] = field(default_factory=dict)

    def command(self, suite: str) -> str:
        plugins = "".join(f" --plugin {path}" for path in self.plugins)
        return f"`patchbench run {suite}{plugins} --results {self.results}`"

    def rows(self, suite: str) -> dict[str, Runs]:
        """The suite's rows that have records; none where it has none. Raises BenchError for an unknown suite."""
        if suite not in self._suites:
            folder = self.results / suite / "runs"
            try:
                loaded = load_suite(suite, (), self.plugins)
            except BenchError:
                if not folder.is_dir():
                    raise
                self._labels[suite] = []  # its file is elsewhere, and its records are here
            else:
                folder = self.results / loaded.name / "runs"
                self._labels[suite] = [row.label for row in loaded.rows]
                self._tasks[suite] = {task.name for task in loaded.tasks}
            there = any(folder.glob("*.json"))
            self._suites[suite] = rows_of(select(self.results, suite, (), self.plugins).records) if there else {}
        return self._suites[suite]

    def runs(self, suite: str, row: str) -> Runs:
        """Raises NoRecords for a row that has not been run, or has failed, and BenchError for one that is not there."""
        rows = self.rows(suite)
        known = list(dict.fromkeys([*self._labels[suite], *rows]))
        if row not in known:
            raise BenchError(f"suite {suite} has no row {row!r}{nearest(row, known)}; it has: {', '.join(known)}")
        if row not in rows:
            raise NoRecords(f"row {row} of suite {suite} has not been run: {self.command(suite)}")
        found = rows[row]
        if not found.records:
            raise NoRecords(f"row {row} of suite {suite} failed ({found.failures[0].full}): {self.command(suite)}")
        return found

    def scores(self, terms: list[Term]) -> dict[Term, tuple[Scores, tuple[str, ...]]]:
        runs = {term: self._having(term) for term in terms}
        check_comparable([record for found in runs.values() for record in found.records])
        out: dict[Term, tuple[Scores, tuple[str, ...]]] = {}
        for metric in dict.fromkeys(term.metric for term in terms):
            mine = {term: replace(runs[term], label=term.label) for term in terms if term.metric == metric}
            scores = scores_of(metric, mine.values())
            task, _, name = metric.partition(".")
            for term, found in mine.items():
                documents = dig(found.records[0], f"tasks.{task}.metrics.{name}.documents")
                out[term] = scores[term.label], tuple(sorted(str(document[0]) for document in documents))
        return out

    def _having(self, term: Term) -> Runs:
        """The row's runs that have the metric."""
        runs = self.runs(term.suite, term.row)
        task, _, name = term.metric.partition(".")
        having = [r for r in runs.records if dig(r, f"tasks.{task}.metrics.{name}") is not None]
        if having:
            self.used |= {record["run_id"]: record for record in having}
            return replace(runs, records=having)
        failed = task_failures(runs).get(task)
        if failed:
            again = f"{self.command(term.suite)} --retry-tasks".replace("` --retry-tasks", " --retry-tasks`")
            raise NoRecords(
                f"the task {task} failed in row {term.row} of suite {term.suite} ({failed[0].full}): {again}"
            )
        known = list(metrics_of(self.rows(term.suite).values()))
        never_ran = task in self._tasks.get(term.suite, ()) and not any(one.startswith(f"{task}.") for one in known)
        if term.metric not in known and not never_ran:
            near = nearest(term.metric, known)
            raise BenchError(
                f"suite {term.suite} has no metric {term.metric!r}{near}; its records have: {', '.join(known)}"
            )
        raise NoRecords(f"row {term.row} of suite {term.suite} has no {term.metric}: {self.command(term.suite)}")

    def constant(self, suite: str, row: str, path: str) -> float:
        runs = self.runs(suite, row)
        self.used |= {record["run_id"]: record for record in runs.records}
        values = [v for v in runs.values(path) if isinstance(v, int | float) and not isinstance(v, bool)]
        if not values:
            raise BenchError(f"the records of row {row} of suite {suite} have no number at {path!r}")
        return float(np.mean(values))

    def spread(self, term: Term) -> Spread | None:
        """Of the first of the claims' `spread` suites that has rows of the same text with several seeds."""
        data = str(dig(self.runs(term.suite, term.row).any_record, "data.fingerprint"))
        key = (data, term.metric)
        if key not in self._spreads:
            found = (self._spread(suite, term.metric, data) for suite in self.spread_suites)
            self._spreads[key] = next((spread for spread in found if spread is not None), None)
        return self._spreads[key]

    def _spread(self, suite: str, metric: str, data: str) -> Spread | None:
        rows = [
            found
            for found in self.rows(suite).values()
            if found.mark is None and dig(found.any_record, "data.fingerprint") == data
        ]
        by_seeds: dict[tuple[int, ...], list[Scores]] = {}
        for scores in scores_of(metric, rows).values():
            if len(scores.seeds) > 1:
                by_seeds.setdefault(scores.seeds, []).append(scores)
        if not by_seeds:
            return None
        best = max(by_seeds.values(), key=lambda group: len(group) * (len(group[0].seeds) - 1))
        return Spread.of(np.stack([scores.ratios() for scores in best]))
