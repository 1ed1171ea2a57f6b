"""The task `speed`: measured time and memory for reading and writing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.evaluation.byte_model import ByteModel
from bench.evaluation.tasks.base import Material, Metric, Task, TaskNotPossible, TaskResult
from bench.evaluation.tasks.registry import register_task


@register_task("speed")
class Speed(Task):
    """Microseconds a byte of reading a prompt (until the first byte comes) and of writing, one document at a time.

    Each of a few documents is read up to `prompt_bytes` and continued greedily; the first time is not counted, and of
    the others the median is taken, step by step. Beside it bytes a second, percentiles of the time between two steps
    in milliseconds (a step shows one byte, or one token), and the most memory that was held between steps: of the
    accelerator where there is one, else of this process.

    A model that cannot write, because it is told boundaries that it does not pay for, or is a pretrained one, cannot do
    this.
    """

    documents: int = 4
    prompt_bytes: int = 512
    written_bytes: int = 128
    repeats: int = 3

    def run(self, model: ByteModel, material: Material) -> TaskResult:
        if not model.can_write:
            raise TaskNotPossible(
                "this model cannot write: it is told boundaries that it does not pay for, or is a pretrained one"
            )
        chosen = sorted(material.test, key=lambda d: (-min(len(d.data), self.prompt_bytes), d.id))[: self.documents]
        prefill: list[tuple[str, float, float]] = []
        decode: list[tuple[str, float, float]] = []
        waits: list[np.ndarray] = []
        memory = 0
        for document in chosen:
            prompt = document.data[: self.prompt_bytes]
            runs = [self._timed(model, prompt) for _ in range(1 + self.repeats)]
            counts = runs[0].counts
            assert all(run.counts == counts for run in runs), "greedy writing is the same each time"
            seconds = np.median([run.seconds for run in runs[1:]], 0)
            prefill.append((document.id, float(seconds[0]) * 1e6, max(1, len(prompt))))
            decode.append((document.id, float(seconds[1:].sum()) * 1e6, sum(counts[1:])))
            waits.append(seconds[1:])
            memory = max(memory, *(run.memory for run in runs))
        metrics = {"prefill": Metric("µs/byte", prefill), "decode": Metric("µs/byte", decode)}
        low, middle, high = (float(q) * 1e3 for q in np.quantile(np.concatenate(waits), (0.5, 0.9, 0.99)))
        values = {
            "prefill_bytes_per_second": 1e6 / metrics["prefill"].value,
            "decode_bytes_per_second": 1e6 / metrics["decode"].value,
            "step_ms_p50": low,
            "step_ms_p90": middle,
            "step_ms_p99": high,
            "peak_memory_bytes": float(memory),
        }
        return TaskResult(metrics, values)

    def _timed(self, model: ByteModel, prompt: bytes) -> _Run:
        seconds, counts, memory = [], [], 0
        for wait, data in _waits(model.stream(prompt, self.written_bytes)):
            seconds.append(wait)
            counts.append(len(data))
            memory = max(memory, held_memory())
        return _Run(seconds, counts, memory)


@dataclass(frozen=True)
class _Run:
    seconds: list[float]
    """Until each piece came; the first is the prompt's."""

    counts: list[int]
    """Bytes of each piece."""

    memory: int


def _waits(pieces: Iterator[bytes]) -> Iterator[tuple[float, bytes]]:
    while True:
        began = time.perf_counter()
        piece = next(pieces, None)
        if piece is None:
            return
        yield time.perf_counter() - began, piece


def held_memory() -> int:
    """Bytes in use now: of the accelerator where there is one, else of this process where the system tells."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return 0
