"""A heat map of a table of numbers between 0 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.reporting.formats import Table
from bench.reporting.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


AGREEMENT = "Where two patchers cut alike"
"""The title of the heat map of an agreement."""


def heat_map(table: Table, title: str) -> Figure:
    """A square a cell, darker for what is nearer to 1, with its number in it; the first column has the labels."""
    from matplotlib.patches import Rectangle

    labels, heads = [row.label for row in table.rows], [column.title for column in table.columns[1:]]
    values = np.array([[cell.value for cell in row.cells[1:]] for row in table.rows], np.float64)
    longest = max(map(len, labels + heads), default=0)
    margin = 1.2 + 0.08 * longest  # inches
    figure, axes = style.new_figure((margin + 0.44 * len(heads), margin + 0.36 * len(labels)))
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            # One colour, more or less opaque: a page may have it in the colours of its own theme.
            axes.add_patch(Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, color=style.BLUE, alpha=value, lw=0))
            ink, said = style.PAPER if value > 0.6 else style.INK, f"{value:.2f}".removeprefix("0")
            axes.text(x + 0.5, y + 0.5, said, ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(np.arange(len(heads)) + 0.5, heads, rotation=90)
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.tick_params(labelcolor=style.INK)
    axes.set_xlim(0, len(heads))
    axes.set_ylim(len(labels), 0)
    axes.grid(visible=False)
    axes.set_title(title)
    return figure
