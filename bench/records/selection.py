"""Selects the records of a suite that match its present configuration.

Records outlive the configuration of their suite: it was edited, or run with other values. Those of the configuration
at hand are shown where there are any, in the order that it has now, and what was left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.record import Record, dig, load_all, run_id
from bench.suites.catalog import find_suite, purpose
from patchers.errors import BenchError

if TYPE_CHECKING:
    from bench.suites.config import Suite


@dataclass(frozen=True)
class Selection:
    """Records of one suite."""

    suite: str
    records: list[Record]
    rows: tuple[str, ...] = ()
    """The rows that have records, in the order that the suite has now; none where that is not known."""

    others: int = 0
    """Records that were left out, because they are of another configuration."""

    about: str = ""
    """What the suite says of itself."""

    columns: tuple[str, ...] = ()
    """What its table shows where nothing else is asked for."""

    edited: tuple[str, ...] = ()
    """Rows that have records of other code of their plug-ins alone, or of a task's: none of what there is now."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and what is shown though it is not of the code as it is now."""
        return (*self._left_out(), *self._of_other_code())

    def _of_other_code(self) -> tuple[str, ...]:
        if not self.edited:
            return ()
        shown = {record["row"] for record in self.records}
        what = "the numbers shown are" if shown & set(self.edited) else "what was recorded of it is"
        return (
            f"The plug-in of {', '.join(self.edited)} was edited since: {what} of its other code, and kept; "
            f"`patchbench run {self.suite}` makes those of the code as it is now.",
        )

    def _left_out(self) -> tuple[str, ...]:
        if not self.others:
            return ()
        what = (
            "1 record of another configuration is"
            if self.others == 1
            else (f"{self.others} records of other configurations are")
        )
        return (f"The suite {self.suite} as it is configured now; {what} left out (--all shows them).",)


@dataclass(frozen=True)
class _Present:
    """A suite as it is configured now; nothing is known of one that cannot be loaded."""

    name: str
    about: str = ""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, suite: Suite, about: str) -> _Present:
        configs = {label: suite.run_config(label) for label in suite.labels}
        tasks = {task.name: task.identity() for task in suite.tasks}
        return cls(suite.name, about, configs, tasks, suite.columns)

    def has(self, record: Record) -> bool:
        return record["row"] in self.configs and self.configs[record["row"]] == record["config"]

    def has_but_for_code(self, record: Record) -> bool:
        """Whether the record is of the present configuration, of other code of its plug-in."""
        now = self.configs.get(record["row"])
        return now is not None and now != record["config"] and without_code(now) == without_code(record["config"])

    def asks(self, record: Record) -> bool:
        """Whether the record is of these tasks too; their data is taken from the record."""
        if record["status"] != "ok":
            return False
        domains = {name: texts["fingerprint"] for name, texts in (dig(record, "data.eval") or {}).items()}
        named = (record["row"], record["seed"], record["config"], record["data"]["fingerprint"])
        return record["run_id"] == run_id(*named, self.tasks, domains)


def select(
    results: Path,
    suite: str | Suite,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    everything: bool = False,
) -> Selection:
    """The records of a suite: itself, a path, the name of one that ships, or of a folder in `results`.

    A suite that cannot be loaded (its file is elsewhere, or wants a plug-in) has all its records shown, and so has
    one without any record of its present configuration. Raises BenchError where there are no records, and for
    overrides that the suite does not take or has no records of.
    """
    present = _load(suite, overrides, plugins) if isinstance(suite, str) else _Present.of(suite, "")
    found = load_all(results, present.name)
    if not found:
        others = ", ".join(suites_with_records(results)) or "no suite"
        raise BenchError(
            f"no records of suite {present.name!r} in {results}, which has records of: {others}; make them with "
            f"`patchbench run {present.name} --results {results}`"
        )
    current = [] if everything else _newest([record for record in found if present.has(record)], present)
    if overrides and not current and not everything:
        raise BenchError(
            f"none of the {len(found)} records of suite {present.name!r} in {results} is of {' '.join(overrides)}; "
            f"make them with `patchbench run {suite} {' '.join(overrides)} --results {results}`"
        )
    has = {record["row"] for record in current}
    edited = tuple(dict.fromkeys(r["row"] for r in found if r["row"] not in has and present.has_but_for_code(r)))
    if not current:
        return Selection(present.name, found, about=present.about, columns=present.columns, edited=edited)
    rows = tuple(label for label in present.configs if label in has)
    return Selection(present.name, current, rows, len(found) - len(current), present.about, present.columns, edited)


def without_code(config: Any) -> Any:
    """A run's config without the identities of code in it."""
    if isinstance(config, dict):
        return {key: without_code(value) for key, value in config.items() if key != "code"}
    return [without_code(value) for value in config] if isinstance(config, list) else config


def suites_with_records(results: Path) -> list[str]:
    return sorted({path.parent.parent.name for path in results.glob("*/runs/*.json")})


def _newest(records: list[Record], present: _Present) -> list[Record]:
    """Of records that differ in their tasks alone, those of the tasks that the suite has now, where it has any."""
    asked = {(record["row"], record["seed"]) for record in records if present.asks(record)}
    return [record for record in records if (record["row"], record["seed"]) not in asked or present.asks(record)]


def _load(suite: str, overrides: Sequence[str], plugins: Sequence[str]) -> _Present:
    from bench.suites.config import load_suite

    try:
        return _Present.of(load_suite(suite, overrides, plugins), purpose(find_suite(suite)))
    except BenchError:
        if overrides or plugins or Path(suite).suffix in (".yaml", ".yml"):
            raise
        return _Present(suite)
