"""Tables with pretrained rows: marked, beside the trained ones, ranked among themselves, with notes on each."""

from __future__ import annotations

from typing import Any

import pytest
from record_builder import make_record

from bench.records.comparison import rows_of
from bench.reporting.plots.rows import APART, frontier, points
from bench.reporting.table import Comparison, Table, build

TEST = {"lossy_documents": 0, "bits_for_lost_bytes": 0.0, "short_windows": 0}


def pretrained(row: str, bpb: float, test: dict[str, Any] | None = None, **vocabulary: Any) -> dict[str, Any]:
    record = make_record(row, bpb=bpb)
    record["config"] = {
        "data": record["config"]["data"],
        "model": {"kind": "pretrained", "hf": row, "files": "0"},
        "train": {"window": 1024},
    }
    record["patcher"] = {"name": "tokenizer", "priced": None, "leaky": False, "bytes_per_patch": {"test": 4.2}}
    record["cost"] = {"score_seconds": 2.0, "peak_memory_bytes": 1}
    record["flops"] = {"per_byte": {"total": 1e9}, "counted_by": "formula"}
    known = {"kind": "tokens", "bos": 0, "lossless": True, "lost": [], "outputs": 320} | vocabulary
    record["pretrained"] = {"vocabulary": known, "most_units": 512, "test": TEST | (test or {})}
    record["row_index"] = 9
    del record["matched"], record["loss_curve"]
    return record


def suite() -> list[dict[str, Any]]:
    trained = [{**make_record(row, bpb=bpb), "row_index": at} for at, (row, bpb) in enumerate(TRAINED.items())]
    return [*trained, pretrained("worse", 1.2), pretrained("better", 1.0), pretrained("far", 3.0)]


TRAINED = {"stride": 2.3, "entropy": 2.2, "random": 2.6}


def labels(table: Table) -> list[str]:
    return [row.label for row in table.rows]


def test_each_kind_has_its_best() -> None:
    table = build(suite())
    assert [label for label in labels(table) if table.cell(label, "bpb").best] == ["entropy", "better"]
    assert table.cell("better", "flags").value == "pretrained"
    assert table.cell("better", "train_flops").value is None


def test_no_difference_between_the_kinds() -> None:
    table = build(suite(), columns=["bpb", "difference", "verdict"])
    assert table.cell("entropy", "difference").value is not None
    assert table.cell("better", "difference").value is None
    assert table.cell("better", "verdict").value is None
    assert "flags" in [column.id for column in table.columns], "who is pretrained cannot be chosen away"
    of_pretrained = build(suite(), columns=["bpb", "difference", "verdict"], reference="worse")
    assert of_pretrained.cell("better", "difference").value == pytest.approx(-0.2, abs=0.02)
    assert of_pretrained.cell("better", "verdict").value == "better"
    assert of_pretrained.cell("entropy", "difference").value is None


def test_sorted_they_stand_behind_the_trained_ones() -> None:
    assert labels(build(suite(), sort="bpb")) == ["entropy", "stride", "random", "better", "worse", "far"]
    assert labels(build(suite(), sort="-bpb")) == ["random", "stride", "entropy", "far", "worse", "better"]


def test_what_is_said_below() -> None:
    lossy = pretrained("lossy", 1.5, {"lossy_documents": 3, "bits_for_lost_bytes": 1234.4}, lossless=False)
    short = pretrained("short", 1.6, {"short_windows": 7}, bos=None)
    table = build([*suite(), lossy, short])
    said = "\n".join(table.notes)
    assert "Pretrained: worse, better, far, lossy, short; trained elsewhere, on texts and with compute that are" in said
    assert "ranked only among themselves, and in no difference or worth with the others" in said
    assert "lossy: its tokenizer does not keep every text: of 3 documents of the test text" in said
    assert "spelled for 1,234 bits that count" in said
    assert "short: it takes 512 units at once, less than 7 of the windows hold" in said
    assert "short: it has no token to stand before a text" in said
    assert "Trained on 1,638,400 bytes" in said
    assert table.cell("lossy", "flags").value == "pretrained, not lossless"
    assert table.cell("short", "flags").value == "pretrained, short context"


def test_no_frontier_goes_through_them() -> None:
    compared = Comparison(suite())
    table = compared.table(["model", "price", "bpb", "flops_per_byte"])
    found = points(table, "flops_per_byte")
    assert {p.label for p in found if p.family == APART["pretrained"]} == {"worse", "better", "far"}
    assert [p.label for p in frontier(found, -1)] == ["entropy"]
    assert rows_of(suite())["better"].mark == "pretrained"
