"""Atomic writes, checksummed mapped files, sealed folders and locks.

A file of bulk data is checked in blocks of a mebibyte, each against its SHA-256: a reader checks a block when it first
looks into it, so a file that is larger than memory is never read twice, and nothing of it is believed unseen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import multiprocessing
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from patchers.errors import BenchError

BLOCK = 2**20
"""Bytes that one checksum is of."""
KEPT = 2**26
"""Bytes of a mapped file that may have been looked at before its pages are let go of."""


class CannotWrite(BenchError):
    """The disk is full or closed to us: a matter of the machine, and of no single run."""


class Damaged(BenchError):
    """A file is not as it was written."""


def warn(message: str) -> None:
    """A line that stays, whoever listens to the progress: on standard error, which of a worker is its run's log."""
    logging.getLogger("patchbench").warning(message)


def located(path: str, folder: str | None, found: Callable[[str], Any] = os.path.exists) -> str:
    """Where a suite's path leads: from the folder that the suite lies in, the working directory where that is None.

    Paths once began in the working directory, whatever the suite: one that leads to something only from there still
    does, and a warning says so. `found` is truthy for a path that leads to something.
    """
    path = os.path.expanduser(path)
    if folder is None or os.path.isabs(path):
        return path
    inside = os.path.join(folder, path)
    if not found(inside) and found(path):
        _warn_of_place(path, folder)
        return path
    return inside


@cache
def _warn_of_place(path: str, folder: str) -> None:
    """Once, and not by each worker."""
    if multiprocessing.parent_process() is None:
        warn(
            f"{path} is not in {folder}, the folder of the suite, where its relative paths begin; the one in the "
            "working directory is taken: move it to the suite, or write the path from there"
        )


def check_writable(folder: Path) -> None:
    """Now, and not after an hour of training. Raises BenchError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchError(
            f"cannot write to the results folder {folder}: {error.strerror}; choose another with --results DIR"
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is written becomes CannotWrite."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder with "
            "--results; what was finished before is kept"
        ) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it has its old content or its new one, whenever the machine stops."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename last. Not every system can open a folder."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path, wait: float = -1.0) -> Iterator[bool]:
    """Whether this process has the lock, until the block ends; waits up to `wait` seconds (-1: for ever).

    The lock is the operating system's: it is gone when its owner is, however the owner ended.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=wait)
            mine = True
        except Timeout:
            mine = False
    try:
        yield mine
    finally:
        if mine:
            lock.release()


def remove(path: Path) -> None:
    """A file, a folder, or nothing."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --- folders

SEAL = "sums.json"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder`, with the checksums of its files, when the block has ended.

    Whoever calls has the lock: what another process began to fill and did not finish is removed.
    """
    part = folder.with_name(f"{folder.name}.part")
    with writing(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            seal(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def seal(part: Path, folder: Path) -> None:
    """Write the checksums of all files of `part` into it, and let it take the place of `folder`."""
    files = [path for path in sorted(part.rglob("*")) if path.is_file()]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write_header(part / SEAL, {str(path.relative_to(part)): _digest(path) for path in files})
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    sync_folder(folder.parent)


def check_sealed(folder: Path) -> None:
    """Raises Damaged, naming the file, for a folder that is not as `whole_folder` left it."""
    for name, digest in read_header(folder / SEAL).items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise Damaged(f"{folder / name} is damaged ({error.strerror})") from error
        if found != digest:
            raise Damaged(f"{folder / name} is damaged (its content does not have its checksum)")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- bulk


@dataclass(frozen=True)
class Sums:
    """What a file must be: its size in bytes and the SHA-256 of each of its blocks, in hex."""

    size: int
    blocks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {"size": self.size, "blocks": list(self.blocks)}

    @staticmethod
    def of_json(value: Any) -> Sums:
        return Sums(value["size"], tuple(value["blocks"]))


class SummedFile:
    """Writes a file and adds up its blocks on the way; `sums` is whole when its block has ended."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        with writing(path):
            self.file = open(path, "wb")  # noqa: SIM115 - closed by __exit__
        self.blocks: list[str] = []
        self.block, self.held = hashlib.sha256(), 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with writing(self.path):
            self.file.write(data)
        view = memoryview(data).cast("B")
        self.size += len(view)
        while len(view):
            part = view[: BLOCK - self.held]
            self.block.update(part)
            self.held += len(part)
            view = view[len(part) :]
            if self.held == BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self.blocks.append(self.block.hexdigest())
        self.block, self.held = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        with writing(self.path), self.file:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
        if self.held:
            self._end_block()

    @property
    def sums(self) -> Sums:
        return Sums(self.size, tuple(self.blocks))


class MappedFile(Sequence[int]):
    """A file as an array of bytes that stays on disk: `mapped[a:b]` is a copy, (b - a,) uint8, of checked bytes.

    Raises Damaged, naming the file and `remedy`, for a size or a block that is not as it was written.
    """

    def __init__(self, path: Path, sums: Sums, remedy: str) -> None:
        self.path, self.sums, self.remedy = path, sums, remedy
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != sums.size:
                    raise self._damaged(f"it has {size:,} bytes, wanted {sums.size:,}")
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except OSError as error:
            raise self._damaged(error.strerror or str(error)) from error
        self.checked = np.zeros(len(sums.blocks), bool)
        self.looked_at = 0

    def __reduce__(self) -> tuple[type[MappedFile], tuple[Path, Sums, str]]:
        return MappedFile, (self.path, self.sums, self.remedy)  # another process maps it anew

    def __len__(self) -> int:
        return self.sums.size

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return int(self[index : index + 1][0])
        begin, end, step = index.indices(len(self))
        assert step == 1, "only runs of bytes are read"
        if self.map is None or begin >= end:
            return np.zeros(0, np.uint8)
        self._check(begin, end)
        data = np.frombuffer(self.map, np.uint8, end - begin, begin).copy()
        self.looked_at += max(len(data), 2**16)  # the kernel maps the neighbourhood of what is touched
        if self.looked_at > KEPT:
            self.let_go()
        return data

    def let_go(self) -> None:
        """Pages that were looked at count as this process's memory until it gives them back."""
        self.looked_at = 0
        if self.map is not None and hasattr(self.map, "madvise"):
            self.map.madvise(mmap.MADV_DONTNEED)

    def check_all(self) -> Self:
        for begin in range(0, len(self), KEPT):
            self._check(begin, min(begin + KEPT, len(self)))
            self.let_go()
        return self

    def _check(self, begin: int, end: int) -> None:
        assert self.map is not None
        first, last = begin // BLOCK, (end - 1) // BLOCK
        if self.checked[first : last + 1].all():
            return
        for number in range(first, last + 1):
            if not self.checked[number]:
                with memoryview(self.map) as whole, whole[number * BLOCK : (number + 1) * BLOCK] as block:
                    found = hashlib.sha256(block).hexdigest()
                if found != self.sums.blocks[number]:
                    raise self._damaged(f"bytes {number * BLOCK:,} and on do not have their checksum")
                self.checked[number] = True
                self.looked_at += BLOCK

    def _damaged(self, what: str) -> Damaged:
        return Damaged(f"{self.path} is damaged ({what})" + (f": {self.remedy}" if self.remedy else ""))


def write_header(path: Path, content: dict[str, Any]) -> None:
    """A small JSON file with its own checksum."""
    body = json.dumps(content, sort_keys=True)
    write_atomic(path, json.dumps({"checksum": hashlib.sha256(body.encode()).hexdigest(), "content": content}).encode())


def read_header(path: Path) -> dict[str, Any]:
    """What `write_header` wrote. Raises Damaged for anything else."""
    try:
        held = json.loads(path.read_bytes())
        content: dict[str, Any] = held["content"]
        body = json.dumps(content, sort_keys=True)
        if hashlib.sha256(body.encode()).hexdigest() != held["checksum"]:
            raise Damaged(f"{path} is damaged (its content does not have its checksum)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged ({error})") from error
    return content
