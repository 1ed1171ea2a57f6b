"""A heat map of a table of numbers between 0 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.reporting.formats import Table
from bench.reporting.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_map(table: Table, title: str) -> Figure:
    """A square a cell, darker for what is nearer to 1, with its number in it; the first column has the labels."""
    from matplotlib.colors import LinearSegmentedColormap

    labels, heads = [row.label for row in table.rows], [column.title for column in table.columns[1:]]
    values = np.array([[cell.value for cell in row.cells[1:]] for row in table.rows], np.float64)
    longest = max(map(len, labels + heads), default=0)
    margin = 1.2 + 0.08 * longest  # inches
    figure, axes = style.new_figure((margin + 0.44 * len(heads), margin + 0.36 * len(labels)))
    colours = LinearSegmentedColormap.from_list("paper to blue", [style.PAPER, style.BLUE])
    axes.pcolormesh(values, cmap=colours, vmin=0, vmax=1, edgecolors=style.PAPER, linewidth=1)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            ink, said = style.PAPER if value > 0.6 else style.INK, f"{value:.2f}".removeprefix("0")
            axes.text(x + 0.5, y + 0.5, said, ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(np.arange(len(heads)) + 0.5, heads, rotation=90)
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.tick_params(labelcolor=style.INK)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_title(title)
    return figure
