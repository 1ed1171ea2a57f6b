"""Line plots: sweeps with fits, and robustness over noise levels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.records.comparison import swept_row
from bench.records.record import dig
from bench.records.statistics import MARGIN
from bench.reporting.formats import Cell
from bench.reporting.plots import style
from bench.reporting.table import Comparison
from patchers.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.records.fits import Fits


@dataclass(frozen=True)
class Curve:
    """A row's values along x. Its `number` among the rows gives its colour, the same in each picture of a suite."""

    number: int
    label: str
    x: tuple[float, ...]
    y: tuple[Cell, ...]

    @property
    def values(self) -> list[float]:
        return [float(cell.value) if isinstance(cell.value, int | float) else math.nan for cell in self.y]


def draw_curves(axes: Axes, curves: Sequence[Curve], named: bool = True, joined: Sequence[bool] | None = None) -> None:
    """Lines with their intervals as bars, so that they can be told apart where they cross; points where not joined."""
    for curve, line in zip(curves, joined or [True] * len(curves), strict=True):
        at = curve.number
        colour = style.CYCLE[at % len(style.CYCLE)]
        low = [value if cell.low is None else cell.low for value, cell in zip(curve.values, curve.y, strict=True)]
        high = [value if cell.high is None else cell.high for value, cell in zip(curve.values, curve.y, strict=True)]
        axes.vlines(curve.x, low, high, color=colour, lw=1.3, alpha=0.5)
        axes.plot(
            *(curve.x, curve.values),
            color=colour, lw=1.5, ms=4.5, marker=style.MARKERS[at % len(style.MARKERS)],
            ls=style.DASHES[at // len(style.CYCLE) % len(style.DASHES)] if line else "",
        )  # fmt: skip
    if named and curves:
        name_at_the_end(axes, curves)


def name_at_the_end(axes: Axes, curves: Sequence[Curve]) -> None:
    figure = axes.figure
    figure.canvas.draw()
    ends = [(curve.x[-1], curve.values[-1]) for curve in curves]
    heights = [float(axes.transData.transform(end)[1]) for end in ends]
    right = max(end[0] for end in ends)
    for at, y in enumerate(style.spread(heights, gap=figure.dpi * 10.5 / 72)):
        axes.annotate(
            *(curves[at].label, (right, ends[at][1])),
            xytext=(8, (y - heights[at]) * 72 / figure.dpi), textcoords="offset points", va="center",
            fontsize=style.FONT, color=style.CYCLE[curves[at].number % len(style.CYCLE)], annotation_clip=False,
        )  # fmt: skip


# --- sweeps


def bases(compared: Comparison) -> dict[str, list[str]]:
    """The rows of a sweep by the row that they are made of, and by what else was swept; nothing without a sweep."""
    found: dict[str, list[str]] = {}
    for label in compared.shown:
        base = swept_row(compared.runs[label].any_record)
        if base is not None:
            found.setdefault(base, []).append(label)
    return found


KEYS = {"train.bytes": "bytes of training", "train_flops": "training FLOPs", "bytes_per_patch": "bytes per patch"}


def gap(compared: Comparison, title: str) -> Figure | None:
    """The paired difference of each row to the reference's row, at each value that was swept."""
    swept = bases(compared)
    if len(swept) < 2 or compared.reference is None or "bpb.bpb" not in compared.metrics:
        return None
    reference = next((base for base, labels in swept.items() if compared.reference in labels), next(iter(swept)))
    to = {_value(compared, label): label for label in swept[reference]}
    curves = []
    for number, (base, labels) in enumerate(swept.items()):
        pairs = {_value(compared, label): label for label in labels if _value(compared, label) in to}
        found = {value: _difference(compared, label, to[value]) for value, label in pairs.items() if base != reference}
        line = [(x, cell) for x, cell in sorted(found.items()) if cell.value is not None]
        if len(line) > 1:
            curves.append(Curve(number, base, tuple(x for x, _ in line), tuple(cell for _, cell in line)))
    if not curves:
        return None
    figure, axes = style.new_figure()
    style.scaled(axes, [x for curve in curves for x in curve.x], logarithmic=True)
    axes.axhspan(-MARGIN, MARGIN, color=style.LINE, alpha=0.5, lw=0, zorder=0)
    axes.axhline(0, color=style.DIM, lw=0.9, zorder=1)
    key = _key(compared)
    axes.set_xlabel(KEYS.get(key, key))
    axes.set_ylabel(f"difference to {reference}, bits per byte (lower is better)")
    axes.set_title(title)
    draw_curves(axes, curves)
    return figure


def _value(compared: Comparison, label: str) -> float:
    return float(dig(compared.runs[label].any_record, "config.sweep.value"))


def _key(compared: Comparison) -> str:
    label = next(label for labels in bases(compared).values() for label in labels)
    return str(dig(compared.runs[label].any_record, "config.sweep.key"))


def _difference(compared: Comparison, label: str, reference: str) -> Cell:
    scores = compared.scores("bpb.bpb")
    both = label in scores and reference in scores
    return Cell.of(compared.bootstrap("bpb.bpb").difference(label, reference) if both else None)


def fits_of(compared: Comparison) -> Fits | None:
    """L = E + A * C^-a for each row of a sweep over budgets; None where the records are of no such sweep."""
    from bench.records import fits

    try:
        return fits.fits_of(compared.records, resamples=compared.resamples)
    except BenchError:  # no sweep, or too few budgets: then points and lines are all there is to show
        return None


def draw_fits(axes: Axes, curves: Sequence[Curve], fits: Fits) -> None:
    """Points with their intervals, the fitted curves with theirs, and a ring where two of them cross."""
    draw_curves(axes, curves, joined=[curve.label not in fits.rows for curve in curves])
    for curve in curves:
        if curve.label in fits.rows:
            colour = style.CYCLE[curve.number % len(style.CYCLE)]
            compute, losses, low, high = zip(*fits.rows[curve.label].band(), strict=True)
            axes.plot(compute, losses, color=colour, lw=1.5, zorder=2)
            axes.fill_between(compute, low, high, color=colour, alpha=0.06, lw=0, zorder=0)
    for crossing in fits.crossings:
        if crossing.compute is not None:
            loss = float(fits.rows[crossing.rows[0]].laws.at(np.array([crossing.compute.value]))[0, 0])
            axes.plot([crossing.compute.value], [loss], "o", ms=11, mfc="none", mec=style.INK, mew=0.9, zorder=5)


# --- noise

LEVEL = re.compile(r"noise\.on_(\d+(?:\.\d+)?)")


def noise(compared: Comparison, title: str) -> Figure | None:
    """Bits of noisy text per byte of the clean text, over all operators that have levels."""
    levels = {float(match[1]): metric for metric in compared.metrics if (match := LEVEL.fullmatch(metric))}
    if len(levels) < 2:
        return None
    table = compared.table(["row", *levels.values()])
    curves = []
    for number, row in enumerate(table.rows):
        cells = [(level, table.cell(row.label, metric)) for level, metric in sorted(levels.items())]
        line = [(level, cell) for level, cell in cells if cell.value is not None]
        if len(line) > 1:
            curves.append(Curve(number, row.label, tuple(x for x, _ in line), tuple(cell for _, cell in line)))
    if not curves:
        return None
    figure, axes = style.new_figure()
    axes.set_xticks(sorted(levels))
    axes.set_xlabel("noise, % of the letters or words")
    axes.set_ylabel("bits per byte of the clean text")
    axes.set_title(title)
    draw_curves(axes, curves)
    return figure


def noise_kinds(compared: Comparison, title: str) -> Figure | None:
    """The same for each operator, in panels side by side: what each costs more than the clean text."""
    values = [dig(compared.runs[label].any_record, "tasks.noise.values") or {} for label in compared.shown]
    found = sorted({match[1] for names in values for name in names if (match := OPERATOR.fullmatch(name))})
    if not found:
        return None
    columns = min(3, len(found))
    high = math.ceil(len(found) / columns)
    figure, panels = style.new_panels(high, columns, (style.SIZE[0], 0.9 + 1.5 * high))
    for panel, operator in zip(panels, found, strict=False):
        lines = [_of_operator(compared, number, operator) for number in range(len(compared.shown))]
        draw_curves(panel, [line for line in lines if line], named=False)
        panel.set_title(operator, fontsize=9, pad=4)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    for panel in panels[max(0, len(found) - columns) : len(found)]:
        panel.set_xlabel("noise, %")
        panel.tick_params(labelbottom=True)
    figure.supylabel("bits per byte of the clean text", fontsize=9, color=style.DIM)
    style.legend_of_lines(figure, compared.shown)
    return figure


OPERATOR = re.compile(r"on_([a-z][a-z_]*?)_(\d+(?:\.\d+)?)")


def _of_operator(compared: Comparison, number: int, operator: str) -> Curve | None:
    """The mean over seeds at each level; level 0 is the clean text."""
    runs = compared.runs[compared.shown[number]]
    names = {name for value in runs.values("tasks.noise.values") for name in value}
    levels = {float(m[2]): name for name in names if (m := OPERATOR.fullmatch(name)) and m[1] == operator}
    line = []
    for level, name in sorted(levels.items()):
        numbers = [
            value[name] for value in runs.values("tasks.noise.values") if isinstance(value.get(name), int | float)
        ]
        if numbers:
            line.append((level, Cell(float(np.mean(numbers)))))
    return Curve(number, runs.label, tuple(x for x, _ in line), tuple(cell for _, cell in line)) if line else None
