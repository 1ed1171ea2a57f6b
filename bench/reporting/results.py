"""The records of a suite as Python has them: data frames, tables, plots."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.records.record import Record
from bench.records.selection import Selection
from bench.records.statistics import Bootstrap, Estimate, Scores, verdict
from bench.reporting.formats import Table, hypertext, render
from bench.reporting.table import Comparison
from patchers.errors import BenchError
from patchers.named import nearest

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

ABOUT = ("suite", "row", "seed", "run_id", "status")
PARTS = ("patcher", "parameters", "flops", "cost", "matched", "config", "data", "environment")
"""What of a record goes into the frame as it is, key by dotted key."""


@dataclass(frozen=True, repr=False)
class Results:
    """The records of one suite. A notebook shows it as the table that `patchbench table` prints.

    Row labels and columns are those of that command; bits are per raw byte, FLOPs forward per byte (a multiply-add is
    two), seconds and bytes as measured. Every method raises BenchError for names that are not there, and where rows
    cannot be compared.
    """

    selection: Selection

    @property
    def suite(self) -> str:
        """Its name."""
        return self.selection.suite

    @property
    def records(self) -> list[Record]:
        """All records as JSON has them: one for each row and seed, failed ones too."""
        return self.selection.records

    def __len__(self) -> int:
        return len(self.records)

    def frame(self, intervals: bool = True) -> pandas.DataFrame:
        """One row a record.

        Columns: `suite`, `row`, `seed`, `run_id`, `status`, `error` (None where there is none); every metric as
        `TASK.METRIC`, with the ends of its 95 % bootstrap interval over documents in `TASK.METRIC_low` and `_high`
        unless `intervals` is false; single values of tasks as `TASK.NAME`; and what else the record says, by dotted
        key: `cost.train_seconds`, `flops.per_byte.total`, `config.train.lr`, ...
        """
        import pandas

        bounds = self._intervals() if intervals else {}
        return pandas.DataFrame([self._line(record, bounds) for record in self.records])

    def documents(self, metric: str = "bpb.bpb") -> pandas.DataFrame:
        """The sums that a metric is a ratio of: a line for each row, seed and document.

        Columns: `row`, `seed`, `document` (the start of its SHA-256), `total`, `count` and `value`, which is total /
        count. For `bpb.bpb` the total is bits and the count raw bytes; the metric is sum(total) / sum(count).
        """
        import pandas

        self._known(metric)
        lines = [
            {"row": r["row"], "seed": r["seed"], "document": name, "total": total, "count": count}
            for r in self.records
            for name, total, count in (_metrics(r).get(metric) or {"documents": ()})["documents"]
        ]
        frame = pandas.DataFrame(lines, columns=["row", "seed", "document", "total", "count"])
        return frame.assign(value=frame["total"] / frame["count"])

    def compare(
        self, reference: str | None = None, metric: str = "bpb.bpb", rows: Sequence[str] | None = None
    ) -> pandas.DataFrame:
        """Each row's value and its paired difference to the reference, by default the first row with a number.

        Indexed by row. Columns: `seeds`, `value`, `low`, `high` (95 %: bootstrap over documents, Student's t over
        seeds), `difference` (row minus reference, paired by document and seed), `difference_low`, `difference_high`
        and `verdict`: reference, better, worse, tie (within the margin) or undecided. A row without a number has none.
        """
        import pandas

        compared = self.comparison(reference, rows)
        self._known(metric, compared)
        lower, margin = compared.metrics[metric]["lower_is_better"], compared.margin(metric)
        lines = {}
        for label in compared.shown:
            has = label in compared.scores(metric)
            value = compared.bootstrap(metric).estimate(label) if has else _NONE
            gap = compared.difference(metric, label) or _NONE
            said = verdict(gap, margin=margin, lower_is_better=lower) if not math.isnan(gap.value) else None
            lines[label] = {
                "seeds": len(compared.runs[label].records),
                **{"value": value.value, "low": value.low, "high": value.high},
                **{"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high},
                "verdict": "reference" if label == compared.reference else said,
            }
        return pandas.DataFrame.from_dict(lines, orient="index").rename_axis("row")

    def table(
        self,
        format: str = "terminal",
        *,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        reference: str | None = None,
        sort: str | None = None,
        group: str | None = None,
    ) -> str:
        """The table of `patchbench table` as text: terminal, md, latex, csv, html or json."""
        return render(self.built(rows=rows, columns=columns, reference=reference, sort=sort, group=group), format)

    def plot(
        self, kind: str = "differences", *, rows: Sequence[str] | None = None, reference: str | None = None
    ) -> Figure:
        """A picture of `patchbench plot`, as a figure of matplotlib; `patchbench plot SUITE` lists the kinds."""
        from bench.reporting.plots.catalog import plot
        from bench.reporting.plots.style import as_png

        figure = plot(self.comparison(reference, rows), kind)
        # By which a notebook shows it; matplotlib's own way is for figures of pyplot, which this is not.
        setattr(figure, "_repr_png_", functools.partial(as_png, figure))  # noqa: B010
        return figure

    def comparison(self, reference: str | None = None, rows: Sequence[str] | None = None) -> Comparison:
        """What tables and plots are made from, computed once."""
        return Comparison(self.records, rows or self.selection.rows, reference)

    def built(
        self,
        *,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        reference: str | None = None,
        sort: str | None = None,
        group: str | None = None,
    ) -> Table:
        """The table with its cells as numbers; notes say what was left out."""
        compared = self.comparison(reference, rows)
        wanted = columns or compared.with_numbers(self.selection.columns)
        made = compared.table(wanted, sort, group=group)
        return dataclasses.replace(made, notes=(*self.selection.notes, *made.notes))

    def __repr__(self) -> str:
        failed = sum(record["status"] != "ok" for record in self.records)
        return f"<{self.suite}: {len(self)} records{f', {failed} of them failed' if failed else ''}>"

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return hypertext(self.built())

    # --- the frame

    def _line(self, record: Record, bounds: Mapping[tuple[str, str], Estimate]) -> dict[str, Any]:
        error = record.get("error")
        line: dict[str, Any] = {name: record[name] for name in ABOUT}
        line["error"] = None if error is None else f"{error['kind']}: {error['message']}"
        for name, metric in _metrics(record).items():
            documents = metric["documents"]
            line[name] = sum(d[1] for d in documents) / sum(d[2] for d in documents)
            if (record["run_id"], name) in bounds:
                found = bounds[record["run_id"], name]
                line[f"{name}_low"], line[f"{name}_high"] = found.low, found.high
        for task, outcome in (record.get("tasks") or {}).items():
            line.update({f"{task}.{name}": value for name, value in outcome.get("values", {}).items()})
        for part in PARTS:
            line.update(_flat(part, record.get(part)))
        return line

    def _intervals(self) -> dict[tuple[str, str], Estimate]:
        """Of each metric of each record, by itself: over documents alone, since one record is of one seed."""
        found = {}
        for metric in {name for record in self.records for name in _metrics(record)}:
            by_size: dict[int, dict[str, Scores]] = {}  # a bootstrap is of rows with equally many documents
            for record in self.records:
                entry = _metrics(record).get(metric)
                if entry is not None:
                    sums = np.array([d[1:] for d in sorted(entry["documents"], key=lambda d: str(d[0]))], float)
                    scores = Scores((record["seed"],), sums[None, :, 0], sums[None, :, 1])
                    by_size.setdefault(len(sums), {})[record["run_id"]] = scores
            for rows in by_size.values():
                bootstrap = Bootstrap(rows)
                found.update({(run_id, metric): bootstrap.estimate(run_id) for run_id in rows})
        return found

    def _known(self, metric: str, compared: Comparison | None = None) -> None:
        there = compared.metrics if compared is not None else {m: None for r in self.records for m in _metrics(r)}
        if metric not in there:
            near = nearest(metric, list(there))
            raise BenchError(f"no record has a metric {metric!r}{near}; there are: {', '.join(there) or 'none'}")


_NONE = Estimate(math.nan, math.nan, math.nan)


def _metrics(record: Record) -> dict[str, Any]:
    """`TASK.METRIC` -> its entry, of one record."""
    tasks = (record.get("tasks") or {}).items()
    return {f"{task}.{name}": metric for task, said in tasks for name, metric in said.get("metrics", {}).items()}


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves below a value, by dotted path; lists are leaves."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}", item)
    elif value is not None:
        yield path, value
