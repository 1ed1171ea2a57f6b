"""Progress display of `patchbench run` and `bench.run`: bars in a terminal, a line now and then where there is none.

These go to standard error, so that standard output has the result alone. In a notebook it is a table in the cell's
output.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from itertools import islice
from typing import Any, Protocol, Self

from rich import filesize
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
LINE_EVERY = 30.0
"""Seconds between two lines of a training where there is no terminal: enough to see that it goes on, and how fast."""


class Trained(Protocol):
    """How far a training is."""

    bytes: int
    curve: list[list[float]]


@dataclass(frozen=True)
class Pace:
    """How fast a training has been since it was first looked at."""

    begin: int
    """Bytes that had been read then."""
    since: float

    @classmethod
    def at(cls, read: int) -> Self:
        return cls(read, time.monotonic())

    def rate(self, read: int) -> float | None:
        """Bytes a second; None until there are two moments to compare."""
        seconds = time.monotonic() - self.since
        return (read - self.begin) / seconds if seconds > 0 and read > self.begin else None

    def words(self, read: int, total: int) -> tuple[str, str, str]:
        """How far it is, how fast, and how long it will take."""
        rate = self.rate(read)
        far = f"{filesize.decimal(read)} of {filesize.decimal(total)}"
        if rate is None:
            return far, "", ""
        return far, f"{filesize.decimal(int(rate))}/s", str(timedelta(seconds=round((total - read) / rate)))


def bits(progress: Trained) -> str:
    """The latest loss of a training, in words."""
    return f"{progress.curve[-1][2]:.3f} bpb" if progress.curve else ""


def ended(title: str, record: dict[str, Any]) -> list[str]:
    """Lines about a run that has ended."""
    if record["status"] != "ok":
        return [f"{title} failed: {record['error']['kind']}: {record['error']['message']}"]
    seconds = record["cost"].get("train_seconds", 0.0) + record["cost"]["score_seconds"]
    metrics = (
        (name, metric["documents"])
        for task in record["tasks"].values()
        for name, metric in islice(task.get("metrics", {}).items(), METRICS_SHOWN)
    )
    values = [f"{name} {sum(d[1] for d in docs) / sum(d[2] for d in docs):.3f}" for name, docs in metrics]
    failed = [f"{title} task {name}: {t['error']['message']}" for name, t in record["tasks"].items() if "error" in t]
    return [f"{title} done: {', '.join(values)} ({seconds:.0f} s)", *failed]


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
        self.pace: Pace | None = None  # of the training that the bar is about
        self.said = time.monotonic()  # when the last line was printed, where there is no terminal
        self.title = ""
        self.ran = 0
        """Runs that ended while this display, or one beside it, listened."""
        self.first = self

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.bars.stop()

    def beside(self) -> "Display":
        """Another line of the same display, for another process's runs."""
        other = Display(self.console, self.bars)
        other.first = self.first
        return other

    def line(self, message: str) -> None:
        """A line that stays, with or without a terminal."""
        self.said = time.monotonic()
        self.console.print(message, markup=False)

    def say(self, message: str) -> None:
        """What is going on; it is gone with the next."""
        self.pace = None
        if self.title and self._is_time_for_a_line():
            self.line(f"{self.title}  {message}")
        self._show(f"{self.title}  {message}".strip(), None, 0)

    def run_begins(self, run_id: str, number: int, total: int) -> None:
        self.title, self.pace = f"[{number}/{total}] {run_id}", None

    def trained(self, progress: Trained, total_bytes: int) -> None:
        title = f"{self.title}  {bits(progress)}".strip()
        if self.pace is None or self.task is None:  # a new bar, so that the rate is that of these steps alone
            self._show(title, total_bytes, progress.bytes)
            self.pace = Pace.at(progress.bytes)
            return
        self.bars.update(self.task, description=title, completed=progress.bytes)
        if self._is_time_for_a_line():
            far, rate, left = self.pace.words(progress.bytes, total_bytes)
            self.line(f"{self.title}  {far}, {rate}, {left} left, {bits(progress)}")

    def _is_time_for_a_line(self) -> bool:
        return not self.console.is_terminal and time.monotonic() - self.said >= LINE_EVERY

    def _show(self, description: str, total: int | None, completed: int) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
        self.task = self.bars.add_task(description, total=total, completed=completed)
        self.bars.refresh()

    def run_ends(self, record: dict[str, Any]) -> None:
        self.first.ran += 1
        for line in ended(self.title, record):
            self.line(line)


def shell() -> Any:
    """IPython, where its display can be used: in the kernel of a notebook. None elsewhere."""
    ipython = sys.modules.get("IPython")  # whoever has a notebook has imported it
    found = ipython.get_ipython() if ipython is not None else None
    return ipython if hasattr(found, "kernel") else None


class NotebookDisplay(Display):
    """The same as a table in a notebook: a row for each run that is under way, and the lines of those that ended."""

    def __init__(self, ipython: Any, table: "LiveTable | None" = None) -> None:
        super().__init__(Console(quiet=True))
        self.ipython = ipython
        self.table = table or LiveTable(ipython)
        self.cells = self.table.add()

    def beside(self) -> "NotebookDisplay":
        other = NotebookDisplay(self.ipython, self.table)
        other.first = self.first
        return other

    def line(self, message: str) -> None:
        self.table.lines.append(message)
        self.table.show(now=True)

    def say(self, message: str) -> None:
        self.pace = None
        self.cells[:] = [self.title, message, "", "", "", ""]
        self.table.show()

    def trained(self, progress: Trained, total_bytes: int) -> None:
        self.pace = self.pace or Pace.at(progress.bytes)
        self.cells[:] = [self.title, "training", *self.pace.words(progress.bytes, total_bytes), bits(progress)]
        self.table.show()

    def run_ends(self, record: dict[str, Any]) -> None:
        super().run_ends(record)
        self.cells.clear()

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self.table.close()


class LiveTable:
    """HTML in the output of a cell, which is replaced as runs go on."""

    HEAD = ("run", "what", "read", "rate", "time left", "loss")
    SHOWN_EVERY = 1.0
    """Seconds: the browser gets each state over the network."""

    def __init__(self, ipython: Any) -> None:
        self.ipython = ipython
        self.rows: list[list[str]] = []
        self.lines: list[str] = []
        self.handle: Any = None
        self.shown = -float("inf")

    def add(self) -> list[str]:
        """A row of its own; it is shown while there is something in it."""
        self.rows.append([])
        return self.rows[-1]

    def show(self, now: bool = False) -> None:
        if not now and time.monotonic() - self.shown < self.SHOWN_EVERY:
            return
        self.shown = time.monotonic()
        page = self.ipython.display.HTML(self.html())
        if self.handle is None:
            self.handle = self.ipython.display.display(page, display_id=True)
        else:
            self.handle.update(page)

    def close(self) -> None:
        """What stays: the lines."""
        self.rows = []
        self.show(now=True)

    def html(self) -> str:
        def row(cells: Sequence[str], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

        rows = [row(cells, "td") for cells in self.rows if cells]
        table = f"<table>{row(self.HEAD, 'th')}{''.join(rows)}</table>" if rows else ""
        lines = "".join(f"<div>{escape(line)}</div>" for line in self.lines)
        return f"<div>{lines}{table}</div>"


def display(quiet: bool = False) -> Display:
    """What shows progress here: a table in a notebook, else bars or lines on standard error."""
    notebook = shell()
    if quiet:
        return Display(Console(quiet=True))
    return Display() if notebook is None else NotebookDisplay(notebook)
