"""A corpus that is larger than memory, from its making to a trained model:
    python -m bench.perf.large [--megabytes 4000] [--folder DIR] [--json]

Sentences of the embedded Wikipedia, drawn at random, are written to DIR (removed afterwards), and go through
`patchbench data build --cut`, in one process a core, and `patchbench run`, on one thread: cut with `whitespace` and
with `entropy` over counts, 50 steps each. The resident memory of a command is the sum over it and all that it has
begun, looked at ten times a second, so that pages that two processes share count twice.

With --ratio the corpus is cut in this process and in one process a core instead, and the ratio of the times is told;
with --keep, after a first call has stored the corpus, that is all that is timed.

Exits 1 where a promise (LIMITS) is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.data import store
from bench.data.config import DataConfig, load
from bench.data.documents import FlatTexts, Part
from bench.data.fitted_patchers import fit_cached
from bench.data.segment import cut_cached
from patchers import create

DOCUMENT = (200, 4000)
"""Bytes of a document, from and to."""
FILE = 50_000_000
LIMITS = {"resident bytes": (2 * 2**30, "at most"), "one process / all cores": (1.7, "at least")}
CORES = len(os.sched_getaffinity(0))
STEPS = 50
PATCHERS = {"whitespace": 4_000_000_000, "entropy": 1_600_000_000}
"""How much of the text is cut for the ratio of times at most: a minute in one process, beside which the second that
others take to begin is little."""
SIZE = 4.5
"""Bytes a patch that `entropy` is calibrated to."""


def documents(size: int, seed: int = 0) -> Iterator[bytes]:
    """Texts of `size` bytes in all, each its own."""
    text = b"\n".join(load(DataConfig(corpus="wiki-en")).train.texts)
    sentences = [part + b". " for part in text.split(b". ") if part]
    rng = np.random.default_rng(seed)
    written = 0
    while written < size:
        wanted, parts, held = int(rng.integers(*DOCUMENT)), [], 0
        while held < wanted:
            for place in rng.integers(len(sentences), size=8).tolist():
                parts.append(sentences[place])
                held += len(sentences[place])
        written += held
        yield b"".join(parts)


def write_corpus(folder: Path, size: int) -> None:
    """`N.jsonl` of about FILE bytes each."""
    file, held, number = None, 0, 0
    for document in documents(size):
        if file is None or held > FILE:
            if file is not None:
                file.close()
            file, held, number = open(folder / f"{number:04}.jsonl", "wb"), 0, number + 1  # noqa: SIM115
        held += file.write(json.dumps({"text": document.decode()}, ensure_ascii=False).encode() + b"\n")
    if file is not None:
        file.close()


def data_config(folder: Path) -> dict[str, Any]:
    return {"files": [str(folder / "*.jsonl")], "field": "text", "max_test_bytes": 20_000}


def write_suite(folder: Path) -> Path:
    """YAML reads JSON."""
    tree = {
        "data": data_config(folder),
        "train": {"bytes": STEPS * 4096, "dtype": "float32"},
        "bytes_per_patch": SIZE,
        "rows": {name: {"patcher": name} for name in PATCHERS},
    }
    path = folder / "large.yaml"
    path.write_text(json.dumps(tree))
    return path


def family(process: int) -> Iterator[int]:
    """A process and all that it has begun, as far as they are still there."""
    yield process
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def resident(process: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def measured(command: Sequence[str], cores: int) -> dict[str, float]:
    """Seconds, the most processes and the most resident bytes, of all together and of the largest, of a command.

    Raises CalledProcessError where it fails.
    """
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    together = largest = most = 0
    while process.poll() is None:
        sizes = [resident(one) for one in family(process.pid)]
        together, largest, most = max(together, sum(sizes)), max(largest, *sizes), max(most, len(sizes))
        time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processes": most,
        "resident bytes": together,
        "resident bytes of the largest": largest,
    }


def through(folder: Path) -> dict[str, dict[str, float]]:
    """What each command took."""
    suite = str(write_suite(folder))
    patchbench = [sys.executable, "-m", "bench.cli"]
    results = ["--results", str(folder / "results")]
    return {
        "data build": measured([*patchbench, "data", "build", suite, *results], CORES),
        "data build --cut": measured([*patchbench, "data", "build", suite, "--cut", *results], CORES),
        "run": measured([*patchbench, "run", suite, *results], 1),
    }


def ratios(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds that cutting the training split takes here and in one process a core, and their ratio."""
    config = DataConfig(**{**data_config(folder), "files": (str(folder / "*.jsonl"),)})
    cache = folder / "results" / "cache"
    data = store.load(config, cache, print)
    found = {}
    for name, most in PATCHERS.items():
        patcher = fit_cached(create(name), data, None if name == "whitespace" else SIZE, cache, print)
        patcher.segment(b"compiles")
        texts = first(data.train.texts, most)
        seconds = {}
        for cores in ("1", str(CORES)):
            os.environ["OMP_NUM_THREADS"] = cores
            with tempfile.TemporaryDirectory(dir=folder) as elsewhere:
                began = time.perf_counter()
                cut_cached(patcher, texts, str(len(texts)), Path(elsewhere))
                seconds[cores] = time.perf_counter() - began
        one, all_of_them = seconds.values()
        found[name] = {
            "megabytes": round(len(texts.flat) / 1e6),
            "cores": CORES,
            "seconds in one process": round(one, 2),
            "seconds in one a core": round(all_of_them, 2),
            "one process / all cores": round(one / all_of_them, 3),
        }
    return found


def first(texts: Sequence[bytes], size: int) -> FlatTexts:
    """The first documents of a stored split, of at most so many bytes together."""
    assert isinstance(texts, FlatTexts)
    assert isinstance(texts.flat, Part)
    offsets = texts.offsets[: np.searchsorted(texts.offsets, size, side="right")]
    begin = texts.flat.begin
    return FlatTexts(Part(texts.flat.file, begin, begin + int(offsets[-1])), offsets)


def missed(found: dict[str, dict[str, float]]) -> list[str]:
    """Promises that do not hold."""
    out = []
    for what, values in found.items():
        for name in values.keys() & LIMITS.keys():
            limit, way = LIMITS[name]
            if values[name] > limit if way == "at most" else values[name] < limit:
                out.append(f"{what}: {name} is {values[name]:,}, wanted {way} {limit:,}")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.perf.large", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=4000.0, help="how much text")
    parser.add_argument("--folder", type=Path, help="where there is room for about three times as much")
    parser.add_argument(
        "--keep", action="store_true", help="leave everything in --folder, where the next call finds it"
    )
    parser.add_argument("--ratio", action="store_true", help="time the cutting instead")
    given = parser.parse_args(arguments)
    if given.keep and given.folder is None:
        parser.error("--keep needs a --folder")
    folder = given.folder if given.keep else Path(tempfile.mkdtemp(prefix="patchbench-large-", dir=given.folder))
    try:
        if not any(folder.glob("*.jsonl")):
            folder.mkdir(parents=True, exist_ok=True)
            write_corpus(folder, int(given.megabytes * 1e6))
        found = ratios(folder) if given.ratio else through(folder)
    finally:
        if not given.keep:
            shutil.rmtree(folder)
    print(json.dumps({"megabytes": given.megabytes, **found, "missed": missed(found)}, indent=1))
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
