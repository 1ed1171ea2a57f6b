"""Cuts a corpus once per patcher and caches the cuts, in several processes or ranks where the corpus is large.

`CACHE/cuts/NAME-KEY/` has the starts in `starts`, token ids in `ids` where a model wants them, and checksums in
`cuts.json`. Documents are cut in runs; a run that is cut stays when the process is killed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np

from bench.data.cut_corpus import Cuts, cut
from bench.data.documents import FlatTexts, Integers
from bench.data.packed_starts import Bits
from bench.system import distributed
from bench.system.files import (
    Damaged,
    MappedFile,
    SummedFile,
    Sums,
    locked,
    read_header,
    sync_folder,
    warn,
    write_atomic,
    write_header,
    writing,
)
from bench.system.processes import cores, end_with_parent, environment
from patchers import Patcher, load, load_plugin
from patchers.errors import BenchError
from patchers.registry import loaded_plugins

PARALLEL_FROM = 2**25
"""Bytes below which other processes take longer to begin than they save."""
CHECKED_AT_ONCE = 2**26

PATIENCE = 600.0
"""Seconds that a process may take for one run of documents, however fast the patcher is."""
SLOWER = 50
"""And how many times longer than the first texts would let one expect: documents are not alike."""
TIMED = 20_000
"""Bytes of them."""

Say = Callable[[str], None]
Run = tuple[int, int]
"""The first document of some that are cut together, and the first that is not among them."""


def cut_cached(
    patcher: Patcher,
    docs: Sequence[bytes],
    docs_fingerprint: str,
    cache: Path,
    with_ids: bool = False,
    say: Say = lambda message: None,
) -> Cuts:
    """`bench.data.cut_corpus.cut`, from the cache if it is there; a damaged one is cut again.

    Raises BenchError as `cut` does, and CannotWrite where there is no room.
    """
    texts = FlatTexts.of(docs)
    key = hashlib.sha256(f"{patcher.fingerprint()}:{docs_fingerprint}:{with_ids}".encode()).hexdigest()[:24]
    folder = cache / "cuts" / f"{patcher.name}-{key}"
    with locked(folder.with_name(f"{folder.name}.lock")) if distributed.is_first() else nullcontext():
        if distributed.is_first() and folder.exists():
            try:
                _opened(folder, len(texts.flat), with_ids)
            except Damaged as error:
                warn(f"{error}; cutting again")
                with writing(folder):
                    shutil.rmtree(folder)
        if distributed.is_first():
            for left in folder.with_name(f"{folder.name}.part").glob("*.tmp"):  # of a killed process
                left.unlink()
        if not distributed.told(folder.exists()):
            _cut_into(folder, patcher, texts, with_ids, say)
    return _opened(folder, len(texts.flat), with_ids)


def _opened(folder: Path, size: int, with_ids: bool) -> Cuts:
    header = read_header(folder / "cuts.json")
    remedy = f"delete the folder {folder} and run the same command, which cuts again"
    names = ("starts", "ids") if with_ids else ("starts",)
    if header.get("bytes") != size or set(header["files"]) != set(names):
        raise Damaged(f"{folder} holds the cuts of other documents")
    files = [MappedFile(folder / name, Sums.of_json(header["files"][name]), remedy) for name in names]
    for file in files:
        if len(file) <= CHECKED_AT_ONCE:
            file.check_all()
    return Cuts(Bits(files[0], size), Integers(files[1]) if with_ids else None)


@dataclass(frozen=True)
class _Task:
    """What a process needs to cut runs of documents."""

    patcher: Path
    plugins: tuple[str, ...]
    texts: FlatTexts
    with_ids: bool
    folder: Path

    def path(self, run: Run) -> Path:
        return self.folder / f"{run[0]}-{run[1]}.cuts"


def _cut_into(folder: Path, patcher: Patcher, texts: FlatTexts, with_ids: bool, say: Say) -> None:
    part = folder.with_name(f"{folder.name}.part")
    task = _Task(part / f"patcher-{distributed.rank()}", tuple(loaded_plugins()), texts, with_ids, part)
    with writing(part):
        part.mkdir(parents=True, exist_ok=True)
    runs = list(texts.runs())
    own = list(distributed.mine(runs))
    missing = [run for run in own if _read_run(task.path(run)) is None]
    began, size = time.monotonic(), _bytes_of(texts, own)
    done = size - _bytes_of(texts, missing)

    def there(cut_now: Iterator[Run]) -> Iterator[Run]:
        """One's own runs in their order, each when it is on disk."""
        to_come, fresh = set(missing), 0
        for run in own:
            if run in to_come:
                next(cut_now)
                fresh += int(texts.offsets[run[1]] - texts.offsets[run[0]])
                rate = fresh / max(1e-9, time.monotonic() - began) / 1e6
                if len(runs) > 1:
                    say(f"cutting with {patcher.name}: {(done + fresh) / size:.0%}, {rate:.1f} MB/s")
            yield run

    try:
        with distributed.failing_alike(), _processes(task, patcher, len(missing), size) as each:
            if distributed.count() == 1:
                _put_together(task, there(each(missing)))  # while the others are being cut
            else:
                deque(there(each(missing)), maxlen=0)
    finally:
        if distributed.is_first() and not any(part.glob("*.cuts")):  # nothing to go on from
            shutil.rmtree(part, ignore_errors=True)
    if distributed.is_first():
        if distributed.count() > 1:
            _put_together(task, runs)
        with writing(folder):
            for left in part.glob("patcher-*"):
                shutil.rmtree(left, ignore_errors=True)
            for run in runs:
                task.path(run).unlink()
            part.rename(folder)
            sync_folder(folder.parent)
    distributed.wait_for_all()


def _bytes_of(texts: FlatTexts, runs: list[Run]) -> int:
    return sum(int(texts.offsets[last] - texts.offsets[first]) for first, last in runs)


Each = Callable[[list[Run]], Iterator[Run]]


@contextmanager
def _processes(task: _Task, patcher: Patcher, runs: int, size: int) -> Iterator[Each]:
    """A function that cuts runs and gives each one back when it is on disk; here, or in a process a core."""
    count = min(cores(), runs)
    if size < PARALLEL_FROM or count < 2:
        yield lambda missing: (_cut_run(task, patcher, run) for run in missing)
        return
    with writing(task.patcher):
        patcher.save(task.patcher)
    others = set(active_children())
    longest = max(_bytes_of(task.texts, [run]) for run in task.texts.runs())
    waits = PATIENCE
    with (
        environment(threads=1),
        ProcessPoolExecutor(count, get_context("spawn"), _begin, (task,)) as pool,
    ):
        try:
            waits = max(PATIENCE, SLOWER * longest * pool.submit(_time_here).result(PATIENCE))
            yield lambda missing: (one.result(waits) for one in [pool.submit(_cut_here, run) for run in missing])
        except BrokenProcessPool as error:
            raise BenchError(f"a process that cut with {patcher.name!r} was killed; out of memory?") from error
        except BaseException as error:
            for process in set(active_children()) - others:
                process.kill()  # whoever hangs in a plug-in would not end by itself, and runs are whole or not there
            if isinstance(error, TimeoutError):
                raise BenchError(
                    f"a process that cut with {patcher.name!r} had not come to an end after {waits:,.0f} seconds, at "
                    f"least {SLOWER} times what its first texts would let one expect: does segment wait for something?"
                ) from error
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_here: tuple[_Task, Patcher] | BenchError | None = None
"""Of a process that cuts: what it was begun with, or why that cannot be had."""


def _begin(task: _Task) -> None:
    global _here
    end_with_parent()
    try:
        for plugin in task.plugins:
            load_plugin(plugin)
        _here = task, load(task.patcher)
    except Exception as error:  # noqa: BLE001 - told of the first run: of an initializer a pool says that it is broken
        said = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        _here = BenchError(f"a process that cuts cannot load what it is to cut with: {said}")


def _cut_here(run: Run) -> Run:
    return _cut_run(*_ready(), run)


def _ready() -> tuple[_Task, Patcher]:
    assert _here is not None
    if isinstance(_here, BenchError):
        raise _here
    return _here


def _time_here() -> float:
    """Seconds a byte of the first texts."""
    task, patcher = _ready()
    began, size = time.perf_counter(), 0
    for number in range(len(task.texts)):
        size += len(cut(patcher, [task.texts[number][:TIMED]]).starts)
        if size >= TIMED:
            break
    return (time.perf_counter() - began) / max(1, size)


def _cut_run(task: _Task, patcher: Patcher, run: Run) -> Run:
    cuts = cut(patcher, task.texts.run(*run), task.with_ids)
    content = np.packbits(cuts.starts[:]).tobytes()
    content = len(content).to_bytes(8) + content
    if cuts.ids is not None:
        content += cuts.ids[:].astype("<i4").tobytes()
    write_atomic(task.path(run), hashlib.sha256(content).digest() + content)
    return run


def _read_run(path: Path) -> tuple[bytes, bytes] | None:
    """Packed starts and ids of a run; None where it is not there, or damaged."""
    try:
        held = path.read_bytes()
    except OSError:
        return None
    content = held[32:]
    if hashlib.sha256(content).digest() != held[:32]:
        warn(f"{path} is damaged (its content does not have its checksum); cutting again")
        return None
    size = int.from_bytes(content[:8])
    return content[8 : 8 + size], content[8 + size :]


def _put_together(task: _Task, runs: Iterable[Run]) -> None:
    """One file of all runs, whose bits do not end where bytes do."""
    with ExitStack() as stack:
        names = ("starts", "ids") if task.with_ids else ("starts",)
        files = {name: stack.enter_context(SummedFile(task.folder / name)) for name in names}
        left, bits = np.zeros(1, np.uint8), 0
        for first, last in runs:
            held = _read_run(task.path((first, last)))
            if held is None:
                raise Damaged(f"{task.path((first, last))} is damaged: run the same command, which cuts it again")
            size = int(task.texts.offsets[last] - task.texts.offsets[first])
            joined = shifted(left, np.frombuffer(held[0], np.uint8), bits)
            whole, bits = divmod(bits + size, 8)
            files["starts"].write(joined[:whole].data)
            left = joined[whole : whole + 1]
            if task.with_ids:
                files["ids"].write(held[1])
        if bits:
            files["starts"].write(left.data)
    sums = {name: file.sums.as_json() for name, file in files.items()}
    write_header(task.folder / "cuts.json", {"bytes": len(task.texts.flat), "files": sums})


def shifted(left: np.ndarray, packed: np.ndarray, bits: int) -> np.ndarray:
    """The first `bits` < 8 bits of the byte `left`, then those of `packed`, in one byte more than `packed` has."""
    out = np.concatenate((packed >> bits, np.zeros(1, np.uint8)))
    out[:1] |= left
    if bits:
        out[1:] |= packed << (8 - bits)
    return out
