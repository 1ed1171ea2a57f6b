"""The plot `channels`: gains by telling and by placement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.records.comparison import is_control
from bench.records.statistics import MARGIN
from bench.reporting.channels import CHANNELS, channels_table
from bench.reporting.plots import style
from bench.reporting.table import Comparison
from patchers.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = {"placed": (style.BLUE, "o"), "told": (style.ORANGE, "D"), "both": (style.GREEN, "s")}
"""Of each channel its colour and marker."""
NEITHER = (style.DIM, "X")
"""Those of models without patches."""
APART = 0.22
"""Of a row's height, between two channels."""


def channels(compared: Comparison, title: str) -> Figure | None:
    """A line a cut, on it a point a channel with its interval; None where the records are of no such suite."""
    from matplotlib.lines import Line2D

    try:
        table = channels_table(compared)
    except BenchError:
        return None
    figure, axes = style.new_figure((style.SIZE[0], 1.6 + 0.5 * len(table.rows)))
    axes.axvspan(-MARGIN, MARGIN, color=style.LINE, alpha=0.5, lw=0, zorder=0)
    axes.axvline(0, color=style.DIM, lw=0.9, zorder=1)
    for at, row in enumerate(table.rows):
        cells = [table.cell(row.label, channel) for channel in CHANNELS]
        run = compared.runs.get(row.label)  # a cut's row has the name of its patcher
        neither = run is not None and bool(run.records) and is_control(run.any_record)
        for number, (cell, look) in enumerate(zip(cells, LOOKS.values(), strict=True)):
            if not isinstance(cell.value, int | float):
                continue
            colour, marker = NEITHER if neither else look
            y = at if neither else at + (number - 1) * APART
            if cell.low is not None and cell.high is not None:
                axes.plot([cell.low, cell.high], [y, y], color=colour, lw=2, alpha=0.6, solid_capstyle="butt", zorder=2)
            axes.plot([cell.value], [y], marker, color=colour, ms=5.5, zorder=3)
    axes.set_yticks(range(len(table.rows)), [str(row.cells[0].value) for row in table.rows])
    axes.tick_params(axis="y", labelcolor=style.INK)
    axes.set_ylim(len(table.rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"bits per byte gained over plain stride; right is better (band: {MARGIN:g})")
    axes.set_title(title)
    looks = {**LOOKS, "neither": NEITHER}
    handles = [Line2D([], [], color=c, marker=m, ls="", ms=5, label=name) for name, (c, m) in looks.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8, handletextpad=0.3)
    return figure
