"""Point plots of rows with intervals.

Leaky and pretrained rows are hollow, as they are marked in every table, and no frontier goes through them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.records.statistics import MARGIN
from bench.reporting.formats import Cell, Table, number
from bench.reporting.plots import style
from bench.reporting.plots.curves import Curve, bases, draw_curves, draw_fits, fits_of
from bench.reporting.table import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.records.fits import Fits

FAMILIES = {  # name -> colour, marker
    "causal cut": (style.BLUE, "o"),
    "priced cut": (style.ORANGE, "D"),
    "baseline": (style.INK, "s"),
    "leaky, not ranked": (style.DIM, "o"),
    "pretrained, ranked apart": (style.DIM, "*"),
}

APART = {"leaky": "leaky, not ranked", "pretrained": "pretrained, ranked apart"}
"""Families of rows that are marked: hollow, and on no frontier."""


@dataclass(frozen=True)
class Point:
    """A row in a picture."""

    label: str
    family: str
    x: float
    y: Cell

    @property
    def value(self) -> float:
        assert isinstance(self.y.value, int | float)
        return float(self.y.value)

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; the value twice where there is none."""
        return (self.value if self.y.low is None else self.y.low, self.value if self.y.high is None else self.y.high)


# --- rows as points


def points(table: Table, x: str) -> list[Point]:
    """The rows that have both numbers; the table needs the columns `model`, `price` and `bpb` as well.

    With a column `difference` the intervals are those of the paired differences, around the rows' own values.
    """
    paired = any(column.id == "difference" for column in table.columns)
    out = []
    for row in table.rows:
        across, up = table.cell(row.label, x).value, table.cell(row.label, "bpb")
        if isinstance(across, int | float) and isinstance(up.value, int | float):
            if paired:
                up = _around(up.value, table.cell(row.label, "difference"))
            out.append(Point(row.label, family(table, row.label), float(across), up))
    return out


def _around(value: float, difference: Cell) -> Cell:
    """The value, as uncertain as the difference is."""
    if not isinstance(difference.value, int | float) or difference.low is None or difference.high is None:
        return Cell(value)
    return Cell(value, value + difference.low - difference.value, value + difference.high - difference.value)


def family(table: Table, label: str) -> str:
    mark = next(row for row in table.rows if row.label == label).marked
    if mark in APART:
        return APART[mark]
    if table.cell(label, "model").value != "harness":
        return "baseline"
    return "causal cut" if table.cell(label, "price").value is None else "priced cut"


def frontier(found: Iterable[Point], better: int) -> list[Point]:
    """The rows that no other beats in both: lower bits per byte, and more (`better` 1) or less (-1) of x.

    Sorted by x; leaky and pretrained rows are not asked.
    """
    ranked = sorted((p for p in found if p.family not in APART.values()), key=lambda p: (-better * p.x, p.value))
    best: list[Point] = []
    for point in ranked:
        if not best or point.value < best[-1].value:
            best.append(point)
    return sorted(best, key=lambda p: p.x)


def scatter(
    compared: Comparison, title: str, *, x: str, axis: str, better: int = 0, logarithmic: bool = False
) -> Figure | None:
    """bpb against a column, a point a row; a line a row of a sweep. None with fewer than two points.

    `better` is the way along x that is better: -1 left, 1 right, 0 neither; with a way there is a frontier.
    """
    swept = bases(compared)
    columns = ["model", "price", x, "bpb", *([] if swept else ["difference"])]
    found = points(compared.table(columns), x) if "bpb.bpb" in compared.metrics else []
    if len(found) < 2:
        return None
    if swept and better > 0:
        return None  # a measured speed is not what was swept, and a line over it would mean nothing
    if swept:
        fits = fits_of(compared) if x == "train_flops" else None
        return _lines(swept, found, title, axis, logarithmic, fits)
    figure, axes = style.new_figure()
    style.scaled(axes, [p.x for p in found], logarithmic)
    for point in found:
        _draw_point(axes, point)
    if better:
        _draw_frontier(axes, frontier(found, better), better)
    axes.set_xlabel(axis)
    axes.set_ylabel(f"bits per byte, lower is better (bars: difference to {compared.reference})")
    axes.set_title(title)
    axes.margins(0.12, 0.12)
    _legend(axes, [p.family for p in found])
    labels = [(p.x, p.value, p.label, FAMILIES[p.family][0]) for p in found]
    style.label_points(axes, labels, [(p.x, p.ends[0], p.x, p.ends[1]) for p in found])
    return figure


def _lines(
    swept: dict[str, list[str]], found: Sequence[Point], title: str, axis: str, logarithmic: bool, fits: Fits | None
) -> Figure | None:
    """A sweep: every row as a line over what was swept, where x moves with that."""
    of = {point.label: point for point in found}
    curves = []
    for at, (base, labels) in enumerate(swept.items()):
        line = sorted((of[label] for label in labels if label in of), key=lambda p: p.x)
        if len(line) > 1 and line[-1].x > 1.2 * line[0].x:
            curves.append(Curve(at, base, tuple(p.x for p in line), tuple(p.y for p in line)))
    if not curves:
        return None
    figure, axes = style.new_figure()
    style.scaled(axes, [x for curve in curves for x in curve.x], logarithmic)
    axes.set_xlabel(axis)
    axes.set_ylabel("bits per byte (lower is better)")
    axes.set_title(title)
    if fits is None:
        draw_curves(axes, curves)
    else:
        draw_fits(axes, curves, fits)
    return figure


def _draw_point(axes: Axes, point: Point) -> None:
    colour, marker = FAMILIES[point.family]
    low, high = point.ends
    face = style.PAPER if point.family in APART.values() else colour
    axes.plot([point.x, point.x], [low, high], color=colour, lw=1.4, alpha=0.55, zorder=2, solid_capstyle="butt")
    axes.plot([point.x], [point.value], marker, color=colour, markerfacecolor=face, ms=6, mew=1.3, zorder=4)


def _draw_frontier(axes: Axes, best: Sequence[Point], better: int) -> None:
    """Steps: what can be had at this x, or at a better one."""
    if len(best) < 2:
        return
    axes.step(
        *([p.x for p in best], [p.value for p in best]),
        where="post" if better < 0 else "pre",
        color=style.DIM, lw=1, ls=(0, (4, 2)), zorder=1, label="best at this cost",
    )  # fmt: skip


def _legend(axes: Axes, families: Sequence[str]) -> None:
    """What colours and shapes mean, where there is more than one."""
    from matplotlib.lines import Line2D

    used = [name for name in FAMILIES if name in families]
    if len(used) < 2:
        return
    handles: list[Any] = []
    for name in used:
        colour, marker = FAMILIES[name]
        face = style.PAPER if name in APART.values() else colour
        handles.append(Line2D([], [], color=colour, marker=marker, markerfacecolor=face, ls="", ms=5, label=name))
    handles += [line for line in axes.get_lines() if str(line.get_label()).startswith("best")]
    axes.figure.legend(
        handles=handles, loc="outside lower left", ncols=5, fontsize=8, handletextpad=0.3, columnspacing=1.2
    )


# --- differences to a reference


def differences(compared: Comparison, title: str) -> Figure | None:
    """Each row's paired difference with its interval, the margin as a band."""
    if bases(compared) or "bpb.bpb" not in compared.metrics:
        return None  # a sweep is at many budgets: see `gap`
    table = compared.table(["model", "price", "difference"], sort="difference")
    to = next(c.title for c in table.columns if c.id == "difference")
    shown = [(row, table.cell(row.label, "difference")) for row in table.rows]
    found = [Point(row.label, family(table, row.label), 0, cell) for row, cell in shown if cell.value is not None]
    if len(found) < 2:
        return None
    figure, axes = style.new_figure((style.SIZE[0], 1.35 + 0.26 * len(found)))
    axes.axvspan(-MARGIN, MARGIN, color=style.LINE, alpha=0.5, lw=0, zorder=0)
    axes.axvline(0, color=style.DIM, lw=0.9, zorder=1)
    for at, point in enumerate(found):
        colour, marker = FAMILIES[point.family]
        face = style.PAPER if point.family in APART.values() else colour
        axes.plot(point.ends, [at, at], color=colour, lw=2, alpha=0.6, solid_capstyle="butt", zorder=2)
        axes.plot([point.value], [at], marker, color=colour, markerfacecolor=face, ms=6, mew=1.3, zorder=3)
        axes.annotate(
            *(point.y.text or number(point.value, "signed"), (1, at)),
            xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5,
        )  # fmt: skip
    axes.set_yticks(range(len(found)), [p.label for p in found])
    axes.tick_params(axis="y", labelcolor=style.INK)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{to}, bits per byte (left is better; the band is the margin of {MARGIN:g})")
    axes.set_title(title)
    _legend(axes, [p.family for p in found])
    return figure
