"""Splits each cut's gain over a plain stride into what it tells and where it places latent steps (DESIGN 5).

Of each patcher a suite like `channels` has three rows, which differ in their model's options alone:

    placed   the local model is told nothing of the cut (of priced boundaries the flags); latent steps follow patches
    told     it is told the cut and the open patch's bytes, and no latent step follows BOS
    both     both

A gain is the bits per byte of the reference, the stride that is placed, minus those of the row, paired by document and
seed: above zero the row is better. A row without patches has neither: what it loses is what plain patches are
worth.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.records.comparison import BPB, Runs, is_control, told_of
from bench.records.record import Record, dig
from bench.reporting.formats import Cell, Column, Row, Table
from bench.reporting.table import Comparison
from patchers.errors import BenchError

CHANNELS = ("placed", "told", "both")


def channel_of(record: Record) -> str | None:
    """Which of CHANNELS a row's model has; None for the control, and for models that are no harness."""
    told = told_of(record)
    if told is None or is_control(record):
        return None
    steps = dig(record, "config.model.latent_patches") or "cut"
    if told == "prefix":
        return "both" if steps == "cut" else "told"
    return "placed" if steps == "cut" else None


def rows_by_cut(runs: Mapping[str, Runs]) -> dict[str, dict[str, str]]:
    """The labels of each patcher's rows, by channel, in the order of the suite."""
    found: dict[str, dict[str, str]] = {}
    for label, one in runs.items():
        channel = channel_of(one.any_record) if one.records and one.mark is None else None
        if channel is not None:
            found.setdefault(str(dig(one.any_record, "patcher.name")), {}).setdefault(channel, label)
    return found


def channels_table(compared: Comparison) -> Table:
    """A row a patcher, a column a channel. Raises BenchError where the records have not what it takes."""
    cuts = rows_by_cut(compared.runs)
    reference = cuts.get("stride", {}).get("placed")
    whole = {name: rows for name, rows in cuts.items() if rows.keys() >= set(CHANNELS)}
    if reference is None or not whole:
        raise BenchError(
            "to take channels apart it needs a stride that is placed and, of a patcher, rows that are placed, told and "
            "both, as the suite channels has them; run that with `patchbench run channels`"
        )
    controls = [label for label, one in compared.runs.items() if one.records and is_control(one.any_record)]
    columns = [
        Column("cut", "cut", "text"),
        Column("bytes_per_patch", "bytes/patch", "ratio"),
        *(Column(name, f"{name}: gain over {reference}", "signed", interval=True) for name in CHANNELS),
    ]
    rows = []
    for name, labels in whole.items():
        size = compared.runs[labels["placed"]].values("patcher.bytes_per_patch.test")
        cells = [_gain(compared, labels[channel], reference) for channel in CHANNELS]
        rows.append(Row(name, (Cell(name), Cell(size[0] if size else None), *cells)))
    for label in controls:
        rows.append(Row(label, (Cell(f"{label} (neither)"), Cell(), _gain(compared, label, reference), Cell(), Cell())))
    priced = [name for name, labels in whole.items() if compared.runs[labels["placed"]].values("patcher.priced")]
    notes = [
        f"Gain: bits per byte of {reference} minus those of the row, paired by document and by seed; above zero "
        "the row is better.",
        "Placed: the local model is told nothing of the cut, latent steps follow its patches. Told: it is told the cut "
        "and a hash of the open patch's bytes, and no latent step follows BOS. Both: both.",
    ]
    if priced:
        notes.append(f"Boundaries of {', '.join(priced)} are paid for; where it is placed it is told the flags.")
    return Table(tuple(columns), tuple(rows), tuple(notes))


def _gain(compared: Comparison, label: str, reference: str) -> Cell:
    if label == reference:
        return Cell(0.0, text="reference")
    return Cell.of(compared.worth(BPB, label, reference))
