"""Builds comparison tables from records; refuses rows that cannot be compared.

Rows that leak are marked and never ranked; a run that failed, or whose audits failed, gives its reason and no
number. Bold is the best value, and every other one that its paired difference does not show to be worse.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bench.records.comparison import (
    Equal,
    Mark,
    Runs,
    chance_of,
    check_comparable,
    control_of,
    is_control,
    metrics_of,
    rows_of,
    scores_of,
    task_failures,
    told_of,
)
from bench.records.record import ORDER, Record, dig
from bench.records.statistics import MARGIN, RESAMPLES, Bootstrap, Estimate, Scores, best_rows, verdict
from bench.reporting import footnotes
from bench.reporting.formats import FORMATS, Cell, Column, Row, Style, Table, render
from patchers.errors import BenchError
from patchers.named import nearest, unknown

__all__ = ["COLUMNS", "DEFAULT", "FORMATS", "Cell", "Column", "Comparison", "Row", "Table", "build", "render"]

# Numbers of a record, by column id: the title, how it is rounded, and where it is.
NUMBERS: dict[str, tuple[str, Style, str]] = {
    "bytes_per_patch": ("bytes/patch", "ratio", "patcher.bytes_per_patch.test"),
    "on_spaces": ("boundaries on spaces", "ratio", "patcher.test_cut.on_spaces"),
    "variation": ("variation of length", "ratio", "patcher.test_cut.variation"),
    "parameters": ("parameters", "si", "parameters.total"),
    "non_embedding": ("non-embedding", "si", "parameters.non_embedding"),
    "active": ("active", "si", "parameters.active"),
    "flops_per_byte": ("FLOPs/byte", "si", "flops.per_byte.total"),
    "paper_flops": ("FLOPs/byte, paper's formula", "si", "flops.paper_per_byte"),
    "train_flops": ("train FLOPs", "si", "flops.train"),
    "patcher_flops": ("patcher's training FLOPs", "si", "flops.patcher_training"),
    "cut_seconds": ("s to cut a MB", "number", "cost.cutting.seconds_per_megabyte"),
    "train_bytes": ("train bytes", "si", "cost.train_bytes"),
    "train_bytes_per_second": ("train bytes/s", "si", "cost.train_bytes_per_second"),
    "train_seconds": ("train seconds", "number", "cost.train_seconds"),
    "score_seconds": ("score seconds", "number", "cost.score_seconds"),
    "peak_memory": ("peak memory", "si", "cost.peak_memory_bytes"),
    "decode_rate": ("bytes/s written", "si", "tasks.speed.values.decode_bytes_per_second"),
    "prefill_rate": ("bytes/s read", "si", "tasks.speed.values.prefill_bytes_per_second"),
    "step_ms_p50": ("ms a step, median", "number", "tasks.speed.values.step_ms_p50"),
    "step_ms_p90": ("ms a step, p90", "number", "tasks.speed.values.step_ms_p90"),
    "step_ms_p99": ("ms a step, p99", "number", "tasks.speed.values.step_ms_p99"),
    "speed_memory": ("memory while writing", "si", "tasks.speed.values.peak_memory_bytes"),
    "flag_bits_share": ("bits on flags", "bits", "tasks.bpb.values.flag_bits_share"),
    "latent_gain": ("latent gain", "bits", "tasks.bpb.values.latent_gain"),
    "kraft": ("highest sum of next bytes", "ratio", "audits.kraft_next.values.high"),
}
# Words of a record: the title, and where they are.
WORDS: dict[str, tuple[str, str]] = {
    "model": ("model", "config.model.kind"),
    "patcher": ("patcher", "patcher.name"),
    "price": ("price", "patcher.priced"),
    "match": ("match", "config.match"),
}
Against = Literal["value", "difference", "verdict", "worth", "worth_at_flops"]
SUFFIXES: tuple[Against, ...] = ("difference", "verdict", "worth", "worth_at_flops")
WORTH: dict[Against, Equal] = {"worth": "bytes", "worth_at_flops": "flops"}
"""Against a row without patches, and what is equal between the two."""
# Metrics by their short names. Any other is TASK.METRIC; .difference or .verdict is against the reference row, .worth
# and .worth_at_flops against the row without patches.
METRICS: dict[str, tuple[str, Against]] = {
    "bpb": ("bpb.bpb", "value"),
    "bpc": ("bpb.bpc", "value"),
    "difference": ("bpb.bpb", "difference"),
    "verdict": ("bpb.bpb", "verdict"),
    "worth": ("bpb.bpb", "worth"),
    "worth_at_flops": ("bpb.bpb", "worth_at_flops"),
}
DEFAULT = (
    *("row", "bytes_per_patch", "bpb", "bpc", "worth", "worth_at_flops", "difference", "parameters", "non_embedding"),
    *("flops_per_byte", "train_flops", "train_bytes_per_second", "seeds", "flags"),
)
COLUMNS = tuple(dict.fromkeys((*DEFAULT, *METRICS, *NUMBERS, *WORDS)))
MARGINS = {"bits/byte": MARGIN}  # by unit; elsewhere nothing was fixed beforehand, and ties are the interval's


def build(
    records: Iterable[Record],
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    reference: str | None = None,
    sort: str | None = None,
    *,
    group: str | None = None,
    preferred: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Table:
    """The table of these records.

    `rows` and `columns` choose and order (by default all rows in the suite's order, and of DEFAULT what they have).
    Columns are those of COLUMNS, `TASK.METRIC` with or without one of SUFFIXES, and the dotted path of any number in a
    record, such as `flops.per_byte.latent`. `reference` is the row that differences are taken to, by default the first
    with a number that does not leak. `sort` is a column, with `-` before it for the largest first.
    `group` puts together the rows that have the same words in a column (`model`, `patcher`, `match`, ...).

    `preferred` are the columns that a suite wants instead of DEFAULT; those that no row has a number for are left out.

    Raises BenchError for unknown names, and where rows cannot be compared, naming the field that differs.
    """
    compared = Comparison(records, rows, reference, resamples=resamples)
    return compared.table(columns or compared.with_numbers(preferred), sort, group=group)


def check_columns(names: Iterable[str], tasks: Container[str]) -> None:
    """Raises BenchError for a name that no record of these tasks can have anything for, whatever its runs find."""
    for name in names:
        first, dot, _ = name.partition(".")
        if name not in COLUMNS and not (dot and (first in tasks or first in ORDER)):
            there = f"{', '.join(COLUMNS)}, and TASK.METRIC of the suite's tasks"
            raise BenchError(f"unknown column {name!r}{nearest(name, list(COLUMNS))}; there are: {there}")


@dataclass(frozen=True)
class _Maker:
    """A column and what fills it; `metric` and `against` where it shows a metric."""

    column: Column
    cell: Callable[[str], Cell]
    metric: str | None = None
    against: Against = "value"


class Comparison:
    """Which rows are compared, and all that is computed from their records once, for any number of tables."""

    def __init__(
        self,
        records: Iterable[Record],
        rows: Sequence[str] | None = None,
        reference: str | None = None,
        *,
        resamples: int = RESAMPLES,
    ) -> None:
        """Raises BenchError as `build` does."""
        records = list(records)
        if not records:
            raise BenchError("there are no records to make a table of; make some with `patchbench run SUITE`")
        self.runs = rows_of(records)
        self.resamples = resamples
        self.shown = [self._known(label) for label in dict.fromkeys(rows or self.runs)]
        self.used = list(dict.fromkeys([*self.shown, *([self._known(reference)] if reference else [])]))
        self.records = [record for label in self.used for record in self.runs[label].records]
        check_comparable(self.records)
        self.metrics = metrics_of(self.runs[label] for label in self.used)
        self._scores: dict[str, dict[str, Scores]] = {}
        self._bootstraps: dict[str, Bootstrap] = {}
        self._worths: dict[tuple[str, str, str], Estimate | None] = {}
        if reference and not self.runs[reference].records:
            why = self.runs[reference].failures[0].full
            raise BenchError(
                f"row {reference!r} has no number to take differences to ({why}); choose another reference"
            )
        order: tuple[Mark | None, ...] = (None, "leaky", "pretrained")
        with_numbers = [label for mark in order for label in self.shown if self.runs[label].mark == mark]
        self.reference = reference or next(iter(with_numbers), None)

    def table(
        self, columns: Sequence[str] | None = None, sort: str | None = None, *, group: str | None = None
    ) -> Table:
        """As `build` makes it."""
        chosen = self.columns(columns)
        cells = {label: [maker.cell(label) for maker in chosen] for label in self.shown}
        for place, maker in enumerate(chosen):
            for label in self.best(maker):
                cells[label][place] = replace(cells[label][place], best=True)
        out = [Row(label, tuple(cells[label]), None, self.runs[label].mark) for label in self.shown]
        if sort is not None:
            out = _sorted(out, self.column(sort.removeprefix("-")), descending=sort.startswith("-"))
        if group is not None:
            out = _grouped(out, self.column(group))
        return Table(tuple(maker.column for maker in chosen), tuple(out), tuple(self.notes(chosen)))

    def with_numbers(self, columns: Sequence[str]) -> list[str]:
        """Of these columns, those that some row has something for: a task may have failed in all of them."""
        out = []
        for name in columns:
            with suppress(BenchError):
                out.append(self.column(name).column.id)
        return out

    def _known(self, label: str) -> str:
        if label not in self.runs:
            raise unknown("row", label, self.runs)
        return label

    # --- numbers of metrics

    def scores(self, metric: str) -> dict[str, Scores]:
        if metric not in self._scores:
            self._scores[metric] = scores_of(metric, [self.runs[label] for label in self.used])
        return self._scores[metric]

    def bootstrap(self, metric: str) -> Bootstrap:
        if metric not in self._bootstraps:
            self._bootstraps[metric] = Bootstrap(self.scores(metric), resamples=self.resamples)
        return self._bootstraps[metric]

    def margin(self, metric: str) -> float:
        return MARGINS.get(self.metrics[metric].get("unit", ""), 0.0)

    def difference(self, metric: str, label: str) -> Estimate | None:
        has = self.scores(metric)
        if self.reference is None or label not in has or self.reference not in has:
            return None
        if self.runs[label].pretrained != self.runs[self.reference].pretrained:
            return None  # what one was trained on and with how much is not known, so there is nothing to lay it to
        return self.bootstrap(metric).difference(label, self.reference)

    def best(self, maker: _Maker) -> list[str]:
        """The rows whose cell in this column is in bold, of trained rows and of pretrained ones. Leaky rows are not
        asked; nor is a row that is alone."""
        if maker.metric is None or maker.against != "value":
            return []
        return [*self._best(maker.metric, None), *self._best(maker.metric, "pretrained")]

    def _best(self, metric: str, mark: Mark | None) -> list[str]:
        has = self.scores(metric)
        ranked = [label for label in self.shown if self.runs[label].mark == mark and label in has]
        lower = self.metrics[metric]["lower_is_better"]
        best = best_rows(self.bootstrap(metric), ranked, margin=self.margin(metric), lower_is_better=lower)
        return best if len(ranked) > 1 else []

    # --- columns

    def columns(self, names: Sequence[str] | None) -> list[_Maker]:
        has = {
            name
            for name, (metric, against) in METRICS.items()
            if metric in self.metrics and (against not in WORTH or self._has_controls(WORTH[against]))
        }
        default = [name for name in DEFAULT if name not in METRICS or name in has]
        chosen = list(dict.fromkeys(["row", *names] if names and "row" not in names else names or default))
        runs = [self.runs[label] for label in self.shown]
        if "flags" not in chosen and any(one.mark or task_failures(one) for one in runs):
            chosen.append("flags")  # who leaks and what failed cannot be chosen away
        return [self.column(name) for name in chosen]

    def _has_controls(self, equal: Equal) -> bool:
        """Whether a row has another without patches that says what its patches are worth."""
        return any(control_of(label, self.runs, equal) not in (None, label) for label in self.shown)

    def column(self, name: str) -> _Maker:
        metric, against = METRICS.get(name, (name, "value"))
        for suffix in SUFFIXES:
            if name.endswith(f".{suffix}"):
                metric, against = name.removesuffix(f".{suffix}"), suffix
        if metric in self.metrics:
            return self._metric_column(name, metric, against)
        if name == "row":
            return _Maker(Column("row", "row", "text"), Cell)
        if name == "seeds":
            return _Maker(Column("seeds", "seeds", "count"), self._seeds)
        if name == "flags":
            return _Maker(Column("flags", "flags", "text"), lambda label: _text(_flags(self.runs[label])))
        if name in WORDS:
            title, path = WORDS[name]
            return _Maker(Column(name, title, "text"), lambda label: _text([dig(self.runs[label].any_record, path)]))
        title, style, path = NUMBERS.get(name, (name, "number", name))
        if name in NUMBERS or any(_numbers(self.runs[label].values(path)) for label in self.used):
            return _Maker(Column(name, title, style), lambda label: _mean(self.runs[label].values(path)))
        if name in METRICS:
            raise BenchError(f"none of the rows has a number for column {name!r}; choose other rows or columns")
        names = [*COLUMNS, *(m for m in self.metrics if m not in ("bpb.bpb", "bpb.bpc"))]
        raise unknown("column", name, names)

    def _metric_column(self, name: str, metric: str, against: Against) -> _Maker:
        short = {"bpb.bpb": "bpb", "bpb.bpc": "bpc"}.get(metric, metric)
        about = "" if short == "bpb" else f" of {short}"
        if against == "verdict":
            column = Column(name, f"verdict{about}", "text")
            return _Maker(column, lambda label: self._verdict(metric, label), metric, against)
        if against in WORTH:
            at = {"bytes": "equal bytes", "flops": "equal training FLOPs"}[WORTH[against]]
            column = Column(name, f"worth{about} at {at}", "signed", interval=True)
            return _Maker(column, lambda label: self._worth(metric, label, WORTH[against]), metric, against)
        if against == "difference":
            column = Column(name, f"difference{about} to {self.reference}", "signed", interval=True)
            return _Maker(column, lambda label: self._difference(metric, label), metric, against)
        return _Maker(Column(name, short, "bits", interval=True), lambda label: self._value(metric, label), metric)

    def _value(self, metric: str, label: str) -> Cell:
        return Cell.of(self.bootstrap(metric).estimate(label) if label in self.scores(metric) else None)

    def _difference(self, metric: str, label: str) -> Cell:
        difference = self.difference(metric, label)
        return Cell(0.0, text="reference") if difference and label == self.reference else Cell.of(difference)

    def _worth(self, metric: str, label: str, equal: Equal) -> Cell:
        control = control_of(label, self.runs, equal)
        if control == label or (control is None and is_control(self.runs[label].any_record)):
            return Cell(0.0, text="control")
        return Cell() if control is None else Cell.of(self.worth(metric, label, control))

    def worth(self, metric: str, label: str, control: str) -> Estimate | None:
        """What the row's patches gain over the control (positive: the row is better), paired by document and seed."""
        if (metric, label, control) not in self._worths:
            both = [self.runs[label], self.runs[control]]
            check_comparable([record for runs in both for record in runs.records])
            has = scores_of(metric, both)
            shared = len(has) == 2 and set(has[label].seeds) & set(has[control].seeds)
            lower = self.metrics[metric]["lower_is_better"]
            pair = (control, label) if lower else (label, control)
            found = Bootstrap(has, resamples=self.resamples).difference(*pair) if shared else None
            self._worths[metric, label, control] = found
        return self._worths[metric, label, control]

    def _verdict(self, metric: str, label: str) -> Cell:
        difference = self.difference(metric, label)
        if difference is None or (self.runs[label].leaky and label != self.reference):
            return Cell()
        lower = self.metrics[metric]["lower_is_better"]
        said = verdict(difference, margin=self.margin(metric), lower_is_better=lower)
        return Cell("reference" if label == self.reference else said)

    def _seeds(self, label: str) -> Cell:
        count, failed = len(self.runs[label].records), len(self.runs[label].failures)
        return Cell(count, text=f"{count} of {count + failed}" if failed else None)

    # --- notes

    def notes(self, chosen: list[_Maker]) -> list[str]:
        """What a reader must know to read the numbers that are shown."""
        runs = [self.runs[label] for label in self.used]
        ids = {maker.column.id for maker in chosen}
        metrics = {maker.metric: maker.against for maker in chosen if maker.metric is not None}
        kinds = {maker.against for maker in chosen if maker.metric is not None}
        margins = ", ".join(f"{value:g} {unit}" for unit, value in MARGINS.items())
        notes = footnotes.what_was_run(self.records)
        if "bpb.bpb" in metrics:
            notes.append(f"{footnotes.BPB}{f'; {footnotes.BPC}' if 'bpb.bpc' in metrics else ''}.")
        if kinds & {"value", "difference"} and self.records:
            notes.append(footnotes.intervals(runs, self.resamples))
        if kinds & {"difference", "verdict"}:
            notes.append(f"Difference: row minus {self.reference}, paired by document and by seed.")
        for against in [against for against in WORTH if against in kinds]:
            notes += self._worth_notes(WORTH[against])
        if "verdict" in kinds:
            notes.append(f"{footnotes.VERDICT}: {margins}.")
        if any(self.best(maker) for maker in chosen):
            notes.append(f"{footnotes.BOLD} (fixed beforehand: {margins}).")
        if any("flops" in name for name in ids):
            notes.append(footnotes.FLOPS)
        if "paper_flops" in ids:
            notes.append(footnotes.PAPER)
        for row in runs:
            notes += [f"{row.label}: {doubt}." for doubt in dict.fromkeys(row.values("cost.cutting.doubt"))]
        notes += footnotes.at_chance(self._at_chance(chosen))
        notes += [footnotes.untrained(metric, rows) for metric, rows in self._not_learnt(chosen).items()]
        notes += [footnotes.lossy(row) for row in runs if any(row.values("patcher.losses.changed_share"))]
        if leaky := [row.label for row in runs if row.leaky]:
            notes.append(f"Leaky: {', '.join(leaky)}. {footnotes.LEAKY}")
        if any(row.values("patcher.priced") for row in runs):
            notes.append(footnotes.PRICED)
        notes += footnotes.pretrained(runs)
        if "latent_gain" in ids:
            notes.append(footnotes.LATENT_GAIN)
        notes += footnotes.told(runs)
        notes += [note for row in runs for note in footnotes.without_number(row.label, row.failures)]
        for row in runs:
            for task, failures in task_failures(row).items():
                notes += footnotes.without_number(row.label, failures, f"result of the task {task}")
        if unaudited := [row.label for row in runs if any(not r.get("audits") for r in row.records)]:
            notes.append(f"Not audited: {', '.join(unaudited)}.")
        return notes

    def _at_chance(self, chosen: list[_Maker]) -> dict[str, tuple[float, list[str], bool]]:
        """Of the metrics shown with a known chance: it, the rows that are not told from it, and whether all are so."""
        found = {}
        for metric in dict.fromkeys(m.metric for m in chosen if m.metric is not None and m.against == "value"):
            chance = chance_of(metric, self.metrics[metric])
            if chance is None:
                continue
            has = [label for label in self.shown if label in self.scores(metric)]
            at = [label for label in has if not self.bootstrap(metric).estimate(label).low > chance]
            found[metric] = (chance, at, len(at) == len(has))
        return found

    def _not_learnt(self, chosen: list[_Maker]) -> dict[str, list[str]]:
        """Of the metrics shown that untrained models were asked too, the rows that are not shown to be above them."""
        found: dict[str, list[str]] = {}
        for metric in dict.fromkeys(m.metric for m in chosen if m.metric is not None and m.against == "value"):
            task, _, name = metric.partition(".")
            twin = f"{task}.untrained_{name}"
            if twin not in self.metrics:
                continue
            before = self.scores(twin)
            for label, scores in self.scores(metric).items():
                pair = {"trained": scores, "untrained": before[label]} if label in before else {}
                gain = Bootstrap(pair, resamples=self.resamples).difference("trained", "untrained") if pair else None
                if label in self.shown and gain is not None and not gain.low > 0:
                    found.setdefault(metric, []).append(label)
        return found

    def _worth_notes(self, equal: Equal) -> list[str]:
        """Which control says what which rows are worth."""
        by: dict[str, list[str]] = {}
        for label in self.shown:
            control = control_of(label, self.runs, equal)
            if control is not None and control != label:
                by.setdefault(control, []).append(label)
        controls = [(self.runs[control], labels) for control, labels in by.items()]
        return [footnotes.worth(controls, equal)] if controls else []


# --- cells


def _flags(runs: Runs) -> list[str]:
    flags = ["leaky"] if runs.leaky else ["pretrained"] if runs.pretrained else []
    flags += ["not lossless"] * (False in runs.values("pretrained.vocabulary.lossless"))
    flags += ["short context"] * any(runs.values("pretrained.test.short_windows"))
    flags += [f"priced ({price})" for price in dict.fromkeys(runs.values("patcher.priced"))]
    told = dict.fromkeys(told_of(record) for record in runs.records)
    if any(runs.values("patcher.losses.changed_share")):
        flags.append("not lossless")
    if runs.values("cost.cutting.doubt"):
        flags.append("cost not verified")
    flags += [f"told: {what}" for what in told if what not in (None, "none")]
    if runs.mark == "failed":
        return [*flags, f"failed: {runs.failures[0].short}"]
    if runs.failures:
        flags.append(f"{len(runs.failures)} of {len(runs.failures) + len(runs.records)} seeds failed")
    return flags + [f"task {task} failed" for task in task_failures(runs)]


def _text(words: Sequence[Any]) -> Cell:
    text = ", ".join(str(word) for word in words if word is not None)
    return Cell(text or None, text=None if text else "")


def _numbers(values: Iterable[Any]) -> list[int | float]:
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _mean(values: Iterable[Any]) -> Cell:
    """The mean over seeds; the value itself, exact, where all have the same."""
    numbers = _numbers(values)
    if not numbers:
        return Cell()
    return Cell(numbers[0] if len(set(numbers)) == 1 else float(np.mean(numbers)))


# --- rows


def _sorted(rows: list[Row], maker: _Maker, descending: bool) -> list[Row]:
    """By a column; then what has nothing there, then pretrained rows by the column, then leaky ones, which are not
    ranked, then failed ones."""
    values: dict[str, Any] = {row.label: maker.cell(row.label).value for row in rows}
    ranked = [row for row in rows if row.marked in (None, "pretrained") and values[row.label] is not None]
    ranked.sort(key=lambda row: values[row.label], reverse=descending)
    rest = [row for row in rows if row not in ranked]
    return sorted(ranked + rest, key=lambda row: (None, "pretrained", "leaky", "failed").index(row.marked))


def _grouped(rows: list[Row], maker: _Maker) -> list[Row]:
    names = {row.label: str(maker.cell(row.label).value or "other") for row in rows}
    order = list(dict.fromkeys(names.values()))
    return sorted((replace(row, group=names[row.label]) for row in rows), key=lambda row: order.index(row.group or ""))
