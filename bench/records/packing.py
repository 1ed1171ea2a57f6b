"""Writes the per-document sums of a record's file in columns, exactly and in a third of the room.

In memory a metric has `documents: [[id, total, count], ...]`. In a file with many of them it has
`documents: {"id": NAME, "total": NAME, "count": NAME}`, and `columns` at the file's top has the text of each name once:
metrics of a task share their documents, and mostly their counts. The text of a column is a letter and base64 of zlib of

    i   int64, little endian, the first bytes of all numbers before their second ones (which repeat less)
    f   float64, in the same order
    j   JSON, in UTF-8: names, and numbers of mixed kinds

Whole numbers come back whole and floats bit by bit, so a record has the same checksum either way.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

FEWEST = 32
"""Documents of a metric from which on it is packed; fewer stay legible."""
PARTS = ("id", "total", "count")
KINDS = {"i": np.dtype("<i8"), "f": np.dtype("<f8")}


def packed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as its file has it: the same one where no metric has many documents, else with `columns`."""
    names: dict[str, str] = {}  # by the text of a column
    tasks: dict[str, Any] = {}
    for task, outcome in sorted((record.get("tasks") or {}).items()):
        metrics = {}
        for metric, found in sorted(outcome.get("metrics", {}).items()):
            if len(found["documents"]) >= FEWEST:
                columns = zip(PARTS, zip(*found["documents"], strict=True), strict=True)
                place = {p: names.setdefault(_text(list(c)), f"{task}.{metric}.{p}") for p, c in columns}
                metrics[metric] = {**found, "documents": place}
        tasks[task] = {**outcome, "metrics": {**outcome["metrics"], **metrics}} if metrics else outcome
    if not names:
        return dict(record)
    return {**record, "tasks": tasks, "columns": {name: text for text, name in names.items()}}


def unpacked(held: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a file. Raises ValueError for one that `packed` has not made."""
    try:
        columns = {name: _values(text) for name, text in held["columns"].items()}
        tasks = {}
        for task, outcome in held["tasks"].items():
            metrics = dict(outcome.get("metrics", {}))
            for metric, found in metrics.items():
                place = found["documents"]
                if isinstance(place, Mapping):
                    rows = zip(*(columns[place[part]] for part in PARTS), strict=True)
                    metrics[metric] = {**found, "documents": [list(row) for row in rows]}
            tasks[task] = {**outcome, "metrics": metrics} if "metrics" in outcome else outcome
    except (KeyError, TypeError, AttributeError, zlib.error, binascii.Error) as error:
        raise ValueError(f"its columns cannot be read: {error!r}") from error
    return {key: value for key, value in held.items() if key != "columns"} | {"tasks": tasks}


def _text(values: list[Any]) -> str:
    for letter, kind in (("i", int), ("f", float)):
        if all(type(value) is kind for value in values) and _fits(values):
            raw = np.array(values, KINDS[letter]).view(np.uint8).reshape(len(values), 8).T.tobytes()
            return letter + _squeezed(raw)
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return "j" + _squeezed(text.encode("utf-8", "surrogatepass"))


def _fits(values: list[Any]) -> bool:
    return isinstance(values[0], float) or max(map(abs, values)) < 2**63


def _values(text: str) -> list[Any]:
    raw = zlib.decompress(base64.b64decode(text[1:], validate=True))
    if text[0] == "j":
        values: list[Any] = json.loads(raw.decode("utf-8", "surrogatepass"))
        return values
    planes = np.frombuffer(raw, np.uint8).reshape(8, -1)
    return np.ascontiguousarray(planes.T).view(KINDS[text[0]]).ravel().tolist()


def _squeezed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 9)).decode()
