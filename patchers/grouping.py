"""Puts things together until there are enough of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def grouped(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """All items in their order, in lists that each end with the item that reaches the limit."""
    group: list[T] = []
    held = 0
    for item in items:
        group.append(item)
        held += size(item)
        if held >= limit:
            yield group
            group, held = [], 0
    if group:
        yield group


def beginning(docs: Iterable[bytes], size: int, *, whole: bool = True) -> list[bytes]:
    """The first documents that together reach `size` bytes; all of them where they do not. The last one ends there
    where it need not be `whole`."""
    held: list[bytes] = []
    left = size
    for doc in docs:
        if left <= 0:
            break
        held.append(doc if whole else doc[:left])
        left -= len(doc)
    return held
