"""Terminal tables of fits, crossings and agreement."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from rich.table import Table

from bench.records.agreement import Agreement
from bench.records.compute_optimal import Optimum
from bench.records.fits import Crossing, Fits
from bench.records.statistics import RESAMPLES, Estimate


def tables(fits: Fits, optima: Sequence[Optimum]) -> list[Table]:
    """One of the curves, one of where they cross, and one of the best sizes where sizes were swept as well."""
    made = [_curves(fits)]
    if fits.crossings:
        made.append(_crossings(fits.crossings))
    return [*made, _sizes(optima)] if optima else made


def _curves(fits: Fits) -> Table:
    table = Table(title="bits per byte = E + A * FLOPs^-a")
    table.add_column("row")
    for name in ("budgets", "training FLOPs", "bpb", "E [95 %]", "a [95 %]", "A", "misfit"):
        table.add_column(name, justify="right")
    for fit in fits.rows.values():
        first, last = fit.points[0], fit.points[-1]
        table.add_row(
            fit.row,
            str(len(fit.points)),
            f"{first.compute:.2e} to {last.compute:.2e}",
            f"{first.loss.value:.3f} to {last.loss.value:.3f}",
            f"{interval(fit.floor)}{' (open)' if fit.floor_is_open else ''}",
            interval(fit.exponent),
            f"{fit.scale.value:.3g}",
            f"{fit.misfit:.2%}",
        )
    return table


def _crossings(crossings: Sequence[Crossing]) -> Table:
    table = Table(title="where rows cross")
    for name in ("rows", "lower with little compute", "cross at FLOPs [95 %]", "resamples that cross"):
        table.add_column(name, justify="left" if name == "rows" else "right")
    for found in crossings:
        table.add_row(" and ".join(found.rows), found.lower_first, place(found), f"{found.share:.0%}")
    return table


def place(found: Crossing) -> str:
    """Where two rows cross, in words."""
    if found.compute is not None:
        low, high = (f"{end:.2e}" if isfinite(end) else "beyond" for end in (found.compute.low, found.compute.high))
        return f"{found.compute.value:.2e} [{low}, {high}]"
    return "nowhere" if found.status == "none" else "only beyond what was measured"


def _sizes(optima: Sequence[Optimum]) -> Table:
    table = Table(title="the size that is best for a budget")
    for name in ("row", "training FLOPs", "parameters", "bytes", "bytes a parameter [95 %]"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for found in optima:
        known = found.side is None
        table.add_row(
            found.row,
            f"{found.compute:.2e}",
            f"{found.parameters:.3g}" if known else f"the {found.side} size",
            f"{found.train_bytes:.3g}" if known else "",
            interval(found.ratio) if found.ratio is not None else "not bracketed",
        )
    return table


def interval(found: Estimate) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def notes(fits: Fits, optima: Sequence[Optimum]) -> list[str]:
    said = [
        f"Intervals: bootstrap over documents ({RESAMPLES:,} resamples, the same documents in all rows and budgets), "
        "Student's t over seeds where there are several. They do not hold what another seed would have given where "
        "there is one, nor that a curve need not be a power law (misfit: the largest distance of a budget from it).",
        "FLOPs: of training, three times the forward pass for what is trained, and once the patcher's.",
    ]
    if any(fit.floor_is_open for fit in fits.rows.values()):
        said.append("E (open): the budgets do not tell it from 0, the least that it can be.")
    if any(found.status == "extrapolated" for found in fits.crossings):
        said.append("Only beyond what was measured: the curves cross where nothing was trained; no number is given.")
    if any(found.compute is not None for found in fits.crossings):
        said.append("beyond: that end of the interval lies outside of the budgets that both rows were measured at.")
    if any(found.side for found in optima):
        said.append("Not bracketed: the best of the sizes is the smallest or the largest; the optimum may lie further.")
    return said


def agreement_table(found: Agreement, small: str, large: str) -> Table:
    """The pairs of rows that the large suite tells apart."""
    table = Table(title=f"pairs of rows that {large} tells apart, in {small}")
    for name in ("rows", large, small, "counts"):
        table.add_column(name, justify="right" if name == "counts" else "left")
    for pair in found.decided:
        a, b = pair.rows
        words = {"better": f"{a} is better", "worse": f"{b} is better", "unclear": "cannot tell"}
        table.add_row(f"{a}, {b}", words[pair.large], words[pair.small], f"{pair.score:g}")
    return table


def agreement_text(found: Agreement, small: str, large: str) -> str:
    """The figures in a sentence."""
    if not found.decided:
        return (
            f"{large} tells none of {len(found.pairs)} pairs of rows apart, so nothing can be said of {small}; run it "
            "with more seeds or longer texts"
        )
    return (
        f"{small} orders {interval(found.share)} of the {len(found.decided)} pairs that {large} tells apart "
        f"(of {len(found.pairs)}) in the same way, pairs that it cannot tell counted as half; "
        f"Kendall's tau {found.tau:.2f}."
    )
