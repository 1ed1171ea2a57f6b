"""Helpers for the ranks that torchrun starts: broadcast, gather, barriers, shared failure.

All of it is trivial in an ordinary process, which is rank 0 of 1. Rank 0 alone writes records and claims runs.

torch is loaded where there are ranks only: processes that cut texts do without it, and are many.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: as long as fitting a patcher may take."""
FAILS_WITHIN = timedelta(minutes=2)
"""How much later than the first the last rank comes to a failure that is everybody's."""

_aside: dist.ProcessGroup | None = None
"""A group for `all_failed` alone, whose messages no other collective can be taken for."""


def begin() -> None:
    """Join the process group that torchrun's environment describes: gloo for the CPU, and NCCL for GPUs beside it."""
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # they are in its documentation

    global _aside
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    is_host = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and rank == 0
    held = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_host, TIMEOUT)
    # torchrun keeps one store for all its attempts, and with it the addresses of ranks that are dead (torch 2.13)
    store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", held)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    _aside = dist.new_group(backend="gloo", timeout=FAILS_WITHIN)


def end() -> None:
    """Leave the group, with nothing of it left for the interpreter to take down when it ends."""
    global _aside
    _aside = None
    _distributed().destroy_process_group()


def are_there() -> bool:
    """Whether torchrun began this process."""
    return "torch.distributed" in sys.modules and _distributed().is_initialized()


def _distributed() -> Any:
    """The module `torch.distributed`."""
    import torch.distributed

    return torch.distributed


@contextmanager
def at_least_one() -> Iterator[None]:
    """The process group that there is, or while the block lasts one of this process alone."""
    if are_there():
        yield
        return
    dist = _distributed()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def count() -> int:
    return _distributed().get_world_size() if are_there() else 1


def rank() -> int:
    return _distributed().get_rank() if are_there() else 0


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
    _distributed().broadcast_object_list(held, src=0)
    return held[0]


def any_of(flag: bool) -> bool:
    """Whether some rank says so."""
    if count() == 1:
        return flag
    return any(gathered(flag))


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over ranks of a tensor, in place."""
    if count() > 1:
        _distributed().all_reduce(value)
    return value


def gathered(value: T) -> list[T]:
    """What each rank says, in their order."""
    held: list[Any] = [value] * count()
    if count() > 1:
        _distributed().all_gather_object(held, value)
    return held


def add_up(values: np.ndarray) -> np.ndarray:
    """The sum over ranks, in place."""
    if count() > 1:
        import torch

        total(torch.from_numpy(values))
    return values


def wait_for_all() -> None:
    if count() > 1:
        _distributed().barrier()


def all_failed() -> bool:
    """Whether every rank has come here, which each does that has failed; False after FAILS_WITHIN where one has not.

    Ranks whose others have failed alike go on together. One that failed alone has left the others in the midst of
    something, and must end, so that torchrun ends and begins all of them.
    """
    if count() == 1:
        return True
    try:
        _distributed().monitored_barrier(_aside, FAILS_WITHIN)
    except RuntimeError:  # somebody is elsewhere, or gone
        return False
    return True


@contextmanager
def failing_alike() -> Iterator[None]:
    """Around work that ranks share without a word to each other: where it fails for one of them, it does for all."""
    failure: BaseException | None = None
    try:
        yield
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the others must hear of it
        failure = error
    said = gathered(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for text in said:
        if text is not None:
            raise RankFailed(text)


class RankFailed(RuntimeError):
    """Another rank's part of the work raised this."""
