"""Pictures of rows that are compared: pure functions, with intervals drawn and names beside what they name.

All that is shown comes from tables (`bench.table`), which refuses what cannot be compared. Leaky rows are hollow, as
they are marked in every table, and no frontier goes through them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import plot_style as style
from bench.render import Cell, Table, number
from bench.stats import MARGIN
from bench.table import Comparison
from patchers.errors import BenchError
from patchers.registry import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = {  # name -> colour, marker
    "causal cut": (style.BLUE, "o"),
    "priced cut": (style.ORANGE, "D"),
    "baseline": (style.INK, "s"),
    "leaky, not ranked": (style.DIM, "o"),
}


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


@dataclass(frozen=True)
class Kind:
    """A picture that can be made of the records of a suite."""

    title: str
    what: str
    """For who cannot see it, and for the list of kinds."""

    draw: Callable[[Kind, Comparison], Figure | None]
    """None where the records have nothing of this."""

    caption: str
    """What to look for."""

    x: str = ""
    """The column along the bottom."""

    axis: str = ""
    better: int = 0
    """Which way along x is better: -1 left, 1 right, 0 neither; with a way the picture has a frontier."""

    logarithmic: bool = False


def plot(compared: Comparison, kind: str) -> Figure:
    """The picture of this kind. Raises BenchError for an unknown kind, and where the records have nothing of it."""
    if kind not in KINDS:
        raise BenchError(f"unknown kind of plot {kind!r}{nearest(kind, list(KINDS))}; there are: {', '.join(KINDS)}")
    figure = drawn(compared, kind)
    if figure is None:
        raise BenchError(f"the records have nothing to draw for {kind!r} ({KINDS[kind].what}); choose another --kind")
    return figure


def drawn(compared: Comparison, kind: str, **settings: Any) -> Figure | None:
    """The same, and None where the records have nothing of it."""
    with style.styled(**settings):
        return KINDS[kind].draw(KINDS[kind], compared)


# --- rows as points


def points(table: Table, x: str, y: str = "bpb") -> list[Point]:
    """The rows that have both numbers; the table needs the columns `model` and `price` as well."""
    out = []
    for row in table.rows:
        across, up = table.cell(row.label, x).value, table.cell(row.label, y)
        if isinstance(across, int | float) and isinstance(up.value, int | float):
            out.append(Point(row.label, family(table, row.label), float(across), up))
    return out


def family(table: Table, label: str) -> str:
    if next(row for row in table.rows if row.label == label).marked == "leaky":
        return "leaky, not ranked"
    if table.cell(label, "model").value != "harness":
        return "baseline"
    return "causal cut" if table.cell(label, "price").value is None else "priced cut"


def frontier(found: Iterable[Point], better: int) -> list[Point]:
    """The rows that no other beats in both: lower bits per byte, and more (`better` 1) or less (-1) of x.

    Sorted by x; leaky rows are not asked.
    """
    ranked = sorted((p for p in found if p.family != "leaky, not ranked"), key=lambda p: (-better * p.x, p.value))
    best: list[Point] = []
    for point in ranked:
        if not best or point.value < best[-1].value:
            best.append(point)
    return sorted(best, key=lambda p: p.x)


def _scatter(kind: Kind, compared: Comparison) -> Figure | None:
    """bpb against another column, a point a row."""
    table = compared.table(["model", "price", kind.x, "bpb"])
    found = points(table, kind.x)
    if len(found) < 2:
        return None
    figure, axes = style.new_figure()
    _scaled(axes, [p.x for p in found], kind.logarithmic)
    for point in found:
        _draw_point(axes, point)
    if kind.better:
        _draw_frontier(axes, frontier(found, kind.better), found, kind.better)
    axes.set_xlabel(kind.axis)
    axes.set_ylabel("bits per byte (lower is better)")
    axes.set_title(kind.title)
    axes.margins(0.12, 0.12)
    _legend(axes, [p.family for p in found])
    labels = [(p.x, p.value, p.label, FAMILIES[p.family][0]) for p in found]
    style.label_points(axes, labels, [(p.x, p.ends[0], p.x, p.ends[1]) for p in found])
    return figure


def _draw_point(axes: Axes, point: Point) -> None:
    colour, marker = FAMILIES[point.family]
    low, high = point.ends
    face = style.PAPER if point.family == "leaky, not ranked" else colour
    axes.plot([point.x, point.x], [low, high], color=colour, lw=1.4, alpha=0.55, zorder=2, solid_capstyle="butt")
    axes.plot([point.x], [point.value], marker, color=colour, markerfacecolor=face, ms=6, mew=1.3, zorder=4)


def _draw_frontier(axes: Axes, best: Sequence[Point], found: Sequence[Point], better: int) -> None:
    """Steps: what can be had at this x, or at a better one."""
    if len(best) < 2:
        return
    axes.step(
        *([p.x for p in best], [p.value for p in best]),
        where="post" if better < 0 else "pre",
        color=style.DIM, lw=1, ls=(0, (4, 2)), zorder=1, label="best at this cost",
    )  # fmt: skip


def _scaled(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """Logarithmic where the values span more than a factor of two; with the round numbers that there is room for."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if not logarithmic or max(values) < 2 * min(values):
        return
    axes.set_xscale("log")
    low, high = min(values) / 1.2, max(values) * 1.2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**power for power in powers for d in digits if low <= d * 10.0**power <= high]
        if len(ticks) <= 9:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    """As `si` writes it, without zeros at the end."""
    return re.sub(r"\.?0+(?=[kMGTPE]?$)", "", text) if "." in (text := number(value, "si")) else text


def _legend(axes: Axes, families: Sequence[str]) -> None:
    """What colours and shapes mean, where there is more than one."""
    from matplotlib.lines import Line2D

    used = [name for name in FAMILIES if name in families]
    if len(used) < 2:
        return
    handles: list[Any] = []
    for name in used:
        colour, marker = FAMILIES[name]
        face = style.PAPER if name == "leaky, not ranked" else colour
        handles.append(Line2D([], [], color=colour, marker=marker, markerfacecolor=face, ls="", ms=5, label=name))
    handles += [line for line in axes.get_lines() if str(line.get_label()).startswith("best")]
    axes.figure.legend(
        handles=handles, loc="outside lower left", ncols=5, fontsize=8, handletextpad=0.3, columnspacing=1.2
    )


# --- differences to a reference


def _differences(kind: Kind, compared: Comparison) -> Figure | None:
    """Each row's paired difference with its interval, the margin as a band."""
    table = compared.table(["model", "price", "difference"], sort="difference")
    title = next(c.title for c in table.columns if c.id == "difference")
    shown = [(row, table.cell(row.label, "difference")) for row in table.rows]
    found = [Point(row.label, family(table, row.label), 0, cell) for row, cell in shown if cell.value is not None]
    if len(found) < 2:
        return None
    figure, axes = style.new_figure((style.SIZE[0], 1.35 + 0.26 * len(found)))
    axes.axvspan(-MARGIN, MARGIN, color=style.LINE, alpha=0.5, lw=0, zorder=0)
    axes.axvline(0, color=style.DIM, lw=0.9, zorder=1)
    for at, point in enumerate(found):
        colour, marker = FAMILIES[point.family]
        face = style.PAPER if point.family == "leaky, not ranked" else colour
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
    axes.set_xlabel(f"{title}, bits per byte (left is better; the band is the margin of {MARGIN:g})")
    axes.set_title(kind.title)
    _legend(axes, [p.family for p in found])
    return figure


# --- curves


@dataclass(frozen=True)
class Curve:
    """A row's values along x."""

    label: str
    x: tuple[float, ...]
    y: tuple[Cell, ...]


def _curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Lines with their intervals as bands, each named at its end."""
    for at, curve in enumerate(curves):
        colour = style.CYCLE[at % len(style.CYCLE)]
        values = [float(cell.value or 0) for cell in curve.y]
        ends = [(cell.low, cell.high) for cell in curve.y]
        axes.plot(
            *(curve.x, values),
            color=colour, lw=1.6, ms=4.5, marker=style.MARKERS[at % len(style.MARKERS)],
            ls=style.DASHES[at // 2 % len(style.DASHES)], label=curve.label,
        )  # fmt: skip
        low = [math.nan if a is None else a for a, _ in ends]
        high = [math.nan if b is None else b for _, b in ends]
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.12, lw=0)
    _name_at_the_end(axes, curves)


def _name_at_the_end(axes: Axes, curves: Sequence[Curve]) -> None:
    figure = axes.figure
    figure.canvas.draw()
    ends = [axes.transData.transform((curve.x[-1], float(curve.y[-1].value or 0)))[1] for curve in curves]
    gap = figure.dpi * 10 / 72
    for at, (curve, y) in enumerate(zip(curves, style.spread(ends, gap), strict=True)):
        axes.annotate(
            *(curve.label, (curve.x[-1], float(curve.y[-1].value or 0))),
            xytext=(7, (y - ends[at]) * 72 / figure.dpi), textcoords="offset points", va="center", fontsize=8.5,
            color=style.CYCLE[at % len(style.CYCLE)], annotation_clip=False,
        )  # fmt: skip


KINDS: dict[str, Kind] = {
    "differences": Kind(
        "Who wins, and by how much",
        "each row's paired difference to the reference",
        _differences,
        "Paired by document and by seed. An interval that stays outside of the grey band is a difference that matters.",
    ),
    "train_flops": Kind(
        "Bits per byte and training compute",
        "bits per byte against training FLOPs",
        _scatter,
        "Three times the forward pass for what is trained, once for what only cuts. Bars are the 95 % interval of a "
        "row by itself; whether two rows differ is in the paired differences.",
        x="train_flops",
        axis="training FLOPs, patcher included",
        logarithmic=True,
    ),
    "patch_size": Kind(
        "Bits per byte and patch size",
        "bits per byte against the mean patch",
        _scatter,
        "As patches fell in the test text. Rows above each other have the same compute, and differ in where they cut.",
        x="bytes_per_patch",
        axis="bytes per patch, test split",
    ),
    "inference_flops": Kind(
        "Bits per byte and the compute of a forward pass",
        "bits per byte against forward FLOPs per byte",
        _scatter,
        "Down and to the left is better: along the dashed line no row is both cheaper and better.",
        x="flops_per_byte",
        axis="forward FLOPs per byte (left is cheaper)",
        better=-1,
        logarithmic=True,
    ),
    "train_speed": Kind(
        "Bits per byte and speed of training",
        "bits per byte against measured training bytes per second",
        _scatter,
        "Down and to the right is better. Measured on the machine that the notes name; other machines differ.",
        x="train_bytes_per_second",
        axis="training bytes per second, measured (right is faster)",
        better=1,
        logarithmic=True,
    ),
    "decode_speed": Kind(
        "Bits per byte and speed of writing",
        "bits per byte against measured bytes written per second",
        _scatter,
        "Down and to the right is better. Measured on the machine that the notes name, one document at a time.",
        x="decode_rate",
        axis="bytes written per second, measured (right is faster)",
        better=1,
        logarithmic=True,
    ),
}
