"""The style of all plots: colours, axes, labels, and files that are the same for the same records.

Colours are those of Okabe and Ito, which the colour-blind tell apart, darkened where they must carry thin lines on
white; shapes and dashes say the same without colour. Legend: x, y in pixels of the figure unless said otherwise.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.reporting.formats import number
from patchers.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Side = Literal["left", "center", "right"]

INK, DIM, LINE, PAPER = "#1d2329", "#5c6670", "#d9d6ce", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, OCHRE = (
    *("#0068a8", "#c75000", "#00805c", "#a6437c", "#2f8fc4", "#9c2f2f", "#8a7400"),
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, OCHRE, RED, DIM)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
SIZE = (6.4, 4.2)
"""Inches: at 96 dots an inch as wide as a column of text."""

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": DIM,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": DIM,
    "ytick.color": DIM,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.hashsalt": "patchbench",
}


@contextmanager
def styled(**changes: Any) -> Iterator[None]:
    """matplotlib with our settings and nobody else's."""
    import matplotlib  # half a second

    settings: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    del settings["backend"]  # which need not be there
    settings.update(RC | changes)
    with matplotlib.rc_context(settings):
        yield


def new_figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=100)
    FigureCanvasAgg(figure)  # which measures texts; files are written by their own
    return figure, figure.add_subplot()


def new_panels(lines: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Panels with the same axes, line by line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel())


def write(figure: Figure, path: Path) -> None:
    """As what the file's name ends in. The same content gives the same bytes. Raises BenchError for what cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with styled():  # the salt of an SVG's ids is taken now
            figure.savefig(path, dpi=200, metadata=_metadata(path.suffix.lower().removeprefix(".")))
    except ValueError as error:
        raise BenchError(f"cannot write {path}: {error}; end the name in .svg, .png or .pdf") from error
    except OSError as error:
        raise BenchError(f"cannot write the picture {path}: {error.strerror or error}; give another file") from error


def as_svg(figure: Figure, **settings: Any) -> str:
    """The `<svg>` element alone, for a page. `settings` are those that the picture was drawn with."""
    out = io.StringIO()
    with styled(**settings):
        figure.savefig(out, format="svg", metadata=_metadata("svg"))
    text = out.getvalue()
    return text[text.index("<svg") :].strip()


def as_png(figure: Figure) -> bytes:
    """For a notebook."""
    out = io.BytesIO()
    with styled():
        figure.savefig(out, format="png", dpi=110, metadata=_metadata("png"))
    return out.getvalue()


def _metadata(kind: str) -> dict[str, Any]:
    """Without the date, and without the version of matplotlib."""
    return {
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }.get(kind, {})


# --- axes


def scaled(axes: Axes, values: Sequence[float], logarithmic: bool) -> None:
    """Logarithmic where the values span more than a factor of two; with the round numbers that there is room for."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    formatter = FuncFormatter(lambda value, _: _short(value))
    axes.xaxis.set_major_formatter(formatter)
    if not logarithmic or max(values) < 2 * min(values):
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(formatter)
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


def legend_of_lines(figure: Figure, labels: Sequence[str]) -> None:
    """Below the picture, where lines cannot be named at their ends; colours and shapes as `CYCLE` and `MARKERS`."""
    from matplotlib.lines import Line2D

    lines = []
    for at, label in enumerate(labels):
        marker, dashes = MARKERS[at % len(MARKERS)], DASHES[at // len(CYCLE) % len(DASHES)]
        lines.append(Line2D([], [], color=CYCLE[at % len(CYCLE)], marker=marker, ls=dashes, ms=4.5, label=label))
    figure.legend(handles=lines, loc="outside lower left", ncols=5, fontsize=8, handletextpad=0.4, columnspacing=1.2)


# --- labels beside what they name


Boxes = NDArray[np.float64]
"""(left, low, right, high) along the last axis, in pixels."""


def overlaps(box: Boxes, others: Boxes) -> NDArray[np.float64]:
    """(K,): pixels that a box (4,) covers of each of others (K, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=1)


# Where a label may stand, the best first: (x, y) in font heights from its point, and which of its sides is there.
PLACES: tuple[tuple[float, float, Side], ...] = (
    *((0.7, 0.0, "left"), (-0.7, 0.0, "right"), (0.0, 1.0, "center"), (0.0, -1.0, "center")),
    *((0.7, 0.8, "left"), (0.7, -0.8, "left"), (-0.7, 0.8, "right"), (-0.7, -0.8, "right")),
    *((1.0, y, "left") for y in (1.7, -1.7, 2.6, -2.6, 3.5, -3.5)),
    *((-1.0, y, "right") for y in (1.7, -1.7, 2.6, -2.6, 3.5, -3.5)),
)
FONT = 8.5  # points
NEAR = 8
"""So many of the places are so near that no line to the point is needed."""


def label_points(
    axes: Axes, points: Sequence[tuple[float, float, str, str]], avoid: Sequence[tuple[float, float, float, float]] = ()
) -> None:
    """Put a text beside each point (x, y, text, colour; in data), where it covers as little as can be.

    `avoid` are further bars (x, low, x, high; in data), such as intervals.
    """
    figure = axes.figure
    figure.canvas.draw()  # the layout is settled here
    to_pixels: Any = axes.transData.transform
    height = figure.dpi * FONT / 72
    centres, around = to_pixels([(x, y) for x, y, _, _ in points]), height * 0.35
    markers = np.hstack((centres - around, centres + around))
    bars = to_pixels(np.reshape(avoid, (-1, 2))).reshape(-1, 4) + np.array([-1, 0, 1, 0])  # a pixel wide on each side
    taken = np.concatenate((markers, bars))
    frame = axes.get_window_extent()
    room = np.array([frame.x0, frame.y0, figure.bbox.x1 - 2, frame.y1 + height])
    for x, y, text, colour in sorted(points, key=lambda p: -p[1]):
        drawn = axes.annotate(
            text, (x, y), (0, 0), textcoords="offset points", va="center", color=colour, fontsize=FONT, zorder=5
        )
        place = min(range(len(PLACES)), key=lambda i: (_cost(drawn, PLACES[i], taken, room, height), i))
        taken = np.vstack((taken, _moved(drawn, PLACES[place], height)))
        if place >= NEAR:
            dx, dy, _ = PLACES[place]
            px, py = to_pixels((x, y))
            x1, y1 = axes.transData.inverted().transform((px + 0.9 * dx * height, py + 0.9 * dy * height))
            axes.plot([x, x1], [y, y1], color=colour, lw=0.6, alpha=0.6, zorder=1, scalex=False, scaley=False)
    for text_drawn in axes.texts:
        text_drawn.set_in_layout(False)


def _moved(drawn: Text, place: tuple[float, float, Side], height: float) -> Boxes:
    """Where the label is once it stands there."""
    dx, dy, side = place
    drawn.set_horizontalalignment(side)
    drawn.set_position((dx * FONT, dy * FONT))
    return np.array(drawn.get_window_extent().padded(1, 0).extents)


def _cost(drawn: Text, place: tuple[float, float, Side], taken: Boxes, room: Boxes, height: float) -> int:
    box = _moved(drawn, place, height)
    inside, own = overlaps(box, np.stack((room, box)))
    return round(float(overlaps(box, taken).sum() + 4 * (own - inside)))


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions near those wanted, in the same order, at least `gap` apart: for labels at the ends of lines."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    apart = gap * np.arange(len(wanted))
    placed = np.empty(len(wanted))
    placed[order] = isotonic_regression(np.array(wanted, float)[order] - apart).x + apart
    return placed.tolist()
