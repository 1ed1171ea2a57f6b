"""Batches made by a worker while the step before is computed: bytes, cuts and all that follows from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from bench.data.cut_corpus import CutDocuments
from models.plan import Tensors

DEPTH = 2
"""Batches that are made before they are wanted."""

A = TypeVar("A")
B = TypeVar("B")


def ahead(make: Callable[[A], B], items: Iterable[A]) -> Iterator[tuple[A, B]]:
    """Each item with what `make` makes of it, in order; an error of `make` is raised where its item's turn comes."""
    left = iter(items)
    made: list[tuple[A, Future[B]]] = []
    worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        while True:
            for item in itertools.islice(left, DEPTH + 1 - len(made)):
                made.append((item, worker.submit(make, item)))
            if not made:
                return
            item, result = made.pop(0)
            yield item, result.result()
    finally:
        worker.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Even(Tensors):
    """A plan of even sizes (`Tensors.even`), and how many bytes are meant."""

    plan: Tensors
    size: int


def planned(model: nn.Module, corpus: CutDocuments, spans: object, device: torch.device, even: bool = False) -> object:
    """What the model is given of some windows (W, 2): its plan, where it has one, in memory that a GPU copies from."""
    batch = corpus.windows(spans)  # type: ignore[arg-type]
    plan = getattr(model, "plan", None)
    if plan is None:
        return batch
    made: Tensors = plan(batch)
    if even:
        made = Even(made.even(), len(batch.data))
    return made.pinned() if device.type == "cuda" else made
