"""Reads and writes records: one checksummed JSON file per run.

`results/SUITE/runs/RUN_ID.json`, where the run id names what the run is: its config, seed, data and task
versions. So running again finds what is done, and a changed config is another run. A file is written whole or
not at all, and carries the SHA-256 of its content: what was damaged later is named, never believed. A failed
run leaves a record too; it is repeated by the next `run`, one that is ok is not.

Work on a run goes like this, in any number of processes on one results folder:

    with claim(results, suite, run_id) as mine:     # False: another process is at it
        if mine and not done(find(results, suite, run_id)):
            write(results, train_and_score(...))
"""

import hashlib
import json
import math
import platform
import re
import subprocess
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import __version__
from bench.records.packing import packed, unpacked
from bench.system.files import locked, write_atomic, writing
from patchers.errors import BenchError

Record = dict[str, Any]

NOT_POSSIBLE = "TaskNotPossible"
"""The kind of error of a task that a model cannot be asked (`bench.evaluation.tasks`, which would import torch)."""

SCHEMA = 1
"""Of a record's content; it is part of the run's name."""
PACKED = 2
"""Of a file that has its per-document sums in columns, so that a patchbench that cannot read it says so."""
# The order in which a file shows its parts; what is not named here follows, sorted.
ORDER = (
    *("schema", "run_id", "suite", "row", "row_index", "seed", "status", "error", "config", "data", "patcher"),
    *("matched", "parameters", "flops", "cost", "audits", "environment", "tasks", "columns", "loss_curve", "checksum"),
)
LIBRARIES = ("torch", "numpy", "tokenizers", "tiktoken", "numba")
CODE = ("bench", "models", "patchers", "pyproject.toml")


# --- what a run is called


def run_id(
    row: str,
    seed: int,
    run_config: Mapping[str, Any],
    data_fingerprint: str,
    tasks: Mapping[str, Any],
    domains: Mapping[str, str] | None = None,
) -> str:
    """`ROW-sSEED-HASH`: 12 hex digits of the SHA-256 of everything that the run's numbers depend on.

    `tasks` are their identities, `domains` the fingerprints of further texts that are scored.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}", row):
        raise BenchError(f"row {row!r} cannot name a file; use up to 100 letters, digits and . _ + - @")
    what = {
        "config": run_config,
        "seed": seed,
        "data": data_fingerprint,
        "tasks": tasks,
        "schema": SCHEMA,
    }
    if domains:
        what["eval"] = domains
    return f"{row}-s{seed}-{digest(_plain(what))[:12]}"


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value: UTF-8, keys sorted, no blanks. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _bytes(text)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, however it was laid out."""
    return hashlib.sha256(canonical(value)).hexdigest()


# --- files


def run_path(results: Path, suite: str, run_id: str) -> Path:
    return results / suite / "runs" / f"{run_id}.json"


def write(results: Path, record: Mapping[str, Any]) -> Path:
    """Check a record, add its schema and checksum, and put it in its place, whole or not at all.

    Numbers that are not finite become null (JSON has no NaN). Raises BenchError when the record lacks
    something that it must have, and when the folder cannot be written.
    """
    body = _without_paths(_plain({**record, "schema": SCHEMA}))
    body.pop("checksum", None)
    wrong = complaint(body)
    if wrong:
        raise BenchError(f"the record of run {body.get('run_id')} cannot be written: {wrong}")
    path = run_path(results, body["suite"], body["run_id"])
    write_atomic(path, file_content(body))
    return path


def content(record: Mapping[str, Any]) -> bytes:
    """A record as a page gives it away, with all documents in plain JSON; `read` reads that as well."""
    return _bytes(_layout({**record, "checksum": digest(record)}) + "\n")


def file_content(record: Mapping[str, Any]) -> bytes:
    """What the file of a record has in it, which has its schema and is plain JSON: as `read` returned it. The checksum
    is of the record, not of how its documents are written."""
    held = packed(record)
    schema = PACKED if "columns" in held else SCHEMA
    return _bytes(_layout({**held, "schema": schema, "checksum": digest(record)}) + "\n")


def checked(record: Record) -> Record:
    """The record, if it can be written. Raises BenchError for one that cannot, as with a number that is none."""
    wrong = complaint(_plain(record))
    if wrong:
        raise BenchError(f"what the run found is no record: {wrong}")
    return record


def log_path(results: Path, suite: str, run_id: str) -> Path:
    """Where the output of a run goes that has a process of its own, and the traceback of one that failed."""
    return results / suite / "logs" / f"{run_id}.log"


def log(results: Path, suite: str, run_id: str, text: str) -> None:
    path = log_path(results, suite, run_id)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def read(path: Path) -> Record:
    """A record, verified. Raises BenchError, naming the file and what to do, for one that is not as it was
    written, was written by another version, or is not what its name says."""
    again = "delete it and run the suite again, which repeats this run only"
    try:
        record = json.loads(path.read_bytes().decode())
        checksum = record.pop("checksum", None) if isinstance(record, dict) else None
        if isinstance(record, dict) and record.get("schema") == PACKED:
            record = unpacked(record) | {"schema": SCHEMA}
        intact = checksum == digest(record)
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({error}): {again}") from error
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise BenchError(f"{path} is not a record of patchbench: move it out of the results folder")
    if record["schema"] != SCHEMA:
        raise BenchError(
            f"{path} has schema {record['schema']}, this patchbench ({__version__}) reads {SCHEMA} and {PACKED}: "
            "use the version that wrote it, or move it away and run the suite again"
        )
    if not intact:
        raise BenchError(f"{path} is damaged (its content does not have its checksum): {again}")
    wrong = complaint(record)
    if wrong:
        raise BenchError(f"{path} is incomplete ({wrong}): {again}")
    if record["run_id"] != path.stem:
        raise BenchError(f"{path} holds run {record['run_id']}: a copy or renamed; delete it or name it back")
    return record


def find(results: Path, suite: str, run_id: str) -> Record | None:
    """The record of a run, None when there is none yet."""
    path = run_path(results, suite, run_id)
    return read(path) if path.exists() else None


def done(record: Record | None) -> bool:
    """Whether a run needs no more work: failed ones are tried again, and so are tasks that somebody wants again."""
    return record is not None and record["status"] == "ok" and not record.get("again")


def failed_tasks(record: Record) -> list[str]:
    """The tasks of a run that have an error in place of a number, but for those that the model cannot be asked."""
    outcomes = (record.get("tasks") or {}).items()
    return [name for name, found in outcomes if found.get("error") and found["error"]["kind"] != NOT_POSSIBLE]


def ask_again(results: Path, suite: str, run_id: str) -> list[str]:
    """Mark the failed tasks of a run for the next `run`, which takes over the model that is there and trains nothing;
    their names. The record keeps its numbers until then."""
    record = find(results, suite, run_id)
    wanted = failed_tasks(record) if done(record) and record is not None else []
    if wanted and record is not None:
        write(results, {**record, "again": wanted})
    return wanted


def load_all(results: Path, suite: str, run_ids: Container[str] | None = None) -> list[Record]:
    """All records of a suite, or those among `run_ids`, in the order of rows and seeds; none is no error."""
    paths = sorted((results / suite / "runs").glob("*.json"))
    records = [read(path) for path in paths if run_ids is None or path.stem in run_ids]
    return sorted(records, key=lambda r: (r.get("row_index", math.inf), r["row"], r["seed"], r["run_id"]))


@contextmanager
def claim(results: Path, suite: str, run_id: str, wait: float = 0.0) -> Iterator[bool]:
    """Whether this process has the run to itself, until the block ends.

    Waits up to `wait` seconds (-1: for ever). The lock is the operating system's, on a file: it is gone when
    its owner is, however the owner ended. After True, look for the record once more: another process may have
    finished the run in the meantime.
    """
    with locked(results / suite / "locks" / f"{run_id}.lock", wait) as mine:
        if mine:
            for left in (results / suite / "runs").glob(f"{run_id}.json.*.tmp"):
                left.unlink(missing_ok=True)  # by an owner that was killed while it wrote
        yield mine


# --- what a record must have

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "run_id": str,
    "suite": str,
    "row": str,
    "seed": int,
    "config": dict,
}
REQUIRED_WHEN_OK: dict[str, type | tuple[type, ...]] = {
    "data.name": str,
    "data.fingerprint": str,
    "data.splits.test.documents": int,
    "data.splits.test.bytes": int,
    "parameters.total": int,
    "parameters.non_embedding": int,
    "flops.per_byte.total": (int, float),
    "tasks": dict,
    "audits": dict,
    "environment": dict,
}
REQUIRED_WHEN_TRAINED: dict[str, type | tuple[type, ...]] = {
    "flops.train": (int, float),
    "cost.train_bytes": int,
}


def is_pretrained(record: Mapping[str, Any]) -> bool:
    """Whether it is of a model that was trained elsewhere, on what and with how much is not known."""
    return dig(record, "config.model.kind") == "pretrained"


def complaint(record: Mapping[str, Any]) -> str | None:
    """What is wrong with a record, in words; None when nothing is."""
    ok = record.get("status") == "ok"
    required = REQUIRED | (REQUIRED_WHEN_OK if ok else {})
    if ok and not is_pretrained(record):
        required |= REQUIRED_WHEN_TRAINED
    for name, wanted in required.items():
        value = dig(record, name)
        if not isinstance(value, wanted) or isinstance(value, bool):
            return f"{name} is {value!r}"
    if not ok:
        error = record.get("error")
        if record.get("status") != "failed":
            return f"status is {record.get('status')!r}, wanted 'ok' or 'failed'"
        if not isinstance(error, dict) or not all(isinstance(error.get(k), str) for k in ("kind", "message")):
            return f"a failed run needs an error with kind and message, got {error!r}"
        return None
    for task, outcome in record["tasks"].items():
        wrong = _task_complaint(outcome)
        if wrong:
            return f"tasks.{task}: {wrong}"
    return None


def _task_complaint(outcome: Any) -> str | None:
    if not isinstance(outcome, dict) or not isinstance(outcome.get("version"), int):
        return "a version is missing"
    for name, metric in outcome.get("metrics", {}).items():
        if not isinstance(metric, dict) or not isinstance(metric.get("lower_is_better"), bool):
            return f"metrics.{name} does not say whether lower is better"
        documents = metric.get("documents")
        if not isinstance(documents, list) or not documents:
            return f"metrics.{name} has no documents"
        for entry in documents:
            numbers = entry[1:] if isinstance(entry, list) and len(entry) == 3 else []
            if not numbers or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
                return f"metrics.{name} has the document {entry!r}, wanted [id, total, count]"
        if len({entry[0] for entry in documents}) < len(documents):
            return f"metrics.{name} has a document twice"
    return None


def dig(record: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for key in path.split("."):
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record


# --- as JSON


def _plain(value: Any) -> Any:
    """As JSON has it: numpy numbers and arrays as Python's, tuples as lists, paths as text, NaN as null."""
    if isinstance(value, Mapping):
        assert all(isinstance(key, str) for key in value), f"keys of a record are text: {list(value)}"
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):  # numpy's float64 is one as well
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str | int | None):  # before the rest: most values are
        return value
    if isinstance(value, Path):
        return str(value)
    return _plain(value.tolist())  # numpy


def _without_paths(value: Any, told: bool = False) -> Any:
    """A record without the folders of this machine in what its errors tell."""
    if isinstance(value, dict):
        return {key: _without_paths(item, told or key == "error") for key, item in value.items()}
    if isinstance(value, list) and told:
        return [_without_paths(item, told) for item in value]
    return without_paths(value) if told and isinstance(value, str) else value


def without_paths(text: str) -> str:
    """A text in which files are named without the folders that they lie in, but for those of a package."""

    def shortened(found: re.Match[str]) -> str:
        parts = found[0].split("/")
        for base in ("site-packages", *(f"python{v}" for v in (platform.python_version().rpartition(".")[0],))):
            if base in parts:
                return "/".join(parts[len(parts) - parts[::-1].index(base) :])
        own = [part for part in parts[-3:] if part in ("bench", "patchers", "models")]
        return "/".join(parts[parts.index(own[0]) :]) if own else parts[-1]

    return re.sub(r"(?<![\w:/.~*-])/(?:[^\s:\"'<>|,;()/]+/)+[^\s:\"'<>|,;()/]+", shortened, text)


def _layout(value: Any, indent: str = "") -> str:
    """JSON for people and for diffs: a line a key, a line a document (which stands at the left, as there may be
    many)."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        order = {key: place for place, key in enumerate(ORDER)} if not indent else {}
        keys = sorted(value, key=lambda key: (order.get(key, len(order)), key))
        items = [f"{inner}{_compact(key)}: {_layout(value[key], inner)}" for key in keys]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        return "[\n" + ",\n".join(map(_compact, value)) + f"\n{indent}]"
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _bytes(text: str) -> bytes:
    """UTF-8. Halves of surrogate pairs, as in the names of odd files, become JSON's escapes for them."""
    return text.encode("utf-8", "backslashreplace")


# --- where it ran


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a record says about the machine and the code; `device` as torch names it."""
    import torch  # here, because tables are made without it

    cpu = _cpu_name()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "patchbench": __version__,
        **{name: _installed(name) for name in LIBRARIES},
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu,
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        **_code_state(Path(__file__).resolve().parents[2]),
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _code_state(root: Path) -> dict[str, Any]:
    """The commit of our code and whether it was changed since; both None where the code is not in git."""

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.decode(errors="replace").strip() if answer.returncode == 0 else None

    # An environment inside somebody's own repository is not ours: is this file in git at all?
    if git("ls-files", "--error-unmatch", "bench/records/record.py") is None:
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--", *CODE)
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
