"""What a cut tells and what it places, split from records."""

from __future__ import annotations

import pytest
from record_builder import make_record

from bench.records.record import Record
from bench.reporting.channels import channel_of, channels_table
from bench.reporting.plots.catalog import plot
from bench.reporting.table import Comparison
from patchers import BenchError

FEW = 200


def row(
    label: str, patcher: str, bpb: float, told: str = "none", steps: str = "cut", price: str | None = None
) -> Record:
    changes = {
        "patcher.name": patcher,
        "patcher.priced": price,
        "config.model.boundary_inputs": told,
        "config.model.latent_patches": steps,
    }
    return make_record(label, bpb=bpb, changes=changes)


def suite() -> list[Record]:
    """By hand: over plain stride (2.30) whitespace gains 0.05 placed, 0.02 told and 0.08 with both; the control loses
    0.10, the grown one gains 0.02."""
    rows = [
        row("stride-placed", "stride", 2.30),
        row("none", "none", 2.40),
        row("stride-told", "stride", 2.38, "prefix", "document"),
        row("stride-both", "stride", 2.29, "prefix"),
        row("ws-placed", "whitespace", 2.25),
        row("ws-told", "whitespace", 2.28, "prefix", "document"),
        row("ws-both", "whitespace", 2.22, "prefix"),
        row("bpe-placed", "bpe", 2.35, "flag", price="start"),
        row("bpe-told", "bpe", 2.36, "prefix", "document", price="start"),
        row("bpe-both", "bpe", 2.31, "prefix", price="start"),
        row("lone", "entropy", 2.2),
        row("none-grown", "none", 2.28),
    ]
    return [{**record, "row_index": i} for i, record in enumerate(rows)]


def test_channels_of_rows() -> None:
    found = {record["row"]: channel_of(record) for record in suite()}
    assert [found[f"ws-{name}"] for name in ("placed", "told", "both")] == ["placed", "told", "both"]
    assert found["none"] is None
    assert found["bpe-placed"] == "placed", "the flags that were paid for are no hash of the patch"
    old = make_record("old")
    del old["config"]["model"]["boundary_inputs"]
    assert channel_of(old) == "both", "what was recorded when all rows were told the prefix"


def test_gains_by_hand() -> None:
    table = channels_table(Comparison(suite(), resamples=FEW))
    assert [r.label for r in table.rows] == ["stride", "whitespace", "bpe", "none", "none-grown"], "entropy lacks two"

    def gains(label: str) -> list[float]:
        cells = [table.cell(label, name) for name in ("placed", "told", "both")]
        return [float(cell.value) for cell in cells if cell.value is not None]

    chance = 0.02  # records are drawn with noise
    assert gains("whitespace") == pytest.approx([0.05, 0.02, 0.08], abs=chance)
    assert gains("stride") == pytest.approx([0.0, -0.08, 0.01], abs=chance)
    assert gains("bpe") == pytest.approx([-0.05, -0.06, -0.01], abs=chance)
    assert gains("none") == pytest.approx([-0.1], abs=chance)
    assert gains("none-grown") == pytest.approx([0.02], abs=chance)
    cell = table.cell("whitespace", "placed")
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < float(cell.value or 0) < cell.high
    assert table.cell("stride", "placed").text == "reference"
    assert any("Boundaries of bpe are paid for" in note for note in table.notes)


def test_the_picture_has_a_point_a_channel() -> None:
    figure = plot(Comparison(suite(), resamples=FEW), "channels")
    points = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("o", "D", "s")]
    assert len(points) == 3 * 3
    assert len([line for line in figure.axes[0].get_lines() if line.get_marker() == "X"]) == 2, "of neither channel"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "none-grown (neither)"


def test_a_cut_with_one_number_is_no_control() -> None:
    alone = {"ws-told", "ws-both"}
    records = [{**r, "tasks": {}, "columns": {}} if r["row"] in alone else r for r in suite()]
    figure = plot(Comparison(records, resamples=FEW), "channels")
    assert len([line for line in figure.axes[0].get_lines() if line.get_marker() == "X"]) == 2
    assert len([line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]) == 3


def test_records_of_another_kind_of_suite_say_what_is_missing() -> None:
    with pytest.raises(BenchError, match="a stride that is placed and, of a patcher, rows that are placed, told"):
        channels_table(Comparison([make_record("stride"), make_record("entropy")], resamples=FEW))
