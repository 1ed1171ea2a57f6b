"""Statistics of cuts: mean, median and p95 patch size, variation, share of boundaries on spaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from patchers import Starts
from patchers.base import as_array

SPACES = b" \t\n\v\f\r"


@dataclasses.dataclass(frozen=True)
class CutStatistics:
    """Lengths are in bytes; None where there is nothing to take them from."""

    bytes: int
    patches: int
    mean: float | None
    median: float | None
    p95: int | None
    """The least length that 95 % of the patches do not exceed."""
    variation: float | None
    """Coefficient of variation: standard deviation of the lengths over their mean."""
    on_spaces: float | None
    """Share of the boundaries with a space beside them: ASCII white space as the last byte before the boundary or
    the first after it. The beginning of a document is no boundary."""


def cut_statistics(docs: Sequence[bytes], starts: Sequence[Starts]) -> CutStatistics:
    """`starts[i]` is the cut of `docs[i]`, bool (len(docs[i]),), true at byte 0."""
    lengths = np.concatenate([np.diff(np.flatnonzero(s), append=len(s)) for s in starts] or [np.zeros(0, int)])
    boundaries = beside = 0
    for doc, cut in zip(docs, starts, strict=True):
        space = np.isin(as_array(doc), list(SPACES))
        boundaries += int(np.count_nonzero(cut[1:]))
        beside += int(np.count_nonzero(cut[1:] & (space[1:] | space[:-1])))
    if not len(lengths):
        return CutStatistics(0, 0, None, None, None, None, None)
    return CutStatistics(
        bytes=int(lengths.sum()),
        patches=len(lengths),
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p95=int(np.quantile(lengths, 0.95, method="inverted_cdf")),
        variation=float(lengths.std() / lengths.mean()),
        on_spaces=beside / boundaries if boundaries else None,
    )
