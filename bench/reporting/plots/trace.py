"""The plot of a trace, after BLT's patching figure (Pagnoni et al. 2024, figure 4)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.evaluation.trace import Trace, letter
from patchers.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_LINE = 72
"""Bytes a line of the picture: letters stay legible at the width of a page."""
MOST_LINES = 60
"""Of a picture: one of more takes minutes to lay out, and is two metres high."""
BARS = ("#d5e3f1", "#f5e2c8")
LINE, LIMIT, LATENT, WRITTEN = "#1f4e79", "#b03a2e", "#1e7d4b", "#7a1fa2"


def draw(made: Trace, path: Path) -> None:
    """Write it as PNG or SVG or whatever else the file's ending says.

    Raises BenchError for a trace without steps, or of more than a picture has room for.
    """
    from matplotlib.figure import Figure

    steps = made.steps
    if not steps:
        raise BenchError("there is nothing to draw: give a prompt, or let the model write some bytes")
    if len(steps) > MOST_LINES * PER_LINE:
        raise BenchError(
            f"a picture has room for {MOST_LINES * PER_LINE:,} bytes, got {len(steps):,}: give a shorter prompt, or "
            "leave the picture out"
        )
    lines = [range(a, min(a + PER_LINE, len(steps))) for a in range(0, len(steps), PER_LINE)]
    figure = Figure(figsize=(13, 1.75 * len(lines) + 1.1), layout="constrained")
    axes = figure.subplots(len(lines), squeeze=False)[:, 0]
    top = 1.15 * max(*_levels(made), made.threshold or 0.0, 1e-9)
    for axis, line in zip(axes, lines, strict=True):
        _line(axis, made, line, top)
    share = sum(s.flops for s in steps) / sum(s.flops_each_byte for s in steps)
    figure.suptitle(
        f"{made.patcher}: {made.latent_steps} latent steps for {len(steps)} bytes, "
        f"{share:.0%} of the FLOPs of one at each byte".replace("%", " %"),
        fontsize=12,
    )
    _legend(figure, made)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot write the picture {path}: {error}") from error


def _levels(made: Trace) -> list[float]:
    """What the line shows: the patcher's scores, or the entropy of the model's own prediction where it has none."""
    return [step.entropy if step.score is None else step.score for step in made.steps]


def _limit(made: Trace) -> float | None:
    """The threshold that the line is compared with."""
    return made.threshold if made.steps[0].score is not None else None


def _line(axis: Axes, made: Trace, line: range, top: float) -> None:
    """One line of text: its bars, its curve, its marks."""
    steps, levels = made.steps, _levels(made)
    patch = np.cumsum([step.start for step in steps])
    edges = [line.start, *(x for x in line[1:] if steps[x].start), line.stop]
    for begin, end in itertools.pairwise(edges):
        axis.axvspan(begin - 0.45, end - 0.55, color=BARS[int(patch[begin]) % 2], lw=0)
    axis.plot(line, [levels[x] for x in line], color=LINE, lw=1.3, marker=".", ms=4)
    limit = _limit(made)
    if limit is not None:
        axis.plot([line.start - 0.5, line.stop - 0.5], [limit, limit], color=LIMIT, lw=1, ls="--")
    # the latent step that a byte sets off runs after it and before the next
    ran = [x + 0.5 for x in line if "latent" in steps[x].parts]
    if ran:  # an empty plot that nothing clips would count as one at the figure's corner
        axis.plot(ran, [1.03 * top] * len(ran), ls="", marker="v", ms=6, color=LATENT, clip_on=False)
    axis.set_xlim(line.start - 0.5, line.start + PER_LINE - 0.5)
    axis.set_ylim(0, top)
    axis.set_xticks(line, [letter(steps[x].byte) for x in line], family="monospace", fontsize=10)
    for label, x in zip(axis.get_xticklabels(), line, strict=True):
        if steps[x].written:
            label.set_fontweight("bold")
            label.set_color(WRITTEN)
    axis.tick_params(axis="x", length=0)
    axis.tick_params(axis="y", labelsize=8)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _legend(figure: Figure, made: Trace) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    scored = made.steps[0].score is not None
    keys: dict[str, Line2D | Patch] = {
        made.score_name if scored else "entropy of the model's prediction in nats": Line2D(
            [], [], color=LINE, marker=".", lw=1.3
        )
    }
    limit = _limit(made)
    if limit is not None:
        keys[f"threshold {limit:.3g}"] = Line2D([], [], color=LIMIT, ls="--", lw=1)
    keys["patches"] = Patch(color=BARS[0])
    keys["latent step"] = Line2D([], [], color=LATENT, marker="v", ms=6, ls="")
    if any(step.written for step in made.steps):
        keys["bold: written by the model"] = Line2D([], [], color=WRITTEN, marker="$\\mathbf{a}$", ms=7, ls="")
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=len(keys), frameon=False, fontsize=9)
