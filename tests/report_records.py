"""Records for tests of the report: made up, of a suite with rows of every family, with examples and a failed run."""

from __future__ import annotations

from typing import Any

import numpy as np
from record_builder import make_failed, make_record, put

from bench.evaluation.examples import EVERYBODY, Example
from bench.records.record import Record
from bench.records.selection import Selection
from bench.reporting.report import page
from patchers import create

TEXTS = (
    (
        "0123456789abcdef",
        b"The cat, na\xc3\xafve, sat </script> on \xe6\x9d\xb1\xe4\xba\xac.\nIt\x00 was <b>there</b>.",
    ),
    EVERYBODY,
)
ROWS = {
    "stride": "stride",
    "whitespace": "whitespace",
    "bpe": "space_words",
    "bpe-leaky": "space_words",
    "byte_lm": None,
}


def selection(
    suite: str = "standard", seeds: int = 2, documents: int = 40, about: str = "A <suite> & more."
) -> Selection:
    records = [record for index, row in enumerate(ROWS) for record in _row(suite, row, index, seeds, documents)]
    failed = {**make_failed("hnet"), "suite": suite, "row_index": len(ROWS), "schema": 1}
    return Selection(suite, [*records, failed], (*ROWS, "hnet"), 2, about)


def made_page(chosen: list[Selection]) -> str:
    """With few resamples: it is not the numbers that are looked at."""
    return page(chosen, resamples=100)


def _row(suite: str, row: str, index: int, seeds: int, documents: int) -> list[Record]:
    out = []
    for seed in range(seeds):
        changes = {
            "suite": suite,
            "patcher.bytes_per_patch.test": None if row == "byte_lm" else 4.0 + index / 4,
            "flops.per_byte.total": 1e6 * (1 + index),
            "flops.train": 1e12 * (1 + index),
            "cost.train_bytes_per_second": 5000.0 * (1 + index),
            "row_index": index,
            "schema": 1,
        }
        record = make_record(
            row, seed, bpb=2.2 + index / 20, documents=documents, characters_per_byte=0.9, changes=changes
        )
        if row == "bpe":
            put(record, "patcher.priced", "start")
        if row == "bpe-leaky":
            put(record, "config.leaky", True)
        if row == "byte_lm":
            put(record, "config.model.kind", "byte_lm")
        record["examples"] = [_example(row, name, text, seed) for name, text in TEXTS]
        out.append(record)
    return out


def _example(row: str, name: str, text: bytes, seed: int) -> dict[str, Any]:
    patcher = ROWS[row]
    bits = np.random.default_rng([seed, len(text)]).gamma(1.0, 2.0, len(text))
    starts = None if patcher is None else create(patcher).segment(text)
    return Example(name, text, starts, bits, bits / 4 if row == "bpe" else None).as_json()
