"""Chooses the tables of the report."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from bench.records.compute_optimal import optima_of
from bench.reporting.formats import Cell, Column, Row, Table, number
from bench.reporting.plots.curves import fits_of
from bench.reporting.table import NUMBERS, Comparison

if TYPE_CHECKING:
    from bench.records.compute_optimal import Optimum
    from bench.records.fits import Crossing, Fits

# title -> columns; those without a number in any row are left out.
COLUMNS = {
    "Results": ("row", "bytes_per_patch", "bpb", "difference", "verdict", "flops_per_byte", "seeds", "flags"),
    "Compute": (
        *("row", "parameters", "non_embedding", "active", "flops_per_byte", "flops.per_byte.latent"),
        *("flops.per_byte.local_encoder", "flops.per_byte.local_decoder", "flops.per_byte.cross_attention"),
        *("flops.per_byte.head", "flops.per_byte.patcher", "paper_flops", "train_flops", "patcher_flops"),
        "train_bytes",
    ),
    "Speed and memory": (
        *("row", "flops_per_byte", "train_bytes_per_second", "train_seconds", "score_seconds", "peak_memory"),
        *("prefill_rate", "decode_rate", "step_ms_p50", "step_ms_p90", "step_ms_p99", "speed_memory"),
    ),
    "The cut": ("row", "bytes_per_patch", "variation", "on_spaces", "flag_bits_share", "latent_gain", "kraft"),
}
OWN = ("bpb", "speed")
"""Tasks whose numbers are in the tables above."""
MANY = 9
"""Metrics in one table, at most."""


def tables(compared: Comparison) -> dict[str, Table]:
    """By title."""
    wanted = {title: [name for name in names if _has(compared, name)] for title, names in COLUMNS.items()}
    wanted |= {title: ["row", *names] for title, names in _of_tasks(compared).items()}
    if "bpb.bpc" in compared.metrics:
        wanted["Results"].insert(wanted["Results"].index("bpb") + 1, "bpc")
    made = {title: compared.table(names) for title, names in wanted.items() if len(names) > 1}
    fits = fits_of(compared)
    if fits is None:
        return made
    made["Scaling"] = scaling(fits)
    optima = optima_of(compared.records, fits)
    return {**made, "Best size": best_sizes(optima)} if optima else made


def _of_tasks(compared: Comparison) -> dict[str, list[str]]:
    """The metrics of every task; where there are many, those whose names begin alike together."""
    found: dict[str, list[str]] = {}
    for metric in compared.metrics:
        task, _, name = metric.partition(".")
        if task == "bpb" and name not in ("bpb", "bpc"):
            found.setdefault("Other texts", []).append(metric)
        elif task not in OWN:
            found.setdefault(task, []).append(metric)
    for title in [title for title, names in found.items() if len(names) > MANY]:
        for metric in found.pop(title):
            found.setdefault(f"{title}: {metric.partition('.')[2].partition('_')[0]}", []).append(metric)
    return found


def scaling(fits: Fits) -> Table:
    """The fits of a sweep over budgets, a row each; where two cross is said below."""
    columns = (
        Column("row", "row", "text"),
        Column("E", "E, bits per byte", "bits", interval=True),
        Column("a", "a", "bits", interval=True),
        Column("budgets", "budgets", "count"),
        Column("misfit", "misfit", "number"),
    )
    rows = [
        Row(
            label,
            (
                *(Cell(label), Cell.of(fit.floor), Cell.of(fit.exponent)),
                *(Cell(len(fit.points)), Cell(fit.misfit, text=f"{fit.misfit:.1%}".replace("%", " %"))),
            ),
        )
        for label, fit in fits.rows.items()
    ]
    notes = (
        "bpb = E + A * FLOPs^-a over training FLOPs, the patcher's included; [95 %] over resamples of the documents.",
        "E is what no compute takes away, 0 or above: where its interval reaches 0, the budgets do not tell.",
        "Misfit: the largest relative distance of a measured budget from the curve.",
        *(crossing_text(crossing) for crossing in fits.crossings),
    )
    return Table(columns, tuple(rows), notes)


def best_sizes(optima: Sequence[Optimum]) -> Table:
    """The size that is best for a budget, a line for each row and budget, where a sweep was over sizes as well."""
    columns = (
        Column("row", "row", "text"),
        Column("train_flops", "train FLOPs", "si"),
        Column("non_embedding", "best non-embedding parameters", "si"),
        Column("train_bytes", "train bytes", "si"),
        Column("bytes_a_parameter", "bytes a parameter", "ratio", interval=True),
    )
    rows = []
    for found in optima:
        inside = found.ratio is not None
        words = None if inside else f"the {found.side} or beyond"
        ratio = Cell.of(found.ratio)
        cells = (Cell(found.parameters, text=words), Cell(found.train_bytes if inside else None), ratio)
        rows.append(Row(found.row, (Cell(found.row), Cell(found.compute), *cells)))
    notes = (
        "At a budget each size reads the bytes that it can pay for, and its own curve says what that gives; the "
        "best is where a parabola through the three best sizes is lowest, over the logarithm of parameters.",
        "Where the best is the smallest or the largest size, the optimum may lie beyond, and no ratio is given.",
    )
    return Table(columns, tuple(rows), notes)


def crossing_text(found: Crossing) -> str:
    """Where two rows cross, in a sentence."""
    one, other = found.rows
    second = other if found.lower_first == one else one
    if found.compute is None:
        beyond = "; the curves would meet beyond them, where nothing was measured" * (found.status == "extrapolated")
        return f"{one} and {other} do not cross inside the budgets: {found.lower_first} is lower{beyond}."
    ends = [number(end, "si") if isfinite(end) else "beyond" for end in (found.compute.low, found.compute.high)]
    return (
        f"{one} and {other} cross at {number(found.compute.value, 'si')} FLOPs [{ends[0]}, {ends[1]}]: "
        f"{found.lower_first} is lower before, {second} after."
    )


def _has(compared: Comparison, name: str) -> bool:
    """Whether any row has something in this column."""
    if name in ("bpb", "difference", "verdict"):
        return "bpb.bpb" in compared.metrics
    path = NUMBERS[name][2] if name in NUMBERS else name
    return "." not in path or any(compared.runs[label].values(path) for label in compared.shown)
