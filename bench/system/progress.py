"""Progress display of `patchbench run`.

Both go to standard error, so that standard output has the result alone. Without a terminal there is no bar.
"""

from contextlib import AbstractContextManager
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

METRICS_SHOWN = 3
"""Of each task, in the line of a run that is done."""


class Trained(Protocol):
    """How far a training is."""

    bytes: int
    curve: list[list[float]]


class Display(AbstractContextManager["Display"]):
    """Listens to a suite (`bench.execution.run.Listener`). Counts what was run."""

    def __init__(self, console: Console | None = None, bars: Progress | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.bars = bars or Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None  # the one line of the bar
        self.learning = False
        self.title = ""
        self.ran = 0
        """Runs that ended while this display, or one beside it, listened."""
        self.first = self

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def beside(self) -> "Display":
        """Another line of the same display, for another process's runs."""
        other = Display(self.console, self.bars)
        other.first = self.first
        return other

    def line(self, message: str) -> None:
        """A line that stays, with or without a terminal."""
        self.console.print(message, markup=False)

    def say(self, message: str) -> None:
        """What is going on; it is gone with the next."""
        self._show(f"{self.title}  {message}".strip(), None, 0)
        self.learning = False

    def run_begins(self, run_id: str, number: int, total: int) -> None:
        self.title = f"[{number}/{total}] {run_id}"

    def trained(self, progress: Trained, total_bytes: int) -> None:
        bits = f"  {progress.curve[-1][2]:.2f} bpb" if progress.curve else ""
        if self.learning and self.task is not None:
            self.bars.update(self.task, description=self.title + bits, completed=progress.bytes)
        else:  # a new bar, so that the rate is that of these steps alone
            self._show(self.title + bits, total_bytes, progress.bytes)
            self.learning = True

    def _show(self, description: str, total: int | None, completed: int) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(description, total=total, completed=completed)
        self.bars.refresh()

    def run_ends(self, record: dict[str, Any]) -> None:
        self.first.ran += 1
        if record["status"] != "ok":
            self.line(f"{self.title} failed: {record['error']['kind']}: {record['error']['message']}")
            return
        seconds = record["cost"].get("train_seconds", 0.0) + record["cost"]["score_seconds"]
        metrics = (
            (name, metric["documents"])
            for task in record["tasks"].values()
            for name, metric in islice(task.get("metrics", {}).items(), METRICS_SHOWN)
        )
        values = [f"{name} {sum(d[1] for d in docs) / sum(d[2] for d in docs):.3f}" for name, docs in metrics]
        self.line(f"{self.title} done: {', '.join(values)} ({seconds:.0f} s)")
        for name, task in record["tasks"].items():
            if "error" in task:
                self.line(f"{self.title} task {name}: {task['error']['message']}")
