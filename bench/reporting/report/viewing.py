"""Prepares the example texts for the report's viewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.evaluation.examples import EVERYBODY, Example
from bench.records.record import Record

Text = dict[str, Any]


def texts(records: Sequence[Record], rows: Sequence[str] = ()) -> list[Text]:
    """Each text once, with how every row saw it, rows in their order; of a row's seeds, the first that has examples."""
    first: dict[str, Record] = {}
    places = {row: place for place, row in enumerate(rows)}
    records = sorted(records, key=lambda r: (places.get(r["row"], len(places)), r.get("row_index", 0), r["seed"]))
    for record in records:
        if record["status"] == "ok" and record.get("examples"):
            first.setdefault(record["row"], record)
    found: dict[str, Text] = {}
    for row, record in first.items():
        for entry in record["examples"]:
            text = found.setdefault(_key(entry), _text(entry))
            seen = {key: entry[key] for key in ("starts", "centibits", "flag_centibits") if key in entry}
            text["seen"].append({"row": row, **seen})
    return list(found.values())


def _key(entry: dict[str, Any]) -> str:
    return f"{entry['document']} {entry.get('text', entry.get('base64'))}"


def _text(entry: dict[str, Any]) -> Text:
    content: Text = {key: entry[key] for key in ("text", "base64") if key in entry}
    return {"title": _title(Example.from_json(entry)), **content, "seen": []}


def _title(example: Example) -> str:
    """The beginning of the text, in quotes."""
    words = " ".join(example.text.decode(errors="replace").split())
    begun = words if len(words) <= 48 else f"{words[:47].rstrip()}…"
    return f"“{begun}”" + (" (in no corpus)" if example.document == EVERYBODY[0] else "")
