"""Curves of a training for TensorBoard: `log: tensorboard` in a suite."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.evaluation.byte_model import ByteModel
from bench.training.loop import Progress, Report
from patchers.errors import BenchError

POINTS = 10
"""How often in a training the calibration text is scored."""
SCORED_BYTES = 32_768
"""Of the calibration text, at least one document: little beside what is trained between two points."""


def check_installed() -> None:
    """Raises BenchError where TensorBoard is not."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BenchError("`log: tensorboard` needs TensorBoard: pip install 'patchbench[tensorboard]', or leave it out")


class Curves:
    """Hears a training as its listener does, and writes what it hears; the x axis is bytes read.

    Curves: `loss` (bits per byte of the batch before each step that the record keeps), `calibration` (bits per byte of
    calibration text, `POINTS` times), `learning_rate`, and `bytes_per_second` of the steps alone. Nothing that is
    trained depends on it.
    """

    def __init__(self, folder: Path, report: Report, model: ByteModel | None, texts: Sequence[bytes]) -> None:
        """`model` is the one that is trained, None where it cannot be asked meanwhile."""
        from torch.utils.tensorboard import SummaryWriter  # a second

        self.writer = SummaryWriter(str(folder))
        self.report, self.model, self.texts = report, model, texts
        self.next = 0.0  # bytes at which the calibration text is scored
        self.before = (0, 0.0)  # bytes and seconds at the point before
        self.written: int | None = None  # points of the curve

    def __call__(self, progress: Progress, total: int) -> None:
        self.report(progress, total)
        read = progress.bytes
        if self.written is None:  # what a checkpoint brought along was written when it was read
            self.written = sum(point[1] < read for point in progress.curve)
        new = progress.curve[self.written :]  # losses are read a step late, the last one with the one before it
        self.written = len(progress.curve)
        for _, at, loss, rate in new:
            self._write("loss", loss, int(at))
            self._write("learning_rate", rate, int(at))
        if new:
            seconds = progress.seconds - self.before[1]
            if seconds > 0:
                self._write("bytes_per_second", (read - self.before[0]) / seconds, read)
            self.before = (read, progress.seconds)
        if self.model is not None and (read >= self.next or read >= total):
            self.next = read + total / POINTS
            self._write("calibration", bits_per_byte(self.model, self.texts), read)

    def _write(self, name: str, value: float, read: int) -> None:
        self.writer.add_scalar(name, value, read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.writer.close()


def bits_per_byte(model: ByteModel, texts: Sequence[bytes]) -> float:
    """Of texts, each by itself."""
    return sum(float(nats.sum()) for nats in model.nats(texts)) / math.log(2) / sum(map(len, texts))
