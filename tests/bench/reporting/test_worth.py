"""What patches are worth: a trained row without patches minus the row, at equal bytes and at equal training FLOPs."""

from __future__ import annotations

from typing import Any

import pytest
from record_builder import make_record

from bench.records.comparison import control_of, rows_of
from bench.records.record import Record
from bench.reporting.table import build

FEW = 400


def record(label: str, bpb: float, flops: float, patcher: str | None = None, seed: int = 0, **changes: Any) -> Record:
    more = {"patcher.name": patcher or label, "flops.train": flops, "flops.per_byte.total": flops / 1e6, **changes}
    return make_record(label, seed, bpb=bpb, changes=more)


def suite(*seeds: int) -> list[Record]:
    out = []
    grown: dict[str, Any] = {"config.grow_to": {"row": "entropy"}}
    other: dict[str, Any] = {"config.model.kind": "byte_lm", "patcher.name": None}
    for seed in seeds or (0,):
        out += [
            record("entropy", 2.20, 3.0e12, seed=seed),
            record("whitespace", 2.22, 2.8e12, seed=seed),
            record("none", 2.30, 1.0e12, seed=seed),
            record("none-grown", 2.23, 3.0e12, "none", seed, **grown),
            record("byte_lm", 2.10, 9.0e12, None, seed, **other),
        ]
    return [{**one, "row_index": i} for i, one in enumerate(out)]


def test_worth_is_the_difference_to_the_right_control() -> None:
    table = build(suite(0, 1, 2), columns=["row", "worth", "worth_at_flops"], resamples=FEW)

    def shown(label: str, column: str) -> float | str | None:
        cell = table.cell(label, column)
        return cell.text if cell.text is not None else None if cell.value is None else round(float(cell.value), 2)

    assert {label: shown(label, "worth") for label in ("entropy", "whitespace", "none", "byte_lm")} == {
        "entropy": 0.10,
        "whitespace": 0.08,
        "none": "control",
        "byte_lm": None,  # no harness: it has no control
    }
    assert shown("none-grown", "worth") == 0.07, "what the FLOPs of the row are worth without patches"
    assert shown("entropy", "worth_at_flops") == 0.03
    assert shown("whitespace", "worth_at_flops") == 0.01, "the control has spent as much at least"
    assert shown("none", "worth_at_flops") == "control"
    notes = " ".join(table.notes)
    assert "Worth at equal bytes: the control (a trained model without patches; the same bytes) minus the row" in notes
    assert "none-grown (its local model grown: " in notes
    assert [c.title for c in table.columns if c.id == "worth"] == ["worth at equal bytes"]


def test_a_table_of_rows_with_a_control_says_their_worth_unasked() -> None:
    def worths(labels: list[str]) -> list[str]:
        records = [one for one in suite() if one["row"] in labels]
        return [column.id for column in build(records, resamples=FEW).columns if "worth" in column.id]

    assert worths(["entropy", "none-grown", "none"]) == ["worth", "worth_at_flops"]
    assert worths(["entropy", "none"]) == ["worth"]
    assert worths(["none", "byte_lm"]) == [], "a control alone says nothing"


def test_the_worth_of_a_control_against_itself_is_zero() -> None:
    """A second control, of the very same numbers."""
    twin = {**record("none", 2.30, 1.0e12), "row": "twin"}
    table = build([*suite(), twin], columns=["row", "worth"], rows=["twin", "none"], resamples=FEW)
    cell = table.cell("twin", "worth")
    assert cell.text == "control" or (cell.value, cell.low, cell.high) == (0.0, 0.0, 0.0)


def test_the_control_has_the_local_model_of_the_row() -> None:
    lean: dict[str, Any] = {"config.model.local_window": 8, "config.model.ngrams": []}
    records = [
        record("entropy", 2.20, 3e12),
        record("lean", 2.40, 3e12, **lean),
        record("none", 2.30, 1e12),
        record("none-lean", 2.60, 1e12, "none", **lean),
    ]
    rows = rows_of(records)
    assert control_of("entropy", rows, "bytes") == "none"
    assert control_of("lean", rows, "bytes") == "none-lean"


def test_the_control_at_equal_flops_has_the_lookup_tables_of_the_row() -> None:
    """They cost no FLOPs: a lean row against a control with tables would be a comparison of tables."""
    lean: dict[str, Any] = {"config.model.ngrams": []}
    own: dict[str, Any] = {"config.model.local_window": 64, "config.model.byte_std": 0.5}
    records = [
        record("entropy", 2.20, 3.05e12),
        record("lean", 2.40, 3e12, **lean),
        record("none-grown", 2.30, 3.05e12, "none", **own),
        record("none-lean-grown", 2.60, 3.1e12, "none", **lean),
    ]
    rows = rows_of(records)
    assert control_of("entropy", rows, "flops") == "none-grown", "its initial scales are its own"
    assert control_of("lean", rows, "flops") == "none-lean-grown", "not the cheaper one"


def test_of_several_controls_at_equal_flops_the_best_counts() -> None:
    """Also where a worse one is nearer in FLOPs."""
    records = [
        record("entropy", 2.20, 3.0e12),
        record("near", 2.30, 3.0e12, "none"),
        record("best", 2.25, 3.2e12, "none"),
        record("dear", 2.10, 3.5e12, "none"),
    ]
    assert control_of("entropy", rows_of(records), "flops") == "best"


def test_budgets_of_a_sweep_have_their_own_control() -> None:
    records = []
    for size, gain in ((2_000_000, 0.02), (8_000_000, 0.08)):
        for label, bpb in (("none", 2.3), ("entropy", 2.3 - gain)):
            more: dict[str, Any] = {"cost.train_bytes": size}
            records.append(record(f"{label}@{size}", bpb, size * 1e6, label, **more))
    rows = rows_of(records)
    assert control_of("entropy@2000000", rows, "bytes") == "none@2000000"
    assert control_of("entropy@8000000", rows, "bytes") == "none@8000000"
    table = build(records, columns=["row", "worth"], resamples=FEW)
    assert table.cell("entropy@8000000", "worth").value == pytest.approx(0.08, abs=0.01)


def test_rows_that_were_read_at_equal_flops_have_the_control_that_read_more() -> None:
    matched: dict[str, Any] = {"config.match": "train_flops"}
    records = [
        record("entropy", 2.2, 3e12, **matched),
        record("none", 2.25, 3e12, **(matched | {"cost.train_bytes": 9_000_000})),
    ]
    table = build(records, columns=["row", "worth", "worth_at_flops"], resamples=FEW)
    assert table.cell("entropy", "worth_at_flops").value == pytest.approx(0.05, abs=0.01)
    assert table.cell("entropy", "worth").value is None, "it has not read the same bytes"


def test_without_a_control_there_is_no_worth() -> None:
    table = build([record("entropy", 2.2, 3e12)], columns=["row", "worth"], resamples=FEW)
    assert table.cell("entropy", "worth").value is None


def test_what_rows_are_told_is_marked_and_a_footnote_says_what_a_difference_is_of() -> None:
    plain, told = record("entropy", 2.2, 3e12), record("told", 2.1, 3e12)
    told["config"]["model"]["boundary_inputs"] = "prefix"
    old = record("old", 2.1, 3e12)
    del old["config"]["model"]["boundary_inputs"]
    table = build([plain, told, old], columns=["row", "bpb"], resamples=FEW)
    flagged = build([plain, told, old], columns=["row", "bpb", "flags"], resamples=FEW)
    assert [flagged.cell(label, "flags").value for label in ("entropy", "told", "old")] == [None, *["told: prefix"] * 2]
    note = next(note for note in table.notes if note.startswith("Told:"))
    assert "told, old" in note
    assert note.endswith("a difference is not of placement alone.")
    assert not [n for n in build([plain], columns=["row", "bpb"], resamples=FEW).notes if n.startswith("Told:")]
