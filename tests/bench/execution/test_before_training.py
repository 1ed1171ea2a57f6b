"""What can be known before training is said before it, by `plan` and `run` alike, and nothing is trained."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import tiny_suite, write_suite

from bench import records
from bench.cli.main import main
from bench.execution import plan, run
from bench.execution.workers import Job, run_on_ranks, run_on_workers
from bench.reporting.table import check_columns
from bench.suites.catalog import shipped_suites
from bench.suites.config import load_suite
from bench.system.files import CannotWrite
from patchers.errors import BenchError

ROWS: dict[str, dict[str, Any]] = {"stride": {"patcher": "stride"}, "bytes": {"model": "byte_lm"}}
COSTS = """
from bench.tasks import Task, register_task
from dataclasses import dataclass
from patchers import Patcher, register
import numpy as np

@register("NAME-costs")
class Costs(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % 4 == 0
    def flops_per_byte(self):
        return float("nan")

@register_task("NAME-breaks")
@dataclass(frozen=True)
class Breaks(Task):
    def check(self, data):
        raise ZeroDivisionError("of the plug-in")
    def run(self, model, material):
        raise AssertionError("asked after all")
"""
ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "spelling": ({"tasks": ["bpb", "spelling"]}, r"spelling found \d+ words and \d+ clauses"),
    "probe": ({"tasks": ["bpb", "probe"]}, r"probe found \d+ test words and \d+ training words"),
    "noise": ({"tasks": [{"name": "noise", "choices": {"file": "none.txt"}}]}, "cannot read none.txt"),
    "CUTE": ({"tasks": [{"name": "spelling", "cute": "none"}]}, r"cannot read none/.*\.tsv"),
    "plug-in": ({"tasks": ["NAME-breaks"]}, r"-breaks cannot check its texts: ZeroDivisionError: of"),
    "texts": ({"eval": {"code": {"files": ["none.jsonl"], "field": "text"}}}, "none.jsonl"),
    "columns": ({"columns": ["row", "bpb", "pbp"]}, "unknown column 'pbp', did you mean 'bpc'"),
    "columns of a task": ({"columns": ["row", "noise.after"]}, "unknown column 'noise.after'"),
}


@pytest.fixture(autouse=True)
def _trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def trains(*_: Any) -> None:
        raise AssertionError("something is trained")

    for module in (run, plan):
        monkeypatch.setattr(module, "make_model", trains)


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("what", ASKED)
def test_it_is_one_sentence_and_nothing_is_made(
    what: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    name = f"before-{what}-{command}".replace(" ", "-")
    (tmp_path / "costs.py").write_text(COSTS.replace("NAME", name))
    changes, words = ASKED[what]
    path = write_suite(tmp_path, ROWS, plugins=["costs.py"], **changes)
    path.write_text(path.read_text().replace("NAME", name))
    assert main([command, str(path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("patchbench: error: ")
    assert re.search(words, said), said
    assert not list(Path("results").glob("tiny/**/*")), "no record and no checkpoint"


def test_workers_and_ranks_are_not_begun(tmp_path: Path) -> None:
    path = write_suite(tmp_path, ROWS, tasks=["spelling"])
    suite, job = tiny_suite(tmp_path, rows=ROWS, tasks=["spelling"]), Job(str(path), (), (), tmp_path / "r")
    for begin in (
        lambda: run_on_workers(job, suite, 2, run.Silent(), run.Silent),
        lambda: run_on_ranks(job, suite, run.Silent()),
        lambda: run.run_suite(suite, tmp_path / "r"),
    ):
        with pytest.raises(BenchError, match="spelling found"):
            begin()


def test_a_suite_that_is_done_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = tiny_suite(tmp_path, rows=ROWS, tasks=["spelling"])
    monkeypatch.setattr(records, "done", lambda record: True)
    assert run.run_suite(suite, tmp_path / "r").records == []


def test_a_disk_that_is_too_full_for_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []

    def nearly_full(folder: Path) -> Any:
        asked.append(folder)
        return usage(2**30, 2**30 - 10_000, 10_000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    suite = tiny_suite(tmp_path, rows={"stride": {"patcher": "stride"}})
    words = r"row 'stride' has 0 M parameters, whose checkpoints take up to 0\.0 GiB, and the disk of .* has 0\.0 GiB"
    with pytest.raises(BenchError, match=words):
        plan.plan_rows(suite, tmp_path / "cache", tmp_path / "new" / "results")
    assert asked == [tmp_path], "the nearest folder that is there"
    with pytest.raises(CannotWrite, match="make room, choose another folder with --results, or smaller sizes"):
        run.run_suite(suite, tmp_path / "r")
    assert not list(tmp_path.glob("r/tiny/runs/*")), "a matter of the machine, and of no single run"
    assert asked[-1] == tmp_path / "r"


def test_a_cost_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "costs.py").write_text(COSTS.replace("NAME", "before-run"))
    rows = {"costs": {"patcher": "before-run-costs", "calibrate": False}}
    suite = tiny_suite(tmp_path, rows=rows, plugins=[str(tmp_path / "costs.py")])
    with pytest.raises(BenchError, match="a byte costs nan FLOPs"):
        plan.plan_rows(suite, tmp_path / "cache")
    (record,) = run.run_suite(suite, tmp_path / "r").records
    assert "a byte costs nan FLOPs" in record["error"]["message"]


def test_suites_that_ship_ask_for_columns_that_there_are() -> None:
    for name in shipped_suites():
        suite = load_suite(name)
        check_columns(suite.columns, {task.name for task in suite.tasks})
