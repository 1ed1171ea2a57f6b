"""Groups records into comparable rows: seeds, failures, controls, and checks that rows may be compared.

A row of a table is a row of a suite over all its seeds. A run that failed, or whose audits failed, has a reason
in place of a number. Leaky rows are exempt from the audits (they are the marked exception, and fail by design).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.records.record import NOT_POSSIBLE, Record, dig, is_pretrained
from bench.records.statistics import Scores
from patchers.errors import BenchError

# What must be the same in all rows of a table and in all seeds of a row; the versions of their tasks as well.
COMPARABLE = (
    *("data.fingerprint", "data.splits.train.fingerprint", "data.splits.calibration.fingerprint"),
    *("data.splits.test.fingerprint", "config.train.window"),
)

# And where both have them: how the tasks were set, and the further texts that they were asked about.
ASKED = (("tasks", "options"), ("data.eval", "fingerprint"))


Mark = Literal["leaky", "pretrained", "failed"]


@dataclass(frozen=True)
class Failure:
    """Why a run has no number."""

    seed: int
    short: str
    full: str


@dataclass(frozen=True)
class Runs:
    """All runs of one row: those with numbers, by seed, and why the others have none."""

    label: str
    records: list[Record]
    failures: list[Failure]
    any_record: Record  # one with numbers where there is one

    @property
    def leaky(self) -> bool:
        return is_leaky(self.any_record)

    @property
    def pretrained(self) -> bool:
        return is_pretrained(self.any_record)

    @property
    def mark(self) -> Mark | None:
        """Why it is not ranked among the trained rows; pretrained ones are among themselves."""
        if not self.records:
            return "failed"
        return "leaky" if self.leaky else "pretrained" if self.pretrained else None

    @property
    def seeds(self) -> list[int]:
        return [record["seed"] for record in self.records]

    def values(self, path: str) -> list[Any]:
        """What stands at a dotted path, over the seeds that have something there."""
        return [value for value in (dig(record, path) for record in self.records) if value is not None]


def rows_of(records: Iterable[Record]) -> dict[str, Runs]:
    """The records by row, in the suite's order. Raises BenchError where a row's records are not of one row."""
    by_row: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.get("row_index", math.inf)):
        by_row.setdefault(record["row"], []).append(record)
    return {label: _runs(label, found) for label, found in by_row.items()}


def is_leaky(record: Record) -> bool:
    return bool(dig(record, "config.leaky") or dig(record, "patcher.leaky"))


def told_of(record: Record) -> str | None:
    """What a harness's local model was told of the cut; None for other models. All were told the prefix before there
    was a choice."""
    if dig(record, "config.model.kind") != "harness":
        return None
    return str(dig(record, "config.model.boundary_inputs") or "prefix")


def swept_row(record: Record) -> str | None:
    """The row of the suite that a row of a sweep is made of, and what else was swept; None without a sweep."""
    sweep = dig(record, "config.sweep")
    if not sweep:
        return None
    others = (sweep.get("others") or {}).items()
    return str(sweep["row"]) + "".join(f" {key}={value:g}" for key, value in others)


BPB = "bpb.bpb"
"""The metric that rows are ordered by where nothing else is said."""

Equal = Literal["bytes", "flops"]
"""What a control and a row have in common: the bytes that they were trained on, or their training FLOPs."""

SAME_BYTES = 0.01
AT_LEAST, AT_MOST = 0.99, 1.1
"""Training FLOPs of a control over those of the row that it is the control of."""


def is_control(record: Record) -> bool:
    """Whether it is of a harness without patches: no latent step after the first."""
    return dig(record, "config.model.kind") == "harness" and dig(record, "patcher.name") == "none"


def control_of(label: str, rows: Mapping[str, Runs], equal: Equal) -> str | None:
    """The row without patches that says what this row's patches are worth (DESIGN section 5); None without one.

    At equal bytes: the one with the same local model. At equal training FLOPs: of those that have spent as much as the
    row at least (their local model has grown, or they have read more bytes) and have as many lookup tables, which cost
    no FLOPs, the one with the fewest bits per byte, since a worse one than there is would flatter the row; None for
    rows that are controls.
    """
    own = rows[label].any_record
    if not rows[label].records or dig(own, "config.model.kind") != "harness":
        return None
    found: dict[str, float] = {}
    for other, runs in rows.items():
        if not runs.records or not is_control(runs.any_record):
            continue
        if equal == "bytes":
            ratio = dig(runs.any_record, "cost.train_bytes") / dig(own, "cost.train_bytes")
            grown = dig(runs.any_record, "config.grow_to") is not None
            same = _values(runs.any_record, OF_CONTROL) == _values(own, OF_CONTROL)
            if not grown and abs(ratio - 1) <= SAME_BYTES and same:
                found[other] = abs(ratio - 1)
        else:
            ratio = dig(runs.any_record, "flops.train") / dig(own, "flops.train")
            same_tables = _values(runs.any_record, OF_TABLES) == _values(own, OF_TABLES)
            if not is_control(own) and same_tables and AT_LEAST <= ratio <= AT_MOST:
                scores = scores_of(BPB, [runs]).get(other)
                found[other] = math.inf if scores is None else float(scores.ratios().mean())
    return min(found, key=lambda other: found[other], default=None)


OF_TABLES = ("ngrams", "ngram_rows")
OF_LOCAL_MODEL = ("local_width", "local_heads", "local_window", "local_hidden", "encoder_layers", "decoder_layers")
OF_CONTROL = (*OF_LOCAL_MODEL, *OF_TABLES, "byte_std", "ngram_std")
"""What a control has in common with a row, but for what they are told."""


def _values(record: Record, names: Sequence[str]) -> list[Any]:
    return [dig(record, f"config.model.{name}") for name in names]


def _runs(label: str, records: list[Record]) -> Runs:
    records = sorted(records, key=lambda r: (r["seed"], r["run_id"]))
    done: dict[int, Record] = {}
    for record in records:
        if record["status"] == "ok" and record is not done.setdefault(record["seed"], record):
            other = done[record["seed"]]
            raise BenchError(
                f"row {label!r} has two records of seed {record['seed']}, {other['run_id']} and {record['run_id']}, "
                f"that differ in {_what_differs(other, record)}: a table shows one of them; move the other away, or "
                "give each a suite name or a row of its own"
            )
    good: list[Record] = []
    failures: list[Failure] = []
    for record in records:
        failure = _failure(record)
        if failure is None:
            good.append(record)
        elif record["status"] == "ok" or record["seed"] not in done:  # else it was mended since
            failures.append(failure)
    for record in good[1:]:
        field = difference_at(good[0]["config"], record["config"])
        if field is not None:
            raise BenchError(
                f"the seeds of row {label!r} do not belong together: config.{field} is "
                f"{dig(good[0]['config'], field)!r} at seed {good[0]['seed']} and {dig(record['config'], field)!r} at "
                f"seed {record['seed']}; run the row again at one of the two"
            )
    return Runs(label, good, failures, (good or records)[0])


def _failure(record: Record) -> Failure | None:
    if record["status"] == "failed":
        return _reason(record["seed"], record["error"])
    for name, audit in {} if is_leaky(record) else (record.get("audits") or {}).items():
        if not audit.get("passed"):
            detail = shortened(str(audit.get("detail", "")))
            return Failure(record["seed"], f"{name} audit", f"the {name} audit failed: {detail}")
    return None


def task_failures(runs: Runs) -> dict[str, list[Failure]]:
    """Why runs that have numbers have none of a task, by task. One that a model cannot be asked has not failed."""
    found: dict[str, list[Failure]] = {}
    for record in runs.records:
        for task, outcome in record["tasks"].items():
            error = outcome.get("error")
            if error is not None and error["kind"] != NOT_POSSIBLE:
                found.setdefault(task, []).append(_reason(record["seed"], error))
    return found


def _reason(seed: int, error: Mapping[str, Any]) -> Failure:
    message = shortened(error["message"])
    if error["kind"] == "BenchError":  # its message is made for people
        return Failure(seed, shortened(message, 40), message)
    short = error["kind"] if error.get("step") is None else f"{error['kind']} at step {error['step']}"
    return Failure(seed, short, f"{short}: {message}")


def shortened(text: str, limit: int = 240) -> str:
    """On one line, and not for ever."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# --- what differs


def check_comparable(records: Sequence[Record]) -> None:
    """Raise a BenchError that names the first field in which two of the records differ and must not."""
    for record in records[1:]:
        first = records[0]
        fields = [(path, dig(first, path), dig(record, path)) for path in COMPARABLE]
        a, b = _versions(first), _versions(record)
        fields += [(f"tasks.{task}.version", a[task], b[task]) for task in a if task in b]
        fields += [field for group, key in ASKED for field in _in_both(first, record, group, key)]
        for path, one, other in fields:
            if one != other:
                raise BenchError(
                    f"rows {_name(first)} and {_name(record)} cannot be compared: {path} is {shortened(str(one), 16)} "
                    f"in the first and {shortened(str(other), 16)} in the second; choose rows that agree with --rows, "
                    "or run the others again"
                )


def _in_both(a: Record, b: Record, group: str, key: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, one, other) of what both records have at GROUP.NAME.KEY, for any name."""
    one, other = dig(a, group) or {}, dig(b, group) or {}
    for name in one:
        if key in one[name] and key in other.get(name, {}):
            differs = difference_at(one[name][key], other[name][key])
            path = f"{group}.{name}.{key}" + (f".{differs}" if differs else "")
            yield path, dig(a, path), dig(b, path)


def _name(record: Record) -> str:
    return f"{record['row']!r} (seed {record['seed']})"


def _versions(record: Record) -> dict[str, int]:
    return {task: outcome["version"] for task, outcome in (record.get("tasks") or {}).items()}


def _what_differs(a: Record, b: Record) -> str:
    field = difference_at(a["config"], b["config"])
    if field is not None:
        return f"config.{field}"
    for path in COMPARABLE:
        if dig(a, path) != dig(b, path):
            return path
    task = difference_at(_versions(a), _versions(b))
    return "nothing but the run id" if task is None else f"tasks.{task}.version"


def difference_at(a: Any, b: Any) -> str | None:
    """The dotted path of the first thing that two JSON values differ in, None when they are equal."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return None if a == b else ""
    for key in sorted({*a, *b}):
        if key not in a or key not in b:
            return str(key)
        below = difference_at(a[key], b[key])
        if below is not None:
            return f"{key}.{below}" if below else str(key)
    return None


# --- sums


def metrics_of(rows: Iterable[Runs]) -> dict[str, dict[str, Any]]:
    """`TASK.METRIC` -> one record's entry for it, for every metric that any of the rows has."""
    found: dict[str, dict[str, Any]] = {}
    for runs in rows:
        for record in runs.records:
            for task, outcome in record["tasks"].items():
                for name, metric in outcome.get("metrics", {}).items():
                    found.setdefault(f"{task}.{name}", metric)
    return found


BEFORE_CHANCE = {
    **dict.fromkeys(("noise.choice", "noise.choice_prompt", "noise.choice_choices", "noise.choice_both"), 1 / 4),
    **dict.fromkeys(("probe.letters", "probe.mean_letters", "probe.untrained_letters"), 1 / 2),
    **dict.fromkeys(("spelling.characters", "spelling.characters_random"), 2 / 7),
    **dict.fromkeys(("spelling.words",), 3 / 10),
    **dict.fromkeys(("spelling.similarity", "spelling.orth", "spelling.sem"), 1 / 2),
    **dict.fromkeys(("spelling.contains_char", "spelling.contains_word"), 1 / 2),
    **{f"spelling.{name}": 1 / 4 for name in ("spell", "spell_inverse")},
    **{f"spelling.{name}_{what}": 1 / 4 for name in ("ins", "del", "sub", "swap") for what in ("char", "word")},
}
"""What guessing comes to in records from before metrics said so."""


def chance_of(metric: str, entry: Mapping[str, Any]) -> float | None:
    """What guessing comes to in a metric (`TASK.METRIC`), of which `entry` is a record's; None where nothing says."""
    said = entry.get("chance")
    return BEFORE_CHANCE.get(metric) if said is None else float(said)


def scores_of(metric: str, rows: Iterable[Runs]) -> dict[str, Scores]:
    """Sums of a metric (`TASK.METRIC`) by row, seed and document, for the rows that have it.

    Documents are in the order of their ids. Raises BenchError where rows have other documents, and where they
    count the raw bytes of one differently: these are the same for all, so one of them was scored wrongly.
    """
    task, _, name = metric.partition(".")
    path = f"tasks.{task}.metrics.{name}.documents"
    out: dict[str, Scores] = {}
    first: tuple[str, list[Any], np.ndarray] | None = None
    for runs in rows:
        sums: dict[int, np.ndarray] = {}  # (D, 2) totals and counts, by seed
        for record in runs.records:
            entry = dig(record["tasks"], f"{task}.metrics.{name}")
            if entry is None:
                continue
            documents = sorted(entry["documents"], key=lambda document: str(document[0]))
            ids = [document[0] for document in documents]
            both = np.array([document[1:] for document in documents], dtype=np.float64)
            sums[record["seed"]] = both
            first = first or (_name(record), ids, both[:, 1])
            cannot = f"rows {first[0]} and {_name(record)} cannot be compared: {path}"
            if ids != first[1]:
                same = len({*ids} & {*first[1]})
                raise BenchError(
                    f"{cannot} are {len(first[1])} in the first and {len(ids)} in the second, {same} of them the same; "
                    "run both again on the same data"
                )
            if entry.get("unit") == "bits/byte" and not np.array_equal(both[:, 1], first[2]):
                at = int(np.flatnonzero(both[:, 1] != first[2])[0])
                raise BenchError(
                    f"{cannot} have {first[2][at]:g} bytes in {ids[at]} in the first and {both[at, 1]:g} in the "
                    "second; raw bytes are the same for all, so the one that counts them wrongly must be run again"
                )
        if sums:
            stacked = np.stack(list(sums.values()))
            out[runs.label] = Scores(tuple(sums), stacked[:, :, 0], stacked[:, :, 1])
    return out
