"""The processes of one run that `torchrun` has begun: every one does the same steps, and they share the work of some.

All of it is trivial in an ordinary process, which is rank 0 of 1. Rank 0 alone writes records and claims runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: as long as fitting a patcher may take."""


def begin() -> None:
    """Join the process group that torchrun's environment describes: gloo for the CPU, and NCCL for GPUs beside it."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)


def end() -> None:
    dist.destroy_process_group()


def are_there() -> bool:
    """Whether torchrun began this process."""
    return dist.is_initialized()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    return rank() == 0


def mine(items: Iterable[T]) -> Iterator[T]:
    """Every n-th of the items that all ranks go through."""
    return (item for number, item in enumerate(items) if number % count() == rank())


def told(value: T) -> T:
    """What rank 0 says."""
    if count() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def any_of(flag: bool) -> bool:
    """Whether some rank says so."""
    if count() == 1:
        return flag
    said = torch.tensor(int(flag))
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return bool(said)


def add_up(values: np.ndarray) -> np.ndarray:
    """The sum over ranks, in place."""
    if count() > 1:
        dist.all_reduce(torch.from_numpy(values))
    return values


def wait_for_all() -> None:
    if count() > 1:
        dist.barrier()
