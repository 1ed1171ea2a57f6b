"""Checks of the patcher contract on large batches, long documents, thousands of calls, a fresh process, and costs.

Each of these rules has been broken by a patcher that the short checks called sound. A rule looks at as much as its time
allows, and says how much that was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from patchers.audit_apart import check_fresh_process
from patchers.base import Patcher
from patchers.costs import claimed, measured
from patchers.errors import BenchError
from patchers.finding import Finding, differing, leaking

BATCHES = (3, 70, 500)
"""Documents of a batch."""
PIECE = 100
"""Bytes of each of them."""
LENGTHS = (10_000, 1_000_000)
"""Bytes of the long documents: real ones, joined."""
CALLS = 5000
SECONDS = 20.0
"""What a rule may take by default."""

Check = tuple[str, Callable[[], Finding]]


def checks_at_scale(patcher: Patcher, docs: Sequence[bytes], seed: int, seconds: float = SECONDS) -> list[Check]:
    """The rules by name, on these documents (real text)."""
    rng = np.random.default_rng(seed)
    return [
        ("costs", lambda: check_costs(patcher, docs)),
        ("large batches", lambda: check_large_batches(patcher, docs, rng, seconds)),
        ("long documents", lambda: check_long_documents(patcher, docs, rng, seconds)),
        ("many calls", lambda: check_many_calls(patcher, docs, seconds)),
        ("fresh process", lambda: check_fresh_process(patcher, docs, rng)),
    ]


def check_costs(patcher: Patcher, docs: Sequence[bytes]) -> Finding:
    """What a byte costs is a number, and not one that the time or torch's own count shows to be wrong."""
    try:
        claimed(patcher)
    except BenchError as error:
        return Finding("costs", False, str(error))
    cost = measured(patcher, docs)
    if cost.counted is not None and cost.doubt is not None:
        return Finding("costs", False, cost.doubt)
    return Finding("costs", True, cost.doubt or cost.words())


def check_large_batches(patcher: Patcher, docs: Sequence[bytes], rng: np.random.Generator, seconds: float) -> Finding:
    """A document is cut alike alone and among hundreds."""
    text, end = b"\n".join(docs), time.perf_counter() + seconds
    looked_at: list[int] = []
    for count in BATCHES:
        places = rng.integers(0, max(1, len(text) - PIECE), count)
        pieces = [text[at : at + int(rng.integers(1, PIECE + 1))] for at in places]
        together = patcher.segment_many(pieces)
        if len(together) != count:
            return Finding("large batches", False, f"segment_many gave {len(together)} arrays for {count} documents")
        for number, (piece, starts) in enumerate(zip(pieces, together, strict=True)):
            alone = patcher.segment(piece)
            if not np.array_equal(alone, starts):
                said = f"depends on the batch: among {count} documents it cut"
                return differing("large batches", said, piece, alone, starts)
            if time.perf_counter() > end:
                return Finding("large batches", True, f"alike in {looked_at} and the first {number + 1} of {count}")
        looked_at.append(count)
    return Finding("large batches", True, f"alone and among {', '.join(map(str, looked_at))} documents alike")


def check_long_documents(patcher: Patcher, docs: Sequence[bytes], rng: np.random.Generator, seconds: float) -> Finding:
    """Causality far into long documents, and a long document cut like itself in a batch."""
    text = b"\n".join(docs)
    text *= -(-LENGTHS[-1] // max(1, len(text)))
    said: list[str] = []
    for length in LENGTHS:
        whole = text[:length]
        begin = time.perf_counter()
        starts = patcher.segment(whole)
        took = time.perf_counter() - begin
        (again,) = patcher.segment_many([whole])
        if not np.array_equal(starts, again):
            said_of = f"a document of {length} bytes, alone and as a batch, was cut"
            return differing("long documents", said_of, whole, starts, again)
        trials = int(np.clip(seconds / len(LENGTHS) / max(took, 1e-4), 2, 24)) if patcher.causal else 0
        for t in rng.integers(length // 5, length, trials):
            other = whole[:t] + rng.bytes(min(2000, length - int(t)))
            later = patcher.segment(other)
            seen = min(int(t) + 1, len(other))
            moved = np.flatnonzero(starts[:seen] != later[:seen])
            if len(moved):
                at = int(moved[0])
                said_of = (
                    f"in a document of {length} bytes a later byte moves a start: two texts that share their first {t} "
                    f"bytes are cut differently at {at}"
                )
                return leaking("long documents", said_of, (whole, other), (starts, later), at, near=at)
        said.append(f"{length} bytes ({trials} futures)")
        if took > seconds:
            break
    return Finding("long documents", True, f"no later byte moved an earlier start in {', '.join(said)}")


def check_many_calls(patcher: Patcher, docs: Sequence[bytes], seconds: float) -> Finding:
    """The same cuts after thousands of calls, and in whatever order documents come."""
    some = [doc[:PIECE] for doc in docs if doc][:50]
    first = [patcher.segment(doc) for doc in some]
    end, calls = time.perf_counter() + seconds, 0
    while calls < CALLS and time.perf_counter() < end:
        patcher.segment(some[calls * 7 % len(some)])
        calls += 1
    for doc, starts in zip(some, first, strict=True):
        again = patcher.segment(doc)
        if not np.array_equal(starts, again):
            return differing("many calls", f"changes with the calls: after {calls} of them it cut", doc, starts, again)
    return Finding("many calls", True, f"the same cuts after {calls} calls")
