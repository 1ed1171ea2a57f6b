"""Progress where there is no terminal, and in a notebook."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tiny_suite import write_suite

from bench.system import progress
from bench.system.progress import Display, NotebookDisplay, display, shell

LINE = r"\[1/1\] stride-s0-[0-9a-f]{12}  [\d.]+ kB of [\d.]+ kB, [\d.]+ (bytes|kB)/s, \d+:\d\d:\d\d left, [\d.]+ bpb"


def trained(read: int, loss: float = 2.5) -> Any:
    return SimpleNamespace(bytes=read, curve=[[0, read, loss, 0.01]])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_a_line_every_thirty_seconds(clock: Any) -> None:
    file = io.StringIO()
    with Display(Console(file=file, width=200)) as shown:
        shown.run_begins("words-s0-abc", 2, 6)
        for _ in range(100):
            clock.seconds += 1
            shown.trained(trained(int(10_000 * (clock.seconds - 1000))), 2_000_000)
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "[2/6] words-s0-abc  300.0 kB of 2.0 MB, 10.0 kB/s, 0:02:50 left, 2.500 bpb"
    assert lines[2].startswith("[2/6] words-s0-abc  900.0 kB of 2.0 MB")


def test_long_work_without_steps_is_told_of_too(clock: Any) -> None:
    file = io.StringIO()
    with Display(Console(file=file, width=200)) as shown:
        shown.run_begins("words-s0-abc", 1, 1)
        shown.say("fitting bpe")
        clock.seconds += 31
        shown.say("cutting with bpe")
    assert file.getvalue().splitlines() == ["[1/1] words-s0-abc  cutting with bpe"]


def test_in_a_terminal_there_is_a_bar_and_no_line(clock: Any) -> None:
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=True, width=100)) as shown:
        for _ in range(3):
            clock.seconds += 100
            shown.trained(trained(int(clock.seconds)), 2_000)
    assert "left," not in file.getvalue()


BACKGROUND = """
import sys
from bench.cli.main import main
from bench.system import progress
progress.LINE_EVERY = 0.0
sys.exit(main(["run", sys.argv[1], "train.bytes=400_000", "--results", "results", "--workers", sys.argv[2]]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_in_the_background_says_how_far_it_is(tmp_path: Path, workers: int) -> None:
    """A run of hours once printed nothing until it ended."""
    suite = write_suite(tmp_path, {"stride": {"patcher": "stride"}})
    command = [sys.executable, "-c", BACKGROUND, str(suite), str(workers)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(LINE, done.stderr), done.stderr
    assert "stride" in done.stdout
    assert "left," not in done.stdout


# --- a notebook


class Handle:
    def __init__(self, pages: list[str]) -> None:
        self.pages = pages

    def update(self, page: str) -> None:
        self.pages.append(page)


def notebook(pages: list[str]) -> Any:
    def show(page: str, display_id: bool) -> Handle:
        assert display_id
        pages.append(page)
        return Handle(pages)

    return SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1), display=SimpleNamespace(HTML=str, display=show)
    )


def test_a_notebook_has_a_table_of_the_runs_that_go_on(clock: Any) -> None:
    pages: list[str] = []
    with NotebookDisplay(notebook(pages)) as shown:
        other = shown.beside()
        for one, name in ((shown, "a-s0"), (other, "<b>-s0")):
            one.run_begins(name, 1, 2)
        for _ in range(20):
            clock.seconds += 0.3
            shown.trained(trained(int(1000 * (clock.seconds - 1000))), 100_000)
            other.say("fitting")
        record = {"status": "failed", "error": {"kind": "diverged", "message": "loss 99"}}
        other.run_ends(record)
    assert 6 <= len(pages) <= 9, "one a second, and what stays"
    assert "<td>[1/2] a-s0</td><td>training</td>" in pages[5]
    assert "of 100.0 kB</td><td>1.0 kB/s</td><td>0:01:3" in pages[5]
    assert "<td>[1/2] &lt;b&gt;-s0</td><td>fitting</td>" in pages[5]
    assert pages[-1] == "<div><div>[1/2] &lt;b&gt;-s0 failed: diverged: loss 99</div></div>"
    assert shown.ran == 1


def test_what_is_shown_depends_on_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert shell() is None
    assert type(display()) is Display
    monkeypatch.setitem(sys.modules, "IPython", notebook([]))
    assert type(display()) is NotebookDisplay
    assert type(display(quiet=True)) is Display
    at_a_prompt = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", at_a_prompt)
    assert shell() is None
