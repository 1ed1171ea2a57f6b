"""The kinds of plots, by name.

All that is shown comes from tables (`bench.reporting.table`), which refuse what cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.reporting.plots import style
from bench.reporting.plots.channels import channels
from bench.reporting.plots.curves import gap, noise, noise_kinds
from bench.reporting.plots.rows import differences, scatter
from bench.reporting.table import Comparison
from patchers.errors import BenchError
from patchers.named import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """A picture that can be made of the records of a suite."""

    title: str
    what: str
    """For who cannot see it, and for the list of kinds."""

    caption: str
    """What to look for."""

    draw: Callable[[Comparison, str], Figure | None]
    """From what is compared, and the title; None where the records have nothing of this."""


def plot(compared: Comparison, kind: str) -> Figure:
    """The picture of this kind. Raises BenchError for an unknown kind, and where the records have nothing of it."""
    if kind not in KINDS:
        raise unknown("kind of plot", kind, KINDS)
    figure = drawn(compared, kind)
    if figure is None:
        raise BenchError(f"the records have nothing to draw for {kind!r} ({KINDS[kind].what}); choose another --kind")
    return figure


def drawn(compared: Comparison, kind: str, **settings: Any) -> Figure | None:
    """The same, and None where the records have nothing of it. `settings` are matplotlib's."""
    with style.styled(**settings):
        return KINDS[kind].draw(compared, KINDS[kind].title)


KINDS: dict[str, Kind] = {
    "differences": Kind(
        "Who wins, and by how much",
        "each row's paired difference to the reference",
        "Paired by document and by seed. An interval that stays outside of the grey band is a difference that matters.",
        differences,
    ),
    "train_flops": Kind(
        "Bits per byte and training compute",
        "bits per byte against training FLOPs",
        "Three times the forward pass for what is trained, once for what only cuts. Bars are the 95 % interval of the "
        "paired difference to the reference, which has none. Where budgets were swept, bars are of a row by itself, "
        "the lines are fits of bpb = E + A·FLOPs^-a with their 95 % bands, and a ring marks where two of them cross.",
        partial(scatter, x="train_flops", axis="training FLOPs, patcher included", logarithmic=True),
    ),
    "gap": Kind(
        "Who wins, and where it turns",
        "each row's paired difference to the reference's, along what was swept",
        "Paired by document and by seed at each point. Below the grey band a row is better than the reference.",
        gap,
    ),
    "patch_size": Kind(
        "Bits per byte and patch size",
        "bits per byte against the mean patch",
        "As patches fell in the test text. Rows above each other have the same compute, and differ in where they cut.",
        partial(scatter, x="bytes_per_patch", axis="bytes per patch, test split"),
    ),
    "inference_flops": Kind(
        "Bits per byte and the compute of a forward pass",
        "bits per byte against forward FLOPs per byte",
        "Down and to the left is better: along the dashed line no row is both cheaper and better.",
        partial(
            scatter,
            x="flops_per_byte",
            axis="forward FLOPs per byte (left is cheaper)",
            better=-1,
            logarithmic=True,
        ),
    ),
    "train_speed": Kind(
        "Bits per byte and speed of training",
        "bits per byte against measured training bytes per second",
        "Down and to the right is better. Measured on the machine that the notes name; other machines differ.",
        partial(
            scatter,
            x="train_bytes_per_second",
            axis="training bytes per second, measured (right is faster)",
            better=1,
            logarithmic=True,
        ),
    ),
    "decode_speed": Kind(
        "Bits per byte and speed of writing",
        "bits per byte against measured bytes written per second",
        "Down and to the right is better. Measured on the machine that the notes name, one document at a time.",
        partial(
            scatter,
            x="decode_rate",
            axis="bytes written per second, measured (right is faster)",
            better=1,
            logarithmic=True,
        ),
    ),
    "channels": Kind(
        "What a cut tells, and what it places",
        "each cut's gain over plain stride by what it tells, by where it places latent steps, and by both",
        "Paired by document and by seed. Told: no latent step follows BOS. Placed: the local model is told nothing.",
        channels,
    ),
    "noise": Kind(
        "Bits per byte and noise",
        "bits of noisy text per byte of the clean text, over levels of noise",
        "All kinds of noise together; 0 is the clean text. The flatter the line, the less noise costs.",
        noise,
    ),
    "noise_kinds": Kind(
        "Bits per byte and each kind of noise",
        "bits of noisy text per byte of the clean text, a panel for each kind of noise",
        "Means over seeds. What each kind does to a text is in the records.",
        noise_kinds,
    ),
}
